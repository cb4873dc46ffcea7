package policies

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The bounds of every description, whatever the policy says. They keep memory flat before anything is known
// of the sender.
const (
	MaxDescription = 8 << 20 // bytes
	maxFiles       = 10_000  // elements of files; a policy allows at most as many
	maxParties     = 1_000
	maxExtra       = 256
	maxNesting     = 16  // levels of objects and arrays
	maxFindings    = 100 // of one level that are listed; the rest is counted
)

// ParseDescription reads the JSON form of a description: one object in UTF-8 (no byte order mark) with the
// members of Description and no others, none given twice, spelled exactly so; null is the value of none. It
// goes on behind a fault where it can, so that a sender learns of all of them at once. Members with a fault
// keep their zero value: see Join. An absent structure becomes DefaultStructure.
func ParseDescription(b []byte) (Description, []Finding) {
	if f, ok := unreadable(b); ok {
		return Description{}, []Finding{f}
	}
	r := &reader{rest: b}
	d := r.description()
	if d.Structure == "" {
		d.Structure = DefaultStructure
	}
	if r.more > 0 {
		r.found = append(r.found, finding("findings.more", "$", "count", strconv.Itoa(r.more)))
	}
	return d, r.found
}

// Join puts the findings of AdmitDescription behind those of ParseDescription and leaves out of them what
// only follows from the former: a member that could not be read is not also missing, and of a description
// that could not be read at all nothing else is said.
func Join(parsed, admitted []Finding) []Finding {
	faulty := make(map[string]bool, len(parsed))
	for _, f := range parsed {
		if f.Field == "$" && f.Level == Error {
			return parsed
		}
		faulty[f.Field] = true
	}
	joined := slices.Clone(parsed)
	for _, f := range admitted {
		if !faulty[f.Field] {
			joined = append(joined, f)
		}
	}
	return joined
}

// unreadable looks for what makes reading members pointless.
func unreadable(b []byte) (Finding, bool) {
	if len(b) > MaxDescription {
		return finding("json.limits", "$", "what", "byte", "what_en", "bytes", "max", strconv.Itoa(MaxDescription)), true
	}
	if at := invalidUTF8(b); at >= 0 {
		return finding("json.encoding", "$", "offset", strconv.Itoa(at)), true
	}
	if !json.Valid(b) {
		err := json.Unmarshal(b, new(json.RawMessage)) // says where
		offset := len(b)
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			offset = min(int(syntax.Offset), len(b))
		}
		line, column := position(b, offset)
		return finding("json.syntax", "$", "line", strconv.Itoa(line), "column", strconv.Itoa(column)), true
	}
	if at := loneSurrogate(b); at >= 0 {
		return finding("json.encoding", "$", "offset", strconv.Itoa(at)), true
	}
	return Finding{}, false
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// loneSurrogate finds half of a surrogate pair escaped in a JSON text that is otherwise valid: encoding/json
// would silently put U+FFFD in its place. In such a text a backslash stands in strings only.
func loneSurrogate(b []byte) int {
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		switch hi := escaped(b[i:]); {
		case hi < 0:
			i++ // \", \\, \n …
		case hi >= 0xD800 && hi < 0xDC00:
			if lo := escaped(b[i+6:]); lo < 0xDC00 || lo > 0xDFFF {
				return i
			}
			i += 11
		case hi >= 0xDC00 && hi < 0xE000:
			return i
		default:
			i += 5
		}
	}
	return -1
}

// escaped returns the value of the \uXXXX that b begins with, or -1.
func escaped(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	v, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(v)
}

// position gives line and column, both from 1, of the byte before offset: the one that a syntax error is about.
func position(b []byte, offset int) (line, column int) {
	at := max(offset-1, 0)
	before := b[:at]
	line = 1 + bytes.Count(before, []byte{'\n'})
	return line, at - bytes.LastIndexByte(before, '\n')
}

// token is a piece of a valid JSON text; its first byte tells its kind.
type token []byte

func (t token) is(kind byte) bool { return len(t) > 0 && t[0] == kind }

// reader walks the tokens of a valid JSON text and notes what is not as it should be. Nothing here recurses
// on the input: known members have a known depth, everything else is skipped by a loop.
type reader struct {
	rest  []byte
	depth int
	deep  bool // said once that the text is too deep
	found []Finding
	more  int // found beyond maxFindings
}

