package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/marchesud/perenne/storage"
)

// put creates a small object, resolving an unknown outcome by reading back. storage.ErrExists when another
// object lies there.
func (a *Archive) put(ctx context.Context, key string, data []byte, sum [32]byte) error {
	return a.create(ctx, key, bytes.NewReader(data), storage.PutOptions{Size: int64(len(data)), SHA256: sum, RetainUntil: a.lockUntil(a.cfg.Now())})
}

// putErasable creates a small object without a lock: personal data, which may have to go.
func (a *Archive) putErasable(ctx context.Context, key string, data []byte) error {
	return a.create(ctx, key, bytes.NewReader(data), storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)})
}

// create puts an object and returns nil when it is there with these bytes: the store said yes, or exists and
// gave them back equal. That may be the end of this very request: a store that gave no definite answer may look
// itself, and say exists. Absent is still unknown, so the same bytes are put again, a bounded number of times;
// what a store refuses then says nothing of the attempt before.
func (a *Archive) create(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	const attempts = 5
	var err error
	for i := range attempts {
		doubt := i > 0 // whether an earlier attempt may have succeeded
		if doubt {
			select {
			case <-ctx.Done():
				return errors.Join(err, ctx.Err())
			case <-time.After(time.Duration(i*i) * 50 * time.Millisecond):
			}
		}
		err = a.cfg.Store.Put(ctx, key, r, o)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, storage.ErrExists):
			same, readErr := a.holds(ctx, key, o)
			switch {
			case readErr != nil:
				return fmt.Errorf("%w: %w", err, readErr)
			case same:
				return nil
			}
			return err
		case !doubt && (errors.Is(err, storage.ErrDigest) || errors.Is(err, storage.ErrFull) || errors.Is(err, storage.ErrKey)):
			return err
		}
	}
	return fmt.Errorf("%w: %w", storage.ErrUnknown, err)
}

// holds reads key and tells whether it has the bytes that o announces.
func (a *Archive) holds(ctx context.Context, key string, o storage.PutOptions) (bool, error) {
	got, err := readDigest(ctx, a.cfg.Store, key, "", nil)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return err == nil && got.size == o.Size && got.sha256 == o.SHA256, err
}

// adopt has this machine hold an object that somebody else put, before an answer rests on it. Where the store is
// trusted there is nothing to hold.
func (a *Archive) adopt(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	s, ok := a.cfg.Store.(storage.Adopter)
	if !ok {
		return nil
	}
	if err := s.Adopt(ctx, key, r, o); err != nil {
		return fmt.Errorf("hold what another daemon put: %w", err)
	}
	return nil
}

// readError marks a failure to read from the store, as opposed to something wrong with what was read.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// unread reports whether err is a failure to read: what it is about may be whole. An object that is not there
// was read as absent.
func unread(err error) bool {
	var e *readError
	return errors.As(err, &e) && !errors.Is(err, storage.ErrNotFound)
}

// readSmall reads a version of an object, "" for the newest, of at most limit bytes.
func readSmall(ctx context.Context, s storage.Store, key, version string, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, key, version, 0, limit+1)
	if err != nil {
		return nil, &readError{fmt.Errorf("read %s: %w", key, err)}
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, &readError{fmt.Errorf("read %s: %w", key, err)}
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: more than the %d bytes such an object has", key, limit)
	}
	return b, nil
}

// object reads ranges of an object in the store; storage.Store gives streams, archive/pack wants an io.ReaderAt.
// It keeps one window of readahead, so that sequential reading costs one request per window.
type object struct {
	ctx   context.Context
	store storage.Store
	key   string
	size  int64

	version  string            // that is read; "" for the newest
	versions []storage.Version // of the key when it was opened

	mu     sync.Mutex
	window []byte
	at     int64
}

const windowSize = 1 << 20

func openObject(ctx context.Context, s storage.Store, key string) (*object, error) {
	st, err := s.Stat(ctx, key)
	if err != nil {
		return nil, &readError{fmt.Errorf("open %s: %w", key, err)}
	}
	return &object{ctx: ctx, store: s, key: key, size: st.Size, versions: st.Versions}, nil
}

// ReadAt reads through the window.
func (o *object) ReadAt(b []byte, off int64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for n < len(b) {
		pos := off + int64(n)
		if pos >= o.size {
			return n, io.EOF
		}
		if pos < o.at || pos >= o.at+int64(len(o.window)) {
			if err := o.load(pos); err != nil {
				return n, err
			}
		}
		n += copy(b[n:], o.window[pos-o.at:])
	}
	return n, nil
}

func (o *object) load(pos int64) error {
	want := min(windowSize, o.size-pos)
	r, err := o.store.Get(o.ctx, o.key, o.version, pos, want)
	if err != nil {
		return &readError{fmt.Errorf("read %s at %d: %w", o.key, pos, err)}
	}
	if int64(cap(o.window)) < want {
		o.window = make([]byte, want)
	}
	o.window = o.window[:want]
	_, err = io.ReadFull(r, o.window)
	if err := errors.Join(err, r.Close()); err != nil {
		o.window = o.window[:0]
		return &readError{fmt.Errorf("read %s at %d: %w", o.key, pos, err)}
	}
	o.at = pos
	return nil
}
