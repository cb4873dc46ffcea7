package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// fleet is the machines, each with its daemon, on one bucket.
type fleet struct {
	plan     *plan
	machines []*machine
	book     *rig.Book
	server   *s3test.Server // nil with the embedded store
	victim   int            // whose turn it is to be hurt
	keys     int            // used by oneKey
}

// machine is one installation and its daemon.
type machine struct {
	in     *rig.Installation
	daemon *rig.Daemon
	wire   *rig.Wire // between it and the store; nil with the embedded one
}

// newFleet makes n machines and starts them. The bucket is on server; nil is the embedded store, in the first machine's
// folder.
func newFleet(ctx context.Context, p *plan, store rig.Store, server *s3test.Server, scratch string, n int) (*fleet, error) {
	first, err := rig.New(ctx, rig.Options{
		Program: p.program, Root: filepath.Join(scratch, "m0"), Store: store,
		Config: map[string]any{"seal.every": "1s"},
	})
	if err != nil {
		return nil, err
	}
	if server != nil {
		if err := onServer(first, server); err != nil {
			return nil, err
		}
	}
	f := &fleet{plan: p, book: rig.NewBook(first, p.seed), server: server}
	f.book.Patience = 2 * time.Minute
	for i := range n {
		m := &machine{in: first}
		var args []string
		if i > 0 {
			if m.in, err = second(ctx, first, filepath.Join(scratch, "m"+strconv.Itoa(i)), server == nil); err != nil {
				return f, errors.Join(err, f.stop())
			}
			args = []string{"--trust-bucket-head"}
		}
		if server != nil {
			if m.wire, err = rig.NewWire(ctx, server.Endpoint, 0); err == nil {
				err = m.in.Set(map[string]any{"store.s3.url": "http://" + m.wire.Address()})
			}
			if err != nil {
				return f, errors.Join(err, f.stop())
			}
		}
		f.machines = append(f.machines, m)
		if m.daemon, err = m.in.Start(ctx, nil, args); err != nil {
			return f, errors.Join(err, f.stop())
		}
	}
	return f, nil
}

// onServer puts the bucket of an installation that was never started on a server.
func onServer(in *rig.Installation, server *s3test.Server) error {
	err := os.WriteFile(in.Path("keys", "s3.secret"), []byte(server.SecretKey+"\n"), 0o600)
	return errors.Join(err, in.Set(map[string]any{"store": map[string]any{"s3": map[string]any{
		"url": "http://" + server.Endpoint, "bucket": server.Bucket, "access_key": server.AccessKey, "secret_key_file": "keys/s3.secret",
	}}}))
}

// second makes another machine of an installation as people do: by an export of its keys.
func second(ctx context.Context, in *rig.Installation, root string, embedded bool) (*rig.Installation, error) {
	pass, keys := root+".pass", root+".age"
	if err := os.WriteFile(pass, []byte("parola d'ordine di prova\n"), 0o600); err != nil {
		return nil, err
	}
	if _, err := in.Command(ctx, "keys", "export", "--out", keys, "--passphrase-file", pass); err != nil {
		return nil, err
	}
	args := []string{"keys", "import", "--dir", root, "--passphrase-file", pass}
	if embedded {
		args = append(args, "--store", in.Path("store"))
	}
	if out, err := exec.CommandContext(ctx, in.Program, append(args, keys)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("perenne keys import: %w: %s", err, out)
	}
	other := *in
	other.Root = root
	return &other, nil
}

// daemons are those that run.
func (f *fleet) daemons() []*rig.Daemon {
	var list []*rig.Daemon
	for _, m := range f.machines {
		list = append(list, m.daemon)
	}
	return list
}

func (f *fleet) stop() error {
	var errs []error
	for _, m := range f.machines {
		if m.daemon != nil && !m.daemon.Ended() {
			errs = append(errs, m.daemon.Stop())
		}
		if m.wire != nil {
			m.wire.Close()
		}
	}
	return errors.Join(errs...)
}

