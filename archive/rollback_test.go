package archive_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/storagetest"
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

// TestAPartLooksAtTheEndOfTheBucketToo takes the end of the bucket away under a running archive, or hurts it, and has one
// package, then a range, looked at whose commits are whole; also held against a paper of that end.
func TestAPartLooksAtTheEndOfTheBucketToo(t *testing.T) {
	type ends struct {
		before storagetest.Snapshot
		key    string // of the commit of the mark
		other  []byte // a commit that was signed for its number, and never acknowledged
	}
	for name, c := range map[string]struct {
		hurt                    func(*storagetest.Mem, ends)
		verdict, rollback, kind string
	}{
		"untouched":       {func(*storagetest.Mem, ends) {}, paper.VerdictGood, "none", ""},
		"rolled back":     {func(m *storagetest.Mem, e ends) { m.Rollback(e.before) }, paper.VerdictDamaged, "found", "rollback"},
		"last deleted":    {func(m *storagetest.Mem, e ends) { m.Delete(e.key) }, paper.VerdictDamaged, "found", "rollback"},
		"another history": {func(m *storagetest.Mem, e ends) { m.Overwrite(e.key, e.other) }, paper.VerdictDamaged, "found", "fork"},
		"flipped":         {func(m *storagetest.Mem, e ends) { m.Flip(e.key, 800) }, paper.VerdictDamaged, "not checked", "ledger"},
		"covered":         {func(m *storagetest.Mem, e ends) { m.Plant(e.key, []byte("altro")) }, paper.VerdictDamaged, "none", "versions"},
		"under a marker":  {func(m *storagetest.Mem, e ends) { m.Marker(e.key) }, paper.VerdictDamaged, "none", "delete marker"},
		"not given":       {func(m *storagetest.Mem, e ends) { m.Rot(e.key) }, paper.VerdictIncomplete, "not checked", ""},
	} {
		for _, what := range []string{"package", "package against", "range", "range against"} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				m := storagetest.NewMem(t)
				m.Lenient = true
				b := archivetest.New(t, m)
				a := b.MustOpen()
				scope := archive.Scope{Producer: mine, IDs: []string{mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo")).Body.Package}}
				mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
				b.Close(a)
				heads := filepath.Join(b.State, "heads")
				mark, err := os.ReadFile(heads)
				if err != nil {
					t.Fatal(err)
				}
				var e ends
				e.before = m.Snapshot()
				branch := storagetest.NewMem(t)
				branch.Rollback(e.before)
				a = b.MustOpen()
				last := mustSubmit(t, b, a, mine, archivetest.Determina("3", "testo"))
				n := marked(t, b)
				b.Close(a)
				now, err := os.ReadFile(heads)
				if err != nil {
					t.Fatal(err)
				}
				e.key, b.Store = ledger.Key(mine, n), branch
				if err := os.WriteFile(heads, mark, 0o600); err != nil {
					t.Fatal(err)
				}
				for branch.Bytes(e.key) == nil {
					plant(t, b, mine, holds(1)...)
				}
				e.other, b.Store = branch.Bytes(e.key), m
				if err := os.WriteFile(heads, now, 0o600); err != nil {
					t.Fatal(err)
				}
				a = b.MustOpen()
				if got := marked(t, b); got != n {
					t.Fatalf("the archive went on to commit %d by itself", got)
				}
				if strings.HasPrefix(what, "range") {
					scope.IDs, scope.End = nil, 3
				}
				if strings.HasSuffix(what, "against") {
					scope.Against = []paper.Checked{held(t, b, last)}
				}
				c.hurt(m, e)
				out, err := a.Audit(ctx, scope)
				if err != nil {
					t.Fatal(err)
				}
				r := out.Report
				if r.Verdict != c.verdict || r.Ledger.Rollback != c.rollback || c.kind != "" && !hasKind(out, c.kind) || c.kind == "" && len(r.Findings) > 0 {
					t.Errorf("got %s, rollback %q, %+v, not checked %q; want %s, %q, %s", r.Verdict, r.Ledger.Rollback, r.Findings, r.NotChecked, c.verdict, c.rollback, c.kind)
				}
				b.Close(a)
			})
		}
	}
}

