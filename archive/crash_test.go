package archive_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/catalog"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/spool"
)

// death ends the goroutine that reaches its label once it is armed: the nearest thing to kill -9 within a process.
type death struct {
	label string
	armed atomic.Bool
}

func (d *death) arrange(cfg *archive.Config) {
	cfg.Crash = func(at string) {
		if at == d.label && d.armed.CompareAndSwap(true, false) {
			runtime.Goexit()
		}
	}
}

// A child is this test binary, started again to do one thing and die at a label.
const childEnv = "PERENNE_TEST_CHILD"

// order is what a child is told.
type order struct {
	Root, State, Do, Label string
	Spool                  bool // with a spool in front of the store, in the state folder
	Keys                   archivetest.Keys
}

// works are what a child can be told to do, and again what the parent does after it died.
func works() map[string]func(*archive.Archive) (*paper.Receipt, error) {
	return map[string]func(*archive.Archive) (*paper.Receipt, error){
		"submit": func(a *archive.Archive) (*paper.Receipt, error) {
			return a.Submit(ctx, archivetest.Determina("50", "testo").Submission(archivetest.Montesole))
		},
		"refuse": func(a *archive.Archive) (*paper.Receipt, error) {
			return a.Submit(ctx, faulty("51").Submission(archivetest.Montesole))
		},
		"report": func(a *archive.Archive) (*paper.Receipt, error) {
			_, err := a.Audit(ctx, archive.Scope{Producer: archivetest.Montesole})
			return nil, err
		},
		"retrieve": func(a *archive.Archive) (*paper.Receipt, error) {
			page, err := a.Search(ctx, catalog.Query{Producer: archivetest.Montesole})
			if err != nil {
				return nil, err
			}
			c, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: page.Records[0].ID, Purpose: "prova", By: "test"})
			if err != nil {
				return nil, err
			}
			return nil, c.Close()
		},
	}
}

const killed = 137

