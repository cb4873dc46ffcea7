package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/signing/evidence"
	"github.com/marchesud/perenne/storage"
)

// sealer makes the seals: one at a time in this daemon, and by conditional create one history among all.
type sealer struct {
	a    *Archive
	kick chan struct{}

	making sync.Mutex            // held by whoever makes a seal
	alone  bool                  // it was made sure, since the start, that no seal lies behind the last one read; guarded by making
	put    atomic.Pointer[int64] // number of the seal that is put, or may have been, and was not seen alone yet; written with making

	mu    sync.Mutex
	ended chan struct{}     // closed and replaced when an attempt has ended
	down  bool              // the last attempt failed
	left  map[string]string // ledgers that no seal can cover for now, and why
	asked int64             // how often a seal was made due
	since time.Time         // something is unsealed since then; zero when nothing is
	err   error             // of the last attempt, and of the ledgers left out

	// What is known of the other daemons.
	made   time.Time     // when the newest seal was made
	mine   bool          // and it was made here
	others time.Time     // when a seal made elsewhere was last read; zero: never
	round  time.Duration // what one seal took here last
	lost   int           // numbers lost in a row

	doubt string // what was said of seal.Index.Doubted
}

func newSealer(a *Archive) *sealer {
	return &sealer{a: a, kick: make(chan struct{}, 1), ended: make(chan struct{}), left: map[string]string{}}
}

// alarm says something that needs a person.
func (s *sealer) alarm(text string, args ...any) {
	s.a.metrics.alarms.Inc()
	s.a.cfg.Log.Error(text, args...)
}

