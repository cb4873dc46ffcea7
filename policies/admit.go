package policies

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Found is what was received for one file.
type Found struct {
	Size   int64
	SHA256 [32]byte
	Head   []byte // the first HeadSize bytes, or the whole of a shorter file
	Tail   []byte // the last HeadSize bytes, or the whole of a shorter file; nil: what only the end shows is not looked at
}

// check collects the findings of one look. A flood of them is counted, not listed: up to maxFindings of each
// level, so that warnings never hide an error.
type check struct {
	p     *Policy
	found []Finding
	count map[Level]int
}

func newCheck(p *Policy) *check { return &check{p: p, count: make(map[Level]int)} }

func (c *check) note(id, field string, args ...string) {
	f := c.p.note(id, field, args...)
	c.count[f.Level]++
	if c.count[f.Level] <= maxFindings {
		c.found = append(c.found, f)
	}
}

func (c *check) findings() []Finding {
	more := 0
	for _, n := range c.count {
		more += max(n-maxFindings, 0)
	}
	if more > 0 {
		c.found = append(c.found, finding("findings.more", "$", "count", strconv.Itoa(more)))
	}
	return c.found
}

// AdmitDescription judges a description before the bytes of its files arrive. received is when it arrived.
func (p *Policy) AdmitDescription(d Description, received time.Time) []Finding {
	c := newCheck(p)
	c.required(d)
	c.key(d)
	c.date(d, received)
	c.listed(d)
	c.texts(d)
	c.files(d)
	return c.findings()
}

// optional are the members that a document type may require.
var optional = map[string]func(d Description) bool{
	"class":          func(d Description) bool { return d.Class != "" },
	"flow":           func(d Description) bool { return d.Flow != "" },
	"parties":        func(d Description) bool { return len(d.Parties) > 0 },
	"classification": func(d Description) bool { return strings.TrimSpace(d.Classification) != "" },
	"folder":         func(d Description) bool { return strings.TrimSpace(d.Folder) != "" },
	"notes":          func(d Description) bool { return strings.TrimSpace(d.Notes) != "" },
}

func (c *check) required(d Description) {
	for _, m := range []struct {
		name    string
		present bool
	}{
		{"register", strings.TrimSpace(d.Register) != ""},
		{"year", d.Year != 0},
		{"number", strings.TrimSpace(d.Number) != ""},
		{"date", strings.TrimSpace(d.Date) != ""},
		{"type", strings.TrimSpace(d.Type) != ""},
		{"subject", strings.TrimSpace(d.Subject) != ""},
		{"reserved", d.Reserved != nil},
	} {
		if !m.present {
			c.note("field.required", m.name, "name", m.name)
		}
	}
	for _, name := range c.p.types[d.Type].Require {
		if !optional[name](d) {
			c.note("field.required", name, "name", name)
		}
	}
}

// firstYear and lastYear bound the year of a register: from the Kingdom to what no register reaches.
const (
	firstYear = 1861
	lastYear  = 2200
	maxKey    = 100 // characters of structure, register, number
)

func (c *check) key(d Description) {
	for _, m := range []struct{ name, value string }{
		{"structure", d.Structure}, {"register", d.Register}, {"number", d.Number},
	} {
		if strings.TrimSpace(m.value) == "" {
			continue
		}
		if !isKeyText(m.value) {
			c.note("key.characters", m.name, "value", quoted(m.value))
		}
		c.length(m.name, m.value, maxKey)
		c.normalised(m.name, m.value)
	}
	if d.Year != 0 && (d.Year < firstYear || d.Year > lastYear) {
		c.note("key.year", "year", "value", strconv.Itoa(d.Year))
	}
}

// isKeyText wants what people can tell apart: visible characters with single spaces between them.
func isKeyText(s string) bool {
	if !utf8.ValidString(s) || strings.HasPrefix(s, " ") || strings.HasSuffix(s, " ") || strings.Contains(s, "  ") {
		return false
	}
	for _, r := range s {
		if r != ' ' && (!unicode.IsGraphic(r) || unicode.IsSpace(r) || unicode.Is(unicode.Zs, r) || isInvisible(r) || r == utf8.RuneError) {
			return false
		}
	}
	return true
}

