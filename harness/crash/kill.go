package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/harness/rig"
)

const (
	// acknowledgedFirst is how many submissions each life of a daemon acknowledges before it may die.
	acknowledgedFirst = 50
	// lives is how many deaths one installation sees before it is judged whole for the last time.
	lives = 20
	// wholeEvery is how many deaths lie between two judgements of everything.
	wholeEvery = 10
	// hitTime bounds how long a step may take to be reached under load.
	hitTime = 40 * time.Second
	// rounds and enough: how often and by how many submissions a rehearsal brings about everything that a daemon does,
	// full tiles in the last round.
	rounds, enough = 3, 220
	// hits is how often each step is died at, by default: what is asked for in every change.
	hits = 20
	// leastLabels is how many steps there must be at least.
	leastLabels = 26
)

// kill kills the daemon at every step it has, each as often as any other, n times in all.
func kill(ctx context.Context, p *plan) error {
	program, err := rig.Build(ctx, p.cache, "crashpoints")
	if err != nil {
		return err
	}
	r := rig.Begin(ctx, "kill", p.kind, p.seed)
	where, err := openStores(ctx, p.kind, p.scratch)
	if err != nil {
		return err
	}
	defer func() { _ = where.close() }()
	k := &killer{stores: where, plan: p, program: program, result: r, random: rand.New(rand.NewPCG(p.seed, 1)), hits: map[string]int64{}}
	if r.Planted, err = k.seesPlanted(ctx); err != nil {
		return err
	}
	if err := k.rehearse(ctx); err != nil {
		return err
	}
	if len(k.steps) < leastLabels {
		r.Fail("only %d steps were reached, want %d: %v", len(k.steps), leastLabels, k.labels)
	}
	if p.n == 0 {
		p.n = hits * len(k.steps)
	}
	const workers, tooMany = 3, 20 // much of a death is waiting: for a start, for a step
	k.left = p.n
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for ctx.Err() == nil && k.take(0) && r.Failures() < tooMany {
				if err := k.installation(ctx); err != nil && ctx.Err() == nil {
					r.Fail("%v", err)
				}
			}
		})
	}
	work.Wait()
	if err := rig.Early(ctx, nil); err != nil {
		r.Fail("%v", err)
	}
	r.Add("steps", int64(len(k.steps)))
	r.Add("labels", int64(len(k.labels)))
	r.Add("labels at start", int64(len(k.starts)))
	k.enough()
	return p.end(r)
}

// enough wants every step to have been died at as often as an equal share of what was asked for.
func (k *killer) enough() {
	if len(k.steps) == 0 {
		return
	}
	want, fewest, short := int64(k.n/len(k.steps)), int64(math.MaxInt64), []string{}
	for _, step := range slices.Sorted(maps.Keys(k.steps)) {
		n := k.hits[step]
		if fewest = min(fewest, n); n < want {
			short = append(short, fmt.Sprintf("%s %d", step, n))
		}
	}
	k.result.Add("fewest kills of a step", fewest)
	if len(short) > 0 {
		k.result.Fail("died less than %d times at: %s", want, strings.Join(short, ", "))
	}
}

// killer is one campaign.
type killer struct {
	*plan
	stores  *stores
	program string
	result  *rig.Result
	random  *rand.Rand
	labels  []string            // labels reached under load; those of a store are followed by a room of the bucket
	steps   map[string][]string // the same by their step alone
	starts  []string            // labels reached while a daemon starts
	deck    []string            // steps to come, shuffled; refilled when empty

	mu   sync.Mutex
	left int              // deaths to come
	hits map[string]int64 // deaths by step
	made int
}

var load = rig.Load{Clients: 8, RefuseEvery: 9, RetryEvery: 11}

