package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage"
)

// A lock reaches to the horizon or to the retention date, whichever is nearer, and is set anew when less than half
// of the horizon is left: so an orphan is erasable within one horizon, and what the ledger names never is.

const (
	lockEvery = 24 * time.Hour
	// lockSlack is the part of the horizon that a lock may lie below half of it before it counts as short: for a
	// daemon that was away.
	lockSlack = 10
	// lockPause lies behind each extension, so that a round takes nothing from those who submit.
	lockPause = 2 * time.Millisecond
	// lockBatch is how many commits, or seals, are done between two writings of the note.
	lockBatch = 256
	// lockedSeals is the name of the note of the seals, beside those of the producers.
	lockedSeals = "seals"
	// maxFailed is how many locks may fail to be looked at, or extended, before a round is given up.
	maxFailed = 100
)

// LockRound is what one round over the locks did.
type LockRound struct {
	Looked, Extended int64
	Short            int64 // locks that were missing, or shorter than this rule leaves them
}

// shortLock reports whether a lock is missing or short: of an object that may be kept until end, zero for ever.
func (a *Archive) shortLock(until, end, now time.Time) bool {
	least := now.Add(a.cfg.LockHorizon/2 - a.cfg.LockHorizon/lockSlack)
	if !end.IsZero() && end.Before(least) {
		least = end
	}
	return least.After(now) && until.Before(least.Add(-time.Second))
}

// lockEnd is the retention date of a package; zero when it has none, or is not known.
func (a *Archive) lockEnd(p *producer, id string) time.Time {
	rec, ok, err := a.cfg.Catalog.ByID(p.Code, id)
	if err != nil || !ok || isRefusal(rec) {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, rec.Time)
	if err != nil {
		return time.Time{}
	}
	end, ends := p.Policy.RetainUntil(rec.Class, at)
	if !ends {
		return time.Time{}
	}
	return end
}

