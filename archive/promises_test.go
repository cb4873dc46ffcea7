package archive_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
)

func inPackages(key string) bool { return strings.Contains(key, "/packages/") }

func TestWhatWasAcceptedStaysAcceptedUnderAnotherPolicy(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	d := archivetest.Determina("1", "testo")
	r := mustSubmit(t, b, a, archivetest.Montesole, d)
	b.Close(a)
	b.Vary = func(c *archive.Config) {
		base, err := policies.Builtin("comune")
		if err != nil {
			t.Fatal(err)
		}
		if c.Producers[0].Policy, err = policies.Parse([]byte("name: montesole\ntypes:\n  determina: null\n"), base); err != nil {
			t.Fatal(err)
		}
	}
	a = b.MustOpen()
	again, err := a.Submit(ctx, d.Submission(archivetest.Montesole))
	if err != nil || again.Refused() || again.Proof != r.Proof {
		t.Fatalf("the retry of an accepted submission: %+v, %v", again, err)
	}
	other, err := a.Submit(ctx, archivetest.Determina("2", "testo").Submission(archivetest.Montesole))
	if err != nil || !other.Refused() {
		t.Errorf("control: a new one of that type is refused: %+v, %v", other, err)
	}
}

func TestAReceiptStatesWhenTheLastByteArrived(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	const late = 300 * time.Millisecond
	s := archivetest.Determina("1", "testo").Submission(archivetest.Montesole)
	next := s.Next
	s.Next = func() (archive.Part, error) {
		p, err := next()
		if err == nil {
			time.Sleep(late)
		}
		return p, err
	}
	began := time.Now()
	r, err := a.Submit(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := time.Parse(paper.TimeFormat, r.Body.Time); err != nil || at.Sub(began) < late-time.Millisecond {
		t.Errorf("it states %s, the upload began at %s and took %s", r.Body.Time, began.UTC(), late)
	}
}

func TestAReadThatFailsIsNotDamage(t *testing.T) {
	b, root := newBench(t)
	s := newFlakyOn(t, root)
	b.Store = s
	a := b.MustOpen()
	r := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	s.failing(inPackages)
	if _, err := a.Receipt(ctx, archivetest.Montesole, r.Body.Package); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("receipt: got %v, want unavailable", err)
	}
	if _, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: r.Body.Package}); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("retrieve: got %v, want unavailable", err)
	}
	s.fail.Store(nil)
	mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
}

// A second daemon that cannot read while it follows must not catalogue blanks, nor put them into the bundle.
func TestARecordThatCannotBeReadNowIsNotLost(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	s := newFlakyOn(t, root)
	o := archivetest.Attach(t, s, t.TempDir(), b.Keys())
	o.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
	second := o.MustOpen()
	// Before it is written: the second daemon follows the first by itself.
	s.failing(func(key string) bool { return inPackages(key) || strings.Contains(key, "/catalog/") })
	r := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("77", "testo"))
	if _, err := second.Find(ctx, archivetest.Montesole, r.Body.Package); err == nil {
		t.Error("found, though nothing of it could be read")
	}
	s.fail.Store(nil)
	waitFor(t, func() bool {
		rec, err := second.Find(ctx, archivetest.Montesole, r.Body.Package)
		return err == nil && rec.Number == "77"
	})
	mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
}

// waitFor waits until a producer that stood still goes on.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come back")
		}
	}
}

func TestAProducerGoesOnWhenTheObstacleIsGone(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	obstacle := filepath.Join(b.State, "heads.new")
	if err := os.Mkdir(obstacle, 0o755); err != nil {
		t.Fatal(err)
	}
	two := archivetest.Determina("2", "testo")
	if _, err := a.Submit(ctx, two.Submission(archivetest.Montesole)); archive.KindOf(err) != archive.Unavailable {
		t.Fatalf("with a mark that cannot be written: got %v, want unavailable", err)
	}
	if h := a.Status(ctx); h.Producers[0].Stopped == "" {
		t.Error("the status does not say that the producer stands still")
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return a.Status(ctx).Producers[0].Stopped == "" })
	mustSubmit(t, b, a, archivetest.Montesole, two)
	mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
}

