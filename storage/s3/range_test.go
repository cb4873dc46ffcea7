package s3

import "testing"

// FuzzContentRange: whatever a server says of a range, what is read of it is sound.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/10", "bytes */10", "bytes 9-5/10", "bytes 0-99999999999999999999/1", "0-1/2", "bytes 1-2", "", "bytes -1-2/3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, size, ok := contentRange(s)
		if ok && (first < 0 || last < first || size < 0) {
			t.Errorf("%q: got %d-%d/%d", s, first, last, size)
		}
	})
}

func TestContentRange(t *testing.T) {
	if first, last, size, ok := contentRange("bytes 5-9/10"); first != 5 || last != 9 || size != 10 || !ok {
		t.Errorf("got %d-%d/%d, %v", first, last, size, ok)
	}
	for _, s := range []string{"", "bytes 5-9", "bytes 9-5/10", "bytes a-b/c", "bytes 5-9/*", "bytes 0-9999999999999999999/1"} {
		if _, _, _, ok := contentRange(s); ok {
			t.Errorf("%q: got no error", s)
		}
	}
}
