package paper_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/signing/signingtest"
	"github.com/marchesud/perenne/storage/storagetest"
)

// issued are real papers of one installation.
type issued struct {
	trust                                     paper.Trust
	keys                                      archivetest.Keys
	receipt, refusal                          *paper.Receipt
	pack, copied, report, record, refusalsErs []byte
}

func issue(t testing.TB) *issued {
	t.Helper()
	b := archivetest.New(t, storagetest.NewMem(t))
	a := b.MustOpen()
	p := &issued{trust: b.Trust, keys: b.Keys()}
	var err error
	p.receipt, err = a.Submit(ctx, archivetest.Determina("1", "uno").Submission(archivetest.Montesole))
	must(t, err)
	faulty := archivetest.Determina("2", "due")
	faulty.Type = "inesistente"
	p.refusal, err = a.Submit(ctx, faulty.Submission(archivetest.Montesole))
	must(t, err)
	id := p.receipt.Body.Package
	r, _, err := a.Package(ctx, archivetest.Montesole, id)
	must(t, err)
	p.pack, err = io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	c, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: id, Purpose: "prova", By: "test"})
	must(t, err)
	p.copied, err = io.ReadAll(c.Reader())
	must(t, errors.Join(err, c.Close()))
	out, err := a.Audit(ctx, archive.Scope{Producer: archivetest.Montesole})
	must(t, err)
	p.report, err = io.ReadAll(out.Reader())
	must(t, err)
	p.record, err = base64.StdEncoding.DecodeString(p.receipt.Evidence.Record)
	must(t, err)
	p.refusalsErs, err = base64.StdEncoding.DecodeString(p.refusal.Evidence.Record)
	must(t, err)
	return p
}

func file(name string, data []byte) paper.File {
	return paper.File{Name: name, Size: int64(len(data)), ReaderAt: bytes.NewReader(data)}
}

func marshalled(t testing.TB, r *paper.Receipt) []byte {
	t.Helper()
	text, err := r.Marshal()
	must(t, err)
	return text
}

// without are trusts that can judge nothing: a zero one, one of empty lists, and one that has ledger keys alone.
func (p *issued) without() map[string]paper.Trust {
	return map[string]paper.Trust{
		"zero": {}, "no anchors": {Certificates: signing.NewTrust(nil, nil)}, "ledgers alone": {Ledgers: p.trust.Ledgers},
	}
}

func (p *issued) kinds(t testing.TB) map[string][]byte {
	return map[string][]byte{
		"receipt": marshalled(t, p.receipt), "refusal": marshalled(t, p.refusal), "package": p.pack, "copy": p.copied, "report": p.report,
	}
}

func TestWithoutTrustPapersCannotBeJudgedAndNothingPanics(t *testing.T) {
	p := issue(t)
	for trustName, trust := range p.without() {
		for name, data := range p.kinds(t) {
			res := paper.Verify(ctx, trust, paper.Italian, []paper.File{file(name, data), file("e.ers", p.record)})
			for i, r := range res {
				if r.Verdict() != paper.CannotTell {
					t.Errorf("%s, trust %s, result %d: got %v, want cannot tell: %+v", name, trustName, i, r.Verdict(), r.Lines)
				}
			}
		}
		if _, err := paper.CheckRecord(trust, p.record, [32]byte{}); err == nil {
			t.Errorf("CheckRecord, trust %s: no error", trustName)
		}
		if res, _ := p.receipt.Check(trust, paper.English); res.Verdict() != paper.CannotTell {
			t.Errorf("Check, trust %s: got %v, want cannot tell", trustName, res.Verdict())
		}
	}
}

// TestProvenDamageIsWrongUnderNoTrust changes bytes that digests cover; no anchor is needed to see that.
func TestProvenDamageIsWrongUnderNoTrust(t *testing.T) {
	p := issue(t)
	for name, data := range map[string][]byte{"package": p.pack, "copy": p.copied, "report": p.report} {
		c, err := pack.Open(bytes.NewReader(data), int64(len(data)))
		must(t, err)
		for _, m := range c.Members() {
			changed := bytes.Clone(data)
			changed[m.Offset+m.Size/2] ^= 1
			for trustName, trust := range p.without() {
				got := verified(trust, changed)
				if got.Verdict() != paper.Wrong {
					t.Errorf("%s, %s changed, trust %s: got %v, want wrong: %+v", name, m.Name, trustName, got.Verdict(), got.Lines)
				}
			}
		}
		for at := 0; at < len(data); at += len(data)/200 + 1 {
			changed := bytes.Clone(data)
			changed[at] ^= 1 << (at % 8)
			if got := verified(paper.Trust{}, changed); got.Verdict() == paper.Good {
				t.Errorf("%s, byte %d changed, no trust: got good", name, at)
			}
		}
	}
}

