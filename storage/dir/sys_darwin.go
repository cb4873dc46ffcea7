package dir

import "golang.org/x/sys/unix"

// Darwin has neither files without a name nor a flag that stops the superuser; this file is for developers.

func openUnnamed(int) (int, error)       { return -1, unix.ENOTSUP }
func linkable(int) bool                  { return false }
func linkUnnamed(int, int, string) error { return unix.ENOTSUP }
func hasFlag(int) (bool, error)          { return false, nil }
func setFlag(_ int, on bool) error       { return map[bool]error{true: unix.ENOTSUP}[on] }
func born(int) (birth, bool)             { return birth{}, false }

// fsync asks the drive itself, which fsync alone does not do here.
func fsync(fd int, _ string) error {
	return again(func() error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0)
		return err
	})
}

type birth struct{}

func fileSystem(int) (kind, error) { return kind{name: "a file system of macOS, for developers"}, nil }
