package archive_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/storage/storagetest"
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

// withoutType is a policy that admits no determina.
func withoutType(t testing.TB) *policies.Policy {
	t.Helper()
	base, err := policies.Builtin("comune")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policies.Parse([]byte("name: montesole\ntypes:\n  determina: null\n"), base)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestWhatAnotherDaemonTookInChargeIsNotRefused submits at one daemon, and at once at another whose policy does not admit
// it: the first took it a moment ago, or while the refusal is on its way.
func TestWhatAnotherDaemonTookInChargeIsNotRefused(t *testing.T) {
	for _, meanwhile := range []bool{false, true} {
		t.Run(fmt.Sprint(meanwhile), func(t *testing.T) {
			t.Parallel()
			m := storagetest.NewMem(t)
			var refusing atomic.Pointer[func()]
			m.OnPut = func(key string) (bool, error) {
				if strings.Contains(key, "/refusals/") {
					if f := refusing.Swap(nil); f != nil {
						(*f)()
					}
				}
				return true, nil
			}
			bench, a := twoOnOne(t, m, func(i int, c *archive.Config) {
				if i == 1 {
					c.Producers[0].Policy = withoutType(t)
				}
			})
			d := archivetest.Determina("1", "testo")
			var first *paper.Receipt
			take := func() { first = accepted(t, a[0], mine, d) }
			if meanwhile {
				refusing.Store(&take)
			} else {
				take()
			}
			got, err := a[1].Submit(ctx, d.Submission(mine))
			if err != nil || got.Refused() {
				t.Fatalf("got %+v, %v, want the receipt", got, err)
			}
			if fixed(t, got) != fixed(t, first) {
				t.Error("the receipt is another one")
			}
			if n := ofType(entries(t, bench[0], mine), ledger.SubmissionRefused); n != 0 {
				t.Errorf("%d refusals are recorded, want none", n)
			}
			control, err := a[1].Submit(ctx, archivetest.Determina("2", "testo").Submission(mine))
			if err != nil || !control.Refused() {
				t.Errorf("control: another one of that type: got %+v, %v", control, err)
			}
			for i, b := range bench {
				b.Close(a[i])
			}
		})
	}
}

// TestWhatACrashLeftOfARefusalIsNotInTheWay dies with a refusal stored and not entered, and submits the same again: days
// later, or when this archive says other things.
func TestWhatACrashLeftOfARefusalIsNotInTheWay(t *testing.T) {
	for name, change := range map[string]func(*clock, *archive.Config){
		"at once":         func(*clock, *archive.Config) {},
		"days later":      func(c *clock, _ *archive.Config) { c.advance(72 * time.Hour) },
		"renamed":         func(_ *clock, cfg *archive.Config) { cfg.Producers[0].Name = "Comune di Montesole Terme" },
		"renamed, later":  func(c *clock, cfg *archive.Config) { c.advance(72 * time.Hour); cfg.Producers[0].Name += " Terme" },
		"of another year": func(c *clock, _ *archive.Config) { c.advance(366 * 24 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, d := &clock{}, &death{label: "refusal.stored"}
			m := storagetest.NewMem(t)
			b := archivetest.New(t, m)
			vary := func(cfg *archive.Config) {
				cfg.Now, cfg.SealWait = c.now, time.Millisecond
				d.arrange(cfg)
			}
			b.Vary = vary
			a := b.MustOpen()
			d.armed.Store(true)
			dead := make(chan struct{})
			go func() {
				defer close(dead)
				_, _ = a.Submit(ctx, faulty("1").Submission(mine))
			}()
			<-dead
			b.Close(a)
			if n := len(inRoom(m.Keys(), mine+"/refusals/")); n != 1 || d.armed.Load() {
				t.Fatalf("%d refusals were left, want one", n)
			}
			b.Vary = func(cfg *archive.Config) {
				vary(cfg)
				change(c, cfg)
			}
			a = b.MustOpen()
			r, err := a.Submit(ctx, faulty("1").Submission(mine))
			if err != nil || !r.Refused() {
				t.Fatalf("got %+v, %v, want a refusal", r, err)
			}
			proof, err := ledger.ParseProof([]byte(r.Proof), b.Trust.Ledgers)
			if err != nil {
				t.Fatal(err)
			}
			entered, err := time.Parse(ledger.TimeLayout, proof.Entry.Time)
			if err == nil {
				err = r.Body.Timely(entered)
			}
			if err != nil {
				t.Errorf("the paper contradicts its entry: %v", err)
			}
			again, err := a.Submit(ctx, faulty("1").Submission(mine))
			if err != nil || fixed(t, again) != fixed(t, r) {
				t.Errorf("the same once more: got %v", err)
			}
			audited(t, a, mine, paper.VerdictGood)
			b.Close(a)
		})
	}
}

// TestARefusalIsProvedByALaterCheckpoint has its seal cover a commit after its own.
func TestARefusalIsProvedByALaterCheckpoint(t *testing.T) {
	b, _ := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealWait = time.Millisecond }
	a := b.MustOpen()
	var refused, sealed *paper.Receipt
	// An attempt over the refusal alone may have begun to ask before the others came, and be answered once the authority is
	// back: then that seal proves nothing here, and it is tried with another refusal.
	for attempt := range 20 {
		b.TSAAway(true)
		var err error
		if refused, err = a.Submit(ctx, faulty(fmt.Sprint(8+100*attempt)).Submission(archivetest.Montesole)); err != nil || refused.Evidence.Seal != paper.Pending {
			t.Fatalf("got %v, want a refusal whose seal is pending", err)
		}
		for i := range 3 {
			if _, err := a.Submit(ctx, archivetest.Determina(fmt.Sprint(1+i+100*attempt), "testo").Submission(archivetest.Montesole)); err != nil {
				t.Fatal(err)
			}
		}
		b.TSAAway(false)
		id := refused.Body.Identifier[strings.LastIndex(refused.Body.Identifier, ":")+1:]
		eventually(t, "the seal", func() bool {
			sealed, err = a.Receipt(ctx, archivetest.Montesole, id)
			return err == nil && sealed.Evidence.Seal == paper.Sealed
		})
		if sealed.Evidence.Proof != "" {
			break
		}
	}
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
