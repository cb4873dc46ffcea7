package archive

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
)

// readers reads objects a few at a time, while the ledger is walked, and keeps their results in ledger order.
type readers struct {
	w     *audit
	batch []*reading
	group errgroup.Group
}

// reading is one object to read, and what came of it.
type reading struct {
	entry ledger.Entry
	index int64
	got   contents
	err   error
	// astray, when not nil, is the version that was meant: the newest was another.
	astray *version
}

const (
	readBatch    = 256
	readParallel = 4
)

func newReaders(w *audit) *readers {
	r := &readers{w: w}
	r.group.SetLimit(readParallel)
	return r
}

// read begins to read an object, once fewer than readParallel are being read.
func (r *readers) read(ctx context.Context, e ledger.Entry, index int64) error {
	b := &reading{entry: e, index: index}
	r.batch = append(r.batch, b)
	r.group.Go(func() error {
		r.w.look(ctx, b)
		return nil
	})
	if len(r.batch) < readBatch {
		return nil
	}
	return r.finish(ctx)
}

// finish waits for the batch and judges it.
func (r *readers) finish(ctx context.Context) error {
	if err := errors.Join(r.group.Wait(), ctx.Err()); err != nil {
		return err
	}
	for _, b := range r.batch {
		if err := r.w.judge(*b); err != nil {
			return err
		}
	}
	r.batch = r.batch[:0]
	return nil
}

// end waits for what is being read when the walk ends early.
func (r *readers) end() { _ = r.group.Wait() } // look returns no error

// look reads one object: its newest version and, when that is not the one meant or is not given, the others. What a
// store fails to give is asked for once more, so that a line that broke does not leave the audit incomplete.
func (w *audit) look(ctx context.Context, b *reading) {
	var second func() hash.Hash
	if w.firstReading(b.index) {
		second = sha512.New
	}
	s, e := w.a.cfg.Store, b.entry
	for again := range 2 {
		b.got, b.err = readTold(ctx, s, e.Object, "", second, true)
		if b.err == nil && b.got.is(e.Size, e.SHA256) {
			return
		}
		if storeFailed(b.err) && again == 0 {
			continue
		}
		v, err := matching(ctx, s, e.Object, e.Size, e.SHA256, second)
		if err == nil {
			b.got, b.err, b.astray = v.contents, nil, &v
			return
		}
		if errors.Is(err, storage.ErrNotFound) {
			return
		}
		b.err = err
	}
}

// firstReading reports whether no audit may have read this entry's object yet: then SHA-512 is taken too, which
// this report binds, so that a change of hash will need no emergency reading.
func (w *audit) firstReading(index int64) bool {
	return index >= w.p.reread.read() || w.p.reread.refused(index)
}

// judge holds what was read against the entry.
func (w *audit) judge(b reading) error {
	kind, text := b.verdict()
	line := paper.ObjectResult{Object: b.entry.Object, ID: b.entry.ID, Size: b.got.size, Result: kind}
	if b.err == nil {
		line.SHA256 = hex.EncodeToString(b.got.sha256[:])
		w.count.Read++
	}
	switch kind {
	case "good":
		w.count.Good++
		line.SHA512 = b.got.sha512
		w.checkLock(b.entry, b.got)
	case "unreadable":
		w.bad[short(b.entry.Object)] = struct{}{} // of several versions it is not known which is meant
		w.unchecked(b.entry.Object + ": " + text)
		w.notRead(b.index, b.index+1)
	default:
		w.bad[short(b.entry.Object)] = struct{}{}
		w.damage(b.entry.Object, kind, b.entry.ID, text)
	}
	if b.astray != nil {
		w.strays(b.entry.Object, b.astray.id, b.astray.all)
	}
	w.count.Bytes += b.got.size
	w.a.metrics.auditBytes.Add(float64(b.got.size))
	out, err := canon.Marshal(line)
	if err != nil {
		return err
	}
	if err := w.results.add(out); err != nil {
		return err
	}
	if w.judged++; w.scope.Progress != nil {
		w.scope.Progress(w.judged, w.total())
	}
	return nil
}

