package seal

import (
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

	"github.com/marchesud/perenne/signing/evidence"
	"github.com/marchesud/perenne/storage"
)

// Index knows which seal covers which entry. It is a local cache of the chain of seals: a text file with one
// line per seal, each checked by itself, made again from the bucket when it is damaged. It is also a mark: it
// remembers how many seals there were. So a line is fsynced before its seal is relied upon, and a file that is
// damaged is kept aside, under its name and .damaged: while such a file lies there, Doubted says that this machine
// cannot tell whether seals are gone.
type Index struct {
	store  storage.Store
	path   string
	check  func(context.Context, *Seal) error
	leaves *leaves

	adding sync.Mutex // held by whoever adds a line; guards file and size
	file   *os.File
	size   int64

	mu      sync.RWMutex
	spans   map[string][]span // by producer, ascending
	head    Head
	changed chan struct{} // closed and replaced whenever head moves
	torn    int64         // number of the seal whose line a crash has cut; -1: none
	doubted string
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

// OpenIndex loads the index in path, and the leaves of seals in the folder "leaves" beside it; Refresh reads the
// seals that the bucket has beyond it. check judges a seal read from the bucket, whose form, chain and place are
// checked already: its token, and that its root is that of the entries it covers.
func OpenIndex(store storage.Store, path string, check func(context.Context, *Seal) error) (*Index, error) {
	x := &Index{store: store, path: path, check: check, changed: make(chan struct{})}
	if err := x.open(); err != nil {
		return nil, fmt.Errorf("seal index: %w", err)
	}
	return x, nil
}

func (x *Index) open() error {
	older, err := os.ReadDir(filepath.Dir(x.path))
	if err != nil {
		return err
	}
	for _, e := range older {
		if strings.HasPrefix(e.Name(), filepath.Base(x.path)+asideSuffix) {
			x.doubted = "the mark of the seals was damaged: " + e.Name()
		}
	}
	if err := x.load(); err != nil {
		if !errors.Is(err, errIndex) {
			return err
		}
		x.reset()
		aside := x.aside()
		if err := os.Rename(x.path, aside); err != nil {
			return err
		}
		x.doubted = fmt.Sprintf("the mark of the seals was damaged: %s: %v", filepath.Base(aside), err)
	}
	if x.file, err = os.OpenFile(x.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return err
	}
	err = errors.Join(x.file.Truncate(x.size), x.file.Sync(), syncDir(filepath.Dir(x.path)))
	if err == nil {
		x.leaves, err = openLeaves(filepath.Join(filepath.Dir(x.path), "leaves"))
	}
	if err != nil {
		return errors.Join(err, x.file.Close())
	}
	return nil
}

// errIndex means that the file is not what was written.
var errIndex = errors.New("damaged")

const asideSuffix = ".damaged"

// aside is a name that is free for a damaged file.
func (x *Index) aside() string {
	name := x.path + asideSuffix
	for n := 2; ; n++ {
		if _, err := os.Lstat(name); err != nil {
			return name
		}
		name = fmt.Sprintf("%s%s.%d", x.path, asideSuffix, n)
	}
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (x *Index) reset() {
	x.spans = map[string][]span{}
	x.head = Head{Number: -1}
	x.torn = -1
	x.size = 0
}

// Doubted says why the number of seals there were is not known for sure; empty when it is.
func (x *Index) Doubted() string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.doubted
}

// Close releases the files.
func (x *Index) Close() error { return errors.Join(x.file.Close(), x.leaves.close()) }

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

// load reads the file. A last line without its end is what a crash leaves before its seal was relied upon, and is
// cut off alone; anything else that is not as written is errIndex.
func (x *Index) load() error {
	x.reset()
	data, err := os.ReadFile(x.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for len(data) > 0 {
		text, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return x.cut(text)
		}
		h, ranges, err := parseLine(string(text))
		if err != nil || h.Number != x.head.Number+1 {
			return fmt.Errorf("%s: line %d is %w", filepath.Base(x.path), x.head.Number+2, errIndex)
		}
		x.note(h, ranges)
		x.size += int64(len(text)) + 1
		data = rest
	}
	return nil
}

// cut takes the rest of a file for the beginning of its next line, or for room that a crash left unwritten.
func (x *Index) cut(text []byte) error {
	begin := fmt.Appendf(nil, "%d ", x.head.Number+1)
	if !bytes.HasPrefix(text, begin) && !bytes.HasPrefix(begin, text) && len(bytes.Trim(text, "\x00")) > 0 {
		return fmt.Errorf("%s: its last line is %w", filepath.Base(x.path), errIndex)
	}
	x.torn = x.head.Number + 1
	return nil
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

// Add notes a seal that was put or read: it must follow the head. When it returns nil the line is durable, and
// whoever waits on Changed has been told.
func (x *Index) Add(s *Seal, object []byte) error {
	x.adding.Lock()
	defer x.adding.Unlock()
	if s.Number != x.Head().Number+1 {
		return nil
	}
	if err := x.follows(s); err != nil {
		return err
	}
	h := Head{Number: s.Number, SHA256: sha256.Sum256(object), Token: sha256.Sum256(s.Token), Root: s.Root, Size: int64(len(object))}
	text := line(h, s.Ranges)
	_, err := x.file.WriteString(text)
	if err == nil {
		err = x.file.Sync()
	}
	if err != nil { // the next line must not go behind half of this one
		return fmt.Errorf("seal index: %w", errors.Join(err, x.file.Truncate(x.size)))
	}
	x.size += int64(len(text))
	x.mu.Lock()
	defer x.mu.Unlock()
	x.note(h, s.Ranges)
	close(x.changed)
	x.changed = make(chan struct{})
	return nil
}

// follows holds a seal against the chain so far: it names the head, and its ranges go on where others ended.
func (x *Index) follows(s *Seal) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if s.Number > 0 && (s.Previous != x.head.SHA256 || s.PreviousToken != x.head.Token) {
		return fmt.Errorf("seal %d does not follow seal %d of this machine: the seals were rolled back or forked", s.Number, x.head.Number)
	}
	for _, r := range s.Ranges {
		if end := x.end(r.Producer); r.First != end {
			return fmt.Errorf("seal %d covers %s from entry %d, the seals before it end at %d", s.Number, r.Producer, r.First, end)
		}
	}
	return nil
}

// Changed is closed when the next seal is noted, whoever made it.
func (x *Index) Changed() <-chan struct{} {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.changed
}

// Refresh reads the seals beyond the head, which other daemons may have made. An object that is no seal of ours
// is an error and is not noted: whoever can write the bucket cannot make it believed.
func (x *Index) Refresh(ctx context.Context) error {
	for {
		n := x.Head().Number + 1
		s, object, err := Read(ctx, x.store, n)
		if errors.Is(err, storage.ErrNotFound) {
			return x.missed(n)
		}
		if err != nil {
			return err
		}
		if err := x.follows(s); err != nil {
			if x.Head().Number >= n { // noted meanwhile, by the sealer or for another receipt
				continue
			}
			return err
		}
		err = x.check(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("%s is not a seal of this archive: run perenne audit: %w", Key(s.Number), err)
		}
		if err := x.Add(s, object); err != nil {
			return err
		}
	}
}

// missed is told that the bucket has no seal n. A line is begun only for a seal that the bucket had: when its
// seal is not there any more, that is remembered as a damaged file would be.
func (x *Index) missed(n int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	torn := x.torn
	x.torn = -1
	if torn < n {
		return nil
	}
	x.doubted = fmt.Sprintf("seal %d was about to be noted and is gone", torn)
	if err := os.WriteFile(x.aside(), []byte(x.doubted+"\n"), 0o644); err != nil {
		return fmt.Errorf("seal index: %w", err)
	}
	return syncDir(filepath.Dir(x.path))
}

// Keep keeps the leaves of a seal, in the order of the tree, so that Kept finds them. Nothing is lost when they
// cannot be kept.
func (x *Index) Keep(n int64, leaves [][32]byte) error { return x.leaves.put(n, leaves) }

// Kept is the tree of a seal from leaves kept on this machine; nil when there are none whose root is the seal's.
func (x *Index) Kept(s *Seal) *evidence.Tree {
	leaves := x.leaves.get(s.Number, s.Leaves)
	if leaves == nil {
		return nil
	}
	tree, err := s.Over(leaves)
	if err != nil {
		return nil
	}
	return tree
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
	return x.end(producer)
}

func (x *Index) end(producer string) int64 {
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
