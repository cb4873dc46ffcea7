package pack

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	xmlDeclaration = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	maxDepth       = 64
)

// document writes XML in the form of the package comment.
type document struct {
	b    bytes.Buffer
	open []string
}

func newDocument() *document {
	d := &document{}
	d.b.WriteString(xmlDeclaration)
	return d
}

// attr is an attribute; one with an empty value is not written.
type attr struct{ name, value string }

func (d *document) tag(name string, attrs []attr) {
	for range d.open {
		d.b.WriteString("  ")
	}
	d.b.WriteByte('<')
	d.b.WriteString(name)
	for _, a := range attrs {
		if a.value == "" {
			continue
		}
		d.b.WriteByte(' ')
		d.b.WriteString(a.name)
		d.b.WriteString(`="`)
		d.b.WriteString(escape(a.value))
		d.b.WriteByte('"')
	}
	d.b.WriteByte('>')
}

// begin opens an element that holds elements.
func (d *document) begin(name string, attrs ...attr) {
	d.tag(name, attrs)
	d.b.WriteByte('\n')
	d.open = append(d.open, name)
}

// end closes the innermost open element.
func (d *document) end() {
	name := d.open[len(d.open)-1]
	d.open = d.open[:len(d.open)-1]
	for range d.open {
		d.b.WriteString("  ")
	}
	d.b.WriteString("</" + name + ">\n")
}

// text writes an element that holds text.
func (d *document) text(name, text string, attrs ...attr) {
	d.tag(name, attrs)
	d.b.WriteString(escape(text))
	d.b.WriteString("</" + name + ">\n")
}

// optional writes an element that holds text, unless there is none.
func (d *document) optional(name, text string) {
	if text != "" {
		d.text(name, text)
	}
}

func (d *document) bytes() []byte { return d.b.Bytes() }

// xmlChar says whether XML 1.0 (production 2) can hold r.
func xmlChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' ||
		r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}

var (
	group      = regexp.MustCompile(`^_x[0-9A-F]{4}_`)
	groupStart = regexp.MustCompile(`^_x[0-9A-F]{4}`)
)

// escape makes s the text of an element or the value of an attribute.
func escape(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r >= utf8.RuneSelf || strings.ContainsRune(`&<>"_`, r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '"':
			b.WriteString("&quot;")
		case r == '\t' || r == '\n' || r == '\r':
			fmt.Fprintf(&b, "&#x%X;", r)
		case r == '_' && groupStart.MatchString(s[i:]):
			b.WriteString("_x005F_")
		case !xmlChar(r):
			fmt.Fprintf(&b, "_x%04X_", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unescape undoes what escape does beyond XML's own escapes, which the parser has undone already.
func unescape(s string) string {
	if !strings.Contains(s, "_x") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] == '_' && group.MatchString(s[i:]) {
			code, _ := strconv.ParseUint(s[i+2:i+6], 16, 16) // the pattern leaves no error
			b.WriteRune(rune(code))
			i += 7
			continue
		}
		b.WriteByte(s[i])
		i++
	}
	return b.String()
}

// Tokens of the form of XML that scan admits.
var (
	elementStart = regexp.MustCompile(`^<([A-Za-z_][A-Za-z0-9._-]*(?::[A-Za-z_][A-Za-z0-9._-]*)?)`)
	attribute    = regexp.MustCompile(`^ ([A-Za-z_][A-Za-z0-9._-]*(?::[A-Za-z_][A-Za-z0-9._-]*)?)="([^"<>]*)"`)
	elementEnd   = regexp.MustCompile(`^</([A-Za-z_][A-Za-z0-9._:-]*)>`)
	reference    = regexp.MustCompile(`&(amp;|lt;|gt;|quot;|#x9;|#xA;|#xD;)?`)
)

// scan walks XML once, without building or resolving anything, before a parser sees it. It refuses document
// types, processing instructions, comments, CDATA, other entities than those escape writes, attributes given
// twice, more than 64 levels, more than one root and characters that XML cannot hold.
func scan(b []byte) error {
	rest, ok := bytes.CutPrefix(b, []byte(xmlDeclaration))
	if !ok {
		return fmt.Errorf("%w: no XML declaration", ErrForm)
	}
	var open []string
	for roots := 0; ; {
		text, after, more := bytes.Cut(rest, []byte("<"))
		if err := scanText(text, len(open) == 0); err != nil {
			return err
		}
		if !more {
			if len(open) > 0 || roots != 1 {
				return fmt.Errorf("%w: XML with %d roots, %d elements open", ErrForm, roots, len(open))
			}
			return nil
		}
		rest = rest[len(rest)-len(after)-1:]
		if m := elementEnd.FindSubmatch(rest); m != nil {
			if len(open) == 0 || open[len(open)-1] != string(m[1]) {
				return fmt.Errorf("%w: XML end of %s out of place", ErrForm, m[1])
			}
			open, rest = open[:len(open)-1], rest[len(m[0]):]
			continue
		}
		name, tail, err := scanStart(rest)
		if err != nil {
			return err
		}
		if len(open) == 0 {
			roots++
		}
		if open = append(open, name); len(open) > maxDepth {
			return fmt.Errorf("%w: XML nested deeper than %d levels", ErrForm, maxDepth)
		}
		rest = tail
	}
}

// scanStart reads a start tag from the front of b.
func scanStart(b []byte) (name string, rest []byte, err error) {
	m := elementStart.FindSubmatch(b)
	if m == nil {
		return "", nil, fmt.Errorf("%w: XML markup %.20q", ErrForm, b)
	}
	name, rest = string(m[1]), b[len(m[0]):]
	seen := map[string]bool{}
	for {
		if after, ok := bytes.CutPrefix(rest, []byte(">")); ok {
			return name, after, nil
		}
		a := attribute.FindSubmatch(rest)
		if a == nil {
			return "", nil, fmt.Errorf("%w: XML attributes of %s", ErrForm, name)
		}
		if seen[string(a[1])] {
			return "", nil, fmt.Errorf("%w: XML attribute %s of %s given twice", ErrForm, a[1], name)
		}
		seen[string(a[1])] = true
		if err := scanText(a[2], false); err != nil {
			return "", nil, err
		}
		rest = rest[len(a[0]):]
	}
}

// scanText checks the characters and references of a text; outside the root it must be white space.
func scanText(b []byte, outside bool) error {
	if outside && len(bytes.TrimSpace(b)) > 0 {
		return fmt.Errorf("%w: XML text outside the root", ErrForm)
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 || !xmlChar(r) {
			return fmt.Errorf("%w: character that XML cannot hold", ErrForm)
		}
		i += n
	}
	if bytes.IndexByte(b, '&') < 0 {
		return nil
	}
	for _, m := range reference.FindAllSubmatch(b, -1) {
		if len(m[1]) == 0 {
			return fmt.Errorf("%w: XML entity", ErrForm)
		}
	}
	return nil
}

// faults collects what is wrong with the fields of a document to be written.
type faults struct {
	of   string
	list []string
}

func (f *faults) need(field, value string) {
	if strings.TrimSpace(value) == "" {
		f.add(field, "is empty")
	}
}

func (f *faults) add(field, what string) { f.list = append(f.list, field+" "+what) }

// err is nil when there were none.
func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s", f.of, strings.Join(f.list, "; "))
}

// needTime wants a time with a year of four digits, as XML Schema's are written.
func (f *faults) needTime(field string, t time.Time) {
	switch year := t.UTC().Year(); {
	case t.IsZero():
		f.add(field, "is empty")
	case year < 1 || year > 9999:
		f.add(field, "is out of bounds")
	}
}
