package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchesud/perenne/storage"
)

// copyOf is the file of the only copy held.
func (b *bench) copyOf() string {
	b.t.Helper()
	found, err := filepath.Glob(filepath.Join(b.opt.Dir, "held", "*"))
	if err != nil || len(found) != 1 {
		b.t.Fatalf("held: got %q, %v, want one copy", found, err)
	}
	return found[0]
}

// TestAFaultThatPassesDamagesNoCopy: a file that cannot be opened now, or a store that got other bytes over the line,
// says nothing of the copy.
func TestAFaultThatPassesDamagesNoCopy(t *testing.T) {
	const key = "c_x901/packages/a"
	for name, fault := range map[string]func(*bench) (passes func()){
		"open": func(b *bench) func() {
			file := b.copyOf()
			aside := filepath.Join(b.opt.Dir, "aside")
			if err := errors.Join(os.Rename(file, aside), os.Symlink(file, file)); err != nil { // ELOOP
				b.t.Fatal(err)
			}
			return func() {
				if err := errors.Join(os.Remove(file), os.Rename(aside, file)); err != nil {
					b.t.Fatal(err)
				}
			}
		},
		"digest": func(b *bench) func() {
			b.mem.OnPut = func(string) (bool, error) { return false, storage.ErrDigest }
			return func() { b.mem.OnPut = nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.mustPut(key, "a")
			b.mem.Lose(1)
			passes := fault(b)
			if got, err := get(b, key); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("during the fault: got %q, %v, want ErrNotFound", got, err)
			}
			b.wantLog("is damaged", false)
			passes()
			if got, err := get(b, key); got != "a" || err != nil {
				t.Errorf("after the fault: got %q, %v", got, err)
			}
		})
	}
}

func TestACopyThatIsGoneIsSaid(t *testing.T) {
	b := newBench(t)
	b.mustPut("c_x901/packages/a", "a")
	b.mem.Lose(1)
	if err := os.Remove(b.copyOf()); err != nil {
		t.Fatal(err)
	}
	if got, err := get(b, "c_x901/packages/a"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("got %q, %v, want ErrNotFound", got, err)
	}
	b.wantLog("is damaged", true)
}

// TestASlowLineGetsThereInTheEnd: as many large objects as are looked at at once, on a line that needs long for each.
func TestASlowLineGetsThereInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for i := range readers + 1 {
			b.mustPut(fmt.Sprintf("c_x901/packages/%02d", i), fmt.Sprint(i))
		}
		stop := b.run(always)
		time.Sleep(time.Hour)
		synctest.Wait()
		stop()
		b.mem.OnGet = func(string) (bool, error) {
			time.Sleep(5 * time.Minute)
			return true, nil
		}
		stop = b.run(always)
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		b.wantHeld(0)
		stop()
	})
}

// TestASlowObjectHoldsUpNoOther: room is made as each object is done with.
func TestASlowObjectHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for i := range 3 {
			b.mustPut(fmt.Sprintf("c_x901/packages/%02d", i), fmt.Sprint(i))
		}
		stop := b.run(always)
		time.Sleep(time.Hour)
		synctest.Wait()
		stop()
		b.mem.OnGet = func(key string) (bool, error) {
			if key == "c_x901/packages/00" {
				time.Sleep(5 * time.Hour)
			}
			return true, nil
		}
		stop = b.run(always)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		b.wantHeld(1)
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		b.wantHeld(0)
		stop()
	})
}

// TestWhatIsLostBeforeItsSealIsNotGivenUp: a copy was read back and waits for its seal; the store fails, and it is
// looked for before it is given up.
func TestWhatIsLostBeforeItsSealIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		const key = "c_x901/packages/a"
		b.mustPut(key, "a")
		stop := b.run(never)
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		stop()
		b.mem.Lose(1)
		b.mu.Lock()
		b.alarmed = true
		b.mu.Unlock()
		stop = b.run(always)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := string(b.mem.Bytes(key)); got != "a" {
			t.Errorf("got %q, want it put again", got)
		}
		b.wantHeld(1)
		stop()
	})
}

// TestAnErasureThatIsBrokenOffForgetsNoCopy: a copy whose file stays would be put again by the next process.
func TestAnErasureThatIsBrokenOffForgetsNoCopy(t *testing.T) {
	b := newBench(t)
	const key = "c_x901/packages/a"
	b.mustPut(key, "a")
	b.mem.Lose(1)
	ctx, cancel := context.WithCancel(t.Context())
	b.mem.OnGet = func(string) (bool, error) { cancel(); return true, nil }
	b.mem.OnStat = func(string) error { cancel(); return nil }
	if err := b.Erase(ctx, key, "", "test"); err == nil {
		t.Error("got no error, want that of the context")
	}
	b.mem.OnGet, b.mem.OnStat = nil, nil
	held := b.Stats().Objects
	b.reopen()
	b.wantHeld(held)
}

// TestACopyThatCannotBeRemovedIsHeld has something stand in the place of a copy.
func TestACopyThatCannotBeRemovedIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.mustPut("c_x901/packages/a", "a")
		file := b.copyOf()
		if err := errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "within"), 0o700)); err != nil {
			t.Fatal(err)
		}
		stop := b.run(always)
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		b.wantLog("copy not removed", true)
		b.wantHeld(1)
		if err := os.Remove(filepath.Join(file, "within")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		b.wantHeld(0)
		stop()
	})
}

// TestALockThatEndsMeanwhileLeavesNoCopy: the store's clock is the one that counts.
func TestALockThatEndsMeanwhileLeavesNoCopy(t *testing.T) {
	b := newBench(t)
	b.mem.Now = func() time.Time { return time.Now().AddDate(2, 0, 0) }
	const key = "c_x901/packages/a"
	o := options("a")
	o.RetainUntil = time.Now().AddDate(1, 0, 0)
	if err := b.Put(t.Context(), key, strings.NewReader("a"), o); err != nil {
		t.Fatal(err)
	}
	if err := b.Erase(t.Context(), key, "", "test"); err != nil {
		t.Fatal(err)
	}
	b.wantHeld(0)
}
