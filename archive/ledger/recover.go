package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/storage"
)

// find establishes the head at Open. It reports whether the bucket was taken at its word; then there is no
// mark yet, and the first commit written here will make it.
func (l *Log) find(ctx context.Context) (trusted bool, err error) {
	mark, ok := l.cfg.Heads.Get(l.cfg.Producer)
	if ok {
		err = l.resume(ctx, mark)
	} else {
		trusted, err = l.begin(ctx)
	}
	marks := !trusted && l.marks()
	if err == nil {
		err = l.follow(ctx, marks, -1)
	}
	if err == nil {
		err = l.nothingBehind(ctx, marks)
	}
	if err == nil && l.cfg.AppliedTo > l.head.Number {
		err = fmt.Errorf("commit %d applied, ledger ends at %d: %w", l.cfg.AppliedTo, l.head.Number, ErrAhead)
	}
	if err == nil && trusted && l.head.Number < 0 {
		return false, l.firstMark() // there is no head to trust
	}
	return trusted, err
}

// marks reports whether what is read moves the mark. Reading alone never makes one: it acknowledges nothing.
func (l *Log) marks() bool {
	_, ok := l.cfg.Heads.Get(l.cfg.Producer)
	return ok || l.cfg.Signer != nil
}

// firstMark marks an empty ledger, if it is open for writing.
func (l *Log) firstMark() error {
	if l.cfg.Signer == nil {
		return nil
	}
	return l.cfg.Heads.Set(l.cfg.Producer, l.head)
}

// begin is for a machine without a mark: the bucket is empty, and that is marked, or it is trusted.
func (l *Log) begin(ctx context.Context) (trusted bool, err error) {
	l.reset(start(), emptyHead(), nil)
	if err := l.index.truncate(0); err != nil {
		return false, err
	}
	for _, err := range l.cfg.Store.List(ctx, l.cfg.Producer+"/", "") {
		if err != nil {
			return false, fmt.Errorf("list %s/: %w", l.cfg.Producer, err)
		}
		if !l.cfg.TrustBucketHead {
			return false, ErrNoMark
		}
		return true, nil
	}
	return false, l.firstMark()
}

// reset sets where the ledger stands.
func (l *Log) reset(ch chain, head Head, checkpoint []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chain, l.head, l.checkpoint, l.recent = ch, head, checkpoint, nil
}

// resume holds the bucket against the mark, makes the index complete up to it, and has applied what was not.
func (l *Log) resume(ctx context.Context, mark Head) error {
	if mark.Number < 0 {
		l.reset(start(), mark, nil)
		return l.index.truncate(0)
	}
	c, err := l.marked(ctx, mark)
	if err != nil {
		return err
	}
	tree, err := l.complete(ctx, c)
	if err != nil {
		return err
	}
	l.reset(chain{c.Number, c.SHA256, tree, c.Entries[len(c.Entries)-1].Time}, mark, c.Checkpoint)
	return l.replay(ctx)
}

// marked reads the commit that the mark names.
func (l *Log) marked(ctx context.Context, mark Head) (*Commit, error) {
	c, err := l.known(ctx, mark.Number, mark.Commit)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		found, err := l.lastBefore(ctx, mark.Number)
		if err != nil {
			return nil, err
		}
		return nil, &Rollback{l.cfg.Producer, mark.Number, found}
	case errors.Is(err, errIndex):
		return nil, l.otherAt(ctx, mark)
	case err != nil:
		return nil, err
	case c.Size != mark.Size || c.Root != mark.Root:
		return nil, fmt.Errorf("mark of %s contradicts its own commit: %w", l.cfg.Producer, ErrHeads)
	}
	return c, nil
}

// Hold holds the bucket against the mark once more, as Open does. A ledger answers from what it has at hand, and would
// write on over a bucket that was set back under it: while the commit of the mark is not there, or is of another history,
// nothing is written ([Log.Err], *Rollback or *Fork), and what is kept can be read. A later Hold that finds it lets
// writing go on. An error that says nothing of what the bucket holds changes nothing.
func (l *Log) Hold(ctx context.Context) error {
	if err := l.await(ctx, turnWait); err != nil {
		return err
	}
	defer l.release()
	mark, ok := l.cfg.Heads.Get(l.cfg.Producer)
	if !ok || mark.Number < 0 {
		return nil
	}
	if was := l.suspension(); was != nil {
		if _, err := l.known(ctx, mark.Number, mark.Commit); errors.Is(err, storage.ErrNotFound) {
			return was // still: where the bucket ends was told
		}
	}
	_, err := l.marked(ctx, mark)
	var rollback *Rollback
	var fork *Fork
	if err == nil || errors.As(err, &rollback) || errors.As(err, &fork) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.suspended = err
	}
	return err
}

