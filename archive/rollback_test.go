package archive_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/dir"
)

// rolledBack is an archive whose store and catalog are those of an earlier day, with a receipt of a later one.
type rolledBack struct {
	*archivetest.Bench
	root  string
	later paper.Checked
}

// rollBack makes one. Its state folder is that of today but for the catalog.
func rollBack(t testing.TB) *rolledBack {
	t.Helper()
	b, root := newBench(t)
	a := b.MustOpen()
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	mustSubmit(t, b, a, archivetest.Colli, archivetest.Determina("1", "testo"))
	b.Close(a)
	day := &settled{keys: b.Keys(), root: root, state: b.State}
	old, oldRoot := day.copyOf(t)

	a = b.MustOpen()
	r := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("2", "testo"))
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("3", "testo"))
	b.Close(a)
	_, checked := r.Check(b.Trust, paper.English)

	catalog := filepath.Join(b.State, "catalog")
	if err := os.RemoveAll(catalog); err != nil {
		t.Fatal(err)
	}
	copyTree(t, filepath.Join(old.State, "catalog"), catalog, copyFile)
	store, err := dir.Open(oldRoot, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	return &rolledBack{archivetest.Attach(t, store, b.State, b.Keys()), oldRoot, *checked}
}

// forget loses the state folder.
func (r *rolledBack) forget(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(r.State); err != nil {
		t.Fatal(err)
	}
}

func hasKind(out *archive.Audited, kind string) bool {
	return slices.ContainsFunc(out.Report.Findings, func(f paper.ReportFinding) bool { return f.Kind == kind && f.Gravity == paper.Damage })
}

func TestARollbackIsFoundByTheMark(t *testing.T) {
	b := rollBack(t)
	before := keysIn(t, b.root)
	a := b.MustOpen()
	out := audited(t, a, archivetest.Montesole, paper.VerdictDamaged)
	if !hasKind(out, "rollback") || out.Report.Ledger.Rollback != "found" {
		t.Errorf("got rollback %q, findings %+v", out.Report.Ledger.Rollback, out.Report.Findings)
	}
	if out.ID != "" {
		t.Error("a report was entered in a ledger that was rolled back")
	}
	if r, err := a.Submit(ctx, archivetest.Determina("4", "testo").Submission(archivetest.Montesole)); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("submit: got %v, %v, want unavailable", r, err)
	}
	// A document that was acknowledged, and is lost, must not be acknowledged as if nothing had happened either.
	if r, err := a.Submit(ctx, archivetest.Determina("2", "testo").Submission(archivetest.Montesole)); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("submit again: got %v, %v, want unavailable", r, err)
	}
	if s := a.Status(ctx).Producers[0]; s.Code != archivetest.Montesole || s.Stopped == "" {
		t.Errorf("status: got %+v, want why it stands still", s)
	}
	// The other producer was not rolled back and goes on.
	mustSubmit(t, b.Bench, a, archivetest.Colli, archivetest.Determina("2", "testo"))
	b.Close(a)
	if got := inRoom(keysIn(t, b.root), archivetest.Montesole+"/"); !slices.Equal(got, inRoom(before, archivetest.Montesole+"/")) {
		t.Errorf("something was written to the ledger that was rolled back: %q", got)
	}
}

func TestWithoutAMarkARollbackIsSaidToBeUnchecked(t *testing.T) {
	b := rollBack(t)
	b.forget(t)
	a := b.MustOpen()
	out := audited(t, a, archivetest.Montesole, paper.VerdictIncomplete)
	if out.Report.Ledger.Rollback != "not checked" || len(out.Report.NotChecked) == 0 {
		t.Errorf("got rollback %q, not checked %q", out.Report.Ledger.Rollback, out.Report.NotChecked)
	}
	if _, err := a.Submit(ctx, archivetest.Determina("4", "testo").Submission(archivetest.Montesole)); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("submit: got %v, want unavailable", err)
	}
	out, err := a.Audit(ctx, archive.Scope{Producer: archivetest.Montesole, Against: []paper.Checked{b.later}})
	if err != nil {
		t.Fatal(err)
	}
	if out.Report.Verdict != paper.VerdictDamaged || !hasKind(out, "rollback") {
		t.Errorf("against a later receipt: got %s, %+v, want a rollback", out.Report.Verdict, out.Report.Findings)
	}
	b.Close(a)
}

func TestABucketThatIsTrustedGoesOnAndSaysSo(t *testing.T) {
	b := rollBack(t)
	b.forget(t)
	b.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
	a := b.MustOpen()
	mustSubmit(t, b.Bench, a, archivetest.Montesole, archivetest.Determina("4", "testo"))
	if got := ofType(entries(t, b.Bench, archivetest.Montesole), ledger.TrustedHead); got != 1 {
		t.Errorf("got %d entries head.trusted, want one", got)
	}
	b.Close(a)
	b.Vary = nil
	a = b.MustOpen() // once is enough
	out := audited(t, a, archivetest.Montesole, paper.VerdictGood)
	if out.Report.Ledger.Rollback != "none" {
		t.Errorf("got rollback %q, want none", out.Report.Ledger.Rollback)
	}
	out, err := a.Audit(ctx, archive.Scope{Producer: archivetest.Montesole, Against: []paper.Checked{b.later}})
	if err != nil {
		t.Fatal(err)
	}
	if out.Report.Verdict != paper.VerdictDamaged {
		t.Errorf("against a receipt of the history that was lost: got %s, want damaged", out.Report.Verdict)
	}
	b.Close(a)
}

func TestAReceiptFromTheLedgerIsMetInIt(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	r := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("2", "testo"))
	checked, err := a.CheckAgainst(archivetest.Montesole, r)
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.Audit(ctx, archive.Scope{Producer: archivetest.Montesole, Against: []paper.Checked{checked}})
	if err != nil {
		t.Fatal(err)
	}
	if out.Report.Verdict != paper.VerdictGood || out.Report.Ledger.Against == "" {
		t.Errorf("got %s against %q, want good", out.Report.Verdict, out.Report.Ledger.Against)
	}
}

// TestReadingMakesNoMark opens without keys: what it has seen must not pass for what was acknowledged here.
func TestReadingMakesNoMark(t *testing.T) {
	for name, trust := range map[string]bool{"trusting": true, "not trusting": false} {
		t.Run(name, func(t *testing.T) {
			b := rollBack(t)
			b.forget(t)
			b.Vary = func(c *archive.Config) { c.LedgerSigner, c.TrustBucketHead = nil, trust }
			a := b.MustOpen()
			// Somebody else writes meanwhile; the audit reads on.
			other := archivetest.Attach(t, b.Store, t.TempDir(), b.Keys())
			other.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
			w := other.MustOpen()
			mustSubmit(t, other, w, archivetest.Montesole, archivetest.Determina("9", "testo"))
			other.Close(w)
			out := audited(t, a, archivetest.Montesole, paper.VerdictIncomplete)
			if out.Report.Ledger.Rollback != "not checked" {
				t.Errorf("got rollback %q, want it unchecked", out.Report.Ledger.Rollback)
			}
			b.Close(a)
			if text, err := os.ReadFile(filepath.Join(b.State, "heads")); err == nil && bytes.Contains(text, []byte(archivetest.Montesole)) {
				t.Errorf("a mark was made by reading:\n%s", text)
			}
		})
	}
}
