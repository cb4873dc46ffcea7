package rig_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/harness/rig"
)

// under gives an installation on the embedded store with some documents in it, and its running daemon.
func under(t *testing.T, l rig.Load, config map[string]any) (*rig.Book, *rig.Daemon) {
	t.Helper()
	ctx := t.Context()
	program, err := rig.Build(ctx, filepath.Join(os.TempDir(), "perenne-harness"))
	if err != nil {
		t.Fatal(err)
	}
	in, err := rig.New(ctx, rig.Options{Program: program, Root: filepath.Join(t.TempDir(), "p"), Store: rig.Dir(), Config: config})
	if err != nil {
		t.Fatal(err)
	}
	d, err := in.Start(ctx, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Kill() })
	b := rig.NewBook(in, 1)
	work(t, b, d, l)
	return b, d
}

func work(t *testing.T, b *rig.Book, d *rig.Daemon, l rig.Load) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	want := b.Acked() + 50
	l.Acked = func(*rig.Sent) {
		if b.Acked() >= want {
			stop()
		}
	}
	b.Run(ctx, l, d)
	if b.Acked() < want {
		t.Fatalf("only %d were acknowledged: %v\n%s", b.Acked(), b.Unexpected(), d.Tail())
	}
}

func TestAnInstallationSurvivesAKill(t *testing.T) {
	b, d := under(t, rig.Load{RefuseEvery: 7, RetryEvery: 5}, nil)
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	d, err := b.In.Start(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Judge(t.Context(), d, 0, true, t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// The judge sees what it is there for.
func TestTheJudgeSees(t *testing.T) {
	for name, c := range map[string]struct {
		want  error
		plant func(t *testing.T, b *rig.Book)
	}{
		"a package that is gone": {rig.ErrLost, func(t *testing.T, b *rig.Book) {
			first(t, b.In.Path("store"), "/packages/", os.Remove)
		}},
		"a bit that flipped": {rig.ErrLost, func(t *testing.T, b *rig.Book) {
			first(t, b.In.Path("store"), "/packages/", func(path string) error {
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				text[len(text)/2] ^= 1
				return os.WriteFile(path, text, 0o644)
			})
		}},
		"a last commit that is gone": {rig.ErrLost, func(t *testing.T, b *rig.Book) {
			if err := os.RemoveAll(b.In.Path("state")); err != nil {
				t.Fatal(err)
			}
			last := ""
			first(t, b.In.Path("store"), "/ledger/", func(path string) error { last = path; return nil })
			if err := os.RemoveAll(filepath.Dir(last)); err != nil {
				t.Fatal(err)
			}
		}},
		"what was never sent": {rig.ErrDamage, func(t *testing.T, b *rig.Book) {
			first(t, b.In.Path("store"), "/packages/", func(path string) error {
				return os.WriteFile(filepath.Join(filepath.Dir(path), "altro.asice"), nil, 0o644)
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b, d := under(t, rig.Load{}, nil)
			if err := d.Kill(); err != nil {
				t.Fatal(err)
			}
			c.plant(t, b)
			b.Patience = time.Second
			d, err := b.In.Start(t.Context(), nil, []string{"--trust-bucket-head"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = d.Kill() })
			_, said := b.Judge(t.Context(), d, 0, true, t.TempDir())
			if err := rig.Seen(said, c.want); err != nil {
				t.Error(err)
			}
		})
	}
}

// first does something with the first object whose path has part in it.
func first(t *testing.T, root, part string, do func(path string) error) {
	t.Helper()
	done := false
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || done || !strings.Contains(path, part) {
			return err
		}
		done = true
		return do(path)
	})
	if err != nil || !done {
		t.Fatalf("no object under %s: %v", part, err)
	}
}
