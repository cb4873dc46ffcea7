package archive_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/storagetest"
)

// fixed is the part of a receipt that never changes: body and proof.
func fixed(t testing.TB, r *paper.Receipt) string {
	t.Helper()
	body, err := canon.Marshal(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body) + r.Proof
}

// entries reads a producer's ledger from the bucket and gives its entries.
func entries(t testing.TB, b *archivetest.Bench, producer string) []ledger.Entry {
	t.Helper()
	var list []ledger.Entry
	for c, err := range ledger.Walk(ctx, b.Store, producer, b.Trust.Ledgers, 0, -1) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c.Entries...)
	}
	return list
}

// ofType counts the entries of a type.
func ofType(list []ledger.Entry, kind ledger.Type) (n int) {
	for _, e := range list {
		if e.Type == kind {
			n++
		}
	}
	return n
}

// wantOnePackage wants exactly one package and one entry that names it.
func wantOnePackage(t testing.TB, b *archivetest.Bench, root string) {
	t.Helper()
	if got := inRoom(keysIn(t, root), archivetest.Montesole+"/packages/"); len(got) != 1 {
		t.Errorf("got packages %q, want one", got)
	}
	if got := ofType(entries(t, b, archivetest.Montesole), ledger.PackageSealed); got != 1 {
		t.Errorf("got %d entries, want one", got)
	}
}

func TestAThousandRetriesMakeOnePackage(t *testing.T) {
	times := 950
	if testing.Short() {
		times = 100
	}
	b, root := newBench(t)
	a := b.MustOpen()
	doc := archivetest.Determina("7", "sette")
	var wg sync.WaitGroup
	receipts := make([]*paper.Receipt, 50)
	for i := range receipts { // nobody has submitted it yet: these race for it
		wg.Go(func() { receipts[i], _ = a.Submit(ctx, doc.Submission(archivetest.Montesole)) })
	}
	wg.Wait()
	if receipts[0] == nil {
		t.Fatal("the first submission failed")
	}
	want := fixed(t, receipts[0])
	for i, r := range receipts {
		if r == nil || fixed(t, r) != want {
			t.Errorf("receipt %d of those at once: got %v, want body and proof of the first", i, r)
		}
	}
	for i := range times {
		r, err := a.Submit(ctx, doc.Submission(archivetest.Montesole))
		if err != nil {
			t.Fatalf("retry %d: %v", i, err)
		}
		if fixed(t, r) != want {
			t.Fatalf("retry %d got another receipt", i)
		}
	}
	wantOnePackage(t, b, root)
	audited(t, a, archivetest.Montesole, paper.VerdictGood)
}

func TestARetryMeetsItselfOverRestarts(t *testing.T) {
	b, root := newBench(t)
	doc := archivetest.Determina("7", "sette")
	want := ""
	for range 4 {
		a := b.MustOpen()
		r := mustSubmit(t, b, a, archivetest.Montesole, doc)
		if got := fixed(t, r); want != "" && got != want {
			t.Fatal("another receipt after a restart")
		} else {
			want = got
		}
		b.Close(a)
	}
	wantOnePackage(t, b, root)
}

func TestOfManyContentsUnderOneKeyOneWins(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	const rivals = 20
	errs := make([]error, rivals)
	receipts := make([]*paper.Receipt, rivals)
	var wg sync.WaitGroup
	for i := range rivals {
		wg.Go(func() {
			receipts[i], errs[i] = a.Submit(ctx, archivetest.Determina("8", fmt.Sprint("testo ", i)).Submission(archivetest.Montesole))
		})
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
			mustVerify(t, b, receipts[i])
		case archive.KindOf(err) != archive.Conflict:
			t.Errorf("rival %d: got %v, want a conflict", i, err)
		}
	}
	if won != 1 {
		t.Errorf("got %d winners, want one", won)
	}
	if got := ofType(entries(t, b, archivetest.Montesole), ledger.PackageSealed); got != 1 {
		t.Errorf("got %d entries, want one", got)
	}
	audited(t, a, archivetest.Montesole, paper.VerdictGood) // what the losers left are orphans
}