// under has clients work on all daemons while fault happens, and wants no client to be answered wrongly. every is the least
// time between two submissions of one client.
func (f *fleet) under(ctx context.Context, every time.Duration, fault func() error) error {
	working, end := context.WithCancel(ctx)
	defer end()
	var load sync.WaitGroup
	load.Go(func() {
		f.book.Run(working, rig.Load{Clients: f.clients(), RefuseEvery: 20, RetryEvery: 10, Every: every}, f.daemons()...)
	})
	err := fault()
	end()
	load.Wait()
	return errors.Join(err, f.book.Unexpected())
}

func (f *fleet) load(ctx context.Context, d time.Duration) error {
	return f.under(ctx, f.pace(), func() error { return sleep(ctx, d) })
}

// hit is the machine that is hurt next.
func (f *fleet) hit() *machine {
	f.victim++
	return f.machines[f.victim%len(f.machines)]
}

// clients is how many there are at once.
func (f *fleet) clients() int { return 4 * len(f.machines) }

// pace is the least time between two submissions of a client, so that all together make at most fifty a second: all that
// is handed over is judged twice by every daemon.
func (f *fleet) pace() time.Duration { return time.Duration(f.clients()) * time.Second / 50 }

// perPause is the most that is handed over while a daemon stands still.
const perPause = 400

// around is how long there is load before and after a fault.
const around = 3 * time.Second

// pause stops a daemon where it is, which must hold up nobody else, and lets it go on.
func (f *fleet) pause(ctx context.Context, r *rig.Result) error {
	m := f.hit()
	return f.under(ctx, time.Duration(f.clients())*f.plan.pause/perPause, func() error {
		if err := errors.Join(sleep(ctx, around), m.daemon.Pause()); err != nil {
			return err
		}
		before := f.book.Acked()
		err := sleep(ctx, f.plan.pause)
		during := f.book.Acked() - before
		if err := errors.Join(err, m.daemon.Resume()); err != nil {
			return err
		}
		r.Add("pauses", 1)
		r.Add("seconds paused", int64(f.plan.pause.Seconds()))
		r.Add("acknowledged by others during pauses", during)
		if during == 0 {
			return fmt.Errorf("while one daemon stood still for %v the others acknowledged nothing", f.plan.pause)
		}
		return sleep(ctx, around)
	})
}

// cut cuts all connections of one machine to the store, again and again, with a reset in the middle of whatever is sent.
func (f *fleet) cut(ctx context.Context, r *rig.Result) error {
	m := f.hit()
	if m.wire == nil {
		return nil // the embedded store has no connections
	}
	const cuts, between = 40, 150 * time.Millisecond
	return f.under(ctx, f.pace(), func() error {
		for range cuts {
			if err := sleep(ctx, between); err != nil {
				return err
			}
			r.Add("connections cut", int64(m.wire.Cut()))
		}
		return sleep(ctx, around)
	})
}

// kill kills a daemon and starts it again.
func (f *fleet) kill(ctx context.Context, r *rig.Result) error {
	m := f.hit()
	err := f.under(ctx, f.pace(), func() error {
		if err := errors.Join(sleep(ctx, around), m.daemon.Kill()); err != nil {
			return err
		}
		r.Add("kills", 1)
		return sleep(ctx, around)
	})
	if err != nil {
		return err
	}
	if m.daemon, err = m.in.Start(ctx, nil, nil); err != nil {
		return err
	}
	return f.load(ctx, around)
}

// apart gives the last machine a copy of the bucket for its own.
func (f *fleet) apart(ctx context.Context, scratch string) error {
	m := f.machines[len(f.machines)-1]
	if err := m.daemon.Stop(); err != nil {
		return err
	}
	own := filepath.Join(scratch, "own")
	if out, err := exec.CommandContext(ctx, "cp", "-a", f.machines[0].in.Path("store"), own).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the bucket: %w: %s", err, out)
	}
	err := m.in.Set(map[string]any{"store.dir": own})
	if err == nil {
		m.daemon, err = m.in.Start(ctx, nil, nil)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// bucket opens the bucket beside the daemons.
func (f *fleet) bucket(ctx context.Context) (storage.Store, error) {
	if f.server == nil {
		return dir.Open(f.machines[0].in.Path("store"), dir.Options{Immutable: dir.Off})
	}
	return s3.Open(ctx, f.server.Options())
}
