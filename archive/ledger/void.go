package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/storage"
)

// Void numbers. Whoever may write to a bucket can put something under the next number of a ledger, and a lock then
// keeps it there. Commit n goes on behind void numbers m … n-1 from commit m-1: its first entries are a commit.void
// for each of them, in order, with the digest of what lies there, and no other entry of it is one.

// maxVoids bounds the void numbers before one commit.
const maxVoids = 512

// ErrNotVoid means that a number may not be called void.
var ErrNotVoid = errors.New("not void")

// voids is how many numbers before it a commit calls void.
func (c *Commit) voids() int64 {
	n := int64(0)
	for n < int64(len(c.Entries)) && c.Entries[n].Type == CommitVoid {
		n++
	}
	return n
}

// checkVoids wants the entries commit.void first, and of exactly the numbers before the commit; number 0 is never void.
func (c *Commit) checkVoids() error {
	n := c.voids()
	if n > maxVoids || n >= c.Number && n > 0 {
		return fmt.Errorf("%w: %d void numbers before commit %d", ErrCommit, n, c.Number)
	}
	for i, e := range c.Entries {
		if e.Type == CommitVoid && (int64(i) >= n || *e.Commit != c.Number-n+int64(i)) {
			return fmt.Errorf("%w: entry %d calls a number void that is not before commit %d", ErrCommit, c.First+int64(i), c.Number)
		}
	}
	return nil
}

// voided stands for the number that an entry of c calls void.
func (c *Commit) voided(e Entry) *Commit {
	v := &Commit{Producer: c.Producer, Origin: c.Origin, Number: *e.Commit, First: c.First, Size: c.First, Void: true}
	_, _ = hex.Decode(v.SHA256[:], []byte(e.SHA256)) // its form was checked
	return v
}

// voidAt stands for commit n when the index says that it is void: it added no entries.
func (l *Log) voidAt(n, size int64, digest [32]byte) *Commit {
	if n == 0 {
		return nil
	}
	if before, _, err := l.index.record(n - 1); err != nil || before != size {
		return nil
	}
	return &Commit{Producer: l.cfg.Producer, Origin: l.cfg.Origin, Number: n, First: size, Size: size, SHA256: digest, Void: true}
}

