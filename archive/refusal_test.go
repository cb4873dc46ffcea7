package archive_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
)

// described is a submission of one file under a description that change made of a good one.
func described(t testing.TB, number string, data []byte, change func(*policies.Description)) archive.Submission {
	t.Helper()
	var d policies.Description
	doc := archivetest.Determina(number, "")
	doc.Files[0].Data = data
	if err := json.Unmarshal(doc.Description(), &d); err != nil {
		t.Fatal(err)
	}
	change(&d)
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	given := false
	return archive.Submission{Producer: archivetest.Montesole, Metadata: text, Next: func() (archive.Part, error) {
		if given {
			return archive.Part{}, io.EOF
		}
		given = true
		return archive.Part{Name: d.Files[0].Name, Body: bytes.NewReader(data)}, nil
	}}
}

// brokenFiveTimes breaks five rules.
func brokenFiveTimes(t testing.TB) archive.Submission {
	return described(t, "5", archivetest.PDF("cinque"), func(d *policies.Description) {
		d.Subject, d.Date, d.Type, d.Flow = "", "2999-01-01", "inesistente", "X"
		d.Files[0].SHA256 = strings.Repeat("0", 64)
	})
}

func TestFiveBrokenRulesGetFiveReasons(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	r, err := a.Submit(ctx, brokenFiveTimes(t))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Refused() || r.Body.Package != "" || r.Body.Statement != paper.StatementRefusal {
		t.Errorf("got %s of package %q: %s", r.Body.Kind, r.Body.Package, r.Body.Statement)
	}
	got := map[string]policies.Finding{}
	for _, f := range r.Body.Checks {
		if f.Level == policies.Error {
			got[f.Field] = f
		}
	}
	for _, field := range []string{"subject", "date", "type", "flow", "files[0].sha256"} {
		f, ok := got[field]
		if !ok || f.Rule == "" || f.Message == "" || f.Remedy == "" {
			t.Errorf("%s: got %+v, want a reason with rule, message and remedy", field, f)
		}
	}
	if len(got) != 5 {
		t.Errorf("got reasons %+v, want five", got)
	}
	mustVerify(t, b, r)
	again, err := a.Submit(ctx, brokenFiveTimes(t))
	if err != nil || fixed(t, again) != fixed(t, r) {
		t.Errorf("the same submission: got %v, want the same refusal", err)
	}
	if got := inRoom(keysIn(t, root), archivetest.Montesole+"/refusals/"); len(got) != 1 {
		t.Errorf("got %q, want one refusal", got)
	}
	if got := ofType(entries(t, b, archivetest.Montesole), ledger.SubmissionRefused); got != 1 {
		t.Errorf("got %d entries, want one", got)
	}
}

func TestARefusalOccupiesNoKey(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	refused, err := a.Submit(ctx, faulty("6").Submission(archivetest.Montesole))
	if err != nil || !refused.Refused() {
		t.Fatalf("got %v, want a refusal", err)
	}
	r := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("6", "testo"))
	if r.Body.Generation != 0 {
		t.Errorf("got generation %d, want 0", r.Body.Generation)
	}
	id := refused.Body.Identifier[strings.LastIndex(refused.Body.Identifier, ":")+1:]
	if _, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: id}); archive.KindOf(err) != archive.NotFound {
		t.Errorf("retrieve a refusal: got %v, want not found", err)
	}
	got, err := a.Receipt(ctx, archivetest.Montesole, id)
	if err != nil || fixed(t, got) != fixed(t, refused) {
		t.Errorf("the refusal again: got %v", err)
	}
	audited(t, a, archivetest.Montesole, paper.VerdictGood)
}

func TestBeyondTheLimitNothingMoreIsRecorded(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	attempt := func(flow string) (*paper.Receipt, error) {
		return a.Submit(ctx, described(t, "7", archivetest.PDF("sette"), func(d *policies.Description) { d.Flow = flow }))
	}
	for _, flow := range []string{"A", "B", "C"} {
		if r, err := attempt(flow); err != nil || !r.Refused() {
			t.Fatalf("refusal %s: got %v", flow, err)
		}
	}
	before := size(t, a)
	_, err := attempt("D")
	var e *archive.Error
	if archive.KindOf(err) != archive.Refused || !errors.As(err, &e) || len(e.Findings) < 2 || e.Findings[0].Rule != "refusals.limit" {
		t.Errorf("beyond the limit: got %v, want refused, with the limit and the reasons", err)
	}
	if r, err := attempt("A"); err != nil || !r.Refused() {
		t.Errorf("one that was recorded, again: got %v, want its refusal", err)
	}
	if got := inRoom(keysIn(t, root), archivetest.Montesole+"/refusals/"); len(got) != 3 || size(t, a) != before {
		t.Errorf("got %d refusals and %d entries, want 3 and %d", len(got), size(t, a), before)
	}
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("7", "testo")) // what is right is accepted at any time
	audited(t, a, archivetest.Montesole, paper.VerdictGood)
}

// TestARefusalIsProvedByALaterCheckpoint has its seal cover a commit after its own.
func TestARefusalIsProvedByALaterCheckpoint(t *testing.T) {
	b, _ := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealWait = time.Millisecond }
	a := b.MustOpen()
	b.TSAAway(true)
	refused, err := a.Submit(ctx, faulty("8").Submission(archivetest.Montesole))
	if err != nil || refused.Evidence.Seal != paper.Pending {
		t.Fatalf("got %v, want a refusal whose seal is pending", err)
	}
	// An attempt over the refusal alone, which asked late, would be answered once the authority is back.
	eventually(t, "that attempt to fail", func() bool { return a.Status(ctx).SealError != "" })
	for i := range 3 {
		if _, err := a.Submit(ctx, archivetest.Determina(string('1'+rune(i)), "testo").Submission(archivetest.Montesole)); err != nil {
			t.Fatal(err)
		}
	}
	b.TSAAway(false)
	id := refused.Body.Identifier[strings.LastIndex(refused.Body.Identifier, ":")+1:]
	var sealed *paper.Receipt
	eventually(t, "the seal", func() bool {
		sealed, err = a.Receipt(ctx, archivetest.Montesole, id)
		return err == nil && sealed.Evidence.Seal == paper.Sealed
	})
	if sealed.Evidence.Proof == "" {
		t.Fatal("got no second proof, want one in the checkpoint that was sealed")
	}
	mustVerify(t, b, sealed)
	if fixed(t, sealed) != fixed(t, refused) {
		t.Error("body or proof changed with the seal")
	}
	for name, change := range map[string]func(*paper.Receipt){
		"proof left out":  func(r *paper.Receipt) { r.Evidence.Proof = "" },
		"proof of itself": func(r *paper.Receipt) { r.Evidence.Proof = r.Proof },
		"proof changed":   func(r *paper.Receipt) { r.Evidence.Proof = r.Evidence.Proof[:len(r.Evidence.Proof)-2] + "\n" },
	} {
		forged := *sealed
		change(&forged)
		if v := verdictOf(t, b.Trust, &forged); v != paper.Wrong {
			t.Errorf("%s: got %v, want wrong", name, v)
		}
	}
}
