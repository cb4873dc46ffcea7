package archive_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/signing"
)

// verdict verifies one file alone.
func verdict(trust paper.Trust, data []byte) paper.Verdict {
	res := paper.Verify(ctx, trust, paper.Italian, []paper.File{{Name: "carta", Size: int64(len(data)), ReaderAt: bytes.NewReader(data)}})
	return res[0].Verdict()
}

func verdictOf(t testing.TB, trust paper.Trust, r *paper.Receipt) paper.Verdict {
	t.Helper()
	return verdict(trust, marshalled(t, r))
}

func marshalled(t testing.TB, r *paper.Receipt) []byte {
	t.Helper()
	text, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// papers are one of each kind, from a small document.
type papers struct {
	*archivetest.Bench
	receipt, other          *paper.Receipt // of two packages in different seals
	pack, copied, rep, evid []byte
	xml                     []byte
}

func issue(t testing.TB) *papers {
	t.Helper()
	b, root := newBench(t)
	p := &papers{Bench: b}
	a := b.MustOpen()
	p.receipt = mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "uno"))
	p.other = mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("2", "due"))
	id := p.receipt.Body.Package
	p.pack = bytesOf(t, root, archivetest.Montesole+"/packages/"+id[:2]+"/"+id+".asice")
	c, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: id, Purpose: "prova", By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if p.copied, err = io.ReadAll(c.Reader()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	p.rep = reportOf(t, audited(t, a, archivetest.Montesole, paper.VerdictGood))
	if p.evid, err = a.Evidence(ctx, archivetest.Montesole, id); err != nil {
		t.Fatal(err)
	}
	if p.xml, err = p.receipt.Body.XML(); err != nil {
		t.Fatal(err)
	}
	return p
}

// alone are the papers that are verified each by itself.
func (p *papers) alone(t testing.TB) map[string][]byte {
	return map[string][]byte{"receipt": marshalled(t, p.receipt), "package": p.pack, "copy": p.copied, "report": p.rep}
}

func TestThePapersOfOneSetProveEachOther(t *testing.T) {
	p := issue(t)
	var files []paper.File
	for _, data := range [][]byte{p.evid, p.xml, marshalled(t, p.receipt), p.pack, p.copied, p.rep} {
		files = append(files, paper.File{Name: "carta", Size: int64(len(data)), ReaderAt: bytes.NewReader(data)})
	}
	for i, res := range paper.Verify(ctx, p.Trust, paper.Italian, files) {
		if res.Verdict() != paper.Good {
			t.Errorf("paper %d: got %v, want good: %+v", i, res.Verdict(), res)
		}
	}
	for i, data := range [][]byte{p.evid, p.xml} {
		if v := verdict(p.Trust, data); v != paper.CannotTell {
			t.Errorf("paper %d without the paper it belongs to: got %v, want cannot tell", i, v)
		}
	}
}

func TestAnotherInstallationsTrustIsWrongAndNoneCannotTell(t *testing.T) {
	p := issue(t)
	other, _ := newBench(t)
	for name, data := range p.alone(t) {
		if v := verdict(other.Trust, data); v != paper.Wrong {
			t.Errorf("%s with the trust of another: got %v, want wrong", name, v)
		}
		for _, none := range []paper.Trust{{}, {Certificates: signing.NewTrust(nil, nil)}} {
			if v := verdict(none, data); v != paper.CannotTell {
				t.Errorf("%s with no trust: got %v, want cannot tell", name, v)
			}
		}
	}
}

// TestEverySingleBitCounts flips every bit of a small receipt and of a small package, one at a time.
func TestEverySingleBitCounts(t *testing.T) {
	p := issue(t)
	for name, data := range map[string][]byte{"receipt": marshalled(t, p.receipt), "package": p.pack} {
		t.Run(name, func(t *testing.T) {
			if v := verdict(p.Trust, data); v != paper.Good {
				t.Fatalf("before: got %v, want good", v)
			}
			step := 1
			if testing.Short() {
				step = 61 // prime to 8, so that every bit of a byte has its turn somewhere
			}
			everyBit(t, data, step, func(b []byte) paper.Verdict { return verdict(p.Trust, b) })
		})
	}
}

// everyBit wants each version of data with one bit flipped to be Wrong.
func everyBit(t *testing.T, data []byte, step int, judge func([]byte) paper.Verdict) {
	t.Helper()
	workers := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			b := bytes.Clone(data)
			for bit := w * step; bit < 8*len(b) && !t.Failed(); bit += workers * step {
				b[bit/8] ^= 1 << (bit % 8)
				if v := judge(b); v != paper.Wrong {
					t.Errorf("bit %d of byte %d of %d: got %v, want wrong", bit%8, bit/8, len(b), v)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		})
	}
	wg.Wait()
}

