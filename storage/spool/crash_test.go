package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
)

// childVariable makes this test binary a process that works on a spool and dies at a label: folder, work, label.
const childVariable = "PERENNE_STORAGE_SPOOL_CHILD"

const killed = 137

func TestMain(m *testing.M) {
	if args := os.Getenv(childVariable); args != "" {
		a := strings.Split(args, "\n")
		if err := child(a[0], a[1], a[2]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// openCrash opens a spool on an embedded store. It counts time from a year later when late.
func openCrash(root string, late bool, crash func(string)) (*Spool, *dir.Store, error) {
	d, err := dir.Open(filepath.Join(root, "store"), dir.Options{Immutable: dir.Off})
	if err != nil {
		return nil, nil, err
	}
	now := time.Now
	if late {
		now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
	}
	s, err := Open(context.Background(), d, Options{
		Dir: filepath.Join(root, "spool"), ReadBack: time.Hour, Quota: 1 << 30, Ballast: -1,
		Now: now, Log: slog.New(slog.DiscardHandler), Crash: crash,
	})
	return s, d, err
}

const (
	crashKey   = "c_x901/ledger/0000000000000000/0001"
	crashBytes = "the second commit"
)

// works are what a child does until it dies.
func works() map[string]func(*Spool, *dir.Store) error {
	all := func(context.Context, string) time.Time { return time.Now().AddDate(2, 0, 0) }
	return map[string]func(*Spool, *dir.Store) error{
		"put": func(s *Spool, _ *dir.Store) error { return put(s, crashKey, crashBytes) },
		"stage": func(s *Spool, _ *dir.Store) error {
			st, err := s.Stage(context.Background())
			if err != nil {
				return err
			}
			if _, err := st.WriteAt([]byte(crashBytes), 0); err != nil {
				return err
			}
			if _, _, err := st.Seal(context.Background()); err != nil {
				return err
			}
			return s.Put(context.Background(), crashKey, st, options(crashBytes))
		},
		"lose": func(_ *Spool, d *dir.Store) error { return put(d, crashKey, "another daemon's commit") },
		"read": func(s *Spool, _ *dir.Store) error {
			s.pass(context.Background(), all)
			return nil
		},
		"again": func(s *Spool, d *dir.Store) error {
			if err := d.Erase(context.Background(), crashKey, "", "lost in a power cut"); err != nil {
				return err
			}
			_, err := get(s, crashKey)
			return err
		},
	}
}

func child(root, work, label string) error {
	s, d, err := openCrash(root, work == "read", func(at string) {
		if at == label {
			os.Exit(killed)
		}
	})
	if err != nil {
		return err
	}
	if work == "refused" {
		err = errors.Join(works()["lose"](s, d), works()["put"](s, d))
	} else {
		err = works()[work](s, d)
	}
	return errors.Join(err, errors.New("still alive"))
}

func TestADeathAtAnyLabel(t *testing.T) {
	for _, c := range []struct {
		work, label string
		held        int64  // found by the next process
		there       string // in the store, before anybody meets it
	}{
		{"put", "spool.written", 0, ""},
		{"put", "spool.synced", 1, ""},
		{"put", "spool.put.after", 1, crashBytes},
		{"stage", "spool.written", 0, ""},
		{"stage", "spool.synced", 1, ""},
		{"stage", "spool.put.after", 1, crashBytes},
		{"refused", "spool.synced", 1, "another daemon's commit"},
		{"refused", "spool.put.after", 1, "another daemon's commit"},
		{"refused", "spool.dropped", 0, "another daemon's commit"},
		{"read", "spool.read", 1, crashBytes},
		{"read", "spool.dropped", 0, crashBytes},
		{"again", "spool.again", 1, crashBytes},
	} {
		t.Run(c.work+"/"+c.label, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			if c.work == "read" || c.work == "again" {
				s, d, err := openCrash(root, false, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(put(s, crashKey, crashBytes), s.Close(), d.Close()); err != nil {
					t.Fatal(err)
				}
			}
			dies(t, root, c.work, c.label)
			s, d, err := openCrash(root, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			defer s.Close()
			if got := s.Stats().Objects; got != c.held {
				t.Errorf("held: got %d, want %d", got, c.held)
			}
			if got, err := get(d, crashKey); got != c.there || c.there == "" != errors.Is(err, storage.ErrNotFound) {
				t.Errorf("store: got %q, %v, want %q", got, err, c.there)
			}
			want := c.there
			if c.held > 0 && want == "" {
				want = crashBytes // whoever meets it missing has it put
			}
			if got, err := get(s, crashKey); got != want || want != "" && err != nil {
				t.Errorf("met: got %q, %v, want %q", got, err, want)
			}
		})
	}
}

// dies runs a child and wants it to die at its label.
func dies(t *testing.T, root, work, label string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childVariable+"="+root+"\n"+work+"\n"+label)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != killed {
		t.Fatalf("child: got %v, want a death at %s:\n%s", err, label, out)
	}
}