// TestChild is the child; without an order it has nothing to do.
func TestChild(t *testing.T) {
	text := os.Getenv(childEnv)
	if text == "" {
		t.Skip("only as a child of TestADeathAtAnyStepLosesNothingAndDoesNothingTwice")
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	store, err := dir.Open(o.Root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	die := func(at string) {
		if at == o.Label {
			os.Exit(killed)
		}
	}
	b := archivetest.Attach(t, store, o.State, o.Keys)
	b.Vary = func(cfg *archive.Config) { cfg.Crash = die }
	if o.Spool {
		b.Store = openSpool(t, filepath.Join(o.State, "spool"), store, spool.Options{Quota: 1 << 30, Crash: die}).Store()
	}
	if _, err := works()[o.Do](b.MustOpen()); err != nil {
		t.Fatal(err)
	}
}

func TestADeathAtAnyStepLosesNothingAndDoesNothingTwice(t *testing.T) {
	base, baseRoot := newBench(t)
	a := base.MustOpen()
	mustSubmit(t, base, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	base.Close(a)
	s := &settled{keys: base.Keys(), root: baseRoot, state: base.State}
	for do, labels := range map[string][]string{
		"submit": {"received", "packed", "stored", "commit.put.before", "commit.put.after", "commit.mark.before", "commit.mark.after", "commit.applied", "committed", "seal.token", "seal.stored", "sealed"},
		"refuse": {"received", "refusal.stored", "commit.put.before", "commit.put.after", "commit.applied", "seal.stored"},
		"report": {"report.stored", "commit.put.after", "commit.applied"},

		"retrieve": {"commit.put.before", "commit.put.after"},
	} {
		for i, label := range labels {
			if testing.Short() && i%3 != 2 {
				continue
			}
			t.Run(do+"/"+label, func(t *testing.T) {
				t.Parallel()
				b, root := s.copyOf(t)
				runChild(t, order{Root: root, State: b.State, Do: do, Label: label, Keys: s.keys})
				a := b.MustOpen()
				out := audited(t, a, archivetest.Montesole, paper.VerdictGood)
				for _, f := range out.Report.Findings {
					if f.Gravity != paper.Notice || f.Kind != "orphan" {
						t.Errorf("got %+v, want nothing but orphans", f)
					}
				}
				r, err := works()[do](a)
				if err != nil {
					t.Fatalf("done again: %v", err)
				}
				if r != nil {
					mustVerify(t, b, r)
					again, err := works()[do](a)
					if err != nil || fixed(t, again) != fixed(t, r) {
						t.Errorf("a retry got %v, want the same receipt", err)
					}
				}
				wantOnce(t, b, root, do)
				out = audited(t, a, archivetest.Montesole, paper.VerdictGood)
				if do != "report" && len(out.Report.Findings) > 0 { // a report that was not entered stays an orphan
					t.Errorf("in the end: got %+v, want no findings", out.Report.Findings)
				}
				b.Close(a)
			})
		}
	}
}

// wantOnce wants the work done once: one object, one entry.
func wantOnce(t *testing.T, b *archivetest.Bench, root, do string) {
	t.Helper()
	list, keys := entries(t, b, archivetest.Montesole), keysIn(t, root)
	for _, w := range []struct {
		room string
		kind ledger.Type
		want int
	}{
		{"/packages/", ledger.PackageSealed, map[string]int{"submit": 2}[do]},
		{"/refusals/", ledger.SubmissionRefused, map[string]int{"refuse": 1}[do]},
	} {
		if w.want == 0 {
			continue
		}
		if got := len(inRoom(keys, archivetest.Montesole+w.room)); got != w.want {
			t.Errorf("%s: got %d objects, want %d", w.room, got, w.want)
		}
		if got := ofType(list, w.kind); got != w.want {
			t.Errorf("%s: got %d entries, want %d", w.kind, got, w.want)
		}
	}
}

// runChild runs a child and wants it to die at its label.
func runChild(t *testing.T, o order) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(program, "-test.run=^TestChild$", "-test.count=1")
	child.Env = append(os.Environ(), childEnv+"="+string(text))
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != killed {
		t.Fatalf("the child ended with %v, want a death at %s:\n%s", err, o.Label, out)
	}
}

// TestTheLastBundleIsMadeUpForBeforeMoreIsApplied: a death after a commit was applied and before its search bundle was
// put, then one while the next start applies what was committed since. After it the bundle would be nobody's to put. A store
// that does not give the commit at once is waited for: nothing more is applied meanwhile.
func TestTheLastBundleIsMadeUpForBeforeMoreIsApplied(t *testing.T) {
	for _, fails := range []int64{0, 1} {
		t.Run(fmt.Sprintf("%d readings fail", fails), func(t *testing.T) { lastBundleMadeUp(t, fails) })
	}
}

func lastBundleMadeUp(t *testing.T, fails int64) {
	b, root := newBench(t)
	a := b.MustOpen()
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	b.Close(a)
	before := t.TempDir()
	if err := os.CopyFS(before, os.DirFS(b.State)); err != nil {
		t.Fatal(err)
	}
	first := inRoom(keysIn(t, root), archivetest.Montesole+"/catalog/")
	a = b.MustOpen()
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("2", "testo"))
	b.Close(a)
	for _, key := range inRoom(keysIn(t, root), archivetest.Montesole+"/catalog/") {
		if err := os.Remove(filepath.Join(root, filepath.FromSlash(key))); err != nil {
			t.Fatal(err)
		}
	}
	b.State = before
	var once atomic.Bool
	b.Vary = func(cfg *archive.Config) {
		cfg.Crash = func(at string) {
			if at != "commit.indexed" || once.Swap(true) {
				return
			}
			for _, key := range first {
				if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(key))); err != nil {
					t.Errorf("a death now would leave no bundle: %v", err)
				}
			}
		}
	}
	store, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	away := &awayFor{Store: store, room: archivetest.Montesole + "/ledger/"}
	away.times.Store(fails)
	b.Store = away
	a = b.MustOpen()
	defer b.Close(a)
	eventually(t, "the ledger to go on", func() bool { return a.Status(ctx).Producers[0].Stopped == "" })
	if len(first) != 1 || !once.Load() {
		t.Fatalf("bundles %v, commits applied at the start: %v: this test proves nothing", first, once.Load())
	}
	if out := audited(t, a, archivetest.Montesole, paper.VerdictGood); len(out.Report.Findings) > 0 {
		t.Errorf("got %+v, want no findings", out.Report.Findings)
	}
}
