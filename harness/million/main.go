// Million measures Perenne with many packages: a million, or as many as asked for, of sixteen bodies of unequal size, on
// the embedded store.
//
// It makes the archive quickly. Commits, checkpoints, tiles, entry bundles, search bundles and seals are real, written
// through the product's own packages with the installation's keys; only the packages themselves are not there, which
// nothing measured here reads. Then the real daemon starts on it, and it is measured:
//
//   - the first start, which makes the catalog again from the bundles, and how long words are filled in behind;
//   - a start with the catalog there, after a stop and after SIGKILL, and one on a new machine that has only the bucket;
//   - the memory of the daemon: the most it ever had (VmHWM), and what of it is no file (RssAnon);
//   - searches over HTTP by four clients, of several kinds;
//   - ingest of 10 KB documents by 32 clients in turn with an empty archive.
//
// What is found is held against what was made: every package is counted, and known ones are looked for by their key, and
// by words of their subject, and must be there. It first asks for one that was never made, and must see that it is missing.
//
// It prints a line of JSON (rig.Result) and ends with 1 when anything failed. Slowness fails nothing: it is what is
// measured. Run it from harness/, or use scripts/million.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/marchesud/perenne/harness/rig"
)

// plan is what the command line asks for.
type plan struct {
	n, batch, bodies, rounds int
	seed                     uint64
	duration                 time.Duration // of a round of ingest; searches take twice that
	scratch                  string
	result                   *rig.Result
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "million: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var p plan
	flag.IntVar(&p.n, "n", 1_000_000, "packages")
	flag.IntVar(&p.batch, "batch", 1000, "packages in a commit")
	flag.IntVar(&p.bodies, "producers", 16, "bodies; the k-th has a k-th of the packages of the first")
	flag.IntVar(&p.rounds, "rounds", 3, "of ingest, in turn with an empty archive")
	flag.DurationVar(&p.duration, "duration", 3*time.Second, "of a round")
	flag.Uint64Var(&p.seed, "seed", 1, "the archive is made from it")
	disk := flag.String("disk", os.TempDir(), "folder on the file system to measure")
	program := flag.String("program", "", "the perenne to measure; built when not given")
	keep := flag.Bool("keep", false, "leave the archive there, and say where")
	out := flag.String("out", "", "file that gets the result too")
	flag.Parse()
	if p.n < p.bodies || p.batch < 1 || p.batch > 10_000 || p.bodies < 1 || p.bodies > 64 {
		return errors.New("want -n at least -producers, -batch 1 to 10000, -producers 1 to 64")
	}
	if p.scratch, err = os.MkdirTemp(*disk, "perenne-million-"); err != nil {
		return err
	}
	defer func() {
		if *keep {
			fmt.Fprintln(os.Stderr, p.scratch)
			return
		}
		err = errors.Join(err, os.RemoveAll(p.scratch))
	}()
	if *program == "" {
		if *program, err = rig.Build(ctx, filepath.Join(os.TempDir(), "perenne-harness")); err != nil {
			return err
		}
	}
	p.result = rig.Begin(ctx, "million", "dir", p.seed)
	p.note("packages", int64(p.n))
	p.note("packages in a commit", int64(p.batch))
	p.note("load before, hundredths", loadAverage())
	if err := p.measure(ctx, *program); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.result.Fail("%v", err)
	}
	p.note("load after, hundredths", loadAverage())
	return p.end(*out)
}

// end writes the result; what failed is an error.
func (p *plan) end(path string) error {
	to := []io.Writer{os.Stdout}
	if path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		to = append(to, f)
	}
	fine, err := p.result.End(io.MultiWriter(to...))
	if err == nil && !fine {
		err = fmt.Errorf("%d failures", len(p.result.Failed))
	}
	return err
}

// note adds a figure, and says it.
func (p *plan) note(what string, n int64) {
	p.result.Add(what, n)
	fmt.Fprintf(os.Stderr, "%12d  %s\n", n, what)
}

// loadAverage is that of the last minute, in hundredths.
func loadAverage() int64 {
	var load float64
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &load)
	}
	return int64(load * 100)
}
