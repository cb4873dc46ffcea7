package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
)

// chunk is how much is read from a caller between two looks at its context.
const chunk = 1 << 20

// Mem is a versioned, locking store in memory that polices its caller. It behaves as the strictest S3 does:
// a Put is refused while a newest version exists, succeeds over a delete marker, and its bytes are compared
// with the digest announced. Restore adds a version; Erase removes versions for good; no clock runs but Now.
//
// It fails the test that made it when its caller does what Perenne may never do:
//   - offers a key outside the alphabet or a directory of another, or bytes that are not what it announced;
//   - gives a key that was acknowledged other bytes, by Restore or, after the object was lost, by Put;
//   - replaces an object that is not derived, or asks for a lock on a derived one;
//   - asks for no lock where RequireRetain holds;
//   - erases without saying why, or leaves a reader or a Staged open at the end of the test.
//
// The fields are set before the store is used. All methods may be called concurrently.
type Mem struct {
	// Lenient leaves the caller unpoliced: the errors are the same, the test does not fail for them.
	Lenient bool
	// RequireRetain asks every Put of an object that is not Replaceable for a RetainUntil.
	RequireRetain bool
	// Now is the clock that locks are held against; nil stands still before any lock's end.
	Now func() time.Time

	// OnPut, when set, is asked on every Put, Restore and Replace whose arguments were found right. apply
	// says whether the object is written, err what the caller is told: (true, nil) is an honest store,
	// (false, err) failed, (true, err) failed but was written, (false, nil) acknowledges what it never wrote.
	OnPut func(key string) (apply bool, err error)
	// OnGet is asked on every Get: (true, nil) is an honest store, (false, nil) says that an object is not
	// there, a non-nil err is told to the caller.
	OnGet func(key string) (apply bool, err error)
	// OnStat and OnList make Stat and List fail.
	OnStat func(key string) error
	OnList func(prefix string) error

	t testing.TB

	mu      sync.Mutex
	ended   bool // the test is over: nothing may be reported to it any more
	objects map[string][]version
	keys    []string // of objects, in order
	acked   map[string][32]byte
	serial  int
	open    map[string]int // what the caller has not closed yet, by description
}

// version is one version or delete marker. Its data is never written to: damage replaces the slice.
type version struct {
	id     string
	data   []byte
	marker bool
	rotten bool // Get fails
	retain time.Time
	hold   bool
}

var (
	_ storage.Store     = (*Mem)(nil)
	_ storage.Locker    = (*Mem)(nil)
	_ storage.Eraser    = (*Mem)(nil)
	_ storage.Restorer  = (*Mem)(nil)
	_ storage.Replacer  = (*Mem)(nil)
	_ storage.Stager    = (*Mem)(nil)
	_ storage.Protector = (*Mem)(nil)
)

// NewMem returns an empty Mem that reports what its caller does wrong to t.
func NewMem(t testing.TB) *Mem {
	m := &Mem{t: t, objects: map[string][]version{}, acked: map[string][32]byte{}, open: map[string]int{}}
	t.Cleanup(m.end)
	return m
}

func (m *Mem) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for what, n := range m.open {
		if n != 0 && !m.Lenient {
			m.t.Errorf("storagetest.Mem: %s: %d not closed", what, n)
		}
	}
	m.ended = true
}

// accuse fails the test, unless it is over or the caller is not policed. The caller holds mu.
func (m *Mem) accuse(format string, args ...any) {
	if !m.Lenient && !m.ended {
		m.t.Errorf("storagetest.Mem: "+format, args...)
	}
}

// answer is what OnPut makes of a Put: whether it is done, and what is said of it.
type answer struct {
	apply bool
	told  error
}

// Put implements [storage.Store].
func (m *Mem) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	data, a, err := m.offered(ctx, "put", key, r, o)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.RequireRetain && o.RetainUntil.IsZero() && !storage.Replaceable(key) {
		m.accuse("put %s: no RetainUntil", key)
	}
	if vs := m.objects[key]; len(vs) > 0 && !vs[0].marker {
		if a.told != nil {
			return a.told
		}
		return fmt.Errorf("put %s: %w", key, storage.ErrExists)
	}
	if other := m.nested(key); other != "" {
		m.accuse("put %s: one of it and %s is a directory of the other", key, other)
		return fmt.Errorf("put %s: %w: one of it and %s is a directory of the other", key, storage.ErrKey, other)
	}
	if a.apply || a.told == nil {
		m.police("put", key, o.SHA256)
		m.acked[key] = o.SHA256
	}
	if a.apply {
		m.push(key, version{data: data, retain: o.RetainUntil})
		if s, ok := r.(*memStaged); ok {
			s.keep()
		}
	}
	return a.told
}

// Restore implements [storage.Restorer]: the bytes become the newest version.
func (m *Mem) Restore(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if m.has(key, o) {
		return nil
	}
	data, a, err := m.offered(ctx, "restore", key, r, o)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.police("restore", key, o.SHA256)
	if a.apply {
		m.acked[key] = o.SHA256
		m.push(key, version{data: data, retain: o.RetainUntil})
	}
	return a.told
}

