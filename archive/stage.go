package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/marchesud/perenne/storage"
)

// heldBytes is up to which size a package under construction is held in memory; web.Config bounds how many there are.
const heldBytes = 256 << 10

// stage gives room for an object that will have about size bytes: memory for a small one, so that the store writes
// it in one piece; for others the store's own, where it lends some, so that the bytes are written once; else a
// nameless file under state/spool.
func (a *Archive) stage(ctx context.Context, size int64) (storage.Staged, error) {
	if size <= heldBytes {
		return &held{b: make([]byte, 0, size)}, nil
	}
	if s, ok := a.cfg.Store.(storage.Stager); ok {
		return s.Stage(ctx)
	}
	return a.spool()
}

// spool gives a nameless local file; it vanishes with the process.
func (a *Archive) spool() (storage.Staged, error) {
	dir := filepath.Join(a.cfg.State, "spool")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	f, err := os.CreateTemp(dir, "upload-")
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: %w", err), f.Close())
	}
	return &spooled{File: f}, nil
}

// held is a Staged in memory, for one goroutine.
type held struct{ b []byte }

func (h *held) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(h.b).ReadAt(p, off) }

func (h *held) WriteAt(p []byte, off int64) (int, error) {
	if missing := off + int64(len(p)) - int64(len(h.b)); missing > 0 {
		h.b = append(h.b, make([]byte, missing)...)
	}
	return copy(h.b[off:], p), nil
}

func (h *held) Seal(context.Context) (int64, [32]byte, error) {
	return int64(len(h.b)), sha256.Sum256(h.b), nil
}

func (h *held) Close() error { return nil }

// spooled is a Staged in a local file.
type spooled struct {
	*os.File
	closed bool
}

func (s *spooled) Seal(ctx context.Context) (int64, [32]byte, error) {
	info, err := s.Stat()
	if err != nil {
		return 0, [32]byte{}, fmt.Errorf("spool: %w", err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, &cancellable{ctx, io.NewSectionReader(s.File, 0, info.Size())}); err != nil {
		return 0, [32]byte{}, fmt.Errorf("spool: %w", err)
	}
	return info.Size(), [32]byte(h.Sum(nil)), nil
}

func (s *spooled) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return s.File.Close()
}

// cancellable stops a long copy when its context ends.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
