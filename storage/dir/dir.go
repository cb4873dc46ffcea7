// Package dir is a [storage.Store] in a folder of the local file system: the store of an installation that
// has one machine and nothing else.
//
// # Layout
//
// The object with key k is the regular file root/k, mode 0444, so that the store can be read, copied and
// compared with the ledger by anything that reads files. Beside the producers' folders the root holds only
// rooms: folders named ".tmp-" and 16 hexadecimal digits, one for each running process that needs one, each
// held by a lock (flock) of its process. In a room lie drafts, files named "d" and a number that have no key
// yet, and notes, symbolic links named "n" and a number whose target is the key of an object that is being
// given, or is losing, its immutable flag. A room whose lock is free belonged to a process that died: the
// next [Open] removes it, having set the flag of what its notes name; an Open that sets no flags leaves the
// notes to one that does. A draft is normally not even there: on file systems that know O_TMPFILE it has no
// name until it is whole, and dies with its process.
//
// # Order of effects
//
// Put writes a draft, hashing what it writes, compares size and digest, makes it read-only and syncs it;
// makes the folders of the key; links the draft to its final name, which fails if the name is taken and so
// decides between any number of writers; syncs the folder, and every folder above it up to the first whose
// own name this process knows to be durable; sets the immutable flag. A crash before the link leaves nothing
// under the key; one after it leaves the whole object, which is durable or gone. An object found in the way
// is synced in the same manner before ErrExists says that it is there. A draft whose sync failed is thrown
// away and nothing is tried twice: after a failed sync the kernel may call clean what it has lost. When the
// sync that fails is a folder's, after the link, the answer is ErrUnknown.
//
// # What it can prevent, and what not
//
// With the immutable flag (FS_IOC_SETFLAGS; ext4, xfs, btrfs, tmpfs and others; it takes CAP_LINUX_IMMUTABLE)
// an object cannot be written to, removed, renamed or linked, by root neither, until somebody with that
// capability clears the flag. It does not hold the folders: they can be renamed with all that is in them. It
// does not hold back who writes to the disk below the file system, nor who clears it on purpose. Objects that
// are [storage.Replaceable] never have it. Without it the store is "detection only": any process of the same
// user can do anything, and the audit finds it. A power cut can come between link and flag, so what lacks the
// flag is given it when it is read: an audit that reads everything sets it everywhere.
//
// The store keeps no dates (there is no [storage.Locker]): retention is the ledger's, and Erase wants to be
// told why. Key paths are walked folder by folder and no symbolic link is followed, so that none leads to
// another object or out of the root; in a listing a link, like anything else that is not a regular file, is an
// entry of size 0 under which Get finds no object. Names that are not ours are listed as they are.
//
// One host, any number of processes; never NFS. The root, and all below it, must be one file system.
package dir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// Options says how a store is opened.
type Options struct {
	// Immutable says whether objects get the immutable flag.
	Immutable Immutable
	// Crash is nil but in tests, which use it to die at a labelled step in the making of a key.
	Crash func(label, key string)
}

// Store is the folder. Its methods may be called concurrently, by several processes each with a Store of its own.
type Store struct {
	path      string
	root      *os.File
	immutable Immutable // as asked for
	flags     bool      // objects get the immutable flag
	unnamed   bool      // the file system knows O_TMPFILE, and /proc is there to link what it made

	// syncing is [fsync], apart from tests that watch it or let it fail.
	syncing func(fd int, name string) error
	crash   func(label, key string)

	mu      sync.Mutex
	own     *room            // made when first needed
	settled map[string]birth // folders whose names are known to be durable
	serial  atomic.Uint64    // of names in the room
}

var (
	_ storage.Store     = (*Store)(nil)
	_ storage.Eraser    = (*Store)(nil)
	_ storage.Restorer  = (*Store)(nil)
	_ storage.Replacer  = (*Store)(nil)
	_ storage.Stager    = (*Store)(nil)
	_ storage.Protector = (*Store)(nil)
)

// Open opens the folder root, made if it is missing (mode 0755; its parent must exist), and clears away what
// processes that died have left there. A root that cannot be written to is opened all the same: it can be
// read, and every other method says why it fails. Immutable On where the flag cannot be set is an error.
func Open(root string, o Options) (*Store, error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", root, err)
	}
	if err := makeRoot(path); err != nil {
		return nil, fmt.Errorf("open store %s: %w", root, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if o.Crash == nil {
		o.Crash = func(string, string) {}
	}
	s := &Store{path: path, root: f, immutable: o.Immutable, syncing: fsync, crash: o.Crash, settled: map[string]birth{}}
	if err := s.start(o.Immutable); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open store %s: %w", root, err)
	}
	return s, nil
}

// makeRoot makes the root's own name durable when it had to be made.
func makeRoot(path string) error {
	err := os.Mkdir(path, 0o755)
	if errors.Is(err, os.ErrExist) || errors.Is(err, unix.EROFS) {
		return nil
	}
	if err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// start finds out what this file system and this process can do, and sweeps.
func (s *Store) start(wanted Immutable) error {
	able, err := s.probe(wanted)
	if err != nil {
		return err
	}
	s.flags = able
	return s.sweep()
}

// probe tries a draft and the flag on it. Where nothing can be written there is nothing to be found out.
func (s *Store) probe(wanted Immutable) (flags bool, err error) {
	if fd, err := openUnnamed(s.fd()); err == nil {
		s.unnamed = linkable(fd)
		_ = unix.Close(fd)
	}
	if wanted == Off {
		return false, nil
	}
	d, err := s.newDraft()
	if err != nil {
		if wanted == On {
			return false, fmt.Errorf("immutable flag: %w", err)
		}
		return false, nil
	}
	defer d.discard()
	err = setFlag(d.fd(), true)
	if err == nil {
		err = setFlag(d.fd(), false)
	}
	if err != nil && wanted == On {
		return false, fmt.Errorf("immutable flag (it takes a file system that knows it, and CAP_LINUX_IMMUTABLE): %w", err)
	}
	return err == nil, nil
}

// Protection implements [storage.Protector].
func (s *Store) Protection() string {
	if s.flags {
		return "immutable flag"
	}
	return "detection only"
}

// Close gives back the room and the folder. No method may be called afterwards, nor be running. A Store that
// is not closed leaves an empty room behind, which the next Open removes.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.own != nil {
		err = s.clear(s.own)
		s.own = nil
	}
	if err := errors.Join(err, s.root.Close()); err != nil {
		return fmt.Errorf("close store %s: %w", s.path, err)
	}
	return nil
}

// fd is the root's descriptor, never moved from by reading through it.
func (s *Store) fd() int { return int(s.root.Fd()) }

// alive tells an empty store from one that is gone: a folder that was removed or replaced under the Store
// must not answer "no such object" to everything.
func (s *Store) alive() error {
	var held, named unix.Stat_t
	if err := unix.Fstat(s.fd(), &held); err != nil {
		return fmt.Errorf("root of the store: %w", err)
	}
	if err := again(func() error { return unix.Stat(s.path, &named) }); err != nil {
		return fmt.Errorf("root of the store %s has vanished: %w", s.path, err)
	}
	if held.Ino != named.Ino || held.Dev != named.Dev {
		return fmt.Errorf("root of the store %s is another folder than the one opened", s.path)
	}
	return nil
}

// fault gives the errors of a full disk their meaning.
func fault(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	return err
}

// again repeats a system call that a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
