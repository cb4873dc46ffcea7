package s3_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

const (
	lieStall = time.Second // a loaded machine must not look like a stalled server
	lieKey   = "p/packages/aa/a"
	derived  = "p/tiles/a"
)

var lieUntil = time.Date(2190, 1, 1, 0, 0, 0, 0, time.UTC)

// noise returns n bytes that depend on seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func announced(data []byte) storage.PutOptions {
	return storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)}
}

// scene is one operation of the store, told lies.
type scene struct {
	name string
	// set makes what lies there before.
	set func(l *s3test.Liar)
	// do is the operation.
	do func(ctx context.Context, s *s3.Store) (any, error)
	// judge says what was wrong with an answer, given the truth.
	judge func(l *s3test.Liar, lie told, got any, err error) error
	// again says what is wrong after the operation was repeated on a server that is honest again; nil: not repeated.
	again func(l *s3test.Liar, err error) error
}

// told is a lie, the call it was told on, and its number.
type told struct {
	s3test.Lie
	kind s3test.Kind
	n    int
}

func (t told) is(kind s3test.Kind, lies ...s3test.LieKind) bool {
	return t.kind == kind && slices.Contains(lies, t.What)
}

// lieStore opens a store whose objects above 1,000 bytes go in parts of 400.
func lieStore(l *s3test.Liar, stall time.Duration) (*s3.Store, error) {
	o := l.Options()
	o.Stall, o.Single, o.Part = stall, 1000, 400
	return s3.Open(context.Background(), o)
}

// putScene is the creation of an object.
func putScene(name string, data []byte) scene {
	return scene{
		name: name,
		set:  func(l *s3test.Liar) { l.Plant("p/packages/aa/other", noise(9, 500)) },
		do: func(ctx context.Context, s *s3.Store) (any, error) {
			o := announced(data)
			o.RetainUntil = lieUntil
			return nil, s.Put(ctx, lieKey, bytes.NewReader(data), o)
		},
		judge: func(l *s3test.Liar, lie told, _ any, err error) error {
			there := l.Bytes(lieKey)
			switch {
			case there != nil && !bytes.Equal(there, data):
				return fmt.Errorf("other bytes were stored")
			case err == nil && there == nil && !lie.is(s3test.PutObject, s3test.StoresNothing):
				return errors.New("acknowledged, and nothing lies there")
			case errors.Is(err, storage.ErrExists) && there == nil:
				return errors.New("ErrExists, and nothing lies there")
			case errors.Is(err, storage.ErrFull) && there != nil:
				return errors.New("ErrFull, and the object lies there")
			case errors.Is(err, storage.ErrDigest), errors.Is(err, storage.ErrKey):
				return errors.New("the server's failure is told as the caller's")
			case err == nil && there != nil && !l.Locked(lieKey, lieUntil):
				return errors.New("acknowledged, and not locked")
			}
			lost := lie.is(s3test.CreateUpload, s3test.HangAfter, s3test.FailsAfter, s3test.RefusesAfter, s3test.ConflictAfter, s3test.WrongBytes,
				s3test.GarbledAnswer, s3test.Slow, s3test.EndlessAnswer, s3test.LengthMissing, s3test.ShortBody, s3test.ShorterBody, s3test.Reset, s3test.OtherETag)
			if l.Uploads() > 0 && !lost && lie.kind != s3test.AbortUpload {
				return errors.New("an incomplete upload was left")
			}
			return nil
		},
		again: func(l *s3test.Liar, err error) error {
			if err != nil && !errors.Is(err, storage.ErrExists) {
				return err
			}
			if !bytes.Equal(l.Bytes(lieKey), data) {
				return errors.New("the object is not there")
			}
			return nil
		},
	}
}

