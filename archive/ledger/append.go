package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/storage"
)

// clockTolerance is how far the clock may be behind the last entry before writing stops.
const clockTolerance = 5 * time.Second

// An unknown outcome is looked into again after firstPause, then less and less often.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Pending is an entry to be appended.
type Pending struct {
	Entry Entry // its Time is set by the sequencer
	// Decide, if not nil, runs inside the sequencer when everything before the commit that will hold the
	// entry has been applied: whatever it reads is the state that commit extends. An error withdraws this
	// entry alone. It may run more than once, must be quick, and must not call Append or Refresh.
	Decide func(ctx context.Context) error
}

// Committed is an entry that is in the ledger.
type Committed struct {
	Index  int64 // of the entry
	Commit int64 // that holds it
	Time   time.Time
	Line   []byte
}

// pending is a Pending in the queue or in a batch.
type pending struct {
	Pending
	size int // bytes of its line
	done chan answer
}

type answer struct {
	committed Committed
	err       error
}

// queue holds the entries that wait for a commit, in the order they came.
type queue struct {
	mu     sync.Mutex
	list   []*pending
	closed bool
	wake   chan struct{}
}

func newQueue() queue { return queue{wake: make(chan struct{}, 1)} }

// add queues p unless the queue is closed.
func (q *queue) add(p *pending) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	q.list = append(q.list, p)
	q.poke()
	return nil
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// remove takes p out and reports whether it was still there.
func (q *queue) remove(p *pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.list, p)
	if i >= 0 {
		q.list = slices.Delete(q.list, i, i+1)
	}
	return i >= 0
}

// batch takes the entries of the next commit: the oldest, as many as fit, no two with the same key.
func (q *queue) batch(entries, size int) []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	var taken, left []*pending
	keys := map[string]bool{}
	for i, p := range q.list {
		size -= p.size + 1
		if len(taken) == entries || size < 0 {
			left = append(left, q.list[i:]...)
			break
		}
		if key := p.Entry.Key; key != "" && keys[key] {
			left = append(left, p)
			size += p.size + 1
			continue
		}
		keys[p.Entry.Key] = true
		taken = append(taken, p)
	}
	q.list = left
	if len(left) > 0 {
		q.poke()
	}
	return taken
}

// back puts a batch back to the front, so that the next one takes it with those that came meanwhile; false when the
// queue is closed.
func (q *queue) back(batch []*pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.list = append(slices.Clone(batch), q.list...)
	return true
}

// close refuses further entries and answers those that wait; false when it was closed before.
func (q *queue) close() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.closed = true
	for _, p := range q.list {
		p.done <- answer{err: ErrClosed}
	}
	q.list = nil
	return true
}

// Append adds an entry to the ledger and returns when its commit is durable in the bucket, marked on this
// machine, and applied. While one commit is written the next one fills. An error of Decide is returned as
// it is. When ctx ends first, the entry is withdrawn if it is not yet in a commit, else only the waiting is
// given up; an error that wraps storage.ErrUnknown too leaves open whether the entry got in. Where ctx has no deadline
// that is so too, with ErrBusy, once the outcome of the commit under way is not known for long ([Log.Unsettled]).
func (l *Log) Append(ctx context.Context, p Pending) (Committed, error) {
	if l.cfg.Signer == nil {
		return Committed{}, ErrReadOnly
	}
	p.Entry.Time = time.Unix(0, 0).UTC().Format(TimeLayout) // any time will do to check and measure the line
	line, err := p.Entry.Line()
	if err == nil && p.Entry.Type == CommitVoid {
		err = fmt.Errorf("%w: %s stands only where Void puts it", ErrEntry, CommitVoid)
	}
	if err != nil {
		return Committed{}, err
	}
	if err := l.Err(); err != nil {
		return Committed{}, err
	}
	w := &pending{p, len(line), make(chan answer, 1)}
	if err := l.waiting.add(w); err != nil {
		return Committed{}, err
	}
	var doubt <-chan struct{}
	if _, ends := ctx.Deadline(); !ends {
		doubt = l.inDoubt()
	}
	var why error
	select {
	case a := <-w.done:
		return a.committed, a.err
	case <-ctx.Done():
		why = ctx.Err()
	case <-doubt:
		why = l.busy()
	}
	if l.waiting.remove(w) {
		return Committed{}, why
	}
	return Committed{}, fmt.Errorf("%w: %w", storage.ErrUnknown, why)
}

// SetRider sets the function that is asked, once for each commit that has other entries, for the newest
// seal entry this ledger does not have yet; nil means none. It rides along and never makes a commit due.
// When another daemon's commit took the number it is asked anew.
func (l *Log) SetRider(rider func() *Entry) {
	l.riderMu.Lock()
	defer l.riderMu.Unlock()
	l.rider = rider
}

