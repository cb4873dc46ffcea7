// Away takes from the real daemon, under load, what it stands on, and gives it back: room on its disks, its bucket, its
// timestamp authority.
//
//	away full    a file system of its own for everything, for the store alone, for the state alone: filled at a
//	             random moment, to the last byte or to the last inode, and freed
//	away store   the S3 server stopped, cut off, refusing, hanging, or giving a byte a second
//	away tsa     the timestamp authority refusing, hanging, failing
//
// Each time it is seen to be away: by a probe, by what the link cut or held up, by what clients are told. While it is
// away clients are told to come again later (503 and Retry-After) within a bounded time, the daemon's memory is
// bounded, and nothing is answered otherwise. Once it is back the daemon goes on by itself, or after a restart when a full
// disk has ended it, and the rig's whole verdict holds: nothing that was acknowledged is lost, nothing doubled.
//
// It prints a line of JSON for each part (rig.Result) and ends with 1 when anything failed. Run it from harness/, or use
// scripts/away. full wants root.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/marchesud/perenne/harness/rig"
)

// plan is what the command line asks for.
type plan struct {
	seed    uint64
	n       int    // how often each thing is taken away
	kind    string // of S3 server
	scratch string // a folder of this run alone
	cache   string // of what is built
	out     io.Writer
	verbose bool
}

func main() { rig.Main("away", run) }

func run(ctx context.Context, args []string) (err error) {
	parts := map[string]func(context.Context, *plan) error{"full": full, "store": store, "tsa": tsa}
	if len(args) == 0 || parts[args[0]] == nil {
		return fmt.Errorf("want full, store or tsa")
	}
	var p plan
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.Uint64Var(&p.seed, "seed", uint64(time.Now().UnixNano()), "what is chosen is chosen from it")
	f.IntVar(&p.n, "n", 1, "how often each thing is taken away")
	f.StringVar(&p.kind, "store", "versitygw", "for store: minio or versitygw")
	out := f.String("out", "", "file that gets the results too, a line of JSON each")
	f.StringVar(&p.cache, "cache", filepath.Join(os.TempDir(), "perenne-harness"), "folder of what is built")
	f.BoolVar(&p.verbose, "v", false, "say each step")
	limit := f.Duration("limit", 0, "after this it is stopped, and has failed; 0: none")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	ctx, stop := rig.Within(ctx, *limit)
	defer stop()
	if p.scratch, err = os.MkdirTemp("", "perenne-away-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(p.scratch) }()
	to, end, err := rig.Out(*out)
	if err != nil {
		return err
	}
	defer func() { _ = end() }()
	p.out = to
	return rig.Early(ctx, parts[args[0]](ctx, &p))
}

// end writes a result; what failed is an error.
func (p *plan) end(r *rig.Result) error { return r.Conclude(p.out) }

func (p *plan) say(format string, args ...any) {
	if p.verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}
