package archive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/spool"
	"github.com/marchesud/perenne/storage/storagetest"
)

// TestACopyWhoseKeyAnotherDaemonTook has a daemon stop for ever when its copy of an object is synced and the store
// was not asked yet, another daemon go on, and the first one come back with what was on its disk at that moment.
func TestACopyWhoseKeyAnotherDaemonTook(t *testing.T) {
	for at, what := range []string{"packages/", "ledger/", "evidence/"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			mem := storagetest.NewMem(t)
			var puts atomic.Int64
			puts.Store(-1 << 30)
			dead, release := make(chan struct{}), make(chan struct{})
			folder := filepath.Join(t.TempDir(), "spool")
			sp := openSpool(t, folder, mem, spool.Options{Quota: 1 << 30, Crash: func(label string) {
				if label == "spool.synced" && puts.Add(1) == int64(at)+1 {
					close(dead)
					<-release
				}
			}})
			first := archivetest.New(t, sp.Store())
			a := first.MustOpen()
			mustSubmit(t, first, a, archivetest.Montesole, archivetest.Determina("1", "testo"))

			puts.Store(0)
			answered := make(chan error, 1)
			go func() {
				_, err := a.Submit(ctx, archivetest.Determina("2", "testo").Submission(archivetest.Montesole))
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
			receipts := []*paper.Receipt{
				mustSubmit(t, second, b, archivetest.Montesole, archivetest.Determina("2", "testo")),
				mustSubmit(t, second, b, archivetest.Montesole, archivetest.Determina("3", "testo")),
			}

			sp2 := openSpool(t, filepath.Join(left, "spool"), mem, spool.Options{Quota: 1 << 30, ReadBack: 1, Log: again.Config().Log})
			again.Store = sp2.Store()
			a2 := again.MustOpen()
			for n, r := range receipts {
				if got := mustSubmit(t, again, a2, archivetest.Montesole, archivetest.Determina(fmt.Sprint(n+2), "testo")); fixed(t, got) != fixed(t, r) {
					t.Errorf("submission %d: another receipt than before", n+2)
				}
			}
			wants(t, again, "copy dropped", what)
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
