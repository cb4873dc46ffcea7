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
	"os/signal"
	"syscall"
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

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "damage: %v\n", err)
		os.Exit(1)
	}
}

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
	p.out = os.Stdout
	if *out != "" {
		file, err := os.OpenFile(*out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		p.out = io.MultiWriter(os.Stdout, file)
	}
	parts := map[string]func(context.Context, *plan, *rig.Result) error{"dir": onFiles, "minio": onServer("minio"), "versitygw": onServer("versitygw"), "program": onProgram}
	part := parts[*store]
	if part == nil {
		return fmt.Errorf("no store %q", *store)
	}
	r := rig.Begin(ctx, "damage", *store, p.seed)
	if err := rig.Early(ctx, part(ctx, &p, r)); err != nil {
		r.Fail("%v", err)
	}
	fmt.Fprintln(os.Stderr, r.Summary())
	fine, err := r.End(p.out)
	if err == nil && !fine {
		err = fmt.Errorf("%d failures on %s", len(r.Failed), *store)
	}
	return err
}

func (p *plan) say(format string, args ...any) {
	if p.verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}
