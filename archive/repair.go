package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage"
)

// RepairRequest says what is to be put back.
type RepairRequest struct {
	Producer string
	// Keys are objects, by their keys in the bucket; none means everything that the ledger names.
	Keys []string
	// From is where lost bytes may be, besides the other versions of a key and the store's own spool.
	From []storage.Keeper
}

// What became of an object.
const (
	Intact   = "intact"   // it is what it should be, and nothing lies over it
	Restored = "restored" // its bytes were put back
	Uncover  = "uncover"  // a delete marker over it was removed
	Lost     = "lost"     // nobody has its bytes
)

// Repaired is what became of one object.
type Repaired struct {
	Key, What string
	From      string // of one restored: "version …", "spool", "copy"
	Markers   int    // delete markers that were removed
	Err       error  // of one lost, or that could not be put back
}

// wanted is an object that the ledger names.
type wanted struct {
	key, id string
	size    int64 // -1: not known
	sum     [32]byte
	// fits, for a commit, says whether bytes are it; sum may be zero then, where it is not known.
	fits func([]byte) error
	// void: it is what lies under a void number, where any version will do.
	void bool
	// since, of an object put back, is the size that the ledger had: its entry stands behind.
	since int64
}

// Repair puts back what the ledger names and the store has lost: exactly those bytes, found in another version of the
// key, in the spool or in a copy, and never any others. Delete markers over such objects are removed where the store
// lets it. Each object put back gets an entry "repaired". Commits come first: without them nobody knows what else
// there should be. told hears of each object looked at.
//
// Order of effects: a local note of what is about to be put back; the object; its entry; the note goes. A crash
// anywhere is finished by the next Repair, and repairing twice changes nothing.
func (a *Archive) Repair(ctx context.Context, req RepairRequest, told func(Repaired)) error {
	p, err := a.producer("repair", req.Producer)
	if err != nil {
		return err
	}
	if !a.writable() {
		return fail(ReadOnly, "repair", p.Code, errReadOnly)
	}
	if _, ok := a.cfg.Store.(storage.Restorer); !ok {
		return fail(Invalid, "repair", p.Code, errors.New("this store cannot put objects back"))
	}
	r := &repair{a: a, p: p, told: told, asked: map[string]bool{}, mended: map[string]bool{}, lost: map[string]Repaired{}, note: filepath.Join(a.cfg.State, "repairing")}
	r.from = append([]storage.Keeper{published(a.cfg.Published)}, req.From...)
	if k, ok := a.cfg.Store.(storage.Keeper); ok {
		r.spool = k
	}
	for _, key := range req.Keys {
		if storage.ValidKey(key) != nil {
			return fail(Invalid, "repair", key, errors.New("not a key of this archive"))
		}
		r.asked[key] = false
	}
	for _, step := range []func(context.Context) error{r.commits, r.named, r.unnamed, r.enter} {
		if err := step(ctx); err != nil {
			return storeError("repair", p.Code, err)
		}
	}
	return nil
}

// repair is one repair under way.
type repair struct {
	a     *Archive
	p     *producer
	told  func(Repaired)
	asked map[string]bool // keys asked for, and whether they were met; empty: everything
	from  []storage.Keeper
	spool storage.Keeper
	note  string // file of what is being put back
	owed  []wanted

	mended map[string]bool     // keys that need no second look
	lost   map[string]Repaired // commits nobody has, as far as it was looked for
}

// asks reports whether an object is to be looked at.
func (r *repair) asks(key string) bool {
	if len(r.asked) == 0 {
		return true
	}
	_, ok := r.asked[key]
	if ok {
		r.asked[key] = true
	}
	return ok
}

