package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/storagetest"
)

// safeBuffer is a log for several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// bench is a spool on a Mem.
type bench struct {
	t          *testing.T
	mem        *storagetest.Mem
	opt        Options
	log        safeBuffer
	free       atomic.Int64
	superseded func(ctx context.Context, key string, sum [32]byte) (bool, error)
	*Spool
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, mem: storagetest.NewMem(t)}
	b.free.Store(1 << 40)
	b.opt = Options{
		Dir: filepath.Join(t.TempDir(), "spool"), ReadBack: 24 * time.Hour, Quota: 1 << 30, Ballast: -1,
		Now: time.Now, Log: slog.New(slog.NewTextHandler(&b.log, nil)), Free: func() (int64, error) { return b.free.Load(), nil },
	}
	b.open()
	return b
}

func (b *bench) open() {
	b.t.Helper()
	s, err := Open(context.Background(), b.mem, b.opt)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Spool = s
}

// reopen is what a new process finds.
func (b *bench) reopen() {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

// run runs the spool until the end of the test, or until stop.
func (b *bench) run(sealed func(context.Context, string) time.Time) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { b.Run(ctx, sealed, b.superseded); close(done) }()
	return func() { cancel(); <-done }
}

func always(context.Context, string) time.Time { return time.Now() }
func never(context.Context, string) time.Time  { return time.Time{} }

func options(data string) storage.PutOptions {
	return storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256([]byte(data))}
}

func put(s storage.Store, key, data string) error {
	return s.Put(context.Background(), key, strings.NewReader(data), options(data))
}

func (b *bench) mustPut(key, data string) {
	b.t.Helper()
	if err := put(b, key, data); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) wantHeld(n int64) {
	b.t.Helper()
	if st := b.Stats(); st.Objects != n || n == 0 && st.Bytes != 0 {
		b.t.Errorf("held: got %+v, want %d objects\n%s", st, n, b.log.String())
	}
}

func (b *bench) wantLog(text string, want bool) {
	b.t.Helper()
	if got := strings.Contains(b.log.String(), text); got != want {
		b.t.Errorf("log says %q: got %v, want %v:\n%s", text, got, want, b.log.String())
	}
}

func get(s storage.Store, key string) (string, error) {
	r, err := s.Get(context.Background(), key, "", 0, -1)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return string(data), errors.Join(err, r.Close())
}

func TestStore(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Store {
		b := newBench(t)
		b.mem.Lenient = true // the suite offers what no caller may
		return b.Store()
	})
}

func TestStoreOnADirectory(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Store {
		d, err := dir.Open(filepath.Join(t.TempDir(), "store"), dir.Options{Immutable: dir.Off})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), d, Options{Dir: filepath.Join(t.TempDir(), "spool"), ReadBack: time.Hour, Quota: 1 << 30, Ballast: -1, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(); _ = d.Close() })
		if _, ok := s.Store().(storage.Locker); ok {
			t.Error("a store without locks got some")
		}
		return s.Store()
	})
}

func TestACopyIsSyncedBeforeTheStoreIsAsked(t *testing.T) {
	b := newBench(t)
	b.mem.OnPut = func(key string) (bool, error) {
		found, err := filepath.Glob(filepath.Join(b.opt.Dir, "held", "*"))
		if err != nil || len(found) != 1 {
			t.Errorf("when the store is asked: got %q, %v, want the copy", found, err)
			return true, nil
		}
		if data, err := os.ReadFile(found[0]); err != nil || string(data) != "bytes" {
			t.Errorf("copy: got %q, %v", data, err)
		}
		return true, nil
	}
	b.mustPut("c_x901/packages/ab/abc.asice", "bytes")
}

