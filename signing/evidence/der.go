package evidence

import (
	"errors"
	"fmt"
)

var (
	errTruncated = errors.New("ends inside an element")
	errLength    = errors.New("length not in DER form")
)

// scan holds bytes from outside to DER as far as lengths, tags and nesting go, without recursion, so that the
// parsers behind it meet no indefinite length, no element longer than its parent and no deep nest. The bytes
// must be exactly one element.
func scan(der []byte) error {
	if len(der) > maxSize {
		return fmt.Errorf("%w: %d bytes, at most %d are read", ErrForm, len(der), maxSize)
	}
	ends := make([]int, 1, maxDepth+1)
	ends[0] = len(der)
	for pos := 0; ; {
		for len(ends) > 0 && pos == ends[len(ends)-1] {
			ends = ends[:len(ends)-1]
		}
		if len(ends) == 0 && pos > 0 {
			return nil
		}
		if len(ends) == 0 {
			return fmt.Errorf("%w: empty", ErrForm)
		}
		if pos > 0 && len(ends) == 1 {
			return fmt.Errorf("%w: byte %d: bytes after the element", ErrForm, pos)
		}
		body, end, err := element(der, pos, ends[len(ends)-1])
		if err != nil {
			return fmt.Errorf("%w: byte %d: %w", ErrForm, pos, err)
		}
		if der[pos]&0x20 == 0 {
			pos = end
			continue
		}
		if len(ends) > maxDepth {
			return fmt.Errorf("%w: byte %d: nested deeper than %d levels", ErrForm, pos, maxDepth)
		}
		ends = append(ends, end)
		pos = body
	}
}

// element reads one tag and length at pos and returns where the contents begin and end, at most limit.
func element(der []byte, pos, limit int) (body, end int, err error) {
	if limit-pos < 2 {
		return 0, 0, errTruncated
	}
	if err := plainTag(der[pos]); err != nil {
		return 0, 0, err
	}
	length := int(der[pos+1])
	body = pos + 2
	if length >= 0x80 {
		n := length & 0x7f
		if n == 0 {
			return 0, 0, errLength
		}
		if n > 3 || limit-body < n { // 2^24 bytes are more than maxSize
			return 0, 0, errTruncated
		}
		length = 0
		for _, c := range der[body : body+n] {
			length = length<<8 | int(c)
		}
		if length < 0x80 || length>>(8*(n-1)) == 0 {
			return 0, 0, errLength
		}
		body += n
	}
	if length > limit-body {
		return 0, 0, errTruncated
	}
	return body, body + length, nil
}

// plainTag refuses tags over several bytes, which none of the formats concerned has, and universal types in
// the form (primitive or constructed) that DER does not give them.
func plainTag(tag byte) error {
	number := tag & 0x1f
	if number == 0x1f {
		return errors.New("tag over several bytes")
	}
	if tag&0xc0 != 0 {
		return nil
	}
	constructed := tag&0x20 != 0
	if number == 0 || constructed != (number == 0x10 || number == 0x11) {
		return fmt.Errorf("tag %#02x is not DER", tag)
	}
	return nil
}
