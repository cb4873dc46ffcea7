package spool

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/marchesud/perenne/storage"
)

// Put implements [storage.Store]: the bytes are held here, synced, before the store behind is asked. When that
// answers neither yes nor no they stay, and are put again later whatever the caller does.
func (s *Spool) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	return s.write(ctx, "put", s.inner.Put, key, r, o)
}

// Restore implements [storage.Restorer]. Bytes that are restored are held like those that are put.
func (s *Spool) Restore(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	return s.write(ctx, "restore", s.inner.Restore, key, r, o)
}

func (s *Spool) write(
	ctx context.Context, op string, to func(context.Context, string, io.ReaderAt, storage.PutOptions) error,
	key string, r io.ReaderAt, o storage.PutOptions,
) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if storage.Replaceable(key) {
		return to(ctx, key, plain(r, o), o)
	}
	st, staged := r.(*staging)
	if staged {
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.kept {
			return fmt.Errorf("%s %s: %w", op, key, errKept)
		}
	}
	it, err := s.hold(ctx, key, r, o)
	if err != nil {
		return fmt.Errorf("%s %s: spool: %w", op, key, err)
	}
	s.crash("spool.synced") // crash: the copy, which the next process puts
	if err = ctx.Err(); err != nil {
		return errors.Join(err, s.settle(ctx, it, refused))
	}
	err = to(ctx, key, plain(r, o), o)
	s.crash("spool.put.after") // crash: the copy and perhaps the object: equal
	if staged && err == nil {
		st.kept = true
	}
	return s.judge(ctx, it, err)
}

// plain hides what a reader can do beside reading, so that no store takes a Staged of ours for its own.
func plain(r io.ReaderAt, o storage.PutOptions) io.ReaderAt {
	if _, ok := r.(*staging); ok {
		return io.NewSectionReader(r, 0, o.Size)
	}
	return r
}

// verdict is what an answer of the store means for the copy.
type verdict int

const (
	unknown verdict = iota // keep; put again
	stored                 // keep until read back
	refused                // drop, unless an earlier try may have succeeded
	taken                  // the same; but where it may have, others took the key since
)

// judge finds out what the answer of the store means, and returns it.
func (s *Spool) judge(ctx context.Context, it *item, answer error) error {
	v := unknown
	switch {
	case answer == nil:
		v = stored
	case errors.Is(answer, storage.ErrExists):
		same, err := s.compare(ctx, it, "")
		switch {
		case err == nil && same:
			v = stored
		case err == nil:
			v = taken
		}
	case errors.Is(answer, storage.ErrUnknown):
	case errors.Is(answer, storage.ErrFull), errors.Is(answer, storage.ErrDigest), errors.Is(answer, storage.ErrKey):
		v = refused
	}
	if err := s.settle(ctx, it, v); err != nil {
		return errors.Join(answer, err)
	}
	return answer
}

