package spool

import (
	"errors"
	"strings"
	"testing"

	"github.com/marchesud/perenne/storage"
)

// TestWhatIsAdoptedIsHeld loses an object that was adopted; other bytes than announced are not.
func TestWhatIsAdoptedIsHeld(t *testing.T) {
	const key = "p/packages/aa/a"
	b := newBench(t)
	b.mem.Plant(key, []byte("theirs"))
	if err := b.Adopt(t.Context(), key, strings.NewReader("others"), options("theirs")); !errors.Is(err, storage.ErrDigest) {
		t.Errorf("other bytes: got %v, want ErrDigest", err)
	}
	b.wantHeld(0)
	for range 2 { // twice is once
		if err := b.Adopt(t.Context(), key, strings.NewReader("theirs"), options("theirs")); err != nil {
			t.Fatal(err)
		}
		b.wantHeld(1)
	}
	b.mem.Forget(key)
	b.reopen()
	if got, err := get(b, key); got != "theirs" || err != nil {
		t.Errorf("got %q, %v after the loss, want it put again", got, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
