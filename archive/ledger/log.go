package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/storage"
)

// Config is what a ledger needs of the world.
type Config struct {
	Producer string // as it stands in keys
	Origin   string // of the checkpoints: <installation>/<producer>, fixed for ever

	// Signer signs checkpoints under the name Origin; nil opens for reading only. Verifiers holds every
	// key that ever signed, the signer's among them.
	Signer    note.Signer
	Verifiers note.Verifiers

	Store storage.Store
	Dir   string // of the local index; derived, deleted at will while no ledger is open on it
	Heads *Heads // the marks; may be shared by the ledgers of one process

	Now func() time.Time
	// RetainUntil says, from the time of a commit, how long the store shall lock it; nil asks for no lock.
	RetainUntil func(time.Time) time.Time

	// Applied is called once for each commit, in order, whoever wrote it; the next one is neither built
	// nor read before it returned. At Open it is called for all commits after AppliedTo (-1: for all). It
	// must not call Append or Refresh, and Head shows the commit only after it. An error stops the ledger:
	// it is opened anew and Applied called again for the same commit.
	Applied   func(context.Context, *Commit) error
	AppliedTo int64
	// Ahead, where not nil, is told at Open of commits that Applied is about to be called for, a few of them at a time and
	// in no order, so that it can read what applying takes. A commit it was told of may never be applied.
	Ahead func(context.Context, *Commit)

	// TrustBucketHead takes the bucket's word for the head where there is no mark. A ledger open for writing
	// then says so in an entry of type head.trusted, whose commit becomes the mark; one open for reading
	// leaves no mark.
	TrustBucketHead bool

	// Rider is what SetRider would be given, from the first entry that Open itself writes on.
	Rider func() *Entry

	// Crash is called with the label of each step of a commit. Tests arm it; nil otherwise.
	Crash func(label string)

	MaxEntries int // in one commit; 0 means 1,000
	MaxBytes   int // of the lines of one commit; 0 means 4 MiB
}

// Log is the ledger of one producer, open. All methods may be called concurrently.
type Log struct {
	cfg   Config
	index *index

	// turn is held by whoever moves the head: the sequencer, Refresh, a rebuilding of the index.
	turn chan struct{}

	mu         sync.RWMutex // guards the following, which are written only with turn held
	chain      chain
	head       Head
	checkpoint []byte
	recent     []*Commit     // the last few commits, for the proofs that are asked for at once
	broken     error         // why the ledger stopped
	suspended  error         // why nothing is written for now: see Hold
	unsettled  error         // why the outcome of the commit under way is not known yet, once that takes long
	doubt      chan struct{} // closed while unsettled is not nil
	certain    certain       // what Digest found last

	followed atomic.Int64 // commits of others adopted since Open

	waiting queue
	riderMu sync.Mutex
	rider   func() *Entry

	tiler   tiler
	closing chan struct{} // closed by Close
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// Open finds the head of a ledger and makes ready to read and write it.
//
// With a mark, the bucket must have exactly the commit the mark names (else *Rollback, *Fork or *Damage);
// the chain is verified from there on. Without one, the bucket must be empty of this producer, or be
// trusted (ErrNoMark). Then what lies behind the head is judged, the index is made complete, and Applied
// is called for what was not applied yet.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("open ledger of %s: %w", cfg.Producer, err)
	}
	x, err := openIndex(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open ledger of %s: %w", cfg.Producer, err)
	}
	l := &Log{cfg: cfg, index: x, turn: make(chan struct{}, 1), doubt: make(chan struct{}), closing: make(chan struct{}), waiting: newQueue(), rider: cfg.Rider}
	trusted, err := l.find(ctx)
	if err == nil {
		err = l.checkClock()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger of %s: %w", cfg.Producer, err), x.close())
	}
	l.run()
	if trusted && cfg.Signer != nil {
		n := l.head.Number
		e := Entry{Type: TrustedHead, Commit: &n, Previous: fmt.Sprintf("%x", l.head.Commit)}
		if _, err := l.Append(ctx, Pending{Entry: e}); err != nil {
			return nil, errors.Join(fmt.Errorf("open ledger of %s: record trust: %w", cfg.Producer, err), l.Close())
		}
	}
	return l, nil
}

