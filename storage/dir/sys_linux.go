package dir

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h.
const immutableFlag = 0x10

// openUnnamed opens a new file without a name in the file system of a folder.
func openUnnamed(folder int) (fd int, err error) {
	err = again(func() error {
		fd, err = unix.Openat(folder, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		return err
	})
	return fd, err
}

// self is where an open file can be found by name, which linking it takes without CAP_DAC_READ_SEARCH.
func self(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// linkable tells whether an unnamed file can be given a name here.
func linkable(fd int) bool {
	var st unix.Stat_t
	return unix.Stat(self(fd), &st) == nil
}

// linkUnnamed gives an unnamed file its first name; EEXIST when that is taken.
func linkUnnamed(fd, folder int, name string) error {
	return unix.Linkat(unix.AT_FDCWD, self(fd), folder, name, unix.AT_SYMLINK_FOLLOW)
}

func fsync(fd int, _ string) error {
	return again(func() error { return unix.Fsync(fd) })
}

func hasFlag(fd int) (bool, error) {
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	return flags&immutableFlag != 0, err
}

func setFlag(fd int, on bool) error {
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	want := flags &^ immutableFlag
	if on {
		want |= immutableFlag
	}
	if want == flags {
		return nil
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, want)
}

// birth tells a folder from any other that ever had its path: file systems give a removed folder's inode
// number to the next one.
type birth struct {
	dev, ino  uint64
	sec, nsec int64
}

// born returns a folder's birth; false where the file system does not tell.
func born(fd int) (birth, bool) {
	var st unix.Statx_t
	err := again(func() error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st)
	})
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return birth{}, false
	}
	return birth{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, st.Btime.Sec, int64(st.Btime.Nsec)}, true
}

// kinds are the file systems that are more, or less, than a disk of this machine, by the magic of statfs(2).
var kinds = map[uint32]kind{
	0x6969:     {"NFS", true},
	0x517b:     {"SMB", true},
	0xff534d42: {"CIFS", true},
	0xfe534d42: {"SMB2", true},
	0x00c36400: {"Ceph", true},
	0x5346414f: {"AFS", true},
	0x6b414653: {"AFS", true},
	0x73757245: {"Coda", true},
	0x564c:     {"NCP", true},
	0x01021997: {"9P", true},
	0x0bd00bd0: {"Lustre", true},
	0x47504653: {"GPFS", true},
	0x7461636f: {"OCFS2", true},
	0x01161970: {"GFS2", true},
	0x786f4256: {"VirtualBox shared folders", true},
	0x65735546: {"FUSE, which may lead anywhere", false},
	0x794c7630: {"overlayfs: in a container its upper layer goes with the container", false},
	0x01021994: {"tmpfs: it is gone when the machine is switched off", false},
	0x858458f6: {"ramfs: it is gone when the machine is switched off", false},
}

func fileSystem(fd int) (kind, error) {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return kind{}, err
	}
	return kinds[uint32(st.Type)], nil //nolint:gosec // the magic numbers have 32 bits; some systems extend their sign
}
