package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marchesud/perenne/harness/rig"
)

// house is an installation under a supervisor, with clients that come back until they have their receipt.
type house struct {
	in     *rig.Installation
	book   *rig.Book
	result *rig.Result
	plan   *plan

	mu     sync.Mutex
	daemon *rig.Daemon // nil while none serves
	judged int         // index into the book: what is before was judged

	ended   atomic.Int64 // daemons that ended by themselves
	slowest atomic.Int64 // answer, in nanoseconds, since it was last looked at
	memory  atomic.Int64 // greatest resident size, bytes
}

func newHouse(p *plan, r *rig.Result, in *rig.Installation) *house {
	return &house{in: in, book: rig.NewBook(in, p.seed), result: r, plan: p}
}

// now is the daemon that serves; nil while there is none.
func (h *house) now() *rig.Daemon {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.daemon != nil && h.daemon.Ended() {
		return nil
	}
	return h.daemon
}

// supervise starts the daemon again whenever it has ended, as systemd would, until ctx ends; then it stops it.
func (h *house) supervise(ctx context.Context) {
	const pause = 500 * time.Millisecond // between two starts
	for lives := 0; ctx.Err() == nil; {
		d, err := h.in.Start(ctx, nil, nil)
		if err == nil {
			if lives++; lives > 1 {
				h.result.Add("restarts", 1)
			}
			h.mu.Lock()
			h.daemon = d
			h.mu.Unlock()
			select {
			case <-d.Done():
				h.ended.Add(1)
				h.plan.say("the daemon ended: %s", last(d.Tail()))
			case <-ctx.Done():
			}
		} else {
			h.plan.say("no start: %s", last(err.Error()))
		}
		if ctx.Err() == nil {
			wait(ctx, pause)
		}
	}
	if d := h.now(); d != nil {
		if err := d.Stop(); err != nil {
			h.result.Fail("the last stop: %v", err)
		}
	}
}

func last(s string) string { return s[max(0, len(s)-300):] }

// clients hand over documents until ctx ends; each comes back with the same one until it has the receipt.
func (h *house) clients(ctx context.Context, n int, l rig.Load) *sync.WaitGroup {
	const pause = 50 * time.Millisecond
	var work sync.WaitGroup
	for range n {
		work.Go(func() {
			for ctx.Err() == nil {
				s := h.book.New(l)
				for ctx.Err() == nil && s.Receipt() == nil {
					d := h.now()
					if d == nil {
						wait(ctx, pause)
						continue
					}
					began := time.Now()
					if h.book.Hand(ctx, d, s) {
						break
					}
					h.slow(time.Since(began))
					wait(ctx, pause)
				}
			}
		})
	}
	return &work
}

// slow notes how long an answer took that was no receipt.
func (h *house) slow(d time.Duration) {
	for {
		was := h.slowest.Load()
		if int64(d) <= was || h.slowest.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

// watch notes the greatest memory of the daemon until ctx ends.
func (h *house) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if d := h.now(); d != nil {
			if rss := d.Status()["VmRSS"] << 10; rss > h.memory.Load() {
				h.memory.Store(rss)
			}
		}
		wait(ctx, 100*time.Millisecond)
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// serving waits until a daemon serves.
func (h *house) serving(ctx context.Context, within time.Duration) (*rig.Daemon, error) {
	for end := time.Now().Add(within); ctx.Err() == nil; wait(ctx, 20*time.Millisecond) {
		if d := h.now(); d != nil {
			return d, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("no daemon serves after %v", within)
		}
	}
	return nil, ctx.Err()
}

// acknowledged waits until n more submissions have their receipt.
func (h *house) acknowledged(ctx context.Context, n int64, within time.Duration) error {
	want := h.book.Acked() + n
	for end := time.Now().Add(within); h.book.Acked() < want; wait(ctx, 10*time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("only %d of %d submissions were acknowledged within %v", n-want+h.book.Acked(), n, within)
		}
	}
	return nil
}

// judge stops no one: it holds what was acknowledged since the last time, or everything, against the daemon.
func (h *house) judge(ctx context.Context, whole bool) error {
	d, err := h.serving(ctx, time.Minute)
	if err != nil {
		return err
	}
	from := h.judged
	h.judged = len(h.book.All())
	orphans, err := h.book.Judge(ctx, d, from, whole, filepath.Join(h.plan.scratch, "second"))
	h.result.Add("orphans listed", orphans)
	return err
}

// taken takes something away under load and gives it back: what is asserted of every part.
type taken struct {
	what  string
	clear func() error // takes it away
	gone  func() error // wants it to be away; asked at the end, just before it is given back. nil: not asked
	back  func() error // gives it back
	hold  time.Duration
	// answer bounds every answer while it is away, and resume how long after its return the first acknowledgement may
	// take.
	answer, resume time.Duration
	clients        int
	// goesOn: submissions are acknowledged while it is away.
	goesOn bool
	// tells: while it is away clients are told to come again later, or the daemon ends.
	tells  bool
	during func(context.Context) error // nil: nothing more is looked at
}

// take runs it.
func (h *house) take(ctx context.Context, t taken) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	load, stop := context.WithCancel(ctx)
	work := h.clients(load, t.clients, rig.Load{Size: 2000, RefuseEvery: 9})
	err := h.underLoad(ctx, t)
	stop()
	work.Wait()
	h.result.Add("taken away", 1)
	if err == nil {
		err = h.well(ctx, t.resume)
	}
	if err == nil {
		err = h.judge(ctx, false)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.what, err)
	}
	return nil
}

