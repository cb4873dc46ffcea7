package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marchesud/perenne/storage"
)

func createdReadsBack(ctx context.Context, s storage.Store) error {
	for i, n := range []int{0, 1, 511, 4096, 65535, 65536, 65537, 1<<20 + 7} {
		key := fmt.Sprintf("t-created/packages/%02d/size-%d.asice", i, n)
		data := sample(uint64(i), n)
		if err := put(ctx, s, key, data); err != nil {
			return fmt.Errorf("put of %d bytes: %w", n, err)
		}
		if err := holds(ctx, s, key, data); err != nil {
			return err
		}
	}
	return nil
}

func putCopies(ctx context.Context, s storage.Store) error {
	const key = "t-copies/a"
	data := sample(1, 5000)
	want := bytes.Clone(data)
	if err := put(ctx, s, key, data); err != nil {
		return err
	}
	clear(data)
	return holds(ctx, s, key, want)
}

func secondPutRefused(ctx context.Context, s storage.Store) error {
	const key = "t-second/ledger/0000000000000000/0000"
	first, other := sample(1, 3000), sample(2, 3000)
	if err := put(ctx, s, key, first); err != nil {
		return err
	}
	if err := refused("put of other bytes under a key in use", put(ctx, s, key, other), storage.ErrExists); err != nil {
		return err
	}
	if err := holds(ctx, s, key, first); err != nil {
		return fmt.Errorf("after a refused put: %w", err)
	}
	if err := refused("put of the same bytes under a key in use", put(ctx, s, key, first), storage.ErrExists); err != nil {
		return err
	}
	return holds(ctx, s, key, first)
}

// gate is a reader that stops in the middle of its bytes until it is let through.
type gate struct {
	data    []byte
	reached chan struct{}
	let     chan struct{}
	once    sync.Once
}

func newGate(data []byte) *gate {
	return &gate{data: data, reached: make(chan struct{}), let: make(chan struct{})}
}

func (g *gate) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(g.data)/2) {
		g.once.Do(func() { close(g.reached) })
		<-g.let
	}
	return bytes.NewReader(g.data).ReadAt(p, off)
}

// slowAgainstFast lets a fast Put come while a slow one is under way. It is the interleaving that told, every time, a
// store whose condition is looked at before the bytes arrive and not when they are given their name. A store may let
// the fast one overtake, or let it and every reader wait for the slow one (MinIO locks the key from the first byte);
// it may not let both win, nor show what is not whole.
func slowAgainstFast(ctx context.Context, s storage.Store) error {
	const key, wait = "t-slow/packages/a.asice", 3 * time.Second
	slow, fast := sample(1, 3<<20), sample(2, 100)
	g := newGate(slow)
	slowEnd, fastEnd := make(chan error, 1), make(chan error, 1)
	go func() { slowEnd <- s.Put(ctx, key, g, options(slow)) }()
	select {
	case <-g.reached:
	case err := <-slowEnd:
		return fmt.Errorf("put: got %w before it read its bytes", orNil(err))
	}
	looking, cancel := context.WithTimeout(ctx, wait)
	seen := absent(looking, s, key)
	waits := looking.Err() != nil
	cancel()
	if seen != nil && !waits {
		close(g.let)
		if err := <-slowEnd; err != nil {
			seen = fmt.Errorf("%w; and the put itself: %w", seen, err)
		}
		return fmt.Errorf("while it is being put: %w", seen)
	}
	go func() { fastEnd <- put(ctx, s, key, fast) }()
	select {
	case err := <-fastEnd:
		close(g.let)
		slowErr := <-slowEnd
		if err != nil {
			return fmt.Errorf("fast put beside a slow one: got %w, want it to win", err)
		}
		if err := refused("slow put overtaken by a fast one", slowErr, storage.ErrExists); err != nil {
			return err
		}
		return holds(ctx, s, key, fast)
	case <-time.After(wait):
	}
	close(g.let)
	if err := <-slowEnd; err != nil {
		return fmt.Errorf("slow put, which the fast one waits for: got %w, want it to win", err)
	}
	if err := refused("fast put, which waited for a slow one", <-fastEnd, storage.ErrExists); err != nil {
		return err
	}
	return holds(ctx, s, key, slow)
}