// install makes an installation of its own, whose spool, where it has one, holds objects for so long.
func (k *killer) install(ctx context.Context, readBack string) (*rig.Book, error) {
	k.mu.Lock()
	k.made++
	made := k.made
	k.mu.Unlock()
	root := filepath.Join(k.scratch, fmt.Sprintf("p%d", made))
	store, err := k.stores.next(ctx)
	if err != nil {
		return nil, err
	}
	config := map[string]any{}
	if k.kind != "dir" {
		config["store.spool.read_back"] = readBack
	}
	in, err := rig.New(ctx, rig.Options{Program: k.program, Root: root, Store: store, Config: config})
	if err != nil {
		return nil, err
	}
	return rig.NewBook(in, k.seed+uint64(made)), nil
}

// rehearse finds out which steps there are: those of a start, also of one after a death, and those under load.
func (k *killer) rehearse(ctx context.Context) error {
	b, err := k.install(ctx, "1s")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.In.Root) }()
	seen := b.In.Path("seen")
	for round := range rounds {
		d, err := b.In.Start(ctx, []string{"PERENNE_CRASH_SEEN=" + seen}, nil)
		if err != nil {
			return err
		}
		starts, err := lines(seen)
		if err := errors.Join(err, d.Kill(), os.Remove(seen)); err != nil {
			return err
		}
		if round > 0 { // the first start makes what later ones find
			k.starts = union(k.starts, starts)
		}
		if d, err = b.In.Start(ctx, []string{"PERENNE_CRASH_SEEN=" + seen, "PERENNE_CRASH_TRIGGER=" + b.In.Path("trigger")}, nil); err != nil {
			return err
		}
		if err := os.WriteFile(b.In.Path("trigger"), nil, 0o600); err != nil {
			return err
		}
		busy := make(chan struct{})
		close(busy)
		until := b.Acked() + enough
		if err := k.work(ctx, b, d, busy, func() bool { return b.Acked() < until }); err != nil {
			return errors.Join(err, d.Kill())
		}
		labels, err := lines(seen)
		if err := errors.Join(err, d.Kill(), os.Remove(seen), os.Remove(b.In.Path("trigger"))); err != nil {
			return err
		}
		k.labels = union(k.labels, labels)
	}
	k.steps = map[string][]string{}
	for _, l := range k.labels {
		step, _, _ := strings.Cut(l, " ")
		if step == "spool.again" {
			continue // takes a store that has lost something, which a load does not bring about: the tests of storage/spool die there
		}
		k.steps[step] = append(k.steps[step], l)
	}
	fmt.Fprintf(os.Stderr, "%d steps, %d with the kinds of objects: %s\n%d of a start: %s\n", len(k.steps), len(k.labels), strings.Join(k.labels, ", "), len(k.starts), strings.Join(k.starts, ", "))
	return nil
}

// work runs the load while more says so and the daemon lives. Once busy is closed audits and copies are made beside it.
func (k *killer) work(ctx context.Context, b *rig.Book, d *rig.Daemon, busy <-chan struct{}, more func() bool) error {
	ctx, stop := context.WithTimeout(ctx, 2*hitTime)
	defer stop()
	go func() {
		select {
		case <-busy:
		case <-ctx.Done():
		}
		for ctx.Err() == nil && !d.Ended() {
			beside(ctx, b, d)
		}
	}()
	go func() {
		defer stop()
		for ctx.Err() == nil && !d.Ended() && more() {
			time.Sleep(2 * time.Millisecond)
		}
	}()
	b.Run(ctx, load, d)
	return b.Unexpected()
}

