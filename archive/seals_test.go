package archive_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
)

// sealsIn reads all seals.
func sealsIn(t testing.TB, b *archivetest.Bench) []*seal.Seal {
	t.Helper()
	var list []*seal.Seal
	for n := int64(0); ; n++ {
		s, _, err := seal.Read(ctx, b.Store, n, nil)
		if err != nil {
			return list
		}
		list = append(list, s)
	}
}

// accepted submits and wants a receipt, sealed or not.
func accepted(t testing.TB, a *archive.Archive, producer string, d archivetest.Doc) *paper.Receipt {
	t.Helper()
	r, err := a.Submit(ctx, d.Submission(producer))
	if err != nil || r.Refused() {
		t.Fatalf("submit %s: got %+v, %v, want a receipt", d.Number, r, err)
	}
	return r
}

func TestSubmissionsGoOnWhileTheTSAIsAway(t *testing.T) {
	b, _ := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealWait = 10 * time.Millisecond }
	a := b.MustOpen()
	b.TSAAway(true)
	var pending []*paper.Receipt
	for i := range 5 {
		r, err := a.Submit(ctx, archivetest.Determina(fmt.Sprint(i), "testo").Submission(archivetest.Montesole))
		if err != nil {
			t.Fatal(err)
		}
		if r.Evidence.Seal != paper.Pending {
			t.Errorf("receipt %d: got %s, want pending", i, r.Evidence.Seal)
		}
		if v := verdictOf(t, b.Trust, r); v != paper.CannotTell {
			t.Errorf("receipt %d: got %v, want cannot tell", i, v)
		}
		pending = append(pending, r)
	}
	eventually(t, "the status to say so", func() bool { h := a.Status(ctx); return h.UnsealedSince != "" && h.SealError != "" })
	since := a.Status(ctx).UnsealedSince
	if _, err := time.Parse(paper.TimeFormat, since); err != nil {
		t.Errorf("unsealed since %q: %v", since, err)
	}
	if out := audited(t, a, archivetest.Montesole, paper.VerdictGood); out.Report.Seals.Unsealed == 0 {
		t.Error("the report says that everything is sealed")
	}
	if got := a.Status(ctx).UnsealedSince; got != since {
		t.Errorf("unsealed since: got %s, want %s as before", got, since)
	}
	b.TSAAway(false)
	eventually(t, "everything to be sealed", func() bool {
		h := a.Status(ctx)
		return h.UnsealedSince == "" && h.SealError == "" && h.Producers[0].Unsealed == 0 && h.Producers[1].Unsealed == 0
	})
	for i, old := range pending {
		r, err := a.Receipt(ctx, archivetest.Montesole, old.Body.Package)
		if err != nil {
			t.Fatal(err)
		}
		mustVerify(t, b, r)
		if fixed(t, r) != fixed(t, old) {
			t.Errorf("receipt %d: body or proof changed with the seal", i)
		}
	}
}

func TestSealsAtIntervalsCoverEverything(t *testing.T) {
	b, _ := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealEvery = 300 * time.Millisecond }
	a := b.MustOpen()
	started := time.Now()
	var r *paper.Receipt
	for i := range 20 {
		r = accepted(t, a, archivetest.Montesole, archivetest.Determina(fmt.Sprint(i), "testo"))
	}
	if got, most := len(sealsIn(t, b)), 3+int(time.Since(started)/(300*time.Millisecond)); got > most {
		t.Errorf("got %d seals over 20 documents, want at most %d: they are made at intervals", got, most)
	}
	eventually(t, "the seal", func() bool {
		r, err := a.Receipt(ctx, archivetest.Montesole, r.Body.Package)
		return err == nil && r.Evidence.Seal == paper.Sealed
	})
}

