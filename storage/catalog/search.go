package catalog

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/text/unicode/norm"
)

// Query says what to look for in one producer's records. Empty fields do not restrict; all others must hold.
type Query struct {
	Producer            string
	Structure, Register string // exact, after NFC
	Number              string // exact, after NFC and without leading zeros: 123 finds 0000123
	Year                int
	From, To            string // document dates YYYY-MM-DD, both included; records without a date are left out
	Type                string // exact, after NFC
	Words               string // all of them, in any order and inflection (see the package comment); at most 1000 bytes
	Limit               int    // records wanted; 0 means 50, more than 1000 means 1000
	After               string // Page.Next of the page before, under the same query
	IncludeAnnulled     bool
}

// Page is a part of what was found: newest document date first, then highest ledger entry first. A record
// that is put while somebody turns pages appears in its place or, if that was passed already, not at all;
// none appears twice, none that stays is left out.
type Page struct {
	Records []Record
	Next    string // where the next page begins; "" when there is none
	Total   int    // records found over all pages; -1 when unknown
	Behind  int64  // records that a search by words or key could not consider yet
}

const (
	defaultLimit = 50
	maxLimit     = 1000
	maxWords     = 1000 // bytes
	// maxTail is how many changes the words index may be behind for a search to look through them itself.
	maxTail = 1000
)

// Search finds records of one producer. Words, structure, register, number and year are looked up in the
// words index, and in what it has not followed yet as long as that is little; else Page.Behind says how much
// was not looked at. Date and type need only the records.
func (c *Catalog) Search(ctx context.Context, q Query) (page Page, err error) {
	err = c.do(func() error {
		s, err := c.newSearch(q)
		if err != nil {
			return err
		}
		defer s.txn.Discard()
		if !s.known || s.hopeless {
			return nil
		}
		if s.indexed() {
			page, err = s.byWords(ctx)
		} else {
			page, err = s.byOrder(ctx)
		}
		return err
	})
	if err != nil {
		return Page{}, fmt.Errorf("search the catalog of %s: %w", q.Producer, err)
	}
	return page, nil
}

// looking is one search on its way.
type looking struct {
	c        *Catalog
	q        Query
	known    bool // the producer is
	account  account
	txn      *badger.Txn
	from, to position // both included
	after    *position
	terms    map[string]bool // of q.Words
	hopeless bool            // there are words, but none that is ever found
	limit    int
}

func (c *Catalog) newSearch(q Query) (*looking, error) {
	s := &looking{c: c, q: q, limit: q.Limit}
	if s.limit <= 0 {
		s.limit = defaultLimit
	}
	s.limit = min(s.limit, maxLimit)
	for _, p := range []*string{&s.q.Structure, &s.q.Register, &s.q.Number, &s.q.Type} {
		*p = norm.NFC.String(*p)
	}
	s.q.Number = trimZeros(s.q.Number)
	var err error
	if s.from, s.to, err = dateBounds(q.From, q.To); err != nil {
		return nil, err
	}
	if q.After != "" {
		at, err := parseCursor(q.After)
		if err != nil {
			return nil, err
		}
		s.after = &at
	}
	if q.Words != "" {
		if len(q.Words) > maxWords {
			return nil, fmt.Errorf("%w: words of more than %d bytes", ErrQuery, maxWords)
		}
		s.terms = c.italian.terms(q.Words)
		s.hopeless = len(s.terms) == 0
	}
	s.account, s.known = c.account(q.Producer)
	s.txn = c.db.NewTransaction(false)
	return s, nil
}

// dateBounds are the positions between which dates from first to last lie.
func dateBounds(first, last string) (from, to position, err error) {
	oldest, newest := uint32(0), ^uint32(0)
	if first != "" {
		if oldest = parseDate(first); oldest == 0 {
			return from, to, fmt.Errorf("%w: %q is not a date YYYY-MM-DD", ErrQuery, first)
		}
	}
	if last != "" {
		if newest = parseDate(last); newest == 0 {
			return from, to, fmt.Errorf("%w: %q is not a date YYYY-MM-DD", ErrQuery, last)
		}
		oldest = max(oldest, 1)
	}
	return positionOf(newest, -1), positionOf(oldest, 0), nil
}