// sequence is the goroutine that writes commits, one at a time.
func (l *Log) sequence(ctx context.Context) {
	for {
		select {
		case <-l.waiting.wake:
		case <-l.closing:
			return
		}
		if err := l.take(ctx); err != nil {
			return
		}
		if batch := l.batch(); len(batch) > 0 {
			l.write(ctx, batch)
		}
		l.release()
		// Those just answered often come back at once: let them join the ones who wait already, instead of
		// writing two half-full commits in turn.
		runtime.Gosched()
	}
}

// batch takes the entries of the next commit; room for a rider is left.
func (l *Log) batch() []*pending {
	return l.waiting.batch(l.cfg.MaxEntries-1, l.cfg.MaxBytes-MaxLine)
}

// write brings a batch into the ledger and answers each entry of it exactly once. The turn is held. A batch that lost
// its number takes with it what came meanwhile: so a lost number costs time, and no room in the commit that follows.
//
// What a crash leaves: before the object is created, nothing. After it, a commit that exists: the next
// Open, here or on any other machine, reads, marks and applies it. Nobody was told yes before that.
func (l *Log) write(ctx context.Context, batch []*pending) {
	const behind = 3 // so many numbers lost in a row mean that others are ahead: their commits are read first
	for lost := 1; ; lost++ {
		batch = l.decide(ctx, batch)
		if len(batch) == 0 {
			return
		}
		l.crash("commit.decided")
		c, next, stored, err := l.build(batch)
		if err != nil {
			fail(batch, err)
			return
		}
		l.crash("commit.put.before") // crash: nothing
		theirs, err := l.create(ctx, c)
		if err != nil {
			fail(batch, err)
			return
		}
		if theirs != nil {
			c = theirs
			if next, stored, err = l.chain.extend(c); err != nil {
				fail(batch, l.stop(err))
				return
			}
		}
		l.crash("commit.put.after") // crash: the commit exists; Open adopts it
		if err := l.adopt(ctx, c, next, stored, true); err != nil {
			fail(batch, fmt.Errorf("%w: %w", storage.ErrUnknown, err))
			return
		}
		if theirs == nil {
			for i, p := range batch {
				p.done <- answer{committed: c.committed(c.First + int64(i))}
			}
			return
		}
		l.followed.Add(1)
		if !l.waiting.back(batch) {
			fail(batch, ErrClosed)
			return
		}
		batch = l.batch()
		if lost%behind == 0 {
			if err := l.follow(ctx, true, -1); err != nil {
				fail(batch, err)
				return
			}
		}
	}
}

// fail answers a whole batch with err.
func fail(batch []*pending, err error) {
	for _, p := range batch {
		p.done <- answer{err: err}
	}
}

// decide asks each entry whether it still stands and answers those that do not.
func (l *Log) decide(ctx context.Context, batch []*pending) []*pending {
	if err := l.Err(); err != nil {
		fail(batch, err)
		return nil
	}
	standing := batch[:0]
	for _, p := range batch {
		if p.Decide != nil {
			if err := p.Decide(ctx); err != nil {
				p.done <- answer{err: err}
				continue
			}
		}
		standing = append(standing, p)
	}
	return standing
}

// checkClock returns ErrClock when entries could not be given a time that is true.
func (l *Log) checkClock() error {
	if l.cfg.Signer == nil {
		return nil
	}
	_, err := l.clock()
	return err
}

// clock returns the time of the next commit: now, but never before the last entry.
func (l *Log) clock() (string, error) {
	now := l.cfg.Now().UTC()
	text := now.Format(TimeLayout)
	if text >= l.chain.last {
		return text, nil
	}
	last, err := time.Parse(TimeLayout, l.chain.last)
	if err != nil {
		return "", fmt.Errorf("time of the last entry: %w", err)
	}
	if behind := last.Sub(now); behind > clockTolerance {
		return "", fmt.Errorf("%w by %v", ErrClock, behind.Round(time.Millisecond))
	}
	return l.chain.last, nil
}

