package ledger

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/storage"
)

// MaxLine is the longest line of an entry, in bytes without the newline: C2SP entry bundles give a leaf a
// length of 16 bits, and base64 of a line must fit the `extra` of a proof comfortably.
const MaxLine = 60 << 10

// TimeLayout is the one spelling of a time: UTC, with milliseconds.
const TimeLayout = "2006-01-02T15:04:05.000Z"

// maxNumber is the greatest integer that every JSON reader keeps exactly (RFC 7493).
const maxNumber = 1<<53 - 1

// ErrEntry means that an entry, or the line of one, is not as the package comment says.
var ErrEntry = errors.New("invalid entry")

// Type says what an entry records.
type Type string

// The types of entries. Which members each carries stands in the package comment.
const (
	PackageSealed     Type = "package.sealed"     // a package exists from here on
	PackageAnnulled   Type = "package.annulled"   // a package no longer stands for its key
	SubmissionRefused Type = "submission.refused" // documento non preso in carico
	ReportIssued      Type = "report.issued"      // an integrity report was sealed
	CopyIssued        Type = "copy.issued"        // a package, or part of it, was given out
	SealEntry         Type = "seal"               // a timestamp covers this ledger up to here
	HoldPlaced        Type = "hold.placed"        // blocco dello scarto
	HoldLifted        Type = "hold.lifted"        // end of a blocco dello scarto
	PackageDisposed   Type = "package.disposed"   // scarto
	EvidenceRenewed   Type = "evidence.renewed"   // timestamps were renewed (RFC 4998 §5)
	Repaired          Type = "repaired"           // an object lost or damaged was put back
	KeyAdded          Type = "key.added"          // a key may sign from here on
	PolicyAdopted     Type = "policy.adopted"     // rules in force from here on
	NodeJoined        Type = "node.joined"        // a daemon began to write here
	CommitVoid        Type = "commit.void"        // what lies under a number is no commit: the ledger goes on behind it
	TrustedHead       Type = "head.trusted"       // a daemon without a mark took the bucket's word
)

// Entry is one line of the ledger. Members that a type does not have are left zero. All text is printable
// ASCII without quotation mark and backslash; every digest is 64 lower-case hexadecimal digits.
type Entry struct {
	Type Type   `json:"type"`
	Time string `json:"time"` // in TimeLayout, set by the sequencer

	ID         string `json:"id,omitempty"`         // of the package or paper: a-z, 0-9, '-', '_', '.'
	Key        string `json:"key,omitempty"`        // HMAC-SHA-256 of the producer key under the name key
	Generation int64  `json:"generation,omitempty"` // of the document unit under its key, from 0

	Object string `json:"object,omitempty"` // key in the bucket
	Size   int64  `json:"size,omitempty"`   // of the object, in bytes
	SHA256 string `json:"sha256,omitempty"` // of the object's bytes

	Record  string `json:"record,omitempty"`  // salted digest of the search record
	Receipt string `json:"receipt,omitempty"` // salted digest of the receipt's body

	Seal  *int64 `json:"seal,omitempty"`  // number of the seal, from 0
	Root  string `json:"root,omitempty"`  // of the seal's RFC 4998 tree
	Token string `json:"token,omitempty"` // SHA-256 of the DER of the timestamp token

	Cause string `json:"cause,omitempty"` // salted digest of a record, deed or reason outside the ledger

	VKey        string `json:"vkey,omitempty"`        // note verifier key of a ledger signer
	Certificate string `json:"certificate,omitempty"` // SHA-256 of the DER of the seal certificate
	Recovery    string `json:"recovery,omitempty"`    // the offline recovery key, public half (genesis)
	Signature   string `json:"signature,omitempty"`   // by the recovery key, over the key adopted

	Commit   *int64 `json:"commit,omitempty"`   // number of the commit trusted, or void
	Previous string `json:"previous,omitempty"` // SHA-256 of that commit's bytes
}

// The members of an entry, as bits, in canonical order.
const (
	mCause = 1 << iota
	mCertificate
	mCommit
	mGeneration
	mID
	mKey
	mObject
	mPrevious
	mReceipt
	mRecord
	mRecovery
	mRoot
	mSeal
	mSHA256
	mSignature
	mSize
	mTime
	mToken
	mType
	mVKey
)

// member is one JSON member: exactly one of text, count and ordinal is set. A count is left out when 0, an
// ordinal when nil.
type member struct {
	name    string
	text    func(*Entry) *string
	form    func(string) error
	count   func(*Entry) *int64
	ordinal func(*Entry) **int64
}

