package dir

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// branch is the chain of open folders from the root to the one that holds a key's file. Each step opens one
// name and follows no link.
type branch struct {
	root  int
	paths []string // of the folders below the root, from the top
	fds   []int
	name  string // of the file
}

// branch opens the folders of a key, making those that are missing if create says so. What it returns besides
// fault's errors is ENOENT for a missing folder and ErrKey for a folder's name that something else has.
func (s *Store) branch(key string, create bool) (*branch, error) {
	b := &branch{root: s.fd()}
	rest := key
	for {
		name, after, more := strings.Cut(rest, "/")
		if !more {
			b.name = rest
			return b, nil
		}
		rest = after
		fd, err := openFolder(b.folder(), name)
		if create && err == unix.ENOENT {
			if err = unix.Mkdirat(b.folder(), name, 0o755); err == nil || err == unix.EEXIST {
				fd, err = openFolder(b.folder(), name)
			}
		}
		path := key[:len(key)-len(rest)-1]
		if err != nil {
			b.close()
			if err == unix.ENOTDIR || err == unix.ELOOP {
				return nil, fmt.Errorf("%w: %s is not a folder", storage.ErrKey, path)
			}
			return nil, fault(err)
		}
		b.fds, b.paths = append(b.fds, fd), append(b.paths, path)
	}
}

func openFolder(at int, name string) (fd int, err error) {
	err = again(func() error {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// folder is the one that holds the file, or the deepest that is open yet.
func (b *branch) folder() int { return b.above(len(b.fds)) }

// above is the folder that holds the i-th folder's name.
func (b *branch) above(i int) int {
	if i == 0 {
		return b.root
	}
	return b.fds[i-1]
}

// path is the key's part that names above(i).
func (b *branch) path(i int) string {
	if i == 0 {
		return ""
	}
	return b.paths[i-1]
}

func (b *branch) close() {
	for _, fd := range b.fds {
		_ = unix.Close(fd)
	}
}

// stat looks at the file itself, not at what a link points to.
func (b *branch) stat() (unix.Stat_t, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(b.folder(), b.name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// settledLimit bounds the memory of durable folders; past it everything is synced once more.
const settledLimit = 1 << 16

// settle makes the file's name durable: it syncs the file's folder, then each folder above whose entry for
// the one below is not known to be durable. That another process has made a folder does not mean that it
// has synced it yet, so what this process found there is synced once like what it made.
func (s *Store) settle(b *branch) error {
	i := len(b.fds)
	if err := s.syncing(b.folder(), b.path(i)); err != nil {
		return err
	}
	births := make(map[string]birth, i)
	for ; i > 0; i-- {
		id, known := born(b.fds[i-1])
		if known && s.isSettled(b.paths[i-1], id) {
			break
		}
		if err := s.syncing(b.above(i-1), b.path(i-1)); err != nil {
			return err
		}
		if known {
			births[b.paths[i-1]] = id
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.settled) > settledLimit {
		clear(s.settled)
	}
	for path, id := range births {
		s.settled[path] = id
	}
	return nil
}

func (s *Store) isSettled(path string, id birth) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.settled[path]
	return ok && was == id
}

// gone gives a lookup's error its meaning: nothing lies under the key, unless the store itself is gone.
func (s *Store) gone(err error) error {
	if err == unix.ENOENT || err == unix.ENOTDIR || errors.Is(err, storage.ErrKey) {
		if err := s.alive(); err != nil {
			return err
		}
		return storage.ErrNotFound
	}
	return err
}
