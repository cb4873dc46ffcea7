package archive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/storagetest"
)

// fleet is several archives on one bucket, which is all they share.
type fleet struct {
	root   string
	bench  []*archivetest.Bench
	a      []*archive.Archive
	tokens []*atomic.Int64 // that each asked the TSA for
	gets   []*atomic.Int64
}

// newFleet opens n archives on a bucket that takes far longer for each call.
func newFleet(t testing.TB, n int, far time.Duration, vary func(i int, c *archive.Config)) *fleet {
	t.Helper()
	first, root := newBench(t)
	f := &fleet{root: root}
	for i := range n {
		store, err := dir.Open(root, dir.Options{Immutable: dir.Off})
		if err != nil {
			t.Fatal(err)
		}
		b := first
		if i > 0 {
			b = archivetest.Attach(t, store, t.TempDir(), first.Keys())
		}
		tokens, gets := &atomic.Int64{}, &atomic.Int64{}
		b.Store = &farStore{Store: store, far: far, gets: gets}
		b.Vary = func(c *archive.Config) {
			c.TrustBucketHead = i > 0
			c.Timestamper = counted{c.Timestamper, tokens}
			if vary != nil {
				vary(i, c)
			}
		}
		f.bench, f.a, f.tokens, f.gets = append(f.bench, b), append(f.a, b.MustOpen()), append(f.tokens, tokens), append(f.gets, gets)
	}
	return f
}

// counted counts the tokens asked for.
type counted struct {
	signing.Timestamper
	n *atomic.Int64
}

func (c counted) Timestamp(ctx context.Context, sum [32]byte) ([]byte, error) {
	c.n.Add(1)
	return c.Timestamper.Timestamp(ctx, sum)
}

// farStore answers after a while, and counts what it is asked to read.
type farStore struct {
	*dir.Store
	far      time.Duration
	gets     *atomic.Int64
	replaced atomic.Int64
}

func (s *farStore) Replace(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	s.replaced.Add(1)
	return s.Store.Replace(ctx, key, r, o)
}

func (s *farStore) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	time.Sleep(s.far)
	return s.Store.Put(ctx, key, r, o)
}

func (s *farStore) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	s.gets.Add(1)
	time.Sleep(s.far)
	return s.Store.Get(ctx, key, version, offset, n)
}

func (s *farStore) Stat(ctx context.Context, key string) (storage.Object, error) {
	time.Sleep(s.far)
	return s.Store.Stat(ctx, key)
}

// load submits to all archives for a while, each with some clients, to the producer that choose gives; it returns
// how many each took.
func (f *fleet) load(t testing.TB, clients int, d time.Duration, choose func(i int) string) []int64 {
	t.Helper()
	took := make([]int64, len(f.a))
	var serial atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for i, a := range f.a {
		for range clients {
			wg.Go(func() {
				for time.Now().Before(end) {
					doc := archivetest.Determina(fmt.Sprint(serial.Add(1)), "testo")
					if _, err := a.Submit(ctx, doc.Submission(choose(i))); err != nil {
						t.Errorf("archive %d: %v", i, err)
						return
					}
					atomic.AddInt64(&took[i], 1)
				}
			})
		}
	}
	wg.Wait()
	return took
}

func disjoint(i int) string { return []string{archivetest.Montesole, archivetest.Colli}[i%2] }

// close closes all of it.
func (f *fleet) close() {
	for i, b := range f.bench {
		b.Close(f.a[i])
	}
}

// TestSeveralDaemonsBuyOneTokenAnInterval counts the tokens of three daemons under load: as many as one would buy, but
// for those of the start and the end.
func TestSeveralDaemonsBuyOneTokenAnInterval(t *testing.T) {
	const every, daemons = 3 * time.Second, 3
	f := newFleet(t, daemons, 0, func(_ int, c *archive.Config) { c.SealEvery = every })
	before := f.asked()
	began := time.Now()
	f.load(t, 2, 9*time.Second, disjoint)
	tokens, most := f.asked()-before, 2+int64(time.Since(began)/every)
	if tokens > most {
		t.Errorf("got %d tokens of %d daemons in %v, want at most %d", tokens, daemons, time.Since(began).Round(time.Second), most)
	}
	f.close()
	last := f.bench[0].MustOpen()
	eventually(t, "everything to be sealed", func() bool {
		h := last.Status(ctx)
		return h.Producers[0].Unsealed+h.Producers[1].Unsealed == 0
	})
}