// check completes the configuration and refuses what cannot work.
func (cfg *Config) check() error {
	switch {
	case storage.ValidKey(cfg.Producer) != nil || strings.Contains(cfg.Producer, "/"):
		return fmt.Errorf("producer %q cannot stand in a key", cfg.Producer)
	case !strings.HasSuffix(cfg.Origin, "/"+cfg.Producer):
		return fmt.Errorf("origin %q does not end in /%s", cfg.Origin, cfg.Producer)
	case cfg.Store == nil || cfg.Heads == nil || cfg.Verifiers == nil || cfg.Dir == "":
		return errors.New("store, marks, verifiers and directory are needed")
	}
	if cfg.Signer != nil {
		if cfg.Now == nil {
			return errors.New("a clock is needed to write")
		}
		if cfg.Signer.Name() != cfg.Origin {
			return fmt.Errorf("signer %q does not sign for origin %q", cfg.Signer.Name(), cfg.Origin)
		}
		if _, err := cfg.Verifiers.Verifier(cfg.Signer.Name(), cfg.Signer.KeyHash()); err != nil {
			return fmt.Errorf("own signatures could not be verified: %w", err)
		}
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = 1000
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 4 << 20
	}
	if cfg.MaxEntries < 2 || cfg.MaxBytes < 4*MaxLine || cfg.MaxBytes > MaxCommit/2 {
		return fmt.Errorf("a commit of %d entries and %d bytes is not possible", cfg.MaxEntries, cfg.MaxBytes)
	}
	return nil
}

// run starts the goroutines.
func (l *Log) run() {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	if l.cfg.Signer == nil {
		return
	}
	l.running.Go(func() { l.sequence(ctx) })
	if _, ok := l.cfg.Store.(storage.Replacer); ok {
		l.tiler.wake = make(chan struct{}, 1)
		l.tiler.wake <- struct{}{}
		l.running.Go(func() { l.tile(ctx) })
	}
}

// Close ends writing. A commit under way is finished, if the store lets it within ten seconds; entries not
// yet in a commit get ErrClosed.
func (l *Log) Close() error {
	if !l.waiting.close() {
		return nil
	}
	close(l.closing)
	late := time.AfterFunc(10*time.Second, l.cancel)
	defer late.Stop()
	l.running.Wait()
	l.cancel()
	return l.index.close()
}

// take waits for the turn to move the head.
func (l *Log) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Log) release() { <-l.turn }

// turnWait is how long the turn is waited for by those who only want to know what is new.
const turnWait = 30 * time.Second

// await is take for everybody but the sequencer, which has the turn for as long as the outcome of a commit is not known:
// that may be for ever, and the other ledgers must not wait for this one. ErrBusy: not now; at once while the sequencer
// says that it takes long, else after longest, where that is not zero.
func (l *Log) await(ctx context.Context, longest time.Duration) error {
	var late <-chan time.Time
	if longest > 0 {
		t := time.NewTimer(longest)
		defer t.Stop()
		late = t.C
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.inDoubt():
	case <-late:
	}
	return l.busy()
}

// busy is ErrBusy, with what is known of why.
func (l *Log) busy() error {
	if why := l.Unsettled(); why != nil {
		return fmt.Errorf("ledger of %s: %w: %w", l.cfg.Producer, ErrBusy, why)
	}
	return fmt.Errorf("ledger of %s: %w", l.cfg.Producer, ErrBusy)
}

// Unsettled returns why the outcome of the commit under way is not known yet, once it has been asked for many times: until
// it is, no entry gets in, and nothing that others wrote is read. Nil else. What the ledger has can be read.
func (l *Log) Unsettled() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.unsettled
}

// inDoubt is closed while Unsettled says why.
func (l *Log) inDoubt() <-chan struct{} {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.doubt
}

// unsettle says why the outcome of the commit under way is not known; nil, that it is.
func (l *Log) unsettle(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case why != nil && l.unsettled == nil:
		close(l.doubt)
	case why == nil && l.unsettled != nil:
		l.doubt = make(chan struct{})
	}
	l.unsettled = why
}

// Err returns why the ledger does not write: it stopped by itself, and is closed and opened anew, or Hold suspended it.
// Nil while it runs.
func (l *Log) Err() error {
	if err := l.stopped(); err != nil {
		return err
	}
	return l.suspension()
}

// stop makes err the reason why the ledger answers nothing but errors from now on.
func (l *Log) stop(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = fmt.Errorf("ledger of %s stopped: %w", l.cfg.Producer, err)
	}
	return l.broken
}

// stopped returns the reason given to stop.
func (l *Log) stopped() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.broken
}

