package paper

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/signing/evidence"
)

// TimeFormat is the form of every time in a paper: UTC, milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// The kinds of Receipt, in Body.Kind.
const (
	KindReceipt = "receipt"
	KindRefusal = "refusal"
)

// What the two kinds say, in the words of the law (Linee guida AgID 4.7).
const (
	StatementReceipt = "documento preso in carico"
	StatementRefusal = "documento non preso in carico"
)

// Body is what a receipt or refusal states. It never changes once issued.
type Body struct {
	Kind       string `json:"kind"`
	Statement  string `json:"statement"`
	Identifier string `json:"identifier"` // urn:perenne:<installation>:<producer>:rdv:<package or refusal id>
	Time       string `json:"time"`       // TimeFormat

	Installation string       `json:"installation"`
	Producer     BodyProducer `json:"producer"`
	Key          BodyKey      `json:"key"`
	Type         string       `json:"type"`
	Date         string       `json:"date"`

	Package    string `json:"package,omitempty"` // ID of the package; absent in a refusal
	Generation int64  `json:"generation"`

	// Submission is the hex SHA-256 over the whole submission (Linee guida 4.7 d): see SubmissionDigest.
	Submission string     `json:"submission"`
	Metadata   string     `json:"metadata"` // hex SHA-256 of the metadata as received
	Files      []BodyFile `json:"files"`

	Checks []policies.Finding `json:"checks"`
	Policy BodyPolicy         `json:"policy"`

	// Qualification says what the seals of this installation are worth: "qualificato" or "non qualificato".
	Qualification string `json:"qualification"`
	Salt          string `json:"salt"` // hex, 256 random bits
}

// BodyProducer is the body that owns the document.
type BodyProducer struct {
	Code    string `json:"code"`
	Name    string `json:"name"`
	TaxCode string `json:"tax_code"`
}

// BodyKey is the key of the document unit.
type BodyKey struct {
	Structure string `json:"structure"`
	Register  string `json:"register"`
	Year      int    `json:"year"`
	Number    string `json:"number"`
}

// String is the key as people write it: DETE 2026/12.
func (k BodyKey) String() string { return fmt.Sprintf("%s %d/%s", k.Register, k.Year, k.Number) }