// TestTwoDaemonsOnOneBucketMakeOnePackage submits the same to two archives that share nothing but the bucket.
func TestTwoDaemonsOnOneBucketMakeOnePackage(t *testing.T) {
	b, root := newBench(t)
	first := b.MustOpen()
	store, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	other := archivetest.Attach(t, store, t.TempDir(), b.Keys())
	other.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
	second := other.MustOpen()
	for i := range 10 {
		doc := archivetest.Determina(fmt.Sprint(i), "testo")
		var got [6]*paper.Receipt
		var wg sync.WaitGroup
		for j := range got {
			a := []*archive.Archive{first, second}[j%2]
			wg.Go(func() {
				r, err := a.Submit(ctx, doc.Submission(archivetest.Montesole))
				if err != nil {
					t.Errorf("document %d: %v", i, err)
					return
				}
				got[j] = r
			})
		}
		wg.Wait()
		for j, r := range got {
			if r == nil || fixed(t, r) != fixed(t, got[0]) {
				t.Fatalf("document %d: receipt %d is another one", i, j)
			}
		}
	}
	if got := ofType(entries(t, b, archivetest.Montesole), ledger.PackageSealed); got != 10 {
		t.Errorf("got %d entries, want 10", got)
	}
	audited(t, first, archivetest.Montesole, paper.VerdictGood)
	audited(t, second, archivetest.Montesole, paper.VerdictGood)
}

// TestAnAnnulledKeyGetsANewGeneration deposits again what was annulled, and other content under its key.
func TestAnAnnulledKeyGetsANewGeneration(t *testing.T) {
	for name, text := range map[string]string{"same content": "uno", "other content": "due"} {
		t.Run(name, func(t *testing.T) {
			b, _ := newBench(t)
			a := b.MustOpen()
			old := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "uno"))
			b.Close(a)
			for _, e := range entries(t, b, archivetest.Montesole) {
				if e.Type == ledger.PackageSealed {
					plant(t, b, archivetest.Montesole, ledger.Entry{Type: ledger.PackageAnnulled, ID: e.ID, Key: e.Key, Cause: e.SHA256})
				}
			}
			a = b.MustOpen()
			anew := archivetest.Determina("1", text)
			r := mustSubmit(t, b, a, archivetest.Montesole, anew)
			if r.Body.Generation != 1 || r.Body.Package == old.Body.Package {
				t.Errorf("got generation %d of %s, want 1 and another identifier", r.Body.Generation, r.Body.Package)
			}
			if again := mustSubmit(t, b, a, archivetest.Montesole, anew); fixed(t, again) != fixed(t, r) {
				t.Error("a retry of the new generation got another receipt")
			}
			if _, err := a.Submit(ctx, archivetest.Determina("1", "tre").Submission(archivetest.Montesole)); archive.KindOf(err) != archive.Conflict {
				t.Errorf("a third content: got %v, want a conflict", err)
			}
			c, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: old.Body.Package, Purpose: "prova", By: "test"})
			if err != nil {
				t.Fatalf("the annulled package: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			audited(t, a, archivetest.Montesole, paper.VerdictGood)
			b.Close(a)
		})
	}
}

// hanging is a store that gives nothing, and takes no package, until it is let go.
type hanging struct {
	*dir.Store
	mu   sync.Mutex
	free chan struct{}
}