// crash tells a test where we are.
func (l *Log) crash(label string) {
	if l.cfg.Crash != nil {
		l.cfg.Crash(label)
	}
}

// adopt makes c, which was checked to extend the chain, the head: index, mark, Applied. The turn is held.
// Any failure stops the ledger, since what is known of its end is then uncertain.
func (l *Log) adopt(ctx context.Context, c *Commit, next chain, stored []tlog.Hash, mark bool) error {
	if err := l.index.add(c, stored); err != nil {
		return l.stop(err)
	}
	l.crash("commit.indexed") // the index is ahead of the mark: Open cuts it off, and reads the commit again
	head := Head{Number: c.Number, Size: c.Size, Root: c.Root, Commit: c.SHA256}
	// The disk writes the mark while the commit is applied. Nobody is answered before both are done, and a crash may
	// leave either without the other: the next Open reads on from the mark, and applies from where applying ended.
	marked := make(chan error, 1)
	go func() {
		var err error
		l.crash("commit.mark.before")
		if mark {
			err = l.cfg.Heads.Set(l.cfg.Producer, head)
		}
		l.crash("commit.mark.after")
		marked <- err
	}()
	var err error
	if l.cfg.Applied != nil && c.Number > l.cfg.AppliedTo {
		if err = l.cfg.Applied(ctx, c); err != nil {
			err = fmt.Errorf("apply commit %d: %w", c.Number, err)
		}
	}
	if err := errors.Join(err, <-marked); err != nil {
		return l.stop(err)
	}
	l.crash("commit.applied")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chain, l.head, l.checkpoint = next, head, c.Checkpoint
	l.remember(c)
	l.tiler.poke() // also for a commit of another daemon, which may never have put the tiles it fills
	return nil
}

// remember keeps c at hand, and as many commits before it as fit into 4 MiB together.
func (l *Log) remember(c *Commit) {
	for _, e := range c.Entries[:c.voids()] {
		l.recent = append(l.recent, c.voided(e))
	}
	l.recent = append(l.recent, c)
	bytes, first := 0, len(l.recent)
	for first > 0 && len(l.recent)-first < 16 {
		if bytes += len(l.recent[first-1].Bytes); bytes > 4<<20 && first < len(l.recent) {
			break
		}
		first--
	}
	l.recent = slices.Clone(l.recent[first:])
}

// Refresh reads and applies the commits that others wrote since. A read that misses calls it first. It waits for a commit
// under way, but not without end (ErrBusy).
func (l *Log) Refresh(ctx context.Context) error { return l.readOn(ctx, -1) }

// Reach is Refresh for whoever knows that commit n was written, by a seal that covers it, and needs none behind it: what
// lies between is read together, and nothing is looked for that is not there yet.
func (l *Log) Reach(ctx context.Context, n int64) error {
	if l.Head().Number >= n {
		return nil
	}
	return l.readOn(ctx, n)
}

// readOn takes the turn and follows.
func (l *Log) readOn(ctx context.Context, to int64) error {
	if err := l.await(ctx, turnWait); err != nil {
		return err
	}
	defer l.release()
	if err := l.stopped(); err != nil {
		return err
	}
	return l.follow(ctx, l.marks(), to)
}

// follow adopts commits from the bucket until there is none, or up to number to where that is not negative. The turn is
// held. Where there is one there are often more: then several are read at a time, since a ledger that cannot be read as
// fast as others write it is never caught up with.
func (l *Log) follow(ctx context.Context, mark bool, to int64) error {
	read := func(ctx context.Context, n int64) ([]byte, error) {
		return readObject(ctx, l.cfg.Store, Key(l.cfg.Producer, n), "", MaxCommit)
	}
	for window := int64(1); ; window = min(2*window, readers) {
		next := l.chain.number + 1
		if to >= 0 {
			window = min(to-l.chain.number, readers)
		}
		if window <= 0 {
			return nil
		}
		for b, err := range ahead(ctx, next, next+window-1, read) {
			c, err := l.extends(ctx, l.chain, b, err)
			if errors.Is(err, storage.ErrNotFound) {
				return nil
			}
			if err == nil {
				// Whoever asked may go away meanwhile: a commit that was begun to be applied is applied whole.
				next, stored, _ := l.chain.extend(c)
				err = l.adopt(context.WithoutCancel(ctx), c, next, stored, mark)
				l.followed.Add(1)
			}
			var fork *Fork
			if errors.As(err, &fork) {
				return l.stop(err)
			}
			if err != nil {
				return err
			}
			if next++; l.chain.number >= next {
				break // it went on behind void numbers, which were read ahead too
			}
		}
	}
}