// verdict is the result that a report lists, and what a finding says of it. That a store does not answer is no
// damage: nobody knows what it would have said.
func (b *reading) verdict() (kind, text string) {
	switch {
	case errors.Is(b.err, storage.ErrNotFound):
		return "missing", "l'oggetto non c'è"
	case b.err != nil:
		return "unreadable", b.err.Error()
	case b.got.size < b.entry.Size:
		return "truncated", fmt.Sprintf("%d byte invece di %d", b.got.size, b.entry.Size)
	case !b.got.is(b.entry.Size, b.entry.SHA256):
		return "changed", fmt.Sprintf("il contenuto (%d byte) non è quello registrato nel giornale", b.got.size)
	}
	return "good", ""
}

// total is how many objects the audit will read, as far as the catalog knows: for progress only.
func (w *audit) total() int64 {
	if !w.scope.everything() {
		return max(w.count.Expected, int64(len(w.scope.IDs)))
	}
	return max(w.count.Expected, w.a.cfg.Catalog.Count(w.p.Code))
}

// errLarge: an object has more bytes than any of its kind.
var errLarge = errors.New("più grande di quanto un oggetto di questo genere sia mai")

// fetch reads a small object, once more where the store fails. storage.ErrNotFound and errLarge say something
// of the object; any other error says nothing (storeFailed).
func (w *audit) fetch(ctx context.Context, key string, limit int64) (text []byte, err error) {
	for range 2 {
		if text, err = w.fetchOnce(ctx, key, limit); !storeFailed(err) {
			break
		}
	}
	return text, err
}

func (w *audit) fetchOnce(ctx context.Context, key string, limit int64) ([]byte, error) {
	r, err := w.a.cfg.Store.Get(ctx, key, "", 0, limit+1)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(&cancellable{ctx, r})
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, errLarge
	}
	return text, nil
}

// storeFailed reports whether an error of fetch leaves open what the object holds.
func storeFailed(err error) bool {
	return err != nil && !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, errLarge)
}

// watched is an object whose reader can be asked whether it was the store that failed: what parses it hides that.
type watched struct {
	*object
	failed error
}

// watch opens an object for one of the readers of papers.
func (w *audit) watch(ctx context.Context, key string) (*watched, error) {
	o, err := openObject(ctx, w.a.cfg.Store, key)
	return &watched{object: o}, err
}

// ReadAt reads, once more where the store fails.
func (o *watched) ReadAt(b []byte, off int64) (int, error) {
	n, err := o.object.ReadAt(b, off)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if n, err = o.object.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
		o.failed = err
	}
	return n, err
}

// resultList is the list of objects read, on its way into the report: a local file, since it has a line for each.
type resultList struct {
	file   storage.Staged
	buffer []byte
	size   int64 // of what the file has
}

const resultBuffer = 64 << 10

func newResultList(file storage.Staged) resultList { return resultList{file: file} }

// add appends a line.
func (l *resultList) add(line []byte) error {
	l.buffer = append(append(l.buffer, line...), '\n')
	if len(l.buffer) < resultBuffer {
		return nil
	}
	return l.flush()
}

func (l *resultList) flush() error {
	n, err := l.file.WriteAt(l.buffer, l.size)
	if l.size += int64(n); err != nil {
		return fmt.Errorf("list of objects read: %w", err)
	}
	l.buffer = l.buffer[:0]
	return nil
}

// reader gives the whole list.
func (l *resultList) reader() (*io.SectionReader, error) {
	if err := l.flush(); err != nil {
		return nil, err
	}
	return io.NewSectionReader(l.file, 0, l.size), nil
}

func (l *resultList) close() { _ = l.file.Close() } // nameless: nothing of it is kept
