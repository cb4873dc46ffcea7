package dir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/storagetest"
)

// flagged returns a root in which the flag can be set and is cleared at the end, or skips the test.
func flagged(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	s, err := Open(root, Options{Immutable: On})
	if err != nil {
		t.Skipf("needs root and a file system with the immutable flag: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				err = flag(path, false)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	return root
}

func flag(path string, on bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(setFlag(int(f.Fd()), on), f.Close())
}

func isFlagged(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	on, err := hasFlag(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return on
}

func immutable(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root, Options{Immutable: On})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestImmutableStore(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Store { return immutable(t, flagged(t)) })
}

func TestImmutableStoreWithNamedDrafts(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Store {
		s := immutable(t, flagged(t))
		s.unnamed = false
		return s
	})
}

// TestObjectThatIsStillADraftKeepsItsFlag meets an object that was read, and so given its flag, while it had a
// name in the room as well.
func TestObjectThatIsStillADraftKeepsItsFlag(t *testing.T) {
	root := flagged(t)
	room := filepath.Join(root, ".tmp-00000000000000aa")
	object := filepath.Join(root, "object")
	err := errors.Join(os.Mkdir(room, 0o755), os.WriteFile(filepath.Join(room, "d1"), []byte("x"), 0o444),
		os.Link(filepath.Join(room, "d1"), object), flag(object, true))
	if err != nil {
		t.Fatal(err)
	}
	s := immutable(t, root)
	if _, err := os.Lstat(room); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("room of a dead process: got %v, want it removed", err)
	}
	if got, err := get(s, "object"); got != "x" || err != nil || !isFlagged(t, object) {
		t.Errorf("object: got %q, %v, want it there with its flag", got, err)
	}
}

func TestImmutableObjectResistsRoot(t *testing.T) {
	root := flagged(t)
	s := immutable(t, root)
	if got := s.Protection(); got != "immutable flag" {
		t.Errorf("protection: got %q", got)
	}
	if err := put(s, "p/a", "bytes"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "p/a")
	_, openErr := os.OpenFile(path, os.O_WRONLY, 0)
	_, appendErr := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	other := filepath.Join(root, "p/other")
	if err := os.WriteFile(other, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"remove":            os.Remove(path),
		"remove the folder": os.RemoveAll(filepath.Join(root, "p")),
		"overwrite":         openErr,
		"append":            appendErr,
		"truncate":          os.Truncate(path, 0),
		"rename":            os.Rename(path, path+".moved"),
		"link":              os.Link(path, path+".link"),
		"chmod":             os.Chmod(path, 0o644),
	} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: got %v, want EPERM", what, err)
		}
	}
	if err := os.WriteFile(other, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); !errors.Is(err, unix.EPERM) {
		t.Errorf("rename over it: got %v, want EPERM", err)
	}
	if got, err := get(s, "p/a"); got != "bytes" || err != nil {
		t.Errorf("get: got %q, %v, want it untouched", got, err)
	}
	if err := s.Erase(t.Context(), "p/a", "", "disposal"); err != nil {
		t.Errorf("erase with a reason: got %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after erase: got %v, want nothing", err)
	}
}

func TestDerivedObjectsAreNotImmutable(t *testing.T) {
	root := flagged(t)
	s := immutable(t, root)
	if err := errors.Join(put(s, "p/tiles/tile/0/000", "x"), put(s, "p/ledger/0", "x")); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"p/tiles/tile/0/000": false, "p/ledger/0": true} {
		if got := isFlagged(t, filepath.Join(root, key)); got != want {
			t.Errorf("flag of %s: got %v, want %v", key, got, want)
		}
	}
}

func TestRestoreReplacesAnImmutableObjectAndProtectsIt(t *testing.T) {
	root := flagged(t)
	s := immutable(t, root)
	if err := put(s, "p/a", "wrong"); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(t.Context(), "p/a", strings.NewReader("right"), options([]byte("right"))); err != nil {
		t.Fatal(err)
	}
	if got, err := get(s, "p/a"); got != "right" || err != nil {
		t.Errorf("get: got %q, %v", got, err)
	}
	if !isFlagged(t, filepath.Join(root, "p/a")) {
		t.Error("restored object has no flag")
	}
}

func TestMissingFlagIsSetWhenReadOrNoted(t *testing.T) {
	root := flagged(t)
	s := immutable(t, root)
	if err := errors.Join(put(s, "p/read", "x"), put(s, "p/noted", "x"), put(s, "p/other", "x")); err != nil {
		t.Fatal(err)
	}
	// What a process leaves that dies between link and flag: the object, and its note in a room nobody holds.
	room := filepath.Join(root, ".tmp-00000000000000aa")
	err := errors.Join(
		flag(filepath.Join(root, "p/read"), false), flag(filepath.Join(root, "p/noted"), false), flag(filepath.Join(root, "p/other"), false),
		os.Mkdir(room, 0o755), os.Symlink("p/noted", filepath.Join(room, "n1")), os.Symlink("../p/other", filepath.Join(room, "n2")),
		os.Symlink("p/none", filepath.Join(room, "n3")), os.WriteFile(filepath.Join(room, "d4"), []byte("half"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	opened(t, root)
	if isFlagged(t, filepath.Join(root, "p/noted")) {
		t.Error("a store without flags has set one")
	}
	if left, err := os.ReadDir(room); err != nil || len(left) != 3 {
		t.Errorf("room after a store without flags was opened: got %v, %v, want the notes", left, err)
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"p/noted", "p/other", "p/read"}) {
		t.Errorf("list: got %q, want the objects", got)
	}
	immutable(t, root)
	if _, err := os.Lstat(room); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("room of a dead process: got %v, want it removed", err)
	}
	if _, err := get(s, "p/read"); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"p/read": true, "p/noted": true, "p/other": false} {
		if got := isFlagged(t, filepath.Join(root, key)); got != want {
			t.Errorf("flag of %s: got %v, want %v", key, got, want)
		}
	}
}
