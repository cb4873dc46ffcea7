package signing

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestScanAcceptsOnlyDER(t *testing.T) {
	deep := func(n int) []byte {
		der := []byte{5, 0}
		for range n {
			der = append([]byte{0x30, byte(len(der))}, der...)
		}
		return der
	}
	wide := func(n int) []byte {
		body := bytes.Repeat([]byte{5, 0}, n)
		return append([]byte{0x30, 0x82, byte(len(body) >> 8), byte(len(body))}, body...)
	}
	for _, c := range []struct {
		name string
		der  []byte
		ok   bool
	}{
		{"sequence", []byte{0x30, 3, 2, 1, 5}, true},
		{"empty sequence", []byte{0x30, 0}, true},
		{"empty sequences side by side", []byte{0x30, 4, 0x30, 0, 0x30, 0}, true},
		{"one primitive", []byte{5, 0}, true},
		{"nothing", nil, false},
		{"tag alone", []byte{0x30}, false},
		{"second element", []byte{5, 0, 5, 0}, false},
		{"byte behind", []byte{0x30, 0, 0}, false},
		{"shorter than its length", []byte{0x30, 3, 2, 1}, false},
		{"longer than its parent", []byte{0x30, 3, 2, 2, 5}, false},
		{"indefinite", []byte{0x30, 0x80, 0, 0}, false},
		{"indefinite primitive", []byte{0x04, 0x80, 0, 0}, false},
		{"end of contents", []byte{0x30, 2, 0, 0}, false},
		{"long form of a short length", []byte{0x30, 0x81, 3, 2, 1, 5}, false},
		{"zero-padded length", append([]byte{4, 0x82, 0, 0x80}, make([]byte, 0x80)...), false},
		{"length of five octets", []byte{4, 0x85, 0, 0, 0, 0, 0}, false},
		{"length that overflows", []byte{4, 0x84, 0xff, 0xff, 0xff, 0xff}, false},
		{"length cut off", []byte{0x30, 0x84, 1}, false},
		{"tag of two bytes", []byte{0x1f, 0x80, 0}, false},
		{"constructed octets", []byte{0x24, 2, 4, 0}, false},
		{"primitive sequence", []byte{0x10, 0}, false},
		{"boolean 1", []byte{1, 1, 1}, false},
		{"padded integer", []byte{2, 2, 0, 5}, false},
		{"padded negative integer", []byte{2, 2, 0xff, 0x85}, false},
		{"integer that needs its zero", []byte{2, 2, 0, 0x85}, true},
		{"empty integer", []byte{2, 0}, false},
		{"bits with padding set", []byte{3, 2, 1, 1}, false},
		{"bits with padding clear", []byte{3, 2, 1, 2}, true},
		{"bits, 8 unused", []byte{3, 2, 8, 0}, false},
		{"null with a value", []byte{5, 1, 0}, false},
		{"padded identifier", []byte{6, 2, 0x80, 1}, false},
		{"identifier cut off", []byte{6, 1, 0x81}, false},
		{"31 levels and a leaf", deep(31), true},
		{"32 levels and a leaf", deep(32), true},
		{"33 levels and a leaf", deep(33), false},
		{"as many elements as allowed", wide(maxElements - 1), true},
		{"one element more", wide(maxElements), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := scan(c.der)
			if (err == nil) != c.ok {
				t.Errorf("got %v, want accepted: %v", err, c.ok)
			}
			if err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}

func TestBombsAreRefusedAtOnce(t *testing.T) {
	nested := make([]byte, 0, 32<<20)
	for left := 32<<20 - 6; len(nested) < 32<<20-6; left -= 6 {
		nested = append(nested, 0x30, 0x84, byte(left>>24), byte(left>>16), byte(left>>8), byte(left))
	}
	fits := make([]byte, 0, maxSize)
	for left := maxSize - 4; left > 1<<16; left -= 5 {
		fits = append(fits, 0x30, 0x83, byte(left>>16), byte(left>>8), byte(left))
	}
	fits = append(fits, make([]byte, maxSize-len(fits))...)
	trust := NewTrust(nil, nil)
	for name, bomb := range map[string][]byte{
		"5 MB of 30 80":             bytes.Repeat([]byte{0x30, 0x80}, 5<<19),
		"32 MB of nested sequences": nested,
		"30 80 within the size":     bytes.Repeat([]byte{0x30, 0x80}, maxSize/2),
		"nested within the size":    fits,
	} {
		var parse, token, signature error
		fastest := time.Hour
		for range 5 { // a busy machine may stop us once
			start := time.Now()
			_, _, parse = ParseToken(bomb)
			_, token = trust.CheckToken(bomb, [32]byte{})
			_, signature = trust.CheckSignature(bomb, bomb, start)
			fastest = min(fastest, time.Since(start))
		}
		if fastest > 20*time.Millisecond {
			t.Errorf("%s: refused after %s, want at once", name, fastest)
		}
		for _, err := range []error{parse, token, signature} {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: got %v, want ErrInvalid", name, err)
			}
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte{0x30, 3, 2, 1, 5})
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Add([]byte{0x1f, 0x80})
	f.Add([]byte{0x30, 0x84, 1})
	f.Fuzz(func(t *testing.T, der []byte) {
		if scan(der) != nil {
			return
		}
		if depth := deepest(der, 0); depth > maxDepth {
			t.Errorf("accepted %d levels", depth)
		}
		for cut := 1; cut < min(len(der), 16); cut++ {
			if scan(der[:len(der)-cut]) == nil {
				t.Errorf("accepted without its last %d bytes", cut)
			}
		}
	})
}

// deepest measures nesting by recursion, as the parsers behind the scan do it.
func deepest(der []byte, level int) int {
	most := level
	for len(der) > 0 {
		tag, body, end, err := scanHeader(der, 0, len(der))
		if err != nil {
			return most
		}
		if tag&0x20 != 0 {
			most = max(most, deepest(der[body:end], level+1))
		}
		der = der[end:]
	}
	return most
}
