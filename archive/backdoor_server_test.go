package archive_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/s3"
)

// The tests of this file plant on real servers, through the back door, what their namesakes plant in a storagetest.Mem.
// An archive is hurt in several places at once and put right again, in rounds that give every kind of object every
// kind of harm: starting a server costs more than a round.

// rooms are where the kinds of objects of a body lie, and those of the installation.
var rooms = []string{mine + "/packages/", mine + "/ledger/", mine + "/reports/", mine + "/refusals/", "evidence/", "keys/"}

// filled is an archive that has an object of each kind, and the receipt of its first package.
func filled(t *testing.T, b *archivetest.Bench) (*archive.Archive, *paper.Receipt) {
	t.Helper()
	a := b.MustOpen()
	first := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	if _, err := a.Submit(ctx, faulty("90").Submission(mine)); err != nil {
		t.Fatal(err)
	}
	mustAudit(t, a, mine, paper.VerdictGood)
	mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
	return a, first
}

// TestAKeyMeansItsMatchingVersionOnServers lays versions and markers over objects that COMPLIANCE locks keep.
func TestAKeyMeansItsMatchingVersionOnServers(t *testing.T) {
	onServers(t, s3.Compliance, func(t *testing.T, m *administrator, b *archivetest.Bench) {
		a, first := filled(t, b)
		ways := slices.Sorted(maps.Keys(overlays()))
		for round := range ways {
			was := map[string][]byte{} // by key
			for i, room := range rooms {
				key := slices.Max(inRoom(m.Keys(), room))
				was[key] = m.Bytes(key)
				how := ways[(i+round)%len(ways)]
				t.Logf("round %d: %s: %s", round, key, how)
				overlays()[how](m, key)
			}
			readable(t, b, a, first)
			b.Close(a)
			b.Vary = func(c *archive.Config) { c.State += fmt.Sprint("-", round); c.TrustBucketHead = true }
			a = b.MustOpen() // no local index, no marks
			readable(t, b, a, first)
			b.Close(a)
			b.Vary = nil
			a = b.MustOpen()
			covered := slices.Sorted(maps.Keys(was))
			out := audited(t, a, mine, paper.VerdictDamaged)
			names(t, out, covered)
			for _, f := range out.Report.Findings {
				if f.Gravity == paper.Damage && !strings.Contains(f.Text, "integro") {
					t.Errorf("%s: %q does not say that the object is intact", f.Object, f.Text)
				}
			}
			for key, data := range was {
				for _, v := range m.versions(key) {
					if v.Marker || !bytes.Equal(m.version(key, v.ID), data) {
						m.DeleteVersion(key, v.ID)
					}
				}
			}
			// Under a marker an opening archive has published its keys again, where the server lets it: twice the same
			// bytes, which only an entry explains.
			repaired(t, a, copies{})
			audited(t, a, mine, paper.VerdictGood)
		}
		b.Close(a)
	})
}

// TestForeignObjectsAreNamedOnServers plants objects that nobody asked for, and a marker over nothing.
func TestForeignObjectsAreNamedOnServers(t *testing.T) {
	onServers(t, s3.Compliance, func(t *testing.T, m *administrator, b *archivetest.Bench) {
		a, _ := filled(t, b)
		seals := len(inRoom(m.Keys(), "evidence/"))
		planted := []string{
			"letto", "altro/cosa", mine + "/letto", mine + "/packages/aa/letto.asice", mine + "/packages/aa/con spazio",
			mine + "/ledger/letto", mine + "/ledger/0000000000000000/0999", mine + "/tiles/letto", mine + "/reports/2026/letto.asice",
			mine + "/refusals/2026/letto", "evidence/letto", fmt.Sprintf("evidence/0000000000000000/%04d", seals), "keys/letto",
		}
		for _, key := range planted {
			m.Plant(key, []byte("non richiesto\n"))
		}
		m.Plant("segnato", []byte("x"))
		m.Marker("segnato")
		planted = append(planted, "segnato")
		names(t, audited(t, a, mine, paper.VerdictDamaged), planted)
		for _, key := range planted {
			m.Delete(key)
		}
		audited(t, a, mine, paper.VerdictGood)
		b.Close(a)
	})
}

