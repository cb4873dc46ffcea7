package catalog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/blevesearch/bleve/v2/analysis"
	"github.com/blevesearch/bleve/v2/document"
	"github.com/blevesearch/bleve/v2/index/scorch"
	"github.com/blevesearch/bleve/v2/search"
	"github.com/blevesearch/bleve/v2/search/searcher"
	index "github.com/blevesearch/bleve_index_api"
	"golang.org/x/text/unicode/norm"
)

// words is the full-text index: one document per record, named by the tenant's number and the record's
// position, with the fields "w" (terms of the text) and "k" (a letter and an exact value: p tenant, l tenant
// if not annulled, s structure, r register, y year, n number, t type, D year and M month of the date). Nothing is stored: a hit is a position,
// and the record is read from Badger.
type words struct {
	index   index.Index
	queue   *index.AnalysisQueue
	italian *italian

	using  sync.RWMutex // read-held by readers, write-held by close
	closed bool
}

// progress says how far the words index has followed the records. While scanned is false the index is
// being filled from all records in key order and has passed (tenant, at); then it follows the feed.
type progress struct {
	scanned bool
	tenant  tenant
	at      position
	seq     uint64
}

const (
	fieldWords = "w"
	fieldExact = "k"

	yearLetter, monthLetter = 'D', 'M'

	indexing = index.IndexField | index.SkipFreqNorm
)

var (
	progressKey = []byte("progress")
	errWords    = errors.New("not the words index of this catalog")
	errNoWords  = errors.New("words index is closed")
)

func (p progress) encode() []byte {
	b := append([]byte{metaVersion}, flag(p.scanned, 1))
	b = append(p.tenant.append(b), p.at[:]...)
	return seal(binary.BigEndian.AppendUint64(b, p.seq))
}

func parseProgress(data []byte) (progress, error) {
	b, err := checked(data)
	if err != nil || len(b) != 2+4+12+8 || b[0] != metaVersion || b[1] > 1 {
		return progress{}, errWords
	}
	p := progress{scanned: b[1] == 1, tenant: tenant(binary.BigEndian.Uint32(b[2:])), seq: binary.BigEndian.Uint64(b[18:])}
	copy(p.at[:], b[6:])
	return p, nil
}

// openWords opens the index in dir, making it unless it is only to be read.
func openWords(dir string, a *italian, readOnly bool) (*words, progress, error) {
	w := &words{queue: index.NewAnalysisQueue(1), italian: a}
	fail := func(err error) (*words, progress, error) {
		w.queue.Close()
		return nil, progress{}, fmt.Errorf("open words index: %w", err)
	}
	var err error
	w.index, err = scorch.NewScorch(scorch.Name, map[string]any{
		"path": filepath.Clean(dir), "bolt_timeout": "2s", "read_only": readOnly,
	}, w.queue)
	if err != nil {
		return fail(err)
	}
	if err := w.index.Open(); err != nil {
		return fail(err)
	}
	p, err := w.progress()
	if err != nil {
		_ = w.index.Close()
		return fail(err)
	}
	return w, p, nil
}

func (w *words) close() error {
	w.using.Lock()
	defer w.using.Unlock()
	w.closed = true
	err := w.index.Close()
	w.queue.Close()
	return err
}

// read lends f what the index holds now, as long as it is open.
func (w *words) read(f func(r index.IndexReader) error) error {
	w.using.RLock()
	defer w.using.RUnlock()
	if w.closed {
		return errNoWords
	}
	r, err := w.index.Reader()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	return f(r)
}

func (w *words) progress() (p progress, err error) {
	err = w.read(func(r index.IndexReader) error {
		v, err := r.GetInternal(progressKey)
		if err == nil && v != nil {
			p, err = parseProgress(v)
			return err
		}
		n, err := r.DocCount()
		if err == nil && n != 0 {
			err = errWords
		}
		return err
	})
	return p, err
}

// batch collects what the index is to take at once.
type batch struct {
	w *words
	b *index.Batch
}

func (w *words) newBatch() *batch { return &batch{w, index.NewBatch()} }

func (b *batch) put(t tenant, at position, r *Record) {
	doc := document.NewDocument(documentID(t, at))
	doc.AddField(document.NewTextFieldCustom(fieldWords, nil, []byte(searchable(r)), indexing, b.w.italian))
	doc.AddField(document.NewTextFieldCustom(fieldExact, nil, nil, indexing, exactTerms(recordTerms(t, r))))
	b.b.Update(doc)
}

func (b *batch) remove(t tenant, at position) { b.b.Delete(documentID(t, at)) }

// write applies the batch and the progress it makes in one step, durable when it returns.
func (b *batch) write(p progress) error {
	b.b.SetInternal(progressKey, p.encode())
	return b.w.index.Batch(b.b)
}

