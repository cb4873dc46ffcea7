package spool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/storage"
)

const (
	// youngest is the age below which nothing is read back, see the package comment.
	youngest = time.Minute
	// readers is how many objects are looked at at once.
	readers = 4
	// patience is how many objects may fail before a pass ends.
	patience = 8
	// longest is the most that an object whose turn has come waits after it failed.
	longest = 10 * time.Minute
	// rarest is the most that passes between two questions whether a copy was promised.
	rarest = time.Hour
	// abandoned is how long after the last answer nobody waits any more for an object that was never acknowledged.
	abandoned = 7 * 24 * time.Hour
)

// ErrUnnamed is the answer that nothing names the object yet: whoever put it may still be about to. See [Spool.Run].
var ErrUnnamed = errors.New("nothing names it yet")

// Run looks after what is held until ctx ends. sealed gives, for a room (what stands before a key's first slash), a
// time before which everything that was put there is covered by a seal: only such objects are given up. superseded is
// asked of a copy when the store has other bytes under its key, or when another copy of the key is held: whether it is
// certain that nobody was told yes for these bytes and that what is kept went on with others; an error means that it
// cannot be told now, [ErrUnnamed] among them that what is kept went on with neither. nil: never. Run is called once.
func (s *Spool) Run(
	ctx context.Context, sealed func(ctx context.Context, room string) time.Time,
	superseded func(ctx context.Context, key string, sum [32]byte) (bool, error),
) {
	tick := time.NewTicker(s.tick())
	defer tick.Stop()
	for {
		s.pass(ctx, sealed)
		s.contest(ctx, superseded)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			continue
		case <-s.kick:
		}
		// What failed just now may go on failing: not more than a look a second.
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// tick is how often Run looks.
func (s *Spool) tick() time.Duration { return min(max(s.opt.ReadBack/10, time.Second), youngest/2) }

// pass looks once at everything whose time has come, oldest first; at everything when the store has failed since
// the last time. What the store does not give is left for later, and when that happens often, all the rest.
func (s *Spool) pass(ctx context.Context, sealed func(ctx context.Context, room string) time.Time) {
	s.tend()
	surplus := s.surplus()
	list := s.list()
	now, until := s.opt.Now(), map[string]time.Time{}
	for _, it := range list {
		if _, asked := until[it.room()]; !asked {
			until[it.room()] = sealed(ctx, it.room())
		}
	}
	var failed atomic.Int64
	var first atomic.Pointer[error]
	g := &errgroup.Group{}
	g.SetLimit(readers)
	for _, it := range list {
		s.giveUp(ctx, it, until[it.room()])
	}
	for _, it := range list {
		if ctx.Err() != nil || failed.Load() >= patience {
			break
		}
		work := s.duty(it, now, until[it.room()], &surplus)
		if work == nil {
			continue
		}
		g.Go(func() error {
			err := s.look(ctx, it, work)
			s.giveUp(ctx, it, until[it.room()])
			if err != nil && ctx.Err() == nil {
				failed.Add(1)
				first.CompareAndSwap(nil, &err)
			}
			return nil
		})
	}
	_ = g.Wait() // it has none
	if n := failed.Load(); n > 0 {
		s.opt.Log.Warn("spool: the store does not answer for all that is held, tried again later", slog.Int64("failed", n), slog.Any("first", *first.Load()))
	}
}

// look does what is to be done with an item that nobody else uses. It takes as long as the line needs for the item: a
// store that stands still is for the store's own client to tell from a slow one.
func (s *Spool) look(ctx context.Context, it *item, work func(context.Context, *item) error) error {
	if !s.claim(ctx, it, false) {
		return nil
	}
	defer s.unclaim(it)
	err := work(ctx, it)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		it.pause, it.missing = 0, false
		return nil
	}
	it.pause = min(max(2*it.pause, s.tick()), longest)
	it.next = s.opt.Now().Add(it.pause)
	if errors.Is(err, errWithheld) {
		return nil // the store answered
	}
	return err
}

// recent is how far back what is held is looked at after the store failed: a server that went down has lost what it
// had not written out yet. What it lost before that is found when it is read back, and when one object was lost,
// everything is looked at.
const recent = time.Hour

