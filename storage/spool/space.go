package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

const (
	// most bounds the objects held: each costs an inode and some 400 bytes of memory.
	most = 1 << 20
)

// frees reports whether an object may use the room that is kept for what frees the rest: commits and seals. A
// package is given up when it is sealed, and no seal is made without them.
func frees(key string) bool {
	room, rest, _ := strings.Cut(key, "/")
	return room == "evidence" || strings.HasPrefix(rest, "ledger/")
}

// room answers ErrFull when n bytes more have no room.
func (s *Spool) room(n int64, privileged bool) error {
	s.mu.Lock()
	bytes, objects := s.opt.Quota, int64(most)
	if privileged {
		bytes, objects = bytes+bytes/8, objects+objects/8
	}
	over := s.bytes+s.staged+n > bytes || s.bytes+s.staged >= bytes || s.objects >= objects
	first := over && !s.full && !privileged
	s.full = s.full || first
	held, count := s.bytes, s.objects
	s.mu.Unlock()
	if first {
		s.opt.Log.Error("spool is full: nothing is accepted until objects were sealed and read back from the store",
			slog.Int64("bytes", held), slog.Int64("objects", count), slog.Int64("quota", s.opt.Quota))
	}
	if over {
		return fmt.Errorf("quota of the spool reached: %w", storage.ErrFull)
	}
	return s.watermark(n, privileged)
}

// watermark answers ErrFull when the file system would be left with less than the reserve.
func (s *Spool) watermark(n int64, privileged bool) error {
	free, err := s.opt.Free()
	if err != nil {
		return err
	}
	keep := s.opt.Reserve
	if privileged {
		keep /= 4
	}
	if free-n >= keep {
		return nil
	}
	if privileged && s.giveBallast() {
		if free, err = s.opt.Free(); err == nil && free-n >= keep {
			return nil
		}
	}
	return fmt.Errorf("%d bytes free where %s lies, %d are kept free: %w", free, s.opt.Dir, keep, storage.ErrFull)
}

func (s *Spool) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.opt.Dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", s.opt.Dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

func (s *Spool) ballast() string { return filepath.Join(s.opt.Dir, "ballast") }

// giveBallast makes room by removing the ballast and reports whether there was one.
func (s *Spool) giveBallast() bool {
	err := os.Remove(s.ballast())
	if err == nil {
		s.opt.Log.Error("disk is full: the spool gave up its ballast; make room now", slog.String("dir", s.opt.Dir), slog.Int64("bytes", s.opt.Ballast))
	}
	return err == nil
}

// tend gives up the ballast when the disk is full, makes it again when there is room, and says when objects can be
// taken again.
func (s *Spool) tend() {
	free, err := s.opt.Free()
	if err != nil {
		s.opt.Log.Error("spool", slog.Any("err", err))
		return
	}
	_, err = os.Stat(s.ballast())
	switch {
	case err == nil && free < s.opt.Reserve/4:
		s.giveBallast()
	case errors.Is(err, fs.ErrNotExist) && s.opt.Ballast > 0 && free > 2*s.opt.Reserve+s.opt.Ballast:
		if err := writeZeros(s.ballast(), s.opt.Ballast); err != nil {
			s.opt.Log.Warn("spool has no ballast", slog.Any("err", err))
		}
	}
	s.mu.Lock()
	resumed := s.full && s.bytes+s.staged <= s.opt.Quota/5*3 && s.objects <= most/5*3
	s.full = s.full && !resumed
	s.mu.Unlock()
	if resumed {
		s.opt.Log.Info("spool has room again")
	}
}

// writeZeros makes a file whose blocks are really taken, or none.
func writeZeros(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for left := size; left > 0 && err == nil; {
		n := min(left, 1<<20)
		_, err = f.Write(make([]byte, n))
		left -= n
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// amount is a number of bytes and of objects.
type amount struct{ bytes, objects int64 }

// surplus is what should be given up before its time: nothing below four fifths of the quota, while nothing was
// refused for want of room and the file system has enough; else what brings the spool down to three fifths.
func (s *Spool) surplus() amount {
	free, err := s.opt.Free()
	s.mu.Lock()
	bytes, objects := s.bytes+s.staged, s.objects
	near := bytes >= s.opt.Quota/5*4 || objects >= most/5*4 || s.full || err == nil && free < 2*s.opt.Reserve
	first := near && !s.pressed
	s.pressed = near
	s.mu.Unlock()
	if first {
		s.opt.Log.Error("spool or disk is nearly full: objects are read back early",
			slog.Int64("bytes", bytes), slog.Int64("objects", objects), slog.Int64("quota", s.opt.Quota), slog.Int64("free", free))
	}
	switch {
	case !near:
		return amount{}
	case err == nil && free < 2*s.opt.Reserve:
		return amount{bytes, objects}
	}
	return amount{bytes - s.opt.Quota/5*3, objects - most/5*3}
}
