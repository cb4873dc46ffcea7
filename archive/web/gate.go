package web

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// gate slows down who guesses tokens: each failure from one source makes the next answer 401 from there come
// later. A right token is never delayed, so nobody can be locked out from the same address.
type gate struct {
	mu      sync.Mutex
	sources map[netip.Prefix]*source
	waiting int // answers held back now
}

type source struct {
	failures int
	last     time.Time
}

const (
	maxSources  = 1024
	maxWaiting  = 256 // beyond it answers are not held back: holding them costs more than guessing gives
	firstDelay  = 100 * time.Millisecond
	longestWait = 5 * time.Second
	forgetAfter = 2 * time.Minute
)

func newGate() *gate { return &gate{sources: map[netip.Prefix]*source{}} }

// failed enters a failure and tells how long its answer is to be held back.
func (g *gate) failed(from netip.Addr, now time.Time) time.Duration {
	key := sourceOf(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	src, ok := g.sources[key]
	if !ok {
		g.makeRoom(now)
		src = &source{}
		g.sources[key] = src
	}
	if now.Sub(src.last) > forgetAfter {
		src.failures = 0
	}
	src.last = now
	src.failures++
	if src.failures == 1 {
		return 0 // a slip of the hand
	}
	return min(firstDelay<<min(src.failures-2, 10), longestWait)
}

// makeRoom forgets the source that was quiet for longest, once the table is full. The lock is held.
func (g *gate) makeRoom(now time.Time) {
	if len(g.sources) < maxSources {
		return
	}
	var oldest netip.Prefix
	var at time.Time
	for k, s := range g.sources {
		if now.Sub(s.last) > forgetAfter {
			delete(g.sources, k)
		} else if at.IsZero() || s.last.Before(at) {
			oldest, at = k, s.last
		}
	}
	if len(g.sources) >= maxSources {
		delete(g.sources, oldest)
	}
}

// hold waits for d, unless the client goes away or too many wait already.
func (g *gate) hold(ctx context.Context, d time.Duration) {
	g.mu.Lock()
	if d <= 0 || g.waiting >= maxWaiting {
		g.mu.Unlock()
		return
	}
	g.waiting++
	g.mu.Unlock()
	t := time.NewTimer(d)
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	t.Stop()
	g.mu.Lock()
	g.waiting--
	g.mu.Unlock()
}

// sourceOf is what counts as one source: an IPv4 address, or an IPv6 /64, which one customer has whole.
func sourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	n := a.BitLen()
	if a.Is6() {
		n = 64
	}
	p, err := a.Prefix(n)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// client tells who asks: the peer or, when that is a trusted proxy, the nearest address in X-Forwarded-For that
// is not one.
func (s *Server) client(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := at.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && s.trusts(addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap()
	}
	return addr
}

func (s *Server) trusts(a netip.Addr) bool {
	for _, p := range s.cfg.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