func (h *house) underLoad(ctx context.Context, t taken) error {
	if _, err := h.serving(ctx, time.Minute); err != nil {
		return err
	}
	if err := h.acknowledged(ctx, 10, time.Minute); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	h.slowest.Store(0)
	busy, acked, ended := h.book.Busy(), h.book.Acked(), h.ended.Load()
	h.plan.say("%s: away", t.what)
	if err := t.clear(); err != nil {
		return errors.Join(err, t.back())
	}
	var during error
	if t.during != nil {
		during = t.during(ctx)
	}
	wait(ctx, t.hold)
	gone := h.book.Acked() - acked
	if t.gone != nil {
		if err := t.gone(); err != nil {
			during = errors.Join(during, fmt.Errorf("it was not away, and this proves nothing: %w", err))
		} else {
			h.result.Add("seen away", 1)
		}
	}
	told, ends := h.book.Busy()-busy, h.ended.Load()-ended
	if err := errors.Join(during, t.back()); err != nil {
		return err
	}
	if told > 0 {
		h.result.Add("away, and clients told so", 1)
	}
	back := time.Now()
	err := h.acknowledged(ctx, 3, t.resume)
	took := time.Since(back)
	h.plan.say("%s: back; %d acknowledged meanwhile, told to come again %d times, slowest answer %v, resumed after %v: %v", t.what, gone, h.book.Busy()-busy, time.Duration(h.slowest.Load()), took, err)
	h.most("slowest resumption, ms", took.Milliseconds())
	h.most("slowest answer that was no receipt, ms", time.Duration(h.slowest.Load()).Milliseconds())
	h.result.Add("told to come again", h.book.Busy()-busy)
	switch {
	case err != nil:
		return fmt.Errorf("it does not go on by itself: %w", err)
	case time.Duration(h.slowest.Load()) > t.answer:
		return fmt.Errorf("a client waited %v for an answer, want at most %v", time.Duration(h.slowest.Load()), t.answer)
	case t.goesOn && gone < 3:
		return fmt.Errorf("%d submissions were acknowledged while it was away, want it to go on", gone)
	case t.tells && told+ends == 0:
		return fmt.Errorf("while it was away the daemon went on, and nobody was told to come again later (%d were acknowledged)", gone)
	}
	return nil
}

// well waits until no producer stands still and the seals work.
func (h *house) well(ctx context.Context, within time.Duration) error {
	for end := time.Now().Add(within); ; wait(ctx, 100*time.Millisecond) {
		d, err := h.serving(ctx, within)
		if err == nil {
			err = h.in.Healthy(ctx, d)
		}
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// planted shows that the verdict sees what it is there for: an installation of its own loses one acknowledged document
// while something is away; and that it says nothing when nothing is lost. objects is where its store keeps its files.
func planted(ctx context.Context, p *plan, r *rig.Result, in *rig.Installation, objects string) error {
	h := newHouse(p, &rig.Result{Counts: map[string]int64{}}, in)
	nothing := func() error { return nil }
	take := func(ctx context.Context, free func() error) error {
		return h.take(ctx, taken{what: "nothing", clients: 2, answer: time.Minute, resume: time.Minute, clear: free, back: nothing})
	}
	var said error
	err := h.live(ctx, func(ctx context.Context) error {
		if err := take(ctx, nothing); err != nil {
			return fmt.Errorf("nothing was planted, and the judge says: %w", err)
		}
		if err := h.judge(ctx, true); err != nil {
			return fmt.Errorf("nothing was planted, and the judge says: %w", err)
		}
		h.book.Patience, h.judged = time.Second, 0
		said = take(ctx, func() error {
			found, _ := filepath.Glob(filepath.Join(objects, "*", "packages", "*", "*.asice")) // the pattern is well-formed
			if len(found) == 0 {
				return errors.New("no package in " + objects)
			}
			return os.RemoveAll(found[0])
		})
		return errPlanted // so that live does not judge it again
	})
	if !errors.Is(err, errPlanted) {
		return err
	}
	if err := rig.Seen(said, rig.ErrLost); err != nil {
		return err
	}
	p.say("planted, and seen: %.200s", said)
	r.Planted = "an acknowledged document that is gone: seen, and nothing without it"
	return nil
}

var errPlanted = errors.New("planted")

// most keeps the greatest value of a count.
func (h *house) most(what string, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if was := h.result.Counts[what]; n > was {
		h.result.Add(what, n-was)
	}
}

// live runs work on a supervised daemon, and judges everything at the end.
func (h *house) live(ctx context.Context, work func(context.Context) error) (err error) {
	alive, end := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { h.supervise(alive) })
	all.Go(func() { h.watch(alive) })
	err = work(ctx)
	if err == nil {
		err = h.judge(ctx, true)
	}
	end()
	all.Wait()
	h.result.Add("acknowledged", h.book.Acked())
	h.most("memory, MiB", h.memory.Load()>>20)
	return err
}
