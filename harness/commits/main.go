// Commits has many writers contend for the numbers of one ledger, in several processes that share nothing but the
// bucket, and gives what each was told, and when, to a checker of histories (porcupine): there must be one order of all
// appends and reads, compatible with the times at which they were asked and answered, in which each append takes the
// number after the one before and names its digest, and each read tells the newest. Then the ledger is walked from the
// bucket alone: one version of each number, the chain whole, every acknowledged entry in the commit that its writer
// was told, once.
//
// First it shows that it sees a store whose conditional create lets two win and answers that each stands alone. It
// prints a line of JSON for each store (rig.Result) and ends with 1 when anything failed. Run it from harness/, or use
// scripts/daemons.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

func main() { rig.Main("commits", run) }

// plan is what the command line asks for.
type plan struct {
	writers, processes, each int
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) == 1 && args[0] == "writers" {
		return child(ctx)
	}
	var p plan
	f := flag.NewFlagSet("commits", flag.ContinueOnError)
	f.IntVar(&p.writers, "writers", 16, "how many writers")
	f.IntVar(&p.processes, "processes", 4, "in how many processes")
	f.IntVar(&p.each, "each", 1000, "how many appends each writer makes")
	limit := f.Duration("limit", 0, "after this it is stopped, and has failed; 0: none")
	store := f.String("store", "dir", "dir, minio or versitygw")
	out := f.String("out", "", "file that gets the result too, a line of JSON")
	if err := f.Parse(args); err != nil {
		return err
	}
	if p.processes < 1 || p.writers < p.processes {
		return fmt.Errorf("-writers %d, -processes %d: want a writer or more in each process", p.writers, p.processes)
	}
	ctx, stop := rig.Within(ctx, *limit)
	defer stop()
	scratch, err := os.MkdirTemp("", "perenne-commits-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	to, end, err := rig.Out(*out)
	if err != nil {
		return err
	}
	defer func() { _ = end() }()
	r := rig.Begin(ctx, "commits", *store, 0)
	if err := planted(ctx, filepath.Join(scratch, "planted"), r); err != nil {
		r.Fail("planted: %v", rig.Early(ctx, err))
	} else if err := rig.Early(ctx, contend(ctx, &p, *store, scratch, r)); err != nil {
		r.Fail("%v", err)
	}
	return r.Conclude(to)
}

// contend lets the writers go and judges what they were told.
func contend(ctx context.Context, p *plan, store, scratch string, r *rig.Result) error {
	s, err := newSetting(filepath.Join(scratch, "state"))
	if err != nil {
		return err
	}
	if store == "dir" {
		s.Dir = filepath.Join(scratch, "bucket")
	} else {
		server, err := s3test.Run(ctx, store, filepath.Join(scratch, "server"))
		if err != nil {
			return err
		}
		defer func() { _ = server.Kill() }()
		s.Endpoint, s.AccessKey, s.SecretKey, s.Bucket = server.Endpoint, server.AccessKey, server.SecretKey, server.Bucket
	}
	began := time.Now()
	history, followed, err := s.spawn(ctx, p)
	if err != nil {
		return err
	}
	r.Add("commits of others that writers followed", followed)
	if followed == 0 {
		return errors.New("no writer followed another's commit: they did not contend, and this proves nothing")
	}
	r.Add("writers", int64(p.writers))
	r.Add("writing milliseconds", time.Since(began).Milliseconds())
	return s.judge(ctx, history, r)
}

// judge walks the ledger and has the history checked.
func (s *setting) judge(ctx context.Context, history []op, r *rig.Result) error {
	standing, commits, err := s.walk(ctx)
	if err != nil {
		return err
	}
	r.Add("commits in the bucket", commits)
	var known []op
	for _, o := range history {
		at, stands := standing[o.Entry]
		switch {
		case o.Entry == "": // a read
			r.Add("reads", 1)
		case o.Unknown && !stands:
			r.Add("appends unknown, not there", 1)
			continue // it may be left out of the order
		case o.Unknown:
			r.Add("appends unknown, there", 1)
			o.Number, o.Digest, o.Previous, o.Return = at.Number, at.Digest, at.Previous, forEver
		case !stands:
			return fmt.Errorf("LOST: entry %s was acknowledged in commit %d", o.Entry, o.Number)
		case at.Number != o.Number || at.Digest != o.Digest:
			return fmt.Errorf("entry %s was acknowledged in commit %d %.8s, and stands in %d %.8s", o.Entry, o.Number, o.Digest, at.Number, at.Digest)
		default:
			r.Add("appends acknowledged", 1)
		}
		known = append(known, o)
	}
	return errors.Join(contended(known, r), linearizable(known))
}

// contended wants the writers to have been at it at once: of those that wait for each other to end, few commits stand
// on another's.
func contended(history []op, r *rig.Result) error {
	by := map[int64]int{}
	for _, o := range history {
		if o.Entry != "" {
			by[o.Number] = o.Writer
		}
	}
	var onOthers, writers int64
	seen := map[int]bool{}
	for n, w := range by {
		if before, ok := by[n-1]; ok && before != w {
			onOthers++
		}
		seen[w] = true
	}
	writers = int64(len(seen))
	r.Add("commits on another writer's", onOthers)
	if onOthers < 2*writers {
		return fmt.Errorf("of %d commits by %d writers only %d stand on another's: they did not contend, and this proves nothing", len(by), writers, onOthers)
	}
	return nil
}

// linearizable has porcupine look for the order.
func linearizable(history []op) error {
	var ops []porcupine.Operation
	for _, o := range history {
		ops = append(ops, porcupine.Operation{ClientId: o.Writer, Input: o.Entry != "", Call: o.Call, Output: o.head, Return: o.Return})
	}
	switch porcupine.CheckOperationsTimeout(register, ops, 5*time.Minute) {
	case porcupine.Ok:
		return nil
	case porcupine.Illegal:
		return errNoOrder
	default:
		return errors.New("no verdict within five minutes")
	}
}

var errNoOrder = errors.New("there is no order of these appends and reads that explains what the writers were told")

// register is a ledger as its writers see it: its head. Where it stood before the first of them is not known.
var register = porcupine.Model{
	Init: func() any { return head{Number: -1} },
	Step: func(state, input, output any) (bool, any) {
		now, appends, told := state.(head), input.(bool), output.(head)
		switch {
		case now.Number < 0:
			return true, told
		case appends:
			return told.Number == now.Number+1 && told.Previous == now.Digest, told
		default:
			return told == now, now
		}
	},
}
