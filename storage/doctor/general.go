package doctor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/marchesud/perenne/storage"
)

// lockTime is how long probes lock an object, from now; no more than it takes to be refused its erasure on a slow
// store whose clock is a little ahead.
const lockTime = 90 * time.Second

// general returns the probes that every store can be asked, and those of the optional interfaces that this one has.
func (e *examination) general() []storage.Probe {
	probes := []storage.Probe{
		{Name: "create-once", Run: e.createOnce},
		{Name: "one-winner", Run: e.oneWinner},
		{Name: "slow-against-fast", Run: e.slowAgainstFast},
		{Name: "digest", Run: e.digest},
		{Name: "read-back", Run: e.readBack},
		{Name: "listing", Run: e.listing},
		{Name: "erase", Run: e.erase},
	}
	_, locks := e.store.(storage.Locker)
	_, erases := e.store.(storage.Eraser)
	if locks && erases {
		probes = append(probes, storage.Probe{Name: "lock", Run: e.lock}, storage.Probe{Name: "hold", Run: e.hold})
	}
	return probes
}

// sample returns n bytes that differ from one name to another.
func sample(name string, n int) []byte {
	b := make([]byte, 0, n+len(name)+1)
	for i := 0; len(b) < n; i++ {
		b = append(append(b, name...), byte(i))
	}
	return b[:n]
}

func options(data []byte) storage.PutOptions {
	return storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)}
}

func put(ctx context.Context, s storage.Store, key string, data []byte) error {
	return s.Put(ctx, key, bytes.NewReader(data), options(data))
}

// failed is the outcome of a call that had to succeed. Where the store says something of its objects that is not so,
// it breaks its word; any other error may be the network's, and says nothing.
func failed(err error) storage.Outcome {
	for _, plain := range []error{storage.ErrNotFound, storage.ErrExists, storage.ErrDigest, storage.ErrKey, storage.ErrLocked} {
		if errors.Is(err, plain) {
			return storage.Breaks("%w", err)
		}
	}
	return storage.Untellable("%w", err)
}

// want compares an error with the one that had to come: to be told yes is a broken promise.
func want(err, wanted error, what string) storage.Outcome {
	switch {
	case errors.Is(err, wanted):
		return storage.Holds()
	case err == nil:
		return storage.Breaks("%s: the store said yes", what)
	default:
		return failed(fmt.Errorf("%s: %w", what, err))
	}
}

