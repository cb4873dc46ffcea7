package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/storage"
)

func TestACrashAtAnyStepLosesAndDoublesNothing(t *testing.T) {
	for _, label := range []string{"commit.put.before", "commit.put.after", "commit.mark.after", "commit.applied"} {
		for _, forget := range []bool{false, true} {
			t.Run(fmt.Sprint(label, " index lost ", forget), func(t *testing.T) {
				store := newBucket(t)
				d := newDaemon(t, store)
				var armed atomic.Bool
				reached, over := make(chan struct{}), make(chan struct{})
				t.Cleanup(func() { close(over) })
				d.change = func(c *Config) {
					c.Crash = func(at string) {
						if at == label && armed.Load() {
							close(reached)
							<-over // dead: nothing of this process happens any more
							runtime.Goexit()
						}
					}
				}
				l, err := Open(context.Background(), d.config())
				if err != nil {
					t.Fatal(err)
				}
				mustAppend(t, l, "before")
				armed.Store(true)
				go l.Append(context.Background(), Pending{Entry: sealed("during")})
				<-reached
				d.change = nil
				if forget {
					d.forget()
				}
				l = d.mustOpen()
				// The client tries again, and is told when it was in.
				again := errors.New("already there")
				_, err = l.Append(context.Background(), Pending{Entry: sealed("during"), Decide: func(context.Context) error {
					if slices.Contains(d.ids(), "during") {
						return again
					}
					return nil
				}})
				if (label == "commit.put.before") != (err == nil) {
					t.Errorf("retry: got %v", err)
				}
				if got, want := d.ids(), []string{"before", "during"}; !slices.Equal(got, want) {
					t.Errorf("got %v want %v", got, want)
				}
				checkAll(t, d, 2)
			})
		}
	}
}

func TestABucketBehindTheMarkIsARollback(t *testing.T) {
	for _, c := range []struct{ keep, found int64 }{{3, 2}, {1, 0}, {0, -1}} {
		d := newDaemon(t, newBucket(t))
		l := d.mustOpen()
		mustAppend(t, l, names("n", 5)...)
		l.Close()
		for n := c.keep; n < 5; n++ {
			d.store.swap(Key(producer, n), nil)
		}
		var r *Rollback
		if _, err := d.open(); !errors.As(err, &r) || r.Mark != 4 || r.Found != c.found || r.Producer != producer {
			t.Errorf("first %d kept: got %v want a rollback from 4 to %d", c.keep, err, c.found)
		}
		for _, key := range d.store.Keys() {
			if strings.Contains(key, "/ledger/") && key >= Key(producer, c.keep) {
				t.Errorf("something was written after the rollback: %s", key)
			}
		}
	}
}

func TestWithoutAMarkABucketIsTrustedOnlyWhenAskedTo(t *testing.T) {
	store := newBucket(t)
	mustAppend(t, newDaemon(t, store).mustOpen(), names("n", 5)...)
	d := newDaemon(t, store)
	if _, err := d.open(); !errors.Is(err, ErrNoMark) {
		t.Fatalf("got %v want ErrNoMark", err)
	}
	d.change = func(c *Config) { c.TrustBucketHead = true }
	l := d.mustOpen()
	if l.Head().Number != 5 {
		t.Fatalf("got head %d want 5", l.Head().Number)
	}
	e, err := l.Entry(context.Background(), 5)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseEntry(e.Line); err != nil || got.Type != TrustedHead || *got.Commit != 4 || len(got.Previous) != 64 {
		t.Errorf("got %s, %v want head.trusted of commit 4", e.Line, err)
	}
	l.Close()
	l = d.mustOpen() // the flag does nothing once there is a mark
	if l.Head().Number != 5 {
		t.Errorf("opened again: got head %d want 5", l.Head().Number)
	}
	if len(d.applied) != 6 {
		t.Errorf("got %d commits applied want 6", len(d.applied))
	}
}

func TestTrustThatWasNotRecordedIsAskedForAgain(t *testing.T) {
	store := newBucket(t)
	mustAppend(t, newDaemon(t, store).mustOpen(), "a")
	d := newDaemon(t, store)
	d.change = func(c *Config) { c.TrustBucketHead, c.Signer = true, nil }
	reader := d.mustOpen()
	if reader.Head().Number != 0 {
		t.Errorf("reader: got head %d want 0", reader.Head().Number)
	}
	d.change = nil
	if _, err := d.open(); !errors.Is(err, ErrNoMark) {
		t.Errorf("after a reader: got %v want ErrNoMark", err)
	}
}

