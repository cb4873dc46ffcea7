package archive_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/signing/evidence"
	"github.com/marchesud/perenne/storage"
)

// mustAccept submits without asking for a seal, and returns the receipt.
func mustAccept(t testing.TB, a *archive.Archive, producer, number string) *paper.Receipt {
	t.Helper()
	r, err := a.Submit(ctx, archivetest.Determina(number, "testo").Submission(producer))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// mustBe asks for the receipt of a package again and wants its seal in a state.
func mustBe(t testing.TB, b *archivetest.Bench, a *archive.Archive, producer, id, want string) {
	t.Helper()
	r, err := a.Receipt(ctx, producer, id)
	if err != nil {
		t.Fatalf("receipt of %s: %v", producer, err)
	}
	if r.Evidence.Seal != want {
		t.Fatalf("receipt of %s: got %s, want %s", producer, r.Evidence.Seal, want)
	}
	if want == paper.Sealed {
		mustVerify(t, b, r)
	}
}

// rest waits until everything is sealed.
func rest(t testing.TB, a *archive.Archive) {
	t.Helper()
	eventually(t, "everything to be sealed", func() bool {
		h := a.Status(ctx)
		for _, p := range h.Producers {
			if p.Unsealed > 0 {
				return false
			}
		}
		return h.UnsealedSince == "" && h.SealError == ""
	})
}

func commitsOf(t testing.TB, root, producer string) []string {
	t.Helper()
	return inRoom(keysIn(t, root), producer+"/ledger/")
}

// TestADamagedCommitStopsTheSealsOfItsLedgerAlone damages a commit that no seal covers yet, and puts it back.
func TestADamagedCommitStopsTheSealsOfItsLedgerAlone(t *testing.T) {
	b, root := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealWait = 0 }
	a := b.MustOpen()
	rest(t, a)
	b.TSAAway(true)
	var receipts []*paper.Receipt
	for i := range 3 {
		receipts = append(receipts, mustAccept(t, a, archivetest.Montesole, fmt.Sprint(i)))
	}
	b.Close(a)
	keys := commitsOf(t, root, archivetest.Montesole)
	damaged := keys[len(keys)-2]
	was := bytesOf(t, root, damaged)
	overwrite(t, root, damaged, []byte("x"))
	b.TSAAway(false)
	b.Vary = nil
	a = b.MustOpen()

	mustSubmit(t, b, a, archivetest.Colli, archivetest.Determina("1", "testo"))
	eventually(t, "what lies before the damage to be sealed", func() bool {
		r, err := a.Receipt(ctx, archivetest.Montesole, receipts[0].Body.Package)
		return err == nil && r.Evidence.Seal == paper.Sealed
	})
	mustBe(t, b, a, archivetest.Montesole, receipts[2].Body.Package, paper.Pending)
	h := a.Status(ctx)
	if !strings.Contains(h.SealError, archivetest.Montesole) || h.UnsealedSince == "" {
		t.Errorf("status: got %q since %q, want the ledger left out and since when", h.SealError, h.UnsealedSince)
	}
	if !strings.Contains(b.Logs.String(), "no seal covers this ledger") {
		t.Error("nobody was told")
	}
	started := time.Now()
	mustAccept(t, a, archivetest.Montesole, "9")
	if took := time.Since(started); took > time.Second {
		t.Errorf("a submission to the damaged ledger waited %v for a seal that cannot come", took)
	}

	overwrite(t, root, damaged, was)
	mustSubmit(t, b, a, archivetest.Colli, archivetest.Determina("2", "testo"))
	rest(t, a)
	mustBe(t, b, a, archivetest.Montesole, receipts[2].Body.Package, paper.Sealed)
}

// shared is a closed archive whose last seal covers both bodies, a package of Colli's, and what damages a commit of
// Montesole's under that seal, or puts it back.
func shared(t *testing.T) (b *archivetest.Bench, root, id string, damage func(bool)) {
	t.Helper()
	b, root = newBench(t)
	b.Vary = func(c *archive.Config) { c.SealEvery = time.Hour }
	a := b.MustOpen()
	rest(t, a)
	for i := range 3 {
		mustAccept(t, a, archivetest.Montesole, fmt.Sprint(i))
	}
	id = mustAccept(t, a, archivetest.Colli, "1").Body.Package
	b.Close(a)
	list := sealsIn(t, b)
	r, ok := list[len(list)-1].Range(archivetest.Montesole)
	if _, both := list[len(list)-1].Range(archivetest.Colli); !ok || !both || r.LastCommit == r.FirstCommit {
		t.Fatalf("got ranges %+v, want both bodies", list[len(list)-1].Ranges)
	}
	key := commitsOf(t, root, archivetest.Montesole)[r.FirstCommit]
	was := bytesOf(t, root, key)
	damage = func(on bool) {
		if on {
			overwrite(t, root, key, []byte("x"))
			return
		}
		overwrite(t, root, key, was)
	}
	b.Vary = nil
	damage(true)
	return b, root, id, damage
}

