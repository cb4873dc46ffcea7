package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/harness/recorder"
	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

const (
	// images is how many power cuts there are by default, of which imagesS3 of an S3 server's disk.
	images, imagesS3 = 200, 20
	// perRecording is how many cuts are made of one recording.
	perRecording = 50
	// recorded is how many submissions one recording acknowledges.
	recorded = 120
	// diskSize is the size of the recorded disk, bytes.
	diskSize = 192 << 20
)

// power cuts the power: of the machine with the embedded store and the local state, or, with a server, of the server
// that keeps the bucket, while the daemon's own disk stays whole.
func power(ctx context.Context, p *plan) error {
	if os.Getuid() != 0 {
		return errors.New("loop devices and mounts take root")
	}
	program, err := rig.Build(ctx, p.cache, "crashpoints")
	if err != nil {
		return err
	}
	r := rig.Begin(ctx, "power", p.kind, p.seed)
	c := &cutter{plan: p, program: program, result: r, random: rand.New(rand.NewPCG(p.seed, 3))}
	if p.n == 0 {
		p.n = images
		if p.kind != "dir" {
			p.n = imagesS3
		}
	}
	if r.Planted, err = c.seesPlanted(ctx); err != nil {
		return err
	}
	for done := 0; done < p.n && ctx.Err() == nil; done += perRecording {
		if err := c.recording(ctx, min(perRecording, p.n-done), false); err != nil {
			r.Fail("%v", err)
			break
		}
	}
	if err := rig.Early(ctx, nil); err != nil {
		r.Fail("%v", err)
	}
	if n := r.Counts["cuts that the server did not survive"]; 2*n > r.Counts["cuts"] {
		r.Fail("the server did not survive %d of %d cuts: too few are left to say anything", n, r.Counts["cuts"])
	}
	return p.end(r)
}

// cutter is one campaign.
type cutter struct {
	*plan
	program string
	result  *rig.Result
	random  *rand.Rand
	made    int

	mu   sync.Mutex
	seen error   // a loss that a planted bug has led to
	said []error // what else it has led to
}

// catch notes what a planted bug has led to. A disk that no sync reaches leads to much, such as a daemon that does not
// start: only a loss is what the bug must be seen by.
func (c *cutter) catch(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rig.Seen(err, rig.ErrLost, rig.ErrRolledBack) != nil {
		c.said = append(c.said, err)
		return
	}
	c.seen = err
}

func (c *cutter) caught() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// ack is an acknowledgement, and how far the disk was when the client had it.
type ack struct {
	sent *rig.Sent
	pos  int
}

// world is an installation at work on a recorded disk.
type world struct {
	disk   *recorder.Recorder
	server *s3test.Server // nil: the installation itself is on the disk
	book   *rig.Book
	mu     sync.Mutex
	acks   []ack
}

func (w *world) close() error {
	var err error
	if w.server != nil {
		err = w.server.Kill()
	}
	return errors.Join(err, w.disk.Close())
}