// Suspended reports whether Hold found the bucket set back, and not its end again.
func (l *Log) Suspended() bool { return l.suspension() != nil }

// suspension is what Hold found, nil where the bucket stood.
func (l *Log) suspension() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.suspended
}

// otherAt says what it means that the commit of the mark's number is not the one that was acknowledged: a
// fork when it carries another signed head, else damage.
func (l *Log) otherAt(ctx context.Context, mark Head) error {
	all, unread, err := l.versions(ctx, mark.Number)
	if err = errors.Join(err, unread); err != nil {
		return err
	}
	for _, b := range all {
		c, err := ParseCommit(b, l.cfg.Producer, l.cfg.Verifiers)
		if err == nil && c.Number == mark.Number && (c.Size != mark.Size || c.Root != mark.Root) {
			return &Fork{l.cfg.Producer, mark.Number, "a signed commit, but not the one that was acknowledged", all}
		}
	}
	return &Damage{Key: Key(l.cfg.Producer, mark.Number), Reason: "not the bytes that were acknowledged", cause: ErrCommit}
}

// lastBefore returns the number of the last commit in the bucket before n, -1 when there is none.
func (l *Log) lastBefore(ctx context.Context, n int64) (int64, error) {
	found := int64(-1)
	for v, err := range l.cfg.Store.List(ctx, l.cfg.Producer+"/ledger/", "") {
		if err != nil {
			return 0, fmt.Errorf("list %s/ledger/: %w", l.cfg.Producer, err)
		}
		if i, ok := ParseKey(l.cfg.Producer, v.Key); ok && !v.Marker && i < n {
			found = i
		}
	}
	return found, nil
}

// nothingBehind makes sure that no version of a later commit exists, not even a deleted one: a number that
// was used once would be used twice.
func (l *Log) nothingBehind(ctx context.Context, mark bool) error {
	after := ""
	if l.head.Number >= 0 {
		after = Key(l.cfg.Producer, l.head.Number)
	}
	for v, err := range l.cfg.Store.List(ctx, l.cfg.Producer+"/ledger/", after) {
		if err != nil {
			return fmt.Errorf("list %s/ledger/: %w", l.cfg.Producer, err)
		}
		n, ok := ParseKey(l.cfg.Producer, v.Key)
		if !ok || n <= l.head.Number {
			continue
		}
		before := l.head.Number
		if err := l.follow(ctx, mark, -1); err != nil {
			return err
		}
		if l.head.Number > before { // somebody is writing right now
			return l.nothingBehind(ctx, mark)
		}
		// A commit that a delete marker hides, one behind void numbers, or something else.
		look := l.judge
		if n > before+1 {
			look = l.beyond
		}
		c, err := look(ctx, l.chain)
		if err == nil {
			next, stored, _ := l.chain.extend(c)
			if err := l.adopt(ctx, c, next, stored, mark); err != nil {
				return err
			}
			return l.nothingBehind(ctx, mark)
		}
		if n == before+1 || !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		return &Damage{Key: Key(l.cfg.Producer, before+1), Reason: fmt.Sprintf("missing, but there is something under %s", v.Key)}
	}
	return nil
}

// replay calls Applied for the commits up to the head that were not applied yet.
func (l *Log) replay(ctx context.Context) error {
	if l.cfg.Applied == nil {
		return nil
	}
	read := func(ctx context.Context, n int64) (*Commit, error) {
		c, err := l.Commit(ctx, n)
		if err == nil && l.cfg.Ahead != nil {
			l.cfg.Ahead(ctx, c)
		}
		return c, err
	}
	for c, err := range ahead(ctx, l.cfg.AppliedTo+1, l.head.Number, read) {
		if err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		if c.Void {
			continue
		}
		if err := l.cfg.Applied(ctx, c); err != nil {
			return fmt.Errorf("apply commit %d: %w", c.Number, err)
		}
	}
	return nil
}