// date judges the date against the calendar, the register and the clock. Nowhere on Earth is it more than 14
// hours later than UTC.
func (c *check) date(d Description, received time.Time) {
	if strings.TrimSpace(d.Date) == "" {
		return
	}
	day, err := time.Parse(time.DateOnly, d.Date)
	if err != nil || day.Year() < 1 {
		c.note("date.invalid", "date", "value", quoted(d.Date))
		return
	}
	if day.After(received.UTC().Add(14 * time.Hour)) {
		c.note("date.future", "date", "value", d.Date)
	}
	if d.Year >= firstYear && d.Year <= lastYear && day.Year() != d.Year {
		c.note("date.year", "date", "value", d.Date, "year", strconv.Itoa(d.Year))
	}
}

// listed judges the members whose values the policy lists.
func (c *check) listed(d Description) {
	structure := d.Structure
	if structure == "" {
		structure = DefaultStructure
	}
	c.oneOf("structure.unknown", "structure", structure, c.p.structures)
	c.oneOf("register.unknown", "register", d.Register, c.p.registers)
	if _, ok := c.p.types[d.Type]; !ok {
		c.oneOf("type.unknown", "type", d.Type, c.p.Types())
	}
	if _, ok := c.p.classes[d.Class]; d.Class != "" && !ok {
		hint, english := suggest(d.Class, c.p.Classes())
		c.note("class.unknown", "class", "value", quoted(d.Class), "hint", hint, "hint_en", english)
	} else if d.Class == "" && !slices.Contains(c.p.types[d.Type].Require, "class") {
		c.note("class.absent", "class")
	}
	if d.Flow != "" && d.Flow != "E" && d.Flow != "U" && d.Flow != "I" {
		c.note("flow.value", "flow", "value", quoted(d.Flow))
	}
}

// oneOf wants value, in NFC, among names; no names admit any.
func (c *check) oneOf(rule, field, value string, names []string) {
	if len(names) == 0 || strings.TrimSpace(value) == "" || slices.Contains(names, norm.NFC.String(value)) {
		return
	}
	hint, english := suggest(value, names)
	c.note(rule, field, "value", quoted(value), "hint", hint, "hint_en", english)
}

// suggest names up to three of names that look like value, or all of a short list.
func suggest(value string, names []string) (italian, english string) {
	bare := func(s string) string {
		return strings.Map(func(r rune) rune {
			if unicode.IsLetter(r) || unicode.IsDigit(r) {
				return unicode.ToLower(r)
			}
			return -1
		}, s)
	}
	var like []string
	for _, name := range names {
		a, b := bare(value), bare(name)
		n := min(len(a), len(b), 5)
		if n >= 3 && a[:n] == b[:n] {
			like = append(like, name)
		}
	}
	if len(like) == 0 && len(names) <= 6 {
		like = names
	}
	if len(like) == 0 {
		return "", ""
	}
	like = like[:min(len(like), 3)]
	return " (per esempio «" + strings.Join(like, "», «") + "»)", " (for example “" + strings.Join(like, "”, “") + "”)"
}

// The limits of texts, in characters.
const (
	maxSubject = 4_000
	maxShort   = 500
	maxNotes   = 20_000
)

func (c *check) texts(d Description) {
	c.text("subject", d.Subject, maxSubject)
	c.text("classification", d.Classification, maxShort)
	c.text("folder", d.Folder, maxShort)
	c.text("notes", d.Notes, maxNotes)
	for i, party := range d.Parties {
		at := fmt.Sprintf("parties[%d]", i)
		if strings.TrimSpace(party.Name) == "" {
			c.note("field.required", at+".name", "name", "name")
		}
		c.text(at+".role", party.Role, maxShort)
		c.text(at+".name", party.Name, maxShort)
		c.text(at+".tax_code", party.TaxCode, maxShort)
		if party.TaxCode != "" && !isTaxCode(party.TaxCode) {
			c.note("party.tax-code", at+".tax_code", "value", quoted(party.TaxCode))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Extra)) {
		at := memberPath("extra", name)
		if strings.TrimSpace(name) == "" {
			c.note("field.required", at, "name", "extra")
		}
		c.text(at, name, maxShort)
		c.text(at, d.Extra[name], maxSubject)
	}
}