// wait waits until an entry is sealed, where seals are made at once; a bounded time, since the receipt can be
// had later, and none at all while seals fail. It makes the seal due.
func (s *sealer) wait(ctx context.Context, producer string, entry int64) {
	if _, ok := s.a.seals.Of(producer, entry); ok {
		return
	}
	s.retry()
	if s.a.cfg.SealEvery > 0 || s.a.cfg.SealWait <= 0 {
		return
	}
	deadline := time.NewTimer(s.a.cfg.SealWait)
	defer deadline.Stop()
	for {
		changed := s.a.seals.Changed()
		ended, hopeless := s.attempt(producer)
		if _, ok := s.a.seals.Of(producer, entry); ok || hopeless {
			return
		}
		select {
		case <-changed:
		case <-ended:
		case <-deadline.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// attempt gives what is closed when the attempt under way, or the next one, has ended, and whether the last one
// tells that it is not worth waiting for.
func (s *sealer) attempt(producer string) (ended <-chan struct{}, hopeless bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended, s.down || s.left[producer] != ""
}

// run makes seals until ctx ends. What the last run left unsealed is sealed at once. While no TSA answers it tries
// again, at growing intervals up to a minute: submissions go on, and their receipts say that the seal is pending.
func (s *sealer) run(ctx context.Context) {
	s.look(ctx)
	pause := s.try(ctx, 0, false)
	kick, due := s.kick, s.dueIn()
	if s.a.cfg.SealEvery > 0 {
		kick = nil
	}
	for {
		waited := false // the whole pause: a submission that comes in between is no reason to grow it
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-after(due):
			if s.sealedMeanwhile(ctx) {
				due = s.dueIn()
				continue
			}
		case <-after(pause):
			waited = true
		}
		pause, due = s.try(ctx, pause, waited), s.dueIn()
	}
}

// dueIn is the time until the next seal is due here, where they are made at intervals; zero where they are not. The
// daemon that made the newest seal makes the next; the others wait a quarter of the interval longer, and a random
// part of another, so that several daemons buy one token an interval, and none is needed for that.
func (s *sealer) dueIn() time.Duration {
	every := s.a.cfg.SealEvery
	if every == 0 {
		return 0
	}
	s.mu.Lock()
	made, mine := s.made, s.mine
	s.mu.Unlock()
	wait := made.Add(every).Sub(s.a.cfg.Now())
	if !mine && !made.IsZero() {
		wait += every/4 + s.a.random(every/4)
	}
	if wait <= 0 { // long ago: nothing was there to be sealed
		return every
	}
	return min(wait, 2*every)
}

// sealedMeanwhile reads on when a seal is due here, and reports whether another daemon has made one within the interval.
func (s *sealer) sealedMeanwhile(ctx context.Context) bool {
	if err := s.a.refreshSeals(ctx); err != nil {
		return false // the attempt says so
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.a.cfg.Now().Sub(s.made) < s.a.cfg.SealEvery
}

// saw notes a seal that another daemon has made.
func (s *sealer) saw(at time.Time) {
	now := s.a.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.others = now
	if at.After(now) {
		at = now
	}
	if at.After(s.made) {
		s.made, s.mine = at, false
	}
}

// took notes what an attempt at a number took, and whether it was lost.
func (s *sealer) took(d time.Duration, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round = d
	if lost {
		s.lost++
		return
	}
	s.lost, s.made, s.mine = 0, s.a.cfg.Now(), true
}

// yield waits for about as long as a seal takes, and the longer the more numbers were lost in a row, where other
// daemons seal at once too: they read this one, and make theirs. Otherwise whoever is a little faster would have every
// number, and each loser drops a token.
func (s *sealer) yield(ctx context.Context) {
	const lately, longest = 10 * time.Second, 250 * time.Millisecond
	s.mu.Lock()
	pause, lost, others := min(s.round, longest), min(s.lost, 2), s.others
	s.mu.Unlock()
	if s.a.cfg.SealEvery > 0 || others.IsZero() || s.a.cfg.Now().Sub(others) > lately {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(pause + s.a.random(pause<<lost)):
	}
}

// try seals what can be sealed, and returns the pause after which to try again what cannot: zero when there is
// nothing. A ledger left out waits for the next interval, where there are any: it must not cost the others tokens.
func (s *sealer) try(ctx context.Context, pause time.Duration, waited bool) time.Duration {
	const longest = time.Minute
	err := s.all(ctx)
	s.mu.Lock()
	later := len(s.left) == 0 || s.a.cfg.SealEvery > 0
	s.mu.Unlock()
	if err == nil && later || ctx.Err() != nil {
		return 0
	}
	if waited || pause == 0 {
		pause = min(max(2*pause, time.Second), longest)
	}
	if err != nil {
		s.a.cfg.Log.Error("seal not made", slog.Any("err", err), slog.Duration("retry", pause))
	}
	return pause
}

// retry makes a seal due. From now on at the latest something is unsealed.
func (s *sealer) retry() {
	s.mu.Lock()
	s.asked++
	if s.since.IsZero() {
		s.since = s.a.cfg.Now()
	}
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// after is a timer that never fires for zero.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

// all makes seals until nothing is unsealed that can be sealed; where they are made at intervals, until what is in
// the ledgers now is sealed: what comes meanwhile waits for the next interval, and costs no token now.
func (s *sealer) all(ctx context.Context) error {
	until := s.sizes()
	for {
		more, err := s.one(ctx)
		if err == nil && more && (s.a.cfg.SealEvery == 0 || !s.reached(until)) {
			s.yield(ctx)
			continue
		}
		s.end(ctx, err)
		return err
	}
}

// sizes are the ledgers as they are now.
func (s *sealer) sizes() map[string]int64 {
	sizes := map[string]int64{}
	for _, code := range s.a.Producers() {
		if log := s.a.logOf(code); log != nil {
			sizes[code] = log.Head().Size
		}
	}
	return sizes
}

// reached reports whether the seals reach so far.
func (s *sealer) reached(sizes map[string]int64) bool {
	for code, size := range sizes {
		if s.a.seals.End(code) < size {
			return false
		}
	}
	return true
}

// end notes how an attempt has ended and tells those who wait.
func (s *sealer) end(ctx context.Context, err error) {
	s.look(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.err = err != nil, err
	for _, code := range slices.Sorted(maps.Keys(s.left)) {
		s.err = errors.Join(s.err, fmt.Errorf("%s left out: %s", code, s.left[code]))
	}
	close(s.ended)
	s.ended = make(chan struct{})
}

// look notes since when something is unsealed.
func (s *sealer) look(ctx context.Context) {
	s.mu.Lock()
	asked := s.asked
	s.mu.Unlock()
	unsealed, since := s.unsealed(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !unsealed && s.asked == asked: // nothing was committed while we looked
		s.since = time.Time{}
	case !since.IsZero():
		s.since = since
	case s.since.IsZero():
		s.since = s.a.cfg.Now()
	}
}

// unsealed tells whether a ledger has entries without a seal, and the time of the oldest, as far as it can be read.
func (s *sealer) unsealed(ctx context.Context) (found bool, since time.Time) {
	for _, code := range s.a.Producers() {
		log, _ := s.a.producers[code].state()
		if log == nil {
			continue
		}
		from := s.a.seals.End(code)
		if log.Head().Size <= from {
			continue
		}
		found = true
		if c, err := log.Entry(ctx, from); err == nil && (since.IsZero() || c.Time.Before(since)) {
			since = c.Time
		}
	}
	return found, since
}

// one makes one seal over everything unsealed and reports whether there was something.
func (s *sealer) one(ctx context.Context) (bool, error) {
	s.making.Lock()
	defer s.making.Unlock()
	began := s.a.cfg.Now()
	err := s.settle(ctx)
	s.sayDoubt()
	if err != nil {
		return false, err
	}
	n, leaves, tree, err := s.next(ctx, nil)
	if err != nil || len(n.Ranges) == 0 {
		return false, err
	}
	return true, s.make(ctx, began, n, leaves, tree)
}

// make gives the next seal its token and puts it, in an attempt that began then.
func (s *sealer) make(ctx context.Context, began time.Time, n *seal.Seal, leaves [][32]byte, tree *evidence.Tree) (err error) {
	a := s.a
	a.crash("seal.due")
	// Token. A crash here leaves nothing; the token is dropped.
	start := a.cfg.Now()
	if n.Token, err = a.cfg.Timestamper.Timestamp(ctx, n.Root); err != nil {
		return fmt.Errorf("timestamp: %w", err)
	}
	a.metrics.timestamps.Observe(a.cfg.Now().Sub(start).Seconds())
	a.noteToken(n.Token)
	a.crash("seal.token")

	// Put, conditionally: after it the seal is there for everybody. Who loses the number drops its token.
	object := n.Marshal()
	s.put.Store(&n.Number)
	err = a.put(ctx, seal.Key(n.Number), object, sha256.Sum256(object))
	if errors.Is(err, storage.ErrExists) {
		s.put.Store(nil)
		a.metrics.dropped.Inc()
		err := s.overtaken(ctx, n.Number)
		s.took(a.cfg.Now().Sub(began), true)
		return err
	}
	if err != nil {
		return err
	}
	a.crash("seal.stored") // leaves a seal that the next start reads
	// Whoever waits for the seal needs its tree at once: it is made while the store tells whether the seal is alone.
	var st *sealTree
	var making sync.WaitGroup
	making.Go(func() { st, _ = a.newSealTree(n, tree) }) // without it the tree is made when it is asked for
	err = s.seenAlone(ctx)
	making.Wait()
	if err != nil {
		return err
	}
	if st != nil {
		a.trees.keep(n.Number, st)
	}
	if err := a.seals.Add(n, object); err != nil {
		return err
	}
	a.crash("seal.noted")
	a.keepLeaves(n.Number, leaves)
	a.metrics.seals.Set(float64(n.Number))
	s.took(a.cfg.Now().Sub(began), false)
	return nil
}

// sayDoubt says once that the mark of the seals is not whole.
func (s *sealer) sayDoubt() {
	if why := s.a.seals.Doubted(); why != s.doubt {
		s.doubt = why
		s.alarm("this machine cannot tell whether seals are gone: compare with receipts or with the seals file of another machine, then move the damaged one away", slog.String("why", why))
	}
}

// overtaken reads on after a number was taken by somebody else. A store that says that the seal exists and does not
// give it is an error: to try again at once would ask for one token after the other.
func (s *sealer) overtaken(ctx context.Context, n int64) error {
	if err := s.a.seals.Reach(ctx, n); err != nil {
		return err
	}
	if s.a.seals.Head().Number < n {
		return fmt.Errorf("%s: the store says that it exists, and does not give it", seal.Key(n))
	}
	return nil
}

// next is the next seal but for its token, with its leaves and their tree. It has no ranges when nothing is unsealed.
func (s *sealer) next(ctx context.Context, voids []seal.Void) (*seal.Seal, [][32]byte, *evidence.Tree, error) {
	head := s.a.seals.Head()
	n := &seal.Seal{Number: head.Number + 1 + int64(len(voids)), Voids: voids}
	ranges, leaves, err := s.ranges(ctx)
	if err != nil || len(ranges) == 0 {
		return n, nil, nil, err
	}
	n.Ranges = ranges
	if head.Number >= 0 {
		n.Previous, n.PreviousToken = head.SHA256, head.Token
		leaves = append(leaves, head.Token)
	}
	leaves = append(leaves, n.VoidLeaves()...)
	leaves = seal.Sorted(leaves)
	n.Leaves = int64(len(leaves))
	tree := evidence.NewTree(leaves)
	n.Root, err = tree.Root()
	return n, leaves, tree, err
}

// maxRange bounds the commits of one producer in one seal, so that a backlog is sealed in pieces.
const maxRange = 4096

// ranges finds what is unsealed of each ledger, and its leaves. Of a ledger with a damaged commit only what lies
// before it is taken: the seals of the others do not wait for it.
func (s *sealer) ranges(ctx context.Context) ([]seal.Range, [][32]byte, error) {
	var ranges []seal.Range
	var leaves [][32]byte
	for _, code := range s.a.Producers() {
		r, own, err := s.rangeOf(ctx, code)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		s.leave(code, err)
		if r.End > r.First {
			ranges, leaves = append(ranges, r), append(leaves, own...)
		}
	}
	return ranges, leaves, nil
}

func (s *sealer) rangeOf(ctx context.Context, code string) (seal.Range, [][32]byte, error) {
	log := s.a.logOf(code)
	if log == nil {
		return seal.Range{}, nil, nil
	}
	head, from := log.Head(), s.a.seals.End(code)
	if head.Size <= from {
		return seal.Range{}, nil, nil
	}
	first, err := log.CommitOf(from)
	if err != nil {
		return seal.Range{}, nil, err
	}
	return seal.Collect(ctx, code, from, first, min(head.Number, first+maxRange-1), s.a.commits)
}

// leave notes that a ledger is left out of the seals because of err, or that it is not, and says so once.
func (s *sealer) leave(code string, err error) {
	s.mu.Lock()
	before := s.left[code]
	if err == nil {
		delete(s.left, code)
	} else {
		s.left[code] = err.Error()
	}
	s.mu.Unlock()
	if err != nil && before != err.Error() {
		s.alarm("no seal covers this ledger until it is repaired: run perenne audit", slog.String("producer", code), slog.Any("err", err))
	}
}

// refreshSeals reads the seals that other daemons have made.
func (a *Archive) refreshSeals(ctx context.Context) error {
	if err := a.sealsFork(); err != nil {
		return err
	}
	var err error
	switch put := a.sealer.put.Load(); {
	case put == nil:
		err = a.seals.Refresh(ctx)
	case *put > 0: // no paper rests on that one before it was seen alone
		err = a.seals.Reach(ctx, *put-1)
	}
	a.metrics.seals.Set(float64(a.seals.Head().Number))
	return err
}

// checkSeal judges a seal from the bucket: the token is good, and the root is that of the entries it covers. Where
// a commit cannot be read any more the root is left to the audit: the ledger of one body is no reason to stop the
// seals of all.
func (a *Archive) checkSeal(ctx context.Context, s *seal.Seal) error {
	token, err := a.cfg.Trust.Certificates.CheckToken(s.Token, s.Root)
	if err != nil {
		return err
	}
	a.sealer.saw(token.Time.Add(time.Second)) // many authorities count whole seconds
	a.catchUp(ctx, s)
	leaves, err := s.Digests(ctx, a.commits)
	if errors.Is(err, seal.ErrUnread) {
		if err := a.fits(ctx, s); err != nil {
			return err
		}
		a.sealer.alarm("root of a seal not checked: run perenne audit", slog.Int64("seal", s.Number), slog.Any("err", err))
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := s.Over(leaves); err != nil {
		return err
	}
	a.keepLeaves(s.Number, leaves)
	return nil
}

// catchUp reads the ledgers on that a seal covers beyond what is known here, together: a seal of many bodies, made by another
// daemon, would else take as many readings one after the other, and the next one here waits for it. What cannot be read
// now is met again by whoever needs it.
func (a *Archive) catchUp(ctx context.Context, s *seal.Seal) {
	const together = 8
	var reading errgroup.Group
	reading.SetLimit(together)
	for _, r := range s.Ranges {
		if log := a.logOf(r.Producer); log != nil && log.Head().Number < r.LastCommit {
			reading.Go(func() error {
				_ = log.Reach(ctx, r.LastCommit)
				return nil
			})
		}
	}
	_ = reading.Wait()
}

// fits holds the ranges of a seal against what is known of the ledgers without reading them, so that a seal over
// entries that do not exist is never believed for a damaged commit.
func (a *Archive) fits(ctx context.Context, s *seal.Seal) error {
	for _, r := range s.Ranges {
		log := a.logOf(r.Producer)
		if log == nil {
			if mark, ok := a.heads.Get(r.Producer); ok && (r.End > mark.Size || r.LastCommit > mark.Number) {
				return fmt.Errorf("it covers %d entries of %s, this machine knows of %d", r.End, r.Producer, mark.Size)
			}
			continue
		}
		if r.End > log.Head().Size {
			if err := log.Refresh(ctx); err != nil {
				return err
			}
		}
		last, err := log.CommitOf(r.End - 1)
		if err != nil {
			return err
		}
		if next, err := log.CommitOf(r.End); last != r.LastCommit || err == nil && next == last {
			return fmt.Errorf("it ends within commit %d of %s", last, r.Producer)
		}
	}
	return nil
}

// keepLeaves spares the commits the next reading. Without it evidence hangs on every commit that the seal covers.
func (a *Archive) keepLeaves(n int64, leaves [][32]byte) {
	if err := a.seals.Keep(n, leaves); err != nil {
		a.cfg.Log.Warn("leaves of a seal not kept", slog.Any("err", err))
	}
}

// logOf is the ledger of a producer served here; nil for others, and while it cannot be opened, or is closed.
func (a *Archive) logOf(producer string) *ledger.Log {
	p, ok := a.producers[producer]
	if !ok {
		return nil
	}
	return p.readable()
}

// commits reads a commit of any producer, also of one this daemon does not serve, or whose ledger stands still here
// while other daemons go on. ledger.ErrRange: it is none of those this machine knows of, after looking for those of
// other daemons.
func (a *Archive) commits(ctx context.Context, producer string, n int64) (*ledger.Commit, error) {
	if log := a.logOf(producer); log != nil {
		c, err := log.Commit(ctx, n)
		if !errors.Is(err, ledger.ErrRange) {
			return c, err
		}
		if log.Reach(ctx, n) == nil {
			return log.Commit(ctx, n)
		}
	}
	c, err := ledger.Read(ctx, a.cfg.Store, producer, n, a.cfg.Trust.Ledgers)
	mark, marked := a.heads.Get(producer)
	if marked && err != nil && n > mark.Number || !marked && errors.Is(err, storage.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ledger.ErrRange, err)
	}
	return c, err
}

// rider is the seal entry that rides along with the next commit of a ledger: the newest seal, once.
func (a *Archive) rider(p *producer) *ledger.Entry {
	if e := p.adopting(); e != nil {
		return e
	}
	head := a.seals.Head()
	p.mu.Lock()
	last := p.lastSeal
	p.mu.Unlock()
	if head.Number < 0 || head.Number <= last {
		return nil
	}
	return &ledger.Entry{
		Type: ledger.SealEntry, Seal: &head.Number, Root: hex.EncodeToString(head.Root[:]), Token: hex.EncodeToString(head.Token[:]),
		Object: seal.Key(head.Number), Size: head.Size, SHA256: hex.EncodeToString(head.SHA256[:]),
	}
}

// findLastSeal looks for the newest seal entry of a ledger in its last commits. Finding none costs at most a
// second entry for a seal that has one already.
func (a *Archive) findLastSeal(ctx context.Context, p *producer) {
	const depth = 64
	log, _ := p.state()
	head := log.Head().Number
	for n := head; n >= 0 && n > head-depth; n-- {
		c, err := log.Commit(ctx, n)
		if err != nil {
			return
		}
		for _, e := range slices.Backward(c.Entries) {
			if e.Type == ledger.SealEntry {
				p.mu.Lock()
				p.lastSeal = max(p.lastSeal, *e.Seal)
				p.mu.Unlock()
				return
			}
		}
	}
}
