package policies

import (
	"fmt"
	"strconv"

	"golang.org/x/text/unicode/norm"
)

// DefaultStructure is the structure of a description that names none: a body with one AOO.
const DefaultStructure = "unica"

// Key identifies a document unit within its producer. Two keys are the same when their four members are
// equal byte for byte; Description.Key brings the strings to NFC, and nothing else is done to them: "12" and
// "0012" are two documents, "12/bis" is a number like any other.
type Key struct {
	Structure string // AOO or structure, DefaultStructure where there is one
	Register  string // register type, as the producer calls it: "DETE"
	Year      int
	Number    string
}

// Key returns the key that the description gives, in NFC. It is meaningful once AdmitDescription found no error.
func (d Description) Key() Key {
	k := Key{
		Structure: norm.NFC.String(d.Structure),
		Register:  norm.NFC.String(d.Register),
		Year:      d.Year,
		Number:    norm.NFC.String(d.Number),
	}
	if k.Structure == "" {
		k.Structure = DefaultStructure
	}
	return k
}

// String is the key for people: "DETE 2026/12", with the structure in front unless it is the default one.
// It is not unique and is never parsed.
func (k Key) String() string {
	s := fmt.Sprintf("%s %d/%s", k.Register, k.Year, k.Number)
	if k.Structure != "" && k.Structure != DefaultStructure {
		s = k.Structure + " " + s
	}
	return s
}

// Canonical returns the bytes that stand for the key wherever it is hashed or authenticated: the RFC 8785
// form of {"number":…,"register":…,"structure":…,"year":…}, in that order. It is frozen.
func (k Key) Canonical() []byte {
	b := append([]byte(nil), `{"number":`...)
	b = appendQuoted(b, k.Number)
	b = append(b, `,"register":`...)
	b = appendQuoted(b, k.Register)
	b = append(b, `,"structure":`...)
	b = appendQuoted(b, k.Structure)
	b = append(b, `,"year":`...)
	b = strconv.AppendInt(b, int64(k.Year), 10)
	return append(b, '}')
}

// appendQuoted appends s as RFC 8785 §3.2.2.2 writes strings: the shortest escape for what must be escaped,
// everything else as it is. encoding/json differs (U+2028, HTML), which is why it is not used here.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\b':
			b = append(b, '\\', 'b')
		case c == '\t':
			b = append(b, '\\', 't')
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\f':
			b = append(b, '\\', 'f')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