// TestARollbackOnServers puts an older copy of a server's disk in its place.
func TestARollbackOnServers(t *testing.T) {
	onServers(t, s3.Compliance, func(t *testing.T, m *administrator, b *archivetest.Bench) {
		a, _ := filled(t, b)
		b.Close(a)
		back := m.snapshot()
		a = b.MustOpen()
		r := mustSubmit(t, b, a, mine, archivetest.Determina("3", "testo"))
		mustSubmit(t, b, a, mine, archivetest.Determina("4", "testo"))
		b.Close(a)
		_, later := r.Check(b.Trust, paper.English)
		back()
		before := m.Keys()
		if err := os.RemoveAll(filepath.Join(b.State, "catalog")); err != nil {
			t.Fatal(err)
		}

		stopped := func(a *archive.Archive) {
			t.Helper()
			for _, number := range []string{"3", "5"} { // one that was acknowledged and is lost; a new one
				if _, err := a.Submit(ctx, archivetest.Determina(number, "testo").Submission(mine)); archive.KindOf(err) != archive.Unavailable {
					t.Errorf("submit %s: got %v, want unavailable", number, err)
				}
			}
		}
		a = b.MustOpen()
		if out := audited(t, a, mine, paper.VerdictDamaged); !hasKind(out, "rollback") || out.Report.Ledger.Rollback != "found" {
			t.Errorf("by the mark: got rollback %q, findings %+v", out.Report.Ledger.Rollback, out.Report.Findings)
		}
		stopped(a)
		b.Close(a)

		b.Vary = func(c *archive.Config) { c.State += "-2" } // no mark
		a = b.MustOpen()
		if out := audited(t, a, mine, paper.VerdictIncomplete); out.Report.Ledger.Rollback != "not checked" {
			t.Errorf("without a mark: got rollback %q", out.Report.Ledger.Rollback)
		}
		stopped(a)
		against := archive.Scope{Producer: mine, Against: []paper.Checked{*later}}
		if out, err := a.Audit(ctx, against); err != nil || out.Report.Verdict != paper.VerdictDamaged || !hasKind(out, "rollback") {
			t.Errorf("against a later receipt: got %+v, %v, want a rollback", out, err)
		}
		b.Close(a)
		if got := m.Keys(); !slices.Equal(inRoom(got, mine+"/ledger/"), inRoom(before, mine+"/ledger/")) {
			t.Errorf("something was written to the ledger that was rolled back: %q", got)
		}

		b.Vary = func(c *archive.Config) { c.State += "-2"; c.TrustBucketHead = true }
		a = b.MustOpen()
		mustSubmit(t, b, a, mine, archivetest.Determina("5", "testo"))
		if got := ofType(entries(t, b, mine), ledger.TrustedHead); got != 1 {
			t.Errorf("got %d entries head.trusted, want one", got)
		}
		audited(t, a, mine, paper.VerdictGood)
		if out, err := a.Audit(ctx, against); err != nil || out.Report.Verdict != paper.VerdictDamaged {
			t.Errorf("against a receipt of the history that was lost: got %+v, %v", out, err)
		}
		b.Close(a)
	})
}

// TestTwoOfOneNumberAreAForkOnServers lays the commits and seals of another history over those of this one.
func TestTwoOfOneNumberAreAForkOnServers(t *testing.T) {
	onServers(t, s3.Compliance, func(t *testing.T, m *administrator, b *archivetest.Bench) {
		a, _ := filled(t, b)
		b.Close(a)
		back := m.snapshot()
		state := t.TempDir()
		copyTree(t, b.State, state, copyFile)
		other := archivetest.Attach(t, m.store, state, b.Keys())
		a = b.MustOpen()
		mustSubmit(t, b, a, mine, archivetest.Determina("3", "uno"))
		b.Close(a)
		one := copyAll(m)
		back()
		a = other.MustOpen()
		mustSubmit(t, other, a, mine, archivetest.Determina("3", "due"))
		var forked []string
		for _, key := range m.Keys() {
			if data := one[key]; data != nil && (strings.Contains(key, "/ledger/") || strings.HasPrefix(key, "evidence/")) && !bytes.Equal(m.Bytes(key), data) {
				m.Plant(key, data)
				forked = append(forked, key)
			}
		}
		out := audited(t, a, mine, paper.VerdictDamaged)
		var commits, seals bool
		for _, f := range out.Report.Findings {
			commits = commits || strings.HasPrefix(f.Object, mine+"/ledger/") && strings.Contains(f.Text, "fork")
			seals = seals || strings.HasPrefix(f.Object, "evidence/") && f.Kind == "fork"
		}
		if !commits || !seals {
			t.Errorf("forked %q; fork of commits found: %v, of seals: %v; %+v", forked, commits, seals, out.Report.Findings)
		}
		other.Close(a)
	})
}
