package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// mostMemory bounds the daemon's resident memory while 64 clients hammer at it and the store gives nothing.
const mostMemory = 512 << 20

// storeAnswer bounds every answer while a store is away: a turn is waited for, then the store, in several requests.
const storeAnswer = 100 * time.Second

// store takes an S3 server away.
func store(ctx context.Context, p *plan) (err error) {
	program, err := rig.Build(ctx, p.cache)
	if err != nil {
		return err
	}
	server, err := s3test.Run(ctx, p.kind, filepath.Join(p.scratch, "server"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Kill()) }()
	l, err := newLink(server.Endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = l.close() }()
	r := rig.Begin(ctx, "away", p.kind, p.seed)
	other, err := server.NewBucket(ctx)
	if err != nil {
		return err
	}
	in, err := onto(ctx, program, filepath.Join(p.scratch, "planted"), server, server.Endpoint, other)
	if err == nil { // what the spool holds would be put again
		err = in.Set(map[string]any{"store.spool": map[string]any{"read_back": "0s"}})
	}
	if err == nil {
		err = planted(ctx, p, r, in, filepath.Join(server.DataDir, other))
	}
	if err != nil {
		return err
	}
	if in, err = onto(ctx, program, filepath.Join(p.scratch, "p"), server, l.address, server.Bucket); err != nil {
		return err
	}
	h := newHouse(p, r, in)
	behave := func(how manner) func() error { return func() error { return l.behave(how) } }
	stopped := func() error { return silent(server.Endpoint) }
	const resume = 60 * time.Second
	err = h.live(ctx, func(ctx context.Context) error {
		for range p.n {
			for _, t := range []taken{
				{what: "the store refuses connections", clear: behave(refuses), back: behave(well), hold: 4 * time.Second, tells: true},
				{what: "the store cuts connections", clear: behave(cuts), back: behave(well), hold: 4 * time.Second, tells: true},
				{what: "the store hangs", clear: behave(hangs), back: behave(well), hold: 25 * time.Second, during: h.turnedAway, tells: true},
				{what: "the store gives a byte a second", clear: behave(crawls), back: behave(well), hold: 25 * time.Second, during: h.turnedAway, tells: true},
				// Its kernel still takes connections: who waits is served after a few seconds, and told nothing.
				{what: "the server is stopped in its tracks", clear: server.Pause, gone: stopped, back: server.Resume, hold: 4 * time.Second},
				{what: "the server is killed and started again", clear: server.Kill, gone: stopped, back: func() error { return server.Restart(ctx) }, hold: 3 * time.Second, tells: true},
			} {
				t.answer, t.resume, t.clients = storeAnswer, resume, 8
				if t.gone == nil {
					t.gone = l.away
				}
				if t.during != nil {
					t.clients = 64
				}
				if err := h.take(ctx, t); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if m := h.memory.Load(); m > mostMemory {
		err = errors.Join(err, fmt.Errorf("the daemon took %d MiB, want at most %d", m>>20, mostMemory>>20))
	}
	if r.Counts["restarts"] > 0 {
		err = errors.Join(err, errors.New("the daemon ended because its store was away"))
	}
	if err != nil {
		r.Fail("%v", err)
	}
	return p.end(r)
}

// turnedAway wants, while 64 clients of all bodies hammer at a store that gives nothing, what needs no store to be served
// soon, for each body; and one more client of each to be told within a bounded time to come again later.
func (h *house) turnedAway(ctx context.Context) error {
	d, err := h.serving(ctx, time.Second)
	if err != nil {
		return err
	}
	wait(ctx, 8*time.Second) // by now the places are taken
	began := time.Now()
	if _, err := d.Client(h.in.Admin).Status(ctx); err != nil {
		return fmt.Errorf("status while the store is away: %w", err)
	}
	for _, body := range h.in.Bodies {
		if _, err := h.in.Listing(ctx, d, body.Code); err != nil {
			return fmt.Errorf("search of %s while the store is away: %w", body.Code, err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		return fmt.Errorf("status and searches took %v while the store is away", took)
	}
	return h.eachTold(ctx, d)
}

// eachTold hands over one document for each body, which must not be taken, and wants each to be told when to come again.
func (h *house) eachTold(ctx context.Context, d *rig.Daemon) error {
	errs := make([]error, len(h.in.Bodies))
	var work sync.WaitGroup
	for i, body := range h.in.Bodies {
		s := h.book.New(rig.Load{})
		for s.Producer != body.Code {
			s = h.book.New(rig.Load{})
		}
		work.Go(func() {
			began := time.Now()
			err := h.book.Told(ctx, d, s)
			h.plan.say("one more of %s: %v after %v", body.Code, err, time.Since(began))
			if took := time.Since(began); err != nil || took > storeAnswer {
				errs[i] = errors.Join(err, fmt.Errorf("one more client of %s, while the store is away, was answered after %v", body.Code, took))
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// onto makes an installation on a bucket of a server, which is reached at an address.
func onto(ctx context.Context, program, root string, server *s3test.Server, address, bucket string) (*rig.Installation, error) {
	in, err := rig.New(ctx, rig.Options{Program: program, Root: root, Store: rig.Dir()})
	if err != nil {
		return nil, err
	}
	in.Store = rig.Store{Kind: server.Kind}
	secret := in.Path("keys", "s3.secret")
	if err := os.WriteFile(secret, []byte(server.SecretKey+"\n"), 0o600); err != nil {
		return nil, err
	}
	return in, errors.Join(os.RemoveAll(in.Path("store")), in.Set(map[string]any{"store": map[string]any{"s3": map[string]any{
		"url": "http://" + address, "bucket": bucket, "access_key": server.AccessKey, "secret_key_file": secret,
	}}}))
}
