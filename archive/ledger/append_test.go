package ledger

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchesud/perenne/storage"
)

func TestAppendedEntriesAreDurableMarkedAndApplied(t *testing.T) {
	store := newBucket(t)
	d := newDaemon(t, store)
	l := d.mustOpen()
	done := mustAppend(t, l, "a", "b", "c")
	for i, c := range done {
		if c.Index != int64(i) || c.Commit != int64(i) {
			t.Errorf("entry %d: got index %d in commit %d", i, c.Index, c.Commit)
		}
	}
	if got, want := d.ids(), []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("applied: got %v want %v", got, want)
	}
	heads, err := OpenHeads(filepath.Join(d.state, "heads"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := heads.Get(producer); got != l.Head() || got.Number != 2 || got.Size != 3 {
		t.Errorf("mark: got %+v want %+v", got, l.Head())
	}
}

func TestEntriesWaitingForACommitShareTheNext(t *testing.T) {
	store := newBucket(t)
	l := newDaemon(t, store).mustOpen()
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	first := true
	store.put = func(string) (bool, error) {
		if first {
			first = false
			entered <- struct{}{}
			<-gate
		}
		return true, nil
	}
	var wg sync.WaitGroup
	wg.Go(func() { mustAppend(t, l, "first") })
	<-entered
	wg.Go(func() { together(t, l, names("n", 50)...) })
	waitFor(t, func() bool { l.waiting.mu.Lock(); defer l.waiting.mu.Unlock(); return len(l.waiting.list) == 50 })
	close(gate)
	wg.Wait()
	if h := l.Head(); h.Number != 1 || h.Size != 51 {
		t.Errorf("got commit %d with %d entries, want 1 with 51", h.Number, h.Size)
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for range 5000 {
		if what() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("waited in vain")
}

func TestEntriesWithOneKeyNeverShareACommit(t *testing.T) {
	q := newQueue()
	for i, key := range []string{"x", "x", "", "y", "", "x"} {
		e := Entry{Key: key, ID: fmt.Sprint(i)}
		if err := q.add(&pending{Pending: Pending{Entry: e}, size: 10, done: make(chan answer, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for len(q.list) > 0 {
		var ids string
		for _, p := range q.batch(100, 1000) {
			ids += p.Entry.ID
		}
		got = append(got, ids)
	}
	if want := []string{"0234", "1", "5"}; !slices.Equal(got, want) {
		t.Errorf("batches: got %q want %q", got, want)
	}
}

func TestABatchEndsAtItsLimits(t *testing.T) {
	for _, c := range []struct{ entries, size, want int }{{3, 1000, 3}, {100, 44, 4}, {100, 1000, 9}} {
		q := newQueue()
		for range 9 {
			q.add(&pending{size: 10, done: make(chan answer, 1)})
		}
		if got := len(q.batch(c.entries, c.size)); got != c.want {
			t.Errorf("limits %d entries, %d bytes: got %d want %d", c.entries, c.size, got, c.want)
		}
	}
}

func TestDecideSeesEverythingBeforeAndWithdrawsOnlyItsEntry(t *testing.T) {
	store := newBucket(t)
	d := newDaemon(t, store)
	l := d.mustOpen()
	refused := errors.New("conflict")
	var wg sync.WaitGroup
	var withdrawn atomic.Int64
	for range 20 {
		wg.Go(func() {
			_, err := l.Append(context.Background(), Pending{Entry: sealed("same"), Decide: func(context.Context) error {
				if slices.Contains(d.ids(), "same") {
					return refused
				}
				return nil
			}})
			if errors.Is(err, refused) {
				withdrawn.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := d.ids(); len(got) != 1 || withdrawn.Load() != 19 {
		t.Errorf("got %d entries and %d refusals, want 1 and 19", len(got), withdrawn.Load())
	}
}

func TestTheRiderNeverMakesACommitDue(t *testing.T) {
	store := newBucket(t)
	d := newDaemon(t, store)
	l := d.mustOpen()
	zero := int64(0)
	rider := &Entry{Type: SealEntry, Seal: &zero, Root: digest("root"), Token: digest("token"), Object: "evidence/0000000000000000/0000", Size: 10, SHA256: digest("seal")}
	l.SetRider(func() *Entry {
		for _, c := range d.applied {
			for _, e := range c.Entries {
				if e.Type == SealEntry {
					return nil
				}
			}
		}
		return rider
	})
	if _, err := l.Append(context.Background(), Pending{Entry: sealed("no"), Decide: func(context.Context) error { return errors.New("no") }}); err == nil {
		t.Error("a withdrawn entry was appended")
	}
	if l.Head().Number != -1 {
		t.Error("the rider made a commit")
	}
	mustAppend(t, l, "a", "b")
	var types []Type
	for _, c := range d.applied {
		for _, e := range c.Entries {
			types = append(types, e.Type)
		}
	}
	if want := []Type{PackageSealed, SealEntry, PackageSealed}; !slices.Equal(types, want) {
		t.Errorf("got %v want %v", types, want)
	}
}

func TestAnInvalidEntryFailsAlone(t *testing.T) {
	l := newDaemon(t, newBucket(t)).mustOpen()
	e := sealed("a")
	e.Record = "personal data"
	if _, err := l.Append(context.Background(), Pending{Entry: e}); !errors.Is(err, ErrEntry) {
		t.Errorf("got %v want ErrEntry", err)
	}
}

// TestEveryFailureOfTheStoreIsSurvived fails each call of a commit in turn, once with and once without its
// effect, and wants every entry exactly once all the same.
func TestEveryFailureOfTheStoreIsSurvived(t *testing.T) {
	broken := errors.New("connection reset")
	for _, step := range []string{"put", "put, but written", "unknown", "unknown, but written", "stat", "get after put", "full after put", "digest after put, but written", "key after put, but written"} {
		t.Run(step, func(t *testing.T) {
			store := newBucket(t)
			d := newDaemon(t, store)
			l := d.mustOpen()
			mustAppend(t, l, "before")
			calls := 0
			once := func(err error) error {
				if calls++; calls == 1 {
					return err
				}
				return nil
			}
			store.put = func(string) (bool, error) {
				switch step {
				case "put":
					err := once(broken)
					return err == nil, err
				case "put, but written", "get after put":
					return true, once(broken)
				case "unknown":
					err := once(storage.ErrUnknown)
					return err == nil, err
				case "unknown, but written":
					return true, once(storage.ErrUnknown)
				case "full after put":
					switch calls++; calls {
					case 1:
						return false, broken
					case 2:
						return false, storage.ErrFull
					}
				case "digest after put, but written", "key after put, but written":
					switch calls++; calls {
					case 1:
						return false, broken
					case 2: // the first request arrives late, and the second is damaged on its way
						return true, map[bool]error{true: storage.ErrDigest, false: storage.ErrKey}[strings.HasPrefix(step, "digest")]
					}
				}
				return true, nil
			}
			failures := 0
			if step == "stat" {
				store.stat = func(string) error { return once(broken) }
			}
			if step == "get after put" {
				store.get = func(string) error {
					if failures++; failures == 1 {
						return broken
					}
					return nil
				}
			}
			done := mustAppend(t, l, "during", "after")
			if got, want := d.ids(), []string{"before", "during", "after"}; !slices.Equal(got, want) {
				t.Errorf("got %v want %v", got, want)
			}
			if done[1].Index != 2 || calls == 0 {
				t.Errorf("got index %d after %d injected calls", done[1].Index, calls)
			}
			checkAll(t, d, 3)
		})
	}
}

func TestAFullStoreIsSaidAtOnceAndPasses(t *testing.T) {
	store := newBucket(t)
	d := newDaemon(t, store)
	l := d.mustOpen()
	full := true
	store.put = func(string) (bool, error) {
		if full {
			return false, storage.ErrFull
		}
		return true, nil
	}
	if _, err := l.Append(context.Background(), Pending{Entry: sealed("a")}); !errors.Is(err, storage.ErrFull) {
		t.Errorf("got %v want ErrFull", err)
	}
	store.mu.Lock()
	full = false
	store.mu.Unlock()
	mustAppend(t, l, "a")
}

func TestAMarkThatCannotBeWrittenStopsTheLedger(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	var heads *Heads
	d.change = func(c *Config) { heads = c.Heads }
	l := d.mustOpen()
	mustAppend(t, l, "a")
	heads.path = filepath.Join(d.state, "heads", "is-no-directory")
	if _, err := l.Append(context.Background(), Pending{Entry: sealed("b")}); !errors.Is(err, storage.ErrUnknown) {
		t.Errorf("got %v want an unknown outcome", err)
	}
	for range 2 {
		if _, err := l.Append(context.Background(), Pending{Entry: sealed("c")}); err == nil {
			t.Error("the ledger says yes without a mark")
		}
	}
	l.Close()
	l = d.mustOpen()
	mustAppend(t, l, "c")
	if got, want := d.ids(), []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("after reopening: got %v want %v", got, want)
	}
}

func TestAFailureToApplyStopsTheLedgerUntilReopened(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	fail := true
	d.change = func(c *Config) {
		apply := c.Applied
		c.Applied = func(ctx context.Context, commit *Commit) error {
			if fail {
				return errors.New("catalog is full")
			}
			return apply(ctx, commit)
		}
	}
	l := d.mustOpen()
	for range 2 {
		if _, err := l.Append(context.Background(), Pending{Entry: sealed("a")}); err == nil {
			t.Error("got yes for what was not applied")
		}
	}
	l.Close()
	fail = false
	d.mustOpen()
	if got := d.ids(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %v want [a]", got)
	}
}

// TestABatchThatLostItsNumberTakesWhatCameMeanwhile holds a writer up while another takes its number.
func TestABatchThatLostItsNumberTakesWhatCameMeanwhile(t *testing.T) {
	store := newBucket(t)
	ours, theirs := newDaemon(t, store).mustOpen(), newDaemon(t, store).mustOpen()
	var wg sync.WaitGroup
	var late []Committed
	var once sync.Once
	heldUp := func(context.Context) error {
		once.Do(func() {
			mustAppend(t, theirs, "quick")
			wg.Go(func() { late = together(t, ours, names("late", 20)...) })
			waitFor(t, func() bool {
				ours.waiting.mu.Lock()
				defer ours.waiting.mu.Unlock()
				return len(ours.waiting.list) == 20
			})
		})
		return nil
	}
	first, err := ours.Append(context.Background(), Pending{Entry: sealed("held"), Decide: heldUp})
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, c := range append(late, first) {
		if c.Commit != 1 {
			t.Errorf("entry %d is in commit %d, want 1", c.Index, c.Commit)
		}
	}
}

func TestWritersOnOneStoreMakeOneHistory(t *testing.T) {
	writers, each := 4, 200
	if testing.Short() {
		each = 40
	}
	store := newBucket(t)
	var daemons []*daemon
	var logs []*Log
	for range writers {
		d := newDaemon(t, store)
		daemons, logs = append(daemons, d), append(logs, d.mustOpen())
	}
	var wg sync.WaitGroup
	for w, l := range logs {
		wg.Go(func() {
			for i := range each {
				// Every second name is wanted by all writers; exactly one of them gets it.
				name := fmt.Sprintf("w%d-%d", w, i)
				if i%2 == 0 {
					name = fmt.Sprintf("all-%d", i)
				}
				taken := errors.New("taken")
				_, err := l.Append(context.Background(), Pending{Entry: sealed(name), Decide: func(context.Context) error {
					if slices.Contains(daemons[w].ids(), name) {
						return taken
					}
					return nil
				}})
				if err != nil && !errors.Is(err, taken) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	want := each/2 + writers*each/2
	for w, l := range logs {
		if err := l.Refresh(context.Background()); err != nil {
			t.Fatal(err)
		}
		if l.Head() != logs[0].Head() {
			t.Errorf("writer %d ends at %+v, writer 0 at %+v", w, l.Head(), logs[0].Head())
		}
		ids := daemons[w].ids()
		slices.Sort(ids)
		if got := len(slices.Compact(ids)); got != want || int64(want) != l.Head().Size {
			t.Errorf("writer %d: got %d different entries of %d, want %d", w, got, l.Head().Size, want)
		}
	}
	checkAll(t, daemons[0], int64(want))
}

// checkAll walks the ledger from the bucket alone and wants it sound, with the number of entries given.
func checkAll(t *testing.T, d *daemon, want int64) {
	t.Helper()
	size := int64(0)
	for c, err := range Walk(context.Background(), d.store, producer, d.known, 0, -1) {
		if err != nil {
			t.Errorf("walk: %v", err)
			continue
		}
		size = c.Size
	}
	if size != want {
		t.Errorf("walk: got %d entries want %d", size, want)
	}
}

func TestTwoMatchingVersionsOfACommitStopTheLedger(t *testing.T) {
	store := newBucket(t)
	d := newDaemon(t, store)
	l := d.mustOpen()
	mustAppend(t, l, "a")
	other := newDaemon(t, store.clone())
	other.change = func(c *Config) { c.TrustBucketHead = true }
	mustAppend(t, other.mustOpen(), "x")
	// A store that hides the other's commit behind a delete marker lets ours be created too.
	store.Plant(Key(producer, 1), other.store.Bytes(Key(producer, 1)))
	store.Marker(Key(producer, 1))
	var fork *Fork
	if _, err := l.Append(context.Background(), Pending{Entry: sealed("b")}); !errors.As(err, &fork) || len(fork.Evidence) != 2 {
		t.Errorf("got %v want a fork with two commits as evidence", err)
	}
	if _, err := l.Append(context.Background(), Pending{Entry: sealed("c")}); !errors.As(err, &fork) {
		t.Errorf("afterwards: got %v want the fork still", err)
	}
}

func TestWhatNoKeySignedUnderTheNextNumberStopsWriting(t *testing.T) {
	store := newBucket(t)
	l := newDaemon(t, store).mustOpen()
	mustAppend(t, l, "a")
	store.swap(Key(producer, 1), []byte("anything"))
	var damage *Damage
	if _, err := l.Append(context.Background(), Pending{Entry: sealed("b")}); !errors.As(err, &damage) || damage.Key != Key(producer, 1) {
		t.Errorf("got %v want damage under %s", err, Key(producer, 1))
	}
	store.swap(Key(producer, 1), nil)
	mustAppend(t, l, "b")
}

func TestTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t, newBucket(t))
		offset := time.Duration(0)
		d.change = func(c *Config) { c.Now = func() time.Time { return time.Now().Add(offset) } }
		l := d.mustOpen()
		first := mustAppend(t, l, "a")[0].Time
		for _, c := range []struct {
			name   string
			offset time.Duration
			want   time.Duration // after the first entry
			err    error
		}{
			{"the same instant", 0, 0, nil},
			{"five seconds behind", -5 * time.Second, 0, nil},
			{"more than five seconds behind", -5*time.Second - time.Millisecond, 0, ErrClock},
			{"ahead", time.Minute, time.Minute, nil},
			{"back by four seconds", time.Minute - 4*time.Second, time.Minute, nil},
			{"back by a minute", 0, 0, ErrClock},
			{"right again", time.Minute + time.Second, time.Minute + time.Second, nil},
		} {
			offset = c.offset
			got, err := l.Append(context.Background(), Pending{Entry: sealed("x")})
			if !errors.Is(err, c.err) {
				t.Errorf("%s: got %v want %v", c.name, err, c.err)
			}
			if err == nil && got.Time.Sub(first) != c.want {
				t.Errorf("%s: got %v after the first want %v", c.name, got.Time.Sub(first), c.want)
			}
		}
		l.Close()
		offset = -time.Hour
		if _, err := d.open(); !errors.Is(err, ErrClock) {
			t.Errorf("open with a slow clock: got %v want ErrClock", err)
		}
	})
}

func TestAnUnknownOutcomeIsPursuedUntilClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newBucket(t)
		d := newDaemon(t, store)
		l := d.mustOpen()
		attempts := 0
		store.put = func(string) (bool, error) { attempts++; return false, errors.New("no route") }
		failed := make(chan error)
		go func() {
			_, err := l.Append(context.Background(), Pending{Entry: sealed("a")})
			failed <- err
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if attempts < 10 || attempts > 30 {
			t.Errorf("got %d attempts in a minute, want between 10 and 30", attempts)
		}
		l.Close()
		if err := <-failed; !errors.Is(err, storage.ErrUnknown) {
			t.Errorf("got %v want ErrUnknown", err)
		}
	})
}

// TestACommitThatIsNotGivenIsSaidAndHoldsNobodyUp has another daemon write a commit that the store then does not give.
func TestACommitThatIsNotGivenIsSaidAndHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newBucket(t)
		ours, theirs := newDaemon(t, store), newDaemon(t, store)
		l, other := ours.mustOpen(), theirs.mustOpen()
		mustAppend(t, other, "theirs")
		store.Rot(Key(producer, 0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		bounded := make(chan error, 1)
		go func() {
			_, err := l.Append(ctx, Pending{Entry: sealed("bounded")})
			bounded <- err
		}()
		began := time.Now()
		if _, err := l.Append(t.Context(), Pending{Entry: sealed("unbounded")}); !errors.Is(err, ErrBusy) {
			t.Errorf("append without a deadline: got %v want ErrBusy", err)
		}
		for name, ask := range map[string]func(context.Context) error{
			"Refresh": l.Refresh, "Hold": l.Hold, "Reach": func(ctx context.Context) error { return l.Reach(ctx, 0) },
		} {
			if err := ask(t.Context()); !errors.Is(err, ErrBusy) {
				t.Errorf("%s: got %v want ErrBusy", name, err)
			}
		}
		if took := time.Since(began); took > turnWait {
			t.Errorf("they took %v, want at most %v", took, turnWait)
		}
		if err := l.Unsettled(); err == nil || l.Err() != nil {
			t.Errorf("got %v, and %v, want the first said and not the second", err, l.Err())
		}
		store.Unrot(Key(producer, 0))
		if err := <-bounded; err != nil {
			t.Errorf("append with a deadline: %v", err)
		}
		if err := l.Refresh(t.Context()); err != nil || l.Unsettled() != nil {
			t.Errorf("once it is given: got %v, and %v", err, l.Unsettled())
		}
		if got := ours.ids(); len(got) < 2 || got[0] != "theirs" {
			t.Errorf("got %q", got)
		}
	})
}

// TestNobodyWaitsForEverForAStoreThatDoesNotAnswer has a commit hang on its way.
func TestNobodyWaitsForEverForAStoreThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newBucket(t)
		d := newDaemon(t, store)
		l := d.mustOpen()
		hangs := make(chan struct{})
		store.put = func(string) (bool, error) { <-hangs; return true, nil }
		done := make(chan error, 1)
		go func() {
			_, err := l.Append(t.Context(), Pending{Entry: sealed("a")})
			done <- err
		}()
		synctest.Wait()
		began := time.Now()
		if err := l.Refresh(t.Context()); !errors.Is(err, ErrBusy) || time.Since(began) > time.Minute {
			t.Errorf("got %v after %v, want ErrBusy within a minute", err, time.Since(began))
		}
		close(hangs)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := l.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestGivingUpWaitingWithdrawsOnlyWhatIsNotInACommit(t *testing.T) {
	store := newBucket(t)
	d := newDaemon(t, store)
	l := d.mustOpen()
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	store.put = func(string) (bool, error) {
		select {
		case entered <- struct{}{}:
			<-gate
		default:
		}
		return true, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan error, 2)
	go func() { _, err := l.Append(ctx, Pending{Entry: sealed("writing")}); got <- err }()
	<-entered
	go func() { _, err := l.Append(ctx, Pending{Entry: sealed("waiting")}); got <- err }()
	waitFor(t, func() bool { l.waiting.mu.Lock(); defer l.waiting.mu.Unlock(); return len(l.waiting.list) == 1 })
	cancel()
	unknown := 0
	for range 2 {
		err := <-got
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v want context.Canceled", err)
		}
		if errors.Is(err, storage.ErrUnknown) {
			unknown++
		}
	}
	close(gate)
	mustAppend(t, l, "after")
	if want := []string{"writing", "after"}; unknown != 1 || !slices.Equal(d.ids(), want) {
		t.Errorf("got %v with %d unknown, want %v with 1", d.ids(), unknown, want)
	}
}

func TestAClosedLedgerTakesNothing(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Append(context.Background(), Pending{Entry: sealed("a")}); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v want ErrClosed", err)
	}
	d.change = func(c *Config) { c.Signer = nil }
	if _, err := d.mustOpen().Append(context.Background(), Pending{Entry: sealed("a")}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("without signer: got %v want ErrReadOnly", err)
	}
}

func BenchmarkAppend(b *testing.B) {
	d := newDaemon(b, newBucket(b))
	d.change = func(c *Config) { c.Applied = nil }
	l := d.mustOpen()
	var n atomic.Int64
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := l.Append(context.Background(), Pending{Entry: sealed(fmt.Sprint("n", n.Add(1)))}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(float64(l.Head().Size)/float64(l.Head().Number+1), "entries/commit")
}
