package paper

import (
	"bytes"
	"context"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/signing/evidence"
)

// File is one file handed to a verification.
type File struct {
	Name string
	Size int64
	io.ReaderAt
}

// Verify checks a set of papers offline, each by itself and, where one can only be judged with the help of
// another (an evidence record, a timestamp, the XML of a receipt), against the others of the set. The results
// stand in the order of the files.
func Verify(ctx context.Context, t Trust, l Lang, files []File) []Result {
	v := verification{trust: t, lang: l, roots: map[[32]byte]string{}, xml: map[string]string{}}
	results := make([]Result, len(files))
	var second []int
	for i, f := range files {
		if err := ctx.Err(); err != nil {
			results[i] = *(&Result{}).fail(l.T("verifica", "check"), err)
			continue
		}
		res, done := v.first(ctx, f)
		if !done {
			second = append(second, i)
			continue
		}
		results[i] = *res
		v.unsure = v.unsure || res.Verdict() == CannotTell
	}
	for _, i := range second {
		results[i] = *v.second(files[i])
	}
	return results
}

// verification remembers what the papers that stand alone have proved.
type verification struct {
	trust   Trust
	lang    Lang
	objects []object            // in the order of the files
	roots   map[[32]byte]string // roots of seals → name of the file
	xml     map[string]string   // RdV renderings of verified bodies → name of the file
	unsure  bool                // a paper of the set could not be judged: what it would have proved is not here
}

// object is something that evidence records prove: a whole package, copy or report, or a checkpoint.
type object struct {
	sum  [32]byte
	name string // of the file it comes from
}

// prove adds an object, once.
func (v *verification) prove(sum [32]byte, name string) {
	if !slices.ContainsFunc(v.objects, func(o object) bool { return o.sum == sum }) {
		v.objects = append(v.objects, object{sum, name})
	}
}

// peek reads the first bytes, which tell what a file is.
func peek(f File) ([]byte, error) {
	head := make([]byte, min(f.Size, 64))
	n, err := f.ReadAt(head, 0)
	if n == len(head) || errors.Is(err, io.EOF) {
		err = nil
	}
	return head[:n], err
}

// maxSmall bounds the papers that are read whole.
const maxSmall = 16 << 20