func oneWins(ctx context.Context, s storage.Store) error {
	const keys, writers = 12, 8
	for k := range keys {
		key := fmt.Sprintf("t-contend/ledger/0000000000000000/%04d", k)
		var errs [writers]error
		var start, done sync.WaitGroup
		start.Add(1)
		for w := range writers {
			done.Go(func() {
				start.Wait()
				errs[w] = put(ctx, s, key, sample(uint64(w), 2000+w))
			})
		}
		start.Done()
		done.Wait()
		winner := -1
		for w, err := range errs {
			switch {
			case err == nil && winner >= 0:
				return fmt.Errorf("concurrent puts of %s: two of them were told that theirs was created", key)
			case err == nil:
				winner = w
			case !errors.Is(err, storage.ErrExists):
				return fmt.Errorf("concurrent puts of %s: got %w, want ErrExists for the losers", key, err)
			}
		}
		if winner < 0 {
			return fmt.Errorf("concurrent puts of %s: none was created", key)
		}
		if err := holds(ctx, s, key, sample(uint64(winner), 2000+winner)); err != nil {
			return fmt.Errorf("after concurrent puts: %w", err)
		}
	}
	return nil
}

func newDirectories(ctx context.Context, s storage.Store) error {
	const rounds, writers = 6, 8
	for round := range rounds {
		var errs [writers]error
		var done sync.WaitGroup
		for w := range writers {
			done.Go(func() {
				key := fmt.Sprintf("t-fresh/r%d/a/b/c/%d", round, w)
				if errs[w] = put(ctx, s, key, sample(uint64(w), 300)); errs[w] == nil {
					errs[w] = holds(ctx, s, key, sample(uint64(w), 300))
				}
			})
		}
		done.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			return fmt.Errorf("concurrent puts of different keys: %w", err)
		}
	}
	return nil
}

func otherBytes(ctx context.Context, s storage.Store) error {
	data := sample(1, 70_000)
	announce := func(size int, sum [32]byte) storage.PutOptions {
		return storage.PutOptions{Size: int64(size), SHA256: sum}
	}
	sum := sha256.Sum256(data)
	for _, offer := range []struct {
		name string
		data []byte
		o    storage.PutOptions
	}{
		{"wrong-digest", data, announce(len(data), sha256.Sum256(data[1:]))},
		{"no-digest", data, announce(len(data), [32]byte{})},
		{"fewer-bytes", data[:len(data)-1], announce(len(data), sum)},
		{"fewer-bytes-with-their-digest", data[:60_000], announce(len(data), sha256.Sum256(data[:60_000]))},
		{"no-bytes", nil, announce(len(data), sum)},
		{"size-too-small", data, announce(len(data)-1, sum)},
		{"size-negative", data, announce(-1, sum)},
	} {
		key := "t-other/" + offer.name
		err := s.Put(ctx, key, bytes.NewReader(offer.data), offer.o)
		if err := refused("put, "+offer.name, err, storage.ErrDigest); err != nil {
			return err
		}
		if err := absent(ctx, s, key); err != nil {
			return fmt.Errorf("after a put with %s: %w", offer.name, err)
		}
		if err := put(ctx, s, key, data); err != nil {
			return fmt.Errorf("right put after one with %s: %w", offer.name, err)
		}
	}
	return nil
}

var errRead = errors.New("the caller's reader failed")

// broken is a reader that fails from the middle on.
type broken struct{ data []byte }

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if half := int64(len(b.data) / 2); off+int64(len(p)) > half {
		n := 0
		if off < half {
			n = copy(p, b.data[off:half])
		}
		return n, errRead
	}
	return copy(p, b.data[off:]), nil
}

