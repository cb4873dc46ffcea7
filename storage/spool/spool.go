package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
)

// Options says how a spool is opened. Fields without "optional" are required.
type Options struct {
	// Dir is the folder of the spool, made with mode 0700 if it is missing; a local file system.
	Dir string
	// ReadBack is how long after its Put an object is read back. A store that is trusted needs no spool.
	ReadBack time.Duration
	// Quota is the most bytes held; 0 means half of what the file system has free at Open.
	Quota int64
	// Reserve is how many bytes of the file system are left free; 0 means 256 MiB.
	Reserve int64
	// Ballast is the size of the file that is given up when the disk is full; 0 means 64 MiB, less than 0 none.
	Ballast int64

	Now func() time.Time
	Log *slog.Logger
	// Free tells how many bytes the file system of Dir has free; optional, for tests.
	Free func() (int64, error)
	// Crash is nil but in tests, which use it to die at a labelled step.
	Crash func(label string)
}

// inner is what the spool asks of the store behind it; storage.Locker is passed on by [Spool.Store].
type inner interface {
	storage.Store
	storage.Eraser
	storage.Restorer
	storage.Replacer
	storage.Protector
}

// Spool is the store with the spool in front of it. All methods may be called concurrently.
type Spool struct {
	inner inner
	opt   Options
	local *dir.Store
	lock  *os.File
	kick  chan struct{} // Run has something to do at once

	mu      sync.Mutex
	items   map[string][]*item
	order   []*item // oldest first, unless renewed says otherwise; those that are gone among them
	bytes   int64   // held
	objects int64
	staged  int64            // bytes of what is under construction
	again   map[string]int64 // by room: objects that the store lacked and were put again
	alarms  int64
	last    time.Time // the newest item's, so that no two have the same
	wary    bool      // the store failed since what is recent was looked at
	alarmed bool      // it may have lost anything: a start, an object found missing
	renewed bool      // order is no longer by age
	pressed bool      // said that the quota is near
	full    bool      // said that it is reached
}

var (
	_ storage.Store     = (*Spool)(nil)
	_ storage.Stager    = (*Spool)(nil)
	_ storage.Eraser    = (*Spool)(nil)
	_ storage.Restorer  = (*Spool)(nil)
	_ storage.Replacer  = (*Spool)(nil)
	_ storage.Protector = (*Spool)(nil)
	_ storage.Keeper    = (*Spool)(nil)
	_ storage.Sweeper   = (*Spool)(nil)
	_ storage.Adopter   = (*Spool)(nil)
)

// Open opens the spool in o.Dir in front of store, which must be a [storage.Eraser], [storage.Restorer],
// [storage.Replacer] and [storage.Protector], and finds what an earlier process held there. The store is not asked
// anything yet: Run, and whoever meets an object missing, does that. A file in held/ that is no copy is said in
// the log and left alone.
func Open(ctx context.Context, store storage.Store, o Options) (*Spool, error) {
	s, err := open(ctx, store, o)
	if err != nil {
		return nil, fmt.Errorf("open spool %s: %w", o.Dir, err)
	}
	return s, nil
}

func open(ctx context.Context, store storage.Store, o Options) (*Spool, error) {
	in, ok := store.(inner)
	switch {
	case !ok:
		return nil, errors.New("the store behind it cannot erase, restore, replace or name its protection")
	case o.Dir == "" || o.ReadBack <= 0 || o.Quota < 0 || o.Now == nil || o.Log == nil:
		return nil, errors.New("a folder, a time to read back, a clock and a log are needed")
	}
	o.Reserve, o.Ballast = orDefault(o.Reserve, 256<<20), orDefault(o.Ballast, 64<<20)
	s := &Spool{inner: in, opt: o, items: map[string][]*item{}, again: map[string]int64{}, kick: make(chan struct{}, 1), alarmed: true}
	if s.opt.Free == nil {
		s.opt.Free = s.free
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if s.lock, err = lock(filepath.Join(o.Dir, "lock")); err != nil {
		return nil, err
	}
	if s.local, err = dir.Open(filepath.Join(o.Dir, "held"), dir.Options{Immutable: dir.Off}); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	if err := s.find(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.opt.Quota == 0 {
		free, err := s.opt.Free()
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.opt.Quota = max(1, (free+s.bytes)/2)
	}
	s.tend()
	return s, nil
}

func orDefault(n, otherwise int64) int64 {
	if n == 0 {
		return otherwise
	}
	return n
}

// lock keeps a second process away: it would take copies that are being written for those of a dead one.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another process has it: %w", err), f.Close())
	}
	return f, nil
}

