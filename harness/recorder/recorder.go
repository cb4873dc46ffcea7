// Package recorder is a disk that remembers every write and every flush, in order, so that the disk can be made again
// as a power cut may have left it at any moment. It takes no device mapper: a FUSE file system with one file, held in
// memory, is the backing of a loop device, which has an ext4 on it. What ext4 writes to the device, and where it asks
// for a flush, is what the recorder sees.
//
// After a cut a disk has everything that was written before the last flush that ended, and of what was written since
// any part: nothing was promised for it. [Recorder.Image] makes three kinds of such disks: prefix, the writes up to a
// moment in order; drop, each write since the last flush there or not; torn, each such write cut at a sector, there or
// not.
//
// It takes root, /dev/fuse and loop devices, on Linux. A process that uses a recorder must not itself write to the file
// system on it: the kernel could wait for its memory.
package recorder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// sector is what a disk writes whole.
const sector = 512

// record is a write, or, without data, a flush.
type record struct {
	off  int64
	data []byte
}

// Recorder is a recorded disk with a mounted ext4.
type Recorder struct {
	// Mount is where the file system is.
	Mount string

	folder string
	loop   string
	server *fuse.Server

	mu      sync.Mutex
	disk    []byte
	base    []byte // as it was when the recording began
	records []record
}

// Open makes a disk of size bytes with an empty ext4, mounted below folder, which it makes.
func Open(ctx context.Context, folder string, size int64) (r *Recorder, err error) {
	r = &Recorder{folder: folder, Mount: filepath.Join(folder, "mnt"), disk: make([]byte, size)}
	fuseDir := filepath.Join(folder, "fuse")
	for _, d := range []string{r.Mount, fuseDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	r.server, err = fs.Mount(fuseDir, &rootNode{r: r}, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "recorder", MaxWrite: 1 << 20}})
	if err != nil {
		return r, fmt.Errorf("recorder: %w", err)
	}
	if err := keepToOurselves(); err != nil {
		return r, err
	}
	file := filepath.Join(fuseDir, "disk")
	if r.loop, err = attach(ctx, file); err != nil {
		return r, err
	}
	if err := command(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", r.loop); err != nil {
		return r, err
	}
	return r, command(ctx, "mount", "-t", "ext4", r.loop, r.Mount)
}

// keepToOurselves closes the connection to the kernel to children of this process, which the library forgets: if one of
// them outlived us holding it, whoever waits for the disk would wait for ever.
func keepToOurselves() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || to != "/dev/fuse" {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		syscall.CloseOnExec(fd)
	}
	return nil
}

func attach(ctx context.Context, file string) (string, error) {
	out, err := exec.CommandContext(ctx, "losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("losetup: %w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// Begin forgets what was recorded: everything on the file system now is on the disk for good.
func (r *Recorder) Begin(ctx context.Context) error {
	if err := command(ctx, "sync", "-f", r.Mount); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.base, r.records = append([]byte(nil), r.disk...), nil
	return nil
}

// Pos is the number of writes and flushes recorded so far. What was acknowledged before Pos was called must be on every
// image of that position or a later one.
func (r *Recorder) Pos() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.records)
}

// Counts are how many writes and flushes were recorded.
func (r *Recorder) Counts() (writes, flushes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.records {
		if rec.data == nil {
			flushes++
		} else {
			writes++
		}
	}
	return writes, flushes
}

// Close unmounts everything. It may be called after a failed Open.
func (r *Recorder) Close() error {
	ctx := context.Background()
	_ = exec.CommandContext(ctx, "umount", r.Mount).Run() // it may not be mounted
	var err error
	if r.loop != "" {
		err = command(ctx, "losetup", "-d", r.loop)
	}
	if r.server != nil {
		err = errors.Join(err, r.server.Unmount())
	}
	return err
}

// Kind is a kind of image.
type Kind string

// The kinds of images.
const (
	Prefix Kind = "prefix"
	Drop   Kind = "drop"
	Torn   Kind = "torn"
)

// Kinds are all of them.
var Kinds = []Kind{Prefix, Drop, Torn}

// Image is a disk after a power cut, mounted: its journal has been replayed.
type Image struct {
	Mount string
	// Checked: the file system had to be checked first.
	Checked bool

	file string
	loop string
}

