package spool

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/marchesud/perenne/storage"
)

// staging is a Staged of held/, whose bytes count towards the quota while they come.
type staging struct {
	storage.Staged
	spool *Spool

	mu    sync.Mutex // held by a Put, and by what grows it
	size  int64      // counted so far
	named bool       // held under a name: a second copy is made by copying
	kept  bool       // put
	done  bool       // no longer counted
}

var errKept = errors.New("staged object was put already")

// Stage implements [storage.Stager]: what is staged is written to the spool, once.
func (s *Spool) Stage(ctx context.Context) (storage.Staged, error) {
	if err := s.room(0, false); err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	st, err := s.local.Stage(ctx)
	if err != nil {
		return nil, err
	}
	return &staging{Staged: st, spool: s}, nil
}

func (st *staging) WriteAt(p []byte, off int64) (int, error) {
	if err := st.grow(off + int64(len(p))); err != nil {
		return 0, err
	}
	return st.Staged.WriteAt(p, off)
}

// grow counts the bytes up to end.
func (st *staging) grow(end int64) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	more := end - st.size
	if more <= 0 || st.done {
		return nil
	}
	if err := st.spool.room(more, false); err != nil {
		return fmt.Errorf("write to a staged object: %w", err)
	}
	st.size = end
	st.spool.count(more)
	return nil
}

// uncount ends the counting. The caller holds mu.
func (st *staging) uncount() {
	if !st.done {
		st.done = true
		st.spool.count(-st.size)
	}
}

// Close implements [storage.Staged].
func (st *staging) Close() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.uncount()
	return st.Staged.Close()
}

// count adds to the bytes under construction.
func (s *Spool) count(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staged += n
}