// asked is the number of tokens asked for so far.
func (f *fleet) asked() int64 {
	var n int64
	for _, c := range f.tokens {
		n += c.Load()
	}
	return n
}

// TestNoDaemonStarves has two daemons take submissions of a body each, on a store that takes its time: neither may
// spend it on following the other.
func TestNoDaemonStarves(t *testing.T) {
	for _, every := range []time.Duration{0, time.Minute} {
		t.Run(fmt.Sprint(every), func(t *testing.T) {
			f := newFleet(t, 2, 20*time.Millisecond, func(_ int, c *archive.Config) { c.SealEvery = every })
			took := f.load(t, 8, 6*time.Second, disjoint)
			if slices.Min(took) < slices.Max(took)/8 {
				t.Errorf("they took %v, want about as many each", took)
			}
			f.close()
		})
	}
}

// TestDerivedObjectsAreMadeOnce counts what is replaced while two daemons put the same tiles and search records: on a
// store with versions each replacement would be one more, and a finding.
func TestDerivedObjectsAreMadeOnce(t *testing.T) {
	f := newFleet(t, 2, 0, nil)
	f.load(t, 8, 2*time.Second, func(int) string { return archivetest.Montesole })
	for i, b := range f.bench {
		b.Close(f.a[i])
		if n := b.Store.(*farStore).replaced.Load(); n > 0 {
			t.Errorf("daemon %d replaced %d derived objects, want none", i, n)
		}
	}
}

// TestEachServesWhatTheOthersWrote asks one daemon for what another has just taken.
func TestEachServesWhatTheOthersWrote(t *testing.T) {
	f := newFleet(t, 2, 0, nil)
	r := mustSubmit(t, f.bench[0], f.a[0], archivetest.Montesole, archivetest.Determina("1", "testo"))
	page, err := f.a[1].Search(ctx, catalog.Query{Producer: archivetest.Montesole, Register: "DETE", Number: "1"})
	if err != nil || len(page.Records) != 1 || page.Records[0].ID != r.Body.Package {
		t.Errorf("search: got %+v, %v", page.Records, err)
	}
	r = mustSubmit(t, f.bench[0], f.a[0], archivetest.Montesole, archivetest.Determina("2", "testo"))
	got, err := f.a[1].Receipt(ctx, archivetest.Montesole, r.Body.Package)
	if err != nil {
		t.Fatal(err)
	}
	if fixed(t, got) != fixed(t, r) {
		t.Error("the receipt is another one")
	}
	mustVerify(t, f.bench[1], got)
	r = mustSubmit(t, f.bench[0], f.a[0], archivetest.Montesole, archivetest.Determina("3", "testo"))
	out, err := f.a[1].Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: r.Body.Package})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	refusal, err := f.a[0].Submit(ctx, faulty("4").Submission(archivetest.Montesole))
	if err != nil || !refusal.Refused() {
		t.Fatalf("got %+v, %v, want a refusal", refusal, err)
	}
	id := refusal.Body.Identifier[strings.LastIndex(refusal.Body.Identifier, ":")+1:]
	if got, err = f.a[1].Receipt(ctx, archivetest.Montesole, id); err != nil || fixed(t, got) != fixed(t, refusal) {
		t.Errorf("refusal: got %+v, %v", got, err)
	}
	// What nobody asks for arrives by itself.
	mustSubmit(t, f.bench[0], f.a[0], archivetest.Montesole, archivetest.Determina("5", "testo"))
	eventually(t, "the catalogs to be equal", func() bool {
		one, two := f.a[0].Status(ctx).Producers[0], f.a[1].Status(ctx).Producers[0]
		return one.Packages == two.Packages && one.Packages == 4
	})
	f.close()
}

