package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"golang.org/x/mod/sumdb/note"

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

// ahead yields read(from) … read(to) in order, with a few of them running at a time. When it ends none is running any more.
func ahead[T any](ctx context.Context, from, to int64, read func(context.Context, int64) (T, error)) iter.Seq2[T, error] {
	type outcome struct {
		value T
		err   error
	}
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var running []chan outcome
		defer func() {
			cancel()
			for _, r := range running {
				<-r
			}
		}()
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

// versions returns the bytes of the versions of a commit's key that are no delete markers, newest first. unread says that
// one of them was not given: what is wanted may be among the others all the same.
func (l *Log) versions(ctx context.Context, n int64) (all [][]byte, unread, err error) {
	key := Key(l.cfg.Producer, n)
	for v, err := range storage.Versions(ctx, l.cfg.Store, key) {
		if err != nil {
			return nil, nil, err
		}
		b, err := readObject(ctx, l.cfg.Store, key, v.ID, MaxCommit)
		switch {
		case err == nil:
			all = append(all, b)
		case !errors.Is(err, storage.ErrNotFound): // else it was erased since
			unread = fmt.Errorf("version %q: %w", v.ID, err)
		}
	}
	return all, unread, nil
}

// known returns commit n, whose digest is known. Of several versions the one with that digest counts; they are
// listed only when the newest is another, or is not there, or is not given.
func (l *Log) known(ctx context.Context, n int64, digest [32]byte) (*Commit, error) {
	key := Key(l.cfg.Producer, n)
	b, err := readObject(ctx, l.cfg.Store, key, "", MaxCommit)
	if err != nil || sha256.Sum256(b) != digest {
		all, unread, listErr := l.versions(ctx, n)
		i := slices.IndexFunc(all, func(other []byte) bool { return sha256.Sum256(other) == digest })
		switch {
		case i >= 0:
			b, err = all[i], nil
		case listErr != nil && !errors.Is(listErr, storage.ErrNotFound):
			return nil, listErr
		case unread != nil:
			return nil, unread
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
	if size, digest, err := l.index.record(n); err == nil && l.voidAt(n, size, digest) == nil {
		b, err := readObject(ctx, l.cfg.Store, Key(l.cfg.Producer, n), "", MaxCommit)
		if err == nil && sha256.Sum256(b) == digest {
			return splitCommit(b, l.cfg.Producer)
		}
	}
	return l.commit(ctx, n)
}

// following returns the commit that extends the chain: the newest version of its key when it does, else what
// judge makes of all versions. It returns storage.ErrNotFound when there is no object, as the store answers at once.
func (l *Log) following(ctx context.Context, ch chain) (*Commit, error) {
	b, err := readObject(ctx, l.cfg.Store, Key(l.cfg.Producer, ch.number+1), "", MaxCommit)
	return l.extends(ctx, ch, b, err)
}

// extends is following, given what reading the newest version of the key gave.
func (l *Log) extends(ctx context.Context, ch chain, b []byte, err error) (*Commit, error) {
	if errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	if err == nil {
		if c, err := l.extending(ch, ch.number+1, b); err == nil {
			return c, nil
		}
	}
	return l.judge(ctx, ch)
}

// judge returns the commit that extends the chain among all versions of its key, hidden ones too. It returns
// storage.ErrNotFound when there is not even a delete marker, a *Fork when signed commits contradict the chain or
// each other, and a *Damage when what lies there was signed by no key of ours. Where none extends the chain and one was
// not given, its error says that nothing of this is known.
func (l *Log) judge(ctx context.Context, ch chain) (*Commit, error) {
	n := ch.number + 1
	all, unread, err := l.versions(ctx, n)
	if err != nil {
		return nil, err
	}
	reason := fmt.Errorf("%w: deleted", ErrCommit)
	var matching *Commit
	var signed [][]byte
	for i, b := range all {
		c, err := l.extending(ch, n, b)
		if c != nil && (err == nil || ch.apart(c)) {
			signed = append(signed, b)
		}
		if err != nil {
			if i == 0 {
				reason = err
			}
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
	case len(signed) > 0 && unread == nil:
		return nil, &Fork{l.cfg.Producer, n, "a commit signed for another history: " + reason.Error(), signed}
	}
	if c, err := l.beyond(ctx, ch); !errors.Is(err, storage.ErrNotFound) {
		return c, err
	}
	if unread != nil {
		return nil, unread
	}
	return nil, &Damage{Key: Key(l.cfg.Producer, n), Reason: "no commit: " + reason.Error(), cause: reason}
}

// extending parses b, which lies under number n, and reports why it does not extend the chain; the commit is returned,
// if it is one at all, also when it does not.
func (l *Log) extending(ch chain, n int64, b []byte) (*Commit, error) {
	c, err := ParseCommit(b, l.cfg.Producer, l.cfg.Verifiers)
	if err != nil {
		return nil, err
	}
	if c.Number != n {
		return c, fmt.Errorf("%w: number %d under the key of %d", ErrCommit, c.Number, n)
	}
	_, _, err = ch.extend(c)
	return c, err
}

// Read returns commit n of a ledger that is not open: the newest version of its key that is given and is a commit of this
// number signed by a key in v. That its entries are those signed is shown only by the root of all before it, or by
// a seal. storage.ErrNotFound: there is none, nor anything else.
func Read(ctx context.Context, s storage.Store, producer string, n int64, v note.Verifiers) (*Commit, error) {
	key := Key(producer, n)
	parse := func(b []byte) (*Commit, error) {
		c, err := ParseCommit(b, producer, v)
		if err == nil && c.Number != n {
			err = fmt.Errorf("%w: number %d under the key of %d", ErrCommit, c.Number, n)
		}
		return c, err
	}
	b, why := readObject(ctx, s, key, "", MaxCommit)
	if why == nil {
		c, err := parse(b)
		if err == nil {
			return c, nil
		}
		why = fmt.Errorf("%s: %w", key, err)
	}
	for other, err := range storage.Versions(ctx, s, key) {
		if errors.Is(err, storage.ErrNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		b, err := readObject(ctx, s, key, other.ID, MaxCommit)
		if err == nil {
			if c, err := parse(b); err == nil {
				return c, nil
			}
		} else if !errors.Is(err, storage.ErrNotFound) {
			why = err // it may be the one
		}
	}
	return readVoid(ctx, s, producer, n, v, why)
}