// getScene reads bytes [offset, offset+n) of data.
func getScene(name string, data []byte, version bool, offset, n int64) scene {
	want := data[offset:]
	if n >= 0 {
		want = want[:n]
	}
	const first = "v000001"
	return scene{
		name: name,
		set: func(l *s3test.Liar) {
			l.Plant(lieKey, data)
			l.Plant("p/packages/aa/other", noise(9, len(data)))
			if version {
				l.Plant(lieKey, noise(8, len(data)))
			}
		},
		do: func(ctx context.Context, s *s3.Store) (any, error) {
			id := ""
			if version {
				id = first
			}
			r, err := s.Get(ctx, lieKey, id, offset, n)
			if err != nil {
				return nil, err
			}
			got, err := io.ReadAll(r)
			return got, errors.Join(err, r.Close())
		},
		judge: func(_ *s3test.Liar, lie told, got any, err error) error {
			switch {
			case errors.Is(err, storage.ErrNotFound) && !lie.is(s3test.GetObject, s3test.NotFound, s3test.StaleRead):
				return errors.New("ErrNotFound for what exists")
			case err != nil, bytes.Equal(got.([]byte), want):
				return nil
			case lie.is(s3test.GetObject, s3test.WrongBytes, s3test.OtherBody, s3test.StaleRead):
				// Nothing but the digest tells: the caller's.
			case lie.is(s3test.GetObject, s3test.ShorterBody, s3test.ErrorIn200) && offset == 0 && n < 0:
			default:
				return errors.New("other bytes without an error")
			}
			if n < 0 && offset == 0 && sha256.Sum256(got.([]byte)) == sha256.Sum256(data) {
				return errors.New("a digest would not tell")
			}
			return nil
		},
	}
}

