package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// garbage lays n objects that nobody signed under the next numbers of a ledger.
func garbage(d *daemon, from int64, n int) {
	for i := range int64(n) {
		d.store.Plant(Key(d.config().Producer, from+i), fmt.Appendf(nil, "altro %d", i))
	}
}

func TestALedgerGoesOnBehindVoidNumbers(t *testing.T) {
	for _, run := range []int{1, 3} {
		for _, after := range []string{"as it was", "index lost", "other machine", "object gone"} {
			t.Run(fmt.Sprint(run, " ", after), func(t *testing.T) {
				d := newDaemon(t, newBucket(t))
				l := d.mustOpen()
				mustAppend(t, l, "a", "b")
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				garbage(d, 2, run)
				if _, err := d.open(); err == nil {
					t.Fatal("it opens over an object that nobody signed")
				}
				if err := Void(t.Context(), d.config(), 2); err != nil {
					t.Fatal(err)
				}
				if err := Void(t.Context(), d.config(), 2); !errors.Is(err, ErrNotVoid) {
					t.Errorf("again: got %v, want ErrNotVoid", err)
				}
				l = d.mustOpen()
				mustAppend(t, l, "c", "d")
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				switch after {
				case "index lost":
					d.forget()
				case "other machine":
					d = newDaemon(t, d.store)
				case "object gone":
					d.store.Forget(Key(d.config().Producer, 2))
				}
				cfg := d.config()
				cfg.TrustBucketHead = after == "other machine"
				cfg.Applied = nil
				l, err := Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				last := l.Head()
				if want := int64(2 + run); last.Number < want+2 {
					t.Errorf("it stands at commit %d, want at least %d", last.Number, want+2)
				}
				for n := range last.Number + 1 {
					c, err := l.Commit(t.Context(), n)
					if err != nil {
						t.Fatalf("commit %d: %v", n, err)
					}
					if void := n >= 2 && n < int64(2+run); c.Void != void || c.Number != n {
						t.Errorf("commit %d: got number %d, void %v", n, c.Number, c.Void)
					}
					closed, err := Read(t.Context(), d.store, cfg.Producer, n, cfg.Verifiers)
					if err != nil || closed.Void != c.Void {
						t.Errorf("read commit %d of the closed ledger: got %v", n, err)
					}
				}
				for i := range last.Size {
					if _, err := l.Proof(t.Context(), i); err != nil {
						t.Errorf("proof of entry %d: %v", i, err)
					}
				}
				damages, voids, sound := 0, 0, int64(0)
				for c, err := range Walk(t.Context(), d.store, cfg.Producer, cfg.Verifiers, 0, last.Number) {
					var damage *Damage
					switch {
					case errors.As(err, &damage) && damage.Void:
						voids++
					case err != nil:
						damages++
					default:
						sound++
						if c.Number == last.Number && c.Root != last.Root {
							t.Error("another root")
						}
					}
				}
				want := 0
				if after == "object gone" {
					want = 1
				}
				if damages != want || voids != run-want || sound != last.Number+1-int64(run) {
					t.Errorf("walk: %d sound, %d damages, %d void", sound, damages, voids)
				}
			})
		}
	}
}

