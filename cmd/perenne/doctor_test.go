package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/storagetest"
)

// forgetful keeps no lock.
type forgetful struct{ *storagetest.Mem }

func (f forgetful) Erase(ctx context.Context, key, version, why string) error {
	f.Unlock(key)
	return f.Mem.Erase(ctx, key, version, why)
}

// late looks at the condition before the bytes have come.
type late struct{ *storagetest.Mem }

func (l late) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if l.Bytes(key) != nil {
		return storage.ErrExists
	}
	data, err := io.ReadAll(io.NewSectionReader(r, 0, o.Size))
	if err == nil {
		l.Plant(key, data)
	}
	return err
}

// TestAStoreIsExaminedBeforeItIsServed: what is refused, under which name and code, and what is remembered.
func TestAStoreIsExaminedBeforeItIsServed(t *testing.T) {
	lie := func() *storagetest.Mem {
		m := storagetest.NewMem(t)
		m.Lenient, m.Now = true, time.Now
		return m
	}
	full := lie()
	full.OnPut = func(string) (bool, error) { return false, storage.ErrFull }
	away := lie()
	away.OnPut = func(string) (bool, error) { return false, errors.New("connection refused") }
	for _, c := range []struct {
		name    string
		store   storage.Store
		known   bool // it was found fit before
		refused string
		code    int
	}{
		{"good", lie(), false, "", exitFine},
		{"its locks do not hold", forgetful{lie()}, false, "lock: ciò che è bloccato non si cancella", exitWrong},
		{"it takes two writers", late{lie()}, false, "slow-against-fast: una scrittura lenta non sostituisce", exitWrong},
		{"it takes any bytes", late{lie()}, true, "digest: byte diversi", exitWrong},
		{"full, and never seen before", full, false, "writable: nello store si può scrivere", exitWrong},
		{"full", full, true, "", exitFine},
		{"away", away, true, "writable: nello store", exitLater},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, state := testInstallation(t, nil), t.TempDir()
			was := fitness{Store: in.examined(), Version: version, Time: time.Now().Add(-time.Hour)}
			if c.known {
				if err := writeFitness(state, was); err != nil {
					t.Fatal(err)
				}
			}
			err := in.examineFirst(t.Context(), c.store, state, slog.New(slog.DiscardHandler))
			if got := exitCode(err); got != c.code {
				t.Fatalf("got code %d, %v, want %d", got, err, c.code)
			}
			if c.refused != "" && !strings.Contains(textIn(paper.Italian, err), c.refused) {
				t.Errorf("got %s, want %s in it", textIn(paper.Italian, err), c.refused)
			}
			if known := readFitness(state).known; known != (c.refused == "") {
				t.Errorf("it is remembered as fit: %t", known)
			}
		})
	}
}

// TestOnlyAnExaminationOfThisStoreCounts: whatever differs, or cannot be read, has the store examined in full.
func TestOnlyAnExaminationOfThisStoreCounts(t *testing.T) {
	in := testInstallation(t, nil)
	fit := fitness{Store: in.examined(), Version: version, Time: time.Now().Add(-time.Hour)}
	marshalled := func(change func(*fitness)) string {
		state, f := t.TempDir(), fit
		change(&f)
		if err := writeFitness(state, f); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(state, fitnessFile))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, c := range []struct {
		name, mark string
		quick      bool
	}{
		{"of an hour ago", marshalled(func(*fitness) {}), true},
		{"of two days ago", marshalled(func(f *fitness) { f.Time = f.Time.Add(-48 * time.Hour) }), false},
		{"of the day after tomorrow", marshalled(func(f *fitness) { f.Time = f.Time.Add(48 * time.Hour) }), false},
		{"of another store", marshalled(func(f *fitness) { f.Store += "2" }), false},
		{"by another program", marshalled(func(f *fitness) { f.Version += "2" }), false},
		{"cut short", marshalled(func(*fitness) {})[:40], false},
		{"none", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			state := t.TempDir()
			if err := os.WriteFile(filepath.Join(state, fitnessFile), []byte(c.mark), 0o644); err != nil {
				t.Fatal(err)
			}
			m := storagetest.NewMem(t)
			m.Lenient, m.Now = true, time.Now
			// Only a full examination finds that locks do not hold.
			err := in.examineFirst(t.Context(), forgetful{m}, state, slog.New(slog.DiscardHandler))
			if (err == nil) != c.quick {
				t.Errorf("got %v, want a quick examination: %t", err, c.quick)
			}
		})
	}
}

// TestAnExaminationIsOfAnAccountAndItsLocks: what a bucket did for one says nothing of another.
func TestAnExaminationIsOfAnAccountAndItsLocks(t *testing.T) {
	bucket := S3Config{URL: "https://store.example", Bucket: "b", AccessKey: "k", SecretKeyFile: "f", Lock: "governance"}
	of := func(c S3Config) string { return (&installation{config: Config{Store: StoreConfig{S3: &c}}}).examined() }
	for name, change := range map[string]func(*S3Config){
		"bucket": func(c *S3Config) { c.Bucket = "c" }, "account": func(c *S3Config) { c.AccessKey = "l" },
		"lock": func(c *S3Config) { c.Lock = "compliance" }, "encryption": func(c *S3Config) { c.SSE = "s3" },
	} {
		other := bucket
		change(&other)
		if of(other) == of(bucket) {
			t.Errorf("another %s counts as the same: %s", name, of(bucket))
		}
	}
}
