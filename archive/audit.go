package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
)

// Scope says what an audit looks at. Without IDs and End it looks at everything: each object that the ledger
// names, the ledger itself, seals, keys, derived objects, the catalog, and what lies in the bucket unasked.
// With them it looks at a part: the objects asked for, the commits from the first to the last that names one, and
// whether the bucket still has the commit that this machine, or a paper given, knows to be there. A part is no
// statement about the rest, and of two packages that live under one key only the whole ledger tells: of packages asked
// for the catalog is asked, whose yes leaves the audit incomplete, and whose no proves nothing.
type Scope struct {
	Producer string
	IDs      []string // these packages only, of the ledger no more than from the first to the last of their commits
	First    int64    // entries from First, End excluded; End 0 means no range
	End      int64
	Budget   int64 // of a range: stop after about this many bytes; 0 means no bound
	// Against are receipts to hold the ledger against, each checked before: what each proves must be in it.
	Against []paper.Checked
	// Progress, when not nil, is told what was read and what is to be read, in objects.
	Progress func(done, total int64)
}

func (s Scope) everything() bool { return len(s.IDs) == 0 && s.End == 0 }

// Audited is the outcome of an audit: the sealed report and, when it could be entered in the ledger, its ID.
// Close it.
type Audited struct {
	Report *paper.Report
	ID     string // "" when the ledger cannot be written
	Size   int64  // of the report as ASiC-E, bytes
	staged storage.Staged
}

// Reader gives the report as ASiC-E. It lists every object read, so it may be large: it lies in a local file.
func (o *Audited) Reader() *io.SectionReader { return io.NewSectionReader(o.staged, 0, o.Size) }

// Close frees the room the report takes; the one that was entered in the ledger stays in the bucket.
func (o *Audited) Close() error { return o.staged.Close() }

// Audit reads back what is kept and says what it found, in a sealed report. The expected list comes from the
// ledger in the bucket, never from the catalog or a listing; evidence is bytes read and hashed, nothing else.
// A report never says good with damage present, or with something left unchecked. What is written while the
// audit runs is left to the next one, and is no finding.
func (a *Archive) Audit(ctx context.Context, s Scope) (*Audited, error) {
	p, err := a.producer("audit", s.Producer)
	if err != nil {
		return nil, err
	}
	if a.cfg.Signer == nil {
		return nil, fail(ReadOnly, "audit", p.Code, errReadOnly)
	}
	for _, c := range s.Against {
		if c.Origin != a.cfg.Installation+"/"+p.Code {
			return nil, fail(Invalid, "audit", p.Code, errors.New("the receipt to hold against is of the ledger "+c.Origin))
		}
	}
	w, err := newAudit(a, p, s)
	if err != nil {
		return nil, storeError("audit", p.Code, err)
	}
	defer w.results.close()
	if err := w.run(ctx); err != nil {
		return nil, fail(Unavailable, "audit", p.Code, err)
	}
	out, err := w.issue(ctx)
	if err != nil {
		return nil, err
	}
	a.metrics.audits.WithLabelValues(out.Report.Verdict).Inc()
	return out, nil
}

// audit is one audit under way.
type audit struct {
	a     *Archive
	p     *producer
	scope Scope
	ids   map[string]bool // of scope.IDs: whether the ledger named it

	began   time.Time // to the millisecond, as entries and receipts have it
	started time.Time // as the report states it
	findings
	results resultList
	count   paper.ReportObjectsCount
	judged  int64 // objects whose result is known
	seals   paper.ReportSeals

	commits  int64
	mark     ledger.Head // as it was before anything was read: the ledger grows meanwhile
	marked   bool
	met      int64       // newest commit that was read by itself and found: of the mark, or of a paper; -1: none
	head     ledger.Head // as found in the bucket
	part     bool        // the walk begins or ends within the ledger
	first    int64       // the first entry that was met
	end      int64       // of a range: where it stopped
	unread   []stretch   // entries whose commit, or object, the store did not give
	planned  int64       // bytes of the objects that were, or are about to be, read
	rollback string
	against  []bool // which of scope.Against were met

	signers  signers
	expected map[[16]byte]struct{} // keys of objects that the ledger names
	later    later                 // what was named since the walk
	keys     holders               // live packages by the HMAC of their key
	clear    clearKeys             // the same by the key itself
	live     map[string]struct{}   // fingerprints under keys/ that the ledger names
	derived  []string              // derived objects found damaged, to be made again
	lost     map[string]bool       // keys of commits found damaged: what they say is not known
	sealed   map[int64]namedSeal   // what the ledger says of seals
	voids    map[string]string     // keys of void numbers, and the version that was called void: see nameOverVoid
	unkept   [][]byte              // published keys that are missing, to be put again

	bad      map[[16]byte]struct{} // keys of objects that the ledger names and of which no version was found good
	astray   map[[16]byte]string   // the version that is meant, of keys whose newest is another
	beside   []stray               // of an audit that lists no bucket: named when the walk has ended
	repaired map[[16]byte]struct{} // keys of objects that were put back
	loose    bool                  // a lock was missing or short
	locks    *toldLocks            // the store that commits and seals are read from
}

