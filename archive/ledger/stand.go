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
	l = &Log{cfg: cfg, index: x, turn: make(chan struct{}, 1), closing: make(chan struct{}), waiting: newQueue(), cancel: func() {}}
	l.reset(start(), emptyHead(), nil)
	_, cause = l.find(ctx)
	if ctx.Err() == nil && !errors.Is(cause, ErrNoMark) && !errors.Is(cause, ErrHeads) {
		return l, cause, nil
	}
	return nil, nil, errors.Join(fmt.Errorf("ledger of %s: %w", cfg.Producer, cause), x.close())
}

// Digest is that of the bytes of commit n, as far as it is certain: the mark names it, the index of a ledger that was
// read through, or commit n+1, whose own digest is certain: going down from the mark costs one reading each. ErrRange behind the end of all that is known.
func (l *Log) Digest(ctx context.Context, n int64) ([32]byte, error) {
	if _, digest, err := l.index.record(n); err == nil && n <= l.Head().Number {
		return digest, nil
	}
	mark, ok := l.cfg.Heads.Get(l.cfg.Producer)
	if !ok || n < 0 || n > mark.Number {
		return [32]byte{}, fmt.Errorf("digest of commit %d: %w", n, ErrRange)
	}
	l.mu.RLock()
	at, digest := l.certain.number, l.certain.digest
	l.mu.RUnlock()
	if digest == ([32]byte{}) || at < n {
		at, digest = mark.Number, mark.Commit
	}
	for ; at > n; at-- {
		c, err := l.known(ctx, at, digest)
		if err != nil {
			return [32]byte{}, fmt.Errorf("digest of commit %d: %w", n, err)
		}
		for _, e := range slices.Backward(c.Entries[:c.voids()]) {
			if at--; at == n {
				return c.voided(e).SHA256, nil
			}
		}
		digest = c.Previous
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.certain.number, l.certain.digest = n, digest
	return digest, nil
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