// recording records one load and cuts the power n times in it. With planted true no sync reaches the disk's file
// system, and what that leads to is no failure.
func (c *cutter) recording(ctx context.Context, n int, planted bool) (err error) {
	c.made++
	folder := filepath.Join(c.scratch, fmt.Sprintf("recording-%d", c.made))
	w, err := c.world(ctx, folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := c.work(ctx, w, planted); err != nil {
		return err
	}
	writes, flushes := w.disk.Counts()
	c.result.Add("recorded writes", writes)
	c.result.Add("recorded flushes", flushes)
	c.result.Add("acknowledged", int64(len(w.acks)))
	end := w.disk.Pos()
	const workers = 3 // a recovery waits for syncs most of its time
	var g errgroup.Group
	g.SetLimit(workers)
	for i := range n {
		k, kind, random := c.random.IntN(end+1), recorder.Kinds[i%len(recorder.Kinds)], rand.New(rand.NewPCG(c.random.Uint64(), 0))
		g.Go(func() error {
			if ctx.Err() != nil || planted && c.caught() != nil {
				return nil
			}
			err := c.cut(ctx, w, filepath.Join(folder, fmt.Sprintf("cut-%d", i)), k, kind, random, i%5 == 4, planted)
			if err != nil && planted {
				c.catch(err)
				return nil
			}
			if err != nil {
				c.result.Fail("recording %d, %s at %d of %d: %v", c.made, kind, k, end, err)
			}
			c.result.Add("cuts", 1)
			c.result.Add("cuts "+string(kind), 1)
			return nil
		})
	}
	return g.Wait()
}

// world makes the disk and the installation.
func (c *cutter) world(ctx context.Context, folder string) (*world, error) {
	disk, err := recorder.Open(ctx, filepath.Join(folder, "disk"), diskSize)
	if err != nil {
		return nil, err
	}
	w := &world{disk: disk}
	store, root := rig.Dir(), filepath.Join(disk.Mount, "p")
	config := map[string]any{}
	if c.kind != "dir" {
		if w.server, err = s3test.Run(ctx, c.kind, filepath.Join(disk.Mount, "server")); err == nil {
			store, err = rig.S3(ctx, w.server)
		}
		root = filepath.Join(folder, "p")
	}
	var in *rig.Installation
	if err == nil {
		in, err = rig.New(ctx, rig.Options{Program: c.program, Root: root, Store: store, Config: config})
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.book = rig.NewBook(in, c.seed+uint64(c.made))
	return w, nil
}

// work lets the installation work until enough was acknowledged, and ends it at once. The daemon starts, and makes
// what it makes once, before the recording begins.
func (c *cutter) work(ctx context.Context, w *world, planted bool) error {
	in := w.book.In
	var wrap []string
	if planted && w.server == nil {
		// The planted bug: whatever asks for a sync is told that it was made.
		wrap = []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:retval=0"}
	}
	if planted && w.server != nil {
		// The planted bug: there is no spool, and the server does not sync.
		if err := in.Set(map[string]any{"store.spool.read_back": "0s"}); err != nil {
			return err
		}
	}
	d, err := in.Start(ctx, nil, nil, wrap...)
	if err != nil {
		return err
	}
	if err := w.disk.Begin(ctx); err != nil {
		return errors.Join(err, d.Kill())
	}
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	if w.server != nil {
		go writeBack(ctx, w.disk.Mount)
	}
	w.book.Run(ctx, rig.Load{Clients: 4, RefuseEvery: 15, Acked: func(s *rig.Sent) {
		pos := w.disk.Pos()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.acks = append(w.acks, ack{s, pos}); len(w.acks) >= recorded {
			stop()
		}
	}}, d)
	err = w.book.Unexpected()
	if len(w.acks) < recorded {
		err = errors.Join(err, fmt.Errorf("only %d were acknowledged: %s", len(w.acks), d.Tail()))
	}
	return errors.Join(err, d.Kill())
}

// writeBack lets the kernel write what a server that does not sync has left in memory, as it does by itself after some
// seconds, so that a cut finds more than nothing.
func writeBack(ctx context.Context, mount string) {
	for ctx.Err() == nil {
		_ = exec.CommandContext(ctx, "sync", "-f", mount).Run() // the end of ctx ends it
		select {
		case <-ctx.Done():
		case <-time.After(150 * time.Millisecond):
		}
	}
}

// cut makes the disk as a cut at k may have left it, recovers, and judges.
func (c *cutter) cut(ctx context.Context, w *world, folder string, k int, kind recorder.Kind, random *rand.Rand, rebuilt, planted bool) (err error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	image, err := w.disk.Image(ctx, folder, k, kind, random)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	in, done, err := c.recovered(ctx, w, folder, image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()

	book := w.book.Copy(in)
	const patience = 30 * time.Second
	switch {
	case planted:
		book.Patience = time.Second
	case w.server != nil:
		book.Patience = 5 * time.Second // before a repair waiting does not help
	}
	var must []*rig.Sent
	for _, s := range book.All() {
		at := slices.IndexFunc(w.acks, func(a ack) bool { return a.sent.Producer == s.Producer && a.sent.Number == s.Number })
		if at >= 0 && (w.server != nil || w.acks[at].pos <= k) {
			must = append(must, s)
		} else {
			s.Forget() // nobody was told so by then: it may be there or not
		}
	}
	d, err := in.Start(ctx, nil, nil)
	for n := 0; n < 5 && errors.Is(err, rig.ErrDied) && d.Later(); n++ {
		c.result.Add("starts put off", 1)
		time.Sleep(time.Second)
		d, err = in.Start(ctx, nil, nil)
	}
	if err != nil && w.server != nil && d != nil && d.Later() {
		// The server's own files are beyond it: the daemon says so and does not start. What was acknowledged lies in the
		// spool, for a bucket that works.
		c.result.Add("cuts that the server did not survive", 1)
		return nil
	}
	if err != nil {
		return fmt.Errorf("it does not start any more: %w", err)
	}
	defer func() { err = errors.Join(err, d.Kill()) }() // the one that runs then
	if image.Checked {
		c.result.Add("cuts that took e2fsck", 1)
	}
	c.result.Add("acknowledged before a cut", int64(len(must)))
	c.say("%s at %d: %d acknowledged before", kind, k, len(must))
	err = c.whole(ctx, w, book, d, must)
	if err != nil && planted { // a body that stands still gives nothing: the audit says why
		_, audited := in.Audit(ctx, d)
		return errors.Join(err, audited)
	}
	if err != nil && w.server != nil {
		// What the store has lost is put again by itself. Where it has other bytes, such as the beginning of the right
		// ones, a person decides: perenne audit names them, perenne repair puts back what the spool holds.
		c.result.Add("cuts that took perenne repair", 1)
		book.Patience = patience
		if err = errors.Join(d.Kill(), repair(ctx, in)); err != nil {
			return err
		}
		if d, err = in.Start(ctx, nil, nil); err != nil {
			return fmt.Errorf("after the repair it does not start: %w", err)
		}
		err = c.whole(ctx, w, book, d, must)
	}
	if err != nil {
		return err
	}
	if _, err := book.Settle(ctx, d); err != nil {
		return err
	}
	var expected []string
	if w.server != nil {
		// Told, and no fault: derived objects that were lost too; what a repair has left beside the right version.
		expected = []string{"missing", "versions"}
	}
	notices, err := in.Audit(ctx, d, expected...)
	c.result.Add("notices of audits", notices)
	if err := errors.Join(err, book.Once(ctx, d), in.Leftovers()); err != nil {
		return err
	}
	if rebuilt {
		return book.Rebuilt(ctx, d, folder)
	}
	return nil
}

// whole wants everything that was acknowledged to be there.
func (c *cutter) whole(ctx context.Context, w *world, book *rig.Book, d *rig.Daemon, must []*rig.Sent) error {
	err := book.In.Healthy(ctx, d)
	if err == nil {
		err = book.Again(ctx, d, must)
	}
	if err == nil && w.server != nil {
		err = derivedOnly(ctx, book.In, d)
	}
	return err
}

// derivedOnly has every body audited and wants no damage but of derived objects, which this audit makes again: no spool
// holds them.
func derivedOnly(ctx context.Context, in *rig.Installation, d *rig.Daemon) (err error) {
	for _, p := range in.Bodies {
		answer, _, auditErr := d.Client(in.Admin).Audit(ctx, web.AuditRequest{Producer: p.Code}, nil)
		if auditErr != nil {
			return errors.Join(err, auditErr)
		}
		for _, f := range answer.Report.Findings {
			derived := strings.HasPrefix(f.Object, p.Code+"/catalog/") || strings.HasPrefix(f.Object, p.Code+"/tiles/")
			if f.Gravity == paper.Damage && !derived {
				err = errors.Join(err, fmt.Errorf("audit of %s: %+v", p.Code, f))
			}
		}
	}
	return err
}

// repair puts back, for every body, what the ledgers name and the spool has.
func repair(ctx context.Context, in *rig.Installation) error {
	for _, p := range in.Bodies {
		out, err := in.Command(ctx, "repair", p.Code, "--all")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

// recovered is the installation after the cut: on the image, or as it was when the server on the image lost its power.
func (c *cutter) recovered(ctx context.Context, w *world, folder string, image *recorder.Image) (*rig.Installation, func() error, error) {
	if w.server == nil {
		in := *w.book.In
		in.Root = filepath.Join(image.Mount, "p")
		return &in, func() error { return nil }, nil
	}
	server, err := s3test.Run(ctx, c.kind, filepath.Join(image.Mount, "server"))
	if err != nil {
		return nil, nil, fmt.Errorf("the server does not start any more: %w", err)
	}
	in, err := w.book.In.Copy(ctx, filepath.Join(folder, "p"), true)
	if err == nil {
		err = in.Set(map[string]any{"store.s3.url": "http://" + server.Endpoint})
	}
	if err != nil {
		return nil, nil, errors.Join(err, server.Kill())
	}
	return in, server.Kill, nil
}

// seesPlanted records a daemon whose syncs do nothing, or one without a spool, and wants that to be seen; of a sound one,
// cut as many times as there are kinds of cuts, nothing must be said.
func (c *cutter) seesPlanted(ctx context.Context) (string, error) {
	what := "syncs that do nothing"
	if c.kind != "dir" {
		what = "a store that is trusted, without a spool"
	}
	if err := c.recording(ctx, len(recorder.Kinds), false); err != nil {
		return "", fmt.Errorf("the control: %w", err)
	}
	if c.result.Failures() > 0 {
		return "", errors.New("nothing was planted, and the judge says what stands above")
	}
	for range 3 {
		if err := c.recording(ctx, 15, true); err != nil {
			return "", err
		}
		if c.caught() != nil {
			line, _, _ := strings.Cut(c.caught().Error(), "\n")
			fmt.Fprintf(os.Stderr, "planted: %s. Seen: %.200s\n", what, line)
			clear(c.result.Counts)
			return what + ": seen, and nothing without it", nil
		}
	}
	return "", fmt.Errorf("%s: no loss seen in 45 cuts: this harness proves nothing: %w", what, errors.Join(c.said...))
}
