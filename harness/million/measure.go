package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/cmd/perenne/bench"
	"github.com/marchesud/perenne/harness/rig"
)

// startTime bounds a start that makes everything again, on a busy machine.
const startTime = 30 * time.Minute

func (p *plan) installation(ctx context.Context, program, name string) (*rig.Installation, error) {
	return rig.New(ctx, rig.Options{
		Program: program, Root: filepath.Join(p.scratch, name), Store: rig.Dir(), Producers: p.bodies, StartTime: startTime,
	})
}

func (p *plan) measure(ctx context.Context, program string) error {
	in, err := p.installation(ctx, program, "archive")
	if err != nil {
		return err
	}
	d, err := in.Start(ctx, nil, nil) // writes the first entries of the ledgers
	if err != nil {
		return err
	}
	if err := d.Stop(); err != nil {
		return err
	}
	m, err := p.fill(ctx, in)
	if err != nil {
		return err
	}
	known := &known{in: in, bodies: m.bodies}
	if err := p.firstStart(ctx, in, known); err != nil {
		return err
	}
	if err := p.starts(ctx, in, known); err != nil {
		return err
	}
	return p.newMachine(ctx, in, known)
}

// fill makes the archive.
func (p *plan) fill(ctx context.Context, in *rig.Installation) (*maker, error) {
	m := &maker{in: in, batch: p.batch}
	for i, n := range shares(p.n, p.bodies) {
		m.bodies = append(m.bodies, &body{code: in.Bodies[i].Code, want: n})
	}
	if err := os.RemoveAll(in.Path("state", "catalog")); err != nil {
		return nil, err
	}
	start := time.Now()
	err := m.make(ctx, p.seed, func(n int) { fmt.Fprintf(os.Stderr, "\r%12d  made", n) })
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("make the archive: %w", err)
	}
	p.note("made in, ms", time.Since(start).Milliseconds())
	p.note("bucket without packages, bytes", diskUse(in.Path("store")))
	return m, nil
}

// life is a daemon that is being measured.
type life struct {
	*rig.Daemon
	p     *plan
	name  string
	began time.Time
}

// start starts a daemon and notes how long it took until it served, and what processor time.
func (p *plan) start(ctx context.Context, in *rig.Installation, name string, args ...string) (*life, error) {
	l := &life{p: p, name: name, began: time.Now()}
	var err error
	if l.Daemon, err = in.Start(ctx, nil, args); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l.note("ms until it serves", time.Since(l.began).Milliseconds())
	l.note("ms of processor until it serves", l.processor().Milliseconds())
	return l, nil
}

// startWhole is start, and the memory then, of a daemon that must have every package.
func (p *plan) startWhole(ctx context.Context, in *rig.Installation, k *known, name string, args ...string) (*life, error) {
	l, err := p.start(ctx, in, name, args...)
	if err != nil {
		return nil, err
	}
	l.memory("when it serves")
	if err := k.counted(ctx, l.Daemon); err != nil {
		return nil, errors.Join(err, l.Kill())
	}
	return l, nil
}

func (l *life) note(what string, n int64) { l.p.note(l.name+": "+what, n) }

// memory notes what the daemon took at most so far, and what it has now that is no file.
func (l *life) memory(when string) {
	status := l.Status()
	l.note("KiB at most, "+when+" (VmHWM)", status["VmHWM"])
	l.note("KiB now that are no file, "+when+" (RssAnon)", status["RssAnon"])
}

// processor is the time of processors that the daemon has used.
func (l *life) processor() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.Process().Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 everywhere
	return time.Duration(user+system) * tick
}

// words waits until the words index has followed.
func (l *life) words(ctx context.Context, k *known) error {
	for _, b := range k.bodies {
		for {
			page, err := l.Client(k.in.Admin).Search(ctx, web.SearchQuery{Producer: b.code, Words: "manutenzione", Limit: 1})
			if err != nil {
				return fmt.Errorf("wait for words of %s: %w", b.code, err)
			}
			if page.Behind == 0 {
				break
			}
			if time.Since(l.began) > startTime || !wait(ctx, 100*time.Millisecond) {
				return errors.Join(ctx.Err(), fmt.Errorf("%d words of %s are still behind", page.Behind, b.code))
			}
		}
	}
	l.note("ms until words are filled", time.Since(l.began).Milliseconds())
	l.note("ms of processor until words are filled", l.processor().Milliseconds())
	return nil
}