func TestPartsThatDisagreeAreWrongUnderNoTrust(t *testing.T) {
	p := issue(t)
	for name, c := range map[string]struct {
		paper            []byte
		member, old, new string
	}{
		"a report better than its text":        {p.report, paper.ReportStatement, `"good":`, `"good":9`},
		"a rendering that says something else": {p.pack, paper.MemberRdV, "Comune di Montesole", "Comune di Montebello"},
	} {
		container, err := pack.Open(bytes.NewReader(c.paper), int64(len(c.paper)))
		must(t, err)
		data, err := container.ReadFile(c.member, 1<<20)
		must(t, err)
		changed := bytes.Replace(data, []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(changed, data) {
			t.Fatalf("%s: %s has no %s", name, c.member, c.old)
		}
		if got := verified(paper.Trust{}, rebuilt(t, container, nil)); got.Verdict() != paper.CannotTell {
			t.Errorf("%s: before: got %v, want cannot tell: %+v", name, got.Verdict(), got.Lines)
		}
		got := verified(paper.Trust{}, rebuilt(t, container, map[string][]byte{c.member: changed}))
		if got.Verdict() != paper.Wrong || strings.Contains(text(&got), "bytes differ") {
			t.Errorf("%s: got %v, want wrong for what it says alone: %+v", name, got.Verdict(), got.Lines)
		}
	}
}

// verified is what comes of verifying one file alone.
func verified(trust paper.Trust, data []byte) paper.Result {
	return paper.Verify(ctx, trust, paper.English, []paper.File{file("carta", data)})[0]
}

// rebuilt writes a container again with some members replaced, under another seal.
func rebuilt(t testing.TB, c *pack.Container, replace map[string][]byte) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "rebuilt"))
	must(t, err)
	b := pack.NewBuilder(f)
	for _, m := range c.Members() {
		if m.Name == "mimetype" || strings.HasPrefix(m.Name, "META-INF/") {
			continue
		}
		data, ok := replace[m.Name]
		if !ok {
			var err error
			data, err = c.ReadFile(m.Name, 1<<20)
			must(t, err)
		}
		must(t, b.Add(m.Name, data))
	}
	kit := signingtest.New(t)
	_, err = b.Finish(ctx, func(_ context.Context, manifest []byte) ([]byte, error) {
		return kit.Signer.Sign(ctx, manifest, kitNow())
	})
	must(t, err)
	must(t, f.Close())
	data, err := os.ReadFile(f.Name())
	must(t, err)
	return data
}

