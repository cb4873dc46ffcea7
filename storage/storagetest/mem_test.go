package storagetest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/storagetest"
)

func TestMemKeepsEveryPromise(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Store {
		m := storagetest.NewMem(t)
		m.Lenient = true
		return m
	})
}

func TestOneStoreServesAllChecks(t *testing.T) {
	m := storagetest.NewMem(t)
	m.Lenient = true
	for _, check := range storagetest.Checks() {
		if err := check.Run(t.Context(), m); err != nil {
			t.Errorf("%s: %v", check.Name, err)
		}
	}
}

// court is a testing.TB that notes accusations instead of failing.
type court struct {
	testing.TB
	said    []string
	cleanup []func()
}

func (c *court) Errorf(format string, args ...any) {
	c.said = append(c.said, fmt.Sprintf(format, args...))
}
func (c *court) Cleanup(f func()) { c.cleanup = append(c.cleanup, f) }
func (c *court) Helper()          {}

func options(data string) storage.PutOptions {
	return storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256([]byte(data))}
}

func put(m *storagetest.Mem, key, data string) error {
	return m.Put(context.Background(), key, strings.NewReader(data), options(data))
}

func TestMemAccusesItsCaller(t *testing.T) {
	ctx := t.Context()
	for _, test := range []struct {
		name string
		do   func(m *storagetest.Mem)
		want string // in the accusation; "" wants none
	}{
		{"honest work", func(m *storagetest.Mem) {
			_ = put(m, "p/a", "x")
			_ = put(m, "p/a", "y")
			m.Delete("p/a")
			_ = put(m, "p/a", "x")
			_ = m.Restore(ctx, "p/a", strings.NewReader("x"), options("x"))
			_ = m.Erase(ctx, "p/a", "", "disposal")
			_ = put(m, "p/a", "z")
			r, _ := m.Get(ctx, "p/a", "", 0, -1)
			_ = r.Close()
		}, ""},
		{"key", func(m *storagetest.Mem) { _ = put(m, "p/../a", "x") }, "invalid key"},
		{"nested key", func(m *storagetest.Mem) { _, _ = put(m, "p/a", "x"), put(m, "p/a/b", "x") }, "directory"},
		{"digest", func(m *storagetest.Mem) { _ = m.Put(ctx, "p/a", strings.NewReader("x"), options("y")) }, "digest"},
		{"size", func(m *storagetest.Mem) {
			_ = m.Put(ctx, "p/a", strings.NewReader("x"), storage.PutOptions{Size: 2, SHA256: sha256.Sum256([]byte("x"))})
		}, "digest"},
		{"lost and put again with other bytes", func(m *storagetest.Mem) {
			_ = put(m, "p/a", "x")
			m.Delete("p/a")
			_ = put(m, "p/a", "y")
		}, "acknowledged"},
		{"restored with other bytes", func(m *storagetest.Mem) {
			_ = put(m, "p/a", "x")
			_ = m.Restore(ctx, "p/a", strings.NewReader("y"), options("y"))
		}, "acknowledged"},
		{"acknowledged without being written and put again with other bytes", func(m *storagetest.Mem) {
			m.OnPut = func(string) (bool, error) { return false, nil }
			_, _ = put(m, "p/a", "x"), put(m, "p/a", "y")
		}, "acknowledged"},
		{"rolled back and put again with other bytes", func(m *storagetest.Mem) {
			s := m.Snapshot()
			_ = put(m, "p/a", "x")
			m.Rollback(s)
			_ = put(m, "p/a", "y")
		}, "acknowledged"},
		{"forgotten and put again with other bytes", func(m *storagetest.Mem) {
			_ = put(m, "p/a", "x")
			m.Forget("p/a")
			_ = put(m, "p/a", "y")
		}, ""},
		{"replaced what is not derived", func(m *storagetest.Mem) {
			_ = m.Replace(ctx, "p/packages/a", strings.NewReader("x"), options("x"))
		}, "not a derived"},
		{"locked what is derived", func(m *storagetest.Mem) {
			o := options("x")
			o.RetainUntil = time.Unix(1, 0)
			_ = m.Put(ctx, "p/tiles/a", strings.NewReader("x"), o)
		}, "derived"},
		{"no lock", func(m *storagetest.Mem) {
			m.RequireRetain = true
			_ = put(m, "p/a", "x")
		}, "no RetainUntil"},
		{"no reason", func(m *storagetest.Mem) {
			_ = put(m, "p/a", "x")
			_ = m.Erase(ctx, "p/a", "", "")
		}, "why"},
		{"reader left open", func(m *storagetest.Mem) {
			_ = put(m, "p/a", "x")
			_, _ = m.Get(ctx, "p/a", "", 0, -1)
		}, "not closed"},
		{"staged left open", func(m *storagetest.Mem) { _, _ = m.Stage(ctx) }, "not closed"},
		{"unsealed put", func(m *storagetest.Mem) {
			st, _ := m.Stage(ctx)
			defer func() { _ = st.Close() }()
			_ = m.Put(ctx, "p/a", st, options(""))
		}, "not sealed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &court{TB: t}
			test.do(storagetest.NewMem(c))
			for _, f := range c.cleanup {
				f()
			}
			got := strings.Join(c.said, "; ")
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("accusations: got %q, want %q in them", got, test.want)
			}
		})
	}
}

