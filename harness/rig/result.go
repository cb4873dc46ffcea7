package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Result is the outcome of one harness, one line of JSON. A figure may be published from such a line alone.
type Result struct {
	Test    string           `json:"test"`
	Store   string           `json:"store,omitempty"`
	Commit  string           `json:"commit"` // with "+changes" where the tree was not clean
	Seed    uint64           `json:"seed"`
	Planted string           `json:"planted"` // what the harness was shown first, and saw
	Counts  map[string]int64 `json:"counts"`
	Failed  []string         `json:"failed"`
	Seconds float64          `json:"seconds"`
	Machine string           `json:"machine"`
	Command string           `json:"command"`

	mu    sync.Mutex
	began time.Time
}

// Begin begins a result.
func Begin(ctx context.Context, test, store string, seed uint64) *Result {
	r := &Result{
		Test: test, Store: store, Seed: seed, Commit: commit(ctx), Machine: machine(), Command: strings.Join(os.Args, " "),
		Counts: map[string]int64{}, Failed: []string{}, began: time.Now(),
	}
	if c := os.Getenv("HARNESS_COMMAND"); c != "" {
		r.Command = c // the script that runs the harness, as a person repeats it
	}
	return r
}

// Add counts.
func (r *Result) Add(what string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Counts[what] += n
}

// Fail notes a failure, and says it.
func (r *Result) Fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	r.Failed = append(r.Failed, text)
	fmt.Fprintf(os.Stderr, "FAILED %s: %s\n", r.Test, text)
}

// Failures is how many there are.
func (r *Result) Failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.Failed)
}

// End writes the line, and reports whether nothing failed.
func (r *Result) End(w io.Writer) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Seconds = float64(time.Since(r.began).Round(10*time.Millisecond)) / float64(time.Second)
	line, err := json.Marshal(r)
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", line)
	}
	return len(r.Failed) == 0, err
}

// Conclude says how it went and is End, whose failures are an error.
func (r *Result) Conclude(w io.Writer) error {
	fmt.Fprintln(os.Stderr, r.Summary())
	fine, err := r.End(w)
	if err == nil && !fine {
		err = fmt.Errorf("%s: %d failures on %s", r.Test, len(r.Failed), r.Store)
	}
	return err
}

// Summary is a line for a person.
func (r *Result) Summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %.0f s, seed %d", r.Test, r.Store, time.Since(r.began).Seconds(), r.Seed)
	for _, k := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(&b, ", %s %d", k, r.Counts[k])
	}
	fmt.Fprintf(&b, ", failures %d", len(r.Failed))
	return b.String()
}

func commit(ctx context.Context) string {
	root, err := Repository(ctx)
	if err != nil {
		return "unknown"
	}
	git := func(args ...string) string {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	c := git("rev-parse", "--short=12", "HEAD")
	if c == "" {
		return "unknown"
	}
	if git("status", "--porcelain") != "" {
		c += "+changes"
	}
	return c
}

// machine says in a few words what the figures were measured on.
func machine() string {
	model, memory := "", ""
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "model name"); ok {
				model = strings.Trim(v, " \t:\n")
				break
			}
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int64
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kb); err == nil {
			memory = fmt.Sprintf(", %d GiB", (kb+1<<19)>>20)
		}
	}
	kernel := ""
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = ", Linux " + strings.TrimSpace(string(text))
	}
	return fmt.Sprintf("%d × %s%s%s, %s", runtime.NumCPU(), model, memory, kernel, runtime.Version())
}
