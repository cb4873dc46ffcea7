package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// filler brings the words index up behind the records, in one goroutine.
//
// It alone writes to the index. Each step is a batch that carries the progress it makes; only when the
// index has made it durable are the feed entries it followed deleted, so that a crash repeats a step, which
// changes nothing. An index that fails is thrown away and filled again from the records.
type filler struct {
	c         *Catalog
	wake      chan struct{} // one token: there is something to do
	quit      chan struct{}
	done      chan struct{}
	applied   atomic.Int64  // changes since Open, to make way for them
	hurried   atomic.Int64  // callers in Wait
	hurry     chan struct{} // one token: one of them has just come
	abandoned bool          // the index no longer answers; not to be closed. Only after done is closed

	mu       sync.RWMutex // guards what follows
	words    *words       // nil while there is none
	progress progress
	pending  map[tenant]int64 // ops in the feed
	reason   string           // why the index was begun anew, "" if it was not
	moved    chan struct{}    // closed at the next progress
	suspect  error            // what a search found wrong with words
}

const (
	batchRecords = 2000
	// gap is how long the filler leaves to others between two steps while changes come: a batch of many records takes
	// much less of a processor than many batches. What comes after a quiet gap is followed at once.
	gap = time.Second
	// far is how many records behind it works a third of the time.
	far = 50_000
	// pause is how long the filler waits before it tries again what failed.
	pause = 5 * time.Second
	// patience is how long a batch may take. One of its library's goroutines may have died.
	patience = 2 * time.Minute
)

var errStuck = errors.New("words index does not answer")

func startFiller(c *Catalog, reason string) (*filler, error) {
	f := &filler{
		c: c, reason: reason,
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		pending: make(map[tenant]int64), moved: make(chan struct{}),
	}
	if err := f.open(); err != nil {
		if err := f.renew(err); err != nil {
			return nil, err
		}
	}
	err := c.db.Update(func(txn *badger.Txn) error {
		return eachFeed(txn, 0, func(seq uint64, ops []op) (bool, error) {
			if f.progress.scanned && seq <= f.progress.seq {
				return true, txn.Delete(feedKey(seq)) // followed before a crash
			}
			f.count(ops, 1)
			return true, nil
		})
	})
	if err != nil {
		return nil, errors.Join(err, f.words.close())
	}
	go f.run()
	return f, nil
}

func (f *filler) dir() string { return filepath.Join(f.c.o.Dir, wordsName) }

// open opens the index and holds its progress against the records.
func (f *filler) open() error {
	return guard(func() error {
		w, p, err := openWords(f.dir(), f.c.italian, false)
		if err != nil {
			return err
		}
		f.c.mu.RLock()
		m := f.c.meta
		f.c.mu.RUnlock()
		if p.seq > m.seq {
			return errors.Join(fmt.Errorf("%w: it is ahead of the records", errWords), w.close())
		}
		// In an empty catalog there is nothing to scan.
		p.scanned = p.scanned || m.tenant == 0
		f.mu.Lock()
		f.words, f.progress = w, p
		f.mu.Unlock()
		return nil
	})
}

// renew begins the index anew.
func (f *filler) renew(why error) error {
	f.mu.Lock()
	f.words, f.progress, f.reason, f.suspect = nil, progress{}, why.Error(), nil
	f.mu.Unlock()
	if err := os.RemoveAll(f.dir()); err != nil {
		return err
	}
	return f.open()
}

// stop ends the goroutine and closes the index; it tells whether that went well.
func (f *filler) stop() bool {
	close(f.quit)
	<-f.done
	if f.words == nil || f.abandoned {
		return false
	}
	return guard(f.words.close) == nil && f.suspect == nil
}

func (f *filler) count(ops []op, sign int64) {
	for _, o := range ops {
		if f.pending[o.tenant] += sign; f.pending[o.tenant] == 0 {
			delete(f.pending, o.tenant)
		}
	}
}

// notify tells of a change that was committed.
func (f *filler) notify(ops []op) {
	f.applied.Add(1)
	f.mu.Lock()
	f.count(ops, 1)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *filler) run() {
	defer close(f.done)
	for {
		before, start := f.applied.Load(), f.now()
		more, err := f.step()
		switch {
		case errors.Is(err, errStuck):
			f.abandoned = true
			return
		case errors.Is(err, ErrDamaged):
			f.c.doubt.Store(true)
			return
		case err != nil:
			if !f.sleep(pause) {
				return
			}
		case more && f.applied.Load() == before:
			if !f.sleep(0) {
				return
			}
		default:
			if !f.makeWay(f.now().Sub(start)) {
				return
			}
			if more {
				continue
			}
			select {
			case <-f.wake:
			case <-f.quit:
				return
			}
		}
	}
}

