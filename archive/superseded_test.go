package archive_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/spool"
	"github.com/marchesud/perenne/storage/storagetest"
)

// TestACopyWhoseKeyAnotherDaemonTook has a daemon stop for ever when its copy of an object is synced and the store
// was not asked yet, another daemon go on, and the first one come back with what was on its disk at that moment.
func TestACopyWhoseKeyAnotherDaemonTook(t *testing.T) {
	determina := func(number string) func(testing.TB) archive.Submission {
		return func(testing.TB) archive.Submission {
			return archivetest.Determina(number, "testo").Submission(archivetest.Montesole)
		}
	}
	for _, c := range []struct {
		room string
		at   int64 // the Put that the daemon dies in
		what func(testing.TB) archive.Submission
	}{
		{"packages/", 1, determina("2")},
		{"ledger/", 2, determina("2")},
		{"evidence/", 3, determina("2")},
		{"refusals/", 1, brokenFiveTimes},
	} {
		t.Run(c.room, func(t *testing.T) {
			t.Parallel()
			mem := storagetest.NewMem(t)
			var puts atomic.Int64
			puts.Store(-1 << 30)
			dead, release := make(chan struct{}), make(chan struct{})
			folder := filepath.Join(t.TempDir(), "spool")
			sp := openSpool(t, folder, mem, spool.Options{Quota: 1 << 30, Crash: func(label string) {
				if label == "spool.synced" && puts.Add(1) == c.at {
					close(dead)
					<-release
				}
			}})
			first := archivetest.New(t, sp.Store())
			a := first.MustOpen()
			mustSubmit(t, first, a, archivetest.Montesole, archivetest.Determina("1", "testo"))

			puts.Store(0)
			answered := make(chan error, 1)
			broken := c.what(t)
			go func() {
				_, err := a.Submit(ctx, broken)
				answered <- err
			}()
			<-dead
			left := t.TempDir()
			again := archivetest.Attach(t, nil, filepath.Join(left, "state"), first.Keys())
			for _, c := range [][2]string{{first.State, again.State}, {folder, filepath.Join(left, "spool")}} {
				if err := os.CopyFS(c[1], os.DirFS(c[0])); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.RemoveAll(filepath.Join(again.State, "catalog")); err != nil { // copied while it was written
				t.Fatal(err)
			}

			second := archivetest.Attach(t, mem, filepath.Join(t.TempDir(), "state"), first.Keys())
			second.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
			b := second.MustOpen()
			both := []func(testing.TB) archive.Submission{c.what, determina("3")}
			var receipts []*paper.Receipt
			for _, what := range both {
				r, err := b.Submit(ctx, what(t))
				if err != nil {
					t.Fatal(err)
				}
				mustVerify(t, second, r)
				receipts = append(receipts, r)
			}

			sp2 := openSpool(t, filepath.Join(left, "spool"), mem, spool.Options{Quota: 1 << 30, ReadBack: 1, Log: again.Config().Log})
			again.Store = sp2.Store()
			a2 := again.MustOpen()
			for n, what := range both {
				if got, err := a2.Submit(ctx, what(t)); err != nil || fixed(t, got) != fixed(t, receipts[n]) {
					t.Errorf("submission %d: got %v, want the receipt of before", n, err)
				}
			}
			wants(t, again, "copy dropped", c.room)
			mustSubmit(t, again, a2, archivetest.Montesole, archivetest.Determina("4", "testo"))
			if logs := again.Logs.String(); strings.Contains(logs, "level=ERROR") {
				t.Errorf("errors in the log:\n%s", logs)
			}
			audited(t, a2, archivetest.Montesole, paper.VerdictGood)
			again.Close(a2)
			second.Close(b)
			close(release) // what it did was overtaken; it only has to end
			<-answered
			first.Close(a)
			if err := sp.Close(); err != nil {
				t.Error(err)
			}
			if err := sp2.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// wants waits for a line of the log.
func wants(t *testing.T, b *archivetest.Bench, parts ...string) {
	t.Helper()
	eventually(t, strings.Join(parts, " … "), func() bool {
		for line := range strings.Lines(b.Logs.String()) {
			all := true
			for _, p := range parts {
				all = all && strings.Contains(line, p)
			}
			if all {
				return true
			}
		}
		return false
	})
}

// TestAnAcknowledgedCopyStays changes, in the store, objects that were acknowledged: the copy is kept and it is said,
// by the daemon that runs and by the next one.
func TestAnAcknowledgedCopyStays(t *testing.T) {
	for _, room := range []string{archivetest.Montesole + "/packages/", archivetest.Montesole + "/ledger/", "evidence/"} {
		t.Run(room, func(t *testing.T) {
			t.Parallel()
			mem := storagetest.NewMem(t)
			mem.Lenient = true
			folder := filepath.Join(t.TempDir(), "spool")
			sp := openSpool(t, folder, mem, spool.Options{Quota: 1 << 30})
			b := archivetest.New(t, sp.Store())
			a := b.MustOpen()
			mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
			b.Close(a)
			if err := sp.Close(); err != nil {
				t.Fatal(err)
			}
			var key string
			for _, k := range mem.Keys() {
				if strings.HasPrefix(k, room) {
					key = k
				}
			}
			mem.Overwrite(key, []byte("altro"))
			held, err := spool.Left(folder)
			if err != nil {
				t.Fatal(err)
			}
			sp = openSpool(t, folder, mem, spool.Options{Quota: 1 << 30, ReadBack: 1, Log: b.Config().Log})
			b.Store = sp.Store()
			a = b.MustOpen()
			wants(t, b, "level=ERROR", "other bytes", key)
			if strings.Contains(b.Logs.String(), "copy dropped") {
				t.Error("a copy of what was acknowledged was dropped")
			}
			if left, err := spool.Left(folder); err != nil || left < 1 || held < 1 {
				t.Errorf("held: got %d of %d, %v", left, held, err)
			}
			if r, err := sp.Recall(ctx, key, [32]byte{}); err != nil {
				t.Error(err)
			} else if err := r.Close(); err != nil {
				t.Error(err)
			}
			b.Close(a)
			if err := sp.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestACopyThatNoEntryNamesYet has other bytes take the key of an object whose Put was never answered, before any entry
// names it: it cannot be told yet which count, and nobody is alarmed.
func TestACopyThatNoEntryNamesYet(t *testing.T) {
	for room, what := range map[string]archive.Submission{
		"packages/": archivetest.Determina("5", "testo").Submission(archivetest.Montesole),
		"refusals/": brokenFiveTimes(t),
	} {
		t.Run(room, func(t *testing.T) {
			t.Parallel()
			mem := storagetest.NewMem(t)
			mem.OnPut = func(key string) (bool, error) {
				if !strings.Contains(key, room) {
					return true, nil
				}
				if mem.Bytes(key) == nil {
					mem.Plant(key, []byte("altro"))
				}
				return false, storage.ErrUnknown
			}
			b := archivetest.New(t, mem)
			sp := openSpool(t, filepath.Join(t.TempDir(), "spool"), mem, spool.Options{Quota: 1 << 30, Log: b.Config().Log})
			b.Store = sp.Store()
			a := b.MustOpen()
			if _, err := a.Submit(ctx, what); err == nil {
				t.Error("submitted: got no error")
			}
			wants(t, b, "cannot be told yet", room)
			if strings.Contains(b.Logs.String(), "other bytes than were put") {
				t.Errorf("alarm:\n%s", b.Logs.String())
			}
			b.Close(a)
			if err := sp.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestACommitThatIsNotTheMarksIsNotPut is a power cut of the whole site: the store has lost the commit that the mark
// names, and the spool holds, beside it or alone, a commit of that number that was never acknowledged.
func TestACommitThatIsNotTheMarksIsNotPut(t *testing.T) {
	for name, both := range map[string]bool{"beside it": true, "alone": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mem := storagetest.NewMem(t)
			folder := filepath.Join(t.TempDir(), "spool")
			sp := openSpool(t, folder, mem, spool.Options{Quota: 1 << 30})
			b := archivetest.New(t, sp.Store())
			a := b.MustOpen()
			mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
			b.Close(a)
			var key string
			for _, k := range mem.Keys() {
				if strings.HasPrefix(k, archivetest.Montesole+"/ledger/") {
					key = k
				}
			}
			kept := mem.Bytes(key)
			if !both {
				if err := sp.Close(); err != nil {
					t.Fatal(err)
				}
				folder = filepath.Join(t.TempDir(), "another")
				sp = openSpool(t, folder, mem, spool.Options{Quota: 1 << 30})
			}
			never := neverAcknowledged()
			mem.OnPut = func(string) (bool, error) { return false, storage.ErrUnknown }
			o := storage.PutOptions{Size: int64(len(never)), SHA256: sha256.Sum256(never)}
			if err := sp.Put(ctx, key, bytes.NewReader(never), o); !errors.Is(err, storage.ErrUnknown) {
				t.Fatalf("put: got %v, want ErrUnknown", err)
			}
			mem.OnPut = nil
			if err := sp.Close(); err != nil {
				t.Fatal(err)
			}
			mem.Delete(key)

			sp = openSpool(t, folder, mem, spool.Options{Quota: 1 << 30})
			b.Store = sp.Store()
			a = b.MustOpen()
			if got := mem.Bytes(key); both != bytes.Equal(got, kept) || !both && got != nil {
				t.Errorf("store: got %.40q, want the commit of the mark: %v", got, both)
			}
			if both {
				audited(t, a, archivetest.Montesole, paper.VerdictGood)
			}
			b.Close(a)
			if err := sp.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// neverAcknowledged gives bytes whose copy stands before nearly any other in a listing.
func neverAcknowledged() []byte {
	for n := 0; ; n++ {
		b := fmt.Appendf(nil, "altro %d", n)
		if sum := sha256.Sum256(b); sum[0] == 0 && sum[1] == 0 {
			return b
		}
	}
}
