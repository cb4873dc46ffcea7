//go:build linux

package dir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
)

// childVariable makes this test binary one of the processes of a test: what it does, then its arguments.
const childVariable = "PERENNE_STORAGE_DIR_CHILD"

func TestMain(m *testing.M) {
	if args := os.Getenv(childVariable); args != "" {
		if err := child(strings.Split(args, "\n")); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(args []string) error {
	root := args[1]
	switch args[0] {
	case "contend":
		return contend(root, args[2])
	case "deposit":
		return deposit(root, args[2], args[3], args[4] == "flags")
	}
	return inOtherCircumstances(args[0], root)
}

// command is this test binary as another process.
func command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, os.Args[0])
	c.Env = append(os.Environ(), childVariable+"="+strings.Join(args, "\n"))
	c.Stderr = os.Stderr
	return c
}

const contended = 60

// contend puts the same keys as its competitors and prints those it won.
func contend(root, name string) error {
	s, err := Open(root, Options{Immutable: Off})
	if err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	for i := range contended {
		key := fmt.Sprintf("p/%d/%d/ledger", i%7, i)
		switch err := put(s, key, name+key); {
		case err == nil:
			fmt.Println(key)
		case !errors.Is(err, storage.ErrExists):
			return err
		}
	}
	return s.Close()
}

func TestOfContendingProcessesOneWinsEachKey(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	const processes = 4
	var out [processes]strings.Builder
	var commands [processes]*exec.Cmd
	var start [processes]func() error
	for i := range processes {
		c := command(t.Context(), "contend", root, "process "+strconv.Itoa(i)+" ")
		c.Stdout = &out[i]
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		start[i] = func() error {
			_, err := in.Write([]byte("go\n"))
			return err
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		commands[i] = c
	}
	for _, f := range start {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	s := opened(t, filepath.Join(root))
	winners := map[string]int{}
	for i, c := range commands {
		if err := c.Wait(); err != nil {
			t.Fatalf("process %d: %v\n%s", i, err, out[i].String())
		}
		for key := range strings.FieldsSeq(out[i].String()) {
			if other, ok := winners[key]; ok {
				t.Errorf("%s: processes %d and %d were both told that theirs was created", key, other, i)
			}
			winners[key] = i
		}
	}
	if len(winners) != contended {
		t.Errorf("keys won: got %d, want %d", len(winners), contended)
	}
	for key, i := range winners {
		if got, err := get(s, key); got != fmt.Sprintf("process %d %s", i, key) || err != nil {
			t.Errorf("%s: got %q, %v, want the bytes of process %d", key, got, err, i)
		}
	}
}

// deposit puts objects until it is killed and prints the key of each when it is acknowledged.
func deposit(root, round, drafts string, flags bool) error {
	o := Options{Immutable: Off}
	if flags {
		o.Immutable = On
	}
	s, err := Open(root, o)
	if err != nil {
		return err
	}
	s.unnamed = s.unnamed && drafts != "named"
	create := func(key string) error { return put(s, key, deposited(key)) }
	if drafts == "none" {
		create = func(key string) error { return carelessly(filepath.Join(root, key), deposited(key)) }
	}
	failed := make(chan error)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("p/%s/%d/%d", round, w, i)
				if err := create(key); err != nil {
					failed <- err
				}
				fmt.Println(key)
			}
		}()
	}
	return <-failed
}

// carelessly writes a file in place, as a store must not.
func carelessly(path, data string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(data) {
		if _, err := f.WriteString(line); err != nil {
			return err
		}
	}
	return f.Close()
}

// deposited is what deposit puts under a key.
func deposited(key string) string { return strings.Repeat(key+"\n", 3000) }

// TestKilledProcessLeavesWholeObjectsOnly kills a writer again and again: what it acknowledged is there, what
// is there is whole, and the next Open clears away the rest and sets the flags that were due.
func TestKilledProcessLeavesWholeObjectsOnly(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for _, mode := range []struct{ drafts, flags string }{{"unnamed", "plain"}, {"named", "plain"}, {"unnamed", "flags"}, {"named", "flags"}} {
		t.Run(mode.drafts+" "+mode.flags, func(t *testing.T) {
			root := t.TempDir()
			if mode.flags == "flags" {
				root = flagged(t)
			}
			for _, finding := range killAgainAndAgain(t, root, mode.drafts, mode.flags, rounds) {
				t.Error(finding)
			}
		})
	}
}

// TestKillingFindsACarelessWriter shows that the test above can fail.
func TestKillingFindsACarelessWriter(t *testing.T) {
	for range 20 {
		if findings := killAgainAndAgain(t, t.TempDir(), "none", "plain", 2); len(findings) > 0 {
			t.Log(findings[0])
			return
		}
	}
	t.Error("20 times two kills of a writer that writes in place: got no finding")
}

func killAgainAndAgain(t *testing.T, root, drafts, flags string, rounds int) (findings []string) {
	t.Helper()
	acknowledged := map[string]bool{}
	for round := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := command(ctx, "deposit", root, strconv.Itoa(round), drafts, flags)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if !strings.HasPrefix(lines.Text(), "p/") {
				t.Errorf("writer said %q", lines.Text())
			}
			acknowledged[lines.Text()] = true
			if n == 20 {
				time.AfterFunc(time.Duration(round)*3*time.Millisecond, cancel) // kills
			}
		}
		_ = c.Wait()
		findings = append(findings, inspect(t, root, flags == "flags", acknowledged)...)
	}
	return findings
}

// inspect opens the store after a kill and says what is wrong with it.
func inspect(t *testing.T, root string, flags bool, acknowledged map[string]bool) (findings []string) {
	t.Helper()
	open := opened
	if flags {
		open = immutable
	}
	s := open(t, root)
	found := func(format string, args ...any) { findings = append(findings, fmt.Sprintf(format, args...)) }
	there := map[string]bool{}
	for _, key := range keys(t, s, "") {
		there[key] = true
		// The flag first: reading would set it.
		if flags && !isFlagged(t, filepath.Join(root, key)) {
			found("%s: has no flag after the next Open", key)
		}
		if got, err := get(s, key); got != deposited(key) || err != nil {
			found("%s: got %d bytes, %v, want the whole object", key, len(got), err)
		}
	}
	for key := range acknowledged {
		if !there[key] {
			found("%s: was acknowledged and is not there", key)
		}
	}
	left, err := fs.Glob(os.DirFS(root), ".tmp-*/*")
	if err != nil || len(left) > 0 {
		found("left by dead processes: got %q, %v, want nothing", left, err)
	}
	return findings
}