// Image makes the disk as a power cut at position k may have left it, and mounts it below folder.
func (r *Recorder) Image(ctx context.Context, folder string, k int, kind Kind, random *rand.Rand) (im *Image, err error) {
	im = &Image{Mount: filepath.Join(folder, "mnt"), file: filepath.Join(folder, "image")}
	if err := os.MkdirAll(im.Mount, 0o700); err != nil {
		return nil, err
	}
	if err := writeSparse(im.file, r.after(k, kind, random)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, im.Close())
		}
	}()
	if im.loop, err = attach(ctx, im.file); err != nil {
		return im, err
	}
	err = command(ctx, "mount", "-t", "ext4", im.loop, im.Mount)
	if err != nil && kind == Torn {
		// Half of the superblock may be new: that is for the file system check, as at any boot.
		im.Checked = true
		_ = exec.CommandContext(ctx, "e2fsck", "-f", "-y", im.loop).Run() // its code says what it corrected
		err = command(ctx, "mount", "-t", "ext4", im.loop, im.Mount)
	}
	return im, err
}

// after is what the disk holds after a cut at k.
func (r *Recorder) after(k int, kind Kind, random *rand.Rand) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	disk := append([]byte(nil), r.base...)
	sure := k
	if kind != Prefix {
		for sure = k; sure > 0 && r.records[sure-1].data != nil; {
			sure--
		}
	}
	for _, rec := range r.records[:sure] {
		copy(disk[rec.off:], rec.data)
	}
	for _, rec := range r.records[sure:k] {
		if random.IntN(2) == 0 {
			continue
		}
		n := len(rec.data)
		if kind == Torn && n > sector {
			n = sector * random.IntN(n/sector+1)
		}
		copy(disk[rec.off:], rec.data[:n])
	}
	return disk
}

// writeSparse writes a disk, leaving out what is empty.
func writeSparse(path string, disk []byte) error {
	const block = 64 << 10
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	empty := make([]byte, block)
	err = f.Truncate(int64(len(disk)))
	for off := 0; off < len(disk) && err == nil; off += block {
		part := disk[off:min(off+block, len(disk))]
		if string(part) != string(empty[:len(part)]) {
			_, err = f.WriteAt(part, int64(off))
		}
	}
	return errors.Join(err, f.Close())
}

// Close unmounts the image and forgets it.
func (im *Image) Close() error {
	ctx := context.Background()
	_ = exec.CommandContext(ctx, "umount", im.Mount).Run() // it may not be mounted
	var err error
	if im.loop != "" {
		err = command(ctx, "losetup", "-d", im.loop)
	}
	return errors.Join(err, os.Remove(im.file))
}

// rootNode is the folder with the one file.
type rootNode struct {
	fs.Inode
	r *Recorder
}

// OnAdd implements [fs.NodeOnAdder].
func (n *rootNode) OnAdd(ctx context.Context) {
	n.AddChild("disk", n.NewPersistentInode(ctx, &diskNode{r: n.r}, fs.StableAttr{Mode: fuse.S_IFREG}), false)
}

// diskNode is the disk.
type diskNode struct {
	fs.Inode
	r *Recorder
}

var (
	_ fs.NodeOpener    = (*diskNode)(nil)
	_ fs.NodeReader    = (*diskNode)(nil)
	_ fs.NodeWriter    = (*diskNode)(nil)
	_ fs.NodeFsyncer   = (*diskNode)(nil)
	_ fs.NodeGetattrer = (*diskNode)(nil)
	_ fs.NodeSetattrer = (*diskNode)(nil)
)

// Open implements [fs.NodeOpener]. Nothing may be cached above: each write is seen when it is made.
func (n *diskNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

// Getattr implements [fs.NodeGetattrer].
func (n *diskNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o600, uint64(len(n.r.disk))
	return 0
}

// Setattr implements [fs.NodeSetattrer]: times and modes do not matter, and the size does not change.
func (n *diskNode) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.Getattr(ctx, f, out)
}

// Read implements [fs.NodeReader].
func (n *diskNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.r.mu.Lock()
	defer n.r.mu.Unlock()
	if off >= int64(len(n.r.disk)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, n.r.disk[off:])]), 0
}

// Write implements [fs.NodeWriter].
func (n *diskNode) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n.r.mu.Lock()
	defer n.r.mu.Unlock()
	if off+int64(len(data)) > int64(len(n.r.disk)) {
		return 0, syscall.ENOSPC
	}
	copy(n.r.disk[off:], data)
	n.r.records = append(n.r.records, record{off, append(make([]byte, 0, len(data)), data...)})
	return uint32(len(data)), 0
}

// Fsync implements [fs.NodeFsyncer]: a flush of the disk.
func (n *diskNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.r.mu.Lock()
	defer n.r.mu.Unlock()
	n.r.records = append(n.r.records, record{})
	return 0
}