// beside does what clients do that are no document systems: an audit, and a copy. A daemon that dies meanwhile
// answers nothing.
func beside(ctx context.Context, b *rig.Book, d *rig.Daemon) {
	all := rig.Acknowledged(b.All())
	if len(all) == 0 {
		time.Sleep(5 * time.Millisecond)
		return
	}
	s := all[len(all)-1]
	c := d.Client(b.In.Admin)
	if !s.Refused {
		_ = c.Retrieve(ctx, s.Producer, s.ID(), "prova", discard{}, nil)
	}
	_, _, _ = c.Audit(ctx, web.AuditRequest{Producer: s.Producer, IDs: []string{s.ID()}}, nil)
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// take takes n of the deaths to come, if there are any.
func (k *killer) take(n int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left <= 0 {
		return false
	}
	k.left -= n
	return true
}

// draw is a random number below n.
func (k *killer) draw(n int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.random.IntN(n)
}

// next is the next step to die at.
func (k *killer) next() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.deck) == 0 {
		k.deck = slices.Sorted(maps.Keys(k.steps))
		k.random.Shuffle(len(k.deck), func(i, j int) { k.deck[i], k.deck[j] = k.deck[j], k.deck[i] })
	}
	of := k.steps[k.deck[0]]
	k.deck = k.deck[1:]
	return of[k.random.IntN(len(of))]
}

// installation lets one installation die again and again and judges it after each death.
func (k *killer) installation(ctx context.Context) (err error) {
	b, err := k.install(ctx, "1s")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(b.In.Root)
		}
	}()
	from := 0 // what was judged before
	for deaths := 1; deaths <= lives && ctx.Err() == nil && k.take(1); deaths++ {
		label := k.next()
		d, err := b.In.Start(ctx, k.armed(b, label, b.In.Path("trigger")), nil)
		if err != nil {
			return fmt.Errorf("start: %w", err)
		}
		if err := k.judge(ctx, b, d, from, deaths%wholeEvery == 0); err != nil {
			return errors.Join(fmt.Errorf("before the death at %s: %w", label, err), d.Kill())
		}
		from = len(b.All())
		if err := k.die(ctx, b, d, label); err != nil {
			return errors.Join(err, d.Kill())
		}
		if k.draw(3) == 0 {
			if err := k.dieAtStart(ctx, b); err != nil {
				return err
			}
		}
	}
	d, err := b.In.Start(ctx, nil, nil)
	if err != nil {
		return err
	}
	if err := k.judge(ctx, b, d, 0, true); err != nil {
		return errors.Join(err, d.Kill())
	}
	k.result.Add("acknowledged", b.Acked())
	return d.Stop()
}

// armed is the environment of a daemon that will die at label once the trigger is there.
func (k *killer) armed(b *rig.Book, label, trigger string) []string {
	return []string{
		"PERENNE_CRASH=" + label, "PERENNE_CRASH_TRIGGER=" + trigger, "PERENNE_CRASH_HIT=" + b.In.Path("hit"),
		fmt.Sprintf("PERENNE_CRASH_AFTER=%d", k.draw(3)),
	}
}

func (k *killer) judge(ctx context.Context, b *rig.Book, d *rig.Daemon, from int, whole bool) error {
	orphans, err := b.Judge(ctx, d, from, whole, b.In.Root)
	k.result.Add("judged", 1)
	if whole {
		k.result.Add("judged whole", 1)
		k.result.Add("orphans listed", orphans)
	}
	return err
}

// die loads the daemon, lets it die, and wants proof that it died where it was told to.
func (k *killer) die(ctx context.Context, b *rig.Book, d *rig.Daemon, label string) error {
	first := b.Acked()
	trigger, began := b.In.Path("trigger"), time.Now()
	busy, allowed := make(chan struct{}), false
	err := k.work(ctx, b, d, busy, func() bool {
		if !allowed && b.Acked() >= first+acknowledgedFirst {
			allowed = true
			close(busy)
			_ = os.WriteFile(trigger, nil, 0o600) // if it cannot be written nothing dies, which is said below
		}
		return time.Since(began) < hitTime
	})
	if err != nil {
		return fmt.Errorf("under load, to die at %s: %w", label, err)
	}
	if err := k.proved(b, d, label); err != nil {
		return fmt.Errorf("%w, after %d acknowledgements", err, b.Acked()-first)
	}
	k.say("%-24s killed after %d acknowledgements, %.2f s", label, b.Acked()-first, time.Since(began).Seconds())
	k.result.Add("kills", 1)
	step, _, _ := strings.Cut(label, " ")
	k.mu.Lock()
	k.hits[step]++
	k.mu.Unlock()
	return os.Remove(trigger)
}

