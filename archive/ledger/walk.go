package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/storage"
)

// Walk reads the ledger of a producer from the bucket alone, for an audit: commits from to up to and with
// to, to < 0 meaning the last there is. It verifies the form and the signature of each, its number, that it
// names the commit before by digest, that times do not go back and, when from is 0, that the entries give
// the root that was signed. [Log.Walk] recomputes roots from any number on.
//
// It yields each sound commit, in order, and each flaw as a *Damage, then goes on where it can: behind a
// commit that cannot be read the chain is taken up again at the next, but roots are no longer recomputed, which
// the Damage says. Any other error (of the store, of ctx) is yielded last. Versions and delete markers
// beside the commit of a key are flaws too, and so is every other key under the ledger's prefix.
//
// A ledger cut off at its end is sound in itself; whoever knows of a later commit passes its number as to.
func Walk(ctx context.Context, store storage.Store, producer string, v note.Verifiers, from, to int64) iter.Seq2[*Commit, error] {
	return func(yield func(*Commit, error) bool) {
		w := &walk{ctx: ctx, store: store, producer: producer, verifiers: v, yield: yield, next: from, last: to}
		w.chain, w.linked, w.rooted = start(), from == 0, from == 0
		w.run()
	}
}

// Walk is the function Walk for a ledger that is open: it knows from its head what must have stood before
// commit from, and where the ledger ends when to < 0.
func (l *Log) Walk(ctx context.Context, from, to int64) iter.Seq2[*Commit, error] {
	return func(yield func(*Commit, error) bool) {
		w := &walk{ctx: ctx, store: l.cfg.Store, producer: l.cfg.Producer, verifiers: l.cfg.Verifiers, yield: yield, next: from, last: to}
		if to < 0 {
			w.last = l.Head().Number
		}
		ch, err := l.before(ctx, from)
		if err != nil {
			yield(nil, err)
			return
		}
		w.chain, w.linked, w.rooted = ch, true, true
		w.run()
	}
}

// before returns the chain that commit n extends, its tree proved to be the beginning of the signed one.
func (l *Log) before(ctx context.Context, n int64) (chain, error) {
	head := l.Head()
	if n < 0 || n > head.Number+1 {
		return chain{}, fmt.Errorf("commit %d after %d: %w", n, head.Number, ErrRange)
	}
	if n == 0 {
		return start(), nil
	}
	var ch chain
	err := l.healing(ctx, func() error {
		size, digest, err := l.index.record(n - 1)
		if err != nil {
			return err
		}
		if size < 1 || size > head.Size {
			return fmt.Errorf("%w: size after commit %d", errIndex, n-1)
		}
		if _, err := l.consistent(size, head.Size, head.Root); err != nil {
			return err
		}
		t, err := readTree(size, l.index)
		ch = chain{number: n - 1, digest: digest, tree: t}
		return err
	})
	return ch, err
}

// walk is the state of a Walk.
type walk struct {
	ctx       context.Context
	store     storage.Store
	producer  string
	verifiers note.Verifiers
	yield     func(*Commit, error) bool

	next, last int64
	chain      chain
	linked     bool // whether chain knows the commit before next
	rooted     bool // whether chain knows all entries before next
}

// run goes along the listing, which names every version there is.
func (w *walk) run() {
	after := ""
	if w.next > 0 {
		after = Key(w.producer, w.next-1)
	}
	var group []storage.Version // versions of one key
	for v, err := range w.store.List(w.ctx, w.producer+"/ledger/", after) {
		if err != nil {
			w.yield(nil, fmt.Errorf("list %s/ledger/: %w", w.producer, err))
			return
		}
		if len(group) > 0 && group[0].Key != v.Key {
			if !w.key(group) {
				return
			}
			group = nil
		}
		group = append(group, v)
	}
	if len(group) > 0 && !w.key(group) {
		return
	}
	w.missing(w.last + 1)
}

// missing reports the commits before n that were not met.
func (w *walk) missing(n int64) bool {
	for ; w.next < n; w.next++ {
		if !w.lost(Key(w.producer, w.next), "missing") {
			return false
		}
	}
	return true
}

// lost reports that the commit under key cannot be read, and that the chain is broken there.
func (w *walk) lost(key, reason string) bool {
	d := &Damage{Key: key, Reason: reason, Unchecked: w.rooted, cause: ErrCommit}
	w.linked, w.rooted = false, false
	return w.yield(nil, d)
}

// key judges the versions of one key.
func (w *walk) key(group []storage.Version) bool {
	key := group[0].Key
	n, ok := number(w.producer, key)
	if !ok {
		return w.yield(nil, &Damage{Key: key, Reason: "no commit has this key", cause: ErrCommit})
	}
	if n < w.next || w.last >= 0 && n > w.last {
		return true
	}
	if !w.missing(n) {
		return false
	}
	w.next++
	c, reason, err := w.choose(n, group)
	if err != nil {
		w.yield(nil, err)
		return false
	}
	if len(group) > 1 && !w.yield(nil, &Damage{Key: key, Reason: fmt.Sprintf("%d versions and delete markers, want one", len(group)), cause: ErrCommit}) {
		return false
	}
	if c == nil {
		return w.lost(key, reason)
	}
	if w.rooted {
		w.chain, _ = w.chain.grow(c)
	} else {
		w.chain = chain{number: n, digest: c.SHA256, tree: tree{size: c.Size}, last: c.Entries[len(c.Entries)-1].Time}
	}
	w.linked = true
	return w.yield(c, nil)
}

// choose reads the versions and returns the first that is sound; without one, it says what is wrong with
// the newest. An error is one of reading.
func (w *walk) choose(n int64, group []storage.Version) (sound *Commit, reason string, err error) {
	reason = "deleted"
	for i, v := range group {
		if v.Marker {
			continue
		}
		b, err := readObject(w.ctx, w.store, v.Key, v.ID, MaxCommit)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		c, err := ParseCommit(b, w.producer, w.verifiers)
		if err == nil {
			err = w.check(n, c)
		}
		if err == nil {
			return c, "", nil
		}
		if i == 0 {
			reason = err.Error()
		}
	}
	return nil, reason, nil
}

// check holds a commit against what is known of the one before.
func (w *walk) check(n int64, c *Commit) error {
	switch {
	case w.rooted:
		_, _, err := w.chain.extend(c)
		return err
	case w.linked:
		return w.chain.link(c)
	case c.Number != n:
		return fmt.Errorf("%w: number %d under the key of %d", ErrCommit, c.Number, n)
	}
	return nil
}
