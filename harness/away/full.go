package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/harness/rig"
)

// disk is a file system of its own, in an image.
type disk struct {
	at      string
	crowded int // files made to take its inodes
}

// mount makes an ext4 of so many MiB, with so many inodes, at a folder.
func mount(ctx context.Context, image, at string, mib, inodes int) (*disk, error) {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, err
	}
	for _, line := range [][]string{
		{"truncate", "-s", fmt.Sprintf("%dM", mib), image},
		{"mkfs.ext4", "-q", "-F", "-m", "0", "-N", fmt.Sprint(inodes), "-E", "lazy_itable_init=0,lazy_journal_init=0", image},
		{"mount", "-o", "loop", image, at},
	} {
		if out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", line[0], err, out)
		}
	}
	return &disk{at: at}, nil
}

func (d *disk) unmount() error {
	for range 50 {
		if err := unix.Unmount(d.at, 0); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return unix.Unmount(d.at, unix.MNT_DETACH)
}

func (d *disk) filler() string { return filepath.Join(d.at, "riempito") }

// fill takes every byte that is left, and those left since.
func (d *disk) fill() error {
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil // it is full already
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	at := info.Size()
	for step := int64(64 << 20); step >= 4096; {
		if err := unix.Fallocate(int(f.Fd()), 0, at, step); err != nil {
			step /= 4
			continue
		}
		at += step
	}
	return nil
}

// crowd takes every inode that is left, and those left since.
func (d *disk) crowd() error {
	if err := os.MkdirAll(d.filler(), 0o755); err != nil {
		return nil
	}
	for ; ; d.crowded++ {
		f, err := os.Create(filepath.Join(d.filler(), fmt.Sprint(d.crowded)))
		if err != nil {
			return nil
		}
		_ = f.Close()
	}
}

func (d *disk) free() error { return os.RemoveAll(d.filler()) }

// full fills file systems under the daemon.
func full(ctx context.Context, p *plan) error {
	if os.Geteuid() != 0 {
		return errors.New("full mounts file systems: it wants root")
	}
	program, err := rig.Build(ctx, p.cache)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(p.seed, 1))
	r := rig.Begin(ctx, "full", "dir", p.seed)
	in, err := rig.New(ctx, rig.Options{Program: program, Root: filepath.Join(p.scratch, "planted"), Store: rig.Dir()})
	if err == nil {
		err = planted(ctx, p, r, in, in.Path("store"))
	}
	if err != nil {
		return err
	}
	for _, where := range []string{"all", "store", "state"} {
		if err := fullAt(ctx, p, r, program, where, random); err != nil {
			r.Fail("disk of %s: %v", where, err)
		}
	}
	return p.end(r)
}

// fullAt fills the file system that everything is on, or the store alone, or the state alone.
func fullAt(ctx context.Context, p *plan, r *rig.Result, program, where string, random *rand.Rand) (err error) {
	base := filepath.Join(p.scratch, where)
	root, at := filepath.Join(base, "p"), base
	if where != "all" {
		at = filepath.Join(root, where)
	}
	d, err := mount(ctx, filepath.Join(p.scratch, where+".img"), at, 600, 4096*(1+p.n)) // what is kept takes some of it each time
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.unmount(), os.Remove(filepath.Join(p.scratch, where+".img"))) }()
	in, err := rig.New(ctx, rig.Options{Program: program, Root: filepath.Join(base, "first"), Store: rig.Dir()})
	if err != nil {
		return err
	}
	if in, err = moved(ctx, in, root); err != nil {
		return err
	}
	h := newHouse(p, r, in)
	return h.live(ctx, func(ctx context.Context) error {
		for range p.n {
			for _, way := range []struct {
				name string
				do   func() error
			}{{"bytes", d.fill}, {"inodes", d.crowd}} {
				moment := time.Duration(random.IntN(1000)) * time.Millisecond
				hold := time.Second + time.Duration(random.IntN(1500))*time.Millisecond
				err := h.take(ctx, taken{
					what: "no " + way.name + " on the disk of " + where, clients: 6,
					// What fills ends when nothing more fits: that it is away needs no other proof than what clients are told. What the
					// daemon itself gives back meanwhile is taken too.
					clear: func() error { wait(ctx, moment); return way.do() },
					during: func(ctx context.Context) error {
						for end := time.Now().Add(hold); time.Now().Before(end); wait(ctx, 50*time.Millisecond) {
							if err := way.do(); err != nil {
								return err
							}
						}
						return nil
					},
					tells: true, back: d.free, answer: 30 * time.Second, resume: 45 * time.Second,
				})
				r.Add("fills of "+way.name, 1)
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// moved is an installation in a folder that exists already, with mount points in it.
func moved(ctx context.Context, in *rig.Installation, root string) (*rig.Installation, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", in.Root+"/.", root).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("move the installation: %w: %s", err, out)
	}
	c := *in
	c.Root = root
	return &c, os.RemoveAll(in.Root)
}
