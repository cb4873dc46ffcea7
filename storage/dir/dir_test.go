package dir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/storagetest"
)

// opened returns a store without flags in root, closed at the end of the test.
func opened(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root, Options{Immutable: Off})
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

func options(data []byte) storage.PutOptions {
	return storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)}
}

func put(s storage.Store, key, data string) error {
	return s.Put(context.Background(), key, strings.NewReader(data), options([]byte(data)))
}

func get(s storage.Store, key string) (string, error) {
	r, err := s.Get(context.Background(), key, "", 0, -1)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return string(data), errors.Join(err, r.Close())
}

func keys(t *testing.T, s storage.Store, prefix string) []string {
	t.Helper()
	var keys []string
	for v, err := range s.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, v.Key)
	}
	return keys
}

func TestStore(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Store { return opened(t, filepath.Join(t.TempDir(), "store")) })
}

// TestStoreWithNamedDrafts is the store on a file system that lacks O_TMPFILE.
func TestStoreWithNamedDrafts(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Store {
		s := opened(t, t.TempDir())
		s.unnamed = false
		return s
	})
}

func TestObjectsAreReadOnlyFilesUnderTheirKeys(t *testing.T) {
	root := t.TempDir()
	s := opened(t, root)
	if err := put(s, "c_x901/packages/k3/k3f.asice", "bytes"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "c_x901/packages/k3/k3f.asice")
	data, err := os.ReadFile(path)
	if err != nil || string(data) != "bytes" {
		t.Errorf("file: got %q, %v", data, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o444 {
		t.Errorf("mode: got %v, %v, want 0444", info.Mode(), err)
	}
	if got := s.Protection(); got != "detection only" {
		t.Errorf("protection without flags: got %q", got)
	}
}

func TestOpen(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(base, "no/parent"), Options{Immutable: Off}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its parent: got %v, want ErrNotExist", err)
	}
	if _, err := Open(file, Options{Immutable: Off}); err == nil {
		t.Error("on a file: got no error")
	}
	root := filepath.Join(base, "store")
	opened(t, root)
	info, err := os.Stat(root)
	if err != nil || !info.IsDir() {
		t.Errorf("root: got %v, %v, want a folder", info, err)
	}
	opened(t, root)
}

func TestParseImmutable(t *testing.T) {
	for _, i := range []Immutable{Auto, On, Off} {
		if got, err := ParseImmutable(i.String()); got != i || err != nil {
			t.Errorf("%v: got %v, %v", i, got, err)
		}
	}
	if got, err := ParseImmutable(""); got != Auto || err != nil {
		t.Errorf("empty: got %v, %v, want auto", got, err)
	}
	if _, err := ParseImmutable("yes"); err == nil {
		t.Error("yes: got no error")
	}
}

func TestSyncsFileThenFoldersUpToTheFirstThatWasThere(t *testing.T) {
	var synced []string
	watched := func(root string) *Store {
		s := opened(t, root)
		s.syncing = func(fd int, name string) error {
			synced = append(synced, name)
			return fsync(fd, name)
		}
		return s
	}
	root := t.TempDir()
	s := watched(root)
	for _, step := range []struct {
		s    *Store
		key  string
		want []string
		err  error
	}{
		{s, "a/b/c/1", []string{"draft", "a/b/c", "a/b", "a", ""}, nil},
		{s, "a/b/c/2", []string{"draft", "a/b/c"}, nil},
		{s, "a/b/d/1", []string{"draft", "a/b/d", "a/b"}, nil},
		{s, "1", []string{"draft", ""}, nil},
		{s, "a/b/c/1", []string{"found", "a/b/c"}, storage.ErrExists},
		// Another process does not know what this one has synced.
		{watched(root), "a/b/c/1", []string{"found", "a/b/c", "a/b", "a", ""}, storage.ErrExists},
		{watched(root), "a/b/c/3", []string{"draft", "a/b/c", "a/b", "a", ""}, nil},
	} {
		synced = nil
		if err := put(step.s, step.key, "x"); !errors.Is(err, step.err) {
			t.Fatalf("put %s: got %v, want %v", step.key, err, step.err)
		}
		if !slices.Equal(synced, step.want) {
			t.Errorf("put %s: synced %q, want %q", step.key, synced, step.want)
		}
	}
	// A folder that was removed and made again, perhaps with the same inode, is a new one.
	other := opened(t, root)
	for _, key := range []string{"a/b/d/1"} {
		if err := other.Erase(t.Context(), key, "", "test"); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(other, "a/b/d/2", "x"); err != nil {
		t.Fatal(err)
	}
	synced = nil
	if err := put(s, "a/b/d/3", "x"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"draft", "a/b/d", "a/b"}; !slices.Equal(synced, want) {
		t.Errorf("put in a folder that another process made again: synced %q, want %q", synced, want)
	}
}

func TestFailedSync(t *testing.T) {
	for _, test := range []struct {
		name   string // of what is synced
		errno  error
		staged bool
		want   error
		lies   bool // something under the key
	}{
		{"draft", unix.EIO, false, unix.EIO, false},
		{"draft", unix.EIO, true, unix.EIO, false},
		{"draft", unix.ENOSPC, false, storage.ErrFull, false},
		{"draft", unix.EDQUOT, true, storage.ErrFull, false},
		{"p/q", unix.EIO, false, storage.ErrUnknown, true},
		{"p", unix.EIO, true, storage.ErrUnknown, true},
		{"", unix.EIO, false, storage.ErrUnknown, true},
	} {
		t.Run(fmt.Sprintf("%q %v staged=%v", test.name, test.errno, test.staged), func(t *testing.T) {
			root := t.TempDir()
			s := opened(t, root)
			var r io.ReaderAt = strings.NewReader("bytes")
			if test.staged {
				st, err := s.Stage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = st.Close() }()
				if _, err := st.WriteAt([]byte("bytes"), 0); err != nil {
					t.Fatal(err)
				}
				if _, _, err := st.Seal(t.Context()); err != nil {
					t.Fatal(err)
				}
				r = st
			}
			calls := 0
			s.syncing = func(fd int, name string) error {
				if name == test.name {
					calls++
					return test.errno
				}
				return fsync(fd, name)
			}
			if err := s.Put(t.Context(), "p/q/a", r, options([]byte("bytes"))); !errors.Is(err, test.want) {
				t.Errorf("put: got %v, want %v", err, test.want)
			}
			if calls != 1 {
				t.Errorf("failing sync was called %d times, want once", calls)
			}
			if got := len(keys(t, s, "")) > 0; got != test.lies {
				t.Errorf("object lies there: got %v, want %v", got, test.lies)
			}
			s.syncing = fsync
			if err := put(s, "p/q/a", "bytes"); test.lies != errors.Is(err, storage.ErrExists) || !test.lies && err != nil {
				t.Errorf("put again: got %v", err)
			}
		})
	}
}

func TestRootThatVanishesIsNoEmptyStore(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := opened(t, root)
	if err := put(s, "p/a", "x"); err != nil {
		t.Fatal(err)
	}
	for _, loss := range []struct {
		name string
		do   func() error
	}{
		{"another folder", func() error {
			return errors.Join(os.Rename(root, root+".old"), os.Mkdir(root, 0o755))
		}},
		{"none", func() error { return errors.Join(os.RemoveAll(root), os.RemoveAll(root+".old")) }},
	} {
		if err := loss.do(); err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		_, getErr := s.Get(ctx, "p/none", "", 0, -1)
		_, statErr := s.Stat(ctx, "p/none")
		var listErr error
		for _, listErr = range s.List(ctx, "", "") {
			break
		}
		_, stageErr := s.Stage(ctx)
		for what, err := range map[string]error{
			"get": getErr, "stat": statErr, "list": listErr, "stage": stageErr,
			"put":     put(s, "p/b", "x"),
			"restore": s.Restore(ctx, "p/a", strings.NewReader("x"), options([]byte("x"))),
			"erase":   s.Erase(ctx, "p/none", "", "test"),
		} {
			if err == nil || errors.Is(err, storage.ErrNotFound) || !strings.Contains(err.Error(), "root of the store") {
				t.Errorf("root is %s: %s: got %v, want an error that says so", loss.name, what, err)
			}
		}
	}
}

func TestKeyThatIsAFolderIsRefusedAsSuch(t *testing.T) {
	s := opened(t, t.TempDir())
	if err := put(s, "p/a/b", "x"); err != nil {
		t.Fatal(err)
	}
	data := []byte("y")
	for _, key := range []string{"p", "p/a", "p/a/b/c", "p/a/b/c/d"} {
		if err := put(s, key, "y"); !errors.Is(err, storage.ErrKey) {
			t.Errorf("put %s: got %v, want ErrKey", key, err)
		}
		if err := s.Restore(t.Context(), key, bytes.NewReader(data), options(data)); !errors.Is(err, storage.ErrKey) {
			t.Errorf("restore %s: got %v, want ErrKey", key, err)
		}
		if err := s.Erase(t.Context(), key, "", "test"); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("erase %s: got %v, want ErrNotFound", key, err)
		}
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"p/a/b"}) {
		t.Errorf("list: got %q, want the one object", got)
	}
}