// TestARollbackUnderARunningArchiveStopsIt sets the bucket back under an archive that runs: from the audit that finds it
// on nothing is written, until an audit finds the end of the bucket again.
func TestARollbackUnderARunningArchiveStopsIt(t *testing.T) {
	for _, part := range []bool{false, true} {
		t.Run(map[bool]string{false: "everything", true: "one package"}[part], func(t *testing.T) {
			t.Parallel()
			m := storagetest.NewMem(t)
			b := archivetest.New(t, m)
			a := b.MustOpen()
			scope := archive.Scope{Producer: mine}
			first := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			if part {
				scope.IDs = []string{first.Body.Package}
			}
			b.Close(a) // and everything is sealed
			before := m.Snapshot()
			a = b.MustOpen()
			mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
			b.Close(a)
			now := m.Snapshot()
			a = b.MustOpen()

			m.Rollback(before)
			out, err := a.Audit(ctx, scope)
			if err != nil {
				t.Fatal(err)
			}
			if out.Report.Verdict != paper.VerdictDamaged || !hasKind(out, "rollback") || out.ID != "" {
				t.Errorf("got %s, %+v, entered as %q; want a rollback, not entered", out.Report.Verdict, out.Report.Findings, out.ID)
			}
			kept := inRoom(m.Keys(), mine+"/")
			if r, err := a.Submit(ctx, archivetest.Determina("3", "testo").Submission(mine)); archive.KindOf(err) != archive.Unavailable {
				t.Errorf("submit: got %v, %v, want unavailable", r, err)
			}
			if got := inRoom(m.Keys(), mine+"/"); !slices.Equal(got, kept) {
				t.Errorf("written over the rollback: had %q, have %q", kept, got)
			}
			if s := a.Status(ctx).Producers[0]; s.Code != mine || !strings.Contains(s.Stopped, "rolled back") {
				t.Errorf("status: got %+v, want why it stands still", s)
			}

			m.Rollback(now)
			out, err = a.Audit(ctx, scope)
			if err != nil {
				t.Fatal(err)
			}
			if out.Report.Verdict != paper.VerdictGood || out.ID == "" {
				t.Errorf("put back: got %s, %+v, not checked %q, entered as %q; want good", out.Report.Verdict, out.Report.Findings, out.Report.NotChecked, out.ID)
			}
			mustSubmit(t, b, a, mine, archivetest.Determina("3", "testo"))
			b.Close(a)
		})
	}
}

// marked is the commit that a running archive has acknowledged last.
func marked(t testing.TB, b *archivetest.Bench) int64 {
	t.Helper()
	heads, err := ledger.OpenHeads(filepath.Join(b.State, "heads"))
	if err != nil {
		t.Fatal(err)
	}
	head, ok := heads.Get(mine)
	if !ok {
		t.Fatal("no mark")
	}
	return head.Number
}

// TestAPaperIsHeldAgainstTheBucketWhereThereIsNoMark has an archive that only reads, and has a local index of everything,
// look at one package: without a paper it cannot tell, with one it looks whether the bucket still has its commit.
func TestAPaperIsHeldAgainstTheBucketWhereThereIsNoMark(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	scope := archive.Scope{Producer: mine, IDs: []string{mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo")).Body.Package}}
	before := m.Snapshot()
	last := held(t, b, mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo")))
	b.Close(a)
	reader := archivetest.Attach(t, m, t.TempDir(), b.Keys())
	reader.Vary = func(c *archive.Config) { c.LedgerSigner, c.TrustBucketHead = nil, true }
	a = reader.MustOpen()
	for _, c := range []struct {
		back              bool
		against           []paper.Checked
		verdict, rollback string
	}{
		{false, nil, paper.VerdictIncomplete, "not checked"},
		{false, []paper.Checked{last}, paper.VerdictGood, "none"},
		{true, []paper.Checked{last}, paper.VerdictDamaged, "found"},
	} {
		if c.back {
			m.Rollback(before)
		}
		scope.Against = c.against
		out, err := a.Audit(ctx, scope)
		if err != nil {
			t.Fatal(err)
		}
		if r := out.Report; r.Verdict != c.verdict || r.Ledger.Rollback != c.rollback {
			t.Errorf("%+v: got %s, rollback %q, %+v, not checked %q", c, r.Verdict, r.Ledger.Rollback, r.Findings, r.NotChecked)
		}
	}
	reader.Close(a)
}
