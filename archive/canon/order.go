package canon

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

// order brings the names of every object in text into order. Text is JSON without spaces that encoding/json wrote,
// whose numbers are integers, followed by a line end. It answers false for what it leaves to jcs.Transform: escapes
// that RFC 8785 may spell otherwise, names that are not plain ASCII (it sorts them as UTF-16) or stand twice. It
// exists because every paper and entry passes here several times, and a parser of arbitrary JSON took a sixth of a
// submission's time.
func order(text []byte) ([]byte, bool) {
	if !utf8.Valid(text) {
		return nil, false
	}
	o := orderer{text: bytes.TrimSuffix(text, []byte("\n"))}
	out := o.value(make([]byte, 0, len(text)))
	return out, !o.odd && o.at == len(o.text)
}

type orderer struct {
	text []byte
	at   int
	odd  bool // something was met that is left to others
}

// member is one name, without its quotation marks, and the name with its value as it is written.
type member struct{ name, whole []byte }

func (o *orderer) value(out []byte) []byte {
	if o.at >= len(o.text) || o.odd {
		o.odd = true
		return out
	}
	switch o.text[o.at] {
	case '{':
		return o.object(out)
	case '[':
		return o.list(out)
	case '"':
		return append(out, o.quoted()...)
	}
	return append(out, o.word()...)
}

// next takes c, if it is what comes next.
func (o *orderer) next(c byte) bool {
	if o.at < len(o.text) && o.text[o.at] == c {
		o.at++
		return true
	}
	return false
}

func (o *orderer) list(out []byte) []byte {
	o.at++
	out = append(out, '[')
	if o.next(']') {
		return append(out, ']')
	}
	for !o.odd {
		out = o.value(out)
		if o.next(']') {
			return append(out, ']')
		}
		o.odd = o.odd || !o.next(',')
		out = append(out, ',')
	}
	return out
}

func (o *orderer) object(out []byte) []byte {
	o.at++
	if o.next('}') {
		return append(out, "{}"...)
	}
	members, inOrder, from := make([]member, 0, 16), true, len(out)
	for {
		start := len(out)
		out = append(out, ',')
		quoted := o.quoted()
		if o.odd = o.odd || !o.next(':'); o.odd {
			return out
		}
		name := quoted[1 : len(quoted)-1]
		out = o.value(append(append(out, quoted...), ':'))
		if n := len(members); n > 0 && bytes.Compare(members[n-1].name, name) >= 0 {
			inOrder = false
		}
		members = append(members, member{name, out[start:]})
		o.odd = o.odd || slices.ContainsFunc(name, func(c byte) bool { return c >= utf8.RuneSelf || c == '\\' })
		if o.next('}') {
			break
		}
		if o.odd = o.odd || !o.next(','); o.odd {
			return out
		}
	}
	if !inOrder {
		sorted := make([]byte, 0, len(out)-from)
		slices.SortFunc(members, func(a, b member) int { return bytes.Compare(a.name, b.name) })
		for i, m := range members {
			o.odd = o.odd || i > 0 && bytes.Equal(m.name, members[i-1].name)
			sorted = append(sorted, m.whole...)
		}
		out = append(out[:from], sorted...)
	}
	out[from] = '{' // instead of the comma before the first member
	return append(out, '}')
}

// quoted takes a string with its quotation marks.
func (o *orderer) quoted() []byte {
	start := o.at
	if !o.next('"') {
		o.odd = true
		return nil
	}
	for o.at < len(o.text) {
		c := o.text[o.at]
		o.at++
		switch {
		case c == '"':
			return o.text[start:o.at]
		case c != '\\':
		case o.at < len(o.text) && bytes.IndexByte([]byte(`"\bfnrt`), o.text[o.at]) >= 0:
			o.at++ // RFC 8785 has the same two letters
		default:
			o.odd = true
			return nil
		}
	}
	o.odd = true
	return nil
}

// word takes a number, true, false or null.
func (o *orderer) word() []byte {
	start := o.at
	for o.at < len(o.text) && bytes.IndexByte([]byte(",]}"), o.text[o.at]) < 0 {
		o.at++
	}
	w := o.text[start:o.at]
	o.odd = o.odd || len(w) == 0 || bytes.HasPrefix(w, []byte("-0"))
	return w
}
