package web

import (
	"context"
	"net/http"
	"time"
)

// slots bounds how many submissions are received at once, in all and of one producer, so that one body's rush
// does not keep the others out.
type slots struct {
	all chan struct{}
	of  map[string]chan struct{}
}

func newSlots(all, each int, producers []string) *slots {
	s := &slots{all: make(chan struct{}, all), of: map[string]chan struct{}{}}
	for _, p := range producers {
		s.of[p] = make(chan struct{}, each)
	}
	return s
}

// take waits at most patience for a turn: first among the producer's own, then among all.
func (s *slots) take(ctx context.Context, producer string, patience time.Duration) (release func(), err error) {
	own, ok := s.of[producer]
	if !ok {
		return nil, &transportError{status: http.StatusNotFound}
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	if !enter(ctx, own, t.C) {
		return nil, &transportError{status: http.StatusTooManyRequests, retryAfter: retrySeconds}
	}
	if !enter(ctx, s.all, t.C) {
		<-own
		return nil, &transportError{status: http.StatusServiceUnavailable, retryAfter: retrySeconds}
	}
	return func() { <-s.all; <-own }, nil
}

// enter takes a place in c before end.
func enter(ctx context.Context, c chan struct{}, end <-chan time.Time) bool {
	select {
	case c <- struct{}{}:
		return true
	default:
	}
	select {
	case c <- struct{}{}:
		return true
	case <-end:
		return false
	case <-ctx.Done():
		return false
	}
}
