package dir

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// deepest is how many folders below each other a listing enters; no key has more. What lies deeper was put
// there by somebody else, and its folder is listed in its stead.
const deepest = 400

// List implements [storage.Store]. It reads the folders that can hold what is asked for, one at a time, and
// holds the names of one folder per level in memory.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		w := &walk{ctx: ctx, store: s, prefix: prefix, after: after, yield: yield}
		if err := w.run(); err != nil {
			yield(storage.Version{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

type walk struct {
	ctx           context.Context
	store         *Store
	prefix, after string
	yield         func(storage.Version, error) bool
	ended         bool // the caller wants no more
}

// run opens the folder that the prefix names and walks it.
func (w *walk) run() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if err := w.store.alive(); err != nil {
		return err
	}
	fd, err := openFolder(w.store.fd(), ".")
	if err != nil {
		return err
	}
	path := w.prefix[:strings.LastIndexByte(w.prefix, '/')+1]
	depth := 0
	for name := range strings.SplitSeq(path, "/") {
		if name == "" && depth == strings.Count(path, "/") {
			break
		}
		if name == "" || name == "." || name == ".." || strings.IndexByte(name, 0) >= 0 || depth > deepest {
			return unix.Close(fd)
		}
		below, err := openFolder(fd, name)
		_ = unix.Close(fd)
		switch err {
		case nil:
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG:
			return nil
		default:
			return err
		}
		fd, depth = below, depth+1
	}
	return w.folder(fd, path, depth)
}

// folder lists what lies below an open folder, which it closes. path is "" or ends in a slash.
func (w *walk) folder(fd int, path string, depth int) error {
	dir := os.NewFile(uintptr(fd), filepath.Join(w.store.path, path))
	defer func() { _ = dir.Close() }()
	names, err := w.names(dir, path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if below, ok := strings.CutSuffix(name, "/"); ok && depth < deepest {
			err = w.enter(fd, below, path+name, depth+1)
		} else {
			err = w.object(fd, below, path+name)
		}
		if err != nil || w.ended {
			return err
		}
	}
	return nil
}

// names returns the entries of a folder that matter, folders with a slash at their end, in the order of the
// keys below them: "a-b" and "a.b" come before what is in "a", since '-' and '.' come before '/'.
func (w *walk) names(dir *os.File, path string) ([]string, error) {
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	inRoom := roomName.MatchString(strings.TrimSuffix(path, "/"))
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		key := path + e.Name()
		switch {
		case inRoom && !e.IsDir() && roomFile.MatchString(e.Name()):
			continue
		case e.IsDir():
			key += "/"
			if !strings.HasPrefix(key, w.prefix) && !strings.HasPrefix(w.prefix, key) ||
				key < w.after && !strings.HasPrefix(w.after, key) {
				continue
			}
		case !strings.HasPrefix(key, w.prefix) || key <= w.after:
			continue
		}
		names = append(names, key[len(path):])
	}
	slices.Sort(names)
	return names, nil
}

// enter lists a folder below an open one; one that was removed meanwhile is empty.
func (w *walk) enter(at int, name, path string, depth int) error {
	fd, err := openFolder(at, name)
	switch err {
	case nil:
		return w.folder(fd, path, depth)
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}

// object lists an entry that is not a folder; one that was removed meanwhile is not there.
func (w *walk) object(at int, name, key string) error {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	v := storage.Version{Key: key, Latest: true}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		v.Size = st.Size
	}
	w.ended = !w.yield(v, nil)
	return nil
}