// TestChangedPapersAreWrong changes copies and reports at random: flips, cuts, additions.
func TestChangedPapersAreWrong(t *testing.T) {
	p := issue(t)
	rounds := 1500
	if testing.Short() {
		rounds = 150
	}
	for name, data := range p.alone(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, uint64(len(name))))
			for range rounds {
				b := bytes.Clone(data)
				at := random.IntN(len(b))
				what := ""
				switch random.IntN(4) {
				case 0:
					what, b[at] = "flip", b[at]^1<<random.IntN(8)
				case 1:
					what, b = "cut", b[:at]
				case 2:
					what, b = "append", append(b, make([]byte, 1+random.IntN(8))...)
				default:
					what, b = "insert", append(b[:at:at], append([]byte{byte(random.IntN(256))}, b[at:]...)...)
				}
				if v := verdict(p.Trust, b); v != paper.Wrong {
					t.Fatalf("%s at %d of %d: got %v, want wrong", what, at, len(data), v)
				}
			}
		})
	}
}

func TestReceiptsThatWerePatchedTogetherAreWrong(t *testing.T) {
	p := issue(t)
	text := string(marshalled(t, p.receipt))
	for name, forged := range map[string]*paper.Receipt{
		"evidence of another":   {Body: p.receipt.Body, Proof: p.receipt.Proof, Evidence: p.other.Evidence},
		"proof of another":      {Body: p.receipt.Body, Proof: p.other.Proof, Evidence: p.receipt.Evidence},
		"body of another":       {Body: p.other.Body, Proof: p.receipt.Proof, Evidence: p.receipt.Evidence},
		"no evidence":           {Body: p.receipt.Body, Proof: p.receipt.Proof},
		"pending with a record": {Body: p.receipt.Body, Proof: p.receipt.Proof, Evidence: paper.Evidence{Seal: paper.Pending, Record: p.receipt.Evidence.Record}},
		"no proof":              {Body: p.receipt.Body, Evidence: p.receipt.Evidence},
	} {
		if v := verdictOf(t, p.Trust, forged); v != paper.Wrong {
			t.Errorf("%s: got %v, want wrong", name, v)
		}
	}
	for name, changed := range map[string]string{
		"space before":    " " + text,
		"space after":     text + " ",
		"newline after":   text + "\n",
		"space inside":    text[:1] + " " + text[1:],
		"byte order mark": "\xef\xbb\xbf" + text,
		"twice":           text + text,
		"escape":          string(bytes.Replace([]byte(text), []byte("rdv"), []byte(`\u0072dv`), 1)),
		"extra member":    `{"a":1,` + text[1:],
	} {
		if v := verdict(p.Trust, []byte(changed)); v != paper.Wrong {
			t.Errorf("%s: got %v, want wrong", name, v)
		}
	}
	pending := &paper.Receipt{Body: p.receipt.Body, Proof: p.receipt.Proof, Evidence: paper.Evidence{Seal: paper.Pending}}
	if v := verdictOf(t, p.Trust, pending); v != paper.CannotTell {
		t.Errorf("without its seal: got %v, want cannot tell", v)
	}
}

// TestAReportNeverSaysBetterThanItsFindings tries to write reports that do.
func TestAReportNeverSaysBetterThanItsFindings(t *testing.T) {
	damage := []paper.ReportFinding{{Gravity: paper.Damage, Object: "x", Kind: "changed", Text: "x"}}
	for name, r := range map[string]paper.Report{
		"good with damage":            {Verdict: paper.VerdictGood, Findings: damage},
		"incomplete with damage":      {Verdict: paper.VerdictIncomplete, Findings: damage, NotChecked: []string{"x"}},
		"good, something unchecked":   {Verdict: paper.VerdictGood, NotChecked: []string{"x"}},
		"good, rollback unchecked":    {Verdict: paper.VerdictGood, Ledger: paper.ReportLedger{Rollback: "not checked"}},
		"good, not everything read":   {Verdict: paper.VerdictGood, Objects: paper.ReportObjectsCount{Expected: 2, Read: 1, Good: 1}},
		"good, not everything whole":  {Verdict: paper.VerdictGood, Objects: paper.ReportObjectsCount{Expected: 2, Read: 2, Good: 1}},
		"damaged without any finding": {Verdict: paper.VerdictDamaged},
		"another word":                {Verdict: "perfect"},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "report"))
		if err != nil {
			t.Fatal(err)
		}
		signed := false
		_, err = paper.WriteReport(ctx, f, &r, nil, func(context.Context, []byte) ([]byte, error) { signed = true; return nil, nil })
		if err == nil || signed {
			t.Errorf("%s: it was written", name)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