func TestNamesComeBack(t *testing.T) {
	for _, key := range []string{"a", "c_h769/ledger/0000000000000000/0001", "x-y/z--w/a.b.c", "a/-/-_"} {
		for _, retain := range []time.Time{{}, time.Unix(1900000000, 0)} {
			it := &item{key: key, sum: sha256.Sum256([]byte(key)), retain: retain, at: time.Unix(0, 1790000000123456789), filed: time.Unix(0, 1790000000123456789)}
			got, err := parseName(it.name())
			if err != nil || got.key != key || got.sum != it.sum || !got.retain.Equal(retain) || !got.at.Equal(it.at) {
				t.Errorf("%s: got %+v, %v", it.name(), got, err)
			}
		}
	}
	for _, name := range []string{"", "a", "a.b.c.d", "c--tiles--x." + strings.Repeat("0", 64) + ".0.1", "-." + strings.Repeat("0", 64) + ".0.1"} {
		if it, err := parseName(name); err == nil {
			t.Errorf("%q: got %+v, want an error", name, it)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add((&item{key: "c_h769/ledger/0000000000000000/0001", filed: time.Unix(0, 1)}).name())
	f.Fuzz(func(t *testing.T, name string) {
		if it, err := parseName(name); err == nil && it.name() != name {
			t.Errorf("%q: read as %q", name, it.name())
		}
	})
}

func TestWhatTheStoreAnswers(t *testing.T) {
	const key = "c_x901/packages/ab/abc.asice"
	away := errors.New("connection reset")
	for _, c := range []struct {
		name    string
		there   string // what lies under the key already
		apply   bool
		answer  error
		want    error
		held    int64
		becomes string // what lies there after Run
	}{
		{"yes", "", true, nil, nil, 1, "bytes"},
		{"yes, but lost", "", false, nil, nil, 1, "bytes"},
		{"exists, equal", "bytes", true, nil, storage.ErrExists, 1, "bytes"},
		{"exists, other", "other", true, nil, storage.ErrExists, 0, "other"},
		{"full", "", false, storage.ErrFull, storage.ErrFull, 0, ""},
		{"digest", "", false, storage.ErrDigest, storage.ErrDigest, 0, ""},
		{"unknown, stored", "", true, storage.ErrUnknown, storage.ErrUnknown, 1, "bytes"},
		{"unknown, not stored", "", false, storage.ErrUnknown, storage.ErrUnknown, 1, "bytes"},
		{"away", "", false, away, away, 1, "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				if c.there != "" {
					b.mem.Plant(key, []byte(c.there))
				}
				b.mem.OnPut = func(string) (bool, error) { return c.apply, c.answer }
				if err := put(b, key, "bytes"); !errors.Is(err, c.want) {
					t.Errorf("put: got %v, want %v", err, c.want)
				}
				b.wantHeld(c.held)
				b.mem.OnPut = nil
				stop := b.run(always)
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if got := string(b.mem.Bytes(key)); got != c.becomes {
					t.Errorf("after a while: got %q, want %q\n%s", got, c.becomes, b.log.String())
				}
				b.wantHeld(c.held)
				time.Sleep(25 * time.Hour)
				synctest.Wait()
				stop()
				b.wantHeld(0)
			})
		})
	}
}

func TestWhatIsLostIsPutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for i := range 10 {
			b.mustPut(fmt.Sprintf("c_x901/ledger/0000000000000000/%04d", i), fmt.Sprint("commit ", i))
		}
		lost := b.mem.Lose(4)
		b.reopen()
		b.wantHeld(10)
		// Who meets a lost one has it back before it reads.
		if got, err := get(b, lost[2]); err != nil || got != "commit 8" {
			t.Errorf("a lost object met: got %q, %v", got, err)
		}
		b.wantLog("lost", true)
		if b.mem.Bytes(lost[3]) != nil {
			t.Error("objects that nobody met were put again without Run")
		}
		stop := b.run(always)
		time.Sleep(time.Second)
		synctest.Wait()
		for i := range 10 {
			if got := string(b.mem.Bytes(fmt.Sprintf("c_x901/ledger/0000000000000000/%04d", i))); got != fmt.Sprint("commit ", i) {
				t.Errorf("commit %d: got %q", i, got)
			}
		}
		if st := b.Stats(); st.Again != 4 {
			t.Errorf("put again: got %d, want 4", st.Again)
		}
		time.Sleep(23*time.Hour + 30*time.Minute)
		synctest.Wait()
		b.wantHeld(10)
		time.Sleep(time.Hour)
		synctest.Wait()
		b.wantHeld(0)
		stop()
	})
}