// list gives what is held, oldest first, and notes what may be missing in the store.
func (s *Spool) list() []*item {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = slices.DeleteFunc(s.order, func(it *item) bool { return it.gone })
	if s.renewed {
		slices.SortStableFunc(s.order, oldest) // which takes little where nearly all are in order
		s.renewed = false
	}
	since := s.opt.Now().Add(-recent)
	for _, it := range s.order {
		it.missing = it.missing || s.alarmed || s.wary && it.at.After(since)
	}
	s.wary, s.alarmed = false, false
	return slices.Clone(s.order)
}

func oldest(a, b *item) int { return a.at.Compare(b.at) }

// duty says what is to be done with an item now; nil: nothing. What is read back early counts against the surplus.
func (s *Spool) duty(it *item, now, sealed time.Time, surplus *amount) func(context.Context, *item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := now.Sub(it.at)
	early := age >= youngest && it.at.Before(sealed) && (surplus.bytes > 0 || surplus.objects > 0)
	switch {
	case it.gone || it.leaving || it.rotten || now.Before(it.next) || it.users > 0:
		return nil
	case it.doubt:
		return s.resolve
	case !it.read && (age >= s.opt.ReadBack || early):
		surplus.bytes -= it.size
		surplus.objects--
		return s.resolve
	case it.missing:
		return s.seek
	}
	return nil
}

// seek makes sure that the store has something under the key. It is not read whole: that it is there says only
// that it was not lost.
func (s *Spool) seek(ctx context.Context, it *item) error {
	r, err := s.inner.Get(ctx, it.key, "", 0, 1)
	if errors.Is(err, storage.ErrNotFound) {
		return s.offer(ctx, it)
	}
	if err != nil {
		return err
	}
	return r.Close()
}

// resolve reads an item back. What was put or restored meanwhile is no longer what was read, and what was in doubt may
// have reached the store just now: for both the time begins anew.
func (s *Spool) resolve(ctx context.Context, it *item) error {
	s.mu.Lock()
	began := it.at
	s.mu.Unlock()
	same, err := s.compare(ctx, it, "")
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return s.offer(ctx, it)
	case err != nil:
		return fmt.Errorf("read back %s: %w", it.key, err)
	case !same:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conflicts(it)
		return nil
	}
	s.crash("spool.read") // crash: the copy, read back once more
	s.mu.Lock()
	defer s.mu.Unlock()
	if it.doubt {
		s.renew(it)
	} else {
		it.read = it.at.Equal(began)
	}
	it.stands()
	return nil
}

// conflicts notes that the store has other bytes under the key than those held. They are not touched; contest finds
// out what it means. The caller holds mu.
func (s *Spool) conflicts(it *item) {
	it.conflict, it.contested, it.read = true, true, false
	it.next = s.opt.Now().Add(max(s.opt.ReadBack/10, youngest))
}

// errWithheld means that a copy is not put before it is known whether its bytes count.
var errWithheld = errors.New("not put again before it is known whether these bytes count")

// withheld reports whether a copy must not be put now, and has contest find out whether it was ever promised: others
// took its key, or another copy of the key is held. Of several only the one that the store acknowledged is put, and
// none where that is not exactly one: what takes the key of an object that was lost is locked there. The caller holds mu.
func (s *Spool) withheld(it *item) bool {
	rivals, put := 0, 0
	for _, o := range s.items[it.key] {
		if o.sum != it.sum && !o.leaving {
			rivals++
			if o.put {
				put++
			}
		}
	}
	if it.contested || rivals == 0 || it.put && put == 0 {
		return it.contested
	}
	it.contested = true
	s.call()
	return true
}

// Sift drops the copies of which it is certain, without reading anything, that they were never promised. Whoever keeps
// books of what was calls it before anything is read through the spool: a copy that an earlier process left would be put
// when its object is met missing.
func (s *Spool) Sift(ctx context.Context, never func(key string, sum [32]byte) bool) {
	s.mu.Lock()
	list := slices.Clone(s.order)
	s.mu.Unlock()
	for _, it := range list {
		if never(it.key, it.sum) {
			s.supersede(ctx, it)
		}
	}
}