// commits mends the ledger itself, then opens it.
func (r *repair) commits(ctx context.Context) error {
	if err := r.p.take(ctx); err != nil {
		return err
	}
	defer r.p.release()
	log, why := r.p.state()
	if why == nil && log != nil {
		err := r.mendCommits(ctx, log, nil)
		for _, out := range r.lost {
			r.told(out)
		}
		return err
	}
	r.a.shut(r.p, why)
	cfg, err := r.a.ledgerConfig(r.p)
	if err != nil {
		return err
	}
	// What is put back may show what lies behind it: until nothing changes any more.
	for before := -1; before < len(r.mended); {
		before = len(r.mended)
		standing, cause, err := ledger.Stand(ctx, cfg)
		if err != nil {
			return err
		}
		if err := errors.Join(r.mendCommits(ctx, standing, cause), standing.Close()); err != nil {
			return err
		}
		if cause == nil {
			break
		}
	}
	for _, out := range r.lost {
		r.told(out)
	}
	if err := r.a.goOn(ctx, r.p); err != nil {
		if passing(err) {
			return fmt.Errorf("the ledger still stands still: %w", err)
		}
		return fail(Damaged, "repair", r.p.Code, fmt.Errorf("the ledger still stands still (where nobody has the commit that is wanted: perenne ledger void): %w", err))
	}
	return nil
}