// find takes over the copies of an earlier process.
func (s *Spool) find(ctx context.Context) error {
	for v, err := range s.local.List(ctx, "", "") {
		if err != nil {
			return err
		}
		it, err := parseName(v.Key)
		if err != nil {
			s.opt.Log.Error("something in the spool is no copy of an object: left alone", slog.String("file", v.Key))
			continue
		}
		it.size, it.former = v.Size, true
		s.add(it)
	}
	slices.SortFunc(s.order, oldest)
	if n := len(s.order); n > 0 {
		s.last = s.order[n-1].at
		s.opt.Log.Info("spool holds objects of an earlier run", slog.Int("objects", n), slog.Int64("bytes", s.bytes))
	}
	return nil
}

// add enters an item. The caller holds mu, or is alone.
func (s *Spool) add(it *item) {
	s.items[it.key] = append(s.items[it.key], it)
	s.order = append(s.order, it)
	s.bytes += it.size
	s.objects++
}

// Left counts the objects that the spool in a folder holds, where none is open; 0 where there is no spool.
func Left(folder string) (int, error) {
	entries, err := os.ReadDir(filepath.Join(folder, "held"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("spool %s: %w", folder, err)
	}
	n := 0
	for _, e := range entries {
		if _, err := parseName(e.Name()); err == nil {
			n++
		}
	}
	return n, nil
}

// Close ends the spool. What is held stays, and is found by the next Open. No other method may be running.
func (s *Spool) Close() error {
	if err := errors.Join(s.local.Close(), s.lock.Close()); err != nil {
		return fmt.Errorf("close spool: %w", err)
	}
	return nil
}

// Store is the spool as a store that has every optional interface of the store behind it: the Spool itself, or,
// when that is a [storage.Locker], the Spool with its locks.
func (s *Spool) Store() storage.Store {
	if l, ok := s.inner.(storage.Locker); ok {
		return &locking{s, l}
	}
	return s
}

type locking struct {
	*Spool
	storage.Locker
}

// Stats is what the spool holds.
type Stats struct {
	Bytes, Objects int64
	Oldest         time.Time // when the oldest object held was put, or put again; zero when none is held
	Again          int64     // objects that the store lacked and were put again, since Open
	Alarms         int64     // what needed a person, since Open: Again, other bytes than were put, copies that are damaged
	Quota          int64     // bytes
}

// Stats tells what is held at the moment.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Bytes: s.bytes, Objects: s.objects, Alarms: s.alarms, Quota: s.opt.Quota}
	for _, n := range s.again {
		st.Again += n
	}
	for _, it := range s.order {
		if !it.gone {
			st.Oldest = it.at
			break
		}
	}
	return st
}

// Again counts, of one room, the objects that the store lacked and were put again since Open.
func (s *Spool) Again(room string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.again[room]
}

// Get implements [storage.Store]: it reads from the store behind, never from the spool.
func (s *Spool) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	r, err := s.inner.Get(ctx, key, version, offset, n)
	if version == "" && errors.Is(err, storage.ErrNotFound) && s.heal(ctx, key) {
		return s.inner.Get(ctx, key, version, offset, n)
	}
	return r, err
}

// Stat implements [storage.Store].
func (s *Spool) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := s.inner.Stat(ctx, key)
	if errors.Is(err, storage.ErrNotFound) && s.heal(ctx, key) {
		return s.inner.Stat(ctx, key)
	}
	return o, err
}

// History implements [storage.Historian].
func (s *Spool) History(ctx context.Context, key string) ([]storage.Version, error) {
	all, err := storage.History(ctx, s.inner, key)
	if errors.Is(err, storage.ErrNotFound) && s.heal(ctx, key) {
		return storage.History(ctx, s.inner, key)
	}
	return all, err
}

// List implements [storage.Store]. What is held and not listed is met missing like anything else.
func (s *Spool) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		held := s.keys(prefix, after)
		for v, err := range s.inner.List(ctx, prefix, after) {
			if err != nil {
				yield(v, err)
				return
			}
			for ; len(held) > 0 && held[0] <= v.Key; held = held[1:] {
				if held[0] < v.Key && !s.listed(ctx, held[0], yield) {
					return
				}
			}
			if !yield(v, nil) {
				return
			}
		}
		for _, key := range held {
			if !s.listed(ctx, key, yield) {
				return
			}
		}
	}
}