// has tells whether the newest version of key is what o announces.
func (m *Mem) has(key string, o storage.PutOptions) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.find(key, "")
	if err != nil {
		return false
	}
	v := m.objects[key][i]
	return !v.rotten && int64(len(v.data)) == o.Size && sha256.Sum256(v.data) == o.SHA256
}

// Replace implements [storage.Replacer].
func (m *Mem) Replace(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if storage.ValidKey(key) == nil && !storage.Replaceable(key) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.accuse("replace %s: not a derived object", key)
		return fmt.Errorf("replace %s: %w: not a derived object", key, storage.ErrKey)
	}
	data, a, err := m.offered(ctx, "replace", key, r, o)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.apply {
		m.drop(key)
		m.push(key, version{data: data})
	}
	return a.told
}

// offered reads and judges what a caller offers, and asks OnPut about it.
func (m *Mem) offered(
	ctx context.Context, op, key string, r io.ReaderAt, o storage.PutOptions,
) ([]byte, answer, error) {
	blame := func(err error) ([]byte, answer, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.accuse("%s %s: %v", op, key, err)
		return nil, answer{}, fmt.Errorf("%s %s: %w", op, key, err)
	}
	if err := storage.ValidKey(key); err != nil {
		return blame(err)
	}
	if storage.Replaceable(key) && !o.RetainUntil.IsZero() {
		m.mu.Lock()
		m.accuse("%s %s: RetainUntil for a derived object", op, key)
		m.mu.Unlock()
	}
	if s, ok := r.(*memStaged); ok {
		if err := s.ready(); err != nil {
			return blame(err)
		}
	}
	data, err := readExactly(ctx, r, o.Size)
	if err != nil {
		return nil, answer{}, fmt.Errorf("%s %s: %w", op, key, err)
	}
	if int64(len(data)) != o.Size || sha256.Sum256(data) != o.SHA256 {
		return blame(storage.ErrDigest)
	}
	a := answer{apply: true}
	if m.OnPut != nil {
		if a.apply, a.told = m.OnPut(key); a.told != nil {
			a.told = fmt.Errorf("%s %s: %w", op, key, a.told)
		}
	}
	return data, a, nil
}

// readExactly reads size bytes, fewer when r has fewer.
func readExactly(ctx context.Context, r io.ReaderAt, size int64) ([]byte, error) {
	var b bytes.Buffer
	for int64(b.Len()) < size {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := io.Copy(&b, io.NewSectionReader(r, int64(b.Len()), min(chunk, size-int64(b.Len()))))
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
	}
	return b.Bytes(), ctx.Err()
}

// police compares a digest with what was acknowledged under key before. The caller holds mu.
func (m *Mem) police(op, key string, sum [32]byte) {
	if was, ok := m.acked[key]; ok && was != sum && !storage.Replaceable(key) {
		m.accuse("%s %s: bytes %x, but %x were acknowledged under this key", op, key, sum[:6], was[:6])
	}
}

// nested returns a key that is a directory of key, or that key is a directory of. The caller holds mu.
func (m *Mem) nested(key string) string {
	for i, c := range key {
		if _, ok := m.objects[key[:i]]; ok && c == '/' {
			return key[:i]
		}
	}
	i, _ := slices.BinarySearch(m.keys, key+"/")
	if i < len(m.keys) && strings.HasPrefix(m.keys[i], key+"/") {
		return m.keys[i]
	}
	return ""
}

// push makes v the newest version of key and names it. The caller holds mu.
func (m *Mem) push(key string, v version) string {
	m.serial++
	v.id = "v" + strconv.Itoa(m.serial)
	if _, ok := m.objects[key]; !ok {
		i, _ := slices.BinarySearch(m.keys, key)
		m.keys = slices.Insert(m.keys, i, key)
	}
	m.objects[key] = append([]version{v}, m.objects[key]...)
	return v.id
}

// drop removes all versions of key. The caller holds mu.
func (m *Mem) drop(key string) {
	if _, ok := m.objects[key]; ok {
		i, _ := slices.BinarySearch(m.keys, key)
		m.keys = slices.Delete(m.keys, i, i+1)
		delete(m.objects, key)
	}
}

// find returns the index of a version; the newest, unless that is a marker, for "". The caller holds mu.
func (m *Mem) find(key, id string) (int, error) {
	vs := m.objects[key]
	if id == "" && len(vs) > 0 && !vs[0].marker {
		return 0, nil
	}
	i := slices.IndexFunc(vs, func(v version) bool { return v.id == id })
	if id == "" || i < 0 {
		return 0, storage.ErrNotFound
	}
	return i, nil
}

