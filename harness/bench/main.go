// Command bench measures Perenne as a user would, with perenne bench, on the embedded store and on the S3 servers that
// scripts/servers builds; two daemons on a store that is far away; uploads of 1 GiB; and the same work as a shell
// pipeline of sha256sum, openssl and cp.
//
// Each part's figures go into a file of their own, with machine, command and commit, so that parts can be measured on
// different days; the page and its chart are made of whatever files there are.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/marchesud/perenne/storage/s3/s3test"
)

func main() {
	m := &campaign{}
	flag.StringVar(&m.program, "program", "", "the perenne to measure")
	flag.StringVar(&m.out, "out", "docs/benchmarks.md", "page to write; the chart goes beside it")
	flag.StringVar(&m.evidence, "evidence", "docs/evidence", "folder of the figures, a file for each part")
	flag.StringVar(&m.disk, "disk", os.TempDir(), "folder on the file system to measure")
	flag.StringVar(&m.parts, "parts", strings.Join(order, ","), "what to measure; empty: only write the page")
	flag.StringVar(&m.sizes, "sizes", "10KB,100KB,1MB", "of documents")
	flag.DurationVar(&m.duration, "duration", 5*time.Second, "of a round")
	flag.IntVar(&m.rounds, "rounds", 3, "of archive and yardstick")
	flag.IntVar(&m.large, "large", 32, "uploads of 1 GiB at once")
	flag.Parse()
	if err := m.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// order is that of the page.
var order = []string{"dir", "minio", "versitygw", "pipeline", "fleet", "large"}

type campaign struct {
	program, out, evidence, disk, parts, sizes string
	duration                                   time.Duration
	rounds, large                              int
}

// result is what perenne bench --json prints, and what a part leaves.
type result struct {
	Program    string `json:"program,omitempty"`
	System     string `json:"system,omitempty"`
	Processors int    `json:"processors"`
	Machine    string `json:"machine"`
	Commit     string `json:"commit"`
	Command    string `json:"command"`
	Rows       []row  `json:"rows"`
}

type row struct {
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target float64 `json:"target,omitempty"`
	Met    *bool   `json:"met,omitempty"`
	Note   string  `json:"note,omitempty"`
	Ours   []rate  `json:"ours,omitempty"`
}

type rate struct {
	PerSecond float64 `json:"per_second"`
}

// want sets what a row should reach, or at most be.
func (r *row) want(target float64, atMost bool) {
	met := r.Value >= target
	if atMost {
		met = r.Value <= target
	}
	r.Target, r.Met = target, &met
}

func (m *campaign) run(ctx context.Context) error {
	if m.parts != "" && m.program == "" {
		return errors.New("-program: name the perenne to measure")
	}
	if err := os.MkdirAll(m.evidence, 0o755); err != nil { // before hours of measuring
		return err
	}
	work, err := os.MkdirTemp(m.disk, "perenne-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	for _, part := range strings.FieldsFunc(m.parts, func(r rune) bool { return r == ',' }) {
		if err := m.part(ctx, part, filepath.Join(work, part)); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	results, err := m.results()
	if err != nil {
		return err
	}
	if err := os.WriteFile(strings.TrimSuffix(m.out, ".md")+".svg", chart(results), 0o644); err != nil {
		return err
	}
	return os.WriteFile(m.out, m.page(results), 0o644)
}

// part measures one part, in a folder of its own, and writes its figures.
func (m *campaign) part(ctx context.Context, name, work string) (err error) {
	measure, ok := map[string]func(context.Context, string) (result, error){
		"dir":       func(ctx context.Context, work string) (result, error) { return m.store(ctx, "dir", work) },
		"minio":     func(ctx context.Context, work string) (result, error) { return m.store(ctx, "minio", work) },
		"versitygw": func(ctx context.Context, work string) (result, error) { return m.store(ctx, "versitygw", work) },
		"pipeline":  m.pipeline, "fleet": m.fleet, "large": m.uploads,
	}[name]
	if !ok {
		return fmt.Errorf("no such part; there are %s", strings.Join(order, ", "))
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	fmt.Fprintf(os.Stderr, "== %s\n", name)
	r, err := measure(ctx, work)
	if err != nil {
		return err
	}
	r.Machine, r.Commit = machine(), commit()
	if r.Command = os.Getenv("HARNESS_COMMAND"); r.Command == "" {
		r.Command = strings.Join(os.Args, " ")
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(m.file(name), append(text, '\n'), 0o644)
}

func (m *campaign) file(part string) string {
	return filepath.Join(m.evidence, "bench-"+part+".json")
}

// results are the figures that there are, by part.
func (m *campaign) results() (map[string]result, error) {
	all := map[string]result{}
	for _, part := range order {
		text, err := os.ReadFile(m.file(part))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var r result
		if err := errors.Join(err, json.Unmarshal(text, &r)); err != nil {
			return nil, fmt.Errorf("%s: %w", m.file(part), err)
		}
		all[part] = r
	}
	return all, nil
}

// store measures one store by every row of perenne bench.
func (m *campaign) store(ctx context.Context, store, work string) (result, error) {
	var r result
	if err := m.bench(ctx, store, work, &r, "--sizes", m.sizes); err != nil {
		return r, err
	}
	// For information: the targets are those of one producer, with a key of P-256 and an authority that is near.
	also := func(name string, more ...string) error {
		var other result
		if err := m.bench(ctx, store, work, &other, append([]string{"--sizes", "10KB"}, more...)...); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, w := range other.Rows {
			if size, ok := strings.CutPrefix(w.What, "ingest "); ok {
				w.What, w.Target, w.Met = name+", "+size, 0, nil
				r.Rows = append(r.Rows, w)
			}
		}
		return nil
	}
	if err := also("64 producers", "--producers", "64"); err != nil {
		return r, err
	}
	if store == "dir" {
		signers, stop, err := otherSigners(ctx, work)
		if err != nil {
			return r, err
		}
		defer stop()
		err = errors.Join(also("RSA-2048 seal key", signers[:4]...), also("timestamp authority 50 ms away", signers[4:]...))
		if err != nil {
			return r, err
		}
	}
	if store == "versitygw" { // it never syncs: DESIGN §6 asks less of it
		for i := range r.Rows {
			if t := map[string]float64{"ingest 10 KB": 0.50, "ingest 100 KB": 0.60, "ingest 1 MB": 0.65}[r.Rows[i].What]; t > 0 {
				r.Rows[i].want(t, false)
			}
		}
	}
	return r, nil
}

// bench runs perenne bench once, on a server of its own where the store is one.
func (m *campaign) bench(ctx context.Context, store, work string, to *result, more ...string) error {
	args := append([]string{"bench", "--json", "--lang", "en", "--store", work, "--rounds", fmt.Sprint(m.rounds), "--duration", m.duration.String()}, more...)
	if store != "dir" {
		data := filepath.Join(work, "server")
		server, err := s3test.Run(ctx, store, data)
		if err != nil {
			return err
		}
		defer func() { _, _ = server.Kill(), os.RemoveAll(data) }()
		secret := filepath.Join(work, "secret")
		if err := os.WriteFile(secret, []byte(server.SecretKey+"\n"), 0o600); err != nil {
			return err
		}
		args = append(args, "--s3-url", "http://"+server.Endpoint, "--s3-bucket", server.Bucket, "--s3-access-key", server.AccessKey, "--s3-secret-file", secret)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, m.program, args...)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	return json.Unmarshal(out.Bytes(), to)
}

// machine says where this was measured, and how busy it was.
func machine() string {
	cpu, _ := exec.Command("sh", "-c", `sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1; uname -r; cut -d' ' -f2 /proc/loadavg`).Output()
	f := strings.Split(strings.TrimSpace(string(cpu)), "\n")
	if len(f) < 3 {
		return "unknown machine"
	}
	return fmt.Sprintf("%s, Linux %s, mean load of the last five minutes %s", f[0], f[1], f[2])
}

func commit() string {
	c, _ := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	dirty, _ := exec.Command("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs").Output()
	if len(dirty) > 0 {
		return strings.TrimSpace(string(c)) + "+changes"
	}
	return strings.TrimSpace(string(c))
}