func TestFullTilesAreThoseTheBucketHas(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	for i := range 4 {
		together(t, l, names(fmt.Sprint("n", i, "-"), 200)...)
	}
	waitFor(t, func() bool { full, _ := l.Tiled(); return full == 3 })
	var got, want []string
	for _, tile := range FullTiles(l.Head().Size) {
		want = append(want, TileKey(producer, tile))
	}
	for _, key := range d.store.Keys() {
		if strings.Contains(key, "/tiles/") {
			got = append(got, key)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v want %v", got, want)
	}
	if n := len(FullTiles(256*256 + 5)); n != 256+256+1 {
		t.Errorf("of 65,541 entries: got %d tiles want 513", n)
	}
}

func TestABucketWithoutLedgerButWithObjectsIsNotEmpty(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	d.store.swap(producer+"/packages/aa/x.asice", []byte("x"))
	if _, err := d.open(); !errors.Is(err, ErrNoMark) {
		t.Fatalf("got %v want ErrNoMark", err)
	}
	empty := newDaemon(t, newBucket(t))
	empty.mustOpen().Close()
	empty.store.swap(producer+"/packages/aa/x.asice", []byte("x"))
	mustAppend(t, empty.mustOpen(), "a") // an orphan of a first submission that crashed
}

func TestAnotherCommitUnderTheMarkIsAFork(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, "a")
	twin := newDaemon(t, d.store.clone())
	twin.change = func(c *Config) { c.TrustBucketHead = true }
	mustAppend(t, l, "b")
	l.Close()
	mustAppend(t, twin.mustOpen(), "c")
	d.store.swap(Key(producer, 1), twin.store.Bytes(Key(producer, 1)))
	var fork *Fork
	if _, err := d.open(); !errors.As(err, &fork) || fork.Number != 1 || len(fork.Evidence) != 1 {
		t.Errorf("got %v want a fork at 1", err)
	}
}

func TestDamageToTheMarkedCommitIsNoFork(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, "a", "b")
	l.Close()
	key := Key(producer, 1)
	good := d.store.Bytes(key)
	for i := 0; i < len(good)*8; i += 5 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		d.store.swap(key, bad)
		var damage *Damage
		if _, err := d.open(); !errors.As(err, &damage) || damage.Key != key {
			t.Fatalf("bit %d of byte %d: got %v want damage under %s", i%8, i/8, err, key)
		}
	}
	d.store.swap(key, good)
	d.mustOpen()
}

func TestDamageBehindTheMarkIsNoFork(t *testing.T) {
	store := newBucket(t)
	d, other := newDaemon(t, store), newDaemon(t, store)
	mustAppend(t, d.mustOpen(), "a")
	other.change = func(c *Config) { c.TrustBucketHead = true }
	l := other.mustOpen()
	ours := d.mustOpen()
	mustAppend(t, l, "b")
	if err := ours.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "c")
	key := Key(producer, l.Head().Number)
	good := store.Bytes(key)
	for i := 0; i < len(good)*8; i += 5 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		store.swap(key, bad)
		var damage *Damage
		if err := ours.Refresh(context.Background()); !errors.As(err, &damage) || damage.Key != key {
			t.Fatalf("bit %d of byte %d: got %v want damage under %s", i%8, i/8, err, key)
		}
	}
	store.swap(key, good)
	if err := ours.Refresh(context.Background()); err != nil || ours.Head() != l.Head() {
		t.Errorf("restored: got %+v, %v want %+v", ours.Head(), err, l.Head())
	}
}

func TestTheVersionTheMarkNamesCountsAmongSeveral(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, "a", "b")
	l.Close()
	d.store.Plant(Key(producer, 0), []byte("an overwriting"))
	d.store.Plant(Key(producer, 1), []byte("an overwriting"))
	d.forget()
	mustAppend(t, d.mustOpen(), "c")
}

func TestNothingIsWrittenOverADeletedCommit(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, "a")
	l.Close()
	sound := d.store.Snapshot()
	for name, spoil := range map[string]func(b *bucket){
		"a marker at the next number": func(b *bucket) { b.Marker(Key(producer, 1)) },
		"a commit behind a gap":       func(b *bucket) { b.swap(Key(producer, 3), []byte("x")) },
		"a marker over something unsigned": func(b *bucket) {
			b.swap(Key(producer, 1), []byte("x"))
			b.Marker(Key(producer, 1))
		},
	} {
		d.store.Rollback(sound)
		spoil(d.store)
		var damage *Damage
		if _, err := d.open(); !errors.As(err, &damage) || damage.Key != Key(producer, 1) {
			t.Errorf("%s: got %v want damage at commit 1", name, err)
		}
	}
	d.store.Rollback(sound)
	d.mustOpen()
}