// Followed counts the commits that others wrote, of those adopted since Open.
func (l *Log) Followed() int64 { return l.followed.Load() }

// Head returns where the ledger stands.
func (l *Log) Head() Head {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head
}

// Checkpoint returns the newest signed note; nil while the ledger is empty.
func (l *Log) Checkpoint() []byte {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.checkpoint)
}

// CommitOf returns the number of the commit that holds an entry.
func (l *Log) CommitOf(index int64) (n int64, err error) {
	if size := l.Head().Size; index < 0 || index >= size {
		return 0, fmt.Errorf("entry %d of %d: %w", index, size, ErrRange)
	}
	return l.index.find(index)
}

// Commit returns commit n, read from the bucket and checked: a *Damage when it is not as the ledger says. For a void
// number it returns what stands for it ([Commit].Void).
func (l *Log) Commit(ctx context.Context, n int64) (*Commit, error) {
	var c *Commit
	err := l.healing(ctx, func() (err error) {
		c, err = l.commit(ctx, n)
		return err
	})
	return c, err
}

func (l *Log) commit(ctx context.Context, n int64) (*Commit, error) {
	l.mu.RLock()
	last, recent := l.head.Number, l.recent
	l.mu.RUnlock()
	if n < 0 || n > last {
		return nil, fmt.Errorf("commit %d after %d: %w", n, last, ErrRange)
	}
	if i := n - last + int64(len(recent)) - 1; i >= 0 && i < int64(len(recent)) {
		return recent[i], nil
	}
	size, digest, err := l.index.record(n)
	if err != nil {
		return nil, err
	}
	if c := l.voidAt(n, size, digest); c != nil {
		return c, nil
	}
	return l.known(ctx, n, digest)
}

// holding returns the commit that holds an entry.
func (l *Log) holding(ctx context.Context, index int64) (*Commit, error) {
	n, err := l.CommitOf(index)
	if err != nil {
		return nil, err
	}
	c, err := l.commit(ctx, n)
	if err != nil {
		return nil, err
	}
	if index < c.First || index >= c.Size {
		return nil, fmt.Errorf("%w: commit %d does not hold entry %d", errIndex, n, index)
	}
	return c, nil
}

// Entry returns one entry.
func (l *Log) Entry(ctx context.Context, index int64) (Committed, error) {
	var found Committed
	err := l.healing(ctx, func() error {
		c, err := l.holding(ctx, index)
		if err == nil {
			found = c.committed(index)
		}
		return err
	})
	return found, err
}

// committed returns what Append answers for an entry of c.
func (c *Commit) committed(index int64) Committed {
	i := index - c.First
	at, _ := time.Parse(TimeLayout, c.Entries[i].Time) // the form was checked when the entry was made or read
	return Committed{Index: index, Commit: c.Number, Time: at, Line: c.Lines[i]}
}

// Proof returns the stand-alone proof of an entry, a C2SP tlog-proof@v1 in the checkpoint of the entry's
// own commit, so that it is the same bytes whenever it is asked for. It is checked before it is returned.
func (l *Log) Proof(ctx context.Context, index int64) ([]byte, error) {
	return l.proof(ctx, index, func(own *Commit) (*Commit, error) { return own, nil })
}

// ProofIn is Proof in the checkpoint of commit n, which may be later than the entry's own: that of an entry
// without an object leads to a checkpoint that a seal covers.
func (l *Log) ProofIn(ctx context.Context, index, n int64) ([]byte, error) {
	return l.proof(ctx, index, func(own *Commit) (*Commit, error) {
		if n < own.Number {
			return nil, fmt.Errorf("proof of entry %d in commit %d, which is earlier: %w", index, n, ErrRange)
		}
		return l.commit(ctx, n)
	})
}

// proof makes and checks the proof of an entry in the commit that choose returns, given the entry's own.
func (l *Log) proof(ctx context.Context, index int64, choose func(own *Commit) (*Commit, error)) ([]byte, error) {
	var proof []byte
	err := l.healing(ctx, func() error {
		own, err := l.holding(ctx, index)
		if err != nil {
			return err
		}
		c, err := choose(own)
		if err != nil {
			return err
		}
		line := own.Lines[index-own.First]
		path, err := tlog.ProveRecord(c.Size, index, l.index)
		if err != nil {
			return err
		}
		if tlog.CheckRecord(path, c.Size, c.Root, index, Leaf(line)) != nil {
			return fmt.Errorf("%w: path of entry %d", errIndex, index)
		}
		proof = formatProof(index, line, path, c.Checkpoint)
		return nil
	})
	return proof, err
}

