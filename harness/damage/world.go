package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
)

// world is an archive on the embedded store that is damaged over and over: a copy of a settled one, made anew now and
// then, since every audit adds its report.
type world struct {
	s       *scene
	keys    archivetest.Keys
	settled string // folder of the archive that copies are made of
	*files
	wrap func(*dir.Store) storage.Store // nil: the store as it is

	bench   *archivetest.Bench
	archive *archive.Archive // nil while it is closed
	full    int64            // full tiles that there are: an opening archive puts them again
	store   *dir.Store
}

// newWorld settles two archives, the second of other keys.
func newWorld(ctx context.Context, s *scene, random *rand.Rand, packages int) (*world, error) {
	w := &world{s: s, settled: filepath.Join(s.folder, "settled"), files: &files{root: filepath.Join(s.folder, "w", "store"), random: random}}
	w.twin = filepath.Join(s.folder, "twin", "store")
	for _, at := range []string{filepath.Join(s.folder, "twin"), w.settled} {
		if err := os.MkdirAll(at, 0o755); err != nil {
			return nil, err
		}
		store, err := dir.Open(filepath.Join(at, "store"), dir.Options{Immutable: dir.Off})
		if err != nil {
			return nil, err
		}
		b := archivetest.New(s, store)
		w.keys, b.State = b.Keys(), filepath.Join(at, "state")
		if err := settle(ctx, b, packages); err != nil {
			return nil, err
		}
		if w.census, err = take(ctx, store); err == nil {
			err = w.whole()
		}
		if err != nil {
			return nil, err
		}
		w.full = int64(len(w.of["entry bundle"]))
		if err := store.Close(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// reset makes the archive anew, and opens it.
func (w *world) reset(ctx context.Context) error {
	if err := w.shut(); err != nil {
		return err
	}
	at := filepath.Dir(w.root)
	if err := os.RemoveAll(at); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", w.settled, at).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the archive: %w: %s", err, out)
	}
	return w.open()
}

func (w *world) open() (err error) {
	if w.store, err = dir.Open(w.root, dir.Options{Immutable: dir.Off}); err != nil {
		return err
	}
	var store storage.Store = w.store
	if w.wrap != nil {
		store = w.wrap(w.store)
	}
	w.bench = archivetest.Attach(w.s, store, filepath.Join(filepath.Dir(w.root), "state"), w.keys)
	if w.archive, err = w.bench.Open(); err != nil {
		return err
	}
	return tiled(w.archive, w.full)
}

func (w *world) shut() error {
	if w.archive == nil {
		return nil
	}
	w.bench.Close(w.archive)
	w.archive = nil
	w.s.ends = w.s.ends[:slices.IndexFunc(append(w.s.ends, nil), func(f func()) bool { return f == nil })]
	return w.store.Close()
}

// wound does a damage chosen by chance, of a kind chosen by chance, or of the kind and in the way given. wide says
// whether it may hurt many at once.
func (f *files) wound(kind string, wide bool, only ...string) (*wound, error) {
	for tries := 0; ; tries++ {
		k := kind
		if k == "" || tries > 200 && len(only) == 0 { // all of the kind may be hurt already
			k = kinds[f.random.IntN(len(kinds))]
			if k == "commit" && len(f.taken) > 0 {
				continue // a commit is hurt alone
			}
		}
		by := ways[f.random.IntN(len(ways))]
		if by.wide != wide || len(only) > 0 && !slices.Contains(only, by.name) {
			continue
		}
		key := f.pick(f.of[k], "")
		if key == "" || f.taken[key] {
			continue
		}
		done, err := by.do(f, key)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", by.name, key, err)
		}
		if done == nil {
			continue // it makes no sense for this object
		}
		done.kind, done.how = k, by.name
		f.taken[key] = true
		for _, touched := range append(slices.Clone(done.must), done.orphans...) {
			f.taken[touched] = true
		}
		return done, nil
	}
}

// onFiles damages the embedded store.
func onFiles(ctx context.Context, p *plan, r *rig.Result) (err error) {
	defer caught(&err)
	s := &scene{folder: p.scratch}
	defer s.end()
	random := rand.New(rand.NewPCG(p.seed, 1))
	w, err := newWorld(ctx, s, random, 16)
	if err != nil {
		return err
	}
	r.Add("objects", int64(len(w.all())))
	if r.Planted, err = w.planted(ctx); err != nil {
		return fmt.Errorf("planted: %w", err)
	}
	const life = 25 // rounds of one copy
	dirty := true
	for round := 0; r.Counts["damages"] < int64(p.n); round++ {
		if dirty || round%life == 0 {
			if err := w.reset(ctx); err != nil {
				return err
			}
		}
		if dirty, err = w.round(ctx, p, r); err != nil {
			return err
		}
	}
	return w.shut()
}

func (w *world) all() []string { return w.census.keys }

// others are the kinds but commits. A commit is hurt alone: what it says, and what rests on it, is not known then.
var others = slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return k == "commit" })

