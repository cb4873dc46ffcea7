//go:build linux

package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

// isolated runs this binary with a mount namespace of its own, or skips the test.
func isolated(t *testing.T, what, root string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system or to become another user")
	}
	c := command(t.Context(), what, root)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	var b strings.Builder
	c.Stdout = &b
	err := c.Run()
	out := b.String()
	if errors.Is(err, unix.EPERM) || strings.Contains(out, "skip:") {
		t.Skipf("cannot be tried here: %v %s", err, out)
	}
	if err != nil || !strings.Contains(out, "done") {
		t.Errorf("got %v, %s", err, out)
	}
}

func inOtherCircumstances(what, root string) error {
	var err error
	switch what {
	case "full":
		err = small(root, "size=1m", fillBytes)
	case "inodes":
		err = small(root, "size=16m,nr_inodes=40", fillInodes)
	case "read-only":
		err = small(root, "size=1m", readOnly)
	case "probe-full":
		err = small(root, "size=1m", probeFull)
	case "probe-inodes":
		err = small(root, "size=16m,nr_inodes=40", probeInodes)
	case "probe-read-only":
		err = small(root, "size=1m", probeReadOnly)
	case "probe-mounted":
		err = small(root, "size=1m", probeMounted)
	case "user":
		err = asUser(root)
	default:
		err = fmt.Errorf("no such test: %s", what)
	}
	if err == nil {
		fmt.Println("done")
	}
	return err
}

// small mounts a small file system on root and does something there.
func small(root, options string, do func(root string) error) error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("tmpfs", root, "tmpfs", 0, options)
	}
	if err != nil {
		fmt.Println("skip: mount:", err)
		return nil
	}
	return do(root)
}

func TestFullDisk(t *testing.T)           { isolated(t, "full", t.TempDir()) }
func TestNoInodesLeft(t *testing.T)       { isolated(t, "inodes", t.TempDir()) }
func TestReadOnlyFileSystem(t *testing.T) { isolated(t, "read-only", t.TempDir()) }
func TestUserWithoutRights(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chown(root, 65534, 65534)); err != nil {
		t.Skipf("needs root: %v", err)
	}
	t.Cleanup(func() { _ = flag(filepath.Join(root, "p/root"), false) })
	isolated(t, "user", root)
}

func fillBytes(root string) error {
	ctx := context.Background()
	for _, named := range []bool{false, true} {
		s, err := Open(root, Options{Immutable: Off})
		if err != nil {
			return err
		}
		s.unnamed = s.unnamed && !named
		big := make([]byte, 2<<20)
		if err := s.Put(ctx, "p/big", bytes.NewReader(big), options(big)); !errors.Is(err, storage.ErrFull) {
			return fmt.Errorf("put of more than there is room for: got %v, want ErrFull", err)
		}
		st, err := s.Stage(ctx)
		if err != nil {
			return err
		}
		if n, err := st.WriteAt(big, 0); !errors.Is(err, storage.ErrFull) || n == len(big) {
			return fmt.Errorf("staged write of more than there is room for: got %d, %v, want ErrFull", n, err)
		}
		if err := st.Close(); err != nil {
			return err
		}
		// What failed gave its room back.
		half := make([]byte, 700<<10)
		if err := s.Put(ctx, "p/half", bytes.NewReader(half), options(half)); err != nil {
			return fmt.Errorf("put after what failed: got %v", err)
		}
		if _, err := s.Stat(ctx, "p/big"); !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("stat of what failed: got %v, want ErrNotFound", err)
		}
		if err := errors.Join(s.Erase(ctx, "p/half", "", "test"), s.Close()); err != nil {
			return err
		}
	}
	return nil
}

func fillInodes(root string) error {
	s, err := Open(root, Options{Immutable: Off})
	if err != nil {
		return err
	}
	for i := range 200 {
		key := fmt.Sprintf("p/%d/a", i)
		switch err := put(s, key, "x"); {
		case err == nil:
			continue
		case !errors.Is(err, storage.ErrFull):
			return fmt.Errorf("put without an inode left: got %v, want ErrFull", err)
		}
		if _, err := s.Stat(context.Background(), key); !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("stat of what failed: got %v, want ErrNotFound", err)
		}
		return nil
	}
	return errors.New("40 inodes held 200 objects in folders of their own")
}

func readOnly(root string) error {
	ctx := context.Background()
	s, err := Open(root, Options{Immutable: Off})
	if err != nil {
		return err
	}
	if err := put(s, "p/a", "x"); err != nil {
		return err
	}
	// A room left behind cannot be removed here, and must not matter.
	if err := os.Mkdir(filepath.Join(root, ".tmp-00000000000000aa"), 0o755); err != nil {
		return err
	}
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	fresh, err := Open(root, Options{})
	if err != nil {
		return fmt.Errorf("open of a read-only store: %w", err)
	}
	for name, s := range map[string]*Store{"opened before": s, "opened after": fresh} {
		if got, err := get(s, "p/a"); got != "x" || err != nil {
			return fmt.Errorf("%s: get: got %q, %w", name, got, err)
		}
		for what, err := range map[string]error{
			"put":     put(s, "p/b", "x"),
			"restore": s.Restore(ctx, "p/a", strings.NewReader("y"), options([]byte("y"))),
			"erase":   s.Erase(ctx, "p/a", "", "test"),
		} {
			if !errors.Is(err, unix.EROFS) {
				return fmt.Errorf("%s: %s: got %v, want EROFS", name, what, err)
			}
		}
		if err := put(s, "p/a", "x"); !errors.Is(err, storage.ErrExists) {
			return fmt.Errorf("%s: put of what is there: got %v, want ErrExists", name, err)
		}
	}
	if got := fresh.Protection(); got != "detection only" {
		return fmt.Errorf("protection: got %q", got)
	}
	if _, err := Open(root, Options{Immutable: On}); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("open with the flag on: got %v, want EROFS", err)
	}
	return nil
}

// asUser does without root what root does, and meets what root left.
func asUser(root string) error {
	ctx := context.Background()
	privileged, err := Open(root, Options{})
	if err != nil {
		return err
	}
	if err := put(privileged, "p/root", "x"); err != nil {
		return err
	}
	locked := privileged.flags
	path := filepath.Join(root, "p")
	if err := os.Chown(path, 65534, 65534); err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
		return err
	}
	s, err := Open(root, Options{})
	if err != nil {
		return err
	}
	if got := s.Protection(); got != "detection only" {
		return fmt.Errorf("protection: got %q", got)
	}
	if _, err := Open(root, Options{Immutable: On}); err == nil {
		return errors.New("open with the flag on: got no error")
	}
	if err := errors.Join(put(s, "p/q/user", "x"), s.Erase(ctx, "p/q/user", "", "test")); err != nil {
		return err
	}
	if err := put(s, "p/root", "y"); !errors.Is(err, storage.ErrExists) {
		return fmt.Errorf("put over root's object: got %v, want ErrExists", err)
	}
	if err := s.Erase(ctx, "p/root", "", "test"); locked && !errors.Is(err, storage.ErrLocked) {
		return fmt.Errorf("erase of an immutable object: got %v, want ErrLocked", err)
	}
	return s.Close()
}