func TestALostOrDamagedIndexIsMadeAgain(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	for i := range 6 {
		together(t, l, names(fmt.Sprint("n", i, "-"), 100)...)
	}
	waitFor(t, func() bool { full, _ := l.Tiled(); return full == 2 })
	want, err := l.Proof(context.Background(), 300)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	index := func(name string) string { return filepath.Join(d.state, "index", name) }
	spoil := map[string]func(){
		"deleted":         d.forget,
		"hashes deleted":  func() { os.Remove(index("hashes")) },
		"commits deleted": func() { os.Remove(index("commits")) },
		"hashes cut":      func() { os.Truncate(index("hashes"), 1000) },
		"commits cut":     func() { os.Truncate(index("commits"), 50) },
	}
	for i := range 12 {
		spoil[fmt.Sprint("bits flipped ", i)] = func() {
			for _, name := range []string{"hashes", "commits"} {
				b, err := os.ReadFile(index(name))
				if err != nil {
					t.Fatal(err)
				}
				for range 1 + len(b)/500 {
					b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
				}
				if err := os.WriteFile(index(name), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, bundles := range []bool{true, false} {
		if !bundles {
			for _, key := range d.store.Keys() {
				if strings.Contains(key, "/tiles/") {
					d.store.swap(key, nil)
				}
			}
			d.change = func(c *Config) { c.Signer = nil } // which would write them again
		}
		for name, spoil := range spoil {
			spoil()
			l, err := d.open()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got, err := l.Proof(context.Background(), 300); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: got another proof, %v", name, err)
			}
			for i := int64(0); i < 600; i += 13 {
				if _, err := l.Proof(context.Background(), i); err != nil {
					t.Errorf("%s: proof %d: %v", name, i, err)
				}
			}
			if _, err := l.Consistency(context.Background(), 77, 533); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := l.EntryBundle(context.Background(), 2, 80); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			l.Close()
		}
	}
}

// TestTheIndexVouchesForNoDigest zeroes records of commits, in runs, among void numbers too.
func TestTheIndexVouchesForNoDigest(t *testing.T) {
	store := newBucket(t)
	d := newDaemon(t, store)
	l := d.mustOpen()
	mustAppend(t, l, names("a", 3)...)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	garbage(d, 3, 2)
	if err := Void(t.Context(), d.config(), 3); err != nil {
		t.Fatal(err)
	}
	l = d.mustOpen()
	mustAppend(t, l, names("b", 5)...)
	last := l.Head().Number
	want := make([][32]byte, last+1)
	for n := range want {
		want[n] = sha256.Sum256(store.Bytes(Key(producer, int64(n))))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.state, "index", "commits")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range [][2]int64{{0, 1}, {1, 2}, {4, 5}, {6, 9}, {0, last}} {
		hurt := slices.Clone(whole)
		clear(hurt[run[0]*recordSize : run[1]*recordSize])
		if err := os.WriteFile(path, hurt, 0o600); err != nil {
			t.Fatal(err)
		}
		l, cause, err := Stand(t.Context(), d.config())
		if err != nil || cause != nil {
			t.Fatalf("records %v: %v, %v", run, cause, err)
		}
		for n := last; n >= 0; n-- {
			got, err := l.Digest(t.Context(), n)
			if err != nil || got != want[n] {
				t.Errorf("records %v: commit %d: got %x, %v want %x", run, n, got[:4], err, want[n][:4])
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBundlesStandInForACommitThatIsDamaged(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	for i := range 4 {
		together(t, l, names(fmt.Sprint("n", i, "-"), 100)...)
	}
	waitFor(t, func() bool { full, _ := l.Tiled(); return full == 1 })
	l.Close()
	key := Key(producer, 1)
	b := d.store.Bytes(key)
	b[len(b)/2] ^= 1
	d.store.swap(key, b)
	d.forget()
	l = d.mustOpen()
	var damage *Damage
	if _, err := l.Commit(context.Background(), 1); !errors.As(err, &damage) || damage.Key != key {
		t.Errorf("the commit: got %v want damage", err)
	}
	if _, err := l.Proof(context.Background(), l.Head().Size-1); err != nil {
		t.Errorf("a proof of another: %v", err)
	}
}

func TestTheCommitAtFaultIsNamedAndNotItsNeighbour(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	for i := range 4 {
		together(t, l, names(fmt.Sprint("n", i, "-"), 100)...)
	}
	waitFor(t, func() bool { full, _ := l.Tiled(); return full == 1 })
	l.Close()
	key := Key(producer, 2)
	b := d.store.Bytes(key)
	digest := bytes.Index(b, fmt.Appendf(nil, "%x", d.applied[1].SHA256))
	b[digest] = "10"[min(1, b[digest]&1)] // of the commit before
	if b[digest] == d.store.Bytes(key)[digest] {
		b[digest] = '2'
	}
	d.store.swap(key, b)
	d.forget()
	l = d.mustOpen()
	for _, n := range []int64{1, 2} {
		var damage *Damage
		if _, err := l.Commit(context.Background(), n); !errors.As(err, &damage) || damage.Key != key {
			t.Errorf("commit %d: got %v want damage under %s", n, err, key)
		}
	}
}

func TestAnIndexThatIsBehindIsCarriedOn(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, names("n", 10)...)
	l.Close()
	if err := os.Truncate(filepath.Join(d.state, "index", "commits"), 7*recordSize); err != nil {
		t.Fatal(err)
	}
	d.store.gets = 0
	d.mustOpen()
	if d.store.gets > 10 {
		t.Errorf("got %d reads, want about one for each of the 3 commits lacking", d.store.gets)
	}
}

func TestCommitsAreAppliedFromWhereTheCatalogIs(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, names("n", 10)...)
	l.Close()
	for _, have := range []int{0, 1, 9, 10} {
		d.applied = d.applied[:have]
		d.mustOpen().Close()
		if got, want := d.ids(), names("n", 10); !slices.Equal(got, want) {
			t.Errorf("from %d: got %v want %v", have, got, want)
		}
	}
	d.change = func(c *Config) { c.AppliedTo = 10 }
	if _, err := d.open(); !errors.Is(err, ErrAhead) {
		t.Errorf("a catalog from elsewhere: got %v want ErrAhead", err)
	}
}

func TestACommitSwappedForAnOlderOneIsNotApplied(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, names("n", 5)...)
	l.Close()
	d.store.swap(Key(producer, 2), d.store.Bytes(Key(producer, 1)))
	d.applied = nil
	var damage *Damage
	if _, err := d.open(); !errors.As(err, &damage) && !errors.Is(err, ErrCommit) {
		t.Errorf("got %v want damage", err)
	}
}

func TestAWrongConfigurationIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"producer":          func(c *Config) { c.Producer = "a/b" },
		"origin":            func(c *Config) { c.Origin = "elsewhere" },
		"signer's name":     func(c *Config) { c.Origin = "other.example/" + producer },
		"unknown signer":    func(c *Config) { c.Signer, _ = keys(t, 5) },
		"no store":          func(c *Config) { c.Store = nil },
		"no clock":          func(c *Config) { c.Now = nil },
		"no room in commit": func(c *Config) { c.MaxBytes = MaxLine },
	} {
		d := newDaemon(t, newBucket(t))
		d.change = spoil
		if _, err := d.open(); err == nil {
			t.Errorf("%s: the configuration was accepted", name)
		}
	}
}

func TestTilesAreThoseOfTheTree(t *testing.T) {
	ctx := context.Background()
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	for i := range 3 {
		together(t, l, names(fmt.Sprint("n", i, "-"), 200)...)
	}
	waitFor(t, func() bool { full, _ := l.Tiled(); return full == 2 })
	tree := tlog.Tree{N: l.Head().Size, Hash: l.Head().Root}
	reader := tlog.TileHashReader(tree, tiles{l})
	for i := range int64(600) {
		e, err := l.Entry(ctx, i)
		if err != nil {
			t.Fatal(err)
		}
		p, err := tlog.ProveRecord(tree.N, i, reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(p, tree.N, tree.Hash, i, Leaf(e.Line)); err != nil {
			t.Errorf("entry %d through tiles: %v", i, err)
		}
	}
	for n := range int64(2) {
		stored := d.store.Bytes(TileKey(producer, bundle(n, 256)))
		served, err := l.EntryBundle(ctx, n, 256)
		if err != nil || !bytes.Equal(stored, served) {
			t.Errorf("bundle %d: served and stored differ, %v", n, err)
		}
		hashes, err := l.Tile(ctx, tlog.Tile{L: 0, N: n, W: 256})
		if err != nil || !bytes.Equal(d.store.Bytes(TileKey(producer, tlog.Tile{L: 0, N: n, W: 256})), hashes) {
			t.Errorf("tile %d: served and stored differ, %v", n, err)
		}
		d.store.swap(TileKey(producer, bundle(n, 256)), []byte("damaged"))
		if again, err := l.EntryBundle(ctx, n, 256); err != nil || !bytes.Equal(again, served) {
			t.Errorf("bundle %d without its object: %v", n, err)
		}
	}
	if _, err := l.Tile(ctx, tlog.Tile{L: 0, N: 2, W: 89}); !errors.Is(err, ErrRange) {
		t.Errorf("beyond the end: got %v want ErrRange", err)
	}
}

// tiles serves a ledger as tlog's clients read it.
type tiles struct{ l *Log }

func (r tiles) Height() int                     { return tileHeight }
func (r tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (r tiles) ReadTiles(ts []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range ts {
		b, err := r.l.Tile(context.Background(), t)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

func TestMissingTilesAreWrittenAtTheNextOpen(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	d.change = func(c *Config) { c.Store = plain{d.store} }
	l := d.mustOpen()
	for i := range 3 {
		together(t, l, names(fmt.Sprint("n", i, "-"), 200)...)
	}
	l.Close()
	if d.store.has(TileKey(producer, bundle(0, 256))) {
		t.Fatal("a tile was written to a store that cannot replace")
	}
	d.change = nil
	l = d.mustOpen()
	waitFor(t, func() bool { full, _ := l.Tiled(); return full == 2 })
	if !d.store.has(TileKey(producer, bundle(0, 256))) || !d.store.has(TileKey(producer, bundle(1, 256))) {
		t.Error("tiles are missing")
	}
}

// plain hides that a store can replace.
type plain struct{ storage.Store }

func TestTilePaths(t *testing.T) {
	for _, c := range []struct {
		path string
		tile tlog.Tile
	}{
		{"tile/0/000", tlog.Tile{H: 8, L: 0, N: 0, W: 256}},
		{"tile/1/x001/067.p/12", tlog.Tile{H: 8, L: 1, N: 1067, W: 12}},
		{"tile/entries/x001/x234/067", tlog.Tile{H: 8, L: BundleLevel, N: 1234067, W: 256}},
		{"tile/entries/003.p/1", tlog.Tile{H: 8, L: BundleLevel, N: 3, W: 1}},
	} {
		if got := tilePath(c.tile); got != c.path {
			t.Errorf("path: got %s want %s", got, c.path)
		}
		if got, err := ParseTilePath(c.path); err != nil || got != c.tile {
			t.Errorf("%s: got %+v, %v want %+v", c.path, got, err, c.tile)
		}
	}
	for _, bad := range []string{"", "tile", "tile/", "tile/0", "tile/data/000", "tile/0/1", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/x000/000", "tile/-1/000", "tile/8/0/000", "tile/entries/../000", "checkpoint"} {
		if got, err := ParseTilePath(bad); err == nil {
			t.Errorf("%q: got %+v want an error", bad, got)
		}
	}
}

func FuzzParseTilePath(f *testing.F) {
	f.Add("tile/0/x001/067.p/12")
	f.Add("tile/entries/000")
	f.Fuzz(func(t *testing.T, path string) {
		if got, err := ParseTilePath(path); err == nil && tilePath(got) != path {
			t.Errorf("%q was read as %+v", path, got)
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	f.Add(formatBundle([][]byte{[]byte("a"), {}, []byte("ccc")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for width := range 4 {
			if lines, err := parseBundle(b, width); err == nil && !bytes.Equal(formatBundle(lines), b) {
				t.Errorf("%x was read as %x", b, lines)
			}
		}
	})
}

// BenchmarkOpen opens a ledger whose index is lost and whose catalog is empty.
func BenchmarkOpen(b *testing.B) {
	const entries = 20_000
	d := newDaemon(b, newBucket(b))
	d.change = func(c *Config) { c.Applied = nil }
	l := d.mustOpen()
	for i := range entries / 500 {
		together(b, l, names(fmt.Sprint("n", i, "-"), 500)...)
	}
	for full := int64(0); full < entries/tileWidth; full, _ = l.Tiled() {
		runtime.Gosched()
	}
	l.Close()
	d.change = func(c *Config) { c.Applied = func(context.Context, *Commit) error { return nil } }
	for b.Loop() {
		d.forget()
		l, err := Open(context.Background(), d.config())
		if err != nil {
			b.Fatal(err)
		}
		l.Close()
	}
	b.ReportMetric(entries*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
