package dir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/marchesud/perenne/storage"
)

// staged is a draft in its caller's hands.
type staged struct {
	store *Store
	d     *draft

	mu     sync.RWMutex // held for reading by what uses the file, for writing by what changes the state
	size   int64        // valid once sealed
	sum    [32]byte
	sealed bool
	done   bool // finished, so that a repeated Put does not sync again
	kept   bool // it has a key
	closed bool
}

var (
	errSealed   = errors.New("staged object is sealed")
	errUnsealed = errors.New("staged object is not sealed")
	errKept     = errors.New("staged object was put already")
	errClosed   = errors.New("staged object is closed")
)

// Stage implements [storage.Stager].
func (s *Store) Stage(ctx context.Context) (storage.Staged, error) {
	err := ctx.Err()
	if err == nil {
		err = s.alive()
	}
	if err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	d, err := s.newDraft()
	if err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	return &staged{store: s, d: d}, nil
}

func (st *staged) ReadAt(p []byte, off int64) (int, error) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	if st.closed {
		return 0, errClosed
	}
	return st.d.f.ReadAt(p, off)
}

func (st *staged) WriteAt(p []byte, off int64) (int, error) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	switch {
	case st.closed:
		return 0, errClosed
	case st.sealed:
		return 0, errSealed
	}
	n, err := st.d.f.WriteAt(p, off)
	return n, fault(err)
}

// Seal implements [storage.Staged].
func (st *staged) Seal(ctx context.Context) (int64, [32]byte, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return 0, st.sum, fmt.Errorf("seal: %w", errClosed)
	}
	if st.sealed {
		return st.size, st.sum, nil
	}
	h, buf, off := sha256.New(), make([]byte, chunk), int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return 0, st.sum, fmt.Errorf("seal: %w", err)
		}
		n, err := st.d.f.ReadAt(buf, off)
		_, _ = h.Write(buf[:n])
		off += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, st.sum, fmt.Errorf("seal: %w", err)
		}
	}
	h.Sum(st.sum[:0])
	st.size, st.sealed = off, true
	return st.size, st.sum, nil
}

// put gives the draft its key, whose bytes nobody can have changed since Seal hashed them.
func (st *staged) put(ctx context.Context, key string, o storage.PutOptions) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.closed:
		return errClosed
	case !st.sealed:
		return errUnsealed
	case st.kept:
		return errKept
	case st.size != o.Size || st.sum != o.SHA256:
		return fmt.Errorf("%w: sealed with %d bytes and %x", storage.ErrDigest, st.size, st.sum)
	}
	if !st.done {
		if err := st.store.finish(st.d); err != nil {
			st.closed = true // what a failed sync has lost cannot be told: nothing of it may be used
			st.d.discard()
			return err
		}
		st.done = true
	}
	err := st.store.create(ctx, key, st.d)
	st.kept = err == nil || errors.Is(err, storage.ErrUnknown)
	return err
}

// Close implements [storage.Staged].
func (st *staged) Close() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.closed {
		st.closed = true
		st.d.discard()
	}
	return nil
}