// Consistency returns the proof that the ledger, when it had size entries, began with the one it was when it
// had old (RFC 6962 §2.1.2); it is empty when old is 0 or equals size.
func (l *Log) Consistency(ctx context.Context, old, size int64) (tlog.TreeProof, error) {
	head := l.Head()
	if old < 0 || old > size || size > head.Size {
		return nil, fmt.Errorf("consistency of %d and %d, ledger has %d: %w", old, size, head.Size, ErrRange)
	}
	if old == 0 {
		return tlog.TreeProof{}, nil
	}
	var proof tlog.TreeProof
	err := l.healing(ctx, func() (err error) {
		if _, err = l.consistent(size, head.Size, head.Root); err != nil {
			return err
		}
		root, err := tlog.TreeHash(size, l.index)
		if err != nil {
			return err
		}
		proof, err = l.consistent(old, size, root)
		return err
	})
	return proof, err
}

// consistent proves, and checks, that the tree of a size whose root is authentic begins with that of a
// smaller one.
func (l *Log) consistent(old, size int64, root tlog.Hash) (tlog.TreeProof, error) {
	oldRoot, err := tlog.TreeHash(old, l.index)
	if err != nil {
		return nil, err
	}
	p, err := tlog.ProveTree(size, old, l.index)
	if err != nil {
		return nil, err
	}
	if tlog.CheckTree(p, size, root, old, oldRoot) != nil {
		return nil, fmt.Errorf("%w: trees of %d and %d entries", errIndex, old, size)
	}
	return p, nil
}

// Tile returns the hashes of a tile of the ledger (C2SP tlog-tiles, height 8), full or partial.
func (l *Log) Tile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	head := l.Head()
	t.H = tileHeight
	if t.L < 0 || t.L > 6 || t.N < 0 || t.W < 1 || t.W > tileWidth || t.N > head.Size/tileWidth ||
		t.N*tileWidth+int64(t.W) > head.Size>>(t.L*tileHeight) {
		return nil, fmt.Errorf("%s: %w", tilePath(t), ErrRange)
	}
	var data []byte
	err := l.healing(ctx, func() (err error) {
		data, err = readTile(t, head.Size, head.Root, l.index)
		return err
	})
	return data, err
}

// EntryBundle returns the first width entries of bundle n, 256 of which make a full one, each preceded by
// its length in two bytes, big endian (C2SP tlog-tiles).
func (l *Log) EntryBundle(ctx context.Context, n int64, width int) ([]byte, error) {
	leaves, err := l.Tile(ctx, tlog.Tile{H: tileHeight, L: 0, N: n, W: width})
	if err != nil {
		return nil, err
	}
	if width == tileWidth {
		b, err := readObject(ctx, l.cfg.Store, TileKey(l.cfg.Producer, bundle(n, width)), "", tileWidth*(MaxLine+2))
		if err == nil {
			if lines, err := parseBundle(b, width); err == nil && sameLeaves(lines, leaves) {
				return b, nil
			}
		}
	}
	var lines [][]byte
	err = l.healing(ctx, func() (err error) {
		lines, err = l.lines(ctx, n*tileWidth, width)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !sameLeaves(lines, leaves) {
		return nil, fmt.Errorf("bundle %d: %w", n, errTile)
	}
	return formatBundle(lines), nil
}

// lines returns count entries from the given one on, from their commits. The digest in the index vouches
// for a commit's bytes; the caller compares leaves.
func (l *Log) lines(ctx context.Context, from int64, count int) ([][]byte, error) {
	var lines [][]byte
	for len(lines) < count {
		next := from + int64(len(lines))
		n, err := l.CommitOf(next)
		if err != nil {
			return nil, err
		}
		c, err := l.parts(ctx, n)
		if err != nil {
			return nil, err
		}
		if next < c.First || next >= c.First+int64(len(c.Lines)) {
			return nil, fmt.Errorf("%w: commit %d does not hold entry %d", errIndex, n, next)
		}
		rest := c.Lines[next-c.First:]
		lines = append(lines, rest[:min(len(rest), count-len(lines))]...)
	}
	return lines, nil
}
