package archive_test

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"sync"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/catalog"
	"github.com/marchesud/perenne/storage/dir"
)

var ctx = context.Background()

// newBench is a bench on the embedded store, whose folder it returns too.
func newBench(t testing.TB) (*archivetest.Bench, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "store")
	s, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	return archivetest.New(t, s), root
}

// mustSubmit submits and wants a receipt that verifies.
func mustSubmit(t testing.TB, b *archivetest.Bench, a *archive.Archive, producer string, d archivetest.Doc) *paper.Receipt {
	t.Helper()
	r, err := a.Submit(ctx, d.Submission(producer))
	if err != nil {
		t.Fatalf("submit %s: %v", d.Number, err)
	}
	if r.Refused() {
		t.Fatalf("submit %s: refused: %+v", d.Number, r.Body.Checks)
	}
	mustVerify(t, b, r)
	return r
}

func mustVerify(t testing.TB, b *archivetest.Bench, r *paper.Receipt) {
	t.Helper()
	text, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	res := paper.Verify(ctx, b.Trust, paper.English, []paper.File{{Name: "receipt.json", Size: int64(len(text)), ReaderAt: bytes.NewReader(text)}})
	if v := res[0].Verdict(); v != paper.Good {
		t.Fatalf("receipt: %v: %+v", v, res[0])
	}
}

// mustAudit audits everything of a producer and wants the verdict.
func mustAudit(t testing.TB, a *archive.Archive, producer, verdict string) *archive.Audited {
	t.Helper()
	out, err := a.Audit(ctx, archive.Scope{Producer: producer})
	if err != nil {
		t.Fatal(err)
	}
	if out.Report.Verdict != verdict {
		t.Fatalf("audit: verdict %s, want %s: %+v %v", out.Report.Verdict, verdict, out.Report.Findings, out.Report.NotChecked)
	}
	return out
}

func TestADocumentInAProofOut(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	doc := archivetest.Determina("12", "prima")
	doc.Files = append(doc.Files, archivetest.File{Name: "computo metrico è.xml", Data: []byte("<computo/>\n")})
	r := mustSubmit(t, b, a, archivetest.Montesole, doc)

	again := mustSubmit(t, b, a, archivetest.Montesole, doc)
	if again.Proof != r.Proof || again.Body.Salt != r.Body.Salt {
		t.Errorf("the same submission got another receipt")
	}
	other := archivetest.Determina("12", "seconda")
	if _, err := a.Submit(ctx, other.Submission(archivetest.Montesole)); archive.KindOf(err) != archive.Conflict {
		t.Errorf("other content under the same key: got %v, want a conflict", err)
	}

	c, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: r.Body.Package, Purpose: "prova", By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	zip, err := io.ReadAll(c.Reader())
	if err != nil {
		t.Fatal(err)
	}
	report := mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
	results := paper.Verify(ctx, b.Trust, paper.Italian, []paper.File{
		{Name: "copy.zip", Size: int64(len(zip)), ReaderAt: bytes.NewReader(zip)},
		{Name: "report.asice", Size: report.Size, ReaderAt: report.Reader()},
	})
	for i, res := range results {
		if res.Verdict() != paper.Good {
			t.Errorf("paper %d: %v: %+v", i, res.Verdict(), res)
		}
	}
	page, err := a.Search(ctx, catalog.Query{Producer: archivetest.Montesole, Words: "affidamenti"})
	if err != nil {
		t.Fatal(err)
	}
	_ = page
}

func TestAnArchiveThatWasClosedGoesOn(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	r := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "uno"))
	b.Close(a)
	a = b.MustOpen()
	again := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "uno"))
	if again.Proof != r.Proof {
		t.Errorf("another proof after a restart")
	}
	mustSubmit(t, b, a, archivetest.Colli, archivetest.Determina("1", "uno"))
	mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
	mustAudit(t, a, archivetest.Colli, paper.VerdictGood)
}

func TestFiftyAtOnceMakeOnePackage(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	doc := archivetest.Determina("7", "sette")
	var wg sync.WaitGroup
	receipts := make([]*paper.Receipt, 50)
	for i := range receipts {
		wg.Go(func() {
			r, err := a.Submit(ctx, doc.Submission(archivetest.Montesole))
			if err != nil {
				t.Errorf("submission %d: %v", i, err)
				return
			}
			receipts[i] = r
		})
	}
	wg.Wait()
	for i, r := range receipts {
		if r != nil && (r.Proof != receipts[0].Proof || r.Body.Salt != receipts[0].Body.Salt) {
			t.Errorf("receipt %d differs", i)
		}
	}
	mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
}
