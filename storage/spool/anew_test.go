package spool

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchesud/perenne/storage"
)

// TestTimeBeginsWithTheAnswer has a store take two minutes for an object while the spool wants room: what it took so
// long to write it has hardly written out when it says yes, and no seal made meanwhile covers it.
func TestTimeBeginsWithTheAnswer(t *testing.T) {
	const key = "c_x901/packages/a"
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.opt.Quota = 100
			b.reopen()
			b.mem.OnPut = func(string) (bool, error) {
				time.Sleep(2 * time.Minute)
				return true, nil
			}
			var sealed atomic.Pointer[time.Time]
			early := time.Now().Add(time.Minute)
			if late {
				early = early.AddDate(1, 0, 0)
			}
			sealed.Store(&early)
			stop := b.run(func(context.Context, string) time.Time { return *sealed.Load() })
			b.mustPut(key, strings.Repeat("x", 90))
			time.Sleep(50 * time.Second)
			synctest.Wait()
			b.wantHeld(1)
			time.Sleep(time.Hour)
			synctest.Wait()
			if !late {
				b.wantHeld(1)
				now := time.Now()
				sealed.Store(&now)
				time.Sleep(time.Minute)
				synctest.Wait()
			}
			b.wantHeld(0)
			stop()
		})
	}
}

// TestAnOutageIsNoTimeHeld has a store away for longer than the time to read back. However it comes to have the object
// then, it is trusted no earlier than with any other.
func TestAnOutageIsNoTimeHeld(t *testing.T) {
	const key = "c_x901/ledger/0000000000000000/0007"
	for name, arrives := range map[string]func(*testing.T, *bench){
		"put again": func(_ *testing.T, b *bench) { b.mustPut(key, "commit") },
		"put again, equal": func(t *testing.T, b *bench) {
			if err := put(b.mem, key, "commit"); err != nil {
				t.Fatal(err)
			}
			if err := put(b, key, "commit"); !errors.Is(err, storage.ErrExists) {
				t.Errorf("got %v, want ErrExists", err)
			}
		},
		"late": func(t *testing.T, b *bench) {
			if err := put(b.mem, key, "commit"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				away := func(string) (bool, error) { return false, errors.New("connection refused") }
				b.mem.OnPut, b.mem.OnGet = away, away
				if err := put(b, key, "commit"); err == nil {
					t.Fatal("put: got no error")
				}
				stop := b.run(always)
				time.Sleep(30 * time.Hour)
				synctest.Wait()
				stop()
				b.mem.OnPut, b.mem.OnGet = nil, nil
				arrives(t, b)
				stop = b.run(always)
				time.Sleep(23 * time.Hour)
				synctest.Wait()
				b.wantHeld(1)
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				b.wantHeld(0)
				stop()
			})
		})
	}
}

// TestTheTimeOfAnAnswerOutlivesTheProcess: the next process counts from the answer too.
func TestTheTimeOfAnAnswerOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.mem.OnPut = func(string) (bool, error) {
			time.Sleep(30 * time.Hour)
			return true, nil
		}
		b.mustPut("c_x901/packages/a", "a")
		b.reopen()
		stop := b.run(always)
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		b.wantHeld(1)
		stop()
	})
}

// TestAnAnswerAfterTheReadingIsReadBack: a copy that was read back and waits for its seal is restored, put or adopted.
func TestAnAnswerAfterTheReadingIsReadBack(t *testing.T) {
	const key = "c_x901/packages/a"
	for name, again := range map[string]func(*bench) error{
		"restored": func(b *bench) error {
			b.mem.Overwrite(key, []byte("wrong"))
			return b.Restore(context.Background(), key, strings.NewReader("right"), options("right"))
		},
		"put": func(b *bench) error {
			b.mem.Lose(1)
			return put(b, key, "right")
		},
		"adopted": func(b *bench) error {
			return b.Adopt(context.Background(), key, strings.NewReader("right"), options("right"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.mustPut(key, "right")
				var sealed atomic.Bool
				stop := b.run(func(context.Context, string) time.Time {
					if sealed.Load() {
						return time.Now()
					}
					return time.Time{}
				})
				time.Sleep(30 * time.Hour)
				synctest.Wait()
				if err := again(b); err != nil {
					t.Fatal(err)
				}
				sealed.Store(true)
				time.Sleep(23 * time.Hour)
				synctest.Wait()
				b.wantHeld(1)
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				b.wantHeld(0)
				stop()
			})
		})
	}
}

// TestAnAnswerDuringTheReadingIsReadBack restores an object while the bytes that lay there before are being read.
func TestAnAnswerDuringTheReadingIsReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		const key = "c_x901/packages/a"
		b.mustPut(key, "a")
		stop := b.run(always)
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		stop()
		var reading atomic.Bool
		b.mem.OnGet = func(string) (bool, error) {
			reading.Store(true)
			time.Sleep(40 * time.Second)
			return true, nil
		}
		stop = b.run(always)
		for !reading.Load() {
			time.Sleep(time.Second)
		}
		if err := b.Restore(context.Background(), key, strings.NewReader("a"), options("a")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		b.wantHeld(1)
		stop()
	})
}
