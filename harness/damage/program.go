package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage/dir"
)

// onProgram damages the embedded store of the real daemon, and has it audited by perenne audit, whose exit code must say
// what its report says.
func onProgram(ctx context.Context, p *plan, r *rig.Result) error {
	program, err := rig.Build(ctx, filepath.Join(p.scratch, "program"))
	if err != nil {
		return err
	}
	in, err := rig.New(ctx, rig.Options{Program: program, Root: filepath.Join(p.scratch, "p"), Store: rig.Dir()})
	if err != nil {
		return err
	}
	bodies = nil
	for _, b := range in.Bodies {
		bodies = append(bodies, b.Code)
	}
	d, err := in.Start(ctx, nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = d.Kill() }()
	load, stop := context.WithTimeout(ctx, time.Minute)
	book := rig.NewBook(in, p.seed)
	book.Run(load, rig.Load{Clients: 4, RefuseEvery: 5, Acked: func(*rig.Sent) {
		if book.Acked() >= 40 {
			stop()
		}
	}}, d)
	stop()
	if _, err := book.Settle(ctx, d); err != nil {
		return err
	}
	audit := byCommand(in)
	for range 2 { // reports, to be damaged too
		if j, err := judge(ctx, audit, nil); err != nil || !j.fine() {
			return errors.Join(err, fmt.Errorf("before any damage: %+v", j))
		}
	}
	time.Sleep(1100 * time.Millisecond) // papers state whole seconds
	store, err := dir.Open(in.Path("store"), dir.Options{Immutable: dir.Off})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	f := &files{root: in.Path("store"), twin: filepath.Join(p.scratch, "none"), random: rand.New(rand.NewPCG(p.seed, 3))}
	if f.census, err = take(ctx, store); err != nil {
		return err
	}
	r.Add("objects", int64(len(f.keys)))
	for r.Counts["damages"] < int64(p.n) {
		f.taken = map[string]bool{}
		w, err := f.wound("", false)
		if err != nil {
			return err
		}
		if r.Planted == "" { // first the judge is not told of it
			mended := func(key string) bool { return kindOf(key) != "package" } // the first audit makes some of these again
			if len(w.must) > 0 && !slices.ContainsFunc(w.must, mended) {
				if err := accused(ctx, audit, w); err != nil {
					return err
				}
				r.Planted = "an audit that accuses what is whole, and none of a sound one"
			}
		} else {
			j, err := judge(ctx, audit, []*wound{w})
			if err != nil {
				return err
			}
			r.Add("damages", 1)
			r.Add("of kind "+w.kind, 1)
			note(r, j, w.String())
		}
		if err := w.undo(); err != nil {
			return fmt.Errorf("undo %s: %w", w, err)
		}
	}
	j, err := judge(ctx, audit, nil)
	if err != nil {
		return err
	}
	note(r, j, "after undoing all")
	return d.Stop()
}

// accused judges an audit of a damage that the judge is not told of, which must be seen, and of the same when it is.
func accused(ctx context.Context, audit auditor, w *wound) error {
	j, err := judge(ctx, audit, nil)
	if err == nil {
		err = j.accuses(w)
	}
	if err != nil {
		return err
	}
	if j, err = judge(ctx, audit, []*wound{w}); err != nil {
		return err
	}
	return j.sound(w)
}

// codes are what perenne audit ends with.
var codes = map[string]int{paper.VerdictGood: 0, paper.VerdictDamaged: 1, paper.VerdictIncomplete: 2}

// byCommand audits with the command line.
func byCommand(in *rig.Installation) auditor {
	return func(ctx context.Context, producer string) (*paper.Report, error) {
		cmd := exec.CommandContext(ctx, in.Program, "audit", "--dir", in.Root, "--producer", producer, "--json", "--out", in.Path("report.asice"))
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return nil, err
		}
		var r paper.Report
		if err := json.Unmarshal(out, &r); err != nil {
			return nil, fmt.Errorf("perenne audit: %w: %s %s", err, out, said.Bytes())
		}
		if got, want := cmd.ProcessState.ExitCode(), codes[r.Verdict]; got != want {
			return nil, fmt.Errorf("perenne audit says %s and ends with %d, want %d", r.Verdict, got, want)
		}
		return &r, nil
	}
}