// settle ends one use of an item with what it has shown. What the store took, or may have taken, it may lose from now
// on: the time of the item begins anew, also where it was read back already.
func (s *Spool) settle(ctx context.Context, it *item, v verdict) error {
	s.mu.Lock()
	it.users--
	tried := it.put || it.doubt || it.former
	switch v {
	case stored:
		it.stands()
		s.renew(it)
	case unknown:
		it.doubt = it.doubt || !it.put
		s.renew(it)
		s.alert()
	case taken:
		if tried {
			s.conflicts(it)
			s.call()
		}
	}
	drop := (v == refused || v == taken) && !tried && it.users == 0
	s.mu.Unlock()
	if !drop {
		return nil
	}
	if err := s.drop(ctx, it, true); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// stands notes that the store has the item, as an answer or a comparison has shown. The caller holds Spool.mu.
func (it *item) stands() {
	it.put, it.doubt, it.conflict, it.contested, it.accused, it.wait = true, false, false, false, false, 0
}

// alert makes Run look at everything as soon as the store answers. The caller holds mu.
func (s *Spool) alert() {
	s.wary = true
	s.call()
}

// call gives Run something to do at once.
func (s *Spool) call() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// hold makes the copy, or finds it: when it returns, the copy is durable and has one user more.
func (s *Spool) hold(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) (*item, error) {
	if it := s.use(key, o); it != nil {
		return it, nil
	}
	s.mu.Lock()
	at := s.stamp()
	s.mu.Unlock()
	it := &item{key: key, size: o.Size, sum: o.SHA256, retain: o.RetainUntil, at: at, filed: at, users: 1}
	if it.retain.Unix() <= 0 {
		it.retain = time.Time{}
	}
	var own storage.Staged
	if st, ok := r.(*staging); ok && !st.named {
		own = st.Staged
	}
	if own == nil {
		if err := s.room(o.Size, frees(key)); err != nil {
			return nil, err
		}
	}
	s.crash("spool.written") // crash: nothing, the bytes have no name
	var err error
	if own != nil {
		if err = s.local.Put(ctx, it.name(), own, o); err == nil {
			own := r.(*staging)
			own.named = true
			own.uncount() // the item is counted instead
		}
	} else {
		err = s.local.Put(ctx, it.name(), plain(r, o), o)
	}
	if errors.Is(err, storage.ErrUnknown) {
		// The copy may or may not outlive a power cut: that is not what was promised. It must not stay either.
		_ = os.Remove(s.path(it.name()))
	}
	if err != nil {
		if errors.Is(err, storage.ErrExists) || errors.Is(err, storage.ErrUnknown) {
			err = fmt.Errorf("copy not made: %s", err.Error()) // not the words of the store behind
		}
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(it)
	return it, nil
}

// use finds a copy of exactly these bytes.
func (s *Spool) use(key string, o storage.PutOptions) *item {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.items[key] {
		if it.size == o.Size && it.sum == o.SHA256 && !it.rotten && !it.leaving {
			it.users++
			return it
		}
	}
	return nil
}

// stamp is now, but later than any stamp before: names differ by it. The caller holds mu.
func (s *Spool) stamp() time.Time {
	now := time.Unix(0, s.opt.Now().UnixNano())
	if !now.After(s.last) {
		now = s.last.Add(1)
	}
	s.last = now
	return now
}

func (s *Spool) path(name string) string { return filepath.Join(s.opt.Dir, "held", name) }

// drop gives a copy up, unless somebody uses it. Not durably only what was read back is dropped. A removal that was
// begun is ended, and a copy that could not be removed is held on: the next process would put it again.
func (s *Spool) drop(ctx context.Context, it *item, durably bool) error {
	s.mu.Lock()
	if it.gone || it.leaving || it.users > 0 || !durably && !(it.read && it.put) {
		s.mu.Unlock()
		return nil
	}
	it.leaving = true
	name := it.name()
	s.mu.Unlock()
	var err error
	if durably {
		err = s.local.Erase(context.WithoutCancel(ctx), name, "", "dropped from the spool")
	} else { // what comes back after a power cut is read back once more
		err = os.Remove(s.path(name))
	}
	s.crash("spool.dropped")
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if it.leaving = false; err == nil {
		s.forget(it)
	}
	return err
}

// forget takes an item out of the books. The caller holds mu.
func (s *Spool) forget(it *item) {
	it.gone = true
	left := slices.DeleteFunc(s.items[it.key], func(o *item) bool { return o == it })
	if s.items[it.key] = left; len(left) == 0 {
		delete(s.items, it.key)
	}
	s.bytes -= it.size
	s.objects--
}

// compare reads what the store has under an item's key, whole, and tells whether it is the item.
func (s *Spool) compare(ctx context.Context, it *item, version string) (bool, error) {
	r, err := s.inner.Get(ctx, it.key, version, 0, -1)
	if err != nil {
		return false, err
	}
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return false, err
	}
	return n == it.size && [32]byte(h.Sum(nil)) == it.sum, nil
}
