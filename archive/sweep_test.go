package archive_test

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/storage/spool"
	"github.com/marchesud/perenne/storage/storagetest"
)

// swept is a store that counts how often it is swept.
type swept struct {
	*storagetest.Mem
	n atomic.Int64
}

func (s *swept) Sweep(context.Context) (int, error) {
	s.n.Add(1)
	return 2, nil
}

func TestAStoreIsSweptAtTheStartAlsoBehindASpool(t *testing.T) {
	s := &swept{Mem: storagetest.NewMem(t)}
	sp := openSpool(t, filepath.Join(t.TempDir(), "spool"), s, spool.Options{Quota: 1 << 30})
	b := archivetest.New(t, sp.Store())
	a := b.MustOpen()
	wants(t, b, "remains of interrupted uploads removed", "uploads=2")
	b.Close(a)
	if n := s.n.Load(); n != 1 {
		t.Errorf("swept %d times, want once", n)
	}
	if err := sp.Close(); err != nil {
		t.Fatal(err)
	}
}
