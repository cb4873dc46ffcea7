package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultWatermark leaves room for what Badger may write behind a change that was let through: the memory
// tables that wait, and one compaction.
const defaultWatermark = 64 << 20

// fileSizes remembers what the files took when they were last looked at, so that not every change walks
// the directory.
type fileSizes struct {
	use   int64 // bytes on the disk
	since int64 // bytes given to Badger since
}

// walkAfter is how many bytes are written between two looks at the directory.
const walkAfter = 4 << 20

// room tells, with ErrFull, when there is none for a change. Called under writing.
func (c *Catalog) room() error {
	free, err := freeBytes(c.o.Dir)
	if err != nil {
		return err
	}
	if free < c.o.Watermark {
		return fmt.Errorf("%w: %d bytes free on its file system, %d must be", ErrFull, free, c.o.Watermark)
	}
	if c.o.Quota <= 0 {
		return nil
	}
	if c.sizes.use == 0 || c.sizes.since >= walkAfter || c.sizes.use+c.sizes.since > c.o.Quota {
		c.sizes = fileSizes{use: diskUse(c.o.Dir)}
	}
	if c.sizes.use+c.sizes.since > c.o.Quota {
		return fmt.Errorf("%w: its files take %d bytes, the quota is %d", ErrFull, c.sizes.use, c.o.Quota)
	}
	return nil
}

func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// diskUse adds up the blocks of all files below dir: Badger's are sparse. Files that vanish meanwhile count
// nothing.
func diskUse(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				n += int64(st.Blocks) * 512
			}
		}
		return nil
	})
	return n
}

// empty tells whether dir is missing or holds nothing.
func empty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0
}

// lockFile takes an advisory lock that ends with the process, waiting for it or answering ErrInUse.
func lockFile(path string, wait bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrInUse
	}
	return nil, &os.PathError{Op: "flock", Path: path, Err: err}
}
