package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/marchesud/perenne/cmd/perenne/bench"
	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// farther is how much later than it was sent a byte arrives, in each direction.
const farther = 10 * time.Millisecond

// clientsOfOne are the clients of each daemon: few enough that waiting for the store is what takes the time, as
// where two daemons stand on machines of their own, and not the processors of the machine on which all of this runs.
const clientsOfOne = 8

// fleet measures one daemon and two on one bucket that is far away, in turn: with a seal at once, as a local timestamp
// authority allows, for which all daemons contend; and with one an interval, as with an external authority.
func (m *campaign) fleet(ctx context.Context, work string) (r result, err error) {
	server, err := s3test.Run(ctx, "versitygw", filepath.Join(work, "server"))
	if err != nil {
		return r, err
	}
	defer func() { _ = server.Kill() }()
	r.System, r.Processors = runtime.GOOS+"/"+runtime.GOARCH+" "+runtime.Version(), runtime.NumCPU()
	for _, sealing := range []struct {
		every    time.Duration
		how      string
		duration time.Duration
	}{{0, "a seal at once", m.duration}, {sealEvery, fmt.Sprintf("a seal every %v", sealEvery), 4 * sealEvery}} {
		pair, err := startPair(ctx, m.program, filepath.Join(work, sealing.every.String()), server, sealing.every)
		if err != nil {
			return r, err
		}
		a, b := pair.codes[0], pair.codes[1]
		for _, c := range []struct {
			what    string
			codes   [2]string
			atLeast float64
		}{
			{"two daemons, a body each, " + sealing.how, [2]string{a, b}, 1.6},
			{"two daemons, one body, " + sealing.how, [2]string{a, a}, 1.2},
		} {
			row, err := m.both(ctx, pair.targets, c.codes, sealing.duration)
			if err != nil {
				return r, errors.Join(fmt.Errorf("%s: %w", c.what, err), pair.stop())
			}
			row.What = c.what
			row.want(c.atLeast, false)
			fmt.Fprintf(os.Stderr, "%s: %.3g %s: %s\n", row.What, row.Value, row.Unit, row.Note)
			r.Rows = append(r.Rows, row)
		}
		if err := pair.stop(); err != nil {
			return r, err
		}
	}
	return r, nil
}

// sealEvery is the interval of seals where they are made at intervals: shorter than anybody would buy tokens, so that
// several fall into a round, whose clock stops with the last of them.
const sealEvery = 2 * time.Second

// pair is two daemons on one bucket, each with a link of its own to a store that is far away.
type pair struct {
	targets []bench.Target
	codes   []string       // of the bodies
	stops   []func() error // in the order of starting
}

func startPair(ctx context.Context, program, work string, server *s3test.Server, every time.Duration) (p *pair, err error) {
	store, err := rig.S3(ctx, server)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return nil, err
	}
	first, err := rig.New(ctx, rig.Options{Program: program, Root: filepath.Join(work, "m0"), Store: store})
	if err != nil {
		return nil, err
	}
	p = &pair{}
	for _, body := range first.Bodies {
		p.codes = append(p.codes, body.Code)
	}
	second := filepath.Join(work, "m1")
	if out, err := exec.CommandContext(ctx, "cp", "-a", first.Root, second).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the installation: %w: %s", err, out)
	}
	other := *first
	other.Root = second
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	for i, in := range []*rig.Installation{first, &other} {
		wire, err := rig.NewWire(ctx, server.Endpoint, farther)
		if err != nil {
			return nil, err
		}
		p.stops = append(p.stops, func() error { wire.Close(); return nil })
		if err := in.Set(map[string]any{"store.s3.url": "http://" + wire.Address(), "seal.every": every.String()}); err != nil {
			return nil, err
		}
		var args []string
		if i > 0 {
			args = []string{"--trust-bucket-head"}
		}
		d, err := in.Start(ctx, nil, args)
		if err != nil {
			return nil, err
		}
		p.stops = append(p.stops, d.Stop)
		p.targets = append(p.targets, bench.NewHTTPTarget(d.Base, in.Admin, true, clientsOfOne))
	}
	return p, nil
}

// stop ends the daemons, then their links.
func (p *pair) stop() (err error) {
	for _, stop := range slices.Backward(p.stops) {
		err = errors.Join(err, stop())
	}
	p.stops = nil
	return err
}

// both compares two daemons, each with its clients and its body, with the first alone.
func (m *campaign) both(ctx context.Context, targets []bench.Target, codes [2]string, duration time.Duration) (row, error) {
	load := bench.Load{Size: 10_000, Clients: clientsOfOne, Duration: duration}
	var ratios, ones, twos, processors []float64
	series := &numbers
	for round := range m.rounds + 1 { // the first warms up
		load.Producers = codes[:1]
		one, err := load.Round(ctx, targets[0], series)
		if err != nil {
			return row{}, err
		}
		var rates [2]bench.Rate
		var errs [2]error
		var running sync.WaitGroup
		busy := busyTime()
		began := time.Now()
		for i := range 2 {
			running.Go(func() {
				l := load
				l.Producers = codes[i : i+1]
				rates[i], errs[i] = l.Round(ctx, targets[i], series)
			})
		}
		running.Wait()
		used := (busyTime() - busy).Seconds() / time.Since(began).Seconds()
		if err := errors.Join(errs[:]...); err != nil {
			return row{}, err
		}
		if two := rates[0].PerSecond + rates[1].PerSecond; round > 0 {
			ratios, ones, twos, processors = append(ratios, two/one.PerSecond), append(ones, one.PerSecond), append(twos, two), append(processors, used)
		}
	}
	return row{Value: bench.Median(ratios), Unit: "×", Note: fmt.Sprintf("%.4g/s beside %.4g/s of one daemon, 10 KB, %d clients each; %.2f of %d processors busy with two",
		bench.Median(twos), bench.Median(ones), clientsOfOne, bench.Median(processors), runtime.NumCPU())}, nil
}

// numbers makes the keys of all documents of the part.
var numbers bench.Series

// busyTime is the time of processors that this machine has spent on anything since it started.
func busyTime() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	var user, nice, system int64
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d", &user, &nice, &system); err != nil {
		return 0
	}
	const tick = 10 * time.Millisecond // USER_HZ
	return time.Duration(user+nice+system) * tick
}