// TestWhatOneDaemonReadAgainTheOthersDoNot makes everything due and counts who reads it; then it hurts a package,
// whose report spares nobody the reading.
func TestWhatOneDaemonReadAgainTheOthersDoNot(t *testing.T) {
	c := &clock{}
	tick := [2]time.Duration{}
	f := newFleet(t, 2, 0, func(i int, cfg *archive.Config) {
		cfg.Now, cfg.AuditTick, cfg.SealWait = c.now, tick[i], time.Millisecond
	})
	var id string
	for i := range 5 {
		id = accepted(t, f.a[0], archivetest.Montesole, archivetest.Determina(fmt.Sprint(i), "testo")).Body.Package
	}
	c.advance(31 * 24 * time.Hour)
	reopen := func(i int, every time.Duration) {
		f.bench[i].Close(f.a[i])
		tick[i] = every
		f.a[i] = f.bench[i].MustOpen()
	}
	done := func(i int) bool {
		h := f.a[i].Status(ctx).Producers[0]
		return h.Overdue == 0 && h.LastAudit != ""
	}
	reopen(0, 10*time.Millisecond)
	eventually(t, "the first to read everything", func() bool { return done(0) })
	reopen(0, 0)
	before := len(reports(t, f.bench[0], f.root))
	reopen(1, 10*time.Millisecond)
	eventually(t, "the other to take it over", func() bool { return done(1) })
	time.Sleep(100 * time.Millisecond)
	reopen(1, 0)
	all := reports(t, f.bench[0], f.root)
	for _, r := range all[before:] {
		if r.Selection.What != "range" || r.Selection.First < 6 { // at most the reports themselves are read for the first time
			t.Errorf("the other read %+v again", r.Selection)
		}
	}

	key := archivetest.Montesole + "/packages/" + id[:2] + "/" + id + ".asice"
	data := bytesOf(t, f.root, key)
	data[len(data)/2] ^= 1
	overwrite(t, f.root, key, data)
	c.advance(31 * 24 * time.Hour)
	damaged := func() (n int) {
		for _, r := range reports(t, f.bench[0], f.root) {
			if r.Verdict == paper.VerdictDamaged {
				n++
			}
		}
		return n
	}
	for i := range f.a {
		reopen(i, 10*time.Millisecond)
		eventually(t, "a report of the damage by each", func() bool { return damaged() > i })
		reopen(i, 0)
	}
	f.close()
}

// twoOnOne opens two archives on one bucket in memory, each of which waits for no seal.
func twoOnOne(t testing.TB, m *storagetest.Mem, vary func(i int, c *archive.Config)) (bench [2]*archivetest.Bench, a [2]*archive.Archive) {
	t.Helper()
	bench[0] = archivetest.New(t, m)
	bench[1] = archivetest.Attach(t, m, filepath.Join(t.TempDir(), "state"), bench[0].Keys())
	for i, b := range bench {
		b.Vary = func(c *archive.Config) {
			c.TrustBucketHead, c.SealWait = i > 0, time.Millisecond
			if vary != nil {
				vary(i, c)
			}
		}
		a[i] = b.MustOpen()
	}
	eventually(t, "each to know what the other wrote at its start", func() bool {
		one, two := a[0].Status(ctx).Producers, a[1].Status(ctx).Producers
		return one[0].Commits == two[0].Commits && one[1].Commits == two[1].Commits
	})
	return bench, a
}

// TestACommitThatIsNotGivenHoldsUpOneBodyAlone has one daemon write a commit that the store gives to nobody, until it
// does: the other says so, and goes on with everything else.
func TestACommitThatIsNotGivenHoldsUpOneBodyAlone(t *testing.T) {
	t.Parallel()
	const wait, longest = 2 * time.Second, 30 * time.Second
	m := storagetest.NewMem(t)
	var hidden atomic.Pointer[string]
	m.OnGet = func(key string) (bool, error) {
		if k := hidden.Load(); k != nil && *k == key {
			return false, errors.New("400, encrypted with a key of the client's")
		}
		return true, nil
	}
	bench, both := twoOnOne(t, m, func(i int, c *archive.Config) {
		if i == 0 {
			c.StoreWait = wait
		}
	})
	a, other := both[0], both[1]
	next := ledger.Key(mine, a.Status(ctx).Producers[0].Commits)
	hidden.Store(&next)
	accepted(t, other, mine, archivetest.Determina("1", "testo"))
	id := accepted(t, other, archivetest.Colli, archivetest.Determina("1", "testo")).Body.Package

	began := time.Now()
	two := archivetest.Determina("2", "testo")
	if _, err := a.Submit(ctx, two.Submission(mine)); archive.KindOf(err) != archive.Unavailable || time.Since(began) > longest {
		t.Errorf("submission: got %v after %v, want unavailable", err, time.Since(began))
	}
	patient, cancel := context.WithCancel(ctx) // without a deadline, as those of the scheduler
	defer time.AfterFunc(longest, cancel).Stop()
	for _, code := range []string{archivetest.Colli, mine} {
		if _, err := a.Audit(patient, archive.Scope{Producer: code}); err != nil {
			t.Errorf("audit of %s: %v", code, err)
		}
	}
	if _, err := a.Receipt(patient, archivetest.Colli, id); err != nil {
		t.Errorf("receipt of another body: %v", err)
	}
	if h := a.Status(ctx).Producers; !strings.Contains(h[0].Stopped, "outcome of commit") || h[1].Stopped != "" {
		t.Errorf("status: got %q and %q", h[0].Stopped, h[1].Stopped)
	}
	const said = "no document of this producer gets in"
	eventually(t, "the log to say so", func() bool { return strings.Contains(bench[0].Logs.String(), said) })

	hidden.Store(nil)
	eventually(t, "it to go on by itself", func() bool { return a.Status(ctx).Producers[0].Stopped == "" })
	accepted(t, a, mine, two)
	if n := strings.Count(bench[0].Logs.String(), said); n != 1 {
		t.Errorf("it was said %d times, want once", n)
	}
	for i, b := range bench {
		b.Close(both[i])
	}
}

