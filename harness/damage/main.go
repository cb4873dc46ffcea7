// Damage hurts the objects of an archive behind its back, in every way that the administrator of its store can, and holds
// what the audit says against what was done: each object hurt is named, nothing else is, the verdict is never good while
// something is hurt, and good again once it is whole.
//
// First it shows that it sees an audit that skips one kind of object, for each kind, one that believes sizes, and
// one that accuses what is whole, and has nothing against a sound audit of the same damage. It prints a line of JSON for each store (rig.Result) and ends with 1 when
// anything failed. Run it from harness/, or use scripts/damage.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/marchesud/perenne/harness/rig"
)

// plan is what the command line asks for.
type plan struct {
	seed    uint64
	n       int    // how many damages
	scratch string // a folder of this run alone
	out     io.Writer
	verbose bool
}

func main() { rig.Main("damage", run) }

func run(ctx context.Context, args []string) (err error) {
	var p plan
	f := flag.NewFlagSet("damage", flag.ContinueOnError)
	f.Uint64Var(&p.seed, "seed", uint64(time.Now().UnixNano()), "what is chosen is chosen from it")
	f.IntVar(&p.n, "n", 500, "how many damages")
	store := f.String("store", "dir", "dir, minio, versitygw, or program: the real daemon and perenne audit")
	out := f.String("out", "", "file that gets the results too, a line of JSON each")
	f.BoolVar(&p.verbose, "v", false, "say each damage")
	limit := f.Duration("limit", 0, "after this it is stopped, and has failed; 0: none")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, stop := rig.Within(ctx, *limit)
	defer stop()
	if p.scratch, err = os.MkdirTemp("", "perenne-damage-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(p.scratch) }()
	to, end, err := rig.Out(*out)
	if err != nil {
		return err
	}
	defer func() { _ = end() }()
	p.out = to
	parts := map[string]func(context.Context, *plan, *rig.Result) error{"dir": onFiles, "minio": onServer("minio"), "versitygw": onServer("versitygw"), "program": onProgram}
	part := parts[*store]
	if part == nil {
		return fmt.Errorf("no store %q", *store)
	}
	r := rig.Begin(ctx, "damage", *store, p.seed)
	if err := rig.Early(ctx, part(ctx, &p, r)); err != nil {
		r.Fail("%v", err)
	}
	return r.Conclude(p.out)
}

func (p *plan) say(format string, args ...any) {
	if p.verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}
