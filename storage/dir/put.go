package dir

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// tries bounds how often an operation begins again because another process moved beneath it: a folder that
// was removed as empty, a flag that was set again. Each try takes such an event of its own.
const tries = 100

// Put implements [storage.Store]. A [storage.Staged] of this Store is given the key itself; any other reader
// is copied.
func (s *Store) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	if err := s.put(ctx, key, r, o); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.alive(); err != nil {
		return err
	}
	if err := s.vacant(key); err != nil {
		return err
	}
	if st, ok := r.(*staged); ok && st.store == s {
		return st.put(ctx, key, o)
	}
	d, err := s.copied(ctx, r, o)
	if err != nil {
		return err
	}
	defer d.discard()
	return s.create(ctx, key, d)
}

// create links a finished draft to its key, for good.
func (s *Store) create(ctx context.Context, key string, d *draft) error {
	takeBack, err := s.note(key)
	if err != nil {
		return err
	}
	defer takeBack()
	s.crash("dir.drafted", key) // leaves nothing under the key
	for range tries {
		if err = ctx.Err(); err != nil {
			return err
		}
		if err = s.link(key, d); err != unix.ENOENT {
			return err
		}
	}
	return errors.Join(s.alive(), fmt.Errorf("link, after %d folders were removed in its way: %w", tries, err))
}

// link makes the key's folders and the object in them; ENOENT when a folder was removed meanwhile.
func (s *Store) link(key string, d *draft) error {
	b, err := s.branch(key, true)
	if err != nil {
		return err
	}
	defer b.close()
	switch err := d.link(b.folder(), b.name); {
	case err == unix.EEXIST:
		return s.occupied(b)
	case err == unix.ENOENT:
		return err
	case err != nil:
		return fault(fmt.Errorf("link: %w", err))
	}
	s.crash("dir.linked", key) // leaves the whole object, or after a power cut nothing
	if err := s.settle(b); err != nil {
		return fmt.Errorf("%w: sync of the folder: %w", storage.ErrUnknown, err)
	}
	s.crash("dir.settled", key) // leaves the object, perhaps without its flag
	return s.protect(key, d.fd())
}

// protect sets the flag of an object that is durable. That it can be set was found out by Open: where it
// cannot be set now, something is wrong that the caller should know, although the object is there.
func (s *Store) protect(key string, fd int) error {
	if !s.flags || storage.Replaceable(key) {
		return nil
	}
	if err := setFlag(fd, true); err != nil {
		return fmt.Errorf("%w: created, but not made immutable: %w", storage.ErrUnknown, err)
	}
	return nil
}

// vacant says, before bytes are copied in vain, that a key is taken already.
func (s *Store) vacant(key string) error {
	b, err := s.branch(key, false)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.close()
	if err := s.occupied(b); err != unix.ENOENT {
		return err
	}
	return nil
}

// occupied says what lies under a key, having made it durable if it is an object: ErrExists promises that.
func (s *Store) occupied(b *branch) error {
	st, err := b.stat()
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fmt.Errorf("%w: it is the folder of other objects", storage.ErrKey)
	case unix.S_IFREG:
	default:
		return fmt.Errorf("%w: something that is not a file", storage.ErrExists)
	}
	f, err := b.open()
	if err == unix.ENOENT {
		return err
	}
	if err != nil {
		return fmt.Errorf("open the object that is there: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := s.syncing(int(f.Fd()), "found"); err != nil {
		return fmt.Errorf("sync of the object that is there: %w", err)
	}
	if err := s.settle(b); err != nil {
		return fmt.Errorf("sync of the folder: %w", err)
	}
	return storage.ErrExists
}