// TestLinksLeadNowhere plants links of every kind where objects could lie.
func TestLinksLeadNowhere(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "store")
	s := opened(t, root)
	secret := filepath.Join(base, "secret")
	err := errors.Join(put(s, "p/d/real", "real"), os.WriteFile(secret, []byte("secret"), 0o644),
		os.Symlink(secret, filepath.Join(root, "p/file")),
		os.Symlink(base, filepath.Join(root, "p/out")),
		os.Symlink("d", filepath.Join(root, "p/alias")),
		os.Symlink("d/real", filepath.Join(root, "p/inside")),
		os.Symlink("nowhere", filepath.Join(root, "p/loose")),
		unix.Mkfifo(filepath.Join(root, "p/pipe"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("new")
	for _, key := range []string{"p/file", "p/out/secret", "p/alias/real", "p/inside", "p/loose", "p/pipe", "p/out", "p/alias"} {
		if got, err := get(s, key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("get %s: got %q, %v, want ErrNotFound", key, got, err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("stat %s: got %v, want ErrNotFound", key, err)
		}
		if err := put(s, key, "new"); !errors.Is(err, storage.ErrExists) && !errors.Is(err, storage.ErrKey) {
			t.Errorf("put %s: got %v, want a refusal", key, err)
		}
	}
	want := []string{"p/alias", "p/d/real", "p/file", "p/inside", "p/loose", "p/out", "p/pipe"}
	for v, err := range s.List(t.Context(), "", "") {
		if err != nil || v.Size != 0 && v.Key != "p/d/real" {
			t.Errorf("list: got %+v, %v, want links with size 0", v, err)
		}
	}
	if got := keys(t, s, ""); !slices.Equal(got, want) {
		t.Errorf("list: got %q, want %q", got, want)
	}
	if got := keys(t, s, "p/out/"); got != nil {
		t.Errorf("list behind a link: got %q, want nothing", got)
	}
	if err := s.Restore(t.Context(), "p/file", bytes.NewReader(data), options(data)); err != nil {
		t.Errorf("restore over a link: got %v", err)
	}
	if got, err := get(s, "p/file"); got != "new" || err != nil {
		t.Errorf("get after restore over a link: got %q, %v", got, err)
	}
	if err := s.Erase(t.Context(), "p/inside", "", "foreign"); err != nil {
		t.Errorf("erase of a link: got %v", err)
	}
	if got, _ := os.ReadFile(secret); string(got) != "secret" {
		t.Errorf("file outside: got %q, want it untouched", got)
	}
	if got, err := get(s, "p/d/real"); got != "real" || err != nil {
		t.Errorf("object behind a link: got %q, %v, want it untouched", got, err)
	}
}

func TestForeignNamesAreListedInOrder(t *testing.T) {
	root := t.TempDir()
	s := opened(t, root)
	if err := put(s, "p/a", "x"); err != nil {
		t.Fatal(err)
	}
	deep := "deep" + strings.Repeat("/d", 450)
	foreign := []string{
		".hidden", "README", "p/a b", "p/.DS_Store", "p/\xff\xfe", "p/new\nline", "città", "p/%2e%2e", "z/.tmp-0123456789abcdef/d1",
		".tmp-0123456789abcdef/planted", ".tmp-0123456789abcdeX/d1", ".tmp-fedcba9876543210", "p/~$a",
	}
	for _, name := range foreign {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("f"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want := append(slices.Clone(foreign), "p/a")
	slices.Sort(want)
	if got := keys(t, s, ""); !slices.Equal(got, want) {
		t.Errorf("list: got %q, want %q", got, want)
	}
	opened(t, root) // a sweep leaves what others have put into a room
	if got := keys(t, s, ""); !slices.Equal(got, want) {
		t.Errorf("list after a sweep: got %q, want %q", got, want)
	}
	for i, after := range want {
		var got []string
		for v, err := range s.List(t.Context(), "", after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, v.Key)
		}
		if !slices.Equal(got, want[i+1:]) {
			t.Errorf("list after %q: got %q, want %q", after, got, want[i+1:])
		}
	}
	if err := os.MkdirAll(filepath.Join(root, deep), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s, "deep/"); len(got) != 1 || got[0] != "deep"+strings.Repeat("/d", deepest-1)+"/d/" {
		t.Errorf("list of folders beyond all keys: got %q, want the last one entered", got)
	}
}

func TestEraseRemovesEmptyFoldersOnly(t *testing.T) {
	root := t.TempDir()
	s := opened(t, root)
	if err := errors.Join(put(s, "p/q/r/a", "x"), put(s, "p/q/r/b", "x"), put(s, "p/c", "x")); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		key         string
		gone, stays string
	}{
		{"p/q/r/a", "p/q/r/a", "p/q/r"},
		{"p/q/r/b", "p/q", "p"},
		{"p/c", "p", "."},
	} {
		if err := s.Erase(t.Context(), step.key, "", "test"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(root, step.gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after erase of %s: %s is there: %v", step.key, step.gone, err)
		}
		if _, err := os.Lstat(filepath.Join(root, step.stays)); err != nil {
			t.Errorf("after erase of %s: %s: %v, want it there", step.key, step.stays, err)
		}
	}
}

// TestNothingRemains looks at the folder itself after operations that failed.
func TestNothingRemains(t *testing.T) {
	for _, unnamed := range []bool{true, false} {
		root := t.TempDir()
		s := opened(t, root)
		s.unnamed = s.unnamed && unnamed
		ctx := t.Context()
		good := []byte("good")
		if err := put(s, "p/a", "good"); err != nil {
			t.Fatal(err)
		}
		st, err := s.Stage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.WriteAt(good, 0); err != nil {
			t.Fatal(err)
		}
		if _, _, err := st.Seal(ctx); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"taken key":         put(s, "p/a", "good"),
			"staged, taken key": s.Put(ctx, "p/a", st, options(good)),
			"other bytes":       s.Put(ctx, "p/b", strings.NewReader("evil"), options(good)),
			"restore":           s.Restore(ctx, "p/b", strings.NewReader("evil"), options(good)),
			"replace":           s.Replace(ctx, "p/tiles/b", strings.NewReader("evil"), options(good)),
		} {
			if err == nil {
				t.Errorf("%s: got no error", what)
			}
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		var left []string
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if !d.IsDir() {
				left = append(left, path[len(root)+1:])
			}
			return err
		})
		if err != nil || !slices.Equal(left, []string{"p/a"}) {
			t.Errorf("unnamed drafts %v: got files %q, %v, want the one object", unnamed, left, err)
		}
		if err := s.clearForTest(); err != nil {
			t.Error(err)
		}
		if entries, _ := os.ReadDir(root); len(entries) != 1 {
			t.Errorf("after its room is given back: got %v, want the producer's folder", entries)
		}
	}
}

// clearForTest gives back the room, as Close does, and keeps the store open.
func (s *Store) clearForTest() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own == nil {
		return nil
	}
	err := s.clear(s.own)
	s.own = nil
	return err
}

// TestCreatingAndErasingInOneFolder makes Put lose its folders to the erasure of their last object.
func TestCreatingAndErasingInOneFolder(t *testing.T) {
	root := t.TempDir()
	const workers = 4
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	end := make(chan error, workers)
	for w := range workers {
		s := opened(t, root) // as if each were a process of its own
		go func() {
			key := fmt.Sprintf("p/q/r/%d", w)
			for range rounds {
				if err := errors.Join(put(s, key, "x"), s.Erase(context.Background(), key, "", "test")); err != nil {
					end <- err
					return
				}
			}
			end <- nil
		}()
	}
	for range workers {
		if err := <-end; err != nil {
			t.Error(err)
		}
	}
}

// TestNoDescriptorIsLost counts what is open before and after calls of every kind, good and bad.
func TestNoDescriptorIsLost(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skipf("needs /proc: %v", err)
		}
		return len(entries)
	}
	s := opened(t, t.TempDir())
	good, ctx := []byte("good"), t.Context()
	use := func(round int) {
		key := fmt.Sprintf("p/q/%d", round)
		_ = put(s, key, "good")
		_ = put(s, key, "good")
		_ = put(s, key+"/below", "good")
		_ = put(s, "p/q", "good")
		_ = s.Put(ctx, "p/other", strings.NewReader("evil"), options(good))
		_, _ = get(s, key)
		_, _ = get(s, "p/q")
		_, _ = get(s, "p/none/at/all")
		_, _ = s.Stat(ctx, key)
		_ = s.Restore(ctx, key, strings.NewReader("other"), options([]byte("other")))
		_ = s.Replace(ctx, "p/tiles/a", bytes.NewReader(good), options(good))
		_ = s.Erase(ctx, key, "", "test")
		if st, err := s.Stage(ctx); err == nil {
			_ = st.Close()
		}
		for range s.List(ctx, "", "") {
			break
		}
		_ = keys(t, s, "p/none/")
	}
	use(0)
	before := count()
	for round := range 20 {
		use(round)
	}
	if after := count(); after > before {
		t.Errorf("open descriptors: got %d, want %d as before", after, before)
	}
}

