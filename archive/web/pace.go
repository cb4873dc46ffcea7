package web

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// pace cuts off a peer that is too slow. It looks, thirty times a window, whether we are waiting for the peer;
// once a whole window was spent waiting and fewer bytes moved than the rate wants, it cuts. Time that we spend
// ourselves (a slow disk) is not held against the peer. It reads no clock.
type pace struct {
	least int64 // bytes wanted in a window
	tick  time.Duration
	cut   func() // makes the call that waits return

	waiting atomic.Bool
	moved   atomic.Int64
	slow    atomic.Bool

	mu      sync.Mutex
	timer   *time.Timer
	waited  int // ticks of this window in which we waited
	stopped bool
}

const ticksPerWindow = 30

func newPace(rate int64, window time.Duration, cut func()) *pace {
	return &pace{least: int64(float64(rate) * window.Seconds()), tick: max(window/ticksPerWindow, time.Millisecond), cut: cut}
}

// wait runs one call that waits for the peer and moves bytes.
func (p *pace) wait(call func() (int, error)) (int, error) {
	p.start()
	p.waiting.Store(true)
	n, err := call()
	p.waiting.Store(false)
	p.moved.Add(int64(n))
	return n, err
}

func (p *pace) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil && !p.stopped {
		p.timer = time.AfterFunc(p.tick, p.look)
	}
}

func (p *pace) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	if p.waiting.Load() {
		p.waited++
	}
	if p.waited >= ticksPerWindow {
		if p.moved.Load() < p.least {
			p.slow.Store(true)
			p.cut()
			return
		}
		p.waited = 0
		p.moved.Store(0)
	}
	p.timer.Reset(p.tick)
}

// stop ends the watch. After it returns, cut is not called any more: the connection may be another request's.
func (p *pace) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// past is a deadline that has been.
func past() time.Time { return time.Unix(1, 0) }

// body is a request's body under watch.
type body struct {
	r       io.ReadCloser
	pace    *pace
	touched bool // something was read: an Expect: 100-continue was answered
	ended   bool // read to its end
}

func (b *body) Read(p []byte) (int, error) {
	b.touched = true
	n, err := b.pace.wait(func() (int, error) { return b.r.Read(p) })
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		b.ended = true
		return n, io.EOF
	}
	if b.pace.slow.Load() {
		return n, &transportError{status: http.StatusRequestTimeout, finding: finding("$", "http.slow", "il corpo arriva troppo lentamente", "inviare di nuovo su una linea più veloce: ripetere è sempre sicuro")}
	}
	return n, err
}

func (b *body) Close() error { return b.r.Close() }

const (
	maxDrain  = 16 << 20
	drainTime = 2 * time.Second
)

// drain reads what little may be left, so that a client that sends first and reads afterwards gets its answer.
func (b *body) drain() {
	t := time.AfterFunc(drainTime, func() {
		b.pace.mu.Lock()
		defer b.pace.mu.Unlock()
		if !b.pace.stopped {
			b.pace.cut()
		}
	})
	defer t.Stop()
	// Whatever ends it, ended says whether the end was reached.
	_, _ = io.CopyN(io.Discard, b, maxDrain)
}