// mendCommits looks at each commit there should be, the last first, since each names the one before; and at what
// lies behind them. Where the ledger stands still before a fork, its cause, only what the mark of this machine leads
// to says which of the two is meant; else both stay as they are, for a person to judge.
func (r *repair) mendCommits(ctx context.Context, log *ledger.Log, cause error) error {
	var fork *ledger.Fork
	_ = errors.As(cause, &fork)
	last := log.Head().Number
	if mark, ok := r.a.heads.Get(r.p.Code); ok {
		last = max(last, mark.Number)
	}
	clear(r.lost)
	for n := last + 1; n >= 0; n-- {
		key := ledger.Key(r.p.Code, n)
		if n == last+1 {
			_, err := r.a.cfg.Store.Stat(ctx, key)
			if errors.Is(err, storage.ErrNotFound) || log.Head().Number != last {
				continue
			}
		}
		if r.mended[key] || !r.asks(key) {
			continue
		}
		w := wanted{key: key, size: -1, void: log.Void(n), fits: func(b []byte) error { return log.Fits(ctx, n, b) }}
		var unknown error
		w.sum, unknown = log.Digest(ctx, n) // zero where it is not known
		if fork != nil && fork.Number == n && unknown != nil {
			r.lost[key] = Repaired{Key: key, What: Lost, Err: fork}
			continue
		}
		if err := r.mend(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// named mends what the entries of the ledger name, and the seals and keys.
func (r *repair) named(ctx context.Context) error {
	seen := map[[16]byte][16]byte{} // what was named under a key first
	void := false
	one := func(key, id string, size int64, sum string) error {
		raw, err := hex.DecodeString(sum)
		if err != nil || len(raw) != 32 || !r.asks(key) {
			return err
		}
		if first, ok := seen[short(key)]; ok {
			if first != [16]byte(raw) {
				r.told(Repaired{Key: key, What: Lost, Err: errors.New("it is named with two digests: only the first was looked for")})
			}
			return nil
		}
		seen[short(key)] = [16]byte(raw)
		return r.mend(ctx, wanted{key: key, id: id, size: size, sum: [32]byte(raw), void: void})
	}
	for c, err := range vouched(ctx, r.p.ledger()) {
		if err != nil {
			return err
		}
		for _, e := range c.Entries {
			switch {
			case namesObject(e), e.Type == ledger.SealEntry:
				err = one(e.Object, e.ID, e.Size, e.SHA256)
			case e.Type == ledger.KeyAdded:
				sum := sha256.Sum256([]byte(e.VKey))
				err = one("keys/"+hex.EncodeToString(sum[:]), "", -1, hex.EncodeToString(sum[:]))
				if e.Certificate != "" && err == nil {
					err = one("keys/"+e.Certificate, "", -1, e.Certificate)
				}
			}
			if err != nil {
				return err
			}
		}
	}
	for _, b := range r.a.cfg.Published {
		sum := sha256.Sum256(b)
		if err := one(fmt.Sprintf("keys/%x", sum), "", int64(len(b)), hex.EncodeToString(sum[:])); err != nil {
			return err
		}
	}
	for n, sum := range r.a.seals.All() {
		void = r.a.seals.Void(n)
		if err := one(seal.Key(n), "", -1, hex.EncodeToString(sum[:])); err != nil {
			return err
		}
	}
	return nil
}

// unnamed is for the keys asked for that the ledger does not name: delete markers over nothing are removed, anything
// else is none of ours to put back.
func (r *repair) unnamed(ctx context.Context) error {
	for key, met := range r.asked {
		if met {
			continue
		}
		if !strings.HasPrefix(key, r.p.Code+"/") && !strings.HasPrefix(key, "evidence/") && !strings.HasPrefix(key, "keys/") {
			r.told(Repaired{Key: key, What: Lost, Err: fmt.Errorf("it is neither of %s, nor a seal, nor a key", r.p.Code)})
			continue
		}
		o, err := r.a.cfg.Store.Stat(ctx, key)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		out := Repaired{Key: key, What: Lost, Err: errors.New("the ledger does not name it")}
		only := len(o.Versions) > 0
		for _, v := range o.Versions {
			only = only && v.Marker
		}
		if only {
			if out.Markers, err = r.uncover(ctx, o.Versions); err == nil {
				out.What, out.Err = Uncover, nil
			} else {
				out.Err = err
			}
		}
		r.told(out)
	}
	return nil
}

// uncover removes the delete markers among the versions of a key.
func (r *repair) uncover(ctx context.Context, all []storage.Version) (n int, err error) {
	eraser, ok := r.a.cfg.Store.(storage.Eraser)
	for _, v := range all {
		if !v.Marker {
			continue
		}
		if !ok {
			return n, errors.New("the store does not let delete markers be removed")
		}
		if err := eraser.Erase(ctx, v.Key, v.ID, "a delete marker over an object that is kept"); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// mend looks at one object and puts it back when it must. Only an error that is about more than this object is
// returned.
func (r *repair) mend(ctx context.Context, w wanted) error {
	out := Repaired{Key: w.key, What: Intact}
	o, err := r.a.cfg.Store.Stat(ctx, w.key)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if out.Markers, err = r.uncover(ctx, o.Versions); out.Markers > 0 {
		out.What = Uncover
	}
	if err != nil {
		r.a.cfg.Log.Warn("delete marker not removed", slog.String("key", w.key), slog.Any("err", err))
	}
	found, err := r.find(ctx, w, o.Versions)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		out.What, out.Err = Lost, err
		if w.fits != nil {
			r.lost[w.key] = out // another round may find it
			return nil
		}
		r.told(out)
		return nil
	}
	defer func() { _ = found.bytes.Close() }() // nameless
	if w.fits != nil && !found.newest && unversioned(o.Versions) {
		if err := r.rival(ctx, w, found); err != nil {
			out.What, out.Err = Lost, err
			r.lost[w.key] = out
			return ctx.Err()
		}
	}
	r.mended[w.key] = true
	w.size, w.sum = found.size, found.sha256
	if !found.newest {
		out.What, out.From = Restored, found.from
		if out.Err = r.restore(ctx, w, found.bytes); out.Err != nil {
			out.What = Lost
		}
	}
	if found.newest && found.covered { // what a machine put back that is gone since lies in front of other versions
		r.owed = append(r.owed, w)
	}
	r.told(out)
	return nil
}

// unversioned reports whether to put an object back destroys what lies under its key.
func unversioned(all []storage.Version) bool { return len(all) == 1 && all[0].ID == "" }

// rival is a *ledger.Fork where what lies in the place of a commit is one that our key signed over another history: it may be
// all there is of what another daemon acknowledged. A commit that was changed where it lies has the root that was signed.
func (r *repair) rival(ctx context.Context, w wanted, f found) error {
	there, err := readSmall(ctx, r.a.cfg.Store, w.key, "", ledger.MaxCommit)
	if err != nil {
		return ctx.Err() // nobody can read it
	}
	other, err := ledger.ParseCommit(there, r.p.Code, r.a.cfg.Trust.Ledgers)
	if err != nil {
		return nil //nolint:nilerr // no commit
	}
	ours := make([]byte, f.size)
	if _, err := f.bytes.ReadAt(ours, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read what was found of %s: %w", w.key, err)
	}
	c, err := ledger.ParseCommit(ours, r.p.Code, r.a.cfg.Trust.Ledgers)
	if err != nil {
		return fmt.Errorf("%s: %w", w.key, err)
	}
	if other.Number != c.Number || other.Size == c.Size && other.Root == c.Root {
		return nil
	}
	return &ledger.Fork{
		Producer: r.p.Code, Number: c.Number, Evidence: [][]byte{there, ours},
		Reason: "another commit of this number was signed, and this store keeps no versions: to put one back would destroy the other; keep both, ask",
	}
}

// published keeps the keys and certificates in use.
type published [][]byte

// Recall implements [storage.Keeper].
func (p published) Recall(_ context.Context, key string, sum [32]byte) (io.ReadCloser, error) {
	for _, b := range p {
		if sha256.Sum256(b) == sum {
			return io.NopCloser(bytes.NewReader(b)), nil
		}
	}
	return nil, fmt.Errorf("recall %s: %w", key, storage.ErrNotFound)
}

// found is where an object's bytes were.
type found struct {
	bytes   storage.Staged
	size    int64
	sha256  [32]byte
	from    string
	newest  bool // they are the newest version already
	covered bool // … and other versions lie behind it
}

// find looks for the bytes: in the newest version, the others, the spool, the copies. What it returns was read whole
// and has the digest that the ledger names.
func (r *repair) find(ctx context.Context, w wanted, all []storage.Version) (found, error) {
	var versions []storage.Version
	for _, v := range all {
		if !v.Marker {
			versions = append(versions, v)
		}
	}
	// A marker that could not be removed hides even the newest version: that one has to be put in front of it.
	hidden := false
	if len(versions) < len(all) {
		o, err := r.a.cfg.Store.Stat(ctx, w.key)
		hidden = err != nil || len(o.Versions) > 0 && o.Versions[0].Marker
	}
	for i, v := range versions {
		if w.size >= 0 && v.Size != w.size {
			continue
		}
		f, err := r.copyOf(ctx, w, func() (io.ReadCloser, error) { return r.a.cfg.Store.Get(ctx, w.key, v.ID, 0, -1) })
		if err == nil {
			f.newest, f.covered, f.from = (i == 0 || w.void) && !hidden, len(versions) > 1 && !w.void, "version "+v.ID
			return f, nil
		}
		if fork := (*ledger.Fork)(nil); errors.As(err, &fork) {
			return found{}, fork
		}
	}
	keepers := append([]storage.Keeper{}, r.from...)
	if r.spool != nil {
		keepers = append([]storage.Keeper{r.spool}, keepers...)
	}
	for i, k := range keepers {
		f, err := r.copyOf(ctx, w, func() (io.ReadCloser, error) { return k.Recall(ctx, w.key, w.sum) })
		if err == nil {
			f.from = "copy"
			if i == 0 && r.spool != nil {
				f.from = "spool"
			}
			return f, nil
		}
		if fork := (*ledger.Fork)(nil); errors.As(err, &fork) {
			return found{}, fork
		}
		if ctx.Err() == nil && !errors.Is(err, storage.ErrNotFound) {
			r.a.cfg.Log.Warn("not usable for a repair", slog.String("key", w.key), slog.Any("err", err))
		}
	}
	return found{}, errors.New("neither another version, nor the spool, nor a copy has the bytes that the ledger names")
}

// copyOf takes bytes into a local file and holds them against what is wanted.
func (r *repair) copyOf(ctx context.Context, w wanted, open func() (io.ReadCloser, error)) (f found, err error) {
	src, err := open()
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if f.bytes, err = r.a.spool(); err != nil {
		return f, err
	}
	defer func() {
		if err != nil {
			_ = f.bytes.Close()
		}
	}()
	if _, err = io.Copy(io.NewOffsetWriter(f.bytes, 0), &cancellable{ctx, src}); err != nil {
		return f, err
	}
	if f.size, f.sha256, err = f.bytes.Seal(ctx); err != nil {
		return f, err
	}
	if w.fits == nil {
		if f.sha256 != w.sum || w.size >= 0 && f.size != w.size {
			err = fmt.Errorf("%s: other bytes than the ledger names", w.key)
		}
		return f, err
	}
	if f.size > ledger.MaxCommit {
		return f, fmt.Errorf("%s: larger than any commit", w.key)
	}
	b := make([]byte, f.size)
	if _, err = f.bytes.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return f, err
	}
	return f, w.fits(b)
}

// restore puts an object back and reads it back. Before it, a note on this machine says that the entry is owed.
func (r *repair) restore(ctx context.Context, w wanted, b io.ReaderAt) error {
	mark, _ := r.a.heads.Get(r.p.Code)
	w.since = mark.Size
	if err := r.owe(w); err != nil {
		return err
	}
	r.a.crash("repair.noted") // leaves the note: the next Repair finds the object lost, or put back
	restorer, _ := r.a.cfg.Store.(storage.Restorer)
	o := storage.PutOptions{Size: w.size, SHA256: w.sum, RetainUntil: r.lockUntil(w)}
	if err := restorer.Restore(ctx, w.key, b, o); err != nil {
		return err
	}
	got, err := readDigest(ctx, r.a.cfg.Store, w.key, "", nil)
	if err == nil && (got.size != w.size || got.sha256 != w.sum) {
		err = errors.New("the store says that it was put back, and does not give it")
	}
	r.a.crash("repair.restored") // leaves the note: the next Repair writes the entry
	return err
}

// lockUntil is the lock of an object put back: to the horizon or its retention date, whichever is nearer; zero, which
// is none, when that has passed.
func (r *repair) lockUntil(w wanted) time.Time {
	now := r.a.cfg.Now()
	until, end := r.a.lockUntil(now), r.a.lockEnd(r.p, w.id)
	switch {
	case end.IsZero() || end.After(until):
		return until
	case end.After(now):
		return end
	}
	return time.Time{}
}

// owe adds an object to the note, durably.
func (r *repair) owe(w wanted) error {
	f, err := os.OpenFile(r.note, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("note of a repair: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s %s %d %d %x %s\n", r.p.Code, w.key, w.since, w.size, w.sum, w.id)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// enter writes the entries that are owed, those of repairs that a crash ended too, and drops the note.
func (r *repair) enter(ctx context.Context) error {
	text, err := os.ReadFile(r.note)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("note of a repair: %w", err)
	}
	var others []byte
	for line := range bytes.Lines(text) {
		var code string
		w := wanted{}
		var sum []byte
		// The last line may have been cut by a crash: then its object was not touched.
		if n, _ := fmt.Sscanf(string(line), "%s %s %d %d %x %s", &code, &w.key, &w.since, &w.size, &sum, &w.id); n < 5 || len(sum) != 32 {
			continue
		}
		w.sum = [32]byte(sum)
		if code != r.p.Code {
			others = append(others, line...)
			continue
		}
		got, err := readDigest(ctx, r.a.cfg.Store, w.key, "", nil)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if err == nil && got.sha256 == w.sum {
			r.owed = append(r.owed, w)
		}
	}
	if err := r.append(ctx); err != nil {
		return err
	}
	if len(others) > 0 {
		return r.rewrite(others)
	}
	if err := os.Remove(r.note); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("note of a repair: %w", err)
	}
	return nil
}

// rewrite has the note say text instead; a crash leaves the one or the other.
func (r *repair) rewrite(text []byte) error {
	f, err := os.OpenFile(r.note+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("note of a repair: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(r.note+".new", r.note)
	}
	if err != nil {
		return fmt.Errorf("note of a repair: %w", err)
	}
	return nil
}

// append enters what was put back, each object once: in the ledger of its body; a seal or a key, which belong to
// all, in every ledger that runs here.
func (r *repair) append(ctx context.Context) error {
	entered := map[string]map[string]int64{} // by producer and object: the index of the last entry there is
	for _, w := range r.owed {
		codes := []string{r.p.Code}
		if !strings.HasPrefix(w.key, r.p.Code+"/") {
			codes = r.a.Producers()
		}
		for _, code := range codes {
			log, why := r.a.producers[code].state()
			if log == nil || why != nil {
				continue
			}
			if entered[code] == nil {
				var err error
				if entered[code], err = lastEntries(ctx, log); err != nil {
					return err
				}
			}
			if last, ok := entered[code][w.key]; ok && (code != r.p.Code || last >= w.since) {
				continue
			}
			e := ledger.Entry{Type: ledger.Repaired, ID: w.id, Object: w.key, Size: w.size, SHA256: hex.EncodeToString(w.sum[:])}
			at, err := log.Append(ctx, ledger.Pending{Entry: e})
			if err != nil {
				return err
			}
			entered[code][w.key] = at.Index
		}
	}
	if len(r.owed) > 0 {
		r.a.sealer.retry()
	}
	return nil
}

// lastEntries are the objects that entries "repaired" name, each with the index of the last such entry.
func lastEntries(ctx context.Context, log *ledger.Log) (map[string]int64, error) {
	last := map[string]int64{}
	for c, err := range vouched(ctx, log) {
		if err != nil {
			return nil, err
		}
		for i, e := range c.Entries {
			if e.Type == ledger.Repaired {
				last[e.Object] = c.First + int64(i)
			}
		}
	}
	return last, nil
}

// vouched yields the commits of an open ledger whose bytes are those it went on from, and no others: behind a commit
// that is lost a walk of the bucket can no longer tell them from commits that somebody rewrote, since the signature
// covers the root alone.
func vouched(ctx context.Context, log *ledger.Log) iter.Seq2[*ledger.Commit, error] {
	return func(yield func(*ledger.Commit, error) bool) {
		for n := range log.Head().Number + 1 {
			c, err := log.Commit(ctx, n)
			if commitDamaged(err) {
				continue // said with the commits
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// VoidCommit lets a ledger that stands still before number n go on behind what lies there, which nobody of ours signed
// ([ledger.Void]). A repair was tried before: a commit that somebody acknowledged must not be called void.
func (a *Archive) VoidCommit(ctx context.Context, code string, n int64) error {
	p, err := a.producer("void", code)
	if err != nil {
		return err
	}
	if !a.writable() {
		return fail(ReadOnly, "void", code, errReadOnly)
	}
	if err := p.take(ctx); err != nil {
		return fail(Unavailable, "void", code, err)
	}
	defer p.release()
	log, why := p.state()
	if log != nil && why == nil {
		return fail(Invalid, "void", code, fmt.Errorf("the ledger runs, up to commit %d", log.Head().Number))
	}
	a.shut(p, why)
	cfg, err := a.ledgerConfig(p)
	if err == nil {
		err = ledger.Void(ctx, cfg, n)
	}
	if errors.Is(err, ledger.ErrNotVoid) {
		return fail(Invalid, "void", ledger.Key(code, n), err)
	}
	if err == nil {
		err = a.goOn(ctx, p)
	}
	if err != nil {
		return storeError("void", code, err)
	}
	return nil
}
