package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/marchesud/perenne/storage"
)

// Stand opens a ledger for whoever has to mend it: as far as it can be read, without writing and without telling
// Applied of anything. cause is what Open would say, nil when it would open: a *Damage, *Fork or *Rollback, or the
// error of a store that does not give a commit, for a while or for ever. There is a Log all the same, which stands
// before what is wrong. Close it before the ledger is opened.
func Stand(ctx context.Context, cfg Config) (l *Log, cause, err error) {
	cfg.Applied, cfg.AppliedTo, cfg.Rider = nil, -1, nil
	if err := cfg.check(); err != nil {
		return nil, nil, fmt.Errorf("ledger of %s: %w", cfg.Producer, err)
	}
	x, err := openIndex(cfg.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("ledger of %s: %w", cfg.Producer, err)
	}
	l = &Log{cfg: cfg, index: x, turn: make(chan struct{}, 1), doubt: make(chan struct{}), closing: make(chan struct{}), waiting: newQueue(), cancel: func() {}}
	l.reset(start(), emptyHead(), nil)
	_, cause = l.find(ctx)
	if ctx.Err() == nil && !errors.Is(cause, ErrNoMark) && !errors.Is(cause, ErrHeads) {
		return l, cause, nil
	}
	return nil, nil, errors.Join(fmt.Errorf("ledger of %s: %w", cfg.Producer, cause), x.close())
}

// certain is a commit whose digest is certain.
type certain struct {
	number int64
	digest [32]byte
	from   int64 // nothing that lies under the numbers from here to number has the digest that the index says
}

// Digest is that of the bytes of commit n, as far as it is certain: the mark names it, or commit n+1, whose own digest is
// certain: going down from the mark costs one reading each. The index of a ledger that was read through is a local file,
// which vouches for nothing: its digest is believed where something that has it lies under the key, which costs one
// reading, and where nothing else says better. ErrRange behind the end of all that is known.
func (l *Log) Digest(ctx context.Context, n int64) ([32]byte, error) {
	head := l.Head()
	if _, digest, err := l.index.record(n); err == nil && n <= head.Number {
		if from, ok := l.above(ctx, n, head); ok {
			if sure, err := l.down(ctx, from, n); err == nil {
				return sure, nil
			}
		}
		return digest, nil
	}
	mark, ok := l.cfg.Heads.Get(l.cfg.Producer)
	if !ok || n < 0 || n > mark.Number {
		return [32]byte{}, fmt.Errorf("digest of commit %d: %w", n, ErrRange)
	}
	l.mu.RLock()
	from := l.certain
	l.mu.RUnlock()
	if from.digest == ([32]byte{}) || from.number < n {
		from = certain{mark.Number, mark.Commit, mark.Number}
	}
	digest, err := l.down(ctx, from, n)
	if err != nil {
		return digest, fmt.Errorf("digest of commit %d: %w", n, err)
	}
	return digest, nil
}

// above is the first commit from n on whose digest is certain, at the latest the head; false where the store gives too
// little to find it.
func (l *Log) above(ctx context.Context, n int64, head Head) (certain, bool) {
	l.mu.RLock()
	last := l.certain
	l.mu.RUnlock()
	silent := 0
	for at := n; at < head.Number; at++ {
		if last.from <= at && at <= last.number && last.digest != ([32]byte{}) {
			return certain{last.number, last.digest, n}, true
		}
		_, digest, err := l.index.record(at)
		if err != nil {
			return certain{}, false
		}
		b, err := readObject(ctx, l.cfg.Store, Key(l.cfg.Producer, at), "", MaxCommit)
		switch {
		case err == nil && sha256.Sum256(b) == digest:
			return certain{at, digest, n}, true
		case err == nil, errors.Is(err, storage.ErrNotFound):
			silent = 0
		default:
			silent++
		}
		if silent == maxSilent || ctx.Err() != nil {
			return certain{}, false
		}
	}
	return certain{head.Number, head.Commit, n}, true
}

// down goes from a commit whose digest is certain to n: each names the one before, and what is void in between. It keeps
// how far it came.
func (l *Log) down(ctx context.Context, from certain, n int64) ([32]byte, error) {
	for at := from; ; {
		l.mu.Lock()
		l.certain = at
		l.mu.Unlock()
		if at.number == n {
			return at.digest, nil
		}
		c, err := l.known(ctx, at.number, at.digest)
		if err != nil {
			return [32]byte{}, err
		}
		for _, e := range slices.Backward(c.Entries[:c.voids()]) {
			if at.number--; at.number == n {
				return c.voided(e).SHA256, nil
			}
		}
		at.number--
		at.digest, at.from = c.Previous, min(at.from, at.number)
	}
}

// Void reports whether the ledger, as far as its index goes, calls number n void.
func (l *Log) Void(n int64) bool {
	size, digest, err := l.index.record(n)
	return err == nil && n <= l.Head().Number && l.voidAt(n, size, digest) != nil
}

// Fits reports why b is not commit n of this ledger, nil when it is: the one whose digest is certain or, behind the
// end, the one that extends the last commit. There it is a *Fork when another version of the key extends it too.
func (l *Log) Fits(ctx context.Context, n int64, b []byte) error {
	digest, err := l.Digest(ctx, n)
	switch {
	case err == nil && sha256.Sum256(b) == digest:
		return nil
	case err == nil:
		return fmt.Errorf("%w: other bytes than those of commit %d", ErrCommit, n)
	case !errors.Is(err, ErrRange):
		return err
	}
	l.mu.RLock()
	ch := l.chain
	l.mu.RUnlock()
	if ch.number+1 != n {
		return fmt.Errorf("%w: the ledger stands at commit %d", ErrCommit, ch.number)
	}
	if _, err := l.extending(ch, n, b); err != nil {
		return err
	}
	all, unread, err := l.versions(ctx, n)
	if err = errors.Join(err, unread); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	for _, other := range all {
		if _, err := l.extending(ch, n, other); err == nil && !bytes.Equal(other, b) {
			return &Fork{l.cfg.Producer, n, "two commits extend the one before", [][]byte{other, b}}
		}
	}
	return nil
}