// trim passes over what only separates tokens. That separators stand where they must was seen before.
func (r *reader) trim() {
	r.rest = bytes.TrimLeft(r.rest, " \t\r\n,:")
}

// inside reports whether the object or array being read has another element.
func (r *reader) inside() bool {
	r.trim()
	return len(r.rest) > 0 && r.rest[0] != '}' && r.rest[0] != ']'
}

// next returns the next token and keeps count of the depth; at the end of the text it is empty.
func (r *reader) next(path string) token {
	r.trim()
	n := min(1, len(r.rest))
	switch tok := token(r.rest); {
	case tok.is('{'), tok.is('['):
		r.depth++
		if r.depth > maxNesting && !r.deep {
			r.deep = true
			r.limit(path, "livelli", "levels", maxNesting)
		}
	case tok.is('}'), tok.is(']'):
		r.depth--
	case tok.is('"'):
		for n < len(tok) && tok[n] != '"' {
			if tok[n] == '\\' {
				n++
			}
			n++
		}
		n++
	default:
		if n = bytes.IndexAny(tok, " \t\r\n,:]}"); n < 0 {
			n = len(tok)
		}
	}
	tok := token(r.rest[:n])
	r.rest = r.rest[n:]
	return tok
}

// unquote gives the text of a string token.
func (t token) unquote() string {
	if !bytes.Contains(t, []byte{'\\'}) {
		return string(t[1 : len(t)-1])
	}
	var s string
	if err := json.Unmarshal(t, &s); err != nil {
		panic("policies: not a string of the JSON text found valid: " + err.Error())
	}
	return s
}

// note adds a finding; beyond maxFindings it only counts, before anything is spent on texts.
func (r *reader) note(rule, path string, args ...string) {
	if len(r.found) >= maxFindings {
		r.more++
		return
	}
	r.found = append(r.found, finding(rule, path, args...))
}

func (r *reader) limit(path, what, whatEnglish string, limit int) {
	r.note("json.limits", path, "what", what, "what_en", whatEnglish, "max", strconv.Itoa(limit))
}

// skip passes over the rest of the value that tok begins.
func (r *reader) skip(tok token, path string) {
	if !tok.is('{') && !tok.is('[') {
		return
	}
	for outside := r.depth - 1; r.depth > outside && len(r.rest) > 0; {
		r.next(path)
	}
}

func (r *reader) wrong(tok token, path, want, wantEnglish string) {
	r.note("json.type", path, "want", want, "want_en", wantEnglish)
	r.skip(tok, path)
}

// object reads an object and calls member, which must consume its value, with each name.
func (r *reader) object(path string, member func(name, path string)) {
	tok := r.next(path)
	if !tok.is('{') {
		r.wrong(tok, path, "oggetto", "object")
		return
	}
	for r.inside() {
		name := r.next(path).unquote()
		member(name, memberPath(path, name))
	}
	r.next(path)
}

// array reads an array of at most limit elements and calls element, which must consume one value.
func (r *reader) array(path string, limit int, element func(path string)) {
	tok := r.next(path)
	if !tok.is('[') {
		r.wrong(tok, path, "elenco", "array")
		return
	}
	n := 0
	for ; r.inside(); n++ {
		if n == limit {
			r.limit(path, "elementi", "elements", limit)
		}
		if n >= limit {
			r.skip(r.next(path), path)
			continue
		}
		element(path + "[" + strconv.Itoa(n) + "]")
	}
	r.next(path)
}

// members reads an object whose names are known.
func (r *reader) members(path string, known map[string]func(path string)) {
	seen := make(map[string]bool, len(known))
	r.object(path, func(name, path string) {
		read, ok := known[name]
		switch {
		case !ok:
			r.unknown(name, path, known)
			r.skip(r.next(path), path)
		case seen[name]:
			r.note("json.duplicate", path)
			r.skip(r.next(path), path)
		default:
			seen[name] = true
			read(path)
		}
	})
}

