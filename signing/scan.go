package signing

// Limits of what is scanned. A token of a qualified authority has some 6 KiB, 12 levels and 300 elements.
const (
	maxSize     = 256 << 10
	maxDepth    = 32
	maxElements = 8192
)

// Universal tags that the scan looks into (X.690).
const (
	tagBoolean   = 0x01
	tagInteger   = 0x02
	tagBitString = 0x03
	tagNull      = 0x05
	tagOID       = 0x06
	tagSequence  = 0x30
	tagSet       = 0x31
)

// scan walks der once, without recursion and without building anything, and returns ErrInvalid unless it is
// exactly one DER element within the limits. After it a recursive parser is safe on the same bytes.
func scan(der []byte) error {
	if len(der) > maxSize {
		return invalid("%d bytes, more than %d", len(der), maxSize)
	}
	var ends [maxDepth + 1]int
	ends[0] = len(der)
	depth, elements := 0, 0
	for pos := 0; ; {
		for depth > 0 && pos == ends[depth] {
			depth--
		}
		if depth == 0 && elements > 0 {
			if pos != len(der) {
				return invalid("%d bytes behind the end", len(der)-pos)
			}
			return nil
		}
		if elements++; elements > maxElements {
			return invalid("more than %d elements", maxElements)
		}
		start := pos
		tag, body, end, err := scanHeader(der, pos, ends[depth])
		if err != nil {
			return err
		}
		if tag&0x20 == 0 {
			if err := scanPrimitive(tag, der[body:end], start); err != nil {
				return err
			}
			pos = end
			continue
		}
		if tag < 0x40 && tag != tagSequence && tag != tagSet {
			return invalid("tag %#02x constructed at byte %d", tag, start)
		}
		if depth++; depth > maxDepth {
			return invalid("nested deeper than %d levels", maxDepth)
		}
		ends[depth] = end
		pos = body
	}
}

// scanHeader reads tag and length at pos and returns where the value starts and ends, which is at most limit.
func scanHeader(der []byte, pos, limit int) (tag byte, body, end int, err error) {
	if limit-pos < 2 {
		return 0, 0, 0, invalid("cut off at byte %d", pos)
	}
	tag = der[pos]
	if tag&0x1f == 0x1f || tag == 0 {
		return 0, 0, 0, invalid("tag %#02x at byte %d", tag, pos)
	}
	n := int(der[pos+1])
	body = pos + 2
	switch {
	case n == 0x80:
		return 0, 0, 0, invalid("indefinite length at byte %d: BER, not DER", pos)
	case n > 0x80:
		octets := n & 0x7f
		if octets > 4 || octets > limit-body {
			return 0, 0, 0, invalid("length out of bounds at byte %d", pos)
		}
		n = 0
		for _, b := range der[body : body+octets] {
			n = n<<8 | int(b)
		}
		if n < 0x80 || der[body] == 0 {
			return 0, 0, 0, invalid("length not minimal at byte %d: BER, not DER", pos)
		}
		body += octets
	}
	if n > limit-body {
		return 0, 0, 0, invalid("length out of bounds at byte %d", pos)
	}
	return tag, body, body + n, nil
}

// scanPrimitive holds the value of a primitive element to its only DER spelling. Strings and what has a
// tag of its context are left to those who know what they should be.
func scanPrimitive(tag byte, value []byte, at int) error {
	ok := true
	switch tag {
	case tagBoolean:
		ok = len(value) == 1 && (value[0] == 0 || value[0] == 0xff)
	case tagInteger:
		ok = minimalInteger(value)
	case tagBitString:
		ok = exactBitString(value)
	case tagNull:
		ok = len(value) == 0
	case tagOID:
		ok = minimalOID(value)
	case tagSequence &^ 0x20, tagSet &^ 0x20:
		ok = false
	}
	if !ok {
		return invalid("value of tag %#02x at byte %d is not DER", tag, at)
	}
	return nil
}

func minimalInteger(value []byte) bool {
	if len(value) < 2 {
		return len(value) == 1
	}
	padded := value[0] == 0 && value[1] < 0x80 || value[0] == 0xff && value[1] >= 0x80
	return !padded
}

func exactBitString(value []byte) bool {
	if len(value) == 0 || value[0] > 7 {
		return false
	}
	if len(value) == 1 {
		return value[0] == 0
	}
	return value[len(value)-1]&(1<<value[0]-1) == 0
}

func minimalOID(value []byte) bool {
	first := true
	for _, b := range value {
		if first && b == 0x80 {
			return false
		}
		first = b < 0x80
	}
	return len(value) > 0 && first
}
