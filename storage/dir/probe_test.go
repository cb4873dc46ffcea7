//go:build linux

package dir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/doctor"
)

func examined(s *Store) map[string]storage.Outcome {
	found := map[string]storage.Outcome{}
	report := doctor.Examine(context.Background(), s, doctor.Options{Now: time.Now})
	for _, r := range report.Results {
		found[r.Name] = r.Outcome
	}
	found[""] = storage.Outcome{Verdict: report.Verdict()}
	return found
}

// TestProbes examines the store where the tests' folders are, and in memory.
func TestProbes(t *testing.T) {
	for _, c := range []struct {
		name, parent string
		immutable    Immutable
	}{{"disk", "", Off}, {"disk with the flag", "", Auto}, {"memory", "/dev/shm", Off}} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			if c.parent != "" {
				var err error
				if root, err = os.MkdirTemp(c.parent, "perenne-"); err != nil {
					t.Skipf("no memory file system: %v", err)
				}
				t.Cleanup(func() { _ = os.RemoveAll(root) })
			}
			s, err := Open(root, Options{Immutable: c.immutable})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			began := time.Now()
			found := examined(s)
			t.Logf("examined in %v", time.Since(began))
			for name, o := range found {
				t.Logf("%s: %s %v", name, o.Verdict, o.Seen)
				if o.Verdict != storage.Held && o.Verdict != storage.Noted {
					t.Errorf("%s: got %s, %v", name, o.Verdict, o.Seen)
				}
			}
			if want := map[bool]storage.Verdict{true: storage.Held, false: storage.Noted}[s.flags]; found["immutable-flag"].Verdict != want {
				t.Errorf("immutable-flag: got %v, want %s", found["immutable-flag"], want)
			}
			if c.parent != "" && found["local-file-system"].Verdict != storage.Noted {
				t.Errorf("a memory file system is not told: %v", found["local-file-system"])
			}
			entries, err := os.ReadDir(root)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if !roomName.MatchString(e.Name()) {
					t.Errorf("the examination left %s", e.Name())
				}
			}
		})
	}
}

// TestFlagThatDoesNotHoldIsFound tries a file that nothing protects.
func TestFlagThatDoesNotHoldIsFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(file, []byte("x"), 0o444); err != nil {
		t.Fatal(err)
	}
	if got := forbidden(file); got.Verdict != storage.Broken {
		t.Errorf("got %v, want broken", got)
	}
}

func TestProbesOfABadFileSystem(t *testing.T) {
	for _, what := range []string{"probe-full", "probe-inodes", "probe-read-only", "probe-mounted"} {
		t.Run(what, func(t *testing.T) { isolated(t, what, t.TempDir()) })
	}
}

// wanted examines the store on a file system that was made bad, and wants that to be named.
func wanted(root, name string, verdict storage.Verdict) error {
	s, err := Open(root, Options{Immutable: Off})
	if err != nil {
		return err
	}
	found := examined(s)
	if got := found[name]; got.Verdict != verdict || got.Seen == nil {
		return fmt.Errorf("%s: got %v, want %s; all: %v", name, got, verdict, found)
	}
	fmt.Println(name, found[name].Seen)
	if found[""].Verdict == storage.Held {
		return fmt.Errorf("nothing was found in all")
	}
	return s.Close()
}

func probeFull(root string) error {
	f, err := os.Create(filepath.Join(root, "ballast"))
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := wanted(root, "space", storage.Broken); err != nil {
		return err
	}
	return wanted(root, "writable", storage.Broken)
}

func probeInodes(root string) error {
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(root, fmt.Sprint("f", i)))
		if err != nil {
			break
		}
		_ = f.Close()
	}
	if err := wanted(root, "space", storage.Broken); err != nil {
		return err
	}
	return wanted(root, "writable", storage.Broken)
}

func probeReadOnly(root string) error {
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	return wanted(root, "writable", storage.Broken)
}

func probeMounted(root string) error {
	inside := filepath.Join(root, "c_x901")
	if err := os.Mkdir(inside, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", inside, "tmpfs", 0, "size=1m"); err != nil {
		return err
	}
	return wanted(root, "one-file-system", storage.Broken)
}