// firstStart has the catalog made again, searches it, and takes documents beside it.
func (p *plan) firstStart(ctx context.Context, in *rig.Installation, k *known) error {
	first, err := p.start(ctx, in, "first start")
	if err != nil {
		return err
	}
	defer func() { _ = first.Kill() }()
	p.note("first start: packages a second", int64(float64(p.n)/time.Since(first.began).Seconds()))
	p.note("first start: µs of processor a package", first.processor().Microseconds()/int64(p.n))
	first.memory("when it serves")
	if err := k.counted(ctx, first.Daemon); err != nil {
		return err
	}
	if err := first.words(ctx, k); err != nil {
		return err
	}
	first.memory("words filled")
	p.note("catalog, bytes", diskUse(in.Path("state", "catalog", "data")))
	p.note("words, bytes", diskUse(in.Path("state", "catalog", "words")))
	p.note("ledger hashes, bytes", diskUse(in.Path("state", "ledger")))
	p.note("state, bytes", diskUse(in.Path("state")))
	if err := k.planted(ctx, first.Daemon); err != nil {
		return err
	}
	p.result.Planted = "asked for a package that was never made: missing"
	stop := time.Now()
	if err := first.Stop(); err != nil {
		return err
	}
	first.note("ms until stopped", time.Since(stop).Milliseconds())
	return nil
}

// starts measures starts with the catalog there, and what the daemon does then.
func (p *plan) starts(ctx context.Context, in *rig.Installation, k *known) error {
	second, err := p.startWhole(ctx, in, k, "start with the catalog")
	if err != nil {
		return err
	}
	defer func() { _ = second.Kill() }()
	if err := p.search(ctx, second, k); err != nil {
		return err
	}
	second.memory("after searches")
	if err := p.ingest(ctx, second, k); err != nil {
		return err
	}
	second.memory("after ingest")
	if err := second.Kill(); err != nil {
		return err
	}
	third, err := p.startWhole(ctx, in, k, "start after SIGKILL")
	if err != nil {
		return err
	}
	defer func() { _ = third.Kill() }()
	return third.words(ctx, k)
}

// newMachine starts a machine that has the keys and the bucket and nothing else.
func (p *plan) newMachine(ctx context.Context, in *rig.Installation, k *known) error {
	other, err := in.Copy(ctx, filepath.Join(p.scratch, "other"), false)
	if err != nil {
		return err
	}
	if err := other.Set(map[string]any{"read_only": true, "store.dir": in.Path("store")}); err != nil {
		return err
	}
	d, err := p.startWhole(ctx, other, k, "new machine", "--trust-bucket-head")
	if err != nil {
		return err
	}
	return d.Kill()
}

// ingest takes documents in turn with an empty archive. Whoever starts afterwards must have them too.
func (p *plan) ingest(ctx context.Context, full *life, k *known) error {
	in, err := p.installation(ctx, full.In.Program, "empty")
	if err != nil {
		return err
	}
	empty, err := p.start(ctx, in, "empty archive")
	if err != nil {
		return err
	}
	defer func() { _ = empty.Kill() }()
	const clients = 32
	code := in.Bodies[0].Code
	load := bench.Load{Size: 10_000, Clients: clients, Producers: []string{code}, Duration: p.duration}
	one, two := bench.NewHTTPTarget(full.Base, full.In.Admin, true, clients), bench.NewHTTPTarget(empty.Base, in.Admin, true, clients)
	defer one.Close()
	defer two.Close()
	var series bench.Series
	before, beforeEmpty := full.processor(), empty.processor()
	ours, theirs := p.packages(ctx, full, code), p.packages(ctx, empty, code)
	c, err := bench.Compare(ctx, load, p.rounds, one, two, &series, func(int64, int64) {})
	if err != nil {
		return err
	}
	p.note("ingest 10 KB: thousandths of the empty archive's", int64(1000*c.Ratio()))
	p.note("ingest 10 KB: documents a second", int64(bench.MedianRate(c.Ours).PerSecond))
	p.note("ingest 10 KB: documents a second, empty archive", int64(bench.MedianRate(c.Yardstick).PerSecond))
	taken := p.packages(ctx, full, code) - ours
	k.bodies[0].want += int(taken)
	p.note("ingest 10 KB: µs of processor a document", (full.processor()-before).Microseconds()/max(taken, 1))
	p.note("ingest 10 KB: µs of processor a document, empty archive", (empty.processor()-beforeEmpty).Microseconds()/max(p.packages(ctx, empty, code)-theirs, 1))
	empty.memory("after ingest")
	return empty.Kill()
}

// packages is how many packages a daemon says a body has.
func (p *plan) packages(ctx context.Context, l *life, code string) int64 {
	h, err := l.Client(l.In.Admin).Status(ctx)
	if err != nil {
		return 0
	}
	for _, b := range h.Producers {
		if b.Code == code {
			return b.Packages
		}
	}
	return 0
}

// diskUse adds up the blocks of all files of a folder.
func diskUse(folder string) int64 {
	var n int64
	_ = filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				n += st.Blocks * 512
			}
		}
		return nil
	})
	return n
}