// lockDaily extends locks once a day until ctx ends.
func (a *Archive) lockDaily(ctx context.Context) {
	t := time.NewTicker(lockEvery)
	defer t.Stop()
	for {
		if _, err := a.ExtendLocks(ctx); err != nil && ctx.Err() == nil {
			a.metrics.alarms.Inc()
			a.cfg.Log.Error("locks not extended: the rest tomorrow", slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// ExtendLocks makes one round: the daily job, done now. It looks at the commits of the producers that run here and at
// what they name, at seals and at keys, as far as their locks may have less than half of the horizon left; notes in
// the state folder say up to where that is known, are written as it goes, and cost a second look when they are
// lost. Nothing that no commit names is touched.
func (a *Archive) ExtendLocks(ctx context.Context) (LockRound, error) {
	a.locking.Lock()
	defer a.locking.Unlock()
	r := &locking{a: a, now: a.cfg.Now(), asked: map[string]bool{}}
	var ok bool
	if r.locker, ok = a.cfg.Store.(storage.Locker); !ok || !a.writable() {
		return LockRound{}, nil
	}
	var errs error
	for _, code := range a.Producers() {
		if log, why := a.producers[code].state(); log != nil && why == nil {
			errs = errors.Join(errs, a.relockDue(code), r.ledger(ctx, a.producers[code], log))
		}
	}
	errs = errors.Join(errs, a.relockDue(lockedSeals), r.seals(ctx), r.keys(ctx))
	a.metrics.locksExtended.Add(float64(r.done.Extended))
	a.metrics.locksShort.Set(float64(r.done.Short))
	if r.done.Short > 0 {
		a.metrics.alarms.Inc()
		a.cfg.Log.Error("locks were missing or short: somebody shortened them, or no daemon ran for long", slog.Int64("objects", r.done.Short), slog.Int64("extended", r.done.Extended))
	}
	if r.failed > 0 && errs == nil {
		errs = fmt.Errorf("%d locks could not be looked at or extended, of which: %w", r.failed, errors.Join(r.why...))
	}
	if errs == nil {
		a.lockRound.Store(&lastRound{r.done, r.now})
	}
	return r.done, errs
}

// lastRound is the last round that came to its end.
type lastRound struct {
	LockRound
	at time.Time
}

// locking is one round under way.
type locking struct {
	a      *Archive
	locker storage.Locker
	now    time.Time
	done   LockRound
	asked  map[string]bool // keys/ that were seen to
	failed int             // locks that could not be looked at, or extended
	why    []error         // the first of them
}

// lockNote says until when what belongs to numbers (commits, seals) is locked at least: stretches, from 0 on.
type lockNote struct {
	path      string
	Stretches []lockStretch `json:"stretches"`
}

type lockStretch struct {
	First int64     `json:"first"`
	End   int64     `json:"end"`
	Until time.Time `json:"until"`
}

func (a *Archive) lockNote(name string) *lockNote {
	n := &lockNote{path: filepath.Join(a.cfg.State, "locks-"+name)}
	b, err := os.ReadFile(n.path)
	if err != nil || json.Unmarshal(b, n) != nil {
		n.Stretches = nil
	}
	at := int64(0)
	for _, s := range n.Stretches {
		if s.First != at || s.End <= s.First {
			n.Stretches = nil // not as written: everything is looked at again
			break
		}
		at = s.End
	}
	return n
}

// due is the first batch that is to be looked at: whose locks may have less than half of the horizon left, or that
// was never looked at.
func (n *lockNote) due(size int64, half time.Time) (first, end int64, ok bool) {
	at := int64(0)
	for _, s := range n.Stretches {
		if s.Until.Before(half) {
			return s.First, min(s.End, s.First+lockBatch), true
		}
		at = s.End
	}
	return at, min(size, at+lockBatch), at < size
}

// set notes what was looked at.
func (n *lockNote) set(first, end int64, until time.Time) {
	var next []lockStretch
	add := func(s lockStretch) {
		switch last := len(next) - 1; {
		case s.End <= s.First:
		case last >= 0 && next[last].Until.Equal(s.Until):
			next[last].End = s.End
		default:
			next = append(next, s)
		}
	}
	for _, s := range n.Stretches {
		add(lockStretch{s.First, min(s.End, first), s.Until})
	}
	add(lockStretch{first, end, until})
	for _, s := range n.Stretches {
		add(lockStretch{max(s.First, end), s.End, s.Until})
	}
	n.Stretches = next
}

func (n *lockNote) write() error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := os.WriteFile(n.path+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(n.path+".new", n.path)
}

// stretches looks at all that is due below size, batch by batch; look returns until when what belongs to a number is
// locked at least.
func (r *locking) stretches(ctx context.Context, name string, size int64, look func(context.Context, int64) (time.Time, error)) error {
	note, half := r.a.lockNote(name), r.now.Add(r.a.cfg.LockHorizon/2)
	for {
		first, end, ok := note.due(size, half)
		if !ok {
			return nil
		}
		least := r.now.Add(r.a.cfg.LockHorizon)
		var again []int64 // what could not be locked any longer: it comes again tomorrow, not at once, and by itself
		for n := first; n < end; n++ {
			until, err := look(ctx, n)
			switch {
			case err != nil:
				return err
			case until.Before(half):
				again = append(again, n)
			case until.Before(least):
				least = until
			}
		}
		note.set(first, end, least)
		for _, n := range again {
			note.set(n, n+1, half)
		}
		if err := note.write(); err != nil {
			return fmt.Errorf("note of locks: %w", err)
		}
	}
}

// pass notes that one lock could not be looked at, or extended: the others do not wait for it, and it comes again tomorrow.
// An error ends the round: too many failed, or ctx has ended.
func (r *locking) pass(ctx context.Context, err error) error {
	const named = 10
	if r.failed++; r.failed > maxFailed || ctx.Err() != nil {
		return err
	}
	if r.failed <= named {
		r.why = append(r.why, err)
	}
	r.a.cfg.Log.Error("lock not looked at, or not extended", slog.Any("err", err))
	return nil
}

// ledger looks at the commits of one producer and what they name.
func (r *locking) ledger(ctx context.Context, p *producer, log *ledger.Log) error {
	return r.stretches(ctx, p.Code, log.Head().Number+1, func(ctx context.Context, n int64) (time.Time, error) {
		c, err := log.Commit(ctx, n)
		if commitDamaged(err) {
			return r.now, nil // the audit names it; once it is repaired what it names is looked at, the next day
		}
		if err != nil {
			return r.now, r.pass(ctx, fmt.Errorf("what commit %s names: %w", ledger.Key(p.Code, n), err))
		}
		size := int64(len(c.Bytes))
		if c.Void {
			size = -1 // what lies there is not read
		}
		least, err := r.object(ctx, ledger.Key(p.Code, n), size, hex.EncodeToString(c.SHA256[:]), time.Time{})
		for _, e := range c.Entries {
			if err != nil {
				return time.Time{}, err
			}
			switch {
			case e.Type == ledger.KeyAdded:
				sum := sha256.Sum256([]byte(e.VKey))
				err = errors.Join(r.key(ctx, hex.EncodeToString(sum[:])), r.key(ctx, e.Certificate))
			case namesObject(e):
				var end, until time.Time
				if e.Type == ledger.PackageSealed {
					end = r.a.lockEnd(p, e.ID)
				}
				until, err = r.object(ctx, e.Object, e.Size, e.SHA256, end)
				if end.IsZero() && until.Before(least) || !end.IsZero() && until.Before(least) && until.Before(end.Add(-time.Second)) {
					least = until
				}
			}
		}
		return least, err
	})
}

// seals looks at the seals that this machine knows of.
func (r *locking) seals(ctx context.Context) error {
	sums := map[int64][32]byte{}
	return r.stretches(ctx, lockedSeals, r.a.seals.Head().Number+1, func(ctx context.Context, n int64) (time.Time, error) {
		if _, ok := sums[n]; !ok {
			clear(sums)
			for i, sum := range r.a.seals.All() {
				if i >= n && i < n+lockBatch {
					sums[i] = sum
				}
			}
		}
		sum, ok := sums[n]
		if !ok {
			return r.now.Add(r.a.cfg.LockHorizon), nil
		}
		return r.object(ctx, seal.Key(n), -1, hex.EncodeToString(sum[:]), time.Time{})
	})
}

// keys looks at the keys in use; those that a ledger names are looked at with the commit that does.
func (r *locking) keys(ctx context.Context) error {
	for _, b := range r.a.cfg.Published {
		sum := sha256.Sum256(b)
		if err := r.key(ctx, hex.EncodeToString(sum[:])); err != nil {
			return err
		}
	}
	return nil
}

func (r *locking) key(ctx context.Context, name string) error {
	if name == "" || r.asked[name] {
		return nil
	}
	r.asked[name] = true
	_, err := r.object(ctx, "keys/"+name, -1, name, time.Time{})
	return err
}

// object looks at one object and extends its lock when it must. It returns the end of the lock: now, where that is not
// known. An object that is not there is the audit's to name; size -1 is not known.
func (r *locking) object(ctx context.Context, key string, size int64, sum string, end time.Time) (time.Time, error) {
	far := r.now.Add(r.a.cfg.LockHorizon)
	o, err := r.a.cfg.Store.Stat(ctx, key)
	if errors.Is(err, storage.ErrNotFound) {
		return far, nil
	}
	if err != nil {
		return r.now, r.pass(ctx, fmt.Errorf("look at lock of %s: %w", key, err))
	}
	v := o.Versions[0]
	if several(o.Versions) {
		m, err := matching(ctx, r.a.cfg.Store, key, size, sum, nil)
		if errors.Is(err, storage.ErrNotFound) {
			return far, nil
		}
		if err != nil {
			return r.now, r.pass(ctx, fmt.Errorf("look at lock of %s, which has several versions: %w", key, err))
		}
		for _, other := range o.Versions {
			if other.ID == m.id {
				v = other
			}
		}
	}
	r.done.Looked++
	if r.a.shortLock(v.RetainUntil, end, r.now) {
		r.done.Short++
		r.a.cfg.Log.Warn("lock missing or short", slog.String("key", key), slog.Time("until", v.RetainUntil))
	}
	want := far
	if !end.IsZero() && end.Before(want) {
		want = end
	}
	if half := r.now.Add(r.a.cfg.LockHorizon / 2); !v.RetainUntil.Before(half) || !want.After(v.RetainUntil) || !want.After(r.now) {
		return v.RetainUntil, nil
	}
	if err := r.locker.Extend(ctx, key, v.ID, want); err != nil {
		return v.RetainUntil, r.pass(ctx, fmt.Errorf("extend lock of %s: %w", key, err))
	}
	r.done.Extended++
	select {
	case <-time.After(lockPause):
	case <-ctx.Done():
	}
	return want, ctx.Err()
}

// checkLock names an object whose lock is missing or short. What was read says it, so nothing more is asked.
func (w *audit) checkLock(e ledger.Entry, got contents) {
	if !got.told {
		return
	}
	var end time.Time
	if !w.a.shortLock(got.until, end, w.began) {
		return
	}
	if e.Type == ledger.PackageSealed {
		end = w.a.lockEnd(w.p, e.ID)
	}
	w.loose = w.nameLock(e.Object, e.ID, got.until, end) || w.loose
}

// nameLock names a lock that is missing or short, of an object that may be kept until end, zero for ever.
func (w *audit) nameLock(key, id string, until, end time.Time) (short bool) {
	switch {
	case !w.a.shortLock(until, end, w.began):
		return false
	case until.IsZero():
		w.warn(key, "lock", id, "senza blocco: chi amministra lo storage può cancellarlo")
	default:
		w.warn(key, "lock", id, "il blocco finisce troppo presto, il "+strings.TrimSuffix(stamp(until), "Z"))
	}
	return true
}

// checkCommitLock names a commit whose lock is missing or short.
func (w *audit) checkCommitLock(number int64) {
	key := ledger.Key(w.p.Code, number)
	if until, told := w.locks.of(key, w.astray[short(key)]); told {
		w.loose = w.nameLock(key, "", until, time.Time{}) || w.loose
	}
}

// checkSealLock names a seal whose lock is missing or short.
func (w *audit) checkSealLock(number int64) {
	key := seal.Key(number)
	if until, told := w.locks.of(key, ""); told && w.nameLock(key, "", until, time.Time{}) {
		w.a.relock(lockedSeals)
	}
}

// checkKeyLock names an object under keys/ whose lock is missing or short. There are few, so the store is asked for it.
func (w *audit) checkKeyLock(ctx context.Context, name string) error {
	key := "keys/" + name
	o, err := w.a.cfg.Store.Stat(ctx, key)
	until := o.RetainUntil
	if err == nil && several(o.Versions) {
		var meant version
		meant, err = matching(ctx, w.a.cfg.Store, key, -1, name, nil)
		for _, v := range o.Versions {
			if v.ID == meant.id {
				until = v.RetainUntil
			}
		}
	}
	if err != nil {
		w.unchecked("il blocco di " + key + ": " + err.Error())
		return ctx.Err()
	}
	if w.nameLock(key, "", until, time.Time{}) {
		w.a.relock(w.p.Code)
	}
	return nil
}

// toldLocks is a store that remembers what it said of the locks of what was read from it, until that is asked for.
type toldLocks struct {
	storage.Store
	mu   sync.Mutex
	told map[string][]toldLock // by key, in the order in which the versions were read
}

type toldLock struct {
	version string
	until   time.Time
}

// of is the lock of a version of a key, of the one that was read last where version is "". It is remembered no longer.
func (s *toldLocks) of(key, version string) (until time.Time, told bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.told[key] {
		if version == "" || l.version == version {
			until, told = l.until, true
		}
	}
	delete(s.told, key)
	return until, told
}

// History implements [storage.Historian].
func (s *toldLocks) History(ctx context.Context, key string) ([]storage.Version, error) {
	return storage.History(ctx, s.Store, key)
}

// Get implements [storage.Store].
func (s *toldLocks) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	r, err := s.Store.Get(ctx, key, version, offset, n)
	d, dated := r.(storage.Described)
	if err != nil || !dated {
		return r, err
	}
	return &toldReader{ReadCloser: r, close: func() { s.note(key, d) }}, nil
}

// note remembers a lock. What nobody asks for, since it is no commit or seal, is forgotten where it becomes much.
func (s *toldLocks) note(key string, d storage.Described) {
	const most = 1 << 10
	l := toldLock{d.Version(), d.RetainUntil()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.told) > most || s.told == nil {
		s.told = map[string][]toldLock{}
	}
	s.told[key] = append(s.told[key], l)
}

// toldReader tells when it is closed, before it is.
type toldReader struct {
	io.ReadCloser
	close func()
}

func (r *toldReader) Close() error {
	r.close()
	return r.ReadCloser.Close()
}

// relock has the next round look at every lock of a producer, or of the seals, again, after an audit that found one wanting; also when this
// process ends before. It does not wait for a round under way, which may take hours.
func (a *Archive) relock(code string) {
	if err := os.WriteFile(a.relockFile(code), nil, 0o644); err != nil {
		a.cfg.Log.Error("locks are not looked at again: the next audit asks for it again", slog.String("producer", code), slog.Any("err", err))
	}
}

// relockFile is there while relock asks for a round over everything.
func (a *Archive) relockFile(code string) string {
	return filepath.Join(a.cfg.State, "locks-"+code+".again")
}

// relockDue forgets what is noted of a producer's locks where relock asked for it. A crash between the two leaves the
// request, which costs a second look.
func (a *Archive) relockDue(code string) error {
	if _, err := os.Lstat(a.relockFile(code)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.Remove(a.lockNote(code).path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("note of locks: %w", err)
	}
	if err := os.Remove(a.relockFile(code)); err != nil {
		return fmt.Errorf("note of locks: %w", err)
	}
	return nil
}
