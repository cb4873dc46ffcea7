package paper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/pack"
)

// The members of a report.
const (
	ReportStatement = "content/report.json"
	ReportObjects   = "content/objects.ndjson"
	ReportText      = "content/verbale.txt" // Italian
	ReportEnglish   = "content/report.txt"
)

// reportMembers counts them, with mimetype, manifest and signature.
const reportMembers = 7

// maxReport bounds report.json, which grows with findings and with the packages selected. The list of objects,
// which grows with the archive, is never read whole.
const maxReport = 256 << 20

// KindReport is Report.Kind.
const KindReport = "report"

// What an audit concludes.
const (
	VerdictGood       = "good"       // everything was checked and found whole
	VerdictDamaged    = "damaged"    // at least one finding is damage
	VerdictIncomplete = "incomplete" // no damage was seen, but something could not be checked
)

// Report is the sealed outcome of an audit (verbale di verifica): what was looked at, every finding, and
// what was not checked. It never says good with damage present or with something left unchecked.
type Report struct {
	Kind         string       `json:"kind"`
	Identifier   string       `json:"identifier"`
	Installation string       `json:"installation"`
	Producer     BodyProducer `json:"producer"`
	Started      string       `json:"started"`
	Ended        string       `json:"ended"`
	Selection    Selection    `json:"selection"`
	Verdict      string       `json:"verdict"`

	// Ledger is the head the expected list was taken from, and the mark it was held against.
	Ledger ReportLedger `json:"ledger"`
	// Objects counts what was expected from the ledger and read, byte for byte.
	Objects ReportObjectsCount `json:"objects"`
	Seals   ReportSeals        `json:"seals"`

	Findings   []ReportFinding `json:"findings"`
	NotChecked []string        `json:"not_checked"`

	// Protection is what keeps objects from being changed on this store.
	Protection    string `json:"protection"`
	Qualification string `json:"qualification"`
	Program       string `json:"program"`
	// Results is the hex SHA-256 of the list of objects, ReportObjects.
	Results string `json:"results"`
}

// Selection says what an audit was asked to look at.
type Selection struct {
	What  string   `json:"what"` // "everything", "range" or "packages"
	First int64    `json:"first,omitempty"`
	End   int64    `json:"end,omitempty"`
	IDs   []string `json:"ids,omitempty"`
}

// ReportLedger is the ledger as the audit found it in the bucket.
type ReportLedger struct {
	Origin   string `json:"origin"`
	Size     int64  `json:"size"`
	Root     string `json:"root"` // hex
	Commits  int64  `json:"commits"`
	Rollback string `json:"rollback"` // "none", "found" or "not checked"
	Against  string `json:"against,omitempty"`
}

// ReportObjectsCount counts objects and bytes.
type ReportObjectsCount struct {
	Expected int64 `json:"expected"`
	Read     int64 `json:"read"`
	Bytes    int64 `json:"bytes"`
	Good     int64 `json:"good"`
}

// ReportSeals says how far the seals reach.
type ReportSeals struct {
	Checked  int64 `json:"checked"`
	Unsealed int64 `json:"unsealed"` // entries that no seal covers yet
}

// The gravities of a finding.
const (
	Damage  = "damage"  // lost, changed or foreign: the verdict is damaged
	Warning = "warning" // an alarm that is no damage to what is kept
	Notice  = "notice"  // listed, no fault: an orphan of a crash
)

// ReportFinding is one finding about one object.
type ReportFinding struct {
	Gravity string `json:"gravity"`
	Object  string `json:"object"` // key in the bucket, or the part concerned
	Kind    string `json:"kind"`   // missing, changed, truncated, foreign, orphan, rollback, fork, duplicate …
	Text    string `json:"text"`
	ID      string `json:"id,omitempty"` // of the package concerned
}

// ObjectResult is one line of ReportObjects, RFC 8785.
type ObjectResult struct {
	Object string `json:"object"`
	ID     string `json:"id,omitempty"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`           // as read
	SHA512 string `json:"sha512,omitempty"` // as read; bound by this report for a later change of hash
	Result string `json:"result"`           // "good", or the kind of the finding
}

// ReportURN is the unique identifier of a report.
func ReportURN(installation, producer, id string) string {
	return "urn:perenne:" + installation + ":" + producer + ":report:" + id
}