func newAudit(a *Archive, p *producer, s Scope) (*audit, error) {
	results, err := a.spool()
	if err != nil {
		return nil, err
	}
	began := a.cfg.Now()
	w := &audit{
		a: a, p: p, scope: s, began: began.Truncate(time.Millisecond), started: wholeSecond(began), results: newResultList(results), ids: map[string]bool{},
		against: make([]bool, len(s.Against)), rollback: "none", met: -1, expected: map[[16]byte]struct{}{}, keys: newHolders(), clear: newClearKeys(),
		live: map[string]struct{}{}, lost: map[string]bool{}, sealed: map[int64]namedSeal{}, voids: map[string]string{},
		bad: map[[16]byte]struct{}{}, astray: map[[16]byte]string{}, repaired: map[[16]byte]struct{}{},
		locks: &toldLocks{Store: a.cfg.Store},
	}
	w.scope.IDs = slices.DeleteFunc(slices.Clone(s.IDs), func(id string) bool {
		_, twice := w.ids[id]
		w.ids[id] = false
		return twice
	})
	return w, nil
}

// run reads ledger and objects in one pass, then the rest.
func (w *audit) run(ctx context.Context) error {
	w.mark, w.marked = w.a.heads.Get(w.p.Code)
	if err := w.readLedger(ctx); err != nil {
		return err
	}
	if w.loose {
		w.a.relock(w.p.Code)
	}
	w.later = later{keys: map[[16]byte]struct{}{}, last: w.head.Number}
	w.checkMark(ctx)
	w.hold(ctx)
	w.checkAgainst(ctx)
	w.nameBeside(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if w.part {
		w.askDuplicates()
	} else {
		w.checkDuplicates()
	}
	if !w.scope.everything() {
		return nil
	}
	for _, step := range []func(context.Context) error{w.checkSeals, w.checkBucket, w.checkRooms, w.checkKeys, w.checkCatalog} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	w.remake(ctx)
	return nil
}

// span is the commits to walk: all, or those of the range, up to what the ledger has now. It was marked before,
// so that the walk never ends before the mark it is held against.
func (w *audit) span(ctx context.Context) (from, to int64, err error) {
	if w.p.ledger() == nil {
		if w.scope.End > 0 {
			return 0, 0, fmt.Errorf("a range needs a ledger that runs: %w", w.p.why())
		}
		return 0, -1, nil
	}
	if err := w.p.ledger().Refresh(ctx); err != nil {
		w.unchecked("i commit che altri hanno scritto: " + err.Error())
	}
	if from, to, ok := w.namedIn(ctx); ok {
		w.part = true
		return from, to, nil
	}
	if w.scope.End == 0 {
		to = w.p.ledger().Head().Number
		if w.marked {
			to = max(to, w.mark.Number)
		}
		return 0, to, nil
	}
	w.part = true
	if from, err = w.p.ledger().CommitOf(w.scope.First); err != nil {
		return 0, 0, err
	}
	to, err = w.p.ledger().CommitOf(w.scope.End - 1)
	return from, to, err
}

// namedIn is the span of commits that name the packages asked for: a look at one document must not take a walk through
// everybody's. The catalog says where they are, and the ledger, which runs, whether it is so: where one of them is not in
// its commit, or is in no catalog, the whole ledger is walked.
func (w *audit) namedIn(ctx context.Context) (from, to int64, ok bool) {
	for i, id := range w.scope.IDs {
		r, found, err := w.a.cfg.Catalog.ByID(w.p.Code, id)
		if err != nil || !found {
			return 0, 0, false
		}
		c, err := w.p.ledger().Commit(ctx, r.Commit)
		if err != nil || !slices.ContainsFunc(c.Entries, func(e ledger.Entry) bool { return e.ID == id && namesObject(e) }) {
			return 0, 0, false
		}
		if i == 0 {
			from, to = c.Number, c.Number
		}
		from, to = min(from, c.Number), max(to, c.Number)
	}
	return from, to, len(w.scope.IDs) > 0
}

// readLedger walks the commits in the bucket and reads the objects they name.
func (w *audit) readLedger(ctx context.Context) error {
	from, to, err := w.span(ctx)
	if err != nil {
		return err
	}
	w.head = ledger.Head{Number: -1}
	w.signers.asked = from == 0
	pool := newReaders(w)
	defer pool.end()
	commits := ledger.Walk(ctx, w.locks, w.p.Code, w.a.cfg.Trust.Ledgers, from, to)
	if from > 0 {
		// Roots of a range can only be recomputed by a ledger that knows what is before it.
		commits = w.p.ledger().Walk(ctx, from, to)
	}
	behind := int64(-1) // the first entry of a commit that was not given, -1: the one before was
	for c, err := range commits {
		var d *ledger.Damage
		switch {
		case errors.As(err, &d):
			if w.loseCommit(d); d.Unread && behind < 0 {
				behind = max(w.scope.First, w.head.Size)
			}
			continue
		case err != nil:
			return err
		}
		if behind >= 0 {
			w.notRead(behind, c.First)
			behind = -1
		}
		if err := w.readCommit(ctx, c, pool); err != nil {
			return err
		}
		if w.end = c.Size; w.scope.Budget > 0 && w.planned >= w.scope.Budget {
			return pool.finish(ctx)
		}
	}
	// What could not be read was tried all the same: a schedule that waited for it would never go on.
	w.end = max(w.end, w.scope.End)
	if behind >= 0 {
		w.notRead(behind, w.end)
	}
	return pool.finish(ctx)
}

// notRead notes entries that the store did not give, so that the schedule comes back to them. Where there are many they
// are noted as one.
func (w *audit) notRead(first, end int64) {
	const most = 256
	last := len(w.unread) - 1
	switch {
	case end <= first:
	case last >= 0 && (first <= w.unread[last].End || last >= most):
		w.unread[last].End = max(w.unread[last].End, end)
	default:
		w.unread = append(w.unread, stretch{First: first, End: end})
	}
}

func (w *audit) loseCommit(d *ledger.Damage) {
	if d.Void {
		w.voids[d.Key] = d.Version
		w.notice(d.Key, "void", "oggetto estraneo al posto di un commit, che il giornale ha dichiarato nullo")
		if !w.scope.everything() { // else the listing of the bucket comes to it
			w.nameOverVoid(d.Versions)
		}
		return
	}
	if d.Beside {
		w.strays(d.Key, d.Version, d.Versions)
		return
	}
	if w.lost[d.Key] = true; d.Unread {
		w.unchecked(d.Key + ": " + d.Reason)
	} else {
		w.damage(d.Key, "ledger", "", d.Reason)
	}
	if d.Unchecked {
		w.unchecked("le radici dei commit dopo " + d.Key)
	}
}

// readCommit looks at each entry and has the objects read that it names.
func (w *audit) readCommit(ctx context.Context, c *ledger.Commit, pool *readers) error {
	if w.commits++; w.commits == 1 {
		w.first = c.First
	}
	delete(w.lost, ledger.Key(w.p.Code, c.Number)) // it was beside the point, not in it
	w.head = ledger.Head{Number: c.Number, Size: c.Size, Root: c.Root, Commit: c.SHA256}
	w.meet(c)
	w.checkSigner(c)
	w.checkCommitLock(c.Number)
	for i, e := range c.Entries {
		index := c.First + int64(i)
		w.noteEntry(c, e)
		if !namesObject(e) {
			continue
		}
		w.expected[short(e.Object)] = struct{}{}
		if !w.selected(e, index) {
			continue
		}
		w.count.Expected++
		w.planned += e.Size
		if err := pool.read(ctx, e, index); err != nil {
			return err
		}
	}
	if w.scope.everything() {
		w.checkBundle(ctx, c)
	}
	return ctx.Err()
}

// namesObject reports whether an entry makes an object expected.
func namesObject(e ledger.Entry) bool {
	return e.Type == ledger.PackageSealed || e.Type == ledger.ReportIssued || e.Type == ledger.SubmissionRefused
}

func (w *audit) selected(e ledger.Entry, index int64) bool {
	if len(w.scope.IDs) > 0 {
		_, asked := w.ids[e.ID]
		if asked {
			w.ids[e.ID] = true
		}
		return asked
	}
	return w.scope.End == 0 || index >= w.scope.First && index < w.scope.End
}

// noteEntry keeps what later checks need: which packages live under which key, which keys and seals are named.
func (w *audit) noteEntry(c *ledger.Commit, e ledger.Entry) {
	switch e.Type {
	case ledger.PackageSealed:
		w.keys.add(e)
	case ledger.PackageAnnulled, ledger.PackageDisposed:
		// A range may begin behind the entry that made the package.
		if there := w.keys.remove(e); !there && w.signers.asked {
			w.damageOrDoubt(ledger.Key(w.p.Code, c.Number), "contradiction", e.ID, "toglie un pacchetto che non vive sotto quella chiave")
		}
		w.clear.removed[strings.Clone(e.ID)] = true
	case ledger.KeyAdded:
		if e.Certificate != "" {
			w.live[strings.Clone(e.Certificate)] = struct{}{}
		}
		w.live[fmt.Sprintf("%x", sha256.Sum256([]byte(e.VKey)))] = struct{}{}
	case ledger.SealEntry:
		w.noteSeal(c, e)
	case ledger.Repaired:
		w.repaired[short(e.Object)] = struct{}{}
	}
}

// short is a key in sixteen bytes, so that a million of them fit in memory.
func short(key string) [16]byte {
	sum := sha256.Sum256([]byte(key))
	return [16]byte(sum[:16])
}