func TestMemAnswersAsItsCallbacksSay(t *testing.T) {
	ctx := t.Context()
	failure := errors.New("planted failure")
	for _, test := range []struct {
		name  string
		apply bool
		told  error
		lies  bool // what lies under the key afterwards
	}{
		{"honest", true, nil, true},
		{"failed", false, failure, false},
		{"failed but was written", true, failure, true},
		{"acknowledged but never written", false, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := storagetest.NewMem(t)
			m.OnPut = func(string) (bool, error) { return test.apply, test.told }
			if err := put(m, "p/a", "x"); !errors.Is(err, test.told) {
				t.Errorf("put: got %v, want %v", err, test.told)
			}
			if got := m.Bytes("p/a") != nil; got != test.lies {
				t.Errorf("object lies there: got %v, want %v", got, test.lies)
			}
		})
	}
	m := storagetest.NewMem(t)
	if err := put(m, "p/a", "x"); err != nil {
		t.Fatal(err)
	}
	m.OnGet = func(string) (bool, error) { return false, nil }
	if _, err := m.Get(ctx, "p/a", "", 0, -1); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("stale get: got %v, want ErrNotFound", err)
	}
	m.OnStat = func(string) error { return failure }
	if _, err := m.Stat(ctx, "p/a"); !errors.Is(err, failure) {
		t.Errorf("stat: got %v, want the planted failure", err)
	}
	m.OnList = func(string) error { return failure }
	for _, err := range m.List(ctx, "", "") {
		if !errors.Is(err, failure) {
			t.Errorf("list: got %v, want the planted failure", err)
		}
	}
}

func TestMemShowsWhatWasPlanted(t *testing.T) {
	ctx := t.Context()
	m := storagetest.NewMem(t)
	for _, key := range []string{"p/a", "p/b", "p/c"} {
		if err := put(m, key, "bytes of "+key); err != nil {
			t.Fatal(err)
		}
	}
	m.Flip("p/a", 0)
	m.Swap("p/a", "p/b")
	if got := string(m.Bytes("p/b")); got != "cytes of p/a" {
		t.Errorf("flipped and swapped: got %q", got)
	}
	marker := m.Marker("p/c")
	planted := m.Plant("p/../odd name", []byte("foreign"))
	second := m.Plant("p/b", []byte("on top"))
	if _, err := m.Get(ctx, "p/c", "", 0, -1); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("get under a marker: got %v, want ErrNotFound", err)
	}
	o, err := m.Stat(ctx, "p/c")
	if err != nil || len(o.Versions) != 2 || !o.Versions[0].Marker || o.Versions[0].ID != marker || o.Versions[1].Latest {
		t.Errorf("stat under a marker: got %+v, %v, want the marker and the version below", o, err)
	}
	r, err := m.Get(ctx, "p/c", o.Versions[1].ID, 0, -1)
	if err != nil {
		t.Fatalf("get of the version below a marker: %v", err)
	}
	defer func() { _ = r.Close() }()
	var got []string
	for v, err := range m.List(ctx, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v.Key+" "+v.ID)
	}
	want := []string{"p/../odd name " + planted, "p/a v1", "p/b " + second, "p/b v2", "p/c " + marker, "p/c v3"}
	if !slices.Equal(got, want) {
		t.Errorf("list: got %q, want %q", got, want)
	}
	m.DeleteVersion("p/c", marker)
	m.Overwrite("p/c", []byte("other"))
	if !bytes.Equal(m.Bytes("p/c"), []byte("other")) || len(m.Keys()) != 4 {
		t.Errorf("after removing the marker: got %q and keys %q", m.Bytes("p/c"), m.Keys())
	}
}

func TestMemLocksAgainstItsClock(t *testing.T) {
	ctx := t.Context()
	m := storagetest.NewMem(t)
	end := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	now := end.Add(-time.Hour)
	m.Now = func() time.Time { return now }
	o := options("x")
	o.RetainUntil = end
	if err := m.Put(ctx, "p/a", strings.NewReader("x"), o); err != nil {
		t.Fatal(err)
	}
	if err := m.Erase(ctx, "p/a", "", "orphan"); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("erase before the lock's end: got %v, want ErrLocked", err)
	}
	now = end
	if err := m.Hold(ctx, "p/a", "", true); err != nil {
		t.Fatal(err)
	}
	if err := m.Erase(ctx, "p/a", "", "orphan"); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("erase under a hold: got %v, want ErrLocked", err)
	}
	if err := m.Hold(ctx, "p/a", "", false); err != nil {
		t.Fatal(err)
	}
	if err := m.Erase(ctx, "p/a", "", "orphan"); err != nil {
		t.Errorf("erase after the lock's end: got %v", err)
	}
}
