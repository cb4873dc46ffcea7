package dir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// chunk is how much is held in memory of an object, and written between two looks at the context.
const chunk = 256 << 10

// draft is a file that has no key yet.
type draft struct {
	f    *os.File
	room *room  // of a draft that has a name there
	name string // in the room; "" while it has none at all
}

func (d *draft) fd() int { return int(d.f.Fd()) }

func (s *Store) newDraft() (*draft, error) {
	if s.unnamed {
		fd, err := openUnnamed(s.fd())
		if err != nil {
			return nil, fault(err)
		}
		return &draft{f: os.NewFile(uintptr(fd), "draft")}, nil
	}
	r, err := s.room()
	if err != nil {
		return nil, err
	}
	name := s.next("d")
	var fd int
	err = again(func() (err error) {
		fd, err = unix.Openat(r.fd(), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return nil, fault(err)
	}
	return &draft{f: os.NewFile(uintptr(fd), "draft"), room: r, name: name}, nil
}

// discard closes the draft and takes away its name in the room, if it still has one.
func (d *draft) discard() {
	d.unname()
	_ = d.f.Close()
}

func (d *draft) unname() {
	if d.name != "" {
		_ = d.room.remove(d.name)
		d.name = ""
	}
}

// fill writes r[0:size] to the draft and returns its digest; ErrDigest when r has less.
func (d *draft) fill(ctx context.Context, r io.ReaderAt, size int64) (sum [32]byte, err error) {
	h := sha256.New()
	buf := make([]byte, min(chunk, size))
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		n, err := r.ReadAt(buf[:min(chunk, size-off)], off)
		if n > 0 {
			_, _ = h.Write(buf[:n])
			if _, err := d.f.Write(buf[:n]); err != nil {
				return sum, fault(err)
			}
			off += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF) && off < size:
			return sum, fmt.Errorf("%w: %d bytes, want %d", storage.ErrDigest, off, size)
		case err != nil && !errors.Is(err, io.EOF):
			return sum, fmt.Errorf("read the bytes to store: %w", err)
		case n == 0:
			return sum, fmt.Errorf("read the bytes to store: %w", io.ErrNoProgress)
		}
	}
	h.Sum(sum[:0])
	return sum, ctx.Err()
}

// finish makes the draft's bytes durable and read-only.
func (s *Store) finish(d *draft) error {
	if err := again(func() error { return unix.Fchmod(d.fd(), 0o444) }); err != nil {
		return fault(err)
	}
	if err := s.syncing(d.fd(), "draft"); err != nil {
		return fault(fmt.Errorf("sync: %w", err))
	}
	return nil
}

// copied returns a finished draft of exactly the bytes that o announces.
func (s *Store) copied(ctx context.Context, r io.ReaderAt, o storage.PutOptions) (*draft, error) {
	if o.Size < 0 {
		return nil, fmt.Errorf("%w: size %d", storage.ErrDigest, o.Size)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d, err := s.newDraft()
	if err != nil {
		return nil, err
	}
	sum, err := d.fill(ctx, r, o.Size)
	if err == nil && sum != o.SHA256 {
		err = fmt.Errorf("%w: %x, want %x", storage.ErrDigest, sum, o.SHA256)
	}
	if err == nil {
		err = s.finish(d)
	}
	if err != nil {
		d.discard()
		return nil, err
	}
	return d, nil
}

// link gives the draft its final name; EEXIST when that is taken.
func (d *draft) link(folder int, name string) error {
	if d.name == "" {
		return linkUnnamed(d.fd(), folder, name)
	}
	if err := unix.Linkat(d.room.fd(), d.name, folder, name, 0); err != nil {
		return err
	}
	d.unname()
	return nil
}

// enter gives the draft a name in the room, from where it can be renamed.
func (s *Store) enter(d *draft) error {
	if d.name != "" {
		return nil
	}
	r, err := s.room()
	if err != nil {
		return err
	}
	name := s.next("d")
	if err := linkUnnamed(d.fd(), r.fd(), name); err != nil {
		return fault(err)
	}
	d.room, d.name = r, name
	return nil
}