// endless is a reader of any size that takes no memory.
type endless struct{}

func (endless) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = byte((off + int64(i)) >> 8)
	}
	return len(p), nil
}

func TestLargeObjectTakesLittleMemory(t *testing.T) {
	size := int64(256 << 20)
	if testing.Short() {
		size = 16 << 20
	}
	s := opened(t, t.TempDir())
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(endless{}, 0, size)); err != nil {
		t.Fatal(err)
	}
	o := storage.PutOptions{Size: size, SHA256: [32]byte(h.Sum(nil))}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := s.Put(t.Context(), "p/a", endless{}, o); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("put of %d MiB: got %d bytes allocated, want under 1 MiB", size>>20, got)
	}
}

// TestHistories runs random histories against the store and Mem: what the callers are told must be the same.
func TestHistories(t *testing.T) {
	histories := 24
	if testing.Short() {
		histories = 8
	}
	names := []string{"p/a", "p/a/b", "p/a-b", "p/tiles/a", "p/tiles/b/c", "p/b/c", "p/b/d"}
	for seed := range histories {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		s, m := opened(t, t.TempDir()), storagetest.NewMem(t)
		m.Lenient = true
		s.unnamed = s.unnamed && seed%4 > 0
		for step := range 60 {
			key := names[random.IntN(len(names))]
			data := []byte{byte(random.IntN(3))}
			o := options(data)
			lie := random.IntN(8) == 0
			if lie {
				o.Size++
			}
			op := random.IntN(5)
			what, got := act(t.Context(), s, op, key, data, o)
			_, want := act(t.Context(), m, op, key, data, o)
			// Which of two reasons to refuse is told does not matter.
			if got != want && !(lie && got != nil && want != nil) {
				t.Fatalf("seed %d, step %d: %s %s %x: got %v, want %v", seed, step, what, key, data, got, want)
			}
			if got, want := contents(t, s), contents(t, m); !slices.Equal(got, want) {
				t.Fatalf("seed %d, after step %d (%s %s): got %q, want %q", seed, step, what, key, got, want)
			}
		}
	}
}

