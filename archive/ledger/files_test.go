package ledger

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/marchesud/perenne/storage/dir"
)

// TestOnFiles has two daemons write to one store of plain files, each opened apart as two processes would.
func TestOnFiles(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	var logs []*Log
	var daemons []*daemon
	for range 2 {
		store, err := dir.Open(root, dir.Options{Immutable: dir.Off})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		d := newDaemon(t, nil)
		d.change = func(c *Config) { c.Store = store }
		daemons, logs = append(daemons, d), append(logs, d.mustOpen())
	}
	var wg sync.WaitGroup
	for w, l := range logs {
		wg.Go(func() {
			for i := range 3 {
				together(t, l, names(fmt.Sprintf("w%d-%d-", w, i), 60)...)
			}
		})
	}
	wg.Wait()
	waitFor(t, func() bool {
		for _, l := range logs {
			if l.Refresh(context.Background()) != nil {
				return false
			}
		}
		full, _ := logs[0].Tiled()
		return logs[0].Head() == logs[1].Head() && full == 1
	})
	if size := logs[0].Head().Size; size != 360 {
		t.Errorf("got %d entries want 360", size)
	}
	before, err := logs[0].Proof(context.Background(), 100)
	if err != nil {
		t.Fatal(err)
	}
	logs[0].Close()
	daemons[0].forget()
	daemons[0].applied = nil
	l := daemons[0].mustOpen()
	if after, err := l.Proof(context.Background(), 100); err != nil || string(after) != string(before) {
		t.Errorf("after losing the index: %v, or another proof", err)
	}
	size := int64(0)
	for c, err := range l.Walk(context.Background(), 0, -1) {
		if err != nil {
			t.Fatal(err)
		}
		size = c.Size
	}
	if size != 360 {
		t.Errorf("walk: got %d entries want 360", size)
	}
}
