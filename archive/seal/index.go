package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
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
// line per seal, and per void number before one, each checked by itself, made again from the bucket when it is damaged. It is also a mark: it
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
	noted   [][32]byte        // digest of the object of each number up to the head, of void ones too
	voids   map[int64]bool
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
	x.spans, x.noted, x.voids = map[string][]span{}, nil, map[int64]bool{}
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

// voidLine is how a void number stands in the file, before the seal that says so.
func voidLine(v Void) string {
	text := fmt.Sprintf("%d %x void", v.Number, v.SHA256)
	sum := sha256.Sum256([]byte(text))
	return text + " " + hex.EncodeToString(sum[:8]) + "\n"
}

func parseVoidLine(text string) (Void, bool) {
	f := strings.Split(text, " ")
	if len(f) != 4 {
		return Void{}, false
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	v := Void{Number: n}
	if errors.Join(err, unhex(f[1], &v.SHA256)) != nil {
		return Void{}, false
	}
	return v, voidLine(v) == text+"\n"
}

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
	next, at := int64(0), int64(0)
	var voids []Void // whose seal is still to come
	for ; len(data) > 0; next++ {
		text, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return x.cut(text, next)
		}
		at += int64(len(text)) + 1
		data = rest
		if v, is := parseVoidLine(string(text)); is && v.Number == next && next > 0 {
			voids = append(voids, v)
			continue
		}
		h, ranges, err := parseLine(string(text))
		if err != nil || h.Number != next {
			return fmt.Errorf("%s: line %d is %w", filepath.Base(x.path), next+1, errIndex)
		}
		x.note(h, ranges, voids)
		x.size, voids = at, nil
	}
	if x.size < at {
		x.torn = next
	}
	return nil
}