// TestAVoidNumberIsNoWayToAFork tries to have numbers called void that must not be.
func TestAVoidNumberIsNoWayToAFork(t *testing.T) {
	base := func(t *testing.T) (*daemon, []byte) {
		d := newDaemon(t, newBucket(t))
		l := d.mustOpen()
		mustAppend(t, l, "a", "b")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		other := newDaemon(t, d.store.clone())
		cfg := other.config()
		cfg.TrustBucketHead = true
		l, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, "theirs")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return d, other.store.Bytes(Key(cfg.Producer, 2))
	}
	for name, lay := range map[string]func(d *daemon, theirs []byte){
		"nothing there":     func(*daemon, []byte) {},
		"garbage beyond":    func(d *daemon, _ []byte) { garbage(d, 5, 1) },
		"a commit of ours":  func(d *daemon, theirs []byte) { d.store.Plant(Key(d.config().Producer, 2), theirs) },
		"hidden by garbage": func(d *daemon, theirs []byte) { d.store.Plant(Key(d.config().Producer, 2), theirs); garbage(d, 2, 1) },
		"what is left of a commit of ours": func(d *daemon, theirs []byte) {
			d.store.Plant(Key(d.config().Producer, 2), bytes.Replace(theirs, []byte(`"id"`), []byte(`"xx"`), 1))
		},
		"further on": func(d *daemon, theirs []byte) { garbage(d, 2, 1); d.store.Plant(Key(d.config().Producer, 3), theirs) },
		"a marker":   func(d *daemon, _ []byte) { d.store.Marker(Key(d.config().Producer, 2)) },
	} {
		t.Run(name, func(t *testing.T) {
			d, theirs := base(t)
			lay(d, theirs)
			before := len(d.store.Keys())
			if err := Void(t.Context(), d.config(), 2); !errors.Is(err, ErrNotVoid) {
				t.Errorf("got %v, want ErrNotVoid", err)
			}
			if name != "a commit of ours" && name != "hidden by garbage" && len(d.store.Keys()) != before {
				t.Error("something was written")
			}
		})
	}
	t.Run("the marked commit", func(t *testing.T) {
		d, _ := base(t)
		n := int64(1)
		d.store.swap(Key(d.config().Producer, n), []byte("altro"))
		if err := Void(t.Context(), d.config(), n); !errors.Is(err, ErrNotVoid) {
			t.Errorf("got %v, want ErrNotVoid", err)
		}
	})
	t.Run("an old commit put there again is void", func(t *testing.T) {
		d, _ := base(t)
		d.store.Plant(Key(d.config().Producer, 2), d.store.Bytes(Key(d.config().Producer, 0)))
		if err := Void(t.Context(), d.config(), 2); err != nil {
			t.Error(err)
		}
	})
	t.Run("a commit restored afterwards is a fork", func(t *testing.T) {
		d, theirs := base(t)
		garbage(d, 2, 1)
		if err := Void(t.Context(), d.config(), 2); err != nil {
			t.Fatal(err)
		}
		d.store.Plant(Key(d.config().Producer, 2), theirs)
		fresh := newDaemon(t, d.store)
		cfg := fresh.config()
		cfg.TrustBucketHead = true
		l, err := Open(t.Context(), cfg)
		var fork *Fork
		if err == nil {
			l.Close()
		}
		if !errors.As(err, &fork) {
			t.Errorf("got %v, want a fork", err)
		}
	})
	t.Run("a marker that comes meanwhile is none", func(t *testing.T) {
		d, _ := base(t)
		garbage(d, 2, 1)
		d.store.put = func(key string) (bool, error) {
			if key == Key(d.config().Producer, 3) {
				d.store.Delete(Key(d.config().Producer, 2))
				d.store.Marker(Key(d.config().Producer, 2))
			}
			return true, nil
		}
		if err := Void(t.Context(), d.config(), 2); err != nil {
			t.Error(err)
		}
	})
	t.Run("the commit of another machine that garbage hides is not void", func(t *testing.T) {
		d, _ := base(t)
		garbage(d, 2, 1)
		other := newDaemon(t, d.store.clone())
		cfg := other.config()
		cfg.TrustBucketHead = true
		if err := Void(t.Context(), cfg, 2); err != nil {
			t.Fatal(err)
		}
		l, cause, err := Stand(t.Context(), d.config())
		if err != nil || cause == nil {
			t.Fatalf("got %v, %v", cause, err)
		}
		defer l.Close()
		d.store.Plant(Key(cfg.Producer, 3), other.store.Bytes(Key(cfg.Producer, 3)))
		garbage(d, 3, 1)
		if entries, err := l.foreign(t.Context(), 2); err != nil || len(entries) != 1 {
			t.Errorf("got %d void numbers, %v, want one", len(entries), err)
		}
	})
	t.Run("a commit that comes meanwhile is a fork", func(t *testing.T) {
		d, theirs := base(t)
		garbage(d, 2, 1)
		d.store.put = func(key string) (bool, error) {
			if key == Key(d.config().Producer, 3) {
				d.store.Plant(Key(d.config().Producer, 2), theirs)
			}
			return true, nil
		}
		var fork *Fork
		if err := Void(t.Context(), d.config(), 2); !errors.As(err, &fork) {
			t.Errorf("got %v, want a fork", err)
		}
	})
}

func TestVoidEntriesStandOnlyWhereTheyMay(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	defer l.Close()
	n := int64(0)
	if _, err := l.Append(t.Context(), Pending{Entry: Entry{Type: CommitVoid, Commit: &n, SHA256: digest("x")}}); err == nil {
		t.Error("an entry calls a number void and was appended")
	}
}