func failedReader(ctx context.Context, s storage.Store) error {
	const key = "t-broken/a"
	data := sample(1, 3<<20)
	err := s.Put(ctx, key, broken{data}, options(data))
	if !errors.Is(err, errRead) {
		return fmt.Errorf("put from a failing reader: got %w, want the reader's error", orNil(err))
	}
	if err := absent(ctx, s, key); err != nil {
		return fmt.Errorf("after a failed put: %w", err)
	}
	return put(ctx, s, key, data)
}

// cancelling is a reader that cancels a context when its middle is read.
type cancelling struct {
	io.ReaderAt
	at     int64
	cancel func()
	done   atomic.Bool
}

func (c *cancelling) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > c.at {
		c.cancel()
		c.done.Store(true)
	}
	return c.ReaderAt.ReadAt(p, off)
}

func cancelledPut(ctx context.Context, s storage.Store) error {
	const key = "t-cancel/a"
	data := sample(1, 8<<20)
	before, cancel := context.WithCancel(ctx)
	cancel()
	if err := refused("put under a cancelled context", put(before, s, key, data), context.Canceled); err != nil {
		return err
	}
	during, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &cancelling{ReaderAt: bytes.NewReader(data), at: int64(len(data) / 2), cancel: cancel}
	if err := refused("put cancelled while it reads", s.Put(during, key, r, options(data)), context.Canceled); err != nil {
		return err
	}
	if !r.done.Load() {
		return errors.New("put never read the middle of its bytes")
	}
	if err := absent(ctx, s, key); err != nil {
		return fmt.Errorf("after a cancelled put: %w", err)
	}
	return put(ctx, s, key, data)
}

func badKeys(ctx context.Context, s storage.Store) error {
	for _, key := range []string{
		"", "/", "/t-bad/a", "t-bad/", "t-bad//a", "t-bad/./a", "t-bad/../a", "../t-bad", "t-bad/.a", "t-bad/a b",
		"t-bad/è", "t-bad/a\x00", "t-bad/a\n", `t-bad\a`, "t-bad/" + strings.Repeat("x", 201), strings.Repeat("t-bad/", 134) + "x",
	} {
		if err := refused(fmt.Sprintf("put %q", key), put(ctx, s, key, []byte("x")), storage.ErrKey); err != nil {
			return err
		}
		if data, err := read(ctx, s, key, 0, -1); err == nil {
			return fmt.Errorf("get %q: got %s, want an error", key, brief(data))
		}
	}
	for v, err := range s.List(ctx, "t-bad", "") {
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		return fmt.Errorf("list after refused puts: got %q, want nothing", v.Key)
	}
	return nil
}

// nestedKeys lets a store refuse a key that is a directory of another, or keep both, but not hurt the first.
func nestedKeys(ctx context.Context, s storage.Store) error {
	for _, pair := range [][2]string{
		{"t-nested/a", "t-nested/a/b"},
		{"t-nested/c/d/e", "t-nested/c/d"},
		{"t-nested/f/g/h", "t-nested/f"},
		{"t-nested/i", "t-nested/i/j/k"},
	} {
		first, second := sample(1, 100), sample(2, 200)
		if err := put(ctx, s, pair[0], first); err != nil {
			return err
		}
		switch err := put(ctx, s, pair[1], second); {
		case err == nil:
			if data, err := read(ctx, s, pair[1], 0, -1); err != nil || !bytes.Equal(data, second) {
				return fmt.Errorf("get %s, acknowledged beside %s: got %s, %w", pair[1], pair[0], brief(data), orNil(err))
			}
		case !errors.Is(err, storage.ErrKey):
			return fmt.Errorf("put %s beside %s: got %w, want nil or ErrKey", pair[1], pair[0], err)
		}
		if data, err := read(ctx, s, pair[0], 0, -1); err != nil || !bytes.Equal(data, first) {
			return fmt.Errorf("get %s after a put of %s: got %s, %w", pair[0], pair[1], brief(data), orNil(err))
		}
	}
	return nil
}