// makeWay waits after a step that took so long, unless somebody waits for the words; false means that it is time to stop.
func (f *filler) makeWay(took time.Duration) bool {
	if f.hurried.Load() > 0 {
		return f.sleep(0)
	}
	d := gap
	if f.backlog() > far {
		d = min(2*took, gap)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-f.quit:
		return false
	case <-f.hurry:
	case <-t.C:
	}
	return true
}

// backlog is the number of changes that the index has not followed.
func (f *filler) backlog() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var n int64
	for _, pending := range f.pending {
		n += pending
	}
	return n
}

func (f *filler) now() time.Time {
	if f.c.o.Now == nil {
		return time.Time{}
	}
	return f.c.o.Now()
}

// sleep waits; false means that it is time to stop.
func (f *filler) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-f.quit:
		return false
	case <-t.C:
		return true
	}
}

// step does one batch of work and tells whether there may be more. Trouble with the records is returned as
// ErrDamaged; trouble with the index begins it anew.
func (f *filler) step() (more bool, err error) {
	f.mu.RLock()
	w, p, suspect := f.words, f.progress, f.suspect
	f.mu.RUnlock()
	if w == nil {
		return true, f.renew(errors.New(f.reason))
	}
	if suspect != nil {
		return true, f.renew(errors.Join(suspect, guard(w.close)))
	}
	if err := f.room(); err != nil {
		return false, err
	}
	var s step
	err = guard(func() (err error) {
		if p.scanned {
			s, err = f.follow(w, p)
		} else {
			s, err = f.scan(w, p)
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.next != p || s.again {
		if err := f.write(s); err != nil {
			return false, err
		}
	}
	swept, err := f.sweep()
	return s.next != p || s.again || swept, err
}

// step is a batch and what is true once it is written.
type step struct {
	batch *batch
	next  progress
	again bool // next may be the progress there was
	ops   []op // followed
	feed  []uint64
}

func (f *filler) write(s step) error {
	result := make(chan error, 1)
	go func() { result <- guard(func() error { return s.batch.write(s.next) }) }()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case err := <-result:
		if err != nil {
			return f.renew(errors.Join(err, guard(s.batch.w.close)))
		}
	case <-t.C:
		return errStuck
	}
	err := f.c.db.Update(func(txn *badger.Txn) error {
		for _, seq := range s.feed {
			if err := txn.Delete(feedKey(seq)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.progress = s.next
	f.count(s.ops, -1)
	close(f.moved)
	f.moved = make(chan struct{})
	f.mu.Unlock()
	return nil
}

// scan takes the next records in key order, leaving out tenants that were dropped.
func (f *filler) scan(w *words, p progress) (step, error) {
	live := make(map[tenant]bool)
	f.c.mu.RLock()
	for a := range maps.Values(f.c.accounts) {
		live[a.tenant] = true
	}
	f.c.mu.RUnlock()
	s := step{batch: w.newBatch(), next: p}
	txn := f.c.db.NewTransaction(false)
	defer txn.Discard()
	o := badger.DefaultIteratorOptions
	o.Prefix = []byte{kindRecord}
	it := txn.NewIterator(o)
	defer it.Close()
	from := recordKey(p.tenant, p.at)
	n := 0
	for it.Seek(from); it.Valid() && n < batchRecords; {
		t, at, err := parseRecordKey(it.Item().Key())
		if err != nil {
			return s, err
		}
		if !live[t] {
			it.Seek(tenantPrefix(kindRecord, t+1))
			continue
		}
		if t != p.tenant || at != p.at {
			err := it.Item().Value(func(v []byte) error {
				r, err := recordAt("", at, v)
				s.batch.put(t, at, &r)
				return err
			})
			if err != nil {
				return s, err
			}
			n++
		}
		s.next.tenant, s.next.at = t, at
		it.Next()
	}
	s.next.scanned = !it.Valid()
	return s, nil
}

func parseRecordKey(key []byte) (t tenant, at position, err error) {
	if len(key) != 1+4+len(at) {
		return 0, at, errRecord
	}
	return parseDocumentID(string(key[1:]))
}

// follow takes the next entries of the feed.
func (f *filler) follow(w *words, p progress) (step, error) {
	s := step{batch: w.newBatch(), next: p}
	txn := f.c.db.NewTransaction(false)
	defer txn.Discard()
	touched := make(map[op]bool)
	err := eachFeed(txn, p.seq+1, func(seq uint64, ops []op) (bool, error) {
		if len(ops) == 1 && ops[0].kind == opDrop {
			if len(touched) > 0 {
				return false, nil
			}
			left, err := w.dropSome(s.batch, ops[0].tenant)
			if s.again = left; !left {
				s.next.seq, s.ops, s.feed = seq, ops, []uint64{seq}
			}
			return false, err
		}
		for _, o := range ops {
			touched[o] = true
		}
		s.next.seq, s.ops, s.feed = seq, append(s.ops, ops...), append(s.feed, seq)
		return len(touched) < batchRecords, nil
	})
	for o := range touched {
		if err != nil {
			break
		}
		var r Record
		var found bool
		if r, found, err = byPosition(txn, "", o.tenant, o.at); found {
			s.batch.put(o.tenant, o.at, &r)
		} else {
			s.batch.remove(o.tenant, o.at)
		}
	}
	return s, err
}

// eachFeed calls f with the entries of the feed from a number on, while it answers true.
func eachFeed(txn *badger.Txn, from uint64, f func(seq uint64, ops []op) (bool, error)) error {
	o := badger.DefaultIteratorOptions
	o.Prefix = []byte{kindFeed}
	o.PrefetchSize = 8
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Seek(feedKey(from)); it.Valid(); it.Next() {
		seq, err := parseFeedKey(it.Item().Key())
		if err != nil {
			return err
		}
		more := false
		err = it.Item().Value(func(v []byte) error {
			ops, err := parseOps(v)
			if err == nil {
				more, err = f(seq, ops)
			}
			return err
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// sweep deletes some of what is left of dropped tenants and tells whether there was anything.
func (f *filler) sweep() (bool, error) {
	var some bool
	err := guard(func() error {
		return f.c.db.Update(func(txn *badger.Txn) error {
			var dropped []tenant
			err := each(txn, []byte{kindDropped}, false, func(key, _ []byte) error {
				t, err := parseDroppedKey(key)
				dropped = append(dropped, t)
				return err
			})
			if err != nil || len(dropped) == 0 {
				return err
			}
			some = true
			keys, err := keysOf(txn, dropped[0], batchRecords)
			if err == nil && len(keys) == 0 {
				keys = append(keys, droppedKey(dropped[0]))
			}
			for _, key := range keys {
				if err := txn.Delete(key); err != nil {
					return err
				}
			}
			return err
		})
	})
	return some, err
}

// keysOf lists up to n keys of a tenant.
func keysOf(txn *badger.Txn, t tenant, n int) (keys [][]byte, err error) {
	enough := errors.New("enough")
	for _, kind := range []byte{kindRecord, kindIdentity, kindKey, kindType} {
		err := each(txn, tenantPrefix(kind, t), false, func(key, _ []byte) error {
			if len(keys) >= n {
				return enough
			}
			keys = append(keys, append([]byte(nil), key...))
			return nil
		})
		if err != nil && !errors.Is(err, enough) {
			return nil, err
		}
	}
	return keys, nil
}

func (f *filler) room() error {
	f.c.writing.Lock()
	defer f.c.writing.Unlock()
	return f.c.room()
}

// behind tells how many records of a tenant the index has not seen yet; all, when it cannot say.
func (f *filler) behind(ctx context.Context, a account) int64 {
	f.mu.RLock()
	w, p, pending := f.words, f.progress, f.pending[a.tenant]
	f.mu.RUnlock()
	if w == nil {
		return a.records
	}
	if p.scanned {
		return pending
	}
	var n int64
	err := guard(func() (err error) {
		n, err = w.count(ctx, a.tenant)
		return err
	})
	if err != nil {
		return a.records
	}
	return max(a.records-n, pending, 0)
}

// distrust has the index begun anew, if it is still the one that was found wrong.
func (f *filler) distrust(w *words, why error) {
	f.mu.Lock()
	if f.words == w {
		f.suspect = why
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// WordsRebuilt tells whether the words index alone was begun anew since Open, and why.
func (c *Catalog) WordsRebuilt() (bool, string) {
	c.fill.mu.RLock()
	defer c.fill.mu.RUnlock()
	return c.fill.reason != "", c.fill.reason
}

// Wait returns once the words index has followed every change applied before the call. Meanwhile it is
// filled at full speed.
func (c *Catalog) Wait(ctx context.Context) error {
	f := c.fill
	f.hurried.Add(1)
	defer f.hurried.Add(-1)
	select {
	case f.hurry <- struct{}{}:
	default:
	}
	for {
		f.mu.RLock()
		reached, moved := f.words != nil && f.suspect == nil && f.progress.scanned && len(f.pending) == 0, f.moved
		f.mu.RUnlock()
		if reached {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for the words index: %w", ctx.Err())
		case <-f.done:
			return fmt.Errorf("wait for the words index: %w", ErrClosed)
		}
	}
}