func whole(f File) ([]byte, error) {
	if f.Size > maxSmall {
		return nil, fmt.Errorf("%d bytes are more than such a paper has", f.Size)
	}
	b := make([]byte, f.Size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// first checks papers that stand alone.
func (v *verification) first(ctx context.Context, f File) (*Result, bool) {
	head, err := peek(f)
	switch {
	case err != nil:
		return (&Result{}).fail(v.lang.T("lettura", "reading"), err), true
	case len(head) == 0:
		return (&Result{}).wrong(v.lang.T("il file è vuoto", "the file is empty")), true
	case head[0] == '{':
		return v.receipt(f), true
	case bytes.HasPrefix(head, []byte("PK")):
		return v.container(ctx, f), true
	case head[0] == 0x30 || head[0] == '<':
		return nil, false
	default:
		return (&Result{}).wrong(v.lang.T("non è un documento di Perenne, o è danneggiato", "not a paper of Perenne, or damaged")), true
	}
}

func (v *verification) receipt(f File) *Result {
	res := &Result{Kind: v.lang.T("rapporto di versamento", "receipt")}
	text, err := whole(f)
	if err != nil {
		return res.fail(v.lang.T("lettura", "reading"), err)
	}
	r, err := ParseReceipt(text)
	if err != nil {
		return res.wrong(err.Error())
	}
	res, checked := r.Check(v.trust, v.lang)
	v.remember(f.Name, r, checked)
	return res
}

// remember keeps what a verified receipt proves for the papers that need it.
func (v *verification) remember(name string, r *Receipt, c *Checked) {
	if c == nil {
		return
	}
	if sum, err := digest(c.Entry.SHA256); err == nil {
		v.prove(sum, name)
	}
	if c.Proved != [32]byte{} {
		v.prove(c.Proved, name)
	}
	if root := r.Root(); len(root) == 32 && !c.Time.IsZero() {
		v.roots[[32]byte(root)] = name
	}
	if text, err := r.Body.XML(); err == nil {
		v.xml[string(text)] = name
	}
}

// container tells copies, reports and packages apart by their members.
func (v *verification) container(ctx context.Context, f File) *Result {
	c, err := pack.Open(f, f.Size)
	if err != nil {
		return (&Result{Kind: v.lang.T("contenitore", "container")}).fail(v.lang.T("contenitore", "container"), err)
	}
	has := map[string]bool{}
	for _, m := range c.Members() {
		has[m.Name] = true
	}
	switch {
	case has[CopyStatement]:
		res, cp := checkCopy(ctx, f, f.Size, v.trust, v.lang)
		if cp != nil {
			v.prove(cp.SHA256, f.Name)
			v.prove(cp.Package.SHA256, f.Name)
			v.remember(f.Name, cp.Receipt, cp.Checked)
		}
		return res
	case has[ReportStatement]:
		res, rep, sum := checkReport(ctx, f, f.Size, v.trust, v.lang)
		if rep != nil {
			v.prove(sum, f.Name)
		}
		return res
	default:
		res, p := checkPackage(ctx, f, f.Size, v.trust, v.lang)
		if p != nil {
			v.prove(p.SHA256, f.Name)
			if text, err := p.Body.XML(); err == nil {
				v.xml[string(text)] = f.Name
			}
		}
		return res
	}
}

// second checks papers that speak of something outside themselves.
func (v *verification) second(f File) *Result {
	text, err := whole(f)
	if err != nil {
		return (&Result{}).fail(v.lang.T("lettura", "reading"), err)
	}
	if text[0] == '<' {
		return v.rendering(text)
	}
	if tok, _, err := signing.ParseToken(text); err == nil {
		return v.token(text, tok)
	}
	return v.record(text)
}

// rendering checks the XML of a receipt against the receipts of the set.
func (v *verification) rendering(text []byte) *Result {
	res := &Result{Kind: v.lang.T("rapporto di versamento (XML)", "receipt (XML)")}
	if name, ok := v.xml[string(text)]; ok {
		res.good(fmt.Sprintf(v.lang.T("è la forma XML del corpo provato da %s", "is the XML form of the body proved by %s"), name))
		return res
	}
	if len(v.xml) == 0 || v.unsure {
		res.add(CannotTell, v.lang.T("si verifica insieme alla sua ricevuta .json: aggiungerla al comando", "is checked together with its .json receipt: add it to the command"))
		return res
	}
	return res.wrong(v.lang.T("non è la forma XML di nessuna delle ricevute date", "is not the XML form of any of the receipts given"))
}

// token checks a timestamp token, and that it is the one of a seal of the set.
func (v *verification) token(der []byte, tok signing.Token) *Result {
	res := &Result{Kind: v.lang.T("marca temporale", "timestamp")}
	if _, err := v.trust.Certificates.CheckToken(der, tok.Imprint); err != nil {
		return res.fail(v.lang.T("marca temporale", "timestamp"), err)
	}
	res.good(fmt.Sprintf(v.lang.T("del %s, sul digest %s", "of %s, over digest %s"), tok.Time.UTC().Format(TimeFormat), hex.EncodeToString(tok.Imprint[:])))
	if name, ok := v.roots[tok.Imprint]; ok {
		res.good(fmt.Sprintf(v.lang.T("è quella del sigillo di %s", "is that of the seal of %s"), name))
	} else {
		res.add(CannotTell, v.lang.T("nessuno dei documenti dati ha questo sigillo", "none of the papers given has this seal"))
	}
	return res
}

// record checks an evidence record against the objects of the set. Its hashes say which of them it is about; only
// these are held against its timestamp, so that the verdict is not that of a stranger's object.
func (v *verification) record(der []byte) *Result {
	res := &Result{Kind: v.lang.T("evidence record", "evidence record")}
	rec, err := evidence.Parse(der)
	if err != nil {
		return res.wrong(err.Error())
	}
	for _, o := range v.objects {
		if _, err := rec.Verify(o.sum, hashesOnly); err != nil {
			continue
		}
		proof, err := CheckRecord(v.trust, der, o.sum)
		if err != nil {
			res.fail(fmt.Sprintf(v.lang.T("dell'oggetto di %s", "of the object of %s"), o.name), err)
			continue
		}
		res.good(fmt.Sprintf(v.lang.T("prova che l'oggetto di %s esisteva il %s", "proves that the object of %s existed on %s"), o.name, proof.Time.UTC().Format(TimeFormat)))
	}
	switch {
	case len(res.Lines) > 0:
	case len(v.objects) == 0 || v.unsure:
		res.add(CannotTell, v.lang.T("si verifica insieme al suo oggetto: aggiungerlo al comando", "is checked together with its object: add it to the command"))
	default:
		res.wrong(v.lang.T("non prova nessuno degli oggetti dati", "proves none of the objects given"))
	}
	return res
}

// hashesOnly takes any token: the one it lets pass is judged afterwards.
func hashesOnly(_, _ []byte, _ asn1.ObjectIdentifier) (time.Time, error) { return time.Time{}, nil }