// listed lists a key that the store did not, if it is there now.
func (s *Spool) listed(ctx context.Context, key string, yield func(storage.Version, error) bool) bool {
	if !s.heal(ctx, key) {
		return true
	}
	o, err := s.inner.Stat(ctx, key)
	if errors.Is(err, storage.ErrNotFound) {
		return true // the store does not show it: neither do we
	}
	if err != nil {
		yield(storage.Version{}, fmt.Errorf("list %s: %w", key, err))
		return false
	}
	for _, v := range o.Versions {
		if !yield(v, nil) {
			return false
		}
	}
	return true
}

// keys lists the keys of which something is held, in order.
func (s *Spool) keys(prefix, after string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key := range s.items {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Replace implements [storage.Replacer]. Derived objects are not held.
func (s *Spool) Replace(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	return s.inner.Replace(ctx, key, r, o)
}

// Sweep implements [storage.Sweeper] for the store behind; one that is none has nothing to sweep.
func (s *Spool) Sweep(ctx context.Context) (int, error) {
	if w, ok := s.inner.(storage.Sweeper); ok {
		return w.Sweep(ctx)
	}
	return 0, nil
}

// Protection implements [storage.Protector].
func (s *Spool) Protection() string { return s.inner.Protection() }

// Erase implements [storage.Eraser]. A copy of what is erased is erased first, durably, or it would be put again. Where
// the store says that a lock stands it is asked first: what it refuses costs no copy.
func (s *Spool) Erase(ctx context.Context, key, version, why string) error {
	if why == "" {
		return s.inner.Erase(ctx, key, version, why)
	}
	list, err := s.matching(ctx, key, version)
	locked := false
	if err == nil && len(list) > 0 {
		locked, err = s.locked(ctx, key, version)
	}
	if err != nil {
		return fmt.Errorf("erase %s: copy in the spool: %w", key, err)
	}
	if locked {
		err = s.inner.Erase(ctx, key, version, why)
	}
	for _, it := range list {
		if err != nil {
			return err
		}
		if err = s.eraseCopy(ctx, it); err != nil {
			err = fmt.Errorf("erase %s: copy in the spool: %w", key, err)
		}
	}
	if err != nil || locked {
		return err
	}
	return s.inner.Erase(ctx, key, version, why)
}

// matching lists the copies of a version of key; all of the key where version is "".
func (s *Spool) matching(ctx context.Context, key, version string) ([]*item, error) {
	list := s.holding(key)
	if version == "" {
		return list, nil
	}
	var of []*item
	for _, it := range list {
		same, err := s.compare(ctx, it, version)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
		if same {
			of = append(of, it)
		}
	}
	return of, nil
}

// locked reports whether the store says of a version, of any where version is "", that its lock has not ended.
func (s *Spool) locked(ctx context.Context, key, version string) (bool, error) {
	o, err := s.inner.Stat(ctx, key)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return false, err
	}
	now := s.opt.Now()
	return slices.ContainsFunc(o.Versions, func(v storage.Version) bool {
		return (version == "" || v.ID == version) && v.RetainUntil.After(now)
	}), nil
}

// eraseCopy drops a copy whatever it waits for.
func (s *Spool) eraseCopy(ctx context.Context, it *item) error {
	if err := s.drop(ctx, it, true); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !it.gone { // it would be put again as soon as it is found missing
		return errors.New("it is being looked at: try again")
	}
	return nil
}

// Recall implements [storage.Keeper].
func (s *Spool) Recall(ctx context.Context, key string, sum [32]byte) (io.ReadCloser, error) {
	s.mu.Lock() // or the file could be renamed before it is open
	defer s.mu.Unlock()
	for _, it := range slices.Backward(s.items[key]) { // in the order in which they came
		if sum == [32]byte{} || sum == it.sum {
			return s.local.Get(ctx, it.name(), "", 0, -1)
		}
	}
	return nil, fmt.Errorf("recall %s: %w", key, storage.ErrNotFound)
}

// nameOf is the name of an item whose time may change meanwhile.
func (s *Spool) nameOf(it *item) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return it.name()
}

// holding lists the items of a key.
func (s *Spool) holding(key string) []*item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.items[key])
}

func (s *Spool) crash(label string) {
	if s.opt.Crash != nil {
		s.opt.Crash(label)
	}
}
