package dir

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// Erase implements [storage.Eraser]: it clears the flag, removes the file and the folders that it leaves
// empty. ErrLocked when there is a flag that this process may not clear.
func (s *Store) Erase(ctx context.Context, key, version, why string) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	err := ctx.Err()
	switch {
	case err != nil:
	case why == "":
		err = errors.New("no reason given")
	case version != "":
		err = fmt.Errorf("%w: version %q", storage.ErrNotFound, version)
	default:
		err = s.erase(key)
	}
	if err != nil {
		return fmt.Errorf("erase %s: %w", key, err)
	}
	return nil
}

func (s *Store) erase(key string) error {
	b, err := s.branch(key, false)
	if err != nil {
		return s.gone(err)
	}
	defer b.close()
	if st, err := b.stat(); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return storage.ErrNotFound
	}
	takeBack, err := s.note(key)
	if err != nil {
		return err
	}
	defer takeBack()
	err = b.unflagged(func() error { return unix.Unlinkat(b.folder(), b.name, 0) })
	if err != nil {
		return s.gone(err)
	}
	if err := s.syncing(b.folder(), b.path(len(b.fds))); err != nil {
		return fmt.Errorf("%w: sync of the folder: %w", storage.ErrUnknown, err)
	}
	return s.prune(b)
}

// unflagged does what the immutable flag forbids, having cleared it; another process that reads the object
// may set it again in between.
func (b *branch) unflagged(change func() error) error {
	var err error
	for range tries {
		if err = b.clearFlag(); err != nil {
			return err
		}
		if err = change(); err != unix.EPERM {
			return err
		}
	}
	return fmt.Errorf("%w: %w", storage.ErrLocked, err)
}

// clearFlag clears the flag of a regular file that has it.
func (b *branch) clearFlag() error {
	f, err := b.open()
	if err != nil {
		return nil // no object, or one that cannot be read: the change itself says what is wrong
	}
	defer func() { _ = f.Close() }()
	on, err := hasFlag(int(f.Fd()))
	if err != nil || !on {
		return nil // a file system without flags
	}
	if err := setFlag(int(f.Fd()), false); err != nil {
		return fmt.Errorf("%w: immutable flag: %w", storage.ErrLocked, err)
	}
	return nil
}

// prune removes the folders that are empty now, from below, each durably before the next.
func (s *Store) prune(b *branch) error {
	for i := len(b.fds); i > 0; i-- {
		name := b.path(i)[len(b.path(i-1)):]
		if i > 1 {
			name = name[1:]
		}
		switch err := unix.Unlinkat(b.above(i-1), name, unix.AT_REMOVEDIR); err {
		case nil:
		case unix.ENOTEMPTY, unix.EEXIST, unix.ENOENT, unix.EACCES, unix.EPERM:
			return nil
		default:
			return fmt.Errorf("remove the empty folder %s: %w", b.path(i), err)
		}
		if err := s.syncing(b.above(i-1), b.path(i-1)); err != nil {
			return fmt.Errorf("%w: sync of the folder: %w", storage.ErrUnknown, err)
		}
	}
	return nil
}