func (h *hanging) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	h.mu.Lock()
	free := h.free
	h.mu.Unlock()
	if free != nil {
		select {
		case <-free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return h.Store.Get(ctx, key, version, offset, n)
}

func (h *hanging) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	h.mu.Lock()
	free := h.free
	h.mu.Unlock()
	if free != nil && strings.Contains(key, "/packages/") {
		select {
		case <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return h.Store.Put(ctx, key, r, o)
}

func TestAStoreThatHangsIsNotWaitedForWithoutEnd(t *testing.T) {
	b, root := newBench(t)
	s, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	h := &hanging{Store: s}
	b.Store = h
	b.Vary = func(c *archive.Config) { c.StoreWait = time.Second }
	a := b.MustOpen()
	h.mu.Lock()
	h.free = make(chan struct{})
	h.mu.Unlock()
	d := archivetest.Determina("1", "testo")
	answered := make(chan error, 1)
	go func() {
		_, err := a.Submit(ctx, d.Submission(mine))
		answered <- err
	}()
	select {
	case err := <-answered:
		if archive.KindOf(err) != archive.Unavailable {
			t.Errorf("got %v, want unavailable", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the client still waits")
	}
	before := time.Now()
	if st := a.Status(ctx); time.Since(before) > 10*time.Second || len(st.Producers) != 2 {
		t.Errorf("the status came after %v: %+v", time.Since(before), st)
	}
	close(h.free)
	mustSubmit(t, b, a, mine, d)
	wantOnePackage(t, b, root)
	b.Close(a)
}

// tight is a store that has no room for what may be replaced, while full is set.
type tight struct {
	*dir.Store
	full atomic.Bool
}

func (s *tight) Replace(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if s.full.Load() {
		return storage.ErrFull
	}
	return s.Store.Replace(ctx, key, r, o)
}

func (s *tight) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if s.full.Load() && storage.Replaceable(key) {
		return storage.ErrFull
	}
	return s.Store.Put(ctx, key, r, o)
}

// TestSearchRecordsThatFoundNoRoomAreNoDamageLater fills the store between a commit and its search records.
func TestSearchRecordsThatFoundNoRoomAreNoDamageLater(t *testing.T) {
	b, root := newBench(t)
	s, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	store := &tight{Store: s}
	b.Store = store
	a := b.MustOpen()
	first, second := archivetest.Determina("1", "testo"), archivetest.Determina("2", "testo")
	store.full.Store(true)
	if _, err := a.Submit(ctx, first.Submission(mine)); err != nil { // its search records are put behind it
		t.Error(err)
	}
	if _, err := a.Submit(ctx, second.Submission(mine)); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
	store.full.Store(false)
	eventually(t, "the producer to go on", func() bool {
		_, err := a.Submit(ctx, second.Submission(mine))
		return err == nil
	})
	if out := audited(t, a, mine, paper.VerdictGood); len(out.Report.Findings) > 0 {
		t.Errorf("got findings %+v, want none", out.Report.Findings)
	}
	b.Close(a)
}

// TestAnOutcomeThatTheStoreSettledItself has the store take an object and say that one exists, as storage/s3 does when
// it looks after an answer that was not definite.
func TestAnOutcomeThatTheStoreSettledItself(t *testing.T) {
	for _, room := range []string{"/packages/", "/refusals/", "/reports/", "/records/", "evidence/"} {
		t.Run(room, func(t *testing.T) {
			m := storagetest.NewMem(t)
			var met atomic.Int64
			m.OnPut = func(key string) (bool, error) { // before the archive opens: its sealer puts by itself
				if strings.Contains(key, room) {
					met.Add(1)
					return true, storage.ErrExists
				}
				return true, nil
			}
			b := archivetest.New(t, m)
			a := b.MustOpen()
			r := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			if _, err := a.Submit(ctx, faulty("90").Submission(mine)); err != nil {
				t.Error(err)
			}
			if out := audited(t, a, mine, paper.VerdictGood); out.ID == "" {
				t.Error("the report was not entered")
			}
			c, err := a.Retrieve(ctx, archive.Request{Producer: mine, ID: r.Body.Package, Purpose: "prova", By: "test"})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if met.Load() == 0 {
				t.Error("nothing was put there")
			}
			b.Close(a)
		})
	}
}