func scenes() []scene {
	data, large := noise(1, 900), noise(2, 1500)
	restored := func(l *s3test.Liar, lie told, _ any, err error) error {
		there := l.Bytes(lieKey)
		if err == nil && !bytes.Equal(there, data) && !lie.is(s3test.PutObject, s3test.StoresNothing) && !lie.is(s3test.GetObject, s3test.StaleRead) {
			return errors.New("acknowledged, and the bytes are not there")
		}
		return nil
	}
	wrong := noise(7, 900)
	listKeys := func(l *s3test.Liar) {
		for i := range 9 {
			l.Plant(fmt.Sprintf("p/packages/%02d/x y", i), data)
			if i%3 == 0 {
				l.Marker(fmt.Sprintf("p/packages/%02d/x y", i))
			}
		}
		l.Page = 5
	}
	all := []scene{
		putScene("put", data),
		putScene("put in parts", large),
		putScene("put nothing", nil),
		getScene("get", data, false, 0, -1),
		getScene("get a range", data, false, 100, 300),
		getScene("get the end", data, false, 500, -1),
		getScene("get a version", data, true, 0, -1),
		{
			name: "list", set: listKeys,
			do: func(ctx context.Context, s *s3.Store) (any, error) { return listed(ctx, s) },
			judge: func(l *s3test.Liar, lie told, got any, err error) error {
				truth := truly(l)
				if err != nil || slices.Equal(got.([]string), truth) || lie.What == s3test.WrongBytes {
					return nil // WrongBytes is a bit in a name: a listing is no evidence
				}
				if !lie.is(s3test.ListVersions, s3test.StaleRead, s3test.ListTruncated, s3test.ListNoLast) {
					return fmt.Errorf("got %q, want an error or %q", got, truth)
				}
				for _, e := range got.([]string) {
					if !slices.Contains(truth, e) {
						return fmt.Errorf("%q is invented", e)
					}
				}
				return nil
			},
		},
		{
			name: "stat",
			set: func(l *s3test.Liar) {
				l.Plant(lieKey, data)
				l.Lock(lieKey, lieUntil)
				l.Plant(lieKey, data[1:])
				l.Plant(lieKey+"b", data)
			},
			do: func(ctx context.Context, s *s3.Store) (any, error) { return s.Stat(ctx, lieKey) },
			judge: func(l *s3test.Liar, lie told, got any, err error) error {
				o := got.(storage.Object)
				reads := lie.is(s3test.ListVersions, s3test.StaleRead, s3test.ListTruncated, s3test.ListNoLast, s3test.WrongBytes)
				switch {
				case errors.Is(err, storage.ErrNotFound) && !reads:
					return errors.New("ErrNotFound for what exists")
				case err != nil || reads:
					return nil
				case len(o.Versions) != 2 || o.Size != int64(len(data)-1) || !o.RetainUntil.IsZero():
					return fmt.Errorf("got %+v", o)
				case !o.Versions[1].RetainUntil.Equal(lieUntil) && !lie.is(s3test.HeadObject, s3test.NotFound, s3test.StaleRead):
					return fmt.Errorf("got lock %v", o.Versions[1].RetainUntil)
				}
				return nil
			},
		},
		{
			name: "history",
			set: func(l *s3test.Liar) {
				l.Plant(lieKey, data)
				l.Plant(lieKey, data[1:])
				l.Plant(lieKey+"b", data)
			},
			do: func(ctx context.Context, s *s3.Store) (any, error) { return s.History(ctx, lieKey) },
			judge: func(_ *s3test.Liar, lie told, got any, err error) error {
				reads := lie.is(s3test.ListVersions, s3test.StaleRead, s3test.ListTruncated, s3test.ListNoLast, s3test.WrongBytes)
				switch all := got.([]storage.Version); {
				case errors.Is(err, storage.ErrNotFound) && !reads:
					return errors.New("ErrNotFound for what exists")
				case err != nil || reads:
					return nil
				case len(all) != 2 || all[0].Size != int64(len(data)-1) || !all[0].Latest:
					return fmt.Errorf("got %+v", all)
				}
				return nil
			},
		},
		{
			name: "extend",
			set: func(l *s3test.Liar) {
				l.Plant(lieKey, data)
				l.Lock(lieKey, lieUntil.AddDate(-1, 0, 0))
			},
			do: func(ctx context.Context, s *s3.Store) (any, error) { return nil, s.Extend(ctx, lieKey, "", lieUntil) },
			judge: func(l *s3test.Liar, _ told, _ any, err error) error {
				if err == nil && !l.Locked(lieKey, lieUntil) {
					return errors.New("acknowledged, and not locked")
				}
				return nil
			},
			again: func(_ *s3test.Liar, err error) error { return err },
		},
		{
			name: "hold",
			set:  func(l *s3test.Liar) { l.Plant(lieKey, data) },
			do:   func(ctx context.Context, s *s3.Store) (any, error) { return nil, s.Hold(ctx, lieKey, "", true) },
			judge: func(l *s3test.Liar, _ told, _ any, err error) error {
				if err == nil && !l.Held(lieKey) {
					return errors.New("acknowledged, and not held")
				}
				return nil
			},
			again: func(_ *s3test.Liar, err error) error { return err },
		},
		{
			name: "erase",
			set: func(l *s3test.Liar) {
				l.Plant(lieKey, data)
				l.Plant(lieKey, data)
				l.Marker(lieKey)
				l.Plant(lieKey+"b", data)
			},
			do: func(ctx context.Context, s *s3.Store) (any, error) { return nil, s.Erase(ctx, lieKey, "", "test") },
			judge: func(l *s3test.Liar, lie told, _ any, err error) error {
				left := l.Versions(lieKey)
				lists := lie.is(s3test.ListVersions, s3test.StaleRead, s3test.ListTruncated, s3test.ListNoLast, s3test.WrongBytes)
				switch {
				case err == nil && len(left) > 0 && lie.What != s3test.WrongBytes:
					return fmt.Errorf("acknowledged, and %q are left", left)
				case errors.Is(err, storage.ErrNotFound) && len(left) > 0 && !lists:
					return errors.New("ErrNotFound for what exists")
				case errors.Is(err, storage.ErrLocked):
					return errors.New("ErrLocked without a lock")
				case l.Bytes(lieKey+"b") == nil:
					return errors.New("a neighbour was erased")
				}
				return nil
			},
			again: func(_ *s3test.Liar, err error) error {
				if errors.Is(err, storage.ErrNotFound) {
					return nil
				}
				return err
			},
		},
		{
			name: "restore what is wrong",
			set: func(l *s3test.Liar) {
				l.Plant(lieKey, data)
				l.Plant("p/packages/aa/other", data)
				l.Plant(lieKey, wrong)
			},
			do: func(ctx context.Context, s *s3.Store) (any, error) {
				return nil, s.Restore(ctx, lieKey, bytes.NewReader(data), announced(data))
			},
			judge: func(l *s3test.Liar, lie told, got any, err error) error {
				if lie.is(s3test.GetObject, s3test.OtherBody) {
					return nil // the right bytes, of another object
				}
				return restored(l, lie, got, err)
			},
			again: func(_ *s3test.Liar, err error) error { return err },
		},
		{
			name: "restore what is right",
			set:  func(l *s3test.Liar) { l.Plant("p/packages/aa/other", wrong); l.Plant(lieKey, data) },
			do: func(ctx context.Context, s *s3.Store) (any, error) {
				return nil, s.Restore(ctx, lieKey, bytes.NewReader(data), announced(data))
			},
			judge: restored,
		},
		{
			name: "replace",
			set: func(l *s3test.Liar) {
				for i := range 4 {
					l.Plant(derived, noise(byte(i), 50))
				}
			},
			do: func(ctx context.Context, s *s3.Store) (any, error) {
				return nil, s.Replace(ctx, derived, bytes.NewReader(data), announced(data))
			},
			judge: func(l *s3test.Liar, lie told, _ any, err error) error {
				if there := l.Bytes(derived); err == nil && !bytes.Equal(there, data) && !lie.is(s3test.PutObject, s3test.StoresNothing) {
					return errors.New("acknowledged, and the bytes are not there")
				} else if len(there) == 0 {
					return errors.New("the derived object is gone")
				}
				return nil
			},
			again: func(_ *s3test.Liar, err error) error { return err },
		},
		{
			name: "sweep",
			set:  func(l *s3test.Liar) { l.Begin("p/old", 25*time.Hour); l.Begin("p/young", time.Hour) },
			do:   func(ctx context.Context, s *s3.Store) (any, error) { return s.Sweep(ctx) },
			judge: func(l *s3test.Liar, lie told, got any, err error) error {
				lies := lie.is(s3test.AbortUpload, s3test.StoresNothing, s3test.NotFound) || lie.is(s3test.ListUploads, s3test.ErrorIn200, s3test.WrongBytes)
				switch n := l.Uploads(); {
				case n == 0 && lie.What != s3test.WrongBytes:
					return errors.New("an upload that is under way was aborted")
				case err == nil && n != 1 && !lies:
					return fmt.Errorf("%d swept, and %d are left", got, n)
				}
				return nil
			},
			again: func(_ *s3test.Liar, err error) error { return err },
		},
	}
	return all
}

