package dir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// room is the folder in which a process keeps what has no key. Holding its lock says that the process lives.
type room struct {
	name string
	dir  *os.File
}

var (
	roomName = regexp.MustCompile(`^\.tmp-[0-9a-f]{16}$`)
	roomFile = regexp.MustCompile(`^[dn][0-9]+$`)
)

// room returns the room of this Store, made on first use.
func (s *Store) room() (*room, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.own == nil {
		r, err := s.makeRoom()
		if err != nil {
			return nil, fault(err)
		}
		s.own = r
	}
	return s.own, nil
}

// makeRoom returns nil without an error when somebody's sweep took the new room for a dead one's, between
// its making and its locking.
func (s *Store) makeRoom() (*room, error) {
	var b [8]byte
	_, _ = rand.Read(b[:])
	name := ".tmp-" + hex.EncodeToString(b[:])
	if err := unix.Mkdirat(s.fd(), name, 0o755); err != nil {
		return nil, err
	}
	fd, err := openFolder(s.fd(), name)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &room{name, os.NewFile(uintptr(fd), filepath.Join(s.path, name))}
	err = again(func() error { return unix.Flock(fd, unix.LOCK_EX) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock (is this a local file system?): %w", err), r.dir.Close())
	}
	var st unix.Stat_t
	if err := unix.Fstatat(s.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, r.dir.Close()
	}
	return r, nil
}

func (r *room) fd() int { return int(r.dir.Fd()) }

// remove takes a file's name in the room away. The file may be an object already, under its key, and have
// been given its flag there by a reader: then it keeps it.
func (r *room) remove(name string) error {
	err := unix.Unlinkat(r.fd(), name, 0)
	if err != unix.EPERM {
		return err
	}
	b := branch{root: r.fd(), name: name}
	f, err := b.open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := b.unflagged(func() error { return unix.Unlinkat(r.fd(), name, 0) }); err != nil {
		return err
	}
	return setFlag(int(f.Fd()), true)
}

// next names a new file of the room.
func (s *Store) next(kind string) string { return kind + strconv.FormatUint(s.serial.Add(1), 10) }

// note leaves word, for the case that this process dies, that the flag of key is being changed. The note is
// taken back by the function returned.
func (s *Store) note(key string) (takeBack func(), err error) {
	if !s.flags || storage.Replaceable(key) {
		return func() {}, nil
	}
	r, err := s.room()
	if err != nil {
		return nil, err
	}
	name := s.next("n")
	if err := unix.Symlinkat(key, r.fd(), name); err != nil {
		return nil, fault(err)
	}
	return func() { _ = unix.Unlinkat(r.fd(), name, 0) }, nil
}

// sweep removes the rooms of processes that died, after it has set the flags that their notes ask for. What
// cannot be written to is left as it is.
func (s *Store) sweep() error {
	fd, err := openFolder(s.fd(), ".")
	if err != nil {
		return err
	}
	root := os.NewFile(uintptr(fd), s.path)
	defer func() { _ = root.Close() }()
	entries, err := root.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !roomName.MatchString(e.Name()) {
			continue
		}
		if err := s.sweepRoom(e.Name()); err != nil && !unwritable(err) {
			return fmt.Errorf("remove %s, left by a process that died: %w", e.Name(), err)
		}
	}
	return nil
}

func unwritable(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

func (s *Store) sweepRoom(name string) error {
	fd, err := openFolder(s.fd(), name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	r := &room{name, os.NewFile(uintptr(fd), filepath.Join(s.path, name))}
	err = again(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return r.dir.Close()
	}
	if err != nil {
		return errors.Join(err, r.dir.Close())
	}
	return s.clear(r)
}

// clear removes a room and what is ours in it, and ends its lock.
func (s *Store) clear(r *room) (err error) {
	defer func() { err = errors.Join(err, r.dir.Close()) }()
	names, err := r.dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		note := name[0] == 'n'
		if !roomFile.MatchString(name) || note && !s.flags {
			continue // a note waits for a process that can set flags
		}
		if note {
			s.heed(r, name)
		}
		if err := r.remove(name); err != nil && err != unix.ENOENT && err != unix.EISDIR {
			return err
		}
	}
	// A folder that is not empty holds what others have put there: it is listed, so that it is found.
	err = unix.Unlinkat(s.fd(), r.name, unix.AT_REMOVEDIR)
	if err == unix.ENOENT || err == unix.ENOTEMPTY {
		return nil
	}
	return err
}

// heed sets the flag of the object that a note names, if it is there: Get does that to what it opens.
func (s *Store) heed(r *room, name string) {
	buf := make([]byte, 1024)
	n, err := unix.Readlinkat(r.fd(), name, buf)
	if err != nil || storage.ValidKey(string(buf[:n])) != nil {
		return
	}
	if f, err := s.openObject(string(buf[:n])); err == nil {
		_ = f.Close()
	}
}