// proved wants the daemon to be dead, by SIGKILL, at label.
func (k *killer) proved(b *rig.Book, d *rig.Daemon, label string) error {
	if !d.Killed(5 * time.Second) {
		return fmt.Errorf("%s was not reached", label)
	}
	hit, err := lines(b.In.Path("hit"))
	if err != nil || len(hit) != 1 || hit[0] != label {
		return fmt.Errorf("it died, but not at %s: %q, %w", label, hit, err)
	}
	return os.Remove(b.In.Path("hit"))
}

// dieAtStart lets the next daemon die while it recovers from the death before.
func (k *killer) dieAtStart(ctx context.Context, b *rig.Book) error {
	label := k.starts[k.draw(len(k.starts))]
	d, err := b.In.Start(ctx, []string{"PERENNE_CRASH=" + label, "PERENNE_CRASH_HIT=" + b.In.Path("hit")}, nil)
	switch {
	case err == nil:
		// What there is to recover differs from death to death: a start need not come by every step.
		k.result.Add("starts that did not come by their step", 1)
		return d.Kill()
	case !errors.Is(err, rig.ErrDied):
		return err
	}
	if err := k.proved(b, d, label); err != nil {
		return fmt.Errorf("at a start: %w: %s", err, d.Tail())
	}
	k.say("%-28s killed at a start", label)
	k.result.Add("kills at start", 1)
	return nil
}

func lines(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	return strings.Split(strings.TrimSpace(string(text)), "\n"), err
}

func union(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

// seesPlanted lets daemons die that acknowledge what their store does not have yet, and wants that to be seen; of sound
// ones, that die in the same place, nothing must be said.
func (k *killer) seesPlanted(ctx context.Context) (string, error) {
	for _, c := range []struct {
		room string // "" is the control
		want error
	}{{"", nil}, {"ledger", rig.ErrRolledBack}, {"packages", rig.ErrLost}} {
		said, err := k.planted(ctx, c.room)
		switch {
		case err != nil:
			return "", err
		case c.want == nil && said != nil:
			return "", fmt.Errorf("nothing was planted, and the judge says: %w", said)
		case c.want == nil:
			continue
		}
		if err := rig.Seen(said, c.want); err != nil {
			return "", fmt.Errorf("acknowledged before an object of %s is stored: %w", c.room, err)
		}
		fmt.Fprintf(os.Stderr, "planted: acknowledged before an object of %s is stored. Seen: %.160s\n", c.room, said)
	}
	clear(k.hits)
	clear(k.result.Counts)
	return "acknowledgements before a commit, and before a package, is stored: both seen, and nothing without them", nil
}

// planted lets one daemon die that is hasty with a room, or with none, and returns what the judge says of it.
func (k *killer) planted(ctx context.Context, room string) (said, err error) {
	b, err := k.install(ctx, "0s") // with a spool it would be no bug: nothing is lost
	if err != nil {
		return nil, err
	}
	env := k.armed(b, "committed", b.In.Path("trigger"))
	if room != "" {
		env = append(env, "PERENNE_PLANT=hasty "+room)
	}
	d, err := b.In.Start(ctx, env, nil)
	if err != nil {
		return nil, err
	}
	if err := k.die(ctx, b, d, "committed"); err != nil {
		return nil, errors.Join(err, d.Kill())
	}
	if d, err = b.In.Start(ctx, nil, nil); err != nil {
		return nil, err
	}
	if room != "" {
		b.Patience = time.Second
	}
	_, said = b.Judge(ctx, d, 0, false, b.In.Root)
	_, audited := b.In.Audit(ctx, d)
	return errors.Join(said, audited), errors.Join(d.Kill(), os.RemoveAll(b.In.Root))
}