func listed(ctx context.Context, s *s3.Store) ([]string, error) {
	var got []string
	for v, err := range s.List(ctx, "p/", "") {
		if err != nil {
			return got, err
		}
		got = append(got, fmt.Sprintf("%s %s marker=%v latest=%v %d", v.Key, v.ID, v.Marker, v.Latest, v.Size))
	}
	return got, nil
}

// truly is what an honest server lists.
func truly(l *s3test.Liar) []string {
	s, err := lieStore(l, time.Minute)
	if err != nil {
		return nil
	}
	all, _ := listed(context.Background(), s)
	return all
}

// bodied are the lies whose place in a body matters.
var bodied = []s3test.LieKind{s3test.ShortBody, s3test.ShorterBody, s3test.WrongBytes, s3test.Reset, s3test.ListTruncated}

// TestLies tells the store every lie on every call of every operation, at the beginning, the middle and the end of
// bodies (LIE_POSITIONS=60 for a campaign). Whatever is told, what the store answers must be true, late but bounded, or
// an error; and the same operation must succeed afterwards on a server that is honest again. What cannot be seen from
// here is named in the judges: a success of a single PUT that stored nothing (the spool reads back), and bytes,
// whole, that only a digest tells from the right ones (every caller checks digests).
func TestLies(t *testing.T) {
	positions := 3
	if n, err := strconv.Atoi(os.Getenv("LIE_POSITIONS")); err == nil && n > 1 {
		positions = n
	}
	type trial struct {
		scene
		told
	}
	var trials []trial
	for _, sc := range scenes() {
		for _, call := range honestly(t, sc) {
			if call.Kind == s3test.Setting || call.N > 3 {
				continue
			}
			for _, what := range s3test.LieKinds {
				n := 1
				if slices.Contains(bodied, what) {
					n = positions
				}
				for i := range n {
					at := 0.5
					if n > 1 {
						at = float64(i) / float64(n-1)
					}
					trials = append(trials, trial{sc, told{s3test.Lie{What: what, At: at}, call.Kind, call.N}})
				}
			}
		}
	}
	if testing.Short() { // every lie once, somewhere
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(trials), func(i, j int) { trials[i], trials[j] = trials[j], trials[i] })
		trials = trials[:len(trials)/8]
	}
	queue := make(chan trial)
	var workers sync.WaitGroup
	for range 24 {
		workers.Go(func() {
			for c := range queue {
				if err := perform(t, c.scene, c.told); err != nil {
					t.Errorf("%s, told %q at %.2f on %s number %d: %v", c.name, c.What, c.At, c.kind, c.n, err)
				}
			}
		})
	}
	for _, c := range trials {
		queue <- c
	}
	close(queue)
	workers.Wait()
	t.Logf("%d lies told", len(trials))
	if len(trials) < 1400 && !testing.Short() {
		t.Errorf("only %d lies were told, want at least 1400", len(trials))
	}
}