func (e *examination) read(ctx context.Context, key string, offset, n int64) ([]byte, error) {
	r, err := e.store.Get(ctx, key, "", offset, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// holds wants key to have exactly these bytes, in one version.
func (e *examination) holds(ctx context.Context, key string, data []byte) storage.Outcome {
	got, err := e.read(ctx, key, 0, -1)
	if err != nil {
		return failed(fmt.Errorf("read %s back: %w", key, err))
	}
	if !bytes.Equal(got, data) {
		return storage.Breaks("%s has other bytes than were acknowledged: %d bytes, want %d", key, len(got), len(data))
	}
	o, err := e.store.Stat(ctx, key)
	if err != nil {
		return failed(fmt.Errorf("stat: %w", err))
	}
	if len(o.Versions) != 1 {
		return storage.Breaks("%s has %d versions, and was created once", key, len(o.Versions))
	}
	return storage.Holds()
}

// absent wants nothing to lie under key, whichever way it is looked for.
func (e *examination) absent(ctx context.Context, key, when string) storage.Outcome {
	_, err := e.read(ctx, key, 0, -1)
	if out := want(err, storage.ErrNotFound, "read "+when); out.Verdict != storage.Held {
		return out
	}
	_, err = e.store.Stat(ctx, key)
	if out := want(err, storage.ErrNotFound, "look "+when); out.Verdict != storage.Held {
		return out
	}
	for v, err := range e.store.List(ctx, key, "") {
		if err != nil {
			return failed(fmt.Errorf("list %s: %w", when, err))
		}
		return storage.Breaks("%s is listed %s", v.Key, when)
	}
	return storage.Holds()
}

func (e *examination) createOnce(ctx context.Context, room string) storage.Outcome {
	key, one := room+"/a", sample("one", 100)
	if err := put(ctx, e.store, key, one); err != nil {
		return failed(fmt.Errorf("create: %w", err))
	}
	for _, again := range [][]byte{sample("two", 200), one} {
		if out := want(put(ctx, e.store, key, again), storage.ErrExists, "second create of a key"); out.Verdict != storage.Held {
			return out
		}
	}
	return e.holds(ctx, key, one)
}

// oneWinner lets many writers create a key at the same moment, several times. A store whose condition is not atomic lets
// two of them win in most examinations, not in all; slowAgainstFast finds it every time.
func (e *examination) oneWinner(ctx context.Context, room string) storage.Outcome {
	const keys, writers = 6, 16
	for k := range keys {
		key := fmt.Sprintf("%s/%d", room, k)
		var errs [writers]error
		var start, done sync.WaitGroup
		start.Add(1)
		for w := range writers {
			done.Go(func() {
				start.Wait()
				errs[w] = put(ctx, e.store, key, sample(fmt.Sprint(w), 4000+w))
			})
		}
		start.Done()
		done.Wait()
		winner, winners := -1, 0
		for w, err := range errs {
			if err == nil {
				winner = w
				winners++
			}
		}
		if winners > 1 {
			return storage.Breaks("of %d concurrent creates of one key the store said yes to %d", writers, winners)
		}
		if winners == 0 {
			return storage.Untellable("of %d concurrent creates of one key none succeeded: %w", writers, errs[0])
		}
		if out := e.holds(ctx, key, sample(fmt.Sprint(winner), 4000+winner)); out.Verdict != storage.Held {
			return out
		}
	}
	return storage.Holds()
}

// gate is a reader that stops before the middle of its bytes until it is let through, or ctx ends.
type gate struct {
	ctx     context.Context
	data    []byte
	reached chan struct{}
	let     chan struct{}
	once    sync.Once
}

func (g *gate) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(g.data)/2) {
		g.once.Do(func() { close(g.reached) })
		select {
		case <-g.let:
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		}
	}
	return bytes.NewReader(g.data).ReadAt(p, off)
}

// slowAgainstFast lets a fast writer overtake a slow one. It tells a store that looks at the condition before the bytes
// arrive and not when they are given their name: there both are told yes, and the slow one's bytes lie where the
// fast one's were acknowledged.
func (e *examination) slowAgainstFast(ctx context.Context, room string) storage.Outcome {
	longer := [...]time.Duration{1, 3, 9}
	var found [len(longer)]storage.Outcome
	var done sync.WaitGroup
	for i, times := range longer {
		done.Go(func() { found[i] = e.overtaken(ctx, fmt.Sprintf("%s/%d", room, i), times) })
	}
	done.Wait()
	return slices.MaxFunc(found[:], func(a, b storage.Outcome) int { return rank(a.Verdict) - rank(b.Verdict) })
}

const (
	// overtake is how long a slow writer waits to be overtaken: a store may also make the fast one wait.
	overtake = 3 * time.Second
	// headStart is how long the fast one waits at least, for the store to have seen the slow one: many times what a
	// create takes, since there may be a network between, with proxies that are busy, or a server that is.
	headStart, headStartMost = 50 * time.Millisecond, 5 * time.Second
)