// members stands in the order of RFC 8785, which for these names is that of their bytes.
var members = []member{
	{name: "cause", text: func(e *Entry) *string { return &e.Cause }, form: digestForm},
	{name: "certificate", text: func(e *Entry) *string { return &e.Certificate }, form: digestForm},
	{name: "commit", ordinal: func(e *Entry) **int64 { return &e.Commit }},
	{name: "generation", count: func(e *Entry) *int64 { return &e.Generation }},
	{name: "id", text: func(e *Entry) *string { return &e.ID }, form: idForm},
	{name: "key", text: func(e *Entry) *string { return &e.Key }, form: digestForm},
	{name: "object", text: func(e *Entry) *string { return &e.Object }, form: storage.ValidKey},
	{name: "previous", text: func(e *Entry) *string { return &e.Previous }, form: digestForm},
	{name: "receipt", text: func(e *Entry) *string { return &e.Receipt }, form: digestForm},
	{name: "record", text: func(e *Entry) *string { return &e.Record }, form: digestForm},
	{name: "recovery", text: func(e *Entry) *string { return &e.Recovery }, form: textForm},
	{name: "root", text: func(e *Entry) *string { return &e.Root }, form: digestForm},
	{name: "seal", ordinal: func(e *Entry) **int64 { return &e.Seal }},
	{name: "sha256", text: func(e *Entry) *string { return &e.SHA256 }, form: digestForm},
	{name: "signature", text: func(e *Entry) *string { return &e.Signature }, form: textForm},
	{name: "size", count: func(e *Entry) *int64 { return &e.Size }},
	{name: "time", text: func(e *Entry) *string { return &e.Time }, form: timeForm},
	{name: "token", text: func(e *Entry) *string { return &e.Token }, form: digestForm},
	{name: "type", text: func(e *Entry) *string { return (*string)(&e.Type) }, form: textForm},
	{name: "vkey", text: func(e *Entry) *string { return &e.VKey }, form: vkeyForm},
}

// rule says which members a type needs and which it may have besides; all others must be absent.
type rule struct{ need, may uint32 }

const object = mObject | mSize | mSHA256

var rules = map[Type]rule{
	PackageSealed:     {mID | mKey | object | mRecord | mReceipt, mGeneration},
	PackageAnnulled:   {mID | mKey | mCause, mGeneration | mRecord},
	SubmissionRefused: {mKey | mReceipt, mID | mGeneration | object | mRecord | mCause},
	ReportIssued:      {object, mID | mReceipt | mRecord | mCause},
	CopyIssued:        {mID, mKey | mGeneration | object | mRecord | mReceipt | mCause},
	SealEntry:         {mSeal | mRoot | mToken | object, 0},
	HoldPlaced:        {mCause, mID | mKey | mGeneration},
	HoldLifted:        {mCause, mID | mKey | mGeneration},
	PackageDisposed:   {mID | mKey | mCause, mGeneration},
	EvidenceRenewed:   {mRoot | mToken | object, mSeal | mCause},
	Repaired:          {object, mID | mCause},
	KeyAdded:          {mVKey, mCertificate | mRecovery | mSignature | mCause},
	PolicyAdopted:     {mSHA256, object | mID | mCause},
	NodeJoined:        {0, mID | mVKey | mCertificate | mCause},
	TrustedHead:       {mCommit | mPrevious, mCause},
	CommitVoid:        {mCommit | mSHA256, 0},
}

// Validate reports, as ErrEntry, the first member that is missing, superfluous or malformed.
func (e Entry) Validate() error {
	r, ok := rules[e.Type]
	if !ok {
		return fmt.Errorf("%w: unknown type %q", ErrEntry, e.Type)
	}
	have, err := e.present()
	if err != nil {
		return err
	}
	r.need |= mTime | mType
	if m := have &^ (r.need | r.may); m != 0 {
		return fmt.Errorf("%w: %s cannot have %s", ErrEntry, e.Type, nameOf(m))
	}
	if have&mObject != 0 {
		r.need |= mSize
	}
	if have&(mObject|mSize) != 0 {
		r.need |= mSHA256
	}
	if m := r.need &^ have; m != 0 {
		return fmt.Errorf("%w: %s without %s", ErrEntry, e.Type, nameOf(m))
	}
	return nil
}

// present returns the bits of the members that e has, after checking their form.
func (e *Entry) present() (uint32, error) {
	var have uint32
	for i := range members {
		m := &members[i]
		var err error
		switch {
		case m.text != nil:
			s := *m.text(e)
			if s == "" {
				continue
			}
			if err = textForm(s); err == nil {
				err = m.form(s)
			}
		case m.count != nil:
			n := *m.count(e)
			if n == 0 {
				continue
			}
			err = numberForm(n)
		default:
			n := *m.ordinal(e)
			if n == nil {
				continue
			}
			err = numberForm(*n)
		}
		if err != nil {
			return 0, fmt.Errorf("%w: %s: %w", ErrEntry, m.name, err)
		}
		have |= 1 << i
	}
	return have, nil
}

// nameOf names the first of a set of members.
func nameOf(bits uint32) string {
	for i := range members {
		if bits&(1<<i) != 0 {
			return members[i].name
		}
	}
	return "nothing"
}