// TestOneSealCoversTwoProducers makes one over both and wants evidence of either out of it.
func TestOneSealCoversTwoProducers(t *testing.T) {
	b, _ := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealWait = time.Millisecond }
	a := b.MustOpen()
	eventually(t, "rest", func() bool { return a.Status(ctx).Producers[0].Unsealed+a.Status(ctx).Producers[1].Unsealed == 0 })
	b.TSAAway(true)
	var ids []string
	producers := []string{archivetest.Montesole, archivetest.Colli}
	for _, p := range producers {
		r, err := a.Submit(ctx, archivetest.Determina("1", "testo").Submission(p))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.Body.Package)
	}
	b.TSAAway(false)
	roots := map[string]bool{}
	for i, p := range producers {
		var r *paper.Receipt
		eventually(t, "the seal", func() bool {
			var err error
			r, err = a.Receipt(ctx, p, ids[i])
			return err == nil && r.Evidence.Seal == paper.Sealed
		})
		mustVerify(t, b, r)
		roots[r.Evidence.Root] = true
	}
	if list := sealsIn(t, b); len(roots) != 1 || len(list[len(list)-1].Ranges) != 2 {
		t.Errorf("got roots %v, want one seal over two producers", roots)
	}
}

// TestAnIdleArchiveRests waits through many rounds of sealer and scheduler.
func TestAnIdleArchiveRests(t *testing.T) {
	b, root := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealEvery, c.AuditTick = 5*time.Millisecond, 5*time.Millisecond }
	a := b.MustOpen()
	for i := range 3 {
		if _, err := a.Submit(ctx, archivetest.Determina(fmt.Sprint(i), "testo").Submission(archivetest.Montesole)); err != nil {
			t.Fatal(err)
		}
	}
	last := 0
	calm := time.Now()
	eventually(t, "rest", func() bool {
		if n := len(keysIn(t, root)); n != last {
			last, calm = n, time.Now()
		}
		return time.Since(calm) > 500*time.Millisecond
	})
	h := a.Status(ctx)
	for _, p := range h.Producers {
		if p.Unsealed != 0 {
			t.Errorf("%s: %d entries unsealed at rest", p.Code, p.Unsealed)
		}
	}
	b.Close(a)
	if n := len(keysIn(t, root)); n != last {
		t.Errorf("closing wrote %d objects", n-last)
	}
	a = b.MustOpen()
	b.Close(a)
	if n := len(keysIn(t, root)); n != last {
		t.Errorf("opening and closing wrote %d objects", n-last)
	}
}

// TestSealEntriesRideAlongOnceAndNeverAlone reads what a busy archive with restarts has written.
func TestSealEntriesRideAlongOnceAndNeverAlone(t *testing.T) {
	b, _ := newBench(t)
	for i := range 3 {
		a := b.MustOpen()
		b.TSAAway(true) // commits without a seal between them
		for j := range 3 {
			log, err := a.Ledger(archivetest.Montesole)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := log.Append(ctx, ledger.Pending{Entry: holds(1)[0]}); err != nil {
				t.Fatalf("hold %d: %v", j, err)
			}
		}
		b.TSAAway(false)
		for j := range 4 { // sealed at once, or after the pause that the failures have cost
			accepted(t, a, archivetest.Montesole, archivetest.Determina(fmt.Sprint(10*i+j), "testo"))
		}
		accepted(t, a, archivetest.Colli, archivetest.Determina(fmt.Sprint(i), "testo"))
		audited(t, a, archivetest.Montesole, paper.VerdictGood)
		b.Close(a)
	}
	for _, p := range []string{archivetest.Montesole, archivetest.Colli} {
		last, met := int64(-1), 0
		for c, err := range ledger.Walk(ctx, b.Store, p, b.Trust.Ledgers, 0, -1) {
			if err != nil {
				t.Fatal(err)
			}
			riders := ofType(c.Entries, ledger.SealEntry)
			if riders > 1 || riders == len(c.Entries) {
				t.Errorf("%s: commit %d has %d seal entries among %d", p, c.Number, riders, len(c.Entries))
			}
			for _, e := range c.Entries {
				if e.Type != ledger.SealEntry {
					continue
				}
				if *e.Seal <= last {
					t.Errorf("%s: commit %d names seal %d again, after %d", p, c.Number, *e.Seal, last)
				}
				last, met = *e.Seal, met+1
			}
		}
		if met == 0 {
			t.Errorf("%s: got no seal entry, want the newest with each commit", p)
		}
	}
}