func TestAListingMeetsWhatIsMissing(t *testing.T) {
	b := newBench(t)
	var want []string
	for i := range 9 {
		key := fmt.Sprintf("c_x901/ledger/0000000000000000/%04d", i)
		b.mustPut(key, fmt.Sprint("commit ", i))
		want = append(want, key)
	}
	b.mustPut("evidence/0000000000000000/0000", "seal")
	b.mem.Plant("c_x901/ledger/0000000000000000/0004", []byte("another version"))
	for _, i := range []int{0, 3, 8} {
		b.mem.Delete(want[i])
	}
	var got []string
	for v, err := range b.List(t.Context(), "c_x901/", want[0]) {
		if err != nil {
			t.Fatal(err)
		}
		if v.Latest {
			got = append(got, v.Key)
		}
	}
	if !slices.Equal(got, want[1:]) {
		t.Errorf("got %q, want %q", got, want[1:])
	}
	if b.mem.Bytes(want[3]) == nil || b.mem.Bytes(want[0]) != nil {
		t.Error("what the listing met, and nothing else, should have been put again")
	}
}

func TestTimeBeginsAnewWhenAnObjectWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.mustPut("c_x901/packages/a", "a")
		stop := b.run(always)
		time.Sleep(20 * time.Hour)
		b.mem.Lose(1)
		if _, err := b.Stat(context.Background(), "c_x901/packages/a"); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		b.wantHeld(1)
		stop()
		b.reopen()
		stop = b.run(always)
		time.Sleep(13 * time.Hour)
		synctest.Wait()
		b.wantHeld(1)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		b.wantHeld(0)
		stop()
	})
}

func TestNothingIsGivenUpBeforeItIsSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.mustPut("c_x901/packages/a", "a")
		var sealed atomic.Bool
		b.mustPut("ucolli_x902/packages/a", "a")
		stop := b.run(func(_ context.Context, room string) time.Time {
			if room != "c_x901" || sealed.Load() {
				return time.Now()
			}
			return time.Time{}
		})
		time.Sleep(72 * time.Hour)
		synctest.Wait()
		b.wantHeld(1)
		sealed.Store(true)
		time.Sleep(time.Hour)
		synctest.Wait()
		b.wantHeld(0)
		stop()
	})
}

func TestOtherBytesAreSaidAndNotTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		const key = "c_x901/packages/a"
		b.mustPut(key, "right")
		b.mem.Overwrite(key, []byte("wrong"))
		stop := b.run(always)
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		b.wantHeld(1)
		b.wantLog("other bytes", true)
		if n := strings.Count(b.log.String(), "other bytes"); n != 1 {
			t.Errorf("said %d times, want once", n)
		}
		if got := string(b.mem.Bytes(key)); got != "wrong" {
			t.Errorf("store: got %q, want it untouched", got)
		}
		if err := b.Restore(context.Background(), key, strings.NewReader("right"), options("right")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		b.wantHeld(1)
		time.Sleep(time.Hour + time.Minute)
		synctest.Wait()
		b.wantHeld(0)
		stop()
	})
}

// TestACopyThatLostItsKey has another daemon take the key of an object that a dead process never put. Whether the
// copy is dropped is for whoever knows what was promised to say.
func TestACopyThatLostItsKey(t *testing.T) {
	const key = "c_x901/ledger/0000000000000000/0007"
	for name, c := range map[string]struct {
		fails      int
		superseded bool
		held       int64
	}{
		"promised":           {0, false, 1},
		"never promised":     {0, true, 0},
		"not known at first": {2, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.mem.OnPut = func(string) (bool, error) { return false, storage.ErrUnknown }
				if err := put(b, key, "ours"); err == nil {
					t.Fatal("put: got no error")
				}
				b.mem.OnPut = nil
				if err := put(b.mem, key, "theirs"); err != nil {
					t.Fatal(err)
				}
				b.reopen()
				asked := 0
				b.superseded = func(_ context.Context, k string, sum [32]byte) (bool, error) {
					if k != key || sum != sha256.Sum256([]byte("ours")) {
						t.Errorf("asked of %s %x", k, sum)
					}
					if asked++; asked <= c.fails {
						return false, errors.New("away")
					}
					return c.superseded, nil
				}
				stop := b.run(never)
				time.Sleep(48 * time.Hour)
				synctest.Wait()
				b.wantHeld(c.held)
				b.wantLog("other bytes", !c.superseded)
				b.wantLog("level=ERROR", !c.superseded)
				b.wantLog("copy dropped", c.superseded)
				if got := string(b.mem.Bytes(key)); got != "theirs" {
					t.Errorf("store: got %q, want it untouched", got)
				}
				stop()
				b.reopen()
				b.wantHeld(c.held)
			})
		})
	}
}

func TestADeleteMarkIsNoObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		const key = "c_x901/packages/a"
		b.mustPut(key, "a")
		b.mem.Marker(key)
		stop := b.run(always)
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if got := string(b.mem.Bytes(key)); got != "a" {
			t.Errorf("got %q, want the object put again\n%s", got, b.log.String())
		}
		b.wantLog("lost an object", true)
		stop()
	})
}

// TestADeleteMarkThatNothingIsCreatedOver: versitygw answers a create over a delete marker with "exists".
func TestADeleteMarkThatNothingIsCreatedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		const key = "c_x901/packages/a"
		b.mustPut(key, "a")
		b.mem.Marker(key)
		var puts atomic.Int64
		b.mem.OnPut = func(string) (bool, error) {
			if puts.Add(1) == 1 {
				return false, storage.ErrExists
			}
			return true, nil
		}
		stop := b.run(always)
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if got := string(b.mem.Bytes(key)); got != "a" {
			t.Errorf("got %q, want the object on top of the marker\n%s", got, b.log.String())
		}
		b.wantLog("does not answer", false)
		stop()
	})
}

// failing is a store whose reads fail in ever other ways.
type failing struct {
	*storagetest.Mem
	n atomic.Int64
}

func (f *failing) Get(context.Context, string, string, int64, int64) (io.ReadCloser, error) {
	if f.n.Add(1)%2 == 0 {
		return nil, errors.Join(errors.New("a line broke"), errors.New("and could not be closed"))
	}
	return nil, errors.New("refused")
}

// TestFailuresOfAnyKindAreSaid: errors of several types in one pass once ended the process.
func TestFailuresOfAnyKindAreSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for i := range 6 {
			b.mustPut(fmt.Sprintf("c_x901/packages/%02d", i), fmt.Sprint(i))
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), &failing{Mem: b.mem}, b.opt)
		if err != nil {
			t.Fatal(err)
		}
		b.Spool = s
		stop := b.run(always)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.wantLog("does not answer", true)
		b.wantHeld(6)
		stop()
	})
}

func TestAStoreThatIsAwayAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var gone atomic.Bool
		away := errors.New("connection refused")
		answer := func(string) (bool, error) {
			if gone.Load() {
				return false, away
			}
			return true, nil
		}
		b.mem.OnPut, b.mem.OnGet = answer, answer
		for i := range 30 {
			b.mustPut(fmt.Sprintf("c_x901/packages/%02d", i), fmt.Sprint(i))
		}
		stop := b.run(always)
		time.Sleep(time.Minute)
		gone.Store(true)
		if err := put(b, "c_x901/packages/new", "new"); !errors.Is(err, away) {
			t.Errorf("put: got %v", err)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		b.mem.Lose(3) // what it had not synced
		gone.Store(false)
		time.Sleep(longest + time.Minute)
		synctest.Wait()
		for i := range 30 {
			if got := string(b.mem.Bytes(fmt.Sprintf("c_x901/packages/%02d", i))); got != fmt.Sprint(i) {
				t.Errorf("object %d: got %q", i, got)
			}
		}
		if got := string(b.mem.Bytes("c_x901/packages/new")); got != "new" {
			t.Errorf("what had an unknown outcome: got %q", got)
		}
		stop()
	})
}

func TestOneBadObjectDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for i := range 40 {
			b.mustPut(fmt.Sprintf("c_x901/packages/%02d", i), fmt.Sprint(i))
		}
		b.mem.OnGet = func(key string) (bool, error) {
			if key < "c_x901/packages/20" {
				return false, errors.New("cannot be read")
			}
			return true, nil
		}
		stop := b.run(always)
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		b.wantHeld(20)
		stop()
	})
}