func documentID(t tenant, at position) string {
	return string(append(t.append(make([]byte, 0, 16)), at[:]...))
}

func parseDocumentID(id string) (t tenant, at position, err error) {
	if len(id) != 16 {
		return 0, at, errWords
	}
	copy(at[:], id[4:])
	return tenant(binary.BigEndian.Uint32([]byte(id[:4]))), at, nil
}

// exactTerms is the analyzer of a field whose terms are known already.
type exactTerms []string

func (e exactTerms) Analyze([]byte) analysis.TokenStream {
	out := make(analysis.TokenStream, len(e))
	for i, t := range e {
		out[i] = &analysis.Token{Term: []byte(t), Position: i + 1, Type: analysis.AlphaNumeric}
	}
	return out
}

func tenantTerm(t tenant, live bool) string {
	if live {
		return string(t.append([]byte{'l'}))
	}
	return string(t.append([]byte{'p'}))
}

// recordTerms are the exact terms of a record.
func recordTerms(t tenant, r *Record) []string {
	date := fmt.Sprintf("%08d", parseDate(r.Date))
	out := []string{
		tenantTerm(t, false),
		exact('s', r.Structure), exact('r', r.Register), exact('n', trimZeros(r.Number)),
		exact('y', strconv.Itoa(r.Year)), exact('t', r.Type),
		exact(yearLetter, date[:4]), exact(monthLetter, date[:6]),
	}
	if !r.Annulled {
		out = append(out, tenantTerm(t, true))
	}
	return out
}

// exact is the term of an exact value, which beyond a length is shortened: the record itself decides.
func exact(letter byte, value string) string {
	value = norm.NFC.String(value)
	if len(value) > 64 {
		value = string(tag(value))
	}
	return string(letter) + value
}

// hits finds, of the records under all exact and all word terms and between from and to, the first k after
// the position given, and how many there are altogether, -1 if that would take long.
//
// The library gives hits in no order of ours. So what has few hits is looked through whole, and what has
// many year by year, newest first, and within a year with many month by month, until there are enough.
func (w *words) hits(ctx context.Context, q hitQuery) (first []position, total int, err error) {
	err = w.read(func(r index.IndexReader) (err error) {
		look := &lookup{ctx: ctx, reader: r, q: q, top: topmost{k: q.k}}
		var few bool
		if total, few, err = look.through("", fewHits); err == nil && !few {
			total = -1
			err = look.byYear()
		}
		first = look.top.sorted()
		return err
	})
	return first, total, err
}

// fewHits is what is looked through without further ado: a matter of milliseconds.
const fewHits = 4096

// lookup is one call of hits on its way.
type lookup struct {
	ctx    context.Context
	reader index.IndexReader
	q      hitQuery
	top    topmost
}

func (l *lookup) byYear() error {
	years, err := l.periods(yearLetter, 4)
	if err != nil {
		return err
	}
	for _, year := range years {
		_, few, err := l.through(string(yearLetter)+year, fewHits)
		if err == nil && !few {
			err = l.byMonth(year)
		}
		if err != nil || l.top.full() {
			return err
		}
	}
	return nil
}

func (l *lookup) byMonth(year string) error {
	months, err := l.periods(monthLetter, 6)
	if err != nil {
		return err
	}
	for _, month := range months {
		if month[:4] != year {
			continue
		}
		if _, _, err := l.through(string(monthLetter)+month, math.MaxInt); err != nil || l.top.full() {
			return err
		}
	}
	return nil
}