// healing runs read; if the index turns out to be damaged, it makes the index again and reads once more.
func (l *Log) healing(ctx context.Context, read func() error) error {
	err := read()
	if !errors.Is(err, errIndex) {
		return err
	}
	select {
	case <-l.closing:
		return ErrClosed
	default:
	}
	if err := l.await(ctx, 0); err != nil {
		return err
	}
	defer l.release()
	if err = read(); !errors.Is(err, errIndex) {
		return err // somebody else has just done it
	}
	c, err := l.known(ctx, l.head.Number, l.head.Commit)
	if err != nil {
		return err
	}
	if err := l.rebuild(ctx, c); err != nil {
		return err
	}
	if err = read(); !errors.Is(err, errIndex) {
		return err
	}
	// What bundles and headers say does not hold: reading everything says which commit is at fault.
	if err := l.refill(ctx, c); err != nil {
		return err
	}
	return read()
}

// complete makes the index hold exactly the commits up to c, whose digest is certain, and returns the tree.
// An index that is behind is carried on; one that is wrong is made again.
func (l *Log) complete(ctx context.Context, c *Commit) (tree, error) {
	if err := l.index.truncate(c.Number + 1); err != nil {
		return tree{}, err
	}
	if t, err := l.reaches(c); err == nil {
		return t, nil
	}
	if l.carryOn(ctx, c) == nil {
		if t, err := l.reaches(c); err == nil {
			return t, nil
		}
	}
	if err := l.rebuild(ctx, c); err != nil {
		return tree{}, err
	}
	return l.reaches(c)
}

// reaches returns the tree of the index if it is the one that c signed.
func (l *Log) reaches(c *Commit) (tree, error) {
	size, digest, err := l.index.record(c.Number)
	if err != nil {
		return tree{}, err
	}
	if size != c.Size || digest != c.SHA256 {
		return tree{}, fmt.Errorf("%w: record of commit %d", errIndex, c.Number)
	}
	t, err := readTree(size, l.index)
	if err == nil && t.root() != c.Root {
		err = fmt.Errorf("%w: root of %d entries", errIndex, size)
	}
	return t, err
}

// carryOn adds the commits that the index lacks.
func (l *Log) carryOn(ctx context.Context, c *Commit) error {
	n := l.index.length() - 1
	if n < 0 {
		return errIndex
	}
	size, digest, err := l.index.record(n)
	if err != nil {
		return err
	}
	t, err := readTree(size, l.index)
	if err != nil {
		return err
	}
	return l.fill(ctx, l.index, chain{number: n, digest: digest, tree: t}, c)
}

// fill adds to x the commits between the chain and c, and c.
func (l *Log) fill(ctx context.Context, x *index, ch chain, c *Commit) error {
	read := func(ctx context.Context, n int64) (*Commit, error) {
		if n == c.Number {
			return c, nil
		}
		b, err := readObject(ctx, l.cfg.Store, Key(l.cfg.Producer, n), "", MaxCommit)
		if err != nil {
			return nil, err
		}
		return ParseCommit(b, l.cfg.Producer, l.cfg.Verifiers)
	}
	at := ch.number
	for next, err := range ahead(ctx, ch.number+1, c.Number, read) {
		if at++; at <= ch.number {
			continue // void
		}
		var stored []tlog.Hash
		grown := ch
		if err == nil && next.Number != at {
			err = fmt.Errorf("%w: number %d under the key of %d", ErrCommit, next.Number, at)
		}
		if err == nil {
			grown, stored, err = ch.extend(next)
		}
		if err != nil && ctx.Err() == nil {
			// A key may have more than one version; the one that extends the chain counts.
			if next, err = l.judge(ctx, ch); err == nil {
				grown, stored, err = ch.extend(next)
			} else if key := Key(l.cfg.Producer, ch.number+1); errors.Is(err, storage.ErrNotFound) {
				err = &Damage{Key: key, Reason: "missing", cause: err}
			}
		}
		if err != nil {
			return err
		}
		if err := x.add(next, stored); err != nil {
			return err
		}
		ch = grown
	}
	if ch.digest != c.SHA256 {
		return &Damage{Key: Key(l.cfg.Producer, c.Number), Reason: "not the commit that the ledger leads to"}
	}
	return nil
}