// BodyFile is one file as received.
type BodyFile struct {
	Path   string `json:"path,omitempty"` // in the package; absent in a refusal
	Name   string `json:"name"`
	Role   string `json:"role"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Format string `json:"format"` // MIME type found in the bytes
}

// BodyPolicy is the policy the submission was judged by.
type BodyPolicy struct {
	Name   string `json:"name"`
	Digest string `json:"digest"` // hex SHA-256 of the policy's canonical form
}

// Receipt is the paper a producer gets for a submission: the RdV, or the communication of refusal.
type Receipt struct {
	Body     Body     `json:"body"`
	Evidence Evidence `json:"evidence"`
	Proof    string   `json:"proof"` // c2sp.org/tlog-proof@v1
}

// The states of Evidence.
const (
	Sealed  = "sealed"
	Pending = "pending"
)

// Evidence proves when the receipt's package (a refusal's checkpoint) existed.
type Evidence struct {
	Seal   string `json:"seal"`             // Sealed or Pending
	Record string `json:"record,omitempty"` // base64 DER EvidenceRecord, RFC 4998
	Root   string `json:"root,omitempty"`   // hex; what the timestamp token covers
	Time   string `json:"time,omitempty"`   // of the token
	// Proof is the tlog-proof of the same entry in the checkpoint that the seal covers, where that is not the
	// checkpoint of the entry's own commit. Only a refusal has one: its record is that of a checkpoint.
	Proof string `json:"proof,omitempty"`
}

// SubmissionDigest is the digest over a whole submission: SHA-256 of the RFC 8785 form of
// {"files":[{"sha256":…,"size":…},…],"metadata":…}, files in submitted order.
func SubmissionDigest(metadata string, files []BodyFile) (string, error) {
	type file struct {
		SHA256 string `json:"sha256"`
		Size   int64  `json:"size"`
	}
	in := struct {
		Files    []file `json:"files"`
		Metadata string `json:"metadata"`
	}{Files: []file{}, Metadata: metadata}
	for _, f := range files {
		in.Files = append(in.Files, file{f.SHA256, f.Size})
	}
	b, err := canon.Marshal(in)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// Digest is SHA-256(salt ‖ RFC 8785 form of the body): what the ledger entry carries.
func (b *Body) Digest() (string, error) {
	text, err := canon.Marshal(b)
	if err != nil {
		return "", err
	}
	salt, err := digest(b.Salt)
	if err != nil {
		return "", fmt.Errorf("salt: %w", err)
	}
	return Salted(salt[:], text), nil
}

// Salted is hex SHA-256(salt ‖ text).
func Salted(salt, text []byte) string {
	h := sha256.New()
	h.Write(salt)
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil))
}

// XML renders the body as rapporto di versamento, or comunicazione di rifiuto: a frozen function of the
// body, so that the XML is proved by whatever proves the body.
func (b *Body) XML() ([]byte, error) {
	at, err := time.Parse(TimeFormat, b.Time)
	if err != nil {
		return nil, fmt.Errorf("time of the receipt: %w", err)
	}
	v := pack.RdV{
		Refused: b.Kind == KindRefusal, ID: b.Identifier, Time: at,
		Producer:  pack.RdVProducer{Code: b.Producer.Code, Name: b.Producer.Name, TaxCode: b.Producer.TaxCode},
		Key:       pack.RdVKey{Structure: b.Key.Structure, Register: b.Key.Register, Year: b.Key.Year, Number: b.Key.Number},
		PackageID: b.Package, Generation: b.Generation,
		Policy: pack.RdVPolicy{Name: b.Policy.Name}, Qualification: b.Qualification,
	}
	if v.Submission, err = digest(b.Submission); err != nil {
		return nil, err
	}
	if v.Policy.SHA256, err = digest(b.Policy.Digest); err != nil {
		return nil, err
	}
	if v.Salt, err = digest(b.Salt); err != nil {
		return nil, err
	}
	for _, f := range b.Files {
		sum, err := digest(f.SHA256)
		if err != nil {
			return nil, err
		}
		v.Files = append(v.Files, pack.RdVFile{Name: f.Name, Role: f.Role, Size: f.Size, SHA256: sum, Format: f.Format})
	}
	for _, c := range b.Checks {
		v.Checks = append(v.Checks, pack.RdVCheck{Rule: c.Rule, Field: c.Field, Level: string(c.Level), Message: c.Message, Remedy: c.Remedy})
	}
	return pack.MarshalRdV(v)
}

// digest reads 64 lower-case hex digits.
func digest(text string) (d [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(d) || hex.EncodeToString(b) != text {
		return d, fmt.Errorf("%.70q is not a SHA-256 in hex", text)
	}
	return [32]byte(b), nil
}

// ParseReceipt reads a receipt file, which must be exactly the RFC 8785 form of itself.
func ParseReceipt(data []byte) (*Receipt, error) {
	var r Receipt
	if err := canon.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return &r, nil
}

// Marshal writes the receipt file.
func (r *Receipt) Marshal() ([]byte, error) { return canon.Marshal(r) }

// Refused reports whether the paper is a refusal.
func (r *Receipt) Refused() bool { return r.Body.Kind == KindRefusal }

// Root is the root of the seal, nil while it is pending.
func (r *Receipt) Root() []byte {
	b, err := hex.DecodeString(r.Evidence.Root)
	if err != nil {
		return nil
	}
	return b
}

// Checked is what a good receipt has proved, for holding other papers against it.
type Checked struct {
	Entry  ledger.Entry
	Origin string
	Size   int64 // of the ledger at the checkpoint
	Root   [32]byte
	// Proved is the digest that the evidence record is about: the package's, for a refusal that of a checkpoint.
	// It is set with a record that was not good as well; zero while pending.
	Proved [32]byte
	Time   time.Time // proved by the token; zero while pending
	Token  []byte
}

// Check verifies a receipt offline.
func (r *Receipt) Check(t Trust, l Lang) (*Result, *Checked) {
	res := &Result{Kind: l.T("rapporto di versamento", "receipt (rapporto di versamento)"), About: r.Body.Producer.Code + " " + r.Body.Key.String()}
	if r.Refused() {
		res.Kind = l.T("comunicazione di rifiuto", "refusal (comunicazione di rifiuto)")
	}
	if err := r.Body.consistent(); err != nil {
		return res.fail(l.T("corpo", "body"), err), nil
	}
	if t.Ledgers == nil {
		return res.fail(l.T("giornale delle prove", "ledger"), errNoLedgerKey), nil
	}
	p, err := ledger.ParseProof([]byte(r.Proof), t.Ledgers)
	if err != nil {
		return res.fail(l.T("giornale delle prove", "ledger"), err), nil
	}
	if err := r.binds(p); err != nil {
		return res.fail(l.T("giornale delle prove", "ledger"), err), nil
	}
	res.good(fmt.Sprintf(l.T("scritto nel giornale delle prove %s, riga %d di %d, testata firmata", "in the ledger %s, entry %d of %d, checkpoint signed"), p.Origin, p.Index, p.Size))
	c := &Checked{Entry: p.Entry, Origin: p.Origin, Size: p.Size, Root: p.Root}
	if err := r.checkTime(p.Entry); err != nil {
		res.fail(l.T("data", "time"), err)
	}
	r.checkEvidence(t, l, p, res, c)
	return res, c
}

// checkTime holds the time the body states against its entry's.
func (r *Receipt) checkTime(e ledger.Entry) error {
	entered, err := time.Parse(ledger.TimeLayout, e.Time)
	if err != nil {
		return fmt.Errorf("time of the entry: %w", err)
	}
	return r.Body.Timely(entered)
}

// consistent holds the parts of the body against each other.
func (b *Body) consistent() error {
	want, id := StatementReceipt, b.Package
	switch b.Kind {
	case KindReceipt:
		if b.Package == "" {
			return errors.New("a receipt without a package")
		}
	case KindRefusal:
		want = StatementRefusal
		if b.Package != "" {
			return errors.New("a refusal with a package")
		}
	default:
		return fmt.Errorf("unknown kind %q", b.Kind)
	}
	if b.Statement != want {
		return fmt.Errorf("a %s that says %q", b.Kind, b.Statement)
	}
	if id != "" && b.Identifier != ReceiptURN(b.Installation, b.Producer.Code, id) {
		return errors.New("the identifier is not that of the package")
	}
	if _, err := time.Parse(TimeFormat, b.Time); err != nil {
		return errors.New("the time is not in the form of the format")
	}
	if err := claim(b.Qualification, true); err != nil {
		return err
	}
	sum, err := SubmissionDigest(b.Metadata, b.Files)
	if err != nil {
		return err
	}
	if sum != b.Submission {
		return errors.New("the digest over the submission is not that of its parts")
	}
	return nil
}

// ReceiptURN is the unique identifier of a receipt or refusal.
func ReceiptURN(installation, producer, id string) string {
	return "urn:perenne:" + installation + ":" + producer + ":rdv:" + id
}

// binds holds the body against the entry proved.
func (r *Receipt) binds(p *ledger.Proof) error {
	wantType := ledger.PackageSealed
	if r.Refused() {
		wantType = ledger.SubmissionRefused
	}
	if p.Entry.Type != wantType {
		return fmt.Errorf("the entry proved is a %s, not a %s", p.Entry.Type, wantType)
	}
	if want := r.Body.Installation + "/" + r.Body.Producer.Code; p.Origin != want {
		return fmt.Errorf("the proof is from %s, the receipt from %s", p.Origin, want)
	}
	sum, err := r.Body.Digest()
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(sum), []byte(p.Entry.Receipt)) != 1 {
		return errors.New("the body is not the one whose digest stands in the ledger")
	}
	if !r.Refused() && (p.Entry.ID != r.Body.Package || p.Entry.Generation != r.Body.Generation) {
		return errors.New("the entry proved is that of another package")
	}
	return nil
}

// checkEvidence verifies the evidence record: of the package's digest, for a refusal of its checkpoint's.
func (r *Receipt) checkEvidence(t Trust, l Lang, p *ledger.Proof, res *Result, c *Checked) {
	what := l.T("sigillo", "seal")
	switch r.Evidence.Seal {
	case Sealed:
	case Pending:
		if r.Evidence != (Evidence{Seal: Pending}) {
			res.fail(what, errors.New("pending, yet with evidence"))
			return
		}
		res.add(CannotTell, l.T("sigillo: in attesa; scaricare di nuovo la ricevuta (perenne receipt)", "seal: pending; fetch the receipt again (perenne receipt)"))
		return
	default:
		res.fail(what, fmt.Errorf("unknown state %q", r.Evidence.Seal))
		return
	}
	sum, err := r.sealed(t, p)
	if err != nil {
		res.fail(what, err)
		return
	}
	c.Proved = sum
	proof, err := r.checkRecord(t, sum)
	if err != nil {
		res.fail(what, err)
		return
	}
	if err := r.Body.holdsToken(p.Entry, proof.Token); err != nil {
		res.fail(what, err)
		return
	}
	c.Time, c.Token = proof.Time, proof.Token
	res.good(fmt.Sprintf(l.T("marca temporale%s del %s", "timestamped%s on %s"), unqualified(l, r.Body.Qualification), proof.Time.UTC().Format(TimeFormat)))
}

// checkRecord verifies the evidence record, and that root and time beside it are its own.
func (r *Receipt) checkRecord(t Trust, sum [32]byte) (evidence.Proof, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(r.Evidence.Record)
	if err != nil || base64.StdEncoding.EncodeToString(der) != r.Evidence.Record { // decoding passes over line ends
		return evidence.Proof{}, errors.New("the record is not base64 in its one form")
	}
	proof, err := CheckRecord(t, der, sum)
	if err != nil {
		return evidence.Proof{}, err
	}
	if hex.EncodeToString(proof.Root[:]) != r.Evidence.Root || proof.Time.UTC().Format(TimeFormat) != r.Evidence.Time {
		return evidence.Proof{}, errors.New("root or time are not those of the record")
	}
	return proof, nil
}

// sealed is the digest that the evidence record proves: of the package, or of the checkpoint that was sealed.
func (r *Receipt) sealed(t Trust, p *ledger.Proof) ([32]byte, error) {
	if !r.Refused() {
		if r.Evidence.Proof != "" {
			return [32]byte{}, errors.New("a receipt's evidence has no second proof")
		}
		return digest(p.Entry.SHA256)
	}
	if r.Evidence.Proof == "" {
		return sha256.Sum256(p.Checkpoint), nil
	}
	later, err := ledger.ParseProof([]byte(r.Evidence.Proof), t.Ledgers)
	if err != nil {
		return [32]byte{}, err
	}
	if later.Origin != p.Origin || later.Index != p.Index || string(later.Line) != string(p.Line) || later.Size <= p.Size {
		return [32]byte{}, errors.New("the second proof is of another entry")
	}
	return sha256.Sum256(later.Checkpoint), nil
}

// What the seals of an installation are worth, in Body.Qualification, reports and copies.
const (
	Qualified   = "qualificato"
	Unqualified = "non qualificato"
)

// CheckRecord verifies an evidence record of ours, which must have the one form that derivation gives it.
func CheckRecord(t Trust, der []byte, digest [32]byte) (evidence.Proof, error) {
	rec, err := evidence.Parse(der)
	if err != nil {
		return evidence.Proof{}, err
	}
	proof, err := rec.Verify(digest, t.checkToken)
	if err == nil || undecided(err) {
		err = errors.Join(err, rec.Minimal(digest))
	}
	if err != nil {
		return evidence.Proof{}, err
	}
	return proof, nil
}