// periods lists the years (4 digits) or months (6) there are documents of, newest first, leaving out those
// that lie outside the query's bounds or wholly before the position it goes on from.
func (l *lookup) periods(letter byte, digits int) (out []string, err error) {
	newest := l.q.from.date()
	if l.q.after != nil {
		newest = min(newest, l.q.after.date())
	}
	first := fmt.Sprintf("%08d", min(newest, 99999999))[:digits]
	last := fmt.Sprintf("%08d", l.q.to.date())[:digits]
	d, err := l.reader.FieldDictPrefix(fieldExact, []byte{letter})
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	for {
		e, err := d.Next()
		if err != nil {
			return nil, err
		}
		if e == nil {
			break
		}
		if p := e.Term[1:]; len(p) == digits && p <= first && p >= last {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out, nil
}

// through offers all hits that also have the exact term more (if not empty), unless there are more than
// limit; then it offers none.
func (l *lookup) through(more string, limit int) (n int, few bool, err error) {
	s, err := conjunction(l.ctx, l.reader, l.q, more)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = s.Close() }()
	sc := &search.SearchContext{DocumentMatchPool: search.NewDocumentMatchPool(s.DocumentMatchPoolSize()+1, 0), IndexReader: l.reader}
	var documents []uint64
	for {
		m, err := s.Next(sc)
		if err != nil {
			return 0, false, err
		}
		if m == nil {
			break
		}
		documents = append(documents, m.IndexInternalID.Value())
		sc.DocumentMatchPool.Put(m)
		if len(documents) > limit {
			return 0, false, nil
		}
	}
	n, err = l.offer(documents)
	return n, true, err
}

// offer looks up the names of documents, which is what costs.
func (l *lookup) offer(documents []uint64) (n int, err error) {
	var buf index.IndexInternalID
	for i, d := range documents {
		if i%1024 == 0 && l.ctx.Err() != nil {
			return 0, l.ctx.Err()
		}
		buf = index.NewIndexInternalID(buf, d)
		id, err := l.reader.ExternalID(buf)
		if err != nil {
			return 0, err
		}
		t, at, err := parseDocumentID(id)
		if err != nil {
			return 0, err
		}
		if t != l.q.tenant || at.compare(l.q.from) < 0 || at.compare(l.q.to) > 0 {
			continue
		}
		n++
		if l.q.after == nil || at.compare(*l.q.after) > 0 {
			l.top.offer(at)
		}
	}
	return n, nil
}

type hitQuery struct {
	tenant   tenant
	exact    []string
	words    []string
	from, to position
	after    *position
	k        int
}

func conjunction(ctx context.Context, r index.IndexReader, q hitQuery, more string) (search.Searcher, error) {
	o := search.SearcherOptions{Score: "none"}
	var all []search.Searcher
	add := func(field, term string) error {
		s, err := searcher.NewTermSearcher(ctx, r, term, field, 1, o)
		if err == nil {
			all = append(all, s)
		}
		return err
	}
	var err error
	for _, t := range q.exact {
		err = errors.Join(err, add(fieldExact, t))
	}
	for _, t := range q.words {
		err = errors.Join(err, add(fieldWords, t))
	}
	if more != "" {
		err = errors.Join(err, add(fieldExact, more))
	}
	if err != nil {
		for _, s := range all {
			_ = s.Close()
		}
		return nil, err
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return searcher.NewConjunctionSearcher(ctx, r, all, o)
}

// count tells how many documents the index holds of a tenant.
func (w *words) count(ctx context.Context, t tenant) (n int64, err error) {
	err = w.read(func(r index.IndexReader) error {
		f, err := r.TermFieldReader(ctx, []byte(tenantTerm(t, false)), fieldExact, false, false, false)
		if err != nil {
			return err
		}
		n = int64(f.Count())
		return f.Close()
	})
	return n, err
}

// topmost keeps the k smallest positions it is offered, in bounded memory.
type topmost struct {
	k     int
	kept  []position
	limit *position // the largest that can still matter, once k are known
}

func (t *topmost) offer(p position) {
	if t.limit != nil && p.compare(*t.limit) >= 0 {
		return
	}
	if t.kept = append(t.kept, p); len(t.kept) >= 4*t.k {
		t.cut()
	}
}

func (t *topmost) cut() {
	slices.SortFunc(t.kept, position.compare)
	if len(t.kept) >= t.k {
		t.kept = t.kept[:t.k]
		last := t.kept[t.k-1]
		t.limit = &last
	}
}

// full tells whether k are known, so that none behind them matters.
func (t *topmost) full() bool { return len(t.kept) >= t.k }

func (t *topmost) sorted() []position {
	t.cut()
	return t.kept
}

// dropSome adds the deletion of some of a tenant's documents to the batch and tells whether there were any.
func (w *words) dropSome(b *batch, t tenant) (some bool, err error) {
	err = w.read(func(r index.IndexReader) error {
		f, err := r.TermFieldReader(context.Background(), []byte(tenantTerm(t, false)), fieldExact, false, false, false)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		for range batchRecords {
			d, err := f.Next(nil)
			if err != nil || d == nil {
				return err
			}
			id, err := r.ExternalID(d.ID)
			if err != nil {
				return err
			}
			b.b.Delete(id)
			some = true
		}
		return nil
	})
	return some, err
}

// eachDocument calls f with the name of every document and its tenant.
func (w *words) eachDocument(f func(id string, t tenant)) error {
	return w.read(func(r index.IndexReader) error {
		all, err := r.DocIDReaderAll()
		if err != nil {
			return err
		}
		defer func() { _ = all.Close() }()
		for {
			d, err := all.Next()
			if err != nil || d == nil {
				return err
			}
			id, err := r.ExternalID(d)
			if err != nil {
				return err
			}
			t, _, err := parseDocumentID(id)
			if err != nil {
				return err
			}
			f(id, t)
		}
	})
}