// Line returns the canonical form of a valid entry, without newline.
func (e Entry) Line() ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	line := e.append(make([]byte, 0, 640))
	if len(line) > MaxLine {
		return nil, fmt.Errorf("%w: line of %d bytes, at most %d", ErrEntry, len(line), MaxLine)
	}
	return line, nil
}

// append writes RFC 8785 for the values that Validate admits: none of them needs an escape. Tests hold it
// to archive/canon; it exists because rebuilding reads millions of lines.
func (e *Entry) append(b []byte) []byte {
	b = append(b, '{')
	name := func(m *member) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, m.name...)
		b = append(b, '"', ':')
	}
	for i := range members {
		m := &members[i]
		switch {
		case m.text != nil:
			if s := *m.text(e); s != "" {
				name(m)
				b = append(b, '"')
				b = append(b, s...)
				b = append(b, '"')
			}
		case m.count != nil:
			if n := *m.count(e); n != 0 {
				name(m)
				b = strconv.AppendInt(b, n, 10)
			}
		default:
			if n := *m.ordinal(e); n != nil {
				name(m)
				b = strconv.AppendInt(b, *n, 10)
			}
		}
	}
	return append(b, '}')
}

// ParseEntry reads one line, without newline. It accepts exactly the lines that [Entry.Line] writes.
func ParseEntry(line []byte) (Entry, error) {
	var e Entry
	if len(line) > MaxLine {
		return e, fmt.Errorf("%w: line of %d bytes, at most %d", ErrEntry, len(line), MaxLine)
	}
	if err := e.parse(string(line)); err != nil {
		return Entry{}, err
	}
	if err := e.Validate(); err != nil {
		return Entry{}, err
	}
	return e, nil
}

// parse reads {"name":value,…} with known names in canonical order, each at most once.
func (e *Entry) parse(line string) error {
	at := func(rest string) error {
		return fmt.Errorf("%w: not canonical at byte %d", ErrEntry, len(line)-len(rest))
	}
	rest, ok := strings.CutPrefix(line, "{")
	if !ok {
		return at(line)
	}
	for i := 0; ; {
		name, after, ok := cutQuoted(rest)
		if !ok {
			return at(rest)
		}
		for i < len(members) && members[i].name != name {
			i++
		}
		if i == len(members) || !strings.HasPrefix(after, ":") {
			return at(rest)
		}
		m := &members[i]
		i++
		if rest, ok = m.set(e, after[1:]); !ok {
			return at(after)
		}
		if rest == "}" {
			return nil
		}
		if rest, ok = strings.CutPrefix(rest, ","); !ok {
			return at(rest)
		}
	}
}

// set reads a value of m from the start of s and returns what follows it. A value that would have been
// left out is refused.
func (m *member) set(e *Entry, s string) (rest string, ok bool) {
	if m.text != nil {
		var v string
		if v, rest, ok = cutQuoted(s); !ok || v == "" {
			return s, false
		}
		*m.text(e) = v
		return rest, true
	}
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 64)
	if err != nil || end > 1 && s[0] == '0' {
		return s, false
	}
	if m.ordinal != nil {
		*m.ordinal(e) = &n
		return s[end:], true
	}
	if n == 0 {
		return s, false
	}
	*m.count(e) = n
	return s[end:], true
}

// cutQuoted takes a string literal from the start of s. What lies between the quotation marks is judged
// by textForm later, which knows neither quotation mark nor backslash.
func cutQuoted(s string) (text, rest string, ok bool) {
	if s, ok = strings.CutPrefix(s, `"`); !ok {
		return "", s, false
	}
	return strings.Cut(s, `"`)
}

// Leaf returns the hash of an entry's line, without newline, in the tree (RFC 6962 §2.1).
func Leaf(line []byte) tlog.Hash { return tlog.RecordHash(line) }

func textForm(s string) error {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return fmt.Errorf("character %q at byte %d", c, i)
		}
	}
	return nil
}

func numberForm(n int64) error {
	if n < 0 || n > maxNumber {
		return fmt.Errorf("%d is not within 0 and 2^53-1", n)
	}
	return nil
}

func digestForm(s string) error {
	if len(s) != 64 {
		return fmt.Errorf("%d characters, want 64 hexadecimal digits", len(s))
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("%q is not a lower-case hexadecimal digit", c)
		}
	}
	return nil
}

func idForm(s string) error {
	if len(s) > 100 {
		return fmt.Errorf("%d characters, at most 100", len(s))
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return fmt.Errorf("character %q", c)
		}
	}
	return nil
}

func timeForm(s string) error {
	t, err := time.Parse(TimeLayout, s)
	if err != nil || t.Format(TimeLayout) != s {
		return fmt.Errorf("%q is not a time like %s", s, TimeLayout)
	}
	return nil
}

func vkeyForm(s string) error {
	_, err := note.NewVerifier(s)
	return err
}
