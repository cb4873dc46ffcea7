package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"

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
// the Damage says. A commit that the store does not give, asked twice, is Unread: nobody knows what it holds, and a
// server that finds its own file damaged gives nothing of it for ever. A store that gave nothing maxSilent times one
// after the other, and does not list either, ends the walk: its error, as any other (of a listing, of ctx), is yielded
// last. Versions and delete markers
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
	linked     bool           // whether chain knows the commit before next
	rooted     bool           // whether chain knows all entries before next
	beyond     map[int64]bool // numbers behind a gap under which no commit was found; they were reported
	held       []*Damage      // of the numbers between chain and next: a later commit may say that they are void

	silent int   // objects that the store did not give since it gave one
	told   error // what it said last
}

// maxSilent is how many objects a store may fail to give, one after the other, before it is asked whether it is there.
const maxSilent = 16

// get reads a version of a key, once more where the store fails. storage.ErrNotFound says something of the object; any
// other error says nothing.
func (w *walk) get(key, version string) (b []byte, err error) {
	for range 2 {
		b, err = readObject(w.ctx, w.store, key, version, MaxCommit)
		if err == nil || errors.Is(err, storage.ErrNotFound) {
			w.silent = 0
			return b, err
		}
		if w.ctx.Err() != nil {
			break
		}
	}
	w.silent, w.told = w.silent+1, err
	return nil, err
}

// away reports that the store is, and yields its error. One that lists and gives none of many neighbours has lost them.
func (w *walk) away() bool {
	if w.ctx.Err() == nil && w.silent < maxSilent {
		return false
	}
	for _, err := range w.store.List(w.ctx, w.producer+"/ledger/", "") {
		if err == nil && w.ctx.Err() == nil {
			w.silent = 0
			return false
		}
		break
	}
	w.yield(nil, w.told)
	return true
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
	if w.missing(w.last + 1) {
		w.let()
	}
}

// missing reports the commits before n that were not met.
func (w *walk) missing(n int64) bool {
	for ; w.next < n; w.next++ {
		if w.beyond[w.next] {
			continue
		}
		if !w.lost(Key(w.producer, w.next), nothing, nil) {
			return false
		}
	}
	return true
}

// flaw is a commit that is not to be had: damaged, or unread where the store did not give it.
func flaw(key, reason string, unread error) *Damage {
	if unread != nil {
		return &Damage{Key: key, Reason: unread.Error(), Unread: true, cause: unread}
	}
	return &Damage{Key: key, Reason: reason, cause: ErrCommit}
}

// lost notes that the commit under key cannot be read. Where the chain is known, nobody hears of it before it is
// clear that no later commit calls the number void.
func (w *walk) lost(key, reason string, unread error) bool {
	w.held = append(w.held, flaw(key, reason, unread))
	if w.linked && len(w.held) < maxVoids {
		return true
	}
	return w.let()
}

// Reasons of a commit under whose number nothing lies, which is damage whether or not the number is void.
const (
	nothing    = "missing"
	onlyMarker = "deleted"
)

// let reports what was held: the chain is broken there. What lies before a commit that was not given may be called void
// by it.
func (w *walk) let() bool {
	unread := false
	for _, d := range slices.Backward(w.held) {
		if unread && !d.Unread && d.Reason != nothing && d.Reason != onlyMarker {
			d.Unread, d.Reason = true, d.Reason+"; a commit behind it was not read"
		}
		unread = unread || d.Unread
	}
	for _, d := range w.held {
		d.Unchecked = w.rooted
		w.linked, w.rooted = false, false
		if !w.yield(nil, d) {
			return false
		}
	}
	w.held = nil
	return true
}

// void reports the numbers that c calls void, in the place of what was held of them. One whose object is gone, or was
// replaced, is damage; other versions beside that object are none: nobody signed them, and a lock may keep them there.
func (w *walk) void(c *Commit) bool {
	for i, d := range w.held {
		d.Void, d.Unread, d.Reason = true, false, "void: "+d.Reason
		there, err := w.holds(d, c.voided(c.Entries[i]).SHA256)
		switch {
		case err != nil && w.away():
			return false
		case err != nil:
			d.Void, d.Unread, d.Reason = false, true, "void, and what lies there was not read: "+err.Error()
		case !there:
			d.Void, d.Unread, d.Reason = false, false, "void, and what lay there is gone or was replaced"
		}
		if !w.yield(nil, d) {
			return false
		}
	}
	w.held = nil
	return true
}