// beyond returns the commit that goes on from the chain behind void numbers; storage.ErrNotFound when there is none. Any
// other error says that what may be it was not given.
func (l *Log) beyond(ctx context.Context, ch chain) (*Commit, error) {
	none := storage.ErrNotFound
	for n := ch.number + 2; n <= ch.number+1+maxVoids; n++ {
		all, unread, err := l.versions(ctx, n)
		if errors.Is(err, storage.ErrNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		if unread != nil {
			none = unread
		}
		for _, b := range all {
			if c, err := l.extending(ch, n, b); err == nil {
				return c, nil
			}
		}
	}
	return nil, none
}

// readVoid stands for commit n of a ledger that is not open when a later one calls it void; else it returns why.
func readVoid(ctx context.Context, s storage.Store, producer string, n int64, v note.Verifiers, why error) (*Commit, error) {
	for at := n + 1; at <= n+maxVoids; at++ {
		b, err := readObject(ctx, s, Key(producer, at), "", MaxCommit)
		if err != nil {
			return nil, why
		}
		c, err := ParseCommit(b, producer, v)
		if err != nil || c.Number != at {
			continue // void itself, it may be
		}
		if first := at - c.voids(); first <= n {
			return c.voided(c.Entries[n-first]), nil
		}
		return nil, why
	}
	return nil, why
}

// Void lets a ledger that stands before number n go on, when what lies there, and under the numbers behind it, was
// signed by no key of ours: it creates the commit behind them. ErrNotVoid says why not: the ledger stands elsewhere; n was
// acknowledged by this machine; a commit of ours lies there or further on; only a delete marker does. It is for a person
// to know that no other machine holds commit n: a repair comes first.
//
// What lies under the void numbers is locked like a commit first, as far as the store has locks, so that the numbers
// stay taken; and looked at again after the commit was created, so that of this and a writer of commit n, who looks the
// other way round, at least one meets the other (*Fork).
func Void(ctx context.Context, cfg Config, n int64) (err error) {
	if cfg.Signer == nil {
		return ErrReadOnly
	}
	l, cause, err := Stand(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	var damage *Damage
	switch {
	case cause != nil && !judged(cause):
		return fmt.Errorf("ledger of %s: %w", cfg.Producer, cause)
	case cause == nil && l.head.Number >= n:
		return fmt.Errorf("%w: the ledger reads through commit %d", ErrNotVoid, n)
	case cause == nil:
		return fmt.Errorf("%w: nothing lies under number %d", ErrNotVoid, n)
	case !errors.As(cause, &damage) || damage.Key != Key(cfg.Producer, n) || l.head.Number != n-1:
		return fmt.Errorf("%w: the ledger does not stand still at %d: %w", ErrNotVoid, n, cause)
	case n == 0:
		return fmt.Errorf("%w: a ledger cannot begin behind a void number; use another code, or an empty bucket", ErrNotVoid)
	}
	entries, err := l.foreign(ctx, n)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%w: nothing lies under number %d: %w", ErrNotVoid, n, cause)
	}
	c, err := l.behind(n, entries)
	if err != nil {
		return err
	}
	theirs, err := l.create(ctx, c)
	if err != nil {
		return err
	}
	if theirs != nil {
		c = theirs
	}
	if c.Number == n {
		return fmt.Errorf("%w: commit %d came meanwhile", ErrNotVoid, n)
	}
	if err := l.again(ctx, n, c); err != nil {
		return err
	}
	next, stored, err := l.chain.extend(c)
	if err != nil {
		return err
	}
	return l.adopt(ctx, c, next, stored, true)
}

// again looks once more under the numbers that c, which was written, calls void. An error is never ErrNotVoid, which would
// say that nothing was changed.
func (l *Log) again(ctx context.Context, n int64, c *Commit) error {
	for ; n < c.Number; n++ {
		there, err := l.under(ctx, n)
		switch {
		case err != nil:
			return fmt.Errorf("number %d is void now; whether a commit of ours came to lie there meanwhile is not known: %w", n, err)
		case there.extends || there.signed:
			return &Fork{l.cfg.Producer, n, "a commit of ours came to lie under a number called void", [][]byte{c.Bytes}}
		}
	}
	return nil
}

// foreign makes the entries for n and the numbers behind it under which something lies, and locks that when it knows it
// all.
func (l *Log) foreign(ctx context.Context, n int64) ([]Entry, error) {
	var entries []Entry
	var lie []storage.Version
	for at := n; ; at++ {
		if at == n+maxVoids {
			return nil, fmt.Errorf("%w: more than %d numbers are taken", ErrNotVoid, maxVoids)
		}
		there, err := l.under(ctx, at)
		if err != nil {
			return nil, err
		}
		if there.nothing || there.extends && !there.signed && at > n {
			break // or the commit behind them: ours, or that of another machine
		}
		key := Key(l.cfg.Producer, at)
		switch {
		case there.extends, there.signed:
			return nil, fmt.Errorf("%w: %s was signed by a key of this ledger", ErrNotVoid, key)
		case len(there.foreign) == 0:
			return nil, fmt.Errorf("%w: only a delete marker lies under %s: a repair of that key removes it", ErrNotVoid, key)
		}
		number := at
		entries = append(entries, Entry{Type: CommitVoid, Commit: &number, SHA256: fmt.Sprintf("%x", there.newest)})
		lie = append(lie, there.foreign...)
	}
	locker, ok := l.cfg.Store.(storage.Locker)
	if !ok || l.cfg.RetainUntil == nil {
		return entries, nil
	}
	for _, v := range lie {
		if err := locker.Extend(ctx, v.Key, v.ID, l.cfg.RetainUntil(l.cfg.Now())); err != nil {
			return nil, fmt.Errorf("lock what lies under %s: %w", v.Key, err)
		}
	}
	return entries, nil
}

// lying is what lies under the number of a commit, in all versions.
type lying struct {
	nothing bool // not even a delete marker
	extends bool // a commit that goes on from the chain
	signed  bool // something else that a key of this ledger signed
	foreign []storage.Version
	newest  [32]byte // digest of the first of foreign
}

// under looks through all versions under a number. An error says that one of them could not be read.
func (l *Log) under(ctx context.Context, n int64) (lying, error) {
	var there lying
	key := Key(l.cfg.Producer, n)
	for v, err := range storage.Versions(ctx, l.cfg.Store, key) {
		if errors.Is(err, storage.ErrNotFound) {
			return lying{nothing: true}, nil
		}
		if err != nil {
			return there, err
		}
		b, err := readObject(ctx, l.cfg.Store, key, v.ID, MaxCommit)
		if err != nil {
			return there, err
		}
		if _, err := l.extending(l.chain, n, b); err == nil {
			there.extends = true
			continue
		}
		signed, err := l.signed(b)
		switch {
		case err != nil:
			return there, err
		case signed:
			there.signed = true
			continue
		}
		if there.foreign = append(there.foreign, v); len(there.foreign) == 1 {
			there.newest = sha256.Sum256(b)
		}
	}
	return there, nil
}

// signed reports whether bytes end in a checkpoint of this ledger that it does not have: whatever else was done to
// them, they may be what is left of a commit that somebody acknowledged. An old commit put here again is none.
func (l *Log) signed(b []byte) (bool, error) {
	i := bytes.LastIndex(b, []byte("\n"+l.cfg.Origin+"\n"))
	if i < 0 {
		return false, nil
	}
	cp, err := ParseCheckpoint(b[i+1:], l.cfg.Verifiers)
	if err != nil {
		return false, nil //nolint:nilerr // signed by nobody
	}
	if cp.Size > l.head.Size || cp.Size < 1 {
		return true, nil
	}
	root, err := tlog.TreeHash(cp.Size, l.index)
	return root != cp.Root, err
}

// behind makes and signs the commit behind void numbers.
func (l *Log) behind(n int64, entries []Entry) (*Commit, error) {
	at, err := l.clock()
	if err != nil {
		return nil, err
	}
	c := &Commit{
		Producer: l.cfg.Producer, Origin: l.cfg.Origin,
		Number: n + int64(len(entries)), First: l.chain.tree.size, Previous: l.chain.digest, Entries: entries,
	}
	for i := range entries {
		entries[i].Time = at
		line, err := entries[i].Line()
		if err != nil {
			return nil, err
		}
		c.Lines = append(c.Lines, line)
	}
	next, _ := l.chain.grow(c)
	c.Size, c.Root = next.tree.size, next.tree.root()
	if c.Checkpoint, err = (Checkpoint{c.Origin, c.Size, c.Root}).sign(l.cfg.Signer); err != nil {
		return nil, err
	}
	c.Bytes = c.encode()
	c.SHA256 = sha256.Sum256(c.Bytes)
	return c, nil
}