// isTaxCode knows the two forms: 16 letters and digits, or 11 digits (bodies, VAT, provisional ones of persons).
func isTaxCode(s string) bool {
	digits := true
	for i := range len(s) {
		letter := s[i] >= 'A' && s[i] <= 'Z' || s[i] >= 'a' && s[i] <= 'z'
		if !letter && !isDigit(s[i]) {
			return false
		}
		digits = digits && !letter
	}
	return len(s) == 16 || len(s) == 11 && digits
}

func (c *check) text(field, s string, limit int) {
	c.length(field, s, limit)
	invisible := rune(-1)
	for i, r := range s {
		if !isXMLChar(r) || r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			c.note("text.characters", field, "value", fmt.Sprintf("%U", r))
			return
		}
		if isInvisible(r) {
			invisible = r
		}
	}
	if invisible >= 0 {
		c.note("text.invisible", field, "value", fmt.Sprintf("%U", invisible))
	}
	c.normalised(field, s)
}

func (c *check) length(field, s string, limit int) {
	if n := utf8.RuneCountInString(s); n > limit {
		c.note("text.length", field, "count", strconv.Itoa(n), "max", strconv.Itoa(limit))
	}
}

func (c *check) normalised(field, s string) {
	if !norm.NFC.IsNormalString(s) {
		c.note("text.normalised", field)
	}
}

func (c *check) files(d Description) {
	if n := len(d.Files); n == 0 || n > c.p.limits.MaxFiles {
		c.note("files.count", "files", "count", strconv.Itoa(n), "max", strconv.Itoa(c.p.limits.MaxFiles))
	}
	mains, total := 0, int64(0)
	names := make(map[string]int, len(d.Files))
	for i, f := range d.Files {
		at := fmt.Sprintf("files[%d]", i)
		c.file(f, at)
		if f.Role == RoleMain {
			mains++
		}
		if f.Size > 0 && total <= c.p.limits.MaxSubmission {
			total += min(f.Size, maxBytes)
		}
		same := sameName(f.Name)
		if first, ok := names[same]; ok && same != "" {
			c.note("name.duplicate", at+".name", "value", quoted(f.Name), "other", fmt.Sprintf("files[%d]", first))
		} else {
			names[same] = i
		}
	}
	if mains != 1 && len(d.Files) > 0 {
		c.note("files.main", "files", "count", strconv.Itoa(mains))
	}
	if total > c.p.limits.MaxSubmission {
		c.tooLarge("files", total, c.p.limits.MaxSubmission)
	}
}

func (c *check) tooLarge(field string, size, limit int64) {
	c.note("size.limit", field, "size", strconv.FormatInt(size, 10), "max", strconv.FormatInt(limit, 10))
}

func (c *check) file(f FileDescription, at string) {
	c.name(f.Name, at+".name")
	switch f.Role {
	case RoleMain, RoleAttachment, RoleAnnex, RoleAnnotation:
	default:
		c.note("files.role", at+".role", "value", quoted(f.Role))
	}
	switch {
	case f.Size == 0:
		c.note("size.zero", at+".size")
	case f.Size < 0 || f.Size > c.p.limits.MaxFileSize:
		c.tooLarge(at+".size", f.Size, c.p.limits.MaxFileSize)
	}
	if f.SHA256 != "" {
		if b, err := hex.DecodeString(f.SHA256); err != nil || len(b) != 32 {
			c.note("digest.form", at+".sha256")
		}
	}
	if f.Format != "" && canonicalMIME(f.Format) == "" {
		c.note("format.claim", at+".format", "value", quoted(f.Format))
	}
}