// holds reports whether a version of the key of d has a digest, and notes in d which, of what versions. An error says that
// this is not known: the listing failed, or none of those that were read has it, and one was not.
func (w *walk) holds(d *Damage, digest [32]byte) (there bool, unread error) {
	all, err := storage.History(w.ctx, w.store, d.Key)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		w.told = err
		return false, err
	}
	for _, v := range all {
		if v.Marker {
			continue
		}
		b, err := w.get(d.Key, v.ID)
		if err == nil && sha256.Sum256(b) == digest {
			d.Version, d.Versions = v.ID, all
			return true, nil
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			unread = err
		}
	}
	return false, unread
}

// key judges the versions of one key.
func (w *walk) key(group []storage.Version) bool {
	key := group[0].Key
	n, ok := ParseKey(w.producer, key)
	if !ok {
		return w.yield(nil, &Damage{Key: key, Reason: "no commit has this key", cause: ErrCommit})
	}
	if n < w.next || w.last >= 0 && n > w.last {
		return true
	}
	if w.next < n {
		if more, met := w.gap(n, group); !met || !more {
			return more
		}
	}
	w.next++
	c, version, reason, unread := w.choose(n, group)
	if unread != nil && w.away() {
		return false
	}
	if c == nil && unread == nil && len(w.held) > 0 && w.linked {
		return w.again(n, group, reason)
	}
	if c == nil {
		return w.lost(key, reason, unread)
	}
	if int64(len(w.held)) == c.voids() && !w.void(c) || len(w.held) > 0 && !w.let() {
		return false
	}
	if reason != "" && !w.yield(nil, &Damage{Key: key, Reason: reason, cause: ErrCommit}) {
		return false
	}
	if len(group) > 1 {
		reason := fmt.Sprintf("%d versions and delete markers, want one", len(group))
		if !w.yield(nil, &Damage{Key: key, Reason: reason, Beside: true, Version: version, Versions: group, cause: ErrCommit}) {
			return false
		}
	}
	if w.rooted {
		w.chain, _ = w.chain.grow(c)
	} else {
		w.chain = chain{number: n, digest: c.SHA256, tree: tree{size: c.Size}, last: c.Entries[len(c.Entries)-1].Time}
	}
	w.linked = true
	return w.yield(c, nil)
}

// gap reports the commits missing before n, which is there. Where nobody knows the end of the ledger only a commit
// proves that there were others before it: anything else is reported by itself, and not met.
func (w *walk) gap(n int64, group []storage.Version) (more, met bool) {
	if w.last < 0 {
		behind := *w
		behind.linked, behind.rooted = false, false
		c, _, reason, unread := behind.choose(n, group)
		w.silent, w.told = behind.silent, behind.told
		if unread != nil && w.away() {
			return false, false
		}
		if c == nil {
			if w.beyond == nil {
				w.beyond = map[int64]bool{}
			}
			w.beyond[n] = true
			return w.yield(nil, flaw(group[0].Key, reason, unread)), false
		}
	}
	return w.missing(n), true
}

// again judges a key whose object does not go on from the chain: it is lost too, and may be void like those before it,
// unless it goes on from a commit that is lost.
func (w *walk) again(n int64, group []storage.Version, reason string) bool {
	unlinked := *w
	unlinked.linked, unlinked.rooted = false, false
	c, _, _, unread := unlinked.choose(n, group)
	if c == nil {
		return w.lost(group[0].Key, reason, unread)
	}
	if !w.let() {
		return false
	}
	w.next = n
	return w.key(group)
}

// choose reads the versions and returns the first that is sound, with the reason when another one, of other bytes,
// is sound too; without a sound one, the reason says what is wrong with the newest, and unread that one of them was
// not given: it may be the one that is wanted. Beside a sound one what was not given is one of several versions, which
// are a flaw anyway.
func (w *walk) choose(n int64, group []storage.Version) (sound *Commit, version, reason string, unread error) {
	wrong := onlyMarker
	for i, v := range group {
		if v.Marker {
			continue
		}
		b, err := w.get(v.Key, v.ID)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			unread = err
			continue
		}
		c, err := ParseCommit(b, w.producer, w.verifiers)
		if err == nil {
			err = w.check(n, c)
		}
		switch {
		case err == nil && sound == nil:
			sound, version = c, v.ID
		case err == nil && c.SHA256 != sound.SHA256:
			reason = fmt.Sprintf("fork: two commits extend the one before, %x and %x", sound.SHA256[:8], c.SHA256[:8])
		case err != nil && i == 0:
			wrong = err.Error()
		}
	}
	if sound == nil {
		return nil, "", wrong, unread
	}
	return sound, version, reason, nil
}

// check holds a commit against what is known of the one before.
func (w *walk) check(n int64, c *Commit) error {
	switch {
	case c.Number != n:
		return fmt.Errorf("%w: number %d under the key of %d", ErrCommit, c.Number, n)
	case w.rooted:
		_, _, err := w.chain.extend(c)
		return err
	case w.linked:
		return w.chain.link(c)
	}
	return nil
}