// act does one thing and returns which of the interface's errors it got.
func act(ctx context.Context, s storage.Store, op int, key string, data []byte, o storage.PutOptions) (string, error) {
	var err error
	what := []string{"put", "put", "restore", "replace", "erase"}[op]
	switch what {
	case "put":
		err = s.Put(ctx, key, bytes.NewReader(data), o)
	case "restore":
		if strings.Contains(key, "p/a") {
			return what, nil // Mem keeps what was under a key that is a folder; a folder cannot be replaced
		}
		err = s.(storage.Restorer).Restore(ctx, key, bytes.NewReader(data), o)
	case "replace":
		err = s.(storage.Replacer).Replace(ctx, key, bytes.NewReader(data), o)
	case "erase":
		err = s.(storage.Eraser).Erase(ctx, key, "", "test")
	}
	for _, known := range []error{storage.ErrExists, storage.ErrDigest, storage.ErrNotFound, storage.ErrKey} {
		if errors.Is(err, known) {
			return what, known
		}
	}
	return what, err
}

// contents is what a listing and a Get of everything listed tell.
func contents(t *testing.T, s storage.Store) []string {
	t.Helper()
	var all []string
	for v, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if !v.Latest {
			continue
		}
		data, err := get(s, v.Key)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s %d %x", v.Key, v.Size, data))
	}
	return all
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{10 << 10, 1 << 20} {
		for _, writers := range []int{1, 32} {
			b.Run(fmt.Sprintf("%dKiB/writers=%d", size>>10, writers), func(b *testing.B) {
				s, err := Open(b.TempDir(), Options{Immutable: Off})
				if err != nil {
					b.Fatal(err)
				}
				data := make([]byte, size)
				o := options(data)
				var n atomic.Int64
				b.SetBytes(int64(size))
				b.SetParallelism(max(1, writers/runtime.GOMAXPROCS(0)))
				if writers == 1 {
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
				}
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						i := n.Add(1)
						if err := s.Put(context.Background(), fmt.Sprintf("p/%02d/%d", i%97, i), bytes.NewReader(data), o); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