// AdmitFile judges what was received for file i of an admitted description.
func (p *Policy) AdmitFile(d Description, i int, found Found) []Finding {
	c := newCheck(p)
	at := fmt.Sprintf("files[%d]", i)
	if i < 0 || i >= len(d.Files) {
		c.note("file.undeclared", at)
		return c.findings()
	}
	f := d.Files[i]
	switch {
	case found.Size == 0:
		c.note("size.zero", at)
		return c.findings()
	case found.Size != f.Size:
		c.note("size.mismatch", at+".size", "found", strconv.FormatInt(found.Size, 10), "declared", strconv.FormatInt(f.Size, 10))
	}
	if found.Size > p.limits.MaxFileSize {
		c.tooLarge(at, found.Size, p.limits.MaxFileSize)
	}
	if b, err := hex.DecodeString(f.SHA256); err == nil && len(b) == 32 && !bytes.Equal(b, found.SHA256[:]) {
		c.note("digest.mismatch", at+".sha256", "found", hex.EncodeToString(found.SHA256[:]), "declared", strings.ToLower(f.SHA256))
	}
	c.format(d, f, at, found)
	return c.findings()
}

func (c *check) format(d Description, f FileDescription, at string, found Found) {
	format := DetectFormat(found.Head)
	words := format.MIME + " (" + format.Description + ")"
	extension := extensionOf(f.Name)
	byName := runnable[extension] && (format.MIME == mimeText || format.MIME == mimeOLE || format.MIME == mimeUnknown)
	program := format.Executable || byName
	admission, listed := c.p.formats[format.MIME]
	switch {
	case format.Executable:
		c.note("format.executable", at, "found", words)
	case byName:
		c.note("format.executable", at, "found", extension+", "+words)
	case format.Encrypted:
		c.note("format.encrypted", at, "found", words)
	case !listed:
		c.note("format.unlisted", at, "found", words)
	case admission.Judgement == Discouraged:
		c.note("format.discouraged", at, "found", words)
	}
	if t := c.p.types[d.Type]; listed && !program && f.Role == RoleMain && len(t.Formats) > 0 && !slices.Contains(t.Formats, format.MIME) {
		c.note("format.main", at, "found", words, "type", d.Type, "admitted", strings.Join(t.Formats, ", "))
	}
	claimed := canonicalMIME(f.Format)
	if claimed != "" && !agree(claimed, format.MIME) {
		c.note("format.mismatch", at+".format", "claimed", quoted(f.Format), "found", words)
	}
	if usual, ok := extensions[extension]; ok && !agree(canonicalMIME(usual), format.MIME) {
		c.note("name.extension", at+".name", "value", extension, "found", words)
	}
	if truncated(format, found) {
		c.note("format.truncated", at, "found", words)
	}
	if format.MIME == mimePDF && bytes.Contains(found.Tail, []byte("/Encrypt")) {
		c.note("format.protected", at)
	}
}

// wrapped are the formats that are one ASN.1 element.
var wrapped = map[string]bool{mimeCMS: true, mimeDetached: true, mimeTSR: true, mimeTST: true, mimeTSD: true, mimeCert: true}

// truncated reports whether a file ends before its structure does, as far as both ends show it: a DER length
// beyond the size, a PDF, ZIP or PNG without the marks that end one.
func truncated(format Format, found Found) bool {
	if outer, ok := child(found.Head, 0, tagSequence); ok && wrapped[format.MIME] {
		return int64(outer.start)+int64(outer.length) > found.Size
	}
	if found.Tail == nil {
		return false
	}
	switch {
	case format.MIME == mimePDF:
		return !bytes.Contains(found.Tail, []byte("%%EOF"))
	case bytes.HasPrefix(found.Head, []byte("PK")):
		// A comment of up to 64 KiB may follow the end record; those who write one are few.
		return !bytes.Contains(found.Tail, []byte("PK\x05\x06"))
	case format.MIME == "image/png":
		return !bytes.Contains(found.Tail, []byte("IEND"))
	}
	return false
}
