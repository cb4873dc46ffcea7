package archive_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
)

// TestAClientThatHangsUpHoldsUpNobody: its entry gets into a commit all the same, and the search record that the commit
// needs is at hand. It used to be waited for as another daemon's: over a second, with the ledger's turn held.
func TestAClientThatHangsUpHoldsUpNobody(t *testing.T) {
	b, _ := newBench(t)
	leaving, hangUp := context.WithCancel(ctx)
	defer hangUp()
	var armed atomic.Bool
	var began, applied time.Time
	b.Vary = func(cfg *archive.Config) {
		cfg.Crash = func(at string) {
			switch at {
			case "commit.decided":
				if armed.CompareAndSwap(true, false) {
					hangUp()
					time.Sleep(20 * time.Millisecond) // for the submission to notice
					began = time.Now()
				}
			case "commit.applied":
				if !began.IsZero() && applied.IsZero() {
					applied = time.Now()
				}
			}
		}
	}
	a := b.MustOpen()
	defer b.Close(a)
	d := archivetest.Determina("1", "testo")
	armed.Store(true)
	if _, err := a.Submit(leaving, d.Submission(archivetest.Montesole)); err == nil {
		t.Fatal("a client that hung up got its receipt")
	}
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("2", "testo"))
	if took := applied.Sub(began); began.IsZero() || took > 500*time.Millisecond {
		t.Errorf("the commit was applied after %v, want at once", took)
	}
	mustSubmit(t, b, a, archivetest.Montesole, d) // it was taken, and is found with its own record
}
