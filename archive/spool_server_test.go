package archive_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
	"github.com/marchesud/perenne/storage/spool"
)

// TestAServerThatLosesWhatItNeverSynced kills a real server under load and takes away every file it wrote since some
// of the submissions were acknowledged, as a power cut takes from a server that never syncs. The daemon lives on, or
// died with it.
func TestAServerThatLosesWhatItNeverSynced(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real servers")
	}
	for _, kind := range s3test.Kinds {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%v", kind, restart), func(t *testing.T) { loseUnsynced(t, kind, restart) })
		}
	}
}

func loseUnsynced(t *testing.T, kind string, restart bool) {
	server := s3test.Start(t, kind)
	store, err := s3.Open(t.Context(), server.Options())
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "spool")
	sp := openSpool(t, folder, store, spool.Options{Quota: 1 << 30})
	b := archivetest.New(t, sp.Store())
	a := b.MustOpen()

	// Load, until the server is killed in the middle of it.
	var mu sync.Mutex
	acknowledged := map[string]*paper.Receipt{}
	var load sync.WaitGroup
	var over atomic.Bool
	for worker := range 4 {
		load.Go(func() {
			for i := 0; !over.Load(); i++ {
				number := fmt.Sprintf("%d-%d", worker, i)
				r, err := a.Submit(ctx, archivetest.Determina(number, "testo").Submission(archivetest.Montesole))
				if err != nil {
					return
				}
				mu.Lock()
				acknowledged[number] = r
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	eventually(t, "some submissions to be acknowledged", func() bool { return count() >= 10 })
	time.Sleep(10 * time.Millisecond) // more than the clock of a file system needs to tell two files apart
	since, before := time.Now(), count()
	eventually(t, "more of them", func() bool { return count() >= before+15 })
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	over.Store(true)
	lost := loseFiles(t, filepath.Join(server.DataDir, server.Bucket), since)
	if lost < 15 {
		t.Fatalf("only %d files were lost", lost)
	}
	if restart {
		load.Wait()
		b.Close(a)
		if err := sp.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	load.Wait()
	if restart {
		sp = openSpool(t, folder, store, spool.Options{Quota: 1 << 30})
		b.Store = sp.Store()
		a = b.MustOpen()
	}
	eventually(t, "the producer to go on", func() bool { return a.Status(ctx).Producers[0].Stopped == "" })
	t.Logf("%d submissions acknowledged, %d files lost", len(acknowledged), lost)
	for number, r := range acknowledged {
		again := mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina(number, "testo"))
		if fixed(t, again) != fixed(t, r) {
			t.Errorf("submission %s: another receipt than the one acknowledged", number)
		}
	}
	auditedAfterLoss(t, a)
	if a.Status(ctx).Spool.PutAgain == 0 {
		t.Error("the spool put nothing again: the store had lost nothing that it knew of")
	}
	b.Close(a)
	if err := sp.Close(); err != nil {
		t.Fatal(err)
	}
}

// loseFiles removes the files written since, and tells how many.
func loseFiles(t *testing.T, root string, since time.Time) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, ".sgwtmp") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.ModTime().After(since) {
			n++
			return os.Remove(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
