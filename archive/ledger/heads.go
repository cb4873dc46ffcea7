package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// Head is where a ledger stands.
type Head struct {
	Number int64 // of the last commit; -1 when there is none
	Size   int64 // number of entries
	Root   tlog.Hash
	Commit [32]byte // digest of the last commit's bytes; zeros when there is none
}

// emptyHead is the head of a ledger without commits.
func emptyHead() Head { return Head{Number: -1, Root: emptyRoot} }

const headsMagic = "perenne heads v1\n"

// ErrHeads means that the file of marks is damaged. It is never taken for an empty one, because then a
// bucket that was rolled back would go unnoticed.
var ErrHeads = errors.New("file of marks is damaged: restore it from a copy, or remove it and start once with --trust-bucket-head")

// Heads is the file of marks: for each producer the head that this machine has acknowledged. It is what a
// bucket is held against at start, so it lies outside the bucket and outside every database. One process
// at a time uses it.
//
// The file is text: "perenne heads v1\n", then a line "<producer> <number> <size> <hex root> <hex digest of
// the commit>\n" for each producer, ascending, then "sha256 <hex digest of all bytes before>\n".
type Heads struct {
	// Crash is called with the label of each step of Set. Tests arm it; nil otherwise.
	Crash func(label string)

	path string

	mu     sync.Mutex
	stable map[string]Head // as the file has it
	want   map[string]Head // with what is about to be written
	asked  int64           // number of Sets so far
	done   int64           // how many of them the file holds

	writing sync.Mutex // held by the one that writes the file
}

// OpenHeads reads the file of marks; a missing file has no marks, a damaged one is ErrHeads.
func OpenHeads(path string) (*Heads, error) {
	h := &Heads{path: path, stable: map[string]Head{}, want: map[string]Head{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open marks: %w", err)
	}
	if h.stable, err = parseHeads(b); err != nil {
		return nil, fmt.Errorf("open marks %s: %w", path, err)
	}
	for p, head := range h.stable {
		h.want[p] = head
	}
	return h, nil
}

// Get returns the mark of a producer, and whether there is one.
func (h *Heads) Get(producer string) (Head, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	head, ok := h.stable[producer]
	return head, ok
}

// Set writes the mark of a producer. When it returns nil the file is durable: it was written beside,
// fsynced, renamed, and its directory fsynced. Sets that wait for each other share one writing. A mark never goes
// back, and never changes without a higher number.
func (h *Heads) Set(producer string, head Head) error {
	h.mu.Lock()
	if old, ok := h.want[producer]; ok && (head.Number < old.Number || head.Number == old.Number && head != old) {
		h.mu.Unlock()
		return fmt.Errorf("mark of %s: cannot go from commit %d to commit %d", producer, old.Number, head.Number)
	}
	h.want[producer] = head
	h.asked++
	mine := h.asked
	h.mu.Unlock()

	h.writing.Lock()
	defer h.writing.Unlock()
	h.mu.Lock()
	if h.done >= mine {
		h.mu.Unlock()
		return nil
	}
	upTo, heads := h.asked, make(map[string]Head, len(h.want))
	for p, head := range h.want {
		heads[p] = head
	}
	h.mu.Unlock()
	if err := replaceFile(h.path, formatHeads(heads), h.crash); err != nil {
		return fmt.Errorf("write marks: %w", err)
	}
	h.mu.Lock()
	h.stable, h.done = heads, upTo
	h.mu.Unlock()
	return nil
}

func (h *Heads) crash(label string) {
	if h.Crash != nil {
		h.Crash(label)
	}
}

func formatHeads(heads map[string]Head) []byte {
	var b bytes.Buffer
	b.WriteString(headsMagic)
	producers := make([]string, 0, len(heads))
	for p := range heads {
		producers = append(producers, p)
	}
	slices.Sort(producers)
	for _, p := range producers {
		h := heads[p]
		fmt.Fprintf(&b, "%s %d %d %x %x\n", p, h.Number, h.Size, h.Root[:], h.Commit[:])
	}
	fmt.Fprintf(&b, "sha256 %x\n", sha256.Sum256(b.Bytes()))
	return b.Bytes()
}

// parseHeads accepts exactly what formatHeads writes.
func parseHeads(b []byte) (map[string]Head, error) {
	heads := map[string]Head{}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 3 {
		return nil, ErrHeads
	}
	for _, line := range lines[1 : len(lines)-2] {
		f := strings.Split(line, " ")
		if len(f) != 5 || f[0] == "" || len(f[3]) != 64 || len(f[4]) != 64 {
			return nil, ErrHeads
		}
		var h Head
		_, e1 := fmt.Sscanf(f[1]+" "+f[2], "%d %d", &h.Number, &h.Size)
		_, e2 := hex.Decode(h.Root[:], []byte(f[3]))
		_, e3 := hex.Decode(h.Commit[:], []byte(f[4]))
		if errors.Join(e1, e2, e3) != nil || h.Number < -1 || h.Size < 0 {
			return nil, ErrHeads
		}
		heads[f[0]] = h
	}
	if !bytes.Equal(formatHeads(heads), b) {
		return nil, ErrHeads
	}
	return heads, nil
}

// replaceFile makes path hold b, durably: after a crash it holds either b or what it held before. step is told of each
// effect.
func replaceFile(path string, b []byte, step func(label string)) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	step("mark.written") // leaves the old marks, and a file beside them that the next Set writes over
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	step("mark.renamed") // leaves the old marks or the new ones
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// All returns the marks of all producers.
func (h *Heads) All() map[string]Head {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.stable)
}