// InWords gives a value of a report (a verdict, a gravity, a protection, …) in the reader's language. Values that
// are no words of ours are given as they are.
func InWords(l Lang, value string) string {
	switch value {
	case VerdictGood:
		return l.T("integro", "good")
	case VerdictDamaged:
		return l.T("danneggiato", "damaged")
	case VerdictIncomplete:
		return l.T("incompleto", "incomplete")
	case Damage:
		return l.T("danno", "damage")
	case Warning:
		return l.T("avviso", "warning")
	case Notice:
		return l.T("nota", "notice")
	case "none":
		return l.T("nessuno", "none")
	case "found":
		return l.T("trovato", "found")
	case "not checked":
		return l.T("non verificato", "not checked")
	case "detection only":
		return l.T("solo rilevazione", "detection only")
	case "immutable flag":
		return l.T("flag di immutabilità", "immutable flag")
	case Unqualified:
		return l.T(Unqualified, "not qualified")
	case Qualified:
		return l.T(Qualified, "qualified")
	default:
		return value
	}
}

// Text renders the report for people: a frozen function of the report, in either language. What a finding says
// beyond its kind stays Italian.
func (r *Report) Text(l Lang) []byte {
	var b strings.Builder
	word := strings.ToUpper(InWords(l, r.Verdict))
	fmt.Fprintf(&b, l.T("RAPPORTO DI VERIFICA\n\nEnte: %s (%s)\nIdentificativo: %s\nInizio: %s   Fine: %s\n\nEsito: %s\n\n",
		"INTEGRITY REPORT\n\nBody: %s (%s)\nIdentifier: %s\nStarted: %s   Ended: %s\n\nVerdict: %s\n\n"),
		r.Producer.Name, r.Producer.Code, r.Identifier, r.Started, r.Ended, word)
	fmt.Fprintf(&b, l.T("Giornale delle prove: %s, %d righe in %d commit, radice %s\nArretramento (rollback): %s\n",
		"Ledger: %s, %d entries in %d commits, root %s\nRollback: %s\n"),
		r.Ledger.Origin, r.Ledger.Size, r.Ledger.Commits, r.Ledger.Root, InWords(l, r.Ledger.Rollback))
	fmt.Fprintf(&b, l.T("Oggetti attesi %d, letti %d (%d byte), integri %d\n", "Objects expected %d, read %d (%d bytes), good %d\n"),
		r.Objects.Expected, r.Objects.Read, r.Objects.Bytes, r.Objects.Good)
	fmt.Fprintf(&b, l.T("Sigilli verificati %d; righe non ancora sigillate %d\nProtezione dello storage: %s\nSigilli e marche temporali: %s\n\n",
		"Seals checked %d; entries not sealed yet %d\nProtection of the store: %s\nSeals and timestamps: %s\n\n"),
		r.Seals.Checked, r.Seals.Unsealed, InWords(l, r.Protection), InWords(l, r.Qualification))
	if len(r.Findings) == 0 {
		b.WriteString(l.T("Nessun rilievo.\n", "No finding.\n"))
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "[%s] %s: %s: %s\n", InWords(l, f.Gravity), f.Object, f.Kind, f.Text)
	}
	for _, n := range r.NotChecked {
		fmt.Fprintf(&b, l.T("NON VERIFICATO: %s\n", "NOT CHECKED: %s\n"), n)
	}
	return []byte(b.String())
}

// WriteReport writes a report into f: r.Results is filled from objects, whose lines are ObjectResults; nil is a list
// of none.
func WriteReport(ctx context.Context, f pack.File, r *Report, objects *io.SectionReader, sign func(context.Context, []byte) ([]byte, error)) (int64, error) {
	if err := r.consistent(); err != nil {
		return 0, err
	}
	if objects == nil {
		objects = io.NewSectionReader(strings.NewReader(""), 0, 0)
	}
	b := pack.NewBuilder(f)
	h := sha256.New()
	w, err := b.Create(ReportObjects, objects.Size())
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(w, io.TeeReader(objects, h))
	if err := errors.Join(err, w.Close()); err != nil {
		return 0, fmt.Errorf("%s: %w", ReportObjects, err)
	}
	r.Results = hex.EncodeToString(h.Sum(nil))
	statement, err := canon.Marshal(r)
	if err != nil {
		return 0, err
	}
	for _, m := range []struct {
		name string
		data []byte
	}{{ReportStatement, statement}, {ReportText, r.Text(Italian)}, {ReportEnglish, r.Text(English)}} {
		if err := b.Add(m.name, m.data); err != nil {
			return 0, err
		}
	}
	return b.Finish(ctx, sign)
}