func TestDamageOfOneBodyTakesNoPaperFromAnother(t *testing.T) {
	b, _, id, _ := shared(t)
	a := b.MustOpen()
	c, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Colli, ID: id, Purpose: "prova", By: "test"})
	if err != nil {
		t.Fatalf("retrieve: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	mustBe(t, b, a, archivetest.Colli, id, paper.Sealed)
}

// TestWithoutLeavesEvidenceIsPendingAndSaysSo takes the leaves kept on the machine away, and brings damaged ones.
func TestWithoutLeavesEvidenceIsPendingAndSaysSo(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"gone":    os.RemoveAll,
		"damaged": func(dir string) error { return flipFile(filepath.Join(dir, "digests")) },
		"places":  func(dir string) error { return flipFile(filepath.Join(dir, "places")) },
	} {
		t.Run(name, func(t *testing.T) {
			b, _, id, _ := shared(t)
			if err := change(filepath.Join(b.State, "leaves")); err != nil {
				t.Fatal(err)
			}
			a := b.MustOpen()
			mustBe(t, b, a, archivetest.Colli, id, paper.Pending)
			if !strings.Contains(b.Logs.String(), "evidence cannot be derived") {
				t.Error("nobody was told")
			}
			mustSubmit(t, b, a, archivetest.Colli, archivetest.Determina("2", "testo"))
		})
	}
}

// flipFile inverts a bit of every 16 bytes.
func flipFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i := 15; i < len(b); i += 16 {
		b[i] ^= 1
	}
	return os.WriteFile(path, b, 0o644)
}

// TestLeavesThatAreGoneAreComputedAgain loses them while nothing is damaged: they are a cache.
func TestLeavesThatAreGoneAreComputedAgain(t *testing.T) {
	b, _, id, damage := shared(t)
	damage(false)
	if err := os.RemoveAll(filepath.Join(b.State, "leaves")); err != nil {
		t.Fatal(err)
	}
	a := b.MustOpen()
	mustBe(t, b, a, archivetest.Colli, id, paper.Sealed)
	b.Close(a)
	damage(true)
	mustBe(t, b, b.MustOpen(), archivetest.Colli, id, paper.Sealed)
}

// TestTheSealsAreReadAnewOverADamagedCommit loses the index of the seals too.
func TestTheSealsAreReadAnewOverADamagedCommit(t *testing.T) {
	b, _, id, _ := shared(t)
	if err := os.Remove(filepath.Join(b.State, "seals")); err != nil {
		t.Fatal(err)
	}
	a := b.MustOpen()
	mustBe(t, b, a, archivetest.Colli, id, paper.Sealed)
	mustSubmit(t, b, a, archivetest.Colli, archivetest.Determina("2", "testo"))
	if !strings.Contains(b.Logs.String(), "root of a seal not checked") {
		t.Error("nobody was told")
	}
}

// TestADamagedCommitLetsNoForgedSealIn forges seals over a ledger with a damaged commit, with good tokens of the
// authority: they must not cover entries that the ledger does not have, nor leave out what can be read.
func TestADamagedCommitLetsNoForgedSealIn(t *testing.T) {
	for name, forge := range map[string]func(*seal.Seal){
		"more entries":       func(s *seal.Seal) { s.Ranges[0].End += 1 << 40 },
		"more commits":       func(s *seal.Seal) { s.Ranges[0].End, s.Ranges[0].LastCommit = 1<<40, 1<<40 },
		"half a commit":      func(s *seal.Seal) { s.Ranges[0].End-- },
		"readable body's":    func(s *seal.Seal) { s.Ranges[1].Checkpoint[0] ^= 1 },
		"readable body's 2":  func(s *seal.Seal) { s.Ranges[1].End++ },
		"a body not served":  func(s *seal.Seal) { s.Ranges = append(s.Ranges, seal.Range{Producer: "x", End: 1}) },
		"token of something": func(s *seal.Seal) { s.Root[0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			b, root, id, _ := shared(t)
			list := sealsIn(t, b)
			s := list[len(list)-1]
			if err := os.Remove(filepath.Join(b.State, "seals")); err != nil {
				t.Fatal(err)
			}
			s.Root, _ = evidence.Root([][32]byte{{1}, {2}})
			s.Leaves = 2
			token, err := b.Config().Timestamper.Timestamp(ctx, s.Root)
			if err != nil {
				t.Fatal(err)
			}
			s.Token = token
			forge(s)
			overwrite(t, root, seal.Key(s.Number), s.Marshal())
			a := b.MustOpen()
			mustBe(t, b, a, archivetest.Colli, id, paper.Pending)
			if h := a.Status(ctx); h.Seal != s.Number-1 {
				t.Errorf("got seal %d, want %d: the forged one is believed", h.Seal, s.Number-1)
			}
		})
	}
}

