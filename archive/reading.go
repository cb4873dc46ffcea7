package archive

import (
	"context"
	"crypto/sha256"
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

// readers reads objects a few at a time and keeps their results in ledger order.
type readers struct {
	w     *audit
	batch []reading
}

// reading is one object to read, and what came of it.
type reading struct {
	entry ledger.Entry
	index int64
	got   contents
	err   error
}

const (
	readBatch    = 256
	readParallel = 4
)

func newReaders(w *audit) *readers { return &readers{w: w} }

func (r *readers) read(ctx context.Context, e ledger.Entry, index int64) error {
	r.batch = append(r.batch, reading{entry: e, index: index})
	if len(r.batch) < readBatch {
		return nil
	}
	return r.finish(ctx)
}

// finish reads the batch. What a store fails to give is asked for once more, so that a line that broke does not
// leave the audit incomplete.
func (r *readers) finish(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readParallel)
	for i := range r.batch {
		g.Go(func() error {
			b := &r.batch[i]
			for range 2 {
				var second hash.Hash
				if r.w.firstReading(b.index) {
					second = sha512.New()
				}
				b.got, b.err = readDigest(ctx, r.w.a.cfg.Store, b.entry.Object, second)
				if b.err == nil || errors.Is(b.err, storage.ErrNotFound) {
					break
				}
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, b := range r.batch {
		if err := r.w.judge(b); err != nil {
			return err
		}
	}
	r.batch = r.batch[:0]
	return nil
}

// firstReading reports whether no audit has read this entry's object yet: then SHA-512 is taken too, which
// this report binds, so that a change of hash will need no emergency reading.
func (w *audit) firstReading(index int64) bool { return index >= w.p.reread.read() }

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
	case "unreadable":
		w.unchecked(b.entry.Object + ": " + text)
	default:
		w.damage(b.entry.Object, kind, b.entry.ID, text)
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
	case b.got.size != b.entry.Size || hex.EncodeToString(b.got.sha256[:]) != b.entry.SHA256:
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

// contents is what an object turned out to hold.
type contents struct {
	size   int64
	sha256 [32]byte
	sha512 string
}

// readDigest reads an object whole in one request; second, when not nil, is a SHA-512 to feed as well.
func readDigest(ctx context.Context, s storage.Store, key string, second hash.Hash) (contents, error) {
	r, err := s.Get(ctx, key, "", 0, -1)
	if err != nil {
		return contents{}, err
	}
	first := sha256.New()
	var to io.Writer = first
	if second != nil {
		to = io.MultiWriter(first, second)
	}
	buf := make([]byte, 128<<10)
	n, err := io.CopyBuffer(onlyWriter{to}, &cancellable{ctx, r}, buf)
	got := contents{size: n}
	first.Sum(got.sha256[:0])
	if second != nil {
		got.sha512 = hex.EncodeToString(second.Sum(nil))
	}
	return got, errors.Join(err, r.Close())
}

// onlyWriter hides ReadFrom, which would make io.CopyBuffer ignore the buffer.
type onlyWriter struct{ io.Writer }

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