func TestErasedIsNotPutAgain(t *testing.T) {
	b := newBench(t)
	b.mem.Now = func() time.Time { return time.Now().AddDate(10, 0, 0) }
	b.mustPut("c_x901/packages/a", "a")
	if err := b.Erase(context.Background(), "c_x901/packages/a", "", "test"); err != nil {
		t.Fatal(err)
	}
	b.wantHeld(0)
	b.reopen()
	b.wantHeld(0)
	if _, err := get(b, "c_x901/packages/a"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestErasureThatALockForbidsCostsNothing(t *testing.T) {
	b := newBench(t)
	const key = "c_x901/packages/a"
	o := options("a")
	o.RetainUntil = time.Now().AddDate(1, 0, 0)
	if err := b.Put(context.Background(), key, strings.NewReader("a"), o); err != nil {
		t.Fatal(err)
	}
	if err := b.Erase(context.Background(), key, "", "test"); !errors.Is(err, storage.ErrLocked) {
		t.Fatalf("got %v, want ErrLocked", err)
	}
	b.wantHeld(1)
	// A version beside it is erased without touching the copy.
	id := b.mem.Plant(key, []byte("foreign"))
	if err := b.Erase(context.Background(), key, id, "test"); err != nil {
		t.Fatal(err)
	}
	if got := string(b.mem.Bytes(key)); got != "a" {
		t.Errorf("got %q", got)
	}
}

func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.opt.Quota = 8 << 20
		b.reopen()
		big := strings.Repeat("x", 2<<20)
		stage := func(key string) error {
			st, err := b.Stage(context.Background())
			if err != nil {
				return err
			}
			defer st.Close()
			if _, err := st.WriteAt([]byte(key+big), 0); err != nil {
				return err
			}
			var o storage.PutOptions
			if o.Size, o.SHA256, err = st.Seal(context.Background()); err != nil {
				return err
			}
			return b.Put(context.Background(), key, st, o)
		}
		n := 0
		var err error
		for ; err == nil && n < 10; n++ {
			err = stage(fmt.Sprintf("c_x901/packages/%02d", n))
		}
		if !errors.Is(err, storage.ErrFull) || n != 4 {
			t.Fatalf("object %d: got %v, want the fourth to be refused", n, err)
		}
		b.wantLog("spool is full", true)
		// What frees the rest still has room.
		b.mustPut("c_x901/ledger/0000000000000000/0000", "commit")
		b.mustPut("evidence/0000000000000000/0000", "seal")
		stop := b.run(always)
		time.Sleep(40 * time.Second)
		synctest.Wait()
		b.wantHeld(5) // nothing is read back in its first minute
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := b.Stats(); st.Bytes > 8<<20/5*3 || st.Objects == 0 {
			t.Errorf("after early reading back: got %+v, want three fifths of the quota", st)
		}
		b.wantLog("read back early", true)
		if err := stage("c_x901/packages/zz"); err != nil {
			t.Errorf("after room was made: got %v", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		b.wantLog("has room again", true)
		stop()
	})
}

// TestSmallDocumentsLeaveRoomForWhatFreesThem: while no timestamp can be had nothing is sealed, so nothing is given up.
// The commits and seals that end this must find room, however small the documents were that took the rest.
func TestSmallDocumentsLeaveRoomForWhatFreesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.opt.Quota = 1 << 20
		b.reopen()
		var sealed atomic.Bool
		stop := b.run(func(context.Context, string) time.Time {
			if sealed.Load() {
				return time.Now()
			}
			return time.Time{}
		})
		for size, room := range map[int]string{60_000: "packages", 2_000: "refusals"} {
			var err error
			for n := 0; err == nil && n < 2_000; n++ {
				err = put(b, fmt.Sprintf("c_x901/%s/%04d", room, n), strings.Repeat("x", size-4)+fmt.Sprintf("%04d", n))
			}
			if !errors.Is(err, storage.ErrFull) {
				t.Fatalf("%s: got %v, want ErrFull", room, err)
			}
		}
		b.wantLog("spool is full", true)
		time.Sleep(48 * time.Hour)
		b.mustPut("c_x901/ledger/0000000000000000/0001", strings.Repeat("c", 4_000))
		b.mustPut("evidence/0000000000000000/0001", strings.Repeat("s", 6_000))
		sealed.Store(true)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if err := put(b, "c_x901/packages/after", "room again"); err != nil {
			t.Errorf("after the seal: got %v, want room\n%+v", err, b.Stats())
		}
		stop()
	})
}

func TestUnsealedIsNotReadBackEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.opt.Quota = 100
		b.reopen()
		b.mustPut("c_x901/packages/a", strings.Repeat("x", 90))
		stop := b.run(never)
		time.Sleep(time.Hour)
		synctest.Wait()
		b.wantHeld(1)
		if _, err := b.Stage(context.Background()); err != nil {
			t.Errorf("below the quota: got %v", err)
		}
		stop()
	})
}

func TestReserveAndBallast(t *testing.T) {
	b := newBench(t)
	b.opt.Ballast, b.opt.Reserve = 1<<20, 100<<20
	b.reopen()
	ballast := filepath.Join(b.opt.Dir, "ballast")
	if st, err := os.Stat(ballast); err != nil || st.Size() != 1<<20 {
		t.Fatalf("ballast: got %v, %v", st, err)
	}
	b.free.Store(80 << 20)
	if _, err := b.Stage(context.Background()); !errors.Is(err, storage.ErrFull) {
		t.Errorf("stage below the reserve: got %v, want ErrFull", err)
	}
	b.mustPut("c_x901/ledger/0000000000000000/0000", "commit")
	b.free.Store(10 << 20)
	if err := put(b, "c_x901/ledger/0000000000000000/0001", "commit"); !errors.Is(err, storage.ErrFull) {
		t.Errorf("commit with nothing left: got %v, want ErrFull", err)
	}
	if _, err := os.Stat(ballast); err == nil {
		t.Error("the ballast was not given up")
	}
	b.free.Store(1 << 40)
	b.tend()
	if _, err := os.Stat(ballast); err != nil {
		t.Errorf("the ballast was not made again: %v", err)
	}
	b.mustPut("c_x901/ledger/0000000000000000/0001", "commit")
	if got := b.mem.Keys(); len(got) != 2 {
		t.Errorf("store: got %q", got)
	}
}

func TestASecondProcessIsTurnedAway(t *testing.T) {
	b := newBench(t)
	if _, err := Open(t.Context(), b.mem, b.opt); err == nil {
		t.Error("second Open of a folder: got no error")
	}
}

func TestADamagedCopyIsNotPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.mem.Lenient = true
		const key = "c_x901/packages/a"
		b.mustPut(key, "right")
		b.mem.Lose(1)
		found, _ := filepath.Glob(filepath.Join(b.opt.Dir, "held", "*"))
		if err := errors.Join(os.Chmod(found[0], 0o644), os.WriteFile(found[0], []byte("wrong"), 0o644)); err != nil {
			t.Fatal(err)
		}
		if _, err := get(b, key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		b.wantLog("copy in the spool is damaged", true)
	})
}

func TestStrangeFilesAreLeftAlone(t *testing.T) {
	b := newBench(t)
	strange := filepath.Join(b.opt.Dir, "held", "strange")
	if err := os.WriteFile(strange, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	b.wantHeld(0)
	b.wantLog("no copy of an object", true)
	if _, err := os.Stat(strange); err != nil {
		t.Error(err)
	}
}

func TestReadersOfALostObjectWaitForItsReturn(t *testing.T) {
	b := newBench(t)
	const key = "c_x901/ledger/0000000000000000/0000"
	b.mustPut(key, "commit")
	b.mem.Lose(1)
	b.mem.OnPut = func(string) (bool, error) {
		time.Sleep(50 * time.Millisecond)
		return true, nil
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := get(b, key); err != nil || got != "commit" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if st := b.Stats(); st.Again != 1 {
		t.Errorf("put again: got %d times, want once", st.Again)
	}
}

func TestRecall(t *testing.T) {
	b := newBench(t)
	const key = "c_x901/packages/a"
	b.mustPut(key, "right")
	for _, sum := range [][32]byte{{}, sha256.Sum256([]byte("right"))} {
		r, err := b.Recall(t.Context(), key, sum)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); string(got) != "right" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Recall(t.Context(), key, sha256.Sum256([]byte("wrong"))); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("other bytes: got %v, want ErrNotFound", err)
	}
	if _, err := b.Recall(t.Context(), "c_x901/packages/b", [32]byte{}); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("another key: got %v, want ErrNotFound", err)
	}
}