// overtaken is one round, in which the slow writer has so many times the head start.
func (e *examination) overtaken(ctx context.Context, key string, times time.Duration) storage.Outcome {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slow, fast := sample("slow", 1<<20), sample("fast", 100)
	g := &gate{ctx: ctx, data: slow, reached: make(chan struct{}), let: make(chan struct{})}
	slowEnd, fastEnd := make(chan error, 1), make(chan error, 1)
	go func() { slowEnd <- e.store.Put(ctx, key, g, options(slow)) }()
	select {
	case <-g.reached:
	case err := <-slowEnd:
		if err == nil {
			return storage.Breaks("a create was told yes before its bytes had been read")
		}
		return failed(fmt.Errorf("create slowly: %w", err))
	}
	pause(ctx, min(times*max(headStart, 20*e.took), headStartMost))
	go func() { fastEnd <- put(ctx, e.store, key, fast) }()
	var fastErr error
	select {
	case fastErr = <-fastEnd:
		close(g.let)
	case <-time.After(overtake):
		close(g.let)
		fastErr = <-fastEnd
	}
	slowErr := <-slowEnd
	switch {
	case slowErr == nil && fastErr == nil:
		return storage.Breaks("a slow and a fast create of one key were both told yes")
	case fastErr == nil:
		return e.holds(ctx, key, fast)
	case slowErr == nil:
		return e.holds(ctx, key, slow)
	default:
		return storage.Untellable("neither the slow nor the fast create succeeded: %w", errors.Join(slowErr, fastErr))
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (e *examination) digest(ctx context.Context, room string) storage.Outcome {
	key, data := room+"/a", sample("digest", 5000)
	o := options(data)
	o.SHA256[0] ^= 1
	err := e.store.Put(ctx, key, bytes.NewReader(data), o)
	if out := want(err, storage.ErrDigest, "create with bytes that do not have the digest announced"); out.Verdict != storage.Held {
		return out
	}
	return e.absent(ctx, key, "after it was refused")
}

func (e *examination) readBack(ctx context.Context, room string) storage.Outcome {
	key, data := room+"/a", sample("read", 100_000)
	if err := put(ctx, e.store, key, data); err != nil {
		return failed(fmt.Errorf("create: %w", err))
	}
	size := int64(len(data))
	for _, r := range []struct{ offset, n, want int64 }{
		{0, -1, size},
		{0, 1, 1},
		{70_000, 5, 5},
		{size - 5, 100, 5},
		{size - 5, -1, 5},
	} {
		got, err := e.read(ctx, key, r.offset, r.n)
		if err != nil {
			return failed(fmt.Errorf("read %d bytes from %d: %w", r.n, r.offset, err))
		}
		if !bytes.Equal(got, data[r.offset:r.offset+r.want]) {
			return storage.Breaks("read %d bytes from %d: got %d bytes, not those that were written", r.n, r.offset, len(got))
		}
	}
	return e.absent(ctx, room+"/b", "of a key that was never created")
}

func (e *examination) listing(ctx context.Context, room string) storage.Outcome {
	keys := []string{room + "/a", room + "/a-b", room + "/a0", room + "/b/c", room + "/b/d", room + "/e"}
	for _, key := range []int{5, 2, 0, 4, 3, 1} {
		if err := put(ctx, e.store, keys[key], sample(keys[key], 50)); err != nil {
			return failed(fmt.Errorf("create: %w", err))
		}
	}
	for _, l := range []struct {
		prefix, after string
		want          []string
	}{
		{room + "/", "", keys},
		{room + "/", keys[2], keys[3:]},
		{room + "/b/", "", keys[3:5]},
		{room + "/a", "", keys[:3]},
	} {
		var got []string
		for v, err := range e.store.List(ctx, l.prefix, l.after) {
			if err != nil {
				return failed(fmt.Errorf("list: %w", err))
			}
			got = append(got, v.Key)
			if v.Size != 50 || !v.Latest || v.Marker {
				return storage.Breaks("%s is listed with %d bytes, latest %t, marker %t", v.Key, v.Size, v.Latest, v.Marker)
			}
		}
		if !slices.Equal(got, l.want) {
			return storage.Breaks("a listing of %d objects gave %q", len(l.want), got)
		}
	}
	return storage.Holds()
}

func (e *examination) erase(ctx context.Context, room string) storage.Outcome {
	eraser, ok := e.store.(storage.Eraser)
	if !ok {
		return storage.Notes("the store erases nothing")
	}
	key := room + "/a"
	if err := put(ctx, e.store, key, sample("erase", 50)); err != nil {
		return failed(fmt.Errorf("create: %w", err))
	}
	if err := eraser.Erase(ctx, key, "", "probe of the store"); err != nil {
		if _, getErr := e.read(ctx, key, 0, -1); getErr == nil {
			return storage.Breaks("an object that nobody locked is not erased: %w", err)
		}
		return failed(fmt.Errorf("erase: %w", err))
	}
	return e.absent(ctx, key, "after it was erased")
}

func (e *examination) lock(ctx context.Context, room string) storage.Outcome {
	key, data := room+"/a", sample("lock", 50)
	until := e.options.Now().Add(lockTime)
	o := options(data)
	o.RetainUntil = until
	if err := e.store.Put(ctx, key, bytes.NewReader(data), o); err != nil {
		return failed(fmt.Errorf("create with a lock: %w", err))
	}
	locker, _ := e.store.(storage.Locker)
	for _, until := range []time.Time{until, until.Add(30 * time.Second), until.Add(-60 * time.Second)} {
		had, err := e.store.Stat(ctx, key)
		if err != nil {
			return failed(fmt.Errorf("stat: %w", err))
		}
		if had.RetainUntil.IsZero() || len(had.Versions) == 0 {
			return storage.Breaks("an object created with a lock has none")
		}
		told := locker.Extend(ctx, key, had.Versions[0].ID, until)
		has, err := e.store.Stat(ctx, key)
		switch {
		case err != nil:
			return failed(fmt.Errorf("stat: %w", errors.Join(err, told)))
		case has.RetainUntil.Before(had.RetainUntil):
			return storage.Breaks("a lock until %s was shortened to %s", had.RetainUntil.UTC().Format(time.RFC3339), has.RetainUntil.UTC().Format(time.RFC3339))
		case has.RetainUntil.Before(until.Truncate(time.Second)):
			seen := fmt.Errorf("a lock extended to %s ends at %s", until.UTC().Format(time.RFC3339), has.RetainUntil.UTC().Format(time.RFC3339))
			return storage.Breaks("%w", errors.Join(seen, told))
		}
	}
	return e.keeps(ctx, key, data, "a locked object")
}

// keeps wants an object not to be erased.
func (e *examination) keeps(ctx context.Context, key string, data []byte, what string) storage.Outcome {
	eraser, _ := e.store.(storage.Eraser)
	if out := want(eraser.Erase(ctx, key, "", "probe of the store"), storage.ErrLocked, "erase "+what); out.Verdict != storage.Held {
		return out
	}
	return e.holds(ctx, key, data)
}

func (e *examination) hold(ctx context.Context, room string) storage.Outcome {
	key, data := room+"/a", sample("hold", 50)
	if err := put(ctx, e.store, key, data); err != nil {
		return failed(fmt.Errorf("create: %w", err))
	}
	if out := e.holds(ctx, key, data); out.Verdict != storage.Held {
		return out
	}
	o, err := e.store.Stat(ctx, key)
	if err != nil {
		return failed(fmt.Errorf("stat: %w", err))
	}
	locker, _ := e.store.(storage.Locker)
	if err := locker.Hold(ctx, key, o.Versions[0].ID, true); err != nil {
		return failed(fmt.Errorf("set a legal hold: %w", err))
	}
	out := e.keeps(ctx, key, data, "an object on legal hold")
	if err := locker.Hold(ctx, key, o.Versions[0].ID, false); err != nil && out.Verdict == storage.Held {
		return failed(fmt.Errorf("lift a legal hold: %w", err))
	}
	return out
}
