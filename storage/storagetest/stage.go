package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/marchesud/perenne/storage"
)

// memStaged is the Staged of a Mem.
type memStaged struct {
	mu     sync.RWMutex
	data   []byte
	sealed bool
	put    bool
	closed func()
}

// Stage implements [storage.Stager].
func (m *Mem) Stage(ctx context.Context) (storage.Staged, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memStaged{closed: m.lend("stage")}, nil
}

func (s *memStaged) ReadAt(p []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return bytes.NewReader(s.data).ReadAt(p, off)
}

func (s *memStaged) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed {
		return 0, errors.New("write to a sealed object")
	}
	if off < 0 {
		return 0, fmt.Errorf("write at offset %d", off)
	}
	if end := off + int64(len(p)); end > int64(len(s.data)) {
		s.data = append(s.data, make([]byte, end-int64(len(s.data)))...)
	}
	return copy(s.data[off:], p), nil
}

func (s *memStaged) Seal(ctx context.Context) (int64, [32]byte, error) {
	if err := ctx.Err(); err != nil {
		return 0, [32]byte{}, fmt.Errorf("seal: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = true
	return int64(len(s.data)), sha256.Sum256(s.data), nil
}

// ready says why the object cannot be put, if so.
func (s *memStaged) ready() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.sealed {
		return errors.New("staged object is not sealed")
	}
	if s.put {
		return errors.New("staged object was put already")
	}
	return nil
}

func (s *memStaged) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put = true
}

func (s *memStaged) Close() error {
	s.closed()
	return nil
}

var _ io.WriterAt = (*memStaged)(nil)