// contest drops the copies whose keys others took and whose bytes nobody was promised, and says of all others that
// the store has other bytes. Nobody looks at a copy meanwhile: who is asked reads the store through this spool.
func (s *Spool) contest(ctx context.Context, superseded func(ctx context.Context, key string, sum [32]byte) (bool, error)) {
	for _, it := range s.contested() {
		over, err := false, error(nil)
		if superseded != nil {
			bounded, cancel := context.WithTimeout(ctx, time.Minute)
			over, err = superseded(bounded, it.key, it.sum)
			cancel()
		}
		switch {
		case ctx.Err() != nil:
			return
		case over, errors.Is(err, ErrUnnamed) && s.forlorn(it):
			s.supersede(ctx, it)
		case err != nil:
			s.askLater(it)
			s.opt.Log.Warn("spool: cannot be told yet whether a copy was ever promised", slog.String("key", it.key), slog.Any("err", err))
		default:
			s.askLater(it)
			s.promised(it)
		}
	}
}

// contested lists the copies of which it is to be found out now whether they were ever promised.
func (s *Spool) contested() []*item {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*item
	now := s.opt.Now()
	for _, it := range s.order {
		if it.contested && !it.gone && !it.leaving && it.users == 0 && !now.Before(it.ask) {
			list = append(list, it)
		}
	}
	return list
}

// forlorn reports whether a copy lost its key to others, and whoever offered it in this process was told neither yes nor
// no and has not come again for days: nobody waits for it any more.
func (s *Spool) forlorn(it *item) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return it.conflict && it.doubt && !it.put && !it.former && s.opt.Now().Sub(it.at) >= abandoned
}

// askLater puts off the question whether a copy was promised, for longer each time.
func (s *Spool) askLater(it *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it.wait = min(max(2*it.wait, s.tick()), rarest)
	it.ask = s.opt.Now().Add(it.wait)
}

// promised ends a contest: the copy may be what somebody was told yes for.
func (s *Spool) promised(it *item) {
	s.mu.Lock()
	it.contested = false
	s.mu.Unlock()
	s.accuse(it)
}

// supersede drops a copy that lost its key before anybody was told yes for it.
func (s *Spool) supersede(ctx context.Context, it *item) {
	if err := s.drop(ctx, it, true); err != nil {
		s.opt.Log.Error("copy not removed from the spool", slog.String("key", it.key), slog.Any("err", err))
		return
	}
	s.mu.Lock()
	gone := it.gone
	s.mu.Unlock()
	if !gone { // somebody puts it: later
		return
	}
	s.opt.Log.Info("spool: this object was never acknowledged, and another one has its key: copy dropped",
		slog.String("key", it.key), slog.String("sha256", hex.EncodeToString(it.sum[:])))
}

// accuse says, once, that the store has other bytes than those held, or lacks them and it cannot be told which of the
// copies of the key to put.
func (s *Spool) accuse(it *item) {
	s.mu.Lock()
	first, why := !it.accused, "the store has other bytes than were put: run perenne audit; the spool keeps its copy"
	if !it.conflict {
		why = "the spool holds several contents of one key, and cannot tell which was acknowledged: where the store lacks the object, perenne repair puts it back"
	}
	it.accused = true
	if first {
		s.alarms++
	}
	s.mu.Unlock()
	if first {
		s.opt.Log.Error(why, slog.String("key", it.key), slog.String("copy", s.path(s.nameOf(it))))
	}
}

