package archive_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/s3"
)

// TestEveryDamageIsRepairedOnServers hurts objects whose locks an administrator may bypass, in the bucket and on the
// disk.
func TestEveryDamageIsRepairedOnServers(t *testing.T) {
	onServers(t, s3.Governance, func(t *testing.T, m *administrator, b *archivetest.Bench) {
		a, first := filled(t, b)
		ways := slices.Sorted(maps.Keys(harms()))
		for round := range ways {
			b.Close(a)
			from, hurt := copyAll(m), map[string]string{}
			before := ofType(entriesBeside(t, b), ledger.Repaired)
			for i, room := range rooms {
				key := slices.Max(inRoom(m.Keys(), room))
				way := ways[(i+round)%len(ways)]
				if way == "flipped" && m.server.Kind == "minio" && len(m.versions(key)) > 1 {
					// Of several versions it is not known where MinIO keeps which.
					t.Logf("round %d: %s: not flipped on MinIO", round, key)
					continue
				}
				hurt[key] = way
				harms()[way](m, key)
			}
			a = b.MustOpen()
			got := repaired(t, a, from)
			restored := 0
			for key, way := range hurt {
				r := got[key]
				if r.What != archive.Restored && r.What != archive.Uncover {
					t.Errorf("round %d: %s: %s: got %+v, want it mended", round, key, way, r)
				}
				if r.What == archive.Restored {
					restored++
				}
				if !bytes.Equal(m.Bytes(key), from[key]) {
					t.Errorf("round %d: %s: %s: it holds other bytes", round, key, way)
				}
			}
			if after := ofType(entriesBeside(t, b), ledger.Repaired); after < before+restored {
				t.Errorf("round %d: %d restored, %d entries", round, restored, after-before)
			}
			audited(t, a, mine, paper.VerdictGood)
			readable(t, b, a, first)
		}
		for key, r := range repaired(t, a, copies{}) {
			if r.What != archive.Intact {
				t.Errorf("again: %s: got %+v, want it intact", key, r)
			}
		}
		b.Close(a)
	})
}

// TestALedgerThatStandsBeforeAForeignObjectGoesOnOnServers plants what may be called void, and what may not.
func TestALedgerThatStandsBeforeAForeignObjectGoesOnOnServers(t *testing.T) {
	onServers(t, s3.Compliance, func(t *testing.T, m *administrator, b *archivetest.Bench) {
		a, first := filled(t, b)
		b.Close(a)
		n := int64(len(inRoom(m.Keys(), mine+"/ledger/")))
		next := ledger.Key(mine, n)
		refused := func(what string) {
			t.Helper()
			state := t.TempDir() // what is met there must not be known afterwards
			copyTree(t, b.State, state, copyFile)
			b := archivetest.Attach(t, m.store, state, b.Keys())
			a := b.MustOpen()
			if err := a.VoidCommit(ctx, mine, n); archive.KindOf(err) != archive.Invalid {
				t.Errorf("%s: got %v, want invalid", what, err)
			}
			b.Close(a)
		}
		// A commit of this ledger that this machine never saw: written by another daemon on the same bucket.
		back := m.snapshot()
		other := archivetest.Attach(t, m.store, filepath.Join(t.TempDir(), "state"), b.Keys())
		other.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
		o := other.MustOpen()
		mustSubmit(t, other, o, mine, archivetest.Determina("9", "testo"))
		other.Close(o)
		theirs := m.Bytes(next)
		back()
		m.Marker(next)
		refused("a marker only")
		m.Delete(next)
		m.Plant(next, bytes.Replace(theirs, []byte(`"id"`), []byte(`"xx"`), 1))
		refused("what is left of a commit of this ledger")
		back() // what was looked at may have been locked
		m.Plant(next, theirs)
		m.Plant(next, []byte("altro"))
		refused("a commit of this ledger, hidden")
		back()
		if got := m.versions(next); len(got) != 0 {
			t.Fatalf("%s: %+v", next, got)
		}

		m.Plant(next, []byte("altro"))
		m.Plant(ledger.Key(mine, n+1), m.Bytes(ledger.Key(mine, 0))) // an old one put there again
		a = b.MustOpen()
		if _, err := a.Submit(ctx, archivetest.Determina("3", "testo").Submission(mine)); archive.KindOf(err) != archive.Unavailable {
			t.Fatalf("got %v, want unavailable", err)
		}
		if err := a.VoidCommit(ctx, mine, n); err != nil {
			t.Fatal(err)
		}
		later := mustSubmit(t, b, a, mine, archivetest.Determina("3", "testo"))
		if voids := voidsTold(audited(t, a, mine, paper.VerdictGood).Report); voids != 2 {
			t.Errorf("the report tells of %d void numbers, want 2", voids)
		}
		if round, err := a.ExtendLocks(ctx); err != nil || round.Short > 0 {
			t.Errorf("locks: got %+v, %v", round, err)
		}
		b.Close(a)
		b.Vary = func(c *archive.Config) { c.State += "-again"; c.TrustBucketHead = true }
		if err := os.RemoveAll(filepath.Join(b.State, "catalog")); err != nil {
			t.Fatal(err)
		}
		a = b.MustOpen() // from the bucket alone
		for _, r := range []*paper.Receipt{first, later} {
			again, err := a.Receipt(ctx, mine, r.Body.Package)
			if err != nil {
				t.Fatal(err)
			}
			mustVerify(t, b, again)
		}
		audited(t, a, mine, paper.VerdictGood)
		b.Close(a)
		// The commit that was hidden comes back: of this and the void number one is a fork.
		m.Plant(next, theirs)
		a = b.MustOpen()
		names(t, audited(t, a, mine, paper.VerdictDamaged), []string{next, ledger.Key(mine, n+1)})
		b.Close(a)
	})
}