// rebuild makes the index again from the bucket, up to c: from full entry bundles and the heads of the
// commits where these give the root that c signed, else from all commits.
func (l *Log) rebuild(ctx context.Context, c *Commit) error {
	err := l.index.replace(func(fresh *index) error { return l.fromBundles(ctx, fresh, c) })
	if err == nil || ctx.Err() != nil {
		return err
	}
	return l.refill(ctx, c)
}

// refill makes the index again from all commits.
func (l *Log) refill(ctx context.Context, c *Commit) error {
	return l.index.replace(func(fresh *index) error { return l.fill(ctx, fresh, start(), c) })
}

// fromBundles fills an index from bundles. It reads a few hundred bytes of each commit, and whole only
// those that hold entries behind the last full bundle.
func (l *Log) fromBundles(ctx context.Context, fresh *index, c *Commit) error {
	full := c.Size / tileWidth
	if full == 0 {
		return errTile
	}
	tail := int64(0) // the first commit with entries behind the bundles
	var before *Commit
	for h, err := range ahead(ctx, 0, c.Number, l.opening(c)) {
		if err != nil {
			return err
		}
		if before != nil {
			if err := fresh.writeRecord(before.Number, h.First, h.Previous); err != nil {
				return err
			}
			if h.First <= full*tileWidth {
				tail = h.Number
			}
		}
		before = h
	}
	if err := fresh.writeRecord(c.Number, c.Size, c.SHA256); err != nil {
		return err
	}
	t := tree{}
	if err := l.addBundles(ctx, fresh, &t, full); err != nil {
		return err
	}
	return l.addTail(ctx, fresh, &t, tail, c)
}

// opening reads the first lines of a commit.
func (l *Log) opening(last *Commit) func(context.Context, int64) (*Commit, error) {
	return func(ctx context.Context, n int64) (*Commit, error) {
		if n == last.Number {
			return last, nil
		}
		r, err := l.cfg.Store.Get(ctx, Key(l.cfg.Producer, n), "", 0, 512)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(r, 512))
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		c, _, _, err := parseHeader(b, l.cfg.Producer)
		if err == nil && c.Number != n {
			err = fmt.Errorf("%w: number %d under the key of %d", ErrCommit, c.Number, n)
		}
		return c, err
	}
}

// addBundles adds the entries of the full bundles.
func (l *Log) addBundles(ctx context.Context, fresh *index, t *tree, full int64) error {
	read := func(ctx context.Context, n int64) ([][]byte, error) {
		b, err := readObject(ctx, l.cfg.Store, TileKey(l.cfg.Producer, bundle(n, tileWidth)), "", tileWidth*(MaxLine+2))
		if err != nil {
			return nil, err
		}
		return parseBundle(b, tileWidth)
	}
	for lines, err := range ahead(ctx, 0, full-1, read) {
		if err != nil {
			return err
		}
		if err := fresh.grow(t, lines); err != nil {
			return err
		}
	}
	return nil
}

// addTail adds the entries behind the bundles and compares the root.
func (l *Log) addTail(ctx context.Context, fresh *index, t *tree, from int64, c *Commit) error {
	read := func(ctx context.Context, n int64) (*Commit, error) {
		if n == c.Number {
			return c, nil
		}
		b, err := readObject(ctx, l.cfg.Store, Key(l.cfg.Producer, n), "", MaxCommit)
		if err != nil {
			return nil, err
		}
		part, err := splitCommit(b, l.cfg.Producer)
		if _, digest, e := fresh.record(n); err == nil && (e != nil || sha256.Sum256(b) != digest) {
			err = errIndex
		}
		return part, err
	}
	for part, err := range ahead(ctx, from, c.Number, read) {
		if err != nil {
			return err
		}
		skip := t.size - part.First
		if skip < 0 || skip > int64(len(part.Lines)) {
			return fmt.Errorf("%w: commit %d begins at entry %d", errIndex, part.Number, part.First)
		}
		if err := fresh.grow(t, part.Lines[skip:]); err != nil {
			return err
		}
	}
	if t.size != c.Size || t.root() != c.Root {
		return fmt.Errorf("%w: bundles give another root", errIndex)
	}
	return nil
}