// offer puts the bytes of an item that the store lacks, and begins its time anew.
func (s *Spool) offer(ctx context.Context, it *item) error {
	s.mu.Lock()
	withheld, lost := s.withheld(it), !it.doubt
	f, err := os.Open(s.path(it.name()))
	s.mu.Unlock()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.rots(it, err)
		return nil
	case err != nil:
		return fmt.Errorf("copy of %s: %w", it.key, err)
	}
	defer func() { _ = f.Close() }()
	if withheld {
		return fmt.Errorf("%s: %w", it.key, errWithheld)
	}
	if lost {
		s.opt.Log.Error("the store has lost an object, or never had it: the spool puts it again", slog.String("key", it.key), slog.Int64("bytes", it.size))
	}
	err = s.inner.Put(ctx, it.key, f, it.options())
	s.crash("spool.again") // crash: the copy with its old time
	there := false
	if errors.Is(err, storage.ErrExists) {
		same, compared := s.compare(ctx, it, "")
		switch {
		case errors.Is(compared, storage.ErrNotFound):
			// A delete marker that this store creates nothing over: the same bytes go on top of it.
			err = s.inner.Restore(ctx, it.key, f, it.options())
		case compared != nil:
			return compared
		case !same:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.conflicts(it)
			return nil
		default:
			there, err = true, nil
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, storage.ErrDigest) && s.differs(it, f):
		s.rots(it, err)
		return nil
	default:
		return fmt.Errorf("put %s again: %w", it.key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	it.stands()
	s.renew(it)
	if lost && !there {
		s.again[it.room()]++
		s.alarms++
		s.alarmed = true // what lost one may have lost more
	}
	return nil
}

// differs reports whether a copy was read whole and is not what its name says: a store that refuses the bytes may have
// got others from the line.
func (s *Spool) differs(it *item, f *os.File) bool {
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62))
	return err == nil && (n != it.size || [32]byte(h.Sum(nil)) != it.sum)
}

// rots says that a copy is not what it was.
func (s *Spool) rots(it *item, err error) {
	s.mu.Lock()
	it.rotten = true
	s.alarms++
	s.mu.Unlock()
	s.opt.Log.Error("a copy in the spool is damaged, and the store lacks the object: run perenne audit", slog.String("key", it.key), slog.Any("err", err))
}

// renew begins the item's time anew. That its file has the old name, since that says nearly the same, after a power cut, or
// because it could not be renamed, costs the next process an early reading. The caller holds mu.
func (s *Spool) renew(it *item) {
	it.at, it.read, s.renewed = s.stamp(), false, true
	if it.at.Sub(it.filed) < youngest {
		return
	}
	old, was := it.name(), it.filed
	it.filed = it.at
	if err := os.Rename(s.path(old), s.path(it.name())); err != nil {
		it.filed = was
		s.opt.Log.Warn("time of a copy in the spool not renewed", slog.String("key", it.key), slog.Any("err", err))
	}
}

// giveUp drops an item that was read back and is sealed, and that the store has not failed since.
func (s *Spool) giveUp(ctx context.Context, it *item, sealed time.Time) {
	s.mu.Lock()
	done := it.read && it.put && !it.missing && it.at.Before(sealed)
	s.mu.Unlock()
	if !done {
		return
	}
	if err := s.drop(ctx, it, false); err != nil {
		s.opt.Log.Error("copy not removed from the spool", slog.String("key", it.key), slog.Any("err", err))
	}
}

// heal has what is held of a key put again, because somebody met it missing. It reports whether it is worth
// asking the store once more.
func (s *Spool) heal(ctx context.Context, key string) bool {
	again := false
	for _, it := range s.holding(key) {
		if !s.claim(ctx, it, true) {
			continue
		}
		err := s.seek(ctx, it)
		s.unclaim(it)
		if errors.Is(err, errWithheld) {
			continue
		}
		if err != nil {
			s.opt.Log.Warn("spool: object met missing not put again yet", slog.String("key", key), slog.Any("err", err))
			continue
		}
		again = true
		s.mu.Lock()
		s.alert()
		s.mu.Unlock()
	}
	return again
}

// claim takes an item that no Put uses for looking at it. Where wait says so it waits for whoever looks at it
// already.
func (s *Spool) claim(ctx context.Context, it *item, wait bool) bool {
	for {
		s.mu.Lock()
		if it.users == 0 || it.gone {
			defer s.mu.Unlock()
			if it.gone || it.leaving || it.rotten {
				return false
			}
			it.users, it.looked = 1, make(chan struct{})
			return true
		}
		looked := it.looked
		s.mu.Unlock()
		if !wait || looked == nil {
			return false
		}
		select {
		case <-looked:
		case <-ctx.Done():
			return false
		}
	}
}

func (s *Spool) unclaim(it *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(it.looked)
	it.looked = nil
	it.users--
}
