package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/harness/rig"
)

const (
	// points is how many faults there are by default.
	points = 500
	// onceTime bounds one submission under strace. A ledger that cannot be written to is tried again and again: that
	// is no hang, and its end is a SIGKILL like any other.
	onceTime = 12 * time.Second
	// rebuiltEvery is how many faults lie between two catalogs made from scratch.
	rebuiltEvery = 10
)

// faulted are the system calls that are made to fail, each with what it may fail with besides SIGKILL. What the
// kernel does not do (an fsync that is interrupted on a disk) is not asked for.
var faulted = map[string][]string{
	"openat": {"EIO", "ENOSPC", "EINTR"}, "linkat": {"EIO", "ENOSPC"}, "mkdirat": {"EIO", "ENOSPC"}, "renameat": {"EIO", "ENOSPC"},
	"unlinkat": {"EIO"}, "fsync": {"EIO", "ENOSPC"}, "fdatasync": {"EIO", "ENOSPC"}, "ftruncate": {"EIO", "ENOSPC", "EINTR"},
	"read": {"EIO", "EINTR"}, "pread64": {"EIO", "EINTR"}, "write": {"EIO", "ENOSPC", "EINTR"}, "pwrite64": {"EIO", "ENOSPC", "EINTR"},
	"close": {"EIO"}, "fchmod": {"EIO"}, "newfstatat": {"EIO"}, "getdents64": {"EIO"}, "flock": {"EINTR"}, "fallocate": {"ENOSPC"}, "msync": {"EIO"},
}

// fault is one point: call number n of each thread, and what happens there.
type fault struct {
	call   string
	n      int
	effect string // "SIGKILL" or an errno
	spool  bool   // the store is not trusted: the spool is at work too
}

func (f fault) inject() string {
	what := "error=" + f.effect
	if f.effect == "SIGKILL" {
		what = "signal=SIGKILL"
	}
	return fmt.Sprintf("inject=%s:%s:when=%d", f.call, what, f.n)
}

// calls makes every system call of a one-shot submission fail in turn, or the process die at it, n points in all.
func calls(ctx context.Context, p *plan) error {
	if _, err := exec.LookPath("strace"); err != nil {
		return errors.New("strace is not installed: scripts/crash installs it")
	}
	program, err := rig.Build(ctx, p.cache, "crashpoints")
	if err != nil {
		return err
	}
	if p.n == 0 {
		p.n = points
	}
	r := rig.Begin(ctx, "calls", "dir", p.seed)
	c := &caller{plan: p, result: r}
	for _, spool := range []bool{false, true} {
		if err := c.template(ctx, program, spool); err != nil {
			return err
		}
	}
	if r.Planted, err = c.seesPlanted(ctx); err != nil {
		return err
	}
	all, err := c.all(ctx)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(p.seed, 2))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	r.Add("points there are", int64(len(all)))
	c.run(ctx, all)
	if err := rig.Early(ctx, nil); err != nil {
		r.Fail("%v", err)
	}
	return p.end(r)
}

// caller is one campaign.
type caller struct {
	*plan
	result *rig.Result
	base   map[bool]*rig.Book // what each point begins with a copy of, with the spool and without

	mu    sync.Mutex
	fired int
	tried int
}

// template makes the installation that each point begins with: a few documents are in it already.
func (c *caller) template(ctx context.Context, program string, spool bool) error {
	config := map[string]any{}
	if spool {
		config["store.spool.read_back"] = "24h"
	}
	in, err := rig.New(ctx, rig.Options{Program: program, Root: filepath.Join(c.scratch, fmt.Sprintf("base-%v", spool)), Store: rig.Dir(), Producers: 1, Config: config})
	if err != nil {
		return err
	}
	d, err := in.Start(ctx, nil, nil)
	if err != nil {
		return err
	}
	b := rig.NewBook(in, c.seed)
	for range 5 {
		if !b.Hand(ctx, d, b.New(rig.Load{Size: 2000})) {
			return errors.Join(errors.New("the template takes nothing"), b.Unexpected(), d.Kill())
		}
	}
	if c.base == nil {
		c.base = map[bool]*rig.Book{}
	}
	c.base[spool] = b
	return d.Stop()
}

