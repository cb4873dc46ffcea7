package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/signing"
)

// tsa takes an external timestamp authority away: a real RFC 3161 responder behind a link.
func tsa(ctx context.Context, p *plan) error {
	program, err := rig.Build(ctx, p.cache)
	if err != nil {
		return err
	}
	r := rig.Begin(ctx, "tsa", "dir", p.seed)
	in, err := rig.New(ctx, rig.Options{Program: program, Root: filepath.Join(p.scratch, "p"), Store: rig.Dir()})
	if err != nil {
		return err
	}
	first, err := rig.New(ctx, rig.Options{Program: program, Root: filepath.Join(p.scratch, "planted"), Store: rig.Dir()})
	if err == nil {
		err = planted(ctx, p, r, first, first.Path("store"))
	}
	if err != nil {
		return err
	}
	key, chain, err := signing.LoadKey(in.Path("keys", "tsa.pem"), "")
	if err != nil {
		return err
	}
	responder, err := signing.NewResponder(key, chain, time.Now)
	if err != nil {
		return err
	}
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: responder, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(at) }()
	defer func() { _ = srv.Close() }()
	l, err := newLink(at.Addr().String())
	if err != nil {
		return err
	}
	defer func() { _ = l.close() }()
	err = in.Set(map[string]any{
		"timestamps.local": false, "timestamps.authorities": []any{map[string]any{"url": "http://" + l.address + "/", "timeout": "3s"}}, "seal.every": "1s",
	})
	if err != nil {
		return err
	}
	h := newHouse(p, r, in)
	behave := func(how manner) func() error { return func() error { return l.behave(how) } }
	err = h.live(ctx, func(ctx context.Context) error {
		for range p.n {
			for _, t := range []taken{
				{what: "the timestamp authority refuses connections", clear: behave(refuses)},
				{what: "the timestamp authority cuts connections", clear: behave(cuts)},
				{what: "the timestamp authority hangs", clear: behave(hangs)},
				{what: "the timestamp authority gives a byte a second", clear: behave(crawls)},
			} {
				t.gone, t.back, t.hold, t.clients, t.goesOn, t.during = l.away, behave(well), 6*time.Second, 1, true, h.saysSo
				t.answer, t.resume = 20*time.Second, 20*time.Second
				if err := h.take(ctx, t); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		r.Fail("%v", err)
	}
	return p.end(r)
}

// saysSo wants the status to tell, while documents go on being taken in charge, that the seals do not work.
func (h *house) saysSo(ctx context.Context) error {
	d, err := h.serving(ctx, time.Second)
	if err != nil {
		return err
	}
	for end := time.Now().Add(15 * time.Second); ; wait(ctx, 100*time.Millisecond) {
		s, err := d.Client(h.in.Admin).Status(ctx)
		if err == nil && s.SealError != "" {
			return nil
		}
		if time.Now().After(end) {
			return errors.Join(err, fmt.Errorf("the status does not say that nothing is sealed"))
		}
	}
}