// TestAnObjectThatIsNoSealHoldsUpSealsAndNothingElse lies where the next seal goes, and is taken away again.
func TestAnObjectThatIsNoSealHoldsUpSealsAndNothingElse(t *testing.T) {
	forged := &seal.Seal{Leaves: 1, Token: []byte("x"), Ranges: []seal.Range{{Producer: archivetest.Montesole, End: 1 << 50, LastCommit: 1 << 50}}}
	for name, object := range map[string]func(last *seal.Seal) []byte{
		"rubbish": func(*seal.Seal) []byte { return []byte("x") },
		"forged": func(last *seal.Seal) []byte {
			s := *forged
			s.Number, s.Previous, s.PreviousToken = last.Number+1, sha256.Sum256(last.Marshal()), sha256.Sum256(last.Token)
			return s.Marshal()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, root := newBench(t)
			a := b.MustOpen()
			old := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
			b.Close(a)
			list := sealsIn(t, b)
			key := seal.Key(int64(len(list)))
			overwrite(t, root, key, object(list[len(list)-1]))
			a = b.MustOpen()
			r := mustAccept(t, a, archivetest.Montesole, "2")
			if r.Evidence.Seal != paper.Pending || a.Status(ctx).SealError == "" {
				t.Errorf("got %s and %q, want pending and why", r.Evidence.Seal, a.Status(ctx).SealError)
			}
			mustBe(t, b, a, archivetest.Montesole, old.Body.Package, paper.Sealed)
			overwrite(t, root, key, nil)
			mustAccept(t, a, archivetest.Montesole, "3")
			rest(t, a)
			mustBe(t, b, a, archivetest.Montesole, r.Body.Package, paper.Sealed)
		})
	}
}

// TestADamagedSealTakesItsOwnEvidenceOnly damages the object of a seal that other seals follow.
func TestADamagedSealTakesItsOwnEvidenceOnly(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	first := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	n := a.Status(ctx).Seal
	second := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("2", "testo"))
	b.Close(a)
	overwrite(t, root, seal.Key(n), []byte("x"))
	a = b.MustOpen()
	mustBe(t, b, a, archivetest.Montesole, first.Body.Package, paper.Pending)
	mustBe(t, b, a, archivetest.Montesole, second.Body.Package, paper.Sealed)
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("3", "testo"))
}

// TestASealThatIsGoneBehindATornLineIsNotForgotten has the newest seal deleted and its line in the mark cut, as by a
// crash: another seal may take the number, but the machine says that it cannot tell.
func TestASealThatIsGoneBehindATornLineIsNotForgotten(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	b.Close(a)
	overwrite(t, root, seal.Key(int64(len(sealsIn(t, b))-1)), nil)
	mark := filepath.Join(b.State, "seals")
	text, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mark, text[:len(text)-3], 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // also the next start
		a = b.MustOpen()
		eventually(t, "the alarm", func() bool { return strings.Contains(b.Logs.String(), "cannot tell whether seals are gone") })
		b.Close(a)
		b.Logs = &archivetest.SafeBuffer{}
	}
}

// stubborn says that seals exist and gives none, from when it is armed.
type stubborn struct {
	storage.Store
	armed atomic.Bool
	asked atomic.Int64
}

func (s *stubborn) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if s.armed.Load() && strings.HasPrefix(key, "evidence/") {
		s.asked.Add(1)
		return storage.ErrExists
	}
	return s.Store.Put(ctx, key, r, o)
}

func TestAStoreThatDeniesSealsCostsFewTokens(t *testing.T) {
	b, _ := newBench(t)
	s := &stubborn{Store: b.Store}
	b.Store = s
	a := b.MustOpen()
	rest(t, a)
	s.armed.Store(true)
	if r := mustAccept(t, a, archivetest.Montesole, "1"); r.Evidence.Seal != paper.Pending {
		t.Errorf("got %s, want pending", r.Evidence.Seal)
	}
	time.Sleep(500 * time.Millisecond)
	if n := s.asked.Load(); n == 0 || n > 3 {
		t.Errorf("got %d tokens in half a second, want one and a pause", n)
	}
	if got := a.Status(ctx).SealError; got == "" {
		t.Error("the status says nothing")
	}
	s.armed.Store(false)
	rest(t, a)
}

