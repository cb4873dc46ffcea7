package evidence

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// seeds are the golden records, and the public ones where they are at hand.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	var out [][]byte
	for _, pattern := range []string{"testdata/*.ers", public + "/*.ers", public + "/*.er"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			out = append(out, b)
		}
	}
	return out
}

// Whatever parses is written again as it was, has tokens, and is refused for one of two reasons only.
func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := Parse(der)
		if err != nil {
			if !errors.Is(err, ErrForm) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("got %v, want ErrForm or ErrUnsupported", err)
			}
			return
		}
		again, err := r.encode()
		if err != nil || !bytes.Equal(again, der) {
			t.Errorf("written again: got %x, %v, want %x", again, err, der)
		}
		if n := len(r.Tokens()); n == 0 || n > maxStamps {
			t.Errorf("got %d tokens", n)
		}
	})
}

// Under the check of one seal only the records that Derive gives for it are accepted, byte for byte.
func FuzzVerify(f *testing.F) {
	s := newSeal(f, numbered(11), 1)
	ours := map[string]bool{}
	for i, leaf := range s.leaves {
		der := s.derive(f, leaf)
		ours[string(der)] = true
		f.Add(der, i)
	}
	for _, b := range seeds(f) {
		f.Add(b, 0)
	}
	f.Fuzz(func(t *testing.T, der []byte, i int) {
		leaf := s.leaves[uint(i)%uint(len(s.leaves))]
		r, err := Parse(der)
		if err != nil {
			return
		}
		if _, err := r.VerifyData(Hashes(bytes.NewReader(der), int64(len(der))), unsigned); err == nil {
			t.Error("a record that covers itself")
		}
		if _, err := r.Verify(leaf, s.check); err != nil {
			return
		}
		if err := r.Minimal(leaf); err == nil && !ours[string(der)] {
			t.Errorf("accepted for leaf %x: %x", leaf, der)
		}
	})
}
