package ledger

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/marchesud/perenne/storage/storagetest"
)

// bucket is the store that polices its caller, with what these tests do behind the caller's back. The
// functions below are called one at a time.
type bucket struct {
	*storagetest.Mem
	t testing.TB

	mu sync.Mutex
	// put, when set, is asked before each creation: whether it happens, and what is answered.
	put func(key string) (apply bool, err error)
	// stat and get, when set, may fail a call.
	stat, get func(key string) error
	gets      int
}

func newBucket(t testing.TB) *bucket {
	b := &bucket{Mem: storagetest.NewMem(t), t: t}
	b.OnPut = func(key string) (bool, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.put == nil || strings.Contains(key, "/tiles/") {
			return true, nil
		}
		return b.put(key)
	}
	b.OnStat = func(key string) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.stat == nil {
			return nil
		}
		return b.stat(key)
	}
	b.OnGet = func(key string) (bool, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.gets++
		if b.get == nil {
			return true, nil
		}
		err := b.get(key)
		return err == nil, err
	}
	return b
}

func (b *bucket) has(key string) bool { return slices.Contains(b.Keys(), key) }

// swap makes data the only version of key; nil leaves none.
func (b *bucket) swap(key string, data []byte) {
	b.Forget(key)
	if data != nil {
		b.Plant(key, data)
	}
}

// clone returns an independent bucket with the same objects.
func (b *bucket) clone() *bucket {
	c := newBucket(b.t)
	c.Rollback(b.Snapshot())
	return c
}
