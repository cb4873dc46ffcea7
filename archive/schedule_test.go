package archive_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/storagetest"
)

// clock is a clock that is set ahead by hand and otherwise runs.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// reports reads the reports a ledger names, in order.
func reports(t testing.TB, b *archivetest.Bench, root string) []*paper.Report {
	t.Helper()
	var list []*paper.Report
	for _, e := range entries(t, b, archivetest.Montesole) {
		if e.Type != ledger.ReportIssued {
			continue
		}
		text := bytesOf(t, root, e.Object)
		r, _, err := paper.ReadReport(ctx, bytes.NewReader(text), int64(len(text)), b.Trust)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

func TestEverythingIsReadAgainWithinItsPeriodOldestFirst(t *testing.T) {
	const day = 24 * time.Hour
	c := &clock{}
	b, root := newBench(t)
	tick, budget := time.Duration(0), int64(0) // the scheduler sleeps until the archive is opened again
	b.Vary = func(cfg *archive.Config) {
		cfg.Now, cfg.AuditTick, cfg.AuditBudget, cfg.SealWait = c.now, tick, budget, time.Millisecond
	}
	a := b.MustOpen()
	for i := range 6 {
		if _, err := a.Submit(ctx, archivetest.Determina(fmt.Sprint(i), "testo").Submission(archivetest.Montesole)); err != nil {
			t.Fatal(err)
		}
		c.advance(day)
	}
	if h := a.Status(ctx).Producers[0]; h.Overdue != 0 || h.OldestRead != "" {
		t.Errorf("before anything was due: got %+v", h)
	}
	c.advance(30 * day)
	if h := a.Status(ctx).Producers[0]; h.Overdue != h.Entries {
		t.Errorf("nothing read for 31 days: got %d of %d overdue", h.Overdue, h.Entries)
	}
	b.Close(a)

	tick, budget = 10*time.Millisecond, 1 // one package a tick
	a = b.MustOpen()
	eventually(t, "everything to be read", func() bool { return a.Status(ctx).Producers[0].Overdue == 0 })
	b.Close(a)
	tick = 0
	list := reports(t, b, root)
	if len(list) < 3 {
		t.Errorf("got %d reports, want several: the budget is spent with each package", len(list))
	}
	end := int64(0)
	for i, r := range list {
		if r.Verdict != paper.VerdictGood || r.Selection.What != "range" {
			t.Errorf("report %d: got %s of %+v", i, r.Verdict, r.Selection)
		}
		if r.Selection.First != end {
			t.Errorf("report %d begins at %d, want %d: oldest first, nothing twice", i, r.Selection.First, end)
		}
		if end = r.Selection.End; r.Objects.Read > 1 {
			t.Errorf("report %d read %d objects, which is over its budget", i, r.Objects.Read)
		}
	}

	// A period later all of it is due again.
	read := len(list)
	c.advance(29 * day)
	tick, budget = 10*time.Millisecond, 0
	a = b.MustOpen()
	time.Sleep(100 * time.Millisecond)
	b.Close(a)
	if got := len(reports(t, b, root)); got > read+1 { // the reports of the first round may be read for the first time
		t.Errorf("got %d reports on the 29th day, want %d: nothing is due", got, read)
	}
	c.advance(2 * day)
	a = b.MustOpen()
	eventually(t, "everything to be read again", func() bool {
		h := a.Status(ctx).Producers[0]
		oldest, err := time.Parse(paper.TimeFormat, h.OldestRead)
		return h.Overdue == 0 && (h.OldestRead == "" || err == nil && c.now().Sub(oldest) < 3*day)
	})
	b.Close(a)
}

// TestDamageIsToldUntilItIsFoundGood has two stretches come due at once, the first of them damaged: what the second, and an
// audit of a part, say does not make up for it, here and after a restart.
func TestDamageIsToldUntilItIsFoundGood(t *testing.T) {
	const day = 24 * time.Hour
	c := &clock{}
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	tick := time.Duration(0)
	b.Vary = func(cfg *archive.Config) {
		cfg.Now, cfg.AuditTick, cfg.SealWait = c.now, tick, time.Millisecond
	}
	a := b.MustOpen()
	part := func(first, end int64, want string) {
		t.Helper()
		out, err := a.Audit(ctx, archive.Scope{Producer: mine, First: first, End: end})
		if err != nil || out.Report.Verdict != want {
			t.Fatalf("entries %d to %d: got %+v, %v, want %s", first, end, out, err, want)
		}
	}
	told := func(want string) {
		t.Helper()
		h := a.Status(ctx).Producers[0]
		if h.LastVerdict != want || (h.LastDamage > 0) != (want == paper.VerdictDamaged) {
			t.Errorf("status: got %s, %d findings of damage, want %s", h.LastVerdict, h.LastDamage, want)
		}
	}
	id := accepted(t, a, mine, archivetest.Determina("1", "testo")).Body.Package
	accepted(t, a, mine, archivetest.Determina("2", "testo"))
	middle := size(t, a)
	part(0, middle, paper.VerdictGood)
	c.advance(time.Hour)
	accepted(t, a, mine, archivetest.Determina("3", "testo"))
	part(middle, size(t, a), paper.VerdictGood)
	told(paper.VerdictGood)
	b.Close(a)

	key := mine + "/packages/" + id[:2] + "/" + id + ".asice"
	whole := m.Bytes(key)
	m.Flip(key, 8*len(whole)/2)
	c.advance(31 * day)
	tick = 10 * time.Millisecond
	a = b.MustOpen()
	eventually(t, "everything to be read again", func() bool { return a.Status(ctx).Producers[0].Overdue == 0 })
	b.Close(a)
	tick = 0
	a = b.MustOpen()
	told(paper.VerdictDamaged)
	part(middle, size(t, a), paper.VerdictGood)
	told(paper.VerdictDamaged)
	m.Overwrite(key, whole)
	part(0, middle-1, paper.VerdictGood) // all of it but for one entry
	told(paper.VerdictDamaged)
	part(middle-1, middle, paper.VerdictGood)
	told(paper.VerdictGood)

	m.Flip(key, 8*len(whole)/2)
	audited(t, a, mine, paper.VerdictDamaged)
	m.Overwrite(key, whole)
	part(0, size(t, a), paper.VerdictGood) // which says nothing of the rest of the bucket
	told(paper.VerdictDamaged)
	audited(t, a, mine, paper.VerdictGood)
	told(paper.VerdictGood)
	b.Close(a)
}

// TestWhatTheStoreDidNotGiveIsAskedForAgainADayLater has a package, then a commit, that are not given when their time
// comes: all others are read, these count as overdue, and a day later they are read and their SHA-512 is bound.
func TestWhatTheStoreDidNotGiveIsAskedForAgainADayLater(t *testing.T) {
	const day = 24 * time.Hour
	for _, room := range []string{"/packages/", "/ledger/"} {
		c := &clock{}
		m := storagetest.NewMem(t)
		b := archivetest.New(t, m)
		tick := time.Duration(0) // the scheduler sleeps until the archive is opened again
		b.Vary = func(cfg *archive.Config) { cfg.Now, cfg.AuditTick = c.now, tick }
		a := b.MustOpen()
		for i := range 6 {
			mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(i), "testo"))
		}
		keys := inRoom(m.Keys(), mine+room)
		away := keys[len(keys)/2]
		m.Rot(away)
		out, err := a.Audit(ctx, archive.Scope{Producer: mine})
		if err != nil || out.Report.Verdict != paper.VerdictIncomplete {
			t.Fatalf("got %v, %v", out, err)
		}
		h := a.Status(ctx).Producers[0]
		if h.Overdue < 1 || h.Overdue > 2 || h.OldestRead != "" {
			t.Errorf("%s: %d overdue since %q, want what was not given alone, and no time", room, h.Overdue, h.OldestRead)
		}
		m.Unrot(away)
		b.Close(a)
		tick = 10 * time.Millisecond
		a = b.MustOpen()
		time.Sleep(100 * time.Millisecond)
		if h := a.Status(ctx).Producers[0]; h.Overdue < 1 {
			t.Errorf("%s: asked for again at once", room)
		}
		c.advance(day + time.Minute)
		eventually(t, "what was not given to be read", func() bool { return a.Status(ctx).Producers[0].Overdue == 0 })
		b.Close(a)
	}
}

// TestTheSchedulerFindsDamage hurts a package and waits for the alarm.
func TestTheSchedulerFindsDamage(t *testing.T) {
	c := &clock{}
	b, root := newBench(t)
	b.Vary = func(cfg *archive.Config) { cfg.Now, cfg.AuditTick = c.now, 20*time.Millisecond }
	a := b.MustOpen()
	r := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	key := archivetest.Montesole + "/packages/" + r.Body.Package[:2] + "/" + r.Body.Package + ".asice"
	data := bytesOf(t, root, key)
	data[len(data)/2] ^= 1
	overwrite(t, root, key, data)
	c.advance(31 * 24 * time.Hour)
	eventually(t, "a report that names it", func() bool {
		for _, rep := range reports(t, b, root) {
			if rep.Verdict == paper.VerdictDamaged && len(rep.Findings) == 1 && rep.Findings[0].Object == key {
				return true
			}
		}
		return false
	})
	b.Close(a)
}
