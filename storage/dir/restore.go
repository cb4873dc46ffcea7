package dir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// Restore implements [storage.Restorer].
func (s *Store) Restore(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	right, err := s.has(ctx, key, o)
	if err == nil && !right {
		err = s.overwrite(ctx, key, r, o)
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", key, err)
	}
	return nil
}

// Replace implements [storage.Replacer].
func (s *Store) Replace(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	if !storage.Replaceable(key) {
		return fmt.Errorf("replace %s: %w: not a derived object", key, storage.ErrKey)
	}
	if err := s.overwrite(ctx, key, r, o); err != nil {
		return fmt.Errorf("replace %s: %w", key, err)
	}
	return nil
}

// has tells whether the bytes that o announces lie under key, and makes them durable if they do. Bytes that
// cannot be read are not there.
func (s *Store) has(ctx context.Context, key string, o storage.PutOptions) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := s.alive(); err != nil {
		return false, err
	}
	r, err := s.Get(ctx, key, "", 0, -1)
	if err != nil {
		return false, nil
	}
	defer func() { _ = r.Close() }()
	h := sha256.New()
	n, err := io.CopyBuffer(h, r, make([]byte, chunk))
	if err != nil || n != o.Size || [32]byte(h.Sum(nil)) != o.SHA256 {
		return false, ctx.Err()
	}
	err = s.vacant(key)
	if errors.Is(err, storage.ErrExists) {
		return true, nil
	}
	return false, err
}

// overwrite makes key hold the bytes that o announces, in one step from whatever lies there.
func (s *Store) overwrite(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if err := s.alive(); err != nil {
		return err
	}
	d, err := s.copied(ctx, r, o)
	if err != nil {
		return err
	}
	defer d.discard()
	if err := s.enter(d); err != nil {
		return err
	}
	takeBack, err := s.note(key)
	if err != nil {
		return err
	}
	defer takeBack()
	for range tries {
		if err = s.rename(key, d); err != unix.ENOENT {
			return err
		}
	}
	return fmt.Errorf("rename, after %d folders were removed in its way: %w", tries, err)
}

// rename moves a draft over the key; ENOENT when a folder was removed meanwhile.
func (s *Store) rename(key string, d *draft) error {
	b, err := s.branch(key, true)
	if err != nil {
		return err
	}
	defer b.close()
	err = b.unflagged(func() error { return unix.Renameat(d.room.fd(), d.name, b.folder(), b.name) })
	switch err {
	case nil:
	case unix.ENOENT:
		return err
	case unix.EISDIR, unix.ENOTEMPTY, unix.EEXIST:
		return fmt.Errorf("%w: it is the folder of other objects", storage.ErrKey)
	default:
		return fault(fmt.Errorf("rename: %w", err))
	}
	d.name = ""
	s.crash("dir.renamed", key) // leaves the old bytes or the new ones
	if err := s.settle(b); err != nil {
		return fmt.Errorf("%w: sync of the folder: %w", storage.ErrUnknown, err)
	}
	return s.protect(key, d.fd())
}