// cut takes the rest of a file for the beginning of line next, or for room that a crash left unwritten.
func (x *Index) cut(text []byte, next int64) error {
	begin := fmt.Appendf(nil, "%d ", next)
	if !bytes.HasPrefix(text, begin) && !bytes.HasPrefix(begin, text) && len(bytes.Trim(text, "\x00")) > 0 {
		return fmt.Errorf("%s: its last line is %w", filepath.Base(x.path), errIndex)
	}
	x.torn = next
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

func (x *Index) note(h Head, ranges []Range, voids []Void) {
	for _, v := range voids {
		x.noted, x.voids[v.Number] = append(x.noted, v.SHA256), true
	}
	x.noted, x.head = append(x.noted, h.SHA256), h
	for _, r := range ranges {
		x.spans[r.Producer] = append(x.spans[r.Producer], span{r.End, h.Number})
	}
}

// Add notes a seal that was put or read: it must follow the head. When it returns nil the line is durable, and
// whoever waits on Changed has been told.
func (x *Index) Add(s *Seal, object []byte) error {
	x.adding.Lock()
	defer x.adding.Unlock()
	if x.Head().Number != s.After() {
		return nil
	}
	if err := x.follows(s); err != nil {
		return err
	}
	h := Head{Number: s.Number, SHA256: sha256.Sum256(object), Token: sha256.Sum256(s.Token), Root: s.Root, Size: int64(len(object))}
	text := ""
	for _, v := range s.Voids {
		text += voidLine(v)
	}
	text += line(h, s.Ranges)
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
	x.note(h, s.Ranges, s.Voids)
	close(x.changed)
	x.changed = make(chan struct{})
	return nil
}

// follows holds a seal against the chain so far: it names the head, and its ranges go on where others ended.
func (x *Index) follows(s *Seal) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if s.After() != x.head.Number || s.Number > 0 && (s.Previous != x.head.SHA256 || s.PreviousToken != x.head.Token) {
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

// ahead is how many seals are read and checked at a time, where there is more than one.
const ahead = 4

// Refresh reads the seals beyond the head, which other daemons may have made. An object that is no seal of ours
// is an error and is not noted: whoever can write the bucket cannot make it believed.
func (x *Index) Refresh(ctx context.Context) error { return x.refresh(ctx, false, -1) }

// Reach is Refresh for whoever knows that seal n was made, and needs none behind it.
func (x *Index) Reach(ctx context.Context, n int64) error { return x.refresh(ctx, false, n) }

// Settle is Refresh for whoever is about to make the next seal: it looks also under delete markers, since a store
// may let a second seal be made over one. It ends where nothing lies: whoever begins to make seals looks once whether
// something lies further on ([Index.LookOn]).
func (x *Index) Settle(ctx context.Context) error { return x.refresh(ctx, true, -1) }

// refresh reads on, up to number to where that is not negative. Behind a seal there are often more: then several are
// looked at together, since seals that cannot be read as fast as others make them are never caught up with.
func (x *Index) refresh(ctx context.Context, hidden bool, to int64) error {
	for window := 1; ; window = min(2*window, ahead) {
		next := x.Head().Number + 1
		if to >= 0 && next > to {
			return nil
		}
		for i, l := range x.look(ctx, next, window, hidden) {
			n := next + int64(i)
			if x.Head().Number >= n { // void, or noted meanwhile by the sealer or for another receipt
				continue
			}
			s, object, err := l.seal, l.object, l.err
			if err == nil && i > 0 {
				err = x.fits(ctx, s, l.bad)
			}
			if err != nil && i > 0 && (hidden || !errors.Is(err, storage.ErrNotFound)) {
				s, object, err = x.following(ctx, n, hidden)
			}
			if errors.Is(err, storage.ErrNotFound) {
				return x.missed(n)
			}
			if err != nil && ctx.Err() == nil && x.Head().Number >= n { // noted meanwhile
				continue
			}
			if err != nil {
				return err
			}
			if err := x.Add(s, object); err != nil {
				return err
			}
		}
	}
}

// looked is what was found of a seal: of the first of a window what following says, of the others the newest version of
// the key.
type looked struct {
	seal   *Seal
	object []byte
	err    error // it could not be read, or is no seal
	bad    error // what check said of it
}

// look reads and checks seals that may be there, together.
func (x *Index) look(ctx context.Context, from int64, window int, hidden bool) []looked {
	seals := make([]looked, window)
	var reading sync.WaitGroup
	reading.Go(func() {
		l := &seals[0]
		l.seal, l.object, l.err = x.following(ctx, from, hidden)
	})
	for i := 1; i < window; i++ {
		reading.Go(func() {
			l := &seals[i]
			l.seal, l.object, l.err = readVersion(ctx, x.store, from+int64(i), "", func(*Seal, []byte) error { return nil })
			if l.err == nil {
				l.bad = x.check(ctx, l.seal)
			}
		})
	}
	reading.Wait()
	return seals
}

// fits tells whether a seal follows the head and is believed, given what check said of it.
func (x *Index) fits(ctx context.Context, s *Seal, bad error) error {
	if err := x.follows(s); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if bad != nil {
		return fmt.Errorf("%s is not a seal of this archive: run perenne audit; where it cannot be moved away, perenne seals void: %w", Key(s.Number), bad)
	}
	return nil
}

// following reads the seal that follows the head, behind void numbers too, and under whatever lies over it. That there is
// none is said at once, unless hidden asks to look under a delete marker; a marker over nothing is an error then.
func (x *Index) following(ctx context.Context, n int64, hidden bool) (*Seal, []byte, error) {
	fits, stands := x.judges(ctx)
	// Both are asked at once: mostly there is nothing, or a seal of another daemon's that this one has to catch up with.
	var nothing error
	var looking sync.WaitGroup
	if hidden {
		looking.Go(func() { _, nothing = storage.History(ctx, x.store, Key(n)) })
	}
	s, object, err := readVersion(ctx, x.store, n, "", fits)
	looking.Wait()
	switch {
	case err == nil, ctx.Err() != nil:
		return s, object, err
	case object != nil, !errors.Is(err, storage.ErrNotFound):
	case !hidden:
		return nil, nil, err
	case nothing != nil:
		return nil, nil, nothing
	default:
		err = fmt.Errorf("%s: somebody has deleted it, or has put a delete marker where the next seal goes: run perenne audit", Key(n))
	}
	s, object, other := Read(ctx, x.store, n, fits)
	if other != nil {
		s, object, other = Behind(ctx, x.store, n, fits, stands)
	}
	if other != nil {
		return nil, nil, err
	}
	return s, object, nil
}

// judges are what Behind asks of a seal: whether it is the next one here, and whether it is one at all.
func (x *Index) judges(ctx context.Context) (fits func(*Seal, []byte) error, stands func(*Seal) bool) {
	fits = func(s *Seal, _ []byte) error {
		if err := x.follows(s); err != nil {
			return err
		}
		return x.fits(ctx, s, x.check(ctx, s))
	}
	return fits, func(s *Seal) bool { return x.check(ctx, s) == nil }
}

// LookOn notes the seal behind void numbers under the first of which nothing lies any more, where Settle ends; false when
// there is none. It lists: it is for whoever knows that something lies further on.
func (x *Index) LookOn(ctx context.Context) (bool, error) {
	fits, stands := x.judges(ctx)
	s, object, err := Behind(ctx, x.store, x.Head().Number+1, fits, stands)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, x.Add(s, object)
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

// All yields the digest of the object of each seal that this machine has seen, and of what lies under each void number:
// for when the bucket is in doubt.
func (x *Index) All() iter.Seq2[int64, [32]byte] {
	return func(yield func(int64, [32]byte) bool) {
		x.mu.RLock()
		noted := x.noted // what is appended later lies behind it
		x.mu.RUnlock()
		for n, sum := range noted {
			if !yield(int64(n), sum) {
				return
			}
		}
	}
}

// Noted is the digest of the object of seal n, which this machine has seen, or of what lies there when n is void.
func (x *Index) Noted(n int64) (sum [32]byte, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if n < 0 || n >= int64(len(x.noted)) {
		return sum, false
	}
	return x.noted[n], true
}

// Void reports whether a number is one that no seal has.
func (x *Index) Void(n int64) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.voids[n]
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

// Read reads seal n from the bucket: of several versions the first, newest first, that is a seal of this number and
// that fits, when not nil, has nothing against. Where none is, the error is what is wrong with the newest, or that one of
// them was not given, which may be the seal: then there is no object; storage.ErrNotFound when there is none but delete
// markers.
func Read(ctx context.Context, store storage.Store, n int64, fits func(*Seal, []byte) error) (*Seal, []byte, error) {
	s, object, why := readVersion(ctx, store, n, "", fits)
	if why == nil {
		return s, object, nil
	}
	for v, err := range storage.Versions(ctx, store, Key(n)) {
		switch {
		case errors.Is(err, storage.ErrNotFound):
			return nil, object, why
		case err != nil:
			return nil, nil, fmt.Errorf("read %s: %w", Key(n), err)
		}
		s, data, err := readVersion(ctx, store, n, v.ID, fits)
		if err == nil {
			return s, data, nil
		}
		if data == nil && !errors.Is(err, storage.ErrNotFound) {
			object, why = nil, err
		}
	}
	return nil, object, why
}

// Behind reads the seal behind void numbers, of which n is the first; storage.ErrNotFound when there is none. fits is as
// for Read. What lay under void numbers may be gone: behind the first number under which nothing lies those are read that
// are listed.
//
// stands tells of a seal whether somebody may rest on it. At one that goes on from n, or from a later one, the search
// ends: number n is, or was, a seal's. Else each seal that is missing from a long chain would cost hundreds of requests.
func Behind(ctx context.Context, store storage.Store, n int64, fits func(*Seal, []byte) error, stands func(*Seal) bool) (*Seal, []byte, error) {
	none, ended := fmt.Errorf("a seal behind %d: %w", n, storage.ErrNotFound), false
	first := func(s *Seal, object []byte) error {
		if s.After() != n-1 {
			ended = ended || s.After() >= n && stands(s)
			return fmt.Errorf("%s: it does not call number %d void", Key(s.Number), n)
		}
		return fits(s, object)
	}
	// look reads what lies under one number, and tells whether the search is over with it.
	look := func(at int64) (s *Seal, object []byte, over bool, err error) {
		s, object, err = Read(ctx, store, at, first)
		switch {
		case err == nil, object == nil && !errors.Is(err, storage.ErrNotFound):
			return s, object, true, err
		case ended:
			return nil, nil, true, none
		}
		return nil, object, false, nil
	}
	at := n + 1
	for ; at <= n+MaxVoids; at++ {
		s, object, over, err := look(at)
		if over {
			return s, object, err
		}
		if object == nil {
			break
		}
	}
	if at > n+MaxVoids {
		return nil, nil, none
	}
	for v, err := range store.List(ctx, "evidence/", Key(at)) {
		if err != nil {
			return nil, nil, fmt.Errorf("list evidence/: %w", err)
		}
		number, is := ParseKey(v.Key)
		if !is || number <= at { // of one number there may be several versions
			continue
		}
		if at = number; at > n+MaxVoids {
			break
		}
		if s, object, over, err := look(at); over {
			return s, object, err
		}
	}
	return nil, nil, none
}

// readVersion reads one version. The object is returned whenever it could be read.
func readVersion(ctx context.Context, store storage.Store, n int64, version string, fits func(*Seal, []byte) error) (*Seal, []byte, error) {
	key := Key(n)
	r, err := store.Get(ctx, key, version, 0, maxSeal+1)
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
	if fits != nil {
		err = fits(s, data)
	}
	return s, data, err
}
