package spool

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchesud/perenne/storage"
)

// rivals leaves two copies of a key: the first was never answered for, the second was acknowledged.
func rivals(t *testing.T, b *bench, key string) {
	t.Helper()
	b.mem.OnPut = func(string) (bool, error) { return false, storage.ErrUnknown }
	if err := put(b, key, "unanswered"); !errors.Is(err, storage.ErrUnknown) {
		t.Fatalf("put: got %v, want ErrUnknown", err)
	}
	b.mem.OnPut = nil
	b.mustPut(key, "acknowledged")
	b.wantHeld(2)
}

// onlyAcknowledged says that nobody was promised anything but "acknowledged", having failed to say anything some times before.
func onlyAcknowledged(fails int) func(context.Context, string, [32]byte) (bool, error) {
	return func(_ context.Context, _ string, sum [32]byte) (bool, error) {
		if fails--; fails >= 0 {
			return false, errors.New("away")
		}
		return sum != sha256.Sum256([]byte("acknowledged")), nil
	}
}

// TestOfTwoCopiesTheAcknowledgedOneIsPut has the store lose an object of whose key a copy is held that was never
// acknowledged. Whoever meets the object missing, and Run, give back what was acknowledged; Mem sees to it.
func TestOfTwoCopiesTheAcknowledgedOneIsPut(t *testing.T) {
	const key = "c_x901/packages/a"
	for name, met := range map[string]bool{"met": true, "looked for": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				rivals(t, b, key)
				b.mem.Lose(1)
				if met {
					if got, err := get(b, key); got != "acknowledged" || err != nil {
						t.Errorf("met: got %q, %v", got, err)
					}
				}
				b.superseded = onlyAcknowledged(1)
				stop := b.run(never)
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if got := string(b.mem.Bytes(key)); got != "acknowledged" {
					t.Errorf("store: got %q, want what was acknowledged", got)
				}
				b.wantHeld(1)
				b.wantLog("other bytes", false)
				stop()
			})
		})
	}
}

// TestCopiesOfADeadProcessWaitForAJudgement: after a power cut of the whole site nobody but the books knows which of two
// copies was acknowledged.
func TestCopiesOfADeadProcessWaitForAJudgement(t *testing.T) {
	const key = "c_x901/packages/a"
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		rivals(t, b, key)
		b.mem.Lose(1)
		b.reopen()
		if got, err := get(b, key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("met before anything is known: got %q, %v, want ErrNotFound", got, err)
		}
		b.superseded = onlyAcknowledged(2)
		stop := b.run(never)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := string(b.mem.Bytes(key)); got != "acknowledged" {
			t.Errorf("store: got %q, want what was acknowledged\n%s", got, b.log.String())
		}
		b.wantHeld(1)
		stop()
	})
}

// TestCopiesThatNobodyCanTellApartAreNotPut: whichever was put would be locked in the place of the other.
func TestCopiesThatNobodyCanTellApartAreNotPut(t *testing.T) {
	const key = "c_x901/packages/a"
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		rivals(t, b, key)
		b.mem.Lose(1)
		b.reopen()
		stop := b.run(never)
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if got := b.mem.Bytes(key); got != nil {
			t.Errorf("store: got %q, want nothing", got)
		}
		b.wantHeld(2)
		stop()
		if r, err := b.Recall(t.Context(), key, sha256.Sum256([]byte("acknowledged"))); err != nil {
			t.Error(err)
		} else if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestACommitThatLostItsNumberIsNotPutInItsPlace: two daemons wrote a commit of one number. The one that lost, without
// ever having been answered, must not put its own when the store loses the other.
func TestACommitThatLostItsNumberIsNotPutInItsPlace(t *testing.T) {
	const key = "c_x901/ledger/0000000000000000/0007"
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.superseded = onlyAcknowledged(2)
		b.mem.OnPut = func(string) (bool, error) { return false, storage.ErrUnknown }
		if err := put(b, key, "ours"); !errors.Is(err, storage.ErrUnknown) {
			t.Fatalf("put: got %v, want ErrUnknown", err)
		}
		b.mem.OnPut = nil
		if err := put(b.mem, key, "theirs"); err != nil {
			t.Fatal(err)
		}
		if err := put(b, key, "ours"); !errors.Is(err, storage.ErrExists) {
			t.Fatalf("put again: got %v, want ErrExists", err)
		}
		b.mem.Lose(1)
		if got, err := get(b, key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("met: got %q, %v, want ErrNotFound", got, err)
		}
		stop := b.run(never)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := b.mem.Bytes(key); got != nil {
			t.Errorf("store: got %q, want nothing", got)
		}
		b.wantHeld(0)
		b.wantLog("level=ERROR", false)
		stop()
	})
}

// TestACopyThatNothingNamesIsGivenUp: whoever offered it was told neither yes nor no, others took the key, and for days
// nothing has named it. A copy of an earlier process may have been acknowledged by that.
func TestACopyThatNothingNamesIsGivenUp(t *testing.T) {
	const key = "c_x901/refusals/2026/a"
	for name, former := range map[string]bool{"this process": false, "an earlier one": true} {
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
				if former {
					b.reopen()
				}
				var asked atomic.Int64
				b.superseded = func(context.Context, string, [32]byte) (bool, error) {
					asked.Add(1)
					return false, ErrUnnamed
				}
				stop := b.run(never)
				time.Sleep(6 * 24 * time.Hour)
				synctest.Wait()
				b.wantHeld(1)
				if n := asked.Load(); n > 200 {
					t.Errorf("asked %d times in six days", n)
				}
				time.Sleep(2 * 24 * time.Hour)
				synctest.Wait()
				held := int64(0)
				if former {
					held = 1
				}
				b.wantHeld(held)
				b.wantLog("level=ERROR", false)
				stop()
			})
		})
	}
}

// TestWhatWasNeverPromisedIsSiftedOut: before anything is read, the books may know a copy that must not be put.
func TestWhatWasNeverPromisedIsSiftedOut(t *testing.T) {
	const key = "c_x901/packages/a"
	b := newBench(t)
	rivals(t, b, key)
	b.mem.Lose(1)
	b.reopen()
	b.Sift(t.Context(), func(k string, sum [32]byte) bool {
		return k == key && sum == sha256.Sum256([]byte("unanswered"))
	})
	b.wantHeld(1)
	if got, err := get(b, key); got != "acknowledged" || err != nil {
		t.Errorf("met: got %q, %v", got, err)
	}
}

// TestTwoCopiesOfTheSameBytesAreNoRivals: two who take over one object at once may each make a copy of it, and a removal that
// failed may leave one beside the next. Which of them is put makes no difference.
func TestTwoCopiesOfTheSameBytesAreNoRivals(t *testing.T) {
	const key = "c_x901/packages/a"
	for _, after := range []string{"while it runs", "in the next process"} {
		t.Run(after, func(t *testing.T) {
			b := newBench(t)
			b.mustPut(key, "a")
			b.mu.Lock()
			twin := *b.items[key][0]
			twin.at = twin.at.Add(1)
			twin.filed = twin.at
			first := b.path(b.items[key][0].name())
			b.add(&twin)
			b.mu.Unlock()
			if err := os.Link(first, b.path(twin.name())); err != nil {
				t.Fatal(err)
			}
			if after != "while it runs" {
				b.reopen()
			}
			b.mem.Lose(1)
			if got, err := get(b, key); got != "a" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
