package seal

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/marchesud/perenne/storage"
)

// Index knows which seal covers which entry. It is a local cache of the chain of seals: a text file with one
// line per seal, checked line by line, and made again from the bucket on any doubt. It is also a mark: it
// remembers how many seals there were.
type Index struct {
	store storage.Store
	path  string

	mu    sync.RWMutex
	spans map[string][]span // by producer, ascending
	head  Head
	file  *os.File
}

type span struct{ end, seal int64 }

// Head is the newest seal.
type Head struct {
	Number int64 // -1: there is none
	SHA256 [32]byte
	Token  [32]byte // SHA-256 of the token's DER
	Root   [32]byte
	Size   int64 // of the seal object, bytes
}

// OpenIndex loads the index in path and reads the seals that the bucket has beyond it.
func OpenIndex(ctx context.Context, store storage.Store, path string) (*Index, error) {
	x := &Index{store: store, path: path}
	if err := x.load(); err != nil {
		x.reset()
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("seal index: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("seal index: %w", err)
	}
	x.file = f
	if err := x.Refresh(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

func (x *Index) reset() {
	x.spans = map[string][]span{}
	x.head = Head{Number: -1}
}

// Close releases the file.
func (x *Index) Close() error { return x.file.Close() }

// line is how a seal stands in the file: number, digests, ends, and a check over the line before it.
func line(h Head, ranges []Range) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %x %x %x %d", h.Number, h.SHA256, h.Token, h.Root, h.Size)
	for _, r := range ranges {
		fmt.Fprintf(&b, " %s %d", r.Producer, r.End)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return b.String() + " " + hex.EncodeToString(sum[:8]) + "\n"
}

// load reads the file; any line that does not check makes the whole file worthless.
func (x *Index) load() error {
	x.reset()
	data, err := os.ReadFile(x.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	in := bufio.NewScanner(bytes.NewReader(data))
	in.Buffer(nil, maxSeal)
	for in.Scan() {
		h, ranges, err := parseLine(in.Text())
		if err != nil || h.Number != x.head.Number+1 {
			return fmt.Errorf("%s: line %d is damaged", filepath.Base(x.path), x.head.Number+2)
		}
		x.note(h, ranges)
	}
	return in.Err()
}

func parseLine(text string) (Head, []Range, error) {
	f := strings.Split(text, " ")
	if len(f) < 6 || len(f)%2 != 0 {
		return Head{}, nil, ErrForm
	}
	var h Head
	var ranges []Range
	var err error
	if h.Number, err = strconv.ParseInt(f[0], 10, 64); err != nil {
		return h, nil, err
	}
	if err := errors.Join(unhex(f[1], &h.SHA256), unhex(f[2], &h.Token), unhex(f[3], &h.Root)); err != nil {
		return h, nil, err
	}
	if h.Size, err = strconv.ParseInt(f[4], 10, 64); err != nil {
		return h, nil, err
	}
	for i := 5; i+1 < len(f)-1; i += 2 {
		end, err := strconv.ParseInt(f[i+1], 10, 64)
		if err != nil {
			return h, nil, err
		}
		ranges = append(ranges, Range{Producer: f[i], End: end})
	}
	if line(h, ranges) != text+"\n" {
		return h, nil, ErrForm
	}
	return h, ranges, nil
}

func (x *Index) note(h Head, ranges []Range) {
	x.head = h
	for _, r := range ranges {
		x.spans[r.Producer] = append(x.spans[r.Producer], span{r.End, h.Number})
	}
}

// Add notes a seal that was put or read: it must follow the head.
func (x *Index) Add(s *Seal, object []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s.Number != x.head.Number+1 {
		return nil
	}
	if s.Number > 0 && (s.Previous != x.head.SHA256 || s.PreviousToken != x.head.Token) {
		return fmt.Errorf("seal %d does not follow seal %d of this machine: the seals were rolled back or forked", s.Number, x.head.Number)
	}
	h := Head{Number: s.Number, SHA256: sha256.Sum256(object), Token: sha256.Sum256(s.Token), Root: s.Root, Size: int64(len(object))}
	if _, err := x.file.WriteString(line(h, s.Ranges)); err != nil {
		return fmt.Errorf("seal index: %w", err)
	}
	x.note(h, s.Ranges)
	return nil
}

// Refresh reads the seals beyond the head, which other daemons may have made.
func (x *Index) Refresh(ctx context.Context) error {
	for {
		s, object, err := Read(ctx, x.store, x.Head().Number+1)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := x.Add(s, object); err != nil {
			return err
		}
	}
}

// Head is the newest seal known.
func (x *Index) Head() Head {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.head
}

// End is the number of entries of a producer that are sealed.
func (x *Index) End(producer string) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if s := x.spans[producer]; len(s) > 0 {
		return s[len(s)-1].end
	}
	return 0
}

// Of is the number of the seal that covers an entry; false when none does yet.
func (x *Index) Of(producer string, entry int64) (int64, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s := x.spans[producer]
	i := sort.Search(len(s), func(i int) bool { return s[i].end > entry })
	if i == len(s) {
		return 0, false
	}
	return s[i].seal, true
}

// Read reads seal n from the bucket. storage.ErrNotFound when there is none.
func Read(ctx context.Context, store storage.Store, n int64) (*Seal, []byte, error) {
	key := Key(n)
	r, err := store.Get(ctx, key, "", 0, maxSeal+1)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", key, err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", key, err)
	}
	s, err := Parse(data)
	if err != nil {
		return nil, data, fmt.Errorf("%s: %w", key, err)
	}
	if s.Number != n {
		return nil, data, fmt.Errorf("%s: %w: it is number %d", key, ErrForm, s.Number)
	}
	return s, data, nil
}