// Get implements [storage.Store].
func (m *Mem) Get(ctx context.Context, key, id string, offset, n int64) (io.ReadCloser, error) {
	fail := func(err error) (io.ReadCloser, error) { return nil, fmt.Errorf("get %s: %w", key, err) }
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if offset < 0 {
		return fail(fmt.Errorf("offset %d", offset))
	}
	apply := true
	if m.OnGet != nil {
		var err error
		if apply, err = m.OnGet(key); err != nil {
			return fail(err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.find(key, id)
	if err != nil || !apply || m.objects[key][i].marker {
		return fail(storage.ErrNotFound)
	}
	v := m.objects[key][i]
	if v.rotten {
		return fail(fmt.Errorf("version %s: 503, unreadable", v.id))
	}
	data := v.data[min(offset, int64(len(v.data))):]
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	return &memReader{bytes: bytes.NewReader(data), ctx: ctx, closed: m.lend("get " + key), id: v.id, retain: v.retain}, nil
}

// lend remembers that the caller has something to close. The caller holds mu.
func (m *Mem) lend(what string) (giveBack func()) {
	m.open[what]++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.open[what]--
	})
}

// memReader hides the other methods of its bytes, which would not ask the context.
type memReader struct {
	bytes  *bytes.Reader
	ctx    context.Context
	closed func()
	id     string
	retain time.Time
}

// Version implements [storage.Described].
func (r *memReader) Version() string { return r.id }

// RetainUntil implements [storage.Described].
func (r *memReader) RetainUntil() time.Time { return r.retain }

func (r *memReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.bytes.Read(p)
}

func (r *memReader) Close() error {
	r.closed()
	return nil
}

// Stat implements [storage.Store].
func (m *Mem) Stat(ctx context.Context, key string) (storage.Object, error) {
	err := ctx.Err()
	if err == nil && m.OnStat != nil {
		err = m.OnStat(key)
	}
	if err != nil {
		return storage.Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	vs := m.versions(key)
	if len(vs) == 0 {
		return storage.Object{}, fmt.Errorf("stat %s: %w", key, storage.ErrNotFound)
	}
	return storage.Object{Key: key, Size: vs[0].Size, RetainUntil: vs[0].RetainUntil, Versions: vs}, nil
}

// versions describes those of key, newest first. The caller holds mu.
func (m *Mem) versions(key string) []storage.Version {
	vs := make([]storage.Version, 0, len(m.objects[key]))
	for i, v := range m.objects[key] {
		vs = append(vs, storage.Version{
			Key: key, ID: v.id, Size: int64(len(v.data)), Latest: i == 0, Marker: v.marker, RetainUntil: v.retain,
		})
	}
	return vs
}

// List implements [storage.Store].
func (m *Mem) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		for {
			err := ctx.Err()
			if err == nil && m.OnList != nil {
				err = m.OnList(prefix)
			}
			if err != nil {
				yield(storage.Version{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			vs := m.next(prefix, after)
			if len(vs) == 0 {
				return
			}
			for _, v := range vs {
				if !yield(v, nil) {
					return
				}
			}
			after = vs[0].Key
		}
	}
}

// next describes the versions of the first key that begins with prefix and is greater than after.
func (m *Mem) next(prefix, after string) []storage.Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, found := slices.BinarySearch(m.keys, max(prefix, after))
	if found && after >= prefix {
		i++
	}
	if i == len(m.keys) || !strings.HasPrefix(m.keys[i], prefix) {
		return nil
	}
	return m.versions(m.keys[i])
}

// Extend implements [storage.Locker].
func (m *Mem) Extend(ctx context.Context, key, id string, until time.Time) error {
	return m.change(ctx, "extend", key, id, func(v *version) {
		if until.After(v.retain) {
			v.retain = until
		}
	})
}

// Hold implements [storage.Locker].
func (m *Mem) Hold(ctx context.Context, key, id string, on bool) error {
	return m.change(ctx, "hold", key, id, func(v *version) { v.hold = on })
}

func (m *Mem) change(ctx context.Context, op, key, id string, set func(*version)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.find(key, id)
	if err != nil || m.objects[key][i].marker {
		return fmt.Errorf("%s %s: %w", op, key, storage.ErrNotFound)
	}
	set(&m.objects[key][i])
	return nil
}

// Erase implements [storage.Eraser].
func (m *Mem) Erase(ctx context.Context, key, id, why string) error {
	fail := func(err error) error { return fmt.Errorf("erase %s: %w", key, err) }
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if why == "" {
		m.accuse("erase %s: without saying why", key)
		return fail(fmt.Errorf("no reason given"))
	}
	var kept []version
	for _, v := range m.objects[key] {
		if id != "" && v.id != id {
			kept = append(kept, v)
		} else if v.hold || m.locked(v) {
			return fail(storage.ErrLocked)
		}
	}
	if len(kept) == len(m.objects[key]) {
		return fail(storage.ErrNotFound)
	}
	if len(kept) > 0 {
		m.objects[key] = kept
		return nil
	}
	m.drop(key)
	delete(m.acked, key)
	return nil
}

func (m *Mem) locked(v version) bool {
	return !v.retain.IsZero() && (m.Now == nil || m.Now().Before(v.retain))
}

// Protection implements [storage.Protector].
func (m *Mem) Protection() string { return "memory" }