// A cursor is the position of the last record of the page before, in base64url.
func cursor(at position) string { return base64.RawURLEncoding.EncodeToString(at[:]) }

func parseCursor(s string) (at position, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(at) {
		return at, fmt.Errorf("%w: %q is not a cursor", ErrQuery, s)
	}
	copy(at[:], b)
	if cursor(at) != s { // decoding passes over line ends
		return position{}, fmt.Errorf("%w: %q is not a cursor", ErrQuery, s)
	}
	return at, nil
}

func (s *looking) indexed() bool {
	q := &s.q
	return len(s.terms) > 0 || q.Structure != "" || q.Register != "" || q.Number != "" || q.Year != 0
}

// matches is the judge of every record that is given out.
func (s *looking) matches(r *Record) bool {
	q := &s.q
	at := positionOf(parseDate(r.Date), r.Index)
	return (q.IncludeAnnulled || !r.Annulled) &&
		(q.Structure == "" || q.Structure == norm.NFC.String(r.Structure)) &&
		(q.Register == "" || q.Register == norm.NFC.String(r.Register)) &&
		(q.Number == "" || q.Number == trimZeros(norm.NFC.String(r.Number))) &&
		(q.Year == 0 || q.Year == r.Year) &&
		(q.Type == "" || q.Type == norm.NFC.String(r.Type)) &&
		at.compare(s.from) >= 0 && at.compare(s.to) <= 0 &&
		s.hasWords(r)
}

func (s *looking) hasWords(r *Record) bool {
	if len(s.terms) == 0 {
		return true
	}
	have := s.c.italian.terms(searchable(r))
	for t := range s.terms {
		if !have[t] {
			return false
		}
	}
	return true
}

// page cuts the records found, one more than wanted if there are more.
func (s *looking) page(found []Record, total int) Page {
	p := Page{Records: found, Total: total}
	if len(found) > s.limit {
		p.Records = found[:s.limit]
		last := &p.Records[s.limit-1]
		p.Next = cursor(positionOf(parseDate(last.Date), last.Index))
	} else if s.after == nil && total < 0 {
		p.Total = len(found)
	}
	return p
}

// byOrder walks the records, or those of a type, in the order of the answer.
func (s *looking) byOrder(ctx context.Context) (Page, error) {
	prefix := tenantPrefix(kindRecord, s.account.tenant)
	if s.q.Type != "" {
		prefix = typePrefix(s.account.tenant, s.q.Type)
	}
	start := s.from
	if s.after != nil && s.after.compare(start) > 0 {
		start = *s.after
	}
	o := badger.DefaultIteratorOptions
	o.Prefix, o.PrefetchValues = prefix, false
	it := s.txn.NewIterator(o)
	defer it.Close()
	var found []Record
	n := 0
	for it.Seek(append(bytes.Clone(prefix), start[:]...)); it.Valid() && len(found) <= s.limit; it.Next() {
		if n++; n%256 == 0 && ctx.Err() != nil {
			return Page{}, ctx.Err()
		}
		var at position
		if copy(at[:], it.Item().Key()[len(prefix):]) != len(at) || at.compare(s.to) > 0 {
			break
		}
		if s.after != nil && at == *s.after {
			continue
		}
		r, err := s.load(it.Item(), at)
		if err != nil {
			return Page{}, err
		}
		if s.matches(&r) {
			found = append(found, r)
		}
	}
	return s.page(found, s.plainTotal()), nil
}

// load reads the record that an item of byOrder is or names.
func (s *looking) load(item *badger.Item, at position) (r Record, err error) {
	if item.Key()[0] == kindRecord {
		err = item.Value(func(v []byte) error {
			r, err = recordAt(s.q.Producer, at, v)
			return err
		})
		return r, err
	}
	return followed(s.txn, s.q.Producer, s.account.tenant, at[:])
}

// plainTotal is the number of records when nothing restricts them.
func (s *looking) plainTotal() int {
	if s.q.Type != "" || s.q.From != "" || s.q.To != "" {
		return -1
	}
	if s.q.IncludeAnnulled {
		return int(s.account.records)
	}
	return int(s.account.state.Count)
}

