package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
)

// walked collects what Walk yields: the numbers of sound commits and the keys of flaws.
func walked(t *testing.T, d *daemon, from, to int64) (sound []int64, flaws []string) {
	t.Helper()
	for c, err := range Walk(context.Background(), d.store, producer, d.known, from, to) {
		var damage *Damage
		switch {
		case err == nil:
			sound = append(sound, c.Number)
		case errors.As(err, &damage):
			flaws = append(flaws, damage.Key)
		default:
			t.Errorf("walk: %v", err)
		}
	}
	return sound, flaws
}

func TestWalkNamesExactlyWhatWasHurt(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	mustAppend(t, d.mustOpen(), names("n", 6)...)
	stranger, _ := keys(t, 3)
	whole := d.store
	all := []int64{0, 1, 2, 3, 4, 5}
	if got, flaws := walked(t, d, 0, -1); !slices.Equal(got, all) || flaws != nil {
		t.Fatalf("untouched: got %v and flaws %v", got, flaws)
	}
	sound := whole.Snapshot()
	for n := range int64(6) {
		key, next := Key(producer, n), Key(producer, (n+1)%6)
		whole.Rollback(sound)
		original, following := whole.Bytes(key), whole.Bytes(next)
		rest := slices.Delete(slices.Clone(all), int(n), int(n)+1)
		for name, c := range map[string]struct {
			hurt  func(b *bucket)
			sound []int64
			flaws []string
		}{
			"flipped": {func(b *bucket) {
				bad := slices.Clone(original)
				bad[len(bad)/2] ^= 4
				b.swap(key, bad)
			}, rest, []string{key}},
			"cut":     {func(b *bucket) { b.swap(key, original[:len(original)-9]) }, rest, []string{key}},
			"emptied": {func(b *bucket) { b.swap(key, []byte{}) }, rest, []string{key}},
			"deleted": {func(b *bucket) { b.swap(key, nil) }, rest, []string{key}},
			"hidden":  {func(b *bucket) { b.Marker(key) }, all, []string{key}},
			"overwritten": {func(b *bucket) {
				b.Plant(key, []byte("x"))
			}, all, []string{key}},
			"signed by a stranger": {func(b *bucket) {
				c, err := ParseCommit(original, producer, d.known)
				if err != nil {
					t.Fatal(err)
				}
				if c.Checkpoint, err = (Checkpoint{origin, c.Size, c.Root}).sign(stranger); err != nil {
					t.Fatal(err)
				}
				b.swap(key, c.encode())
			}, rest, []string{key}},
			"foreign key": {func(b *bucket) { b.swap(producer+"/ledger/extra", original) }, all, []string{producer + "/ledger/extra"}},
			"swapped with the next": {func(b *bucket) {
				b.swap(key, following)
				b.swap(next, original)
			}, slices.DeleteFunc(slices.Clone(all), func(i int64) bool { return i == n || i == (n+1)%6 }), sorted(key, next)},
		} {
			whole.Rollback(sound)
			c.hurt(d.store)
			got, flaws := walked(t, d, 0, 5)
			if !slices.Equal(got, c.sound) || !slices.Equal(flaws, c.flaws) {
				t.Errorf("commit %d %s: got %v and flaws %v\nwant %v and %v", n, name, got, flaws, c.sound, c.flaws)
			}
		}
	}
}

func sorted(s ...string) []string { slices.Sort(s); return s }

func TestWalkKnowsWhatItDidNotCheck(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	mustAppend(t, d.mustOpen(), names("n", 6)...)
	d.store.swap(Key(producer, 2), nil)
	d.store.swap(Key(producer, 4), nil)
	var unchecked []bool
	for _, err := range Walk(context.Background(), d.store, producer, d.known, 0, -1) {
		var damage *Damage
		if errors.As(err, &damage) {
			unchecked = append(unchecked, damage.Unchecked)
		}
	}
	if want := []bool{true, false}; !slices.Equal(unchecked, want) {
		t.Errorf("got %v want %v: the first loss ends the recomputing of roots", unchecked, want)
	}
}

func TestWalkOfAPart(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	mustAppend(t, d.mustOpen(), names("n", 6)...)
	for _, c := range []struct {
		from, to int64
		sound    []int64
		missing  int
	}{{0, 2, []int64{0, 1, 2}, 0}, {3, -1, []int64{3, 4, 5}, 0}, {2, 4, []int64{2, 3, 4}, 0}, {4, 7, []int64{4, 5}, 2}, {9, -1, nil, 0}} {
		sound, flaws := walked(t, d, c.from, c.to)
		if !slices.Equal(sound, c.sound) || len(flaws) != c.missing {
			t.Errorf("%d to %d: got %v and flaws %v want %v and %d missing", c.from, c.to, sound, flaws, c.sound, c.missing)
		}
	}
}

func TestAnOpenLedgerKnowsWhatStoodBefore(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, names("n", 6)...)
	key := Key(producer, 3)
	good := d.store.Bytes(key)
	spot := bytes.Index(good, []byte(`"receipt":"`)) + 15
	bad := bytes.Clone(good)
	bad[spot] = "10"[bad[spot]&1] // another digit, so that the entry is valid still
	if bytes.Equal(bad, good) {
		bad[spot] = '2'
	}
	for from := range int64(5) {
		for _, hurt := range []bool{false, true} {
			d.store.swap(key, good)
			if hurt {
				d.store.swap(key, bad)
			}
			var flaws []string
			sound := 0
			for _, err := range l.Walk(context.Background(), from, 3) {
				var damage *Damage
				if errors.As(err, &damage) {
					flaws = append(flaws, damage.Key)
				} else if err != nil {
					t.Fatal(err)
				} else {
					sound++
				}
			}
			if want := hurt && from <= 3; want != (len(flaws) == 1) || want && flaws[0] != key {
				t.Errorf("from %d, hurt %v: got flaws %v", from, hurt, flaws)
			}
		}
	}
	for _, err := range l.Walk(context.Background(), 8, -1) {
		if !errors.Is(err, ErrRange) {
			t.Errorf("beyond the end: got %v want ErrRange", err)
		}
	}
}

