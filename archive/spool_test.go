package archive_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/spool"
	"github.com/marchesud/perenne/storage/storagetest"
)

// openSpool opens a spool in front of a store; it is closed by whoever opened it.
func openSpool(t testing.TB, folder string, s storage.Store, o spool.Options) *spool.Spool {
	t.Helper()
	o.Dir, o.Ballast = folder, -1
	o.Quota = max(o.Quota, 1<<20)
	if o.ReadBack == 0 {
		o.ReadBack = 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	sp, err := spool.Open(ctx, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return sp
}

// TestAStoreThatLosesItsLastWrites has acknowledged submissions on a store that then loses what it had not synced,
// more and more of it, while the archive is closed and while it is open.
func TestAStoreThatLosesItsLastWrites(t *testing.T) {
	for _, n := range []int{1, 4, 13, 40} {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/open=%v", n, open), func(t *testing.T) {
				t.Parallel()
				mem := storagetest.NewMem(t)
				folder := filepath.Join(t.TempDir(), "spool")
				sp := openSpool(t, folder, mem, spool.Options{Quota: 1 << 30})
				b := archivetest.New(t, sp.Store())
				a := b.MustOpen()
				mustSubmit(t, b, a, archivetest.Colli, archivetest.Determina("1", "testo"))
				first := map[string]*paper.Receipt{}
				for i := range 10 {
					number := fmt.Sprint(i)
					first[number] = mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina(number, "testo"))
				}
				if open {
					mem.Lose(n)
				} else {
					b.Close(a)
					if err := sp.Close(); err != nil {
						t.Fatal(err)
					}
					mem.Lose(n)
					sp = openSpool(t, folder, mem, spool.Options{Quota: 1 << 30})
					b.Store = sp.Store()
					a = b.MustOpen()
				}
				for number, r := range first {
					again := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina(number, "testo"))
					if fixed(t, again) != fixed(t, r) {
						t.Errorf("submission %s: another receipt than before the loss", number)
					}
				}
				mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("99", "testo"))
				auditedAfterLoss(t, a)
				if got := a.Status(ctx).Spool; got == nil || got.PutAgain == 0 {
					t.Errorf("status: got %+v, want objects put again", got)
				}
				b.Close(a)
				if err := sp.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// auditedAfterLoss wants a first audit to find nothing but derived objects gone, which it makes again (nobody was
// promised them, and no spool holds them), and a second one to find nothing but orphans. That the store lost what was put again is said by the first.
func auditedAfterLoss(t *testing.T, a *archive.Archive) {
	t.Helper()
	told := false
	for _, code := range []string{archivetest.Montesole, archivetest.Colli} {
		for round := range 2 {
			out, err := a.Audit(ctx, archive.Scope{Producer: code})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range out.Report.Findings {
				derived := strings.HasPrefix(f.Object, code+"/catalog/") || strings.HasPrefix(f.Object, code+"/tiles/")
				told = told || f.Kind == "lost"
				if f.Gravity == paper.Notice && f.Kind == "lost" && round == 0 {
					continue
				}
				if f.Kind != "orphan" && (!derived || round > 0) {
					t.Errorf("audit %d of %s: got %+v", round, code, f)
				}
			}
			if round > 0 && out.Report.Verdict != paper.VerdictGood {
				t.Errorf("second audit of %s: got verdict %s", code, out.Report.Verdict)
			}
			if err := out.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if st := a.Status(ctx).Spool; told != (st.PutAgain > 0) {
		t.Errorf("put again: %d objects; a report said so: %v", st.PutAgain, told)
	}
}

// TestWithoutASpoolTheLossIsFound shows that the test above can fail.
func TestWithoutASpoolTheLossIsFound(t *testing.T) {
	mem := storagetest.NewMem(t)
	b := archivetest.New(t, mem)
	a := b.MustOpen()
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	b.Close(a)
	mem.Lose(3)
	a = b.MustOpen()
	audited(t, a, archivetest.Montesole, paper.VerdictDamaged)
}

// TestADeathAndALossAtOnce is a power cut: the daemon dies at a label and the store loses what it wrote last.
func TestADeathAndALossAtOnce(t *testing.T) {
	base, baseRoot := newBench(t)
	a := base.MustOpen()
	mustSubmit(t, base, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	base.Close(a)
	s := &settled{keys: base.Keys(), root: baseRoot, state: base.State}
	for i, label := range []string{
		"spool.synced", "spool.put.after", "stored", "commit.put.before", "commit.put.after", "commit.mark.after", "commit.applied", "committed", "seal.token", "seal.stored", "sealed",
	} {
		if testing.Short() && i%3 != 2 {
			continue
		}
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			b, root := s.copyOf(t)
			before := keysIn(t, root)
			runChild(t, order{Root: root, State: b.State, Do: "submit", Label: label, Keys: s.keys, Spool: true})
			loseSince(t, root, before)
			sp := openSpool(t, filepath.Join(b.State, "spool"), b.Store, spool.Options{Quota: 1 << 30})
			defer sp.Close()
			b.Store = sp.Store()
			a := b.MustOpen()
			auditedAfterLoss(t, a)
			r, err := works()["submit"](a)
			if err != nil {
				t.Fatalf("done again: %v", err)
			}
			mustVerify(t, b, r)
			audited(t, a, archivetest.Montesole, paper.VerdictGood)
			b.Close(a)
		})
	}
}

// loseSince removes every object that came since.
func loseSince(t *testing.T, root string, before []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		key, err := filepath.Rel(root, path)
		if err == nil && !strings.HasPrefix(key, ".tmp-") && !slices.Contains(before, key) {
			err = os.Remove(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFullSpoolSaysNotNow(t *testing.T) {
	mem := storagetest.NewMem(t)
	sp := openSpool(t, filepath.Join(t.TempDir(), "spool"), mem, spool.Options{Quota: 1 << 20})
	t.Cleanup(func() { _ = sp.Close() })
	b := archivetest.New(t, sp.Store())
	a := b.MustOpen()
	var err error
	n := 0
	for ; err == nil && n < 200; n++ {
		_, err = a.Submit(ctx, archivetest.Determina(fmt.Sprint(n), strings.Repeat("testo ", 10_000)).Submission(archivetest.Montesole))
	}
	if archive.KindOf(err) != archive.Unavailable || !errors.Is(err, storage.ErrFull) || n < 3 {
		t.Fatalf("submission %d: got %v, want unavailable", n, err)
	}
	mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
	b.Close(a)
}

func TestTheSpoolIsEmptiedBehindTheSeals(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	d, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	sp := openSpool(t, filepath.Join(t.TempDir(), "spool"), d, spool.Options{Quota: 1 << 30, ReadBack: time.Second})
	b := archivetest.New(t, sp.Store())
	late := time.Duration(0)
	b.Vary = func(cfg *archive.Config) {
		cfg.Now = func() time.Time { return time.Now().Add(late) }
	}
	a := b.MustOpen()
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	time.Sleep(1500 * time.Millisecond)
	if got := a.Status(ctx).Spool; got.Objects == 0 {
		t.Errorf("given up before it is certain that a seal covers it: got %+v", got)
	}
	b.Close(a)
	late = 2 * time.Minute
	a = b.MustOpen()
	eventually(t, "the spool to be empty", func() bool { return a.Status(ctx).Spool.Objects == 0 })
	mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
	b.Close(a)
	if err := sp.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWhatAnotherDaemonPutIsHeldBeforeItIsAcknowledged has a daemon die between store and commit with all it held,
// another acknowledge the same submission, and the store lose everything that was written since.
func TestWhatAnotherDaemonPutIsHeldBeforeItIsAcknowledged(t *testing.T) {
	base, baseRoot := newBench(t)
	a := base.MustOpen()
	mustSubmit(t, base, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	base.Close(a)
	s := &settled{keys: base.Keys(), root: baseRoot, state: base.State}
	for work, label := range map[string]string{"submit": "stored", "refuse": "refusal.stored"} {
		t.Run(work, func(t *testing.T) {
			b, root := s.copyOf(t)
			before := keysIn(t, root)
			runChild(t, order{Root: root, State: b.State, Do: work, Label: label, Keys: s.keys, Spool: true})
			if len(keysIn(t, root)) != len(before)+1 {
				t.Fatalf("got %q behind %q, want one orphan more", keysIn(t, root), before)
			}
			folder := filepath.Join(t.TempDir(), "spool")
			sp := openSpool(t, folder, b.Store, spool.Options{Quota: 1 << 30})
			bucket := b.Store
			b.Store = sp.Store()
			a := b.MustOpen()
			first, err := works()[work](a)
			if err != nil {
				t.Fatal(err)
			}
			b.Close(a)
			if err := sp.Close(); err != nil {
				t.Fatal(err)
			}
			loseSince(t, root, before)
			sp = openSpool(t, folder, bucket, spool.Options{Quota: 1 << 30})
			defer sp.Close()
			b.Store = sp.Store()
			a = b.MustOpen()
			again, err := works()[work](a)
			if err != nil {
				t.Fatalf("done again: %v", err)
			}
			if fixed(t, again) != fixed(t, first) {
				t.Error("another paper than before the loss")
			}
			auditedAfterLoss(t, a)
			b.Close(a)
		})
	}
}
