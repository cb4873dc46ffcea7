package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// manner is how a link behaves.
type manner int

const (
	well    manner = iota
	refuses        // nobody listens
	hangs          // connections are taken, and nothing moves any more, on those there are neither
	crawls         // a byte a second in each direction
	cuts           // connections are taken and cut off in the middle
)

// link is a TCP proxy between the daemon and what it stands on, which behaves as it is told.
type link struct {
	to string

	mu       sync.Mutex
	how      manner
	listener net.Listener
	address  string
	open     map[net.Conn]bool
	changed  chan struct{} // closed when how changes
	hurt     int64         // connections ended, reads held up, since how changed last
}

func newLink(to string) (*link, error) {
	l := &link{to: to, open: map[net.Conn]bool{}, changed: make(chan struct{})}
	return l, l.listen("127.0.0.1:0")
}

func (l *link) listen(at string) (err error) {
	for range 50 {
		if l.listener, err = net.Listen("tcp", at); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	l.address = l.listener.Addr().String()
	go l.accept(l.listener)
	return nil
}

// behave makes the link behave in a manner; when it refuses or cuts, the connections there are end.
func (l *link) behave(how manner) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.how
	l.how, l.hurt = how, 0
	close(l.changed)
	l.changed = make(chan struct{})
	if how == refuses || how == cuts || was == hangs || was == crawls {
		for c := range l.open {
			_ = c.Close()
		}
	}
	switch {
	case how == refuses && was != refuses:
		return l.listener.Close()
	case how != refuses && was == refuses:
		return l.listen(l.address)
	}
	return nil
}

func (l *link) state() (manner, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.how, l.changed
}

// harm counts something that went wrong because of how the link behaves.
func (l *link) harm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hurt++
}

// away wants the link to have kept something from what lies behind it, in the manner in which it behaves now.
func (l *link) away() error {
	how, _ := l.state()
	if how == refuses {
		return deaf(l.address)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hurt == 0 {
		return errors.New("nothing that came by the link was cut or held up")
	}
	return nil
}

// deaf wants nobody to listen at an address.
func deaf(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return nil
	}
	return errors.Join(fmt.Errorf("somebody listens at %s", address), c.Close())
}

// silent wants whoever listens at an address to give no answer to HTTP.
func silent(address string) error {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + address + "/")
	if err != nil {
		return nil
	}
	return errors.Join(fmt.Errorf("%s answers: %s", address, r.Status), r.Body.Close())
}

func (l *link) accept(from net.Listener) {
	for {
		c, err := from.Accept()
		if err != nil {
			return
		}
		go l.carry(c)
	}
}

func (l *link) keep(c net.Conn, there bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if there {
		l.open[c] = true
		return
	}
	delete(l.open, c)
	_ = c.Close()
}

func (l *link) carry(near net.Conn) {
	l.keep(near, true)
	defer l.keep(near, false)
	if how, _ := l.state(); how == cuts {
		l.harm()
		_, _ = io.CopyN(io.Discard, near, 200)
		if t, ok := near.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // RST
		}
		return
	}
	far, err := net.DialTimeout("tcp", l.to, time.Second)
	if err != nil {
		return
	}
	l.keep(far, true)
	defer l.keep(far, false)
	var both sync.WaitGroup
	both.Go(func() { l.copy(far, near) })
	both.Go(func() { l.copy(near, far) })
	both.Wait()
}

// copy moves bytes as the link behaves at the moment.
func (l *link) copy(to, from net.Conn) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			how, changed := l.state()
			step := len(rest)
			switch how {
			case hangs:
				l.harm()
				<-changed
				continue
			case crawls:
				l.harm()
				select {
				case <-time.After(time.Second):
				case <-changed:
				}
				step = 1
			}
			if _, err := to.Write(rest[:step]); err != nil {
				return
			}
			rest = rest[step:]
		}
		if err != nil {
			return
		}
	}
}

// close ends it.
func (l *link) close() error {
	return l.behave(refuses)
}