// unknown notes a name that is not known, and which known one it may have been meant to be.
func (r *reader) unknown(name, path string, known map[string]func(string)) {
	hint, english := "", ""
	if len(r.found) >= maxFindings {
		r.more++
		return
	}
	bare := strings.NewReplacer("_", "", "-", "", " ", "").Replace(name)
	for k := range known {
		if strings.EqualFold(strings.ReplaceAll(k, "_", ""), bare) {
			hint, english = " o scriverlo «"+k+"»", " or write it “"+k+"”"
		}
	}
	r.note("json.name", path, "hint", hint, "hint_en", english)
}

func (r *reader) text(path string) string {
	tok := r.next(path)
	if !tok.is('"') {
		r.wrong(tok, path, "testo", "string")
		return ""
	}
	return tok.unquote()
}

// integer reads a number written as an integer: neither 1e3 nor 12.0.
func (r *reader) integer(path string, bits int) int64 {
	tok := r.next(path)
	if i, err := strconv.ParseInt(string(tok), 10, bits); err == nil {
		return i
	}
	r.wrong(tok, path, "numero intero", "integer")
	return 0
}

func (r *reader) boolean(path string) *bool {
	tok := r.next(path)
	if !tok.is('t') && !tok.is('f') {
		r.wrong(tok, path, "true o false", "boolean")
		return nil
	}
	yes := tok.is('t')
	return &yes
}

func (r *reader) description() Description {
	var d Description
	text := func(s *string) func(string) { return func(path string) { *s = r.text(path) } }
	r.members("$", map[string]func(string){
		"structure":      text(&d.Structure),
		"register":       text(&d.Register),
		"year":           func(path string) { d.Year = int(r.integer(path, 32)) },
		"number":         text(&d.Number),
		"date":           text(&d.Date),
		"type":           text(&d.Type),
		"subject":        text(&d.Subject),
		"reserved":       func(path string) { d.Reserved = r.boolean(path) },
		"class":          text(&d.Class),
		"flow":           text(&d.Flow),
		"classification": text(&d.Classification),
		"folder":         text(&d.Folder),
		"notes":          text(&d.Notes),
		"extra":          func(path string) { d.Extra = r.extra(path) },
		"parties": func(path string) {
			r.array(path, maxParties, func(path string) { d.Parties = append(d.Parties, r.party(path)) })
		},
		"files": func(path string) {
			r.array(path, maxFiles, func(path string) { d.Files = append(d.Files, r.file(path)) })
		},
	})
	return d
}

func (r *reader) party(path string) Party {
	var p Party
	r.members(path, map[string]func(string){
		"role":     func(path string) { p.Role = r.text(path) },
		"name":     func(path string) { p.Name = r.text(path) },
		"tax_code": func(path string) { p.TaxCode = r.text(path) },
	})
	return p
}

func (r *reader) file(path string) FileDescription {
	var f FileDescription
	r.members(path, map[string]func(string){
		"name":   func(path string) { f.Name = r.text(path) },
		"role":   func(path string) { f.Role = r.text(path) },
		"size":   func(path string) { f.Size = r.integer(path, 64) },
		"sha256": func(path string) { f.SHA256 = r.text(path) },
		"format": func(path string) { f.Format = r.text(path) },
	})
	return f
}

// extra reads free names; of two that differ in the case of letters only, the second is refused, since
// half of the readers out there would take one for the other.
func (r *reader) extra(path string) map[string]string {
	extra := make(map[string]string)
	folded := make(map[string]bool)
	n := 0
	r.object(path, func(name, member string) {
		n++
		if n == maxExtra+1 {
			r.limit(path, "membri", "members", maxExtra)
		}
		key := strings.ToLower(name)
		switch {
		case n > maxExtra:
			r.skip(r.next(path), path)
		case folded[key]:
			r.note("json.duplicate", member)
			r.skip(r.next(path), path)
		default:
			folded[key] = true
			extra[name] = r.text(member)
		}
	})
	return extra
}

// memberPath appends a name to a path: files[0].name, and extra["name with spaces"] for what is no identifier.
func memberPath(path, name string) string {
	plain := name != "" && len(name) <= maxQuoted
	for i := 0; i < len(name) && plain; i++ {
		c := name[i]
		plain = c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9'
	}
	switch {
	case !plain:
		name = `["` + quoted(name) + `"]`
	case path != "$":
		name = "." + name
	}
	if path == "$" {
		return name
	}
	return path + name
}