// counting counts the reading of each object under a prefix.
type counting struct {
	storage.Store
	prefix string
	mu     sync.Mutex
	reads  map[string]int
}

func (c *counting) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	if strings.HasPrefix(key, c.prefix) {
		c.mu.Lock()
		c.reads[key]++
		c.mu.Unlock()
		time.Sleep(20 * time.Millisecond) // so that others ask meanwhile
	}
	return c.Store.Get(ctx, key, version, offset, n)
}

func TestOneTreeIsMadeForAllWhoAsk(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	id := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo")).Body.Package
	b.Close(a)
	c := &counting{Store: b.Store, prefix: "evidence/", reads: map[string]int{}}
	b.Store = c
	a = b.MustOpen()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { mustBe(t, b, a, archivetest.Montesole, id, paper.Sealed) })
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	newest := seal.Key(a.Status(ctx).Seal)
	for key, n := range c.reads {
		if n > 1 && key <= newest {
			t.Errorf("%s was read %d times, want once", key, n)
		}
	}
}

func TestSubmissionsDoNotWaitWhileSealsFail(t *testing.T) {
	b, _ := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealWait = 5 * time.Second }
	a := b.MustOpen()
	b.TSAAway(true)
	started := time.Now()
	for i := range 4 { // the first one ends its wait when the attempt has failed
		if r := mustAccept(t, a, archivetest.Montesole, fmt.Sprint(i)); r.Evidence.Seal != paper.Pending {
			t.Errorf("got %s, want pending", r.Evidence.Seal)
		}
	}
	if took := time.Since(started); took > 4*time.Second {
		t.Errorf("four submissions took %v", took)
	}
	b.TSAAway(false)
	rest(t, a)
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("9", "testo"))
}

func TestSealsAtIntervalsBeginAtTheStart(t *testing.T) {
	b, _ := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealEvery = time.Hour }
	a := b.MustOpen()
	rest(t, a)
	id := mustAccept(t, a, archivetest.Montesole, "1").Body.Package
	since, err := time.Parse(paper.TimeFormat, a.Status(ctx).UnsealedSince)
	if err != nil || time.Since(since) > time.Minute {
		t.Errorf("between two seals: unsealed since %v, %v, want since the submission", since, err)
	}
	b.TSAAway(true)
	b.Close(a)
	b.TSAAway(false)
	a = b.MustOpen()
	rest(t, a)
	mustBe(t, b, a, archivetest.Montesole, id, paper.Sealed)
}

// stuck is a timestamp authority that does not answer before its caller has had enough.
type stuck struct {
	signing.Timestamper
	armed atomic.Bool
}

func (s *stuck) Timestamp(ctx context.Context, digest [32]byte) ([]byte, error) {
	if s.armed.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Timestamper.Timestamp(ctx, digest)
}

// TestTheSealOfAnotherDaemonEndsTheWait has the seal made by another daemon, and noted here by somebody else than the
// sealer, which is stuck.
func TestTheSealOfAnotherDaemonEndsTheWait(t *testing.T) {
	b, _ := newBench(t)
	tsa := &stuck{}
	b.Vary = func(c *archive.Config) {
		tsa.Timestamper, c.Timestamper = c.Timestamper, tsa
		c.SealWait = 30 * time.Second
	}
	a := b.MustOpen()
	rest(t, a)
	tsa.armed.Store(true)
	type answer struct {
		r   *paper.Receipt
		err error
	}
	done := make(chan answer, 1)
	doc := archivetest.Determina("1", "testo")
	started := time.Now()
	go func() {
		r, err := a.Submit(ctx, doc.Submission(archivetest.Montesole))
		done <- answer{r, err}
	}()
	eventually(t, "the commit", func() bool { return a.Status(ctx).Producers[0].Unsealed > 0 })
	other := archivetest.Attach(t, b.Store, t.TempDir(), b.Keys())
	other.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
	second := other.MustOpen()
	r := mustSubmit(t, other, second, archivetest.Montesole, doc)
	mustBe(t, b, a, archivetest.Montesole, r.Body.Package, paper.Sealed)
	got := <-done
	if got.err != nil || got.r.Evidence.Seal != paper.Sealed {
		t.Errorf("got %v, want a sealed receipt", got.err)
	}
	if took := time.Since(started); took > 15*time.Second {
		t.Errorf("the submission waited %v although it was sealed", took)
	}
}
