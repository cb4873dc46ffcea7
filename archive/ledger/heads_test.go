package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func head(n int64) Head {
	h := Head{Number: n, Size: 2 * n, Root: tlog.RecordHash([]byte{byte(n)})}
	h.Commit[0] = byte(n)
	return h
}

func TestMarksSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "heads")
	h, err := OpenHeads(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := h.Get("a"); ok {
		t.Error("a new file has a mark")
	}
	for i := range int64(5) {
		for _, p := range []string{"b", "a", "c_x901"} {
			if err := h.Set(p, head(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.Set("empty", emptyHead()); err != nil {
		t.Fatal(err)
	}
	again, err := OpenHeads(path)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]Head{"a": head(4), "b": head(4), "c_x901": head(4), "empty": emptyHead()} {
		if got, ok := again.Get(p); !ok || got != want {
			t.Errorf("%s: got %+v %v want %+v", p, got, ok, want)
		}
	}
}

func TestAMarkNeverGoesBack(t *testing.T) {
	h, err := OpenHeads(filepath.Join(t.TempDir(), "heads"))
	if err != nil {
		t.Fatal(err)
	}
	other := head(3)
	other.Commit[1] = 1
	for _, c := range []struct {
		head Head
		ok   bool
	}{{head(3), true}, {head(3), true}, {head(2), false}, {other, false}, {head(4), true}} {
		if err := h.Set("a", c.head); (err == nil) != c.ok {
			t.Errorf("set %d: got %v want success %v", c.head.Number, err, c.ok)
		}
	}
}

func TestMarksSetAtOnceAreAllWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "heads")
	h, err := OpenHeads(path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for p := range 16 {
		wg.Go(func() {
			for i := range int64(5) {
				if err := h.Set(fmt.Sprint("p", p), head(i)); err != nil {
					t.Error(err)
				}
				b, err := os.ReadFile(path)
				if err != nil {
					t.Error(err)
				}
				if got, err := parseHeads(b); err != nil || got[fmt.Sprint("p", p)].Number < i {
					t.Errorf("p%d: Set returned before %d was written: %v", p, i, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestADamagedFileOfMarksIsNeverTakenForAnother(t *testing.T) {
	good := formatHeads(map[string]Head{"a": head(1), "b": emptyHead()})
	path := filepath.Join(t.TempDir(), "heads")
	refused := func(what string, bad []byte) {
		t.Helper()
		if _, err := parseHeads(bad); !errors.Is(err, ErrHeads) {
			t.Errorf("%s: got %v want ErrHeads", what, err)
		}
	}
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		refused(fmt.Sprintf("bit %d of byte %d", i%8, i/8), bad)
	}
	for i := range good {
		refused(fmt.Sprintf("cut to %d bytes", i), good[:i])
	}
	if err := os.WriteFile(path, good[:0], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenHeads(path); !errors.Is(err, ErrHeads) {
		t.Errorf("empty file: got %v want ErrHeads", err)
	}
}

func FuzzHeads(f *testing.F) {
	f.Add(formatHeads(map[string]Head{"a": head(1), "b": emptyHead()}))
	f.Add(formatHeads(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if heads, err := parseHeads(b); err == nil && !bytes.Equal(formatHeads(heads), b) {
			t.Fatalf("%q was read but is written otherwise", b)
		}
	})
}
