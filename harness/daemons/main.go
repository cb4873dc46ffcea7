// Daemons runs several real daemons on one bucket, which is all they share: each is a machine of its own, made by perenne
// keys export and import. Under load one is stopped for a while and goes on (SIGSTOP), connections to the store are
// cut, one is killed and started again. Then it is judged: every acknowledged receipt is given by every daemon, equal
// and good; what is handed to two at once is taken once; of two contents under one key exactly one is taken; the
// ledgers, walked from the bucket alone, are one history each with every document once; each daemon's audit is clean;
// the catalogs are equal, and equal to one made from scratch.
//
// First it shows that it sees two daemons that believe to share a bucket and do not, and nothing of two that do. It prints a line of JSON for each
// number of daemons (rig.Result) and ends with 1 when anything failed. Run it from harness/, or use scripts/daemons.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// plan is what the command line asks for.
type plan struct {
	program string
	seed    uint64
	rounds  int           // of each fault
	pause   time.Duration // how long a daemon is stopped
}

func main() { rig.Main("daemons", run) }

func run(ctx context.Context, args []string) (err error) {
	var p plan
	f := flag.NewFlagSet("daemons", flag.ContinueOnError)
	f.Uint64Var(&p.seed, "seed", uint64(time.Now().UnixNano()), "what is chosen is chosen from it")
	f.IntVar(&p.rounds, "rounds", 1, "how often each fault comes")
	f.DurationVar(&p.pause, "pause", 15*time.Second, "how long a daemon is stopped")
	kind := f.String("store", "dir", "dir, minio or versitygw")
	numbers := f.String("n", "2,4", "how many daemons, one run for each number")
	limit := f.Duration("limit", 0, "after this it is stopped, and has failed; 0: none")
	out := f.String("out", "", "file that gets the result too, a line of JSON")
	if err := f.Parse(args); err != nil {
		return err
	}
	var fleets []int
	for _, text := range strings.Split(*numbers, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 2 {
			return fmt.Errorf("-n %s: want numbers from 2 on, such as 2,4", *numbers)
		}
		fleets = append(fleets, n)
	}
	ctx, stop := rig.Within(ctx, *limit)
	defer stop()
	scratch, err := os.MkdirTemp("", "perenne-daemons-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if p.program, err = rig.Build(ctx, scratch); err != nil {
		return err
	}
	to, end, err := rig.Out(*out)
	if err != nil {
		return err
	}
	defer func() { _ = end() }()
	planted, err := p.planted(ctx, filepath.Join(scratch, "planted"))
	if err != nil {
		return fmt.Errorf("planted: %w", rig.Early(ctx, err))
	}
	for _, n := range fleets {
		r := rig.Begin(ctx, "daemons", *kind, p.seed)
		r.Planted = planted
		r.Add("daemons", int64(n))
		if hurt := rig.Early(ctx, p.hurt(ctx, *kind, n, filepath.Join(scratch, strconv.Itoa(n)), r)); hurt != nil {
			r.Fail("%v", hurt)
		}
		err = errors.Join(err, r.Conclude(to))
	}
	return err
}

// hurt is the run: machines, load and faults, judgement.
func (p *plan) hurt(ctx context.Context, kind string, n int, scratch string, r *rig.Result) (err error) {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	store := rig.Dir()
	var server *s3test.Server
	if kind != "dir" {
		if server, err = s3test.Run(ctx, kind, filepath.Join(scratch, "server")); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Kill()) }()
		store = rig.Store{Kind: kind}
	}
	f, err := newFleet(ctx, p, store, server, scratch, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	for range p.rounds {
		for _, fault := range []func(context.Context, *rig.Result) error{f.pause, f.cut, f.kill} {
			if err := fault(ctx, r); err != nil {
				return err
			}
		}
	}
	return f.judge(ctx, r)
}

// planted gives the second daemon a bucket of its own, a copy, and wants the judge to see it, and to say nothing before.
func (p *plan) planted(ctx context.Context, scratch string) (string, error) {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return "", err
	}
	f, err := newFleet(ctx, p, rig.Dir(), nil, scratch, 2)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.stop() }()
	judge := func(every time.Duration) (retries, serves, keys error) {
		return f.under(ctx, every, func() error { return sleep(ctx, 2*time.Second) }), f.eachServes(ctx), f.oneKey(ctx, 2, nil)
	}
	if err := errors.Join(judge(f.pace())); err != nil {
		return "", fmt.Errorf("two daemons on one bucket, and the judge says: %w", err)
	}
	if err := f.apart(ctx, scratch); err != nil {
		return "", err
	}
	f.book.Patience = 2 * time.Second
	retries, serves, keys := judge(0)
	err = errors.Join(rig.Seen(retries, rig.ErrDoubled), rig.Seen(serves, rig.ErrLost), rig.Seen(keys, rig.ErrDoubled))
	if err != nil {
		return "", fmt.Errorf("two daemons on two buckets: %w", err)
	}
	return "two daemons on two buckets: other receipts for a retry, receipts that one does not serve, keys taken twice; none of it on one", nil
}