// round damages, has all bodies audited, undoes, and now and then has them audited again. dirty says that the archive is
// of no further use.
func (w *world) round(ctx context.Context, p *plan, r *rig.Result) (dirty bool, err error) {
	w.taken = map[string]bool{}
	wide, cold := w.random.IntN(25) == 0, w.random.IntN(6) == 0
	var wounds []*wound
	if cold {
		if err := w.shut(); err != nil {
			return true, err
		}
	}
	for n := 1 + w.random.IntN(5); n > 0; n-- {
		kind := ""
		if len(wounds) > 0 || cold {
			kind = others[w.random.IntN(len(others))]
		}
		if cold && (kind == "tile" || kind == "entry bundle") { // an opening ledger makes them again before anybody looks
			kind = "seal"
		}
		if cold && len(wounds) == 0 && w.random.IntN(8) == 0 {
			kind = "commit"
		}
		done, err := w.wound(kind, wide)
		if err != nil {
			return true, err
		}
		p.say("%s (cold %v)", done, cold)
		wounds = append(wounds, done)
		if wide || done.hurtsKind("commit") || done.kind == "commit" {
			break
		}
	}
	if cold {
		if err := w.open(); err != nil {
			return true, err
		}
	}
	j, err := judge(ctx, in(w.archive), wounds)
	if err != nil {
		return true, err
	}
	for _, done := range wounds {
		r.Add("damages", 1)
		r.Add("of kind "+done.kind, 1)
		r.Add("way: "+done.how, 1)
		if len(done.must) == 0 {
			r.Add("of these harmless", 1)
		}
	}
	if cold {
		r.Add("audits by an archive opened afterwards", j.audits)
	}
	if note(r, j, fmt.Sprintf("%v (cold %v)", wounds, cold)) {
		return true, nil
	}
	// An archive that met a damaged commit as it opened has a producer that stands still until somebody restarts it.
	if wide || cold && wounds[0].hurtsKind("commit") {
		return true, nil
	}
	for _, done := range slices.Backward(wounds) {
		if err := done.undo(); err != nil {
			return true, fmt.Errorf("undo %s: %w", done, err)
		}
	}
	if w.random.IntN(4) > 0 {
		return false, nil
	}
	if j, err = whole(ctx, in(w.archive)); err != nil {
		return true, err
	}
	r.Add("good again after undoing", 1)
	return note(r, j, fmt.Sprintf("after undoing %v", wounds)), nil
}

// note counts a judgement, and reports whether anything was wrong.
func note(r *rig.Result, j *judgement, what string) bool {
	r.Add("audits", j.audits)
	r.Add("missed", int64(len(j.missed)))
	r.Add("invented", int64(len(j.invented)))
	if !j.fine() {
		r.Fail("%s: missed %s; invented %s", what, strings.Join(j.missed, " | "), strings.Join(j.invented, " | "))
	}
	return !j.fine()
}

// blind is a store as an audit sees it that does not look: where skips says so it gives what was there before.
type blind struct {
	*dir.Store
	before *dir.Store
	skips  func(ctx context.Context, s *blind, key string) bool
}

func (b *blind) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	if b.skips(ctx, b, key) {
		if r, err := b.before.Get(ctx, key, version, offset, n); err == nil {
			return r, nil
		}
	}
	return b.Store.Get(ctx, key, version, offset, n)
}

// planted shows that an audit with a bug is seen, and says with which.
func (w *world) planted(ctx context.Context) (string, error) {
	before, err := dir.Open(filepath.Join(w.settled, "store"), dir.Options{Immutable: dir.Off})
	if err != nil {
		return "", err
	}
	defer func() { _ = before.Close(); w.wrap = nil }()
	plant := func(name, kind string, skips func(context.Context, *blind, string) bool) error {
		var sound atomic.Bool
		w.wrap = func(s *dir.Store) storage.Store {
			return &blind{s, before, func(ctx context.Context, b *blind, key string) bool { return !sound.Load() && skips(ctx, b, key) }}
		}
		if err := w.reset(ctx); err != nil {
			return err
		}
		w.taken = map[string]bool{}
		done, err := w.wound(kind, false, "flip a bit")
		if err != nil {
			return err
		}
		j, err := judge(ctx, in(w.archive), []*wound{done})
		if err == nil {
			err = j.misses(done)
		}
		if err != nil {
			return fmt.Errorf("an audit %s: %w", name, err)
		}
		sound.Store(true) // the control: the same archive, and an audit that looks
		if j, err = judge(ctx, in(w.archive), []*wound{done}); err != nil {
			return err
		}
		return j.sound(done)
	}
	for _, kind := range kinds {
		if kind == "record" {
			continue // nothing is held against them
		}
		if err := plant("that skips every "+kind, kind, func(_ context.Context, _ *blind, key string) bool { return kindOf(key) == kind }); err != nil {
			return "", err
		}
	}
	sizes := func(ctx context.Context, b *blind, key string) bool {
		is, err1 := b.Stat(ctx, key)
		was, err2 := b.before.Stat(ctx, key)
		return err1 == nil && err2 == nil && is.Size == was.Size
	}
	if err := plant("that believes sizes", "package", sizes); err != nil {
		return "", err
	}
	if err := w.invention(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("an audit that skips one kind of object (%d kinds), that believes sizes, that accuses what is whole; none without", len(kinds)-1), nil
}

// invention shows that an audit is seen that accuses what nobody touched: one of a store that was hurt without the
// judge's knowledge.
func (w *world) invention(ctx context.Context) error {
	w.wrap = nil
	if err := w.reset(ctx); err != nil {
		return err
	}
	w.taken = map[string]bool{}
	done, err := w.wound("package", false, "flip a bit")
	if err != nil {
		return err
	}
	j, err := judge(ctx, in(w.archive), nil)
	if err == nil {
		err = j.accuses(done)
	}
	return err
}