// A store that fails while the orphan of a crash is read makes no second object beside it.
func TestAnOrphanThatCannotBeReadNowIsMetLater(t *testing.T) {
	b, root := newBench(t)
	s := newFlakyOn(t, root)
	b.Store = s
	var dying atomic.Bool
	b.Vary = func(c *archive.Config) {
		c.Crash = func(label string) {
			if label == "stored" && dying.Load() {
				panic("dead")
			}
		}
	}
	a := b.MustOpen()
	d := archivetest.Determina("1", "testo")
	dying.Store(true)
	func() {
		defer func() { _ = recover() }()
		_, _ = a.Submit(ctx, d.Submission(archivetest.Montesole))
	}()
	dying.Store(false)
	s.failing(inPackages)
	if _, err := a.Submit(ctx, d.Submission(archivetest.Montesole)); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("while the orphan cannot be read: got %v, want unavailable", err)
	}
	s.fail.Store(nil)
	mustSubmit(t, b, a, archivetest.Montesole, d)
	if keys := inRoom(keysIn(t, root), archivetest.Montesole+"/packages/"); len(keys) != 1 {
		t.Errorf("objects %q, want one", keys)
	}
}

// A refusal of a crash is taken over only when it says what ours says.
func TestAPlantedRefusalIsNotTakenOver(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	d := faulty("5")
	if _, err := a.Submit(ctx, d.Submission(archivetest.Montesole)); err != nil {
		t.Fatal(err)
	}
	key := inRoom(keysIn(t, root), archivetest.Montesole+"/refusals/")[0]
	var body paper.Body
	if err := canon.Unmarshal(bytesOf(t, root, key), &body); err != nil {
		t.Fatal(err)
	}
	body.Checks = body.Checks[:1]
	body.Checks[0].Message, body.Producer.Name, body.Key.Number = "versare 500 euro", "Altro ente", "999"
	planted, err := canon.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "store")
	store, err := dir.Open(fresh, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	o := archivetest.Attach(t, store, filepath.Join(t.TempDir(), "state"), b.Keys())
	other := o.MustOpen()
	overwrite(t, fresh, key, planted)
	r, err := other.Submit(ctx, d.Submission(archivetest.Montesole))
	if err != nil || r.Body.Producer.Name == body.Producer.Name || r.Body.Key.Number != "5" {
		t.Errorf("issued: %+v, %v", r, err)
	}
	if keys := inRoom(keysIn(t, fresh), archivetest.Montesole+"/refusals/"); len(keys) != 2 {
		t.Errorf("got %q, want ours beside what was planted", keys)
	}
	mustAudit(t, other, archivetest.Montesole, paper.VerdictDamaged)
}

// failingStage is a store whose room for uploads fails after a MiB.
type failingStage struct{ *dir.Store }

type failingStaged struct{ storage.Staged }

func (f failingStage) Stage(ctx context.Context) (storage.Staged, error) {
	s, err := f.Store.Stage(ctx)
	return failingStaged{s}, err
}

func (f failingStaged) WriteAt(p []byte, off int64) (int, error) {
	if off > 1<<20 {
		return 0, storage.ErrFull
	}
	return f.Staged.WriteAt(p, off)
}

func TestOurFullDiskIsNotTheSendersFault(t *testing.T) {
	b, root := newBench(t)
	store, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	b.Store = failingStage{store}
	a := b.MustOpen()
	large := archivetest.Determina("1", strings.Repeat("x", 3<<20))
	if _, err := a.Submit(ctx, large.Submission(archivetest.Montesole)); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("got kind %v, want unavailable: %v", archive.KindOf(err), err)
	}
}

func TestNothingIsWrittenUnderAnEmptyNameKey(t *testing.T) {
	b, _ := newBench(t)
	b.Vary = func(c *archive.Config) { c.Producers[0].NameKey = nil }
	if _, err := b.Open(); err == nil {
		t.Error("a writable archive opened without a name key")
	}
}

func TestEvidenceIsNotGivenForADamagedPackage(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	r := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	if _, err := a.Evidence(ctx, archivetest.Montesole, r.Body.Package); err != nil {
		t.Fatal(err)
	}
	key := inRoom(keysIn(t, root), archivetest.Montesole+"/packages/")[0]
	data := bytesOf(t, root, key)
	data[len(data)/3] ^= 1
	overwrite(t, root, key, data)
	if _, err := a.Evidence(ctx, archivetest.Montesole, r.Body.Package); archive.KindOf(err) != archive.Damaged {
		t.Errorf("got %v, want damaged", err)
	}
}
