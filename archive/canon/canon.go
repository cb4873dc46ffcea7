// Package canon writes and reads the one JSON form that Perenne hashes and signs: RFC 8785 (JCS).
//
// A value has exactly one form, and a reader accepts no other: [Unmarshal] refuses any byte string that is
// not the canonical form of what it parsed, so that no byte of a ledger entry, receipt or report can
// change unnoticed. Numbers are integers within ±(2^53-1): there are no fractions in our formats.
package canon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gowebpki/jcs"
)

// maxDepth bounds the nesting of arrays and objects; ours have fewer than ten levels.
const maxDepth = 32

// ErrForm means that bytes are not the canonical form of the value wanted.
var ErrForm = errors.New("not in canonical form (RFC 8785)")

// maxNumber is the greatest integer that every JSON reader keeps exactly (RFC 7493 section 2.2).
const maxNumber = 1<<53 - 1

// Marshal returns the canonical form of v. A number that is no integer within ±(2^53-1) is an error: RFC 8785
// would write the nearest double, which is another number.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("canonical form: %w", err)
	}
	if err := exactNumbers(b.Bytes()); err != nil {
		return nil, fmt.Errorf("canonical form: %w", err)
	}
	if out, ok := order(b.Bytes()); ok {
		return out, nil
	}
	out, err := jcs.Transform(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("canonical form: %w", err)
	}
	return out, nil
}

// exactNumbers looks at every number of text, which is JSON that encoding/json wrote.
func exactNumbers(text []byte) error {
	inString := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++ // whatever is escaped does not end the string
		case c == '"':
			inString = !inString
		case !inString && (c == '-' || '0' <= c && c <= '9'):
			end := i + 1
			for end < len(text) && strings.IndexByte("0123456789+-.eE", text[end]) >= 0 {
				end++
			}
			n, err := strconv.ParseInt(string(text[i:end]), 10, 64)
			if err != nil || n > maxNumber || n < -maxNumber {
				return fmt.Errorf("%s is no integer within ±(2^53-1)", text[i:end])
			}
			i = end - 1
		}
	}
	return nil
}

// Unmarshal parses data into v, which must point to a type without maps of any. It returns ErrForm, saying
// where, for a name unknown to v, a name given twice, nesting deeper than 32 levels, anything behind the
// value, and for any spelling that Marshal(v) would not give.
func Unmarshal(data []byte, v any) error {
	if err := scan(data); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	again, err := Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	if !bytes.Equal(again, data) {
		i := 0
		for i < len(data) && i < len(again) && data[i] == again[i] {
			i++
		}
		return fmt.Errorf("%w: differs at byte %d", ErrForm, i)
	}
	return nil
}

// scan bounds depth before encoding/json recurses. What is no JSON is left to that: it stops where that begins.
func scan(data []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{', c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("%w: nested deeper than %d levels", ErrForm, maxDepth)
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return nil
}