// all lists every point: each call, each number it has in any thread of an undisturbed run, each effect.
func (c *caller) all(ctx context.Context) ([]fault, error) {
	var list []fault
	for spool := range c.base {
		most := map[string]int{}
		trace, b, s, err := c.once(ctx, "counted", spool, []string{"-e", "trace=" + strings.Join(names(), ",")}, nil)
		if err != nil {
			return nil, err
		}
		if s.Receipt() == nil {
			return nil, errors.New("an undisturbed submission is not acknowledged")
		}
		count := map[string]int{}
		for line := range strings.Lines(trace) {
			tid, rest, _ := strings.Cut(line, " ")
			call, _, ok := strings.Cut(strings.TrimSpace(rest), "(")
			if ok && faulted[call] != nil {
				count[tid+call]++
				most[call] = max(most[call], count[tid+call])
			}
		}
		for call, n := range most {
			for i := range n {
				for _, effect := range append([]string{"SIGKILL"}, faulted[call]...) {
					list = append(list, fault{call, i + 1, effect, spool})
				}
			}
		}
		if err := os.RemoveAll(b.In.Root); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b fault) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) // maps have no order
	return list, nil
}

func names() []string {
	var all []string
	for name := range faulted {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// once runs one submission under strace on a copy of the template, and notes its receipt if it was given one.
func (c *caller) once(ctx context.Context, name string, spool bool, options, env []string) (trace string, b *rig.Book, s *rig.Sent, err error) {
	base := c.base[spool]
	in, err := base.In.Copy(ctx, filepath.Join(c.scratch, name), true)
	if err != nil {
		return "", nil, nil, err
	}
	b = base.Copy(in)
	s = b.New(rig.Load{Size: 2000})
	metadata, document, err := s.Files(in.Root)
	if err != nil {
		return "", nil, nil, err
	}
	log := in.Path("trace")
	limited, stop := context.WithTimeout(ctx, onceTime)
	defer stop()
	args := append([]string{"-f", "-qq", "-o", log}, options...)
	cmd := exec.CommandContext(limited, "strace", append(args, in.Program, "once", "--dir", in.Root, s.Producer, metadata, document)...)
	cmd.Env = append(os.Environ(), env...)
	// One processor: the calls are spread over as few threads as possible, and are the same from run to run.
	cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
	cmd.WaitDelay = time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if cmd.Run() != nil { // it may well fail: what counts is what it said before
		c.result.Add("ended with an error", 1)
	}
	if limited.Err() != nil && ctx.Err() == nil {
		c.result.Add("ended by time", 1)
		killBelow(in.Root)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return "", nil, nil, fmt.Errorf("strace: %w: %s", err, said.Bytes())
	}
	if out.Len() > 0 {
		r, err := paper.ParseReceipt(out.Bytes())
		if err != nil {
			// The write of the answer itself was cut: nobody was told yes.
			c.result.Add("answers cut short", 1)
			return string(text), b, s, nil
		}
		return string(text), b, s, b.Take(s, r)
	}
	return string(text), b, s, nil
}

// killBelow ends what strace has left running on an installation: the kernel names the holder of its lock.
func killBelow(root string) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	for _, p := range procs {
		text, err := os.ReadFile(p)
		if err != nil || !bytes.Contains(text, []byte("once\x00--dir\x00"+root+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p))); err == nil {
			if process, err := os.FindProcess(pid); err == nil {
				_ = process.Kill() // it may have ended
			}
		}
	}
}

