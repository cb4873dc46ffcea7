// Crash kills the real daemon, and everything below it, and judges what is left.
//
//	crash kill   SIGKILL at every labelled step of the program, under load, on a directory and on an S3
//	crash calls  an error or SIGKILL at every system call of one submission
//	crash power  the power is cut: images of the disk as it may have been at any moment
//
// Each first shows that it sees a bug that was planted. It prints a line of JSON for each part (rig.Result) and ends
// with 1 when anything failed. Run it from harness/, or use scripts/crash.
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
	kind    string // of the store
	n       int    // how many faults
	scratch string // a folder of this run alone
	cache   string // of what is built
	out     io.Writer
	verbose bool
}

func main() { rig.Main("crash", run) }

func run(ctx context.Context, args []string) (err error) {
	parts := map[string]func(context.Context, *plan) error{"kill": kill, "calls": calls, "power": power}
	if len(args) == 0 || parts[args[0]] == nil {
		return fmt.Errorf("want kill, calls or power")
	}
	var p plan
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.Uint64Var(&p.seed, "seed", uint64(time.Now().UnixNano()), "what is chosen is chosen from it")
	f.IntVar(&p.n, "n", 0, "how many faults; 0: as many as the part makes by default")
	kind := f.String("store", "dir", "dir, minio or versitygw")
	out := f.String("out", "", "file that gets the results too, a line of JSON each")
	f.StringVar(&p.cache, "cache", filepath.Join(os.TempDir(), "perenne-harness"), "folder of what is built")
	f.BoolVar(&p.verbose, "v", false, "say each fault")
	limit := f.Duration("limit", 0, "after this it is stopped, and has failed; 0: none")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	ctx, stop := rig.Within(ctx, *limit)
	defer stop()
	if p.scratch, err = rig.Scratch("crash"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(p.scratch) }()
	to, end, err := rig.Out(*out)
	if err != nil {
		return err
	}
	defer func() { _ = end() }()
	p.out = to
	p.kind = *kind
	return rig.Early(ctx, parts[args[0]](ctx, &p))
}

// end writes a result; what failed is an error.
func (p *plan) end(r *rig.Result) error { return r.Conclude(p.out) }

func (p *plan) say(format string, args ...any) {
	if p.verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}
