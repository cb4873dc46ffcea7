package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/marchesud/perenne/storage"
)

// readers is how many objects are read ahead of the one that is wanted.
const readers = 4

// readObject reads at most limit bytes of an object.
func readObject(ctx context.Context, s storage.Store, key, version string, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, key, version, 0, -1)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return b, nil
}

// ahead yields read(from) … read(to) in order, with a few of them running at a time.
func ahead[T any](ctx context.Context, from, to int64, read func(context.Context, int64) (T, error)) iter.Seq2[T, error] {
	type outcome struct {
		value T
		err   error
	}
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var running []chan outcome
		next := from
		for {
			for len(running) < readers && next <= to {
				n, done := next, make(chan outcome, 1)
				go func() {
					v, err := read(ctx, n)
					done <- outcome{v, err}
				}()
				running = append(running, done)
				next++
			}
			if len(running) == 0 {
				return
			}
			o := <-running[0]
			running = running[1:]
			if !yield(o.value, o.err) {
				return
			}
		}
	}
}

// versions returns the bytes of all versions of a commit's key that are no delete markers, newest first.
func (l *Log) versions(ctx context.Context, n int64) ([][]byte, error) {
	key := Key(l.cfg.Producer, n)
	o, err := l.cfg.Store.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, v := range o.Versions {
		if v.Marker {
			continue
		}
		b, err := readObject(ctx, l.cfg.Store, key, v.ID, MaxCommit)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// known returns commit n, whose digest is known. Of several versions the one with that digest counts.
func (l *Log) known(ctx context.Context, n int64, digest [32]byte) (*Commit, error) {
	key := Key(l.cfg.Producer, n)
	b, err := readObject(ctx, l.cfg.Store, key, "", MaxCommit)
	if err == nil && sha256.Sum256(b) != digest {
		all, err := l.versions(ctx, n)
		if err != nil {
			return nil, err
		}
		for _, other := range all {
			if sha256.Sum256(other) == digest {
				b = other
			}
		}
	}
	if errors.Is(err, storage.ErrNotFound) {
		return nil, &Damage{Key: key, Reason: "missing", cause: err}
	}
	if err != nil {
		return nil, err
	}
	c, err := ParseCommit(b, l.cfg.Producer, l.cfg.Verifiers)
	switch {
	case err != nil:
		return nil, &Damage{Key: key, Reason: err.Error(), cause: err}
	case c.SHA256 != digest:
		return nil, &Damage{Key: key, Reason: "another commit than the one the ledger went on from", cause: errIndex}
	}
	return c, nil
}

// parts returns commit n cut into its lines, when it has the digest of the index; else it is judged as by
// commit. It spares the reading of entries and the checking of the signature.
func (l *Log) parts(ctx context.Context, n int64) (*Commit, error) {
	if _, digest, err := l.index.record(n); err == nil {
		b, err := readObject(ctx, l.cfg.Store, Key(l.cfg.Producer, n), "", MaxCommit)
		if err == nil && sha256.Sum256(b) == digest {
			return splitCommit(b, l.cfg.Producer)
		}
	}
	return l.commit(ctx, n)
}

// following returns the commit that extends the chain, judged among all versions of its key. It returns
// storage.ErrNotFound when there is none, a *Fork when signed commits contradict the chain or each other,
// and a *Damage when what lies there was signed by no key of ours.
func (l *Log) following(ctx context.Context, ch chain) (*Commit, error) {
	n := ch.number + 1
	b, err := readObject(ctx, l.cfg.Store, Key(l.cfg.Producer, n), "", MaxCommit)
	if err != nil {
		return nil, err
	}
	c, reason := l.extending(ch, b)
	if reason == nil {
		return c, nil
	}
	all, err := l.versions(ctx, n)
	if err != nil {
		return nil, err
	}
	var matching *Commit
	var signed [][]byte
	for _, b := range all {
		c, err := l.extending(ch, b)
		if c != nil && (err == nil || ch.apart(c)) {
			signed = append(signed, b)
		}
		if err != nil {
			continue
		}
		if matching != nil && !bytes.Equal(matching.Bytes, b) {
			return nil, &Fork{l.cfg.Producer, n, "two commits extend the one before", signed}
		}
		matching = c
	}
	switch {
	case matching != nil:
		return matching, nil
	case len(signed) > 0:
		return nil, &Fork{l.cfg.Producer, n, "a commit signed for another history: " + reason.Error(), signed}
	}
	return nil, &Damage{Key: Key(l.cfg.Producer, n), Reason: "no commit: " + reason.Error(), cause: reason}
}

// extending parses b and reports why it does not extend the chain; the commit is returned, if it is one at
// all, also when it does not.
func (l *Log) extending(ch chain, b []byte) (*Commit, error) {
	c, err := ParseCommit(b, l.cfg.Producer, l.cfg.Verifiers)
	if err != nil {
		return nil, err
	}
	_, _, err = ch.extend(c)
	return c, err
}