func TestWalkFindsARewrittenHistory(t *testing.T) {
	// Somebody with the ledger's own key writes another entry into the middle and signs every commit after.
	d := newDaemon(t, newBucket(t))
	mustAppend(t, d.mustOpen(), names("n", 4)...)
	forged := newDaemon(t, newBucket(t))
	mustAppend(t, forged.mustOpen(), "n0000", "other", "n0002", "n0003")
	d.store.swap(Key(producer, 1), forged.store.Bytes(Key(producer, 1)))
	_, flaws := walked(t, d, 0, -1)
	if len(flaws) == 0 || flaws[0] != Key(producer, 1) {
		t.Errorf("got flaws %v want commit 1 among them", flaws)
	}
}

func TestWalkGivesTheStoresErrors(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	mustAppend(t, d.mustOpen(), "a", "b")
	d.store.get = func(string) error { return fmt.Errorf("disk on fire") }
	n := 0
	for _, err := range Walk(context.Background(), d.store, producer, d.known, 0, -1) {
		n++
		var damage *Damage
		if !errors.As(err, &damage) || !damage.Unread {
			t.Errorf("got %v want nothing said of what was not read", err)
		}
	}
	if n != 2 {
		t.Errorf("got %d results want 2", n)
	}
}

// TestAStoreThatGivesNothingAnyMoreEndsAWalk is an outage in the middle: a long ledger is not asked for to its end.
func TestAStoreThatGivesNothingAnyMoreEndsAWalk(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	for _, name := range names("n", 2*maxSilent) {
		mustAppend(t, d.mustOpen(), name)
	}
	asked := map[string]int{}
	refused := fmt.Errorf("connection refused")
	d.store.get = func(key string) error {
		if key >= Key(producer, 3) {
			asked[key]++
			return refused
		}
		return nil
	}
	rotten := 0 // neighbours without number, of a store that is there
	for _, err := range Walk(context.Background(), d.store, producer, d.known, 0, -1) {
		if damage := (*Damage)(nil); errors.As(err, &damage) && damage.Unread {
			rotten++
		}
	}
	if rotten != 2*maxSilent-3 {
		t.Errorf("%d commits unread, want %d", rotten, 2*maxSilent-3)
	}
	clear(asked)
	d.store.OnList = func(string) error {
		if len(asked) >= maxSilent {
			return refused
		}
		return nil
	}
	var last error
	for _, err := range Walk(context.Background(), d.store, producer, d.known, 0, -1) {
		last = err
	}
	if damage := (*Damage)(nil); last == nil || errors.As(last, &damage) {
		t.Errorf("got %v at the end, want the store's error", last)
	}
	if len(asked) != maxSilent {
		t.Errorf("%d objects asked for, want %d", len(asked), maxSilent)
	}
}

// TestWalkGoesPastACommitThatIsNotGiven has one commit that the store fails to give for good: all others are sound, and
// it is called unread, not damaged.
func TestWalkGoesPastACommitThatIsNotGiven(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	mustAppend(t, d.mustOpen(), names("n", 6)...)
	for n := range int64(6) {
		d.store.get = func(key string) error {
			if key == Key(producer, n) {
				return fmt.Errorf("unreadable")
			}
			return nil
		}
		var unread []string
		sound := 0
		for _, err := range Walk(context.Background(), d.store, producer, d.known, 0, 5) {
			var damage *Damage
			switch {
			case err == nil:
				sound++
			case errors.As(err, &damage) && damage.Unread && damage.Unchecked:
				unread = append(unread, damage.Key)
			default:
				t.Errorf("commit %d is not given: %v", n, err)
			}
		}
		if sound != 5 || !slices.Equal(unread, []string{Key(producer, n)}) {
			t.Errorf("commit %d is not given: got %d sound, unread %v", n, sound, unread)
		}
	}
}

// TestWhatACommitThatIsNotGivenMayCallVoid takes commit 3 away and hurts, deletes or hides commit 2: a void number has
// something under it, so that only what was hurt may be one.
func TestWhatACommitThatIsNotGivenMayCallVoid(t *testing.T) {
	key, rotten := Key(producer, 2), Key(producer, 3)
	for name, c := range map[string]struct {
		hurt   func(*bucket)
		unread bool
	}{
		"hurt":    {func(b *bucket) { b.swap(key, []byte("x")) }, true},
		"deleted": {func(b *bucket) { b.swap(key, nil) }, false},
		"hidden":  {func(b *bucket) { b.swap(key, nil); b.Marker(key) }, false},
	} {
		d := newDaemon(t, newBucket(t))
		mustAppend(t, d.mustOpen(), names("n", 6)...)
		c.hurt(d.store)
		d.store.Rot(rotten)
		got := map[string]bool{}
		for _, err := range Walk(context.Background(), d.store, producer, d.known, 0, -1) {
			if damage := (*Damage)(nil); errors.As(err, &damage) {
				got[damage.Key] = damage.Unread
			}
		}
		if want := map[string]bool{key: c.unread, rotten: true}; !maps.Equal(got, want) {
			t.Errorf("%s: got %v want %v", name, got, want)
		}
	}
}