// build makes and signs the commit that follows the head, with the entries of the batch and the rider.
func (l *Log) build(batch []*pending) (*Commit, chain, []tlog.Hash, error) {
	at, err := l.clock()
	if err != nil {
		return nil, chain{}, nil, err
	}
	c := &Commit{
		Producer: l.cfg.Producer, Origin: l.cfg.Origin,
		Number: l.chain.number + 1, First: l.chain.tree.size, Previous: l.chain.digest,
	}
	for _, p := range batch {
		e := p.Entry
		e.Time = at
		c.Entries = append(c.Entries, e)
		c.Lines = append(c.Lines, e.append(make([]byte, 0, p.size)))
	}
	if err := l.ride(c, at); err != nil {
		return nil, chain{}, nil, err
	}
	next, stored := l.chain.grow(c)
	c.Size, c.Root = next.tree.size, next.tree.root()
	if c.Checkpoint, err = (Checkpoint{c.Origin, c.Size, c.Root}).sign(l.cfg.Signer); err != nil {
		return nil, chain{}, nil, err
	}
	c.Bytes = c.encode()
	c.SHA256 = sha256.Sum256(c.Bytes)
	next.digest = c.SHA256
	return c, next, stored, nil
}

// ride adds the rider's entry, if it has one.
func (l *Log) ride(c *Commit, at string) error {
	l.riderMu.Lock()
	rider := l.rider
	l.riderMu.Unlock()
	if rider == nil {
		return nil
	}
	e := rider()
	if e == nil {
		return nil
	}
	r := *e
	r.Time = at
	line, err := r.Line()
	if err != nil {
		return fmt.Errorf("rider: %w", err)
	}
	c.Entries, c.Lines = append(c.Entries, r), append(c.Lines, line)
	return nil
}

// create puts commit c into the bucket and returns nil when it stands there alone. When somebody else's
// commit took the number, it returns that. An outcome that is not known is resolved by reading back; absent
// is still unknown, since a late request may yet arrive: then the same bytes are put again, until the
// answer is yes or exists. Only the end of ctx, or Close, leaves it open (storage.ErrUnknown). Once the pauses have grown
// to the longest, Unsettled says so.
func (l *Log) create(ctx context.Context, c *Commit) (theirs *Commit, err error) {
	defer l.unsettle(nil)
	doubt := false // whether an earlier attempt may have succeeded
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := l.cfg.Store.Put(ctx, Key(c.Producer, c.Number), bytes.NewReader(c.Bytes), l.options(c))
		switch {
		case err == nil:
			err = l.alone(ctx, c)
		case !doubt && (errors.Is(err, storage.ErrDigest) || errors.Is(err, storage.ErrKey) || errors.Is(err, storage.ErrFull)):
			return nil, fmt.Errorf("write commit %d: %w", c.Number, err)
		default:
			theirs, err = l.settle(ctx, c)
		}
		if err == nil {
			return theirs, nil
		}
		doubt = true
		var fork *Fork
		var damage *Damage
		if errors.As(err, &fork) {
			return nil, l.stop(err)
		}
		if errors.As(err, &damage) {
			return nil, err
		}
		if pause == lastPause {
			l.unsettle(fmt.Errorf("the outcome of commit %d is not known: %w", c.Number, err))
		}
		if l.pause(ctx, pause) != nil {
			return nil, fmt.Errorf("write commit %d: %w: %w", c.Number, storage.ErrUnknown, err)
		}
	}
}

// settle reads back what stands under the number of c: nil when it is c, the other commit when it is
// another that extends the same one.
func (l *Log) settle(ctx context.Context, c *Commit) (theirs *Commit, err error) {
	found, err := l.following(ctx, l.chain)
	if errors.Is(err, storage.ErrNotFound) { // or hidden by a delete marker
		found, err = l.judge(ctx, l.chain)
	}
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(found.Bytes, c.Bytes) {
		return found, nil
	}
	return nil, l.alone(ctx, c)
}

// alone wants exactly one version of the key just created. More mean that the store let two writers win,
// or that a delete marker had opened the number: either way there may be two histories.
func (l *Log) alone(ctx context.Context, c *Commit) error {
	there, err := storage.History(ctx, l.cfg.Store, Key(c.Producer, c.Number))
	if err != nil {
		return err
	}
	if len(there) == 1 && !there[0].Marker {
		return nil
	}
	all, _, err := l.versions(ctx, c.Number) // as far as they are given
	if err != nil {
		return err
	}
	return &Fork{c.Producer, c.Number, fmt.Sprintf("%d versions and delete markers, want one", len(there)), all}
}

// options describes c to the store.
func (l *Log) options(c *Commit) storage.PutOptions {
	o := storage.PutOptions{Size: int64(len(c.Bytes)), SHA256: c.SHA256}
	if l.cfg.RetainUntil != nil {
		at, _ := time.Parse(TimeLayout, c.Entries[0].Time) // written by clock
		o.RetainUntil = l.cfg.RetainUntil(at)
	}
	return o
}

// pause waits; it returns an error when the ledger is to close or ctx ends.
func (l *Log) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-l.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
