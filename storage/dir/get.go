package dir

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// Get implements [storage.Store]. The only version is "". An object that lacks the immutable flag gets it.
func (s *Store) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	if err := storage.ValidKey(key); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	if offset < 0 {
		return nil, fmt.Errorf("get %s: offset %d", key, offset)
	}
	f, err := s.get(ctx, key, version)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if n < 0 {
		n = math.MaxInt64
	}
	return &reader{ctx: ctx, f: f, part: io.NewSectionReader(f, offset, n)}, nil
}

func (s *Store) get(ctx context.Context, key, version string) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if version != "" {
		return nil, fmt.Errorf("%w: version %q", storage.ErrNotFound, version)
	}
	return s.openObject(key)
}

// openObject opens the regular file under a key and sees to its flag.
func (s *Store) openObject(key string) (*os.File, error) {
	b, err := s.branch(key, false)
	if err != nil {
		return nil, s.gone(err)
	}
	defer b.close()
	f, err := b.open()
	if err != nil {
		return nil, s.gone(err)
	}
	// A flag that cannot be set now is no reason not to read.
	if s.flags && !storage.Replaceable(key) {
		_ = setFlag(int(f.Fd()), true)
	}
	return f, nil
}

// open opens the file if it is a regular one: a pipe would stop its reader. ENOENT otherwise.
func (b *branch) open() (*os.File, error) {
	var fd int
	err := again(func() (err error) {
		fd, err = unix.Openat(b.folder(), b.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err == unix.ELOOP || err == unix.ENXIO {
		return nil, unix.ENOENT
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.ENOENT
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	_ = unix.SetNonblock(fd, false)
	return os.NewFile(uintptr(fd), b.name), nil
}

// reader reads a part of an object as long as its context lasts.
type reader struct {
	ctx  context.Context
	f    *os.File
	part *io.SectionReader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.part.Read(p)
}

func (r *reader) Close() error { return r.f.Close() }

// Stat implements [storage.Store].
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := storage.ValidKey(key); err != nil {
		return storage.Object{}, fmt.Errorf("stat: %w", err)
	}
	size, err := s.size(ctx, key)
	if err != nil {
		return storage.Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	v := storage.Version{Key: key, Size: size, Latest: true}
	return storage.Object{Key: key, Size: size, Versions: []storage.Version{v}}, nil
}

func (s *Store) size(ctx context.Context, key string) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	b, err := s.branch(key, false)
	if err != nil {
		return 0, s.gone(err)
	}
	defer b.close()
	st, err := b.stat()
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.ENOENT
	}
	if err != nil {
		return 0, s.gone(err)
	}
	return st.Size, nil
}