func TestTheVerdictOnAnEvidenceRecordIsThatOfItsOwnObject(t *testing.T) {
	p := issue(t)
	seals, err := x509.ParseCertificate(p.keys.SealCA)
	must(t, err)
	onlySeals := paper.Trust{Ledgers: p.trust.Ledgers, Certificates: signing.NewTrust([]*x509.Certificate{seals}, nil)}
	receipt, report := file("r.json", marshalled(t, p.receipt)), file("report", p.report)
	refusal := file("rifiuto.json", marshalled(t, p.refusal))
	for name, c := range map[string]struct {
		trust  paper.Trust
		files  []paper.File
		record []byte
		want   paper.Verdict
	}{
		"with its receipt":                     {p.trust, []paper.File{report, receipt}, p.record, paper.Good},
		"with its receipt, no TSA to believe":  {onlySeals, []paper.File{report, receipt}, p.record, paper.CannotTell},
		"with others only":                     {p.trust, []paper.File{report}, p.record, paper.Wrong},
		"alone":                                {p.trust, nil, p.record, paper.CannotTell},
		"its receipt cannot be judged":         {paper.Trust{Certificates: p.trust.Certificates}, []paper.File{report, receipt}, p.record, paper.CannotTell},
		"of a refusal, with it":                {p.trust, []paper.File{report, refusal}, p.refusalsErs, paper.Good},
		"of a refusal, with a receipt":         {p.trust, []paper.File{receipt}, p.refusalsErs, paper.Wrong},
		"of a refusal, with it, no TSA":        {onlySeals, []paper.File{receipt, refusal}, p.refusalsErs, paper.CannotTell},
		"no evidence record at all":            {p.trust, []paper.File{receipt}, []byte{0x30, 0}, paper.Wrong},
		"no evidence record at all, and alone": {p.trust, nil, []byte{0x30, 0}, paper.Wrong},
	} {
		for range 10 { // the verdict was a matter of map order once
			res := paper.Verify(ctx, c.trust, paper.English, append(c.files[:len(c.files):len(c.files)], file("e.ers", c.record)))
			if last := res[len(res)-1]; last.Verdict() != c.want {
				t.Errorf("%s: got %v, want %v: %+v", name, last.Verdict(), c.want, last.Lines)
				break
			}
		}
	}
}

// broken answers every read with an error of the machine.
type broken struct{ err error }

func (b broken) ReadAt([]byte, int64) (int, error) { return 0, b.err }

func TestAFileThatCannotBeReadIsNotAccused(t *testing.T) {
	gone, cancel := context.WithCancel(ctx)
	cancel()
	p := issue(t)
	for name, c := range map[string]struct {
		ctx  context.Context
		file paper.File
		want paper.Verdict
	}{
		"disk error": {ctx, paper.File{Size: 10, ReaderAt: broken{&fs.PathError{Op: "read", Path: "x", Err: errors.New("input/output error")}}}, paper.CannotTell},
		"shorter":    {ctx, paper.File{Size: 10, ReaderAt: bytes.NewReader(nil)}, paper.Wrong},
		"empty":      {ctx, file("x", nil), paper.Wrong},
		"given up":   {gone, file("x", p.pack), paper.CannotTell},
	} {
		if got := paper.Verify(c.ctx, p.trust, paper.English, []paper.File{c.file})[0]; got.Verdict() != c.want {
			t.Errorf("%s: got %v, want %v: %+v", name, got.Verdict(), c.want, got.Lines)
		}
	}
}

// boastful signs as its signer does, and says that it is qualified.
type boastful struct{ signing.Signer }

func (boastful) Qualified() bool { return true }

// A qualified certificate beside a timestamp that is not: the papers claim the lesser, and are good.
func TestAnArchiveClaimsNoMoreThanItsTimestamps(t *testing.T) {
	b := archivetest.New(t, storagetest.NewMem(t))
	b.Vary = func(c *archive.Config) { c.Signer = boastful{c.Signer} }
	a := b.MustOpen()
	for _, number := range []string{"1", "2"} {
		r, err := a.Submit(ctx, archivetest.Determina(number, "uno").Submission(archivetest.Montesole))
		must(t, err)
		res := paper.Verify(ctx, b.Trust, paper.Italian, []paper.File{file("receipt", marshalled(t, r))})[0]
		if r.Body.Qualification != paper.Unqualified || res.Verdict() != paper.Good {
			t.Errorf("claims %q, verdict %v: %+v", r.Body.Qualification, res.Verdict(), res.Lines)
		}
	}
}

// Decoding base64 passes over line ends: a record spelt with one is not the record.
func TestARecordHasOneSpelling(t *testing.T) {
	b := archivetest.New(t, storagetest.NewMem(t))
	a := b.MustOpen()
	r, err := a.Submit(ctx, archivetest.Determina("1", "uno").Submission(archivetest.Montesole))
	must(t, err)
	for _, end := range []string{"\n", "\r"} {
		spelt := *r
		spelt.Evidence.Record = r.Evidence.Record[:40] + end + r.Evidence.Record[40:]
		if res := paper.Verify(ctx, b.Trust, paper.Italian, []paper.File{file("receipt", marshalled(t, &spelt))})[0]; res.Verdict() != paper.Wrong {
			t.Errorf("with %q inside: got %v, want wrong", end, res.Verdict())
		}
	}
}