// awayFor fails to read the objects of a room, so many times, once one of another room was read.
type awayFor struct {
	*dir.Store
	room, after string
	met         atomic.Bool
	times       atomic.Int64
}

func (s *awayFor) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	if strings.Contains(key, s.after) {
		s.met.Store(true)
	}
	if s.met.Load() && strings.Contains(key, s.room) && s.times.Add(-1) >= 0 {
		return nil, storage.ErrUnknown
	}
	return s.Store.Get(ctx, key, version, offset, n)
}

// TestAReportThatCannotBeReadNowIsReadLater: a store that is away for a moment is no reason to forget what others said,
// whether it does not give the report or the commit that it is held against.
func TestAReportThatCannotBeReadNowIsReadLater(t *testing.T) {
	for _, room := range []string{"/reports/", "/ledger/"} {
		t.Run(room, func(t *testing.T) {
			tick := time.Duration(0)
			f := newFleet(t, 2, 0, func(_ int, cfg *archive.Config) { cfg.SealWait, cfg.AuditTick = time.Millisecond, tick })
			accepted(t, f.a[0], archivetest.Montesole, archivetest.Determina("1", "testo"))
			out := audited(t, f.a[0], archivetest.Montesole, paper.VerdictGood)
			away := &awayFor{room: room, after: "/reports/"}
			away.times.Store(2)
			if room == "/ledger/" {
				away.room = ledger.Key(archivetest.Montesole, out.Report.Ledger.Commits-1)
				for i := range 20 { // so that it is not at hand
					accepted(t, f.a[0], archivetest.Montesole, archivetest.Determina(fmt.Sprint(2+i), "testo"))
				}
			}
			f.bench[1].Close(f.a[1])
			store, err := dir.Open(f.root, dir.Options{Immutable: dir.Off})
			if err != nil {
				t.Fatal(err)
			}
			away.Store = store
			f.bench[1].Store, tick = away, 10*time.Millisecond
			f.a[1] = f.bench[1].MustOpen()
			const once = -1 // what this daemon's own audit reads of it
			eventually(t, "it to be read again", func() bool { return away.times.Load() < once })
			if strings.Contains(f.bench[1].Logs.String(), "is not relied upon") {
				t.Error("a report that was only not to be had was judged")
			}
			f.close()
		})
	}
}

// TestAnotherDaemonsReportIsNotTakenOnTrust puts a changed report under an entry: what it says was read is read again.
func TestAnotherDaemonsReportIsNotTakenOnTrust(t *testing.T) {
	c := &clock{}
	tick := time.Duration(0)
	f := newFleet(t, 2, 0, func(i int, cfg *archive.Config) { cfg.Now, cfg.SealWait, cfg.AuditTick = c.now, time.Millisecond, tick })
	accepted(t, f.a[0], archivetest.Montesole, archivetest.Determina("1", "testo"))
	c.advance(31 * 24 * time.Hour)
	audited(t, f.a[0], archivetest.Montesole, paper.VerdictGood)
	key := inRoom(keysIn(t, f.root), archivetest.Montesole+"/reports/")[0]
	data := bytesOf(t, f.root, key)
	data[len(data)/2] ^= 1
	overwrite(t, f.root, key, data)
	f.bench[1].Close(f.a[1])
	tick = 10 * time.Millisecond
	f.a[1] = f.bench[1].MustOpen()
	eventually(t, "the other to read it itself", func() bool {
		return len(inRoom(keysIn(t, f.root), archivetest.Montesole+"/reports/")) > 1 && f.a[1].Status(ctx).Producers[0].Overdue == 0
	})
	if !strings.Contains(f.bench[1].Logs.String(), "is not relied upon") {
		t.Error("it was not said")
	}
	f.close()
}