// byWords asks the words index, and looks itself through what the index has not followed.
func (s *looking) byWords(ctx context.Context) (Page, error) {
	tail, behind, err := s.tail(ctx)
	if err != nil {
		return Page{}, err
	}
	s.c.fill.mu.RLock()
	w := s.c.fill.words
	s.c.fill.mu.RUnlock()
	found, _, err := s.read(tail, s.after)
	if err != nil {
		return Page{}, err
	}
	total, hits := -1, 0
	for after := s.after; w != nil; {
		first, n, err := s.ask(ctx, w, after)
		if err != nil {
			return Page{}, err
		}
		if n == lost {
			behind = s.account.records
			break
		}
		hit, all, err := s.read(first, nil)
		if err != nil {
			return Page{}, err
		}
		if total = n; !all || len(tail) > 0 || behind > 0 {
			total = -1
		}
		found = merge(found, hit)
		if hits += len(hit); len(first) <= s.limit || hits > s.limit {
			break
		}
		after = &first[len(first)-1]
	}
	p := s.page(found, total)
	if p.Behind = behind; behind > 0 {
		p.Total = -1
	}
	return p, nil
}

// lost is the number of hits of an index that gives none because it is, or has to be, begun anew.
const lost = -2

// ask gets hits from the words index. One that breaks is not the end of the search, nor of the catalog.
func (s *looking) ask(ctx context.Context, w *words, after *position) (first []position, n int, err error) {
	err = guard(func() (err error) {
		first, n, err = w.hits(ctx, s.hitQuery(after))
		return err
	})
	switch {
	case err == nil:
		return first, n, nil
	case ctx.Err() != nil:
		return nil, 0, ctx.Err()
	case !errors.Is(err, errNoWords):
		s.c.fill.distrust(w, err)
	}
	return nil, lost, nil
}

func (s *looking) hitQuery(after *position) hitQuery {
	q := &s.q
	h := hitQuery{
		tenant: s.account.tenant, from: s.from, to: s.to, after: after, k: s.limit + 1,
		exact: []string{tenantTerm(s.account.tenant, !q.IncludeAnnulled)},
		words: slices.Sorted(maps.Keys(s.terms)),
	}
	for _, e := range []struct {
		letter byte
		value  string
	}{{'s', q.Structure}, {'r', q.Register}, {'n', q.Number}, {'t', q.Type}} {
		if e.value != "" {
			h.exact = append(h.exact, exact(e.letter, e.value))
		}
	}
	if q.Year != 0 {
		h.exact = append(h.exact, exact('y', strconv.Itoa(q.Year)))
	}
	return h
}

// tail reads the positions that the feed names and the index may not have followed, or says how many there
// are. The index is to be asked after this: what is in neither is not there.
func (s *looking) tail(ctx context.Context) (tail []position, behind int64, err error) {
	behind = s.c.fill.behind(ctx, s.account)
	f := s.c.fill
	f.mu.RLock()
	p, all := f.progress, int64(0)
	for _, n := range f.pending {
		all += n
	}
	f.mu.RUnlock()
	if !p.scanned || all > maxTail {
		return nil, behind, nil
	}
	seen := make(map[position]bool)
	err = eachFeed(s.txn, p.seq+1, func(_ uint64, ops []op) (bool, error) {
		for _, o := range ops {
			if o.tenant == s.account.tenant && o.kind == opTouch {
				seen[o.at] = true
			}
		}
		return true, nil
	})
	return slices.SortedFunc(maps.Keys(seen), position.compare), 0, err
}

// read gives the records at these positions, behind after, that match, and tells whether all did.
func (s *looking) read(at []position, after *position) (found []Record, all bool, err error) {
	all = true
	for _, p := range at {
		if after != nil && p.compare(*after) <= 0 {
			continue
		}
		r, ok, err := byPosition(s.txn, s.q.Producer, s.account.tenant, p)
		if err != nil {
			return nil, false, err
		}
		if !ok || !s.matches(&r) {
			all = false
			continue
		}
		found = append(found, r)
	}
	return found, all, nil
}

// merge joins two lists in the order of the answer, each record once.
func merge(a, b []Record) []Record {
	out := append(a, b...)
	compare := func(a, b Record) int {
		return positionOf(parseDate(a.Date), a.Index).compare(positionOf(parseDate(b.Date), b.Index))
	}
	slices.SortFunc(out, compare)
	return slices.CompactFunc(out, func(a, b Record) bool { return compare(a, b) == 0 })
}