// consistent refuses a report that says better than its findings.
func (r *Report) consistent() error {
	want := VerdictGood
	if len(r.NotChecked) > 0 || r.Ledger.Rollback == "not checked" {
		want = VerdictIncomplete
	}
	for _, f := range r.Findings {
		if f.Gravity == Damage {
			want = VerdictDamaged
		}
	}
	if r.Verdict != want {
		return fmt.Errorf("the report says %s, its findings say %s", r.Verdict, want)
	}
	if want == VerdictGood && (r.Objects.Expected != r.Objects.Read || r.Objects.Read != r.Objects.Good) {
		return errors.New("the report says good, yet not every object was read and found good")
	}
	return nil
}

// ReadReport reads and verifies a report: its form, its signature, and that it agrees with itself.
func ReadReport(ctx context.Context, r io.ReaderAt, size int64, t Trust) (*Report, [32]byte, error) {
	var rep Report
	c, err := pack.Open(r, size)
	if err != nil {
		return nil, [32]byte{}, err
	}
	text, err := c.ReadFile(ReportStatement, maxReport)
	if err != nil {
		return nil, [32]byte{}, err
	}
	if err := canon.Unmarshal(text, &rep); err != nil {
		return nil, [32]byte{}, fmt.Errorf("%s: %w", ReportStatement, err)
	}
	at, err := time.Parse(TimeFormat, rep.Ended)
	if err != nil || rep.Kind != KindReport {
		return nil, [32]byte{}, fmt.Errorf("%s: not a report of this format", ReportStatement)
	}
	sum, err := verifySealed(ctx, c, t, at, rep.Qualification)
	if goOn(ctx, err) {
		err = errors.Join(err, rep.agree(c))
	}
	if err != nil {
		return nil, [32]byte{}, err
	}
	return &rep, sum, nil
}

// agree holds the members of the container against the report.
func (r *Report) agree(c *pack.Container) error {
	if err := r.consistent(); err != nil {
		return err
	}
	for _, m := range c.Members() {
		switch m.Name {
		case ReportText, ReportEnglish:
			want := r.Text(Italian)
			if m.Name == ReportEnglish {
				want = r.Text(English)
			}
			if m.Size != int64(len(want)) || m.SHA256 != sha256.Sum256(want) {
				return fmt.Errorf("%s is not the rendering of %s", m.Name, ReportStatement)
			}
		case ReportObjects:
			if hex.EncodeToString(m.SHA256[:]) != r.Results {
				return fmt.Errorf("%s is not the list the report speaks of", ReportObjects)
			}
		case ReportStatement, "mimetype", "META-INF/ASiCManifest.xml", "META-INF/signature.p7s":
		default:
			return fmt.Errorf("%s: no member of a report", m.Name)
		}
	}
	if n := len(c.Members()); n != reportMembers {
		return fmt.Errorf("%d members where a report has %d", n, reportMembers)
	}
	return nil
}

// checkReport is the check of a report a stranger holds: a report that tells of damage is a good report, and
// its verdict is told beside.
func checkReport(ctx context.Context, r io.ReaderAt, size int64, t Trust, l Lang) (*Result, *Report, [32]byte) {
	res := &Result{Kind: l.T("rapporto di verifica", "integrity report")}
	rep, sum, err := ReadReport(ctx, r, size, t)
	if err != nil {
		return res.fail(l.T("rapporto", "report"), err), nil, sum
	}
	res.About = rep.Producer.Code
	res.good(fmt.Sprintf(l.T("integro, con firma%s; verifica che dichiara la data %s: %s, %d oggetti letti, %d rilievi", "whole, signed%s; audit, stated date %s: %s, %d objects read, %d findings"),
		unqualified(l, rep.Qualification), rep.Ended, InWords(l, rep.Verdict), rep.Objects.Read, len(rep.Findings)))
	return res, rep, sum
}