// TestLiesAreSeenThrough plants faults in the store, which the judges must see.
func TestLiesAreSeenThrough(t *testing.T) {
	data := noise(1, 900)
	believes, swallows, guesses := putScene("put that believes", data), getScene("get that swallows errors", data, false, 0, -1), putScene("put that guesses", data)
	put, get := believes.do, swallows.do
	believes.do = func(ctx context.Context, s *s3.Store) (any, error) { _, _ = put(ctx, s); return nil, nil }
	guesses.do = func(ctx context.Context, s *s3.Store) (any, error) {
		_, err := put(ctx, s)
		if errors.Is(err, storage.ErrUnknown) {
			err = storage.ErrExists
		}
		return nil, err
	}
	swallows.do = func(ctx context.Context, s *s3.Store) (any, error) {
		got, err := get(ctx, s)
		if got == nil {
			return got, err
		}
		return got, nil
	}
	for _, c := range []struct {
		scene
		told
	}{
		{believes, told{s3test.Lie{What: s3test.Conflict}, s3test.PutObject, 1}},
		{guesses, told{s3test.Lie{What: s3test.ServiceDown}, s3test.PutObject, 1}},
		{swallows, told{s3test.Lie{What: s3test.ShortBody, At: 0.5}, s3test.GetObject, 1}},
	} {
		if err := perform(t, c.scene, c.told); err == nil {
			t.Errorf("%s was not found out", c.name)
		}
	}
}

// honestly performs a scene without lies, and returns its calls.
func honestly(t *testing.T, sc scene) []s3test.Call {
	t.Helper()
	l := s3test.StartLiar(t, s3test.Flaws{})
	sc.set(l)
	s, err := lieStore(l, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	l.Telling(nil)
	got, err := sc.do(t.Context(), s)
	calls := l.Calls()
	if err != nil {
		t.Fatalf("%s, told the truth: %v", sc.name, err)
	}
	if err := sc.judge(l, told{}, got, nil); err != nil {
		t.Fatalf("%s, told the truth: %v", sc.name, err)
	}
	return calls
}

func perform(t *testing.T, sc scene, lie told) error {
	const bound = 30 * time.Second // of seconds on a quiet machine
	l := s3test.StartLiar(t, s3test.Flaws{})
	defer l.Close()
	l.Pace = 50 * time.Millisecond
	sc.set(l)
	s, err := lieStore(l, lieStall)
	for range 10 { // on a machine so loaded that an honest server seems to stall
		if err == nil {
			break
		}
		s, err = lieStore(l, lieStall)
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	l.Telling(func(c s3test.Call) s3test.Lie {
		if c.Kind == lie.kind && c.N == lie.n {
			return lie.Lie
		}
		return s3test.Lie{}
	})
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	got, err := sc.do(ctx, s)
	if ctx.Err() != nil {
		return fmt.Errorf("no answer within %v", bound)
	}
	if wrong := sc.judge(l, lie, got, err); wrong != nil {
		return fmt.Errorf("%w (the answer was: %v)", wrong, err)
	}
	if sc.again == nil {
		return nil
	}
	l.Telling(nil)
	if s, err = lieStore(l, time.Minute); err != nil {
		return err
	}
	_, second := sc.do(ctx, s)
	if wrong := sc.again(l, second); wrong != nil {
		return fmt.Errorf("repeated after %v: %w", err, wrong)
	}
	return nil
}