// run works through the points until enough of them have come about.
func (c *caller) run(ctx context.Context, all []fault) {
	const workers = 2
	queue := make(chan fault)
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for f := range queue {
				fired, err := c.point(ctx, f)
				c.mu.Lock()
				c.tried++
				if fired {
					c.fired++
				}
				c.mu.Unlock()
				if err != nil && ctx.Err() == nil {
					c.result.Fail("%+v: %v", f, err)
				}
			}
		})
	}
	for i := 0; ctx.Err() == nil; i++ {
		c.mu.Lock()
		enough := c.fired >= c.n || c.tried > 4*c.n
		c.mu.Unlock()
		if enough {
			break
		}
		queue <- all[i%len(all)]
	}
	close(queue)
	work.Wait()
	if c.fired < c.n {
		c.result.Fail("only %d faults came about, want %d", c.fired, c.n)
	}
}

// point makes one fault, judges what is left, and reports whether the fault came about.
func (c *caller) point(ctx context.Context, f fault) (fired bool, err error) {
	c.mu.Lock()
	n := c.tried + 1
	name := fmt.Sprintf("point-%p-%d", &fired, n)
	c.mu.Unlock()
	trace, b, s, err := c.once(ctx, name, f.spool, []string{"-e", "trace=" + f.call, "-e", f.inject()}, nil)
	if err != nil {
		return false, err
	}
	fired = strings.Contains(trace, "(INJECTED)") || f.effect == "SIGKILL" && strings.Contains(trace, "+++ killed by SIGKILL +++")
	acknowledged := s.Receipt() != nil
	if !fired {
		c.result.Add("faults that did not come about", 1)
		return false, os.RemoveAll(b.In.Root)
	}
	c.result.Add("faults", 1)
	c.result.Add("fault "+f.effect, 1)
	if acknowledged {
		c.result.Add("acknowledged all the same", 1)
	}
	if err := c.judge(ctx, b, n%rebuiltEvery == 0); err != nil {
		return true, fmt.Errorf("acknowledged %v: %w", acknowledged, err)
	}
	c.say("%-10s %3d %-8s spool %v: acknowledged %v", f.call, f.n, f.effect, f.spool, acknowledged)
	return true, os.RemoveAll(b.In.Root)
}

// judge opens the archive undisturbed and judges it.
func (c *caller) judge(ctx context.Context, b *rig.Book, whole bool) error {
	d, err := b.In.Start(ctx, nil, nil)
	if err != nil {
		return fmt.Errorf("it does not open any more: %w", err)
	}
	if _, err = b.Judge(ctx, d, 0, whole, b.In.Root); err == nil && !whole {
		_, err = b.In.Audit(ctx, d)
	}
	return errors.Join(err, d.Kill())
}

// seesPlanted lets a program that does not hear that a package could not be stored meet an error, and wants to see it; of
// a sound program that meets the same nothing must be said.
func (c *caller) seesPlanted(ctx context.Context) (string, error) {
	options := []string{"-e", "trace=linkat", "-e", "inject=linkat:error=EIO:when=1"}
	trace, b, _, err := c.once(ctx, "control", false, options, nil)
	if err != nil {
		return "", err
	}
	if !strings.Contains(trace, "(INJECTED)") {
		return "", errors.New("the link did not fail: this harness proves nothing")
	}
	if err := errors.Join(c.judge(ctx, b, false), os.RemoveAll(b.In.Root)); err != nil {
		return "", fmt.Errorf("nothing was planted, and the judge says: %w", err)
	}
	_, b, s, err := c.once(ctx, "planted", false, options, []string{"PERENNE_PLANT=deaf packages"})
	if err != nil {
		return "", err
	}
	if s.Receipt() == nil {
		return "", errors.New("the planted program acknowledged nothing: this harness proves nothing")
	}
	b.Patience = time.Second
	said := c.judge(ctx, b, false)
	if err := rig.Seen(said, rig.ErrLost); err != nil {
		return "", fmt.Errorf("a failed link is taken for done: %w", err)
	}
	line, _, _ := strings.Cut(said.Error(), "\n")
	fmt.Fprintf(os.Stderr, "planted: a link that failed is taken for done. Seen: %.200s\n", line)
	clear(c.result.Counts)
	return "a failed link that is taken for done: seen, and nothing without it", os.RemoveAll(b.In.Root)
}
