package rig

import (
	"context"
	"net"
	"sync"
	"time"
)

// Wire carries connections to a server, as far away as is wanted, and cuts them.
type Wire struct {
	listener net.Listener
	to       string
	late     time.Duration

	mu   sync.Mutex
	open map[net.Conn]bool
}

// NewWire makes a wire to a server, on which a byte arrives so much later than it was sent, in each direction.
func NewWire(ctx context.Context, to string, late time.Duration) (*Wire, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &Wire{listener: l, to: to, late: late, open: map[net.Conn]bool{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go w.carry(c)
		}
	}()
	return w, nil
}

// Address is where it is reached, HOST:PORT.
func (w *Wire) Address() string { return w.listener.Addr().String() }

func (w *Wire) carry(from net.Conn) {
	to, err := net.Dial("tcp", w.to)
	if err != nil {
		_ = from.Close()
		return
	}
	w.mu.Lock()
	w.open[from], w.open[to] = true, true
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { w.pass(to, from) })
	both.Go(func() { w.pass(from, to) })
	both.Wait()
	w.mu.Lock()
	delete(w.open, from)
	delete(w.open, to)
	w.mu.Unlock()
}

// pass passes on what comes, with as many pieces on their way as there is room for.
func (w *Wire) pass(to, from net.Conn) {
	type piece struct {
		due   time.Time
		bytes []byte
	}
	const room = 256
	way := make(chan piece, room)
	go func() {
		defer close(way)
		for {
			buffer := make([]byte, 32<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				way <- piece{time.Now().Add(w.late), buffer[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range way {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			_ = from.Close() // ends the reading; what is on its way is dropped
		}
	}
	_, _ = to.Close(), from.Close()
}

// Cut resets every connection there is and returns how many there were.
func (w *Wire) Cut() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.open {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // a reset, not an end
		}
		_ = c.Close()
	}
	return len(w.open) / 2
}

// Close ends it and what it carries.
func (w *Wire) Close() {
	_ = w.listener.Close()
	w.Cut()
}
