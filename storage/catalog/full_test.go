package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullFileSystemIsRefusedNotFatal lets a child fill a small file system. Badger's answer to a full disk
// is SIGBUS, which would be the end of the child.
func TestFullFileSystemIsRefusedNotFatal(t *testing.T) {
	if testing.Short() {
		t.Skip("writes some 100 MB")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=144m"); err != nil {
		t.Skipf("no small file system to fill: mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 40<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envFill+"="+filepath.Join(dir, "catalog"), envBallast+"="+ballast)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%.2000s", err, out)
	}
	if !strings.Contains(string(out), "full, then not") {
		t.Errorf("got %q", out)
	}
}

// fillUp applies commits until the catalog is full, removes the ballast, and goes on.
func fillUp(dir, ballast string) error {
	c, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		return err
	}
	defer c.Close()
	n := int64(0)
	for ; n < 1000; n++ {
		if err = c.Apply(montesole, Change{Put: manyMade(montesole, n*1000, n*1000+1000)}, State{Commit: n}); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) {
		return fmt.Errorf("after %d commits: got %w, want ErrFull", n, err)
	}
	for range 50 { // refused as often as one tries
		if err := c.Apply(montesole, Change{}, State{Commit: n}); !errors.Is(err, ErrFull) {
			return fmt.Errorf("full a moment ago: got %w, want ErrFull", err)
		}
	}
	if _, err := c.Search(context.Background(), Query{Producer: montesole, Type: "delibera"}); err != nil {
		return err
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := c.Apply(montesole, Change{}, State{Commit: n}); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	fmt.Printf("full, then not, after %d commits\n", n)
	return c.Close()
}
