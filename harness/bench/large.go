package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/marchesud/perenne/cmd/perenne/bench"
	"github.com/marchesud/perenne/harness/rig"
)

// uploads sends many documents of 1 GiB at once to the real daemon and looks at the most memory it had.
func (m *campaign) uploads(ctx context.Context, work string) (r result, err error) {
	const gib = 1 << 30
	var disk syscall.Statfs_t
	if err := syscall.Statfs(work, &disk); err != nil {
		return r, err
	}
	// A document lies there once as it arrives and once in its package.
	if free, need := int64(disk.Bavail)*disk.Bsize, int64(m.large)*gib*9/8+8*gib; free < need {
		return r, fmt.Errorf("%d GiB free in %s, %d uploads need %d: name fewer with -large", free/gib, work, m.large, need/gib)
	}
	in, err := rig.New(ctx, rig.Options{Program: m.program, Root: filepath.Join(work, "m"), Store: rig.Dir(), Producers: 8})
	if err != nil {
		return r, err
	}
	d, err := in.Start(ctx, nil, nil)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	load := bench.Load{Size: gib, Clients: m.large, Duration: time.Hour, Documents: int64(m.large)}
	for _, b := range in.Bodies {
		load.Producers = append(load.Producers, b.Code)
	}
	before, err := peak(d)
	if err != nil {
		return r, err
	}
	target := bench.NewHTTPTarget(d.Base, in.Admin, true, m.large)
	began := time.Now()
	if _, err := load.Round(ctx, target, &bench.Series{}); err != nil {
		return r, err
	}
	took := time.Since(began)
	after, err := peak(d)
	if err != nil {
		return r, err
	}
	r.System, r.Processors = runtime.GOOS+"/"+runtime.GOARCH+" "+runtime.Version(), runtime.NumCPU()
	w := row{
		What: fmt.Sprintf("most memory, %d uploads of 1 GiB at once", m.large), Value: after, Unit: "MiB",
		Note: fmt.Sprintf("%.0f MiB before; all of them acknowledged and sealed after %s, %.0f MiB/s", before, took.Round(time.Second), float64(m.large)*1024/took.Seconds()),
	}
	w.want(512, true)
	r.Rows = []row{w}
	return r, nil
}

// peak is the most memory a daemon has had in RAM, MiB.
func peak(d *rig.Daemon) (float64, error) {
	kib, ok := d.Status()["VmHWM"]
	if !ok {
		return 0, errors.New("no VmHWM in its status")
	}
	return float64(kib) / 1024, nil
}
