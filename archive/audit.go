package archive

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
)

// Scope says what an audit looks at. Without IDs and End it looks at everything: each object that the ledger
// names, the ledger itself, seals, keys, derived objects, the catalog, and what lies in the bucket unasked.
type Scope struct {
	Producer string
	IDs      []string // these packages only
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
type Audited struct {
	Report *paper.Report
	Object []byte // the report as ASiC-E
	ID     string // "" when the ledger cannot be written
}

// Audit reads back what is kept and says what it found, in a sealed report. The expected list comes from the
// ledger in the bucket, never from the catalog or a listing; evidence is bytes read and hashed, nothing else.
// A report never says good with damage present, or with something left unchecked.
func (a *Archive) Audit(ctx context.Context, s Scope) (*Audited, error) {
	p, err := a.producer("audit", s.Producer)
	if err != nil {
		return nil, err
	}
	if a.cfg.Signer == nil {
		return nil, fail(ReadOnly, "audit", p.Code, errReadOnly)
	}
	w := &audit{a: a, p: p, scope: s, started: a.cfg.Now(), expected: map[[16]byte]struct{}{}, keys: map[[16]byte]string{}, live: map[string]struct{}{},
		lost: map[string]bool{}, sealed: map[int64]string{}}
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

	started  time.Time
	findings []paper.ReportFinding
	missed   []string // what was not checked
	results  bytes.Buffer
	count    paper.ReportObjectsCount
	seals    paper.ReportSeals

	commits  int64
	head     ledger.Head // as found in the bucket
	end      int64       // of a range: where it stopped
	rollback string

	expected map[[16]byte]struct{} // keys of objects that the ledger names
	keys     map[[16]byte]string   // HMAC of a producer key → live package, to find two under one key
	live     map[string]struct{}   // fingerprints under keys/ that the ledger names
	recovery string                // recovery key of the ledger's first entry
	derived  []string              // derived objects found damaged, to be made again
	lost     map[string]bool       // keys of commits found damaged: what they say is not known
	sealed   map[int64]string      // SHA-256 of the seals that the ledger names
	unkept   [][]byte              // published keys that are missing, to be put again
	against  []bool                // which of scope.Against were met
}

func (w *audit) damage(object, kind, id, text string) {
	w.findings = append(w.findings, paper.ReportFinding{Gravity: paper.Damage, Object: object, Kind: kind, ID: id, Text: text})
	w.a.metrics.damage.WithLabelValues(w.p.Code).Inc()
}

func (w *audit) notice(object, kind, text string) {
	w.findings = append(w.findings, paper.ReportFinding{Gravity: paper.Notice, Object: object, Kind: kind, Text: text})
}

func (w *audit) warning(object, kind, text string) {
	w.findings = append(w.findings, paper.ReportFinding{Gravity: paper.Warning, Object: object, Kind: kind, Text: text})
}

// run reads ledger and objects in one pass, then the rest.
func (w *audit) run(ctx context.Context) error {
	w.against = make([]bool, len(w.scope.Against))
	if err := w.readLedger(ctx); err != nil {
		return err
	}
	w.checkMark()
	w.checkAgainst()
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

// span is the commits to walk: all, or those of the range, up to what the ledger has now.
func (w *audit) span(ctx context.Context) (from, to int64, err error) {
	to = -1
	if w.p.log != nil {
		if err := w.p.log.Refresh(ctx); err != nil {
			w.warning(w.p.Code+"/ledger", "refresh", err.Error())
		}
		to = w.p.log.Head().Number
	}
	if w.scope.End == 0 {
		return 0, to, nil
	}
	if w.p.log == nil {
		return 0, 0, fmt.Errorf("a range needs a ledger that runs: %w", w.p.stopped)
	}
	if from, err = w.p.log.CommitOf(w.scope.First); err != nil {
		return 0, 0, err
	}
	to, err = w.p.log.CommitOf(w.scope.End - 1)
	return from, to, err
}

// readLedger walks the commits in the bucket and reads the objects they name.
func (w *audit) readLedger(ctx context.Context) error {
	from, to, err := w.span(ctx)
	if err != nil {
		return err
	}
	w.head = ledger.Head{Number: -1}
	pool := newReaders(w)
	commits := ledger.Walk(ctx, w.a.cfg.Store, w.p.Code, w.a.cfg.Trust.Ledgers, from, to)
	if from > 0 {
		// Roots of a range can only be recomputed by a ledger that knows what is before it.
		commits = w.p.log.Walk(ctx, from, to)
	}
	for c, err := range commits {
		var d *ledger.Damage
		switch {
		case errors.As(err, &d):
			w.damage(d.Key, "ledger", "", d.Reason)
			w.lost[d.Key] = true
			if d.Unchecked {
				w.missed = append(w.missed, "le radici dei commit dopo "+d.Key)
			}
			continue
		case err != nil:
			return err
		}
		w.commits++
		delete(w.lost, ledger.Key(w.p.Code, c.Number)) // it was beside the point, not in it
		w.head = ledger.Head{Number: c.Number, Size: c.Size, Root: c.Root, Commit: c.SHA256}
		w.meet(c)
		if err := w.readCommit(ctx, c, pool); err != nil {
			return err
		}
		w.end = c.Size
		if w.scope.Budget > 0 && w.count.Bytes >= w.scope.Budget {
			break
		}
	}
	return pool.finish(ctx)
}

// meet holds the commit against the papers given.
func (w *audit) meet(c *ledger.Commit) {
	for i, ch := range w.scope.Against {
		if c.Size == ch.Size {
			w.against[i] = [32]byte(c.Root) == ch.Root
		}
	}
}

// readCommit looks at each entry and has the objects read that it names.
func (w *audit) readCommit(ctx context.Context, c *ledger.Commit, pool *readers) error {
	for i, e := range c.Entries {
		index := c.First + int64(i)
		w.noteEntry(e)
		switch e.Type {
		case ledger.PackageSealed, ledger.ReportIssued, ledger.SubmissionRefused:
		default:
			continue
		}
		w.expected[short(e.Object)] = struct{}{}
		if !w.selected(e, index) {
			continue
		}
		w.count.Expected++
		if err := pool.read(ctx, e, index); err != nil {
			return err
		}
	}
	if w.scope.everything() {
		w.checkBundle(ctx, c)
	}
	return nil
}

func (w *audit) selected(e ledger.Entry, index int64) bool {
	if len(w.scope.IDs) > 0 {
		for _, id := range w.scope.IDs {
			if e.ID == id {
				return true
			}
		}
		return false
	}
	return w.scope.End == 0 || index >= w.scope.First && index < w.scope.End
}

// noteEntry keeps what later checks need: which packages live under which key, which keys were in use.
func (w *audit) noteEntry(e ledger.Entry) {
	switch e.Type {
	case ledger.PackageSealed:
		k := short(e.Key)
		if other, ok := w.keys[k]; ok && other != e.ID && len(w.lost) > 0 {
			w.missed = append(w.missed, "se "+other+" fu annullato prima di "+e.ID)
		} else if ok && other != e.ID {
			w.damage(e.Object, "duplicate", e.ID, "due pacchetti vivi con la stessa chiave: l'altro è "+other)
		}
		w.keys[k] = e.ID
	case ledger.PackageAnnulled, ledger.PackageDisposed:
		delete(w.keys, short(e.Key))
	case ledger.KeyAdded:
		if e.Certificate != "" {
			w.live[e.Certificate] = struct{}{}
		}
		w.checkAdoption(e)
	case ledger.SealEntry:
		w.sealed[*e.Seal] = e.SHA256
	}
}

// checkAdoption holds a key taken into use later against the recovery key of the ledger's first entry.
func (w *audit) checkAdoption(e ledger.Entry) {
	if w.recovery == "" {
		w.recovery = e.Recovery
		return
	}
	key, err := hex.DecodeString(w.recovery)
	signature, err2 := base64.StdEncoding.DecodeString(e.Signature)
	text := AdoptionText(w.a.cfg.Installation+"/"+w.p.Code, e.VKey, e.Certificate)
	if err != nil || err2 != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, text, signature) {
		w.damage(w.p.Code+"/ledger", "key", "", "una chiave è stata aggiunta senza la firma della chiave di recupero: "+e.VKey)
	}
}

// AdoptionText is what the recovery key signs when new keys take over a ledger.
func AdoptionText(origin, vkey, certificate string) []byte {
	return fmt.Appendf(nil, "perenne adoption v1\n%s\n%s\n%s\n", origin, vkey, certificate)
}

// short is a key in sixteen bytes, so that a million of them fit in memory.
func short(key string) [16]byte {
	sum := sha256.Sum256([]byte(key))
	return [16]byte(sum[:16])
}

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

// finish reads the batch.
func (r *readers) finish(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readParallel)
	for i := range r.batch {
		g.Go(func() error {
			b := &r.batch[i]
			var second hash.Hash
			if r.w.firstReading(b.index) {
				second = sha512.New()
			}
			b.got, b.err = readDigest(ctx, r.w.a.cfg.Store, b.entry.Object, second)
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
	w.count.Read++
	w.count.Bytes += b.got.size
	w.a.metrics.auditBytes.Add(float64(b.got.size))
	kind, text := "good", ""
	switch {
	case errors.Is(b.err, storage.ErrNotFound):
		w.count.Read--
		kind, text = "missing", "l'oggetto non c'è"
	case b.err != nil:
		kind, text = "unreadable", b.err.Error()
	case b.got.size < b.entry.Size:
		kind, text = "truncated", fmt.Sprintf("%d byte invece di %d", b.got.size, b.entry.Size)
	case b.got.size != b.entry.Size || hex.EncodeToString(b.got.sha256[:]) != b.entry.SHA256:
		kind, text = "changed", fmt.Sprintf("il contenuto (%d byte) non è quello registrato nel giornale", b.got.size)
	}
	line := paper.ObjectResult{Object: b.entry.Object, ID: b.entry.ID, Size: b.got.size, Result: kind}
	if b.err == nil {
		line.SHA256 = hex.EncodeToString(b.got.sha256[:])
	}
	if kind == "good" {
		w.count.Good++
		line.SHA512 = b.got.sha512
	} else {
		w.damage(b.entry.Object, kind, b.entry.ID, text)
	}
	out, err := canon.Marshal(line)
	if err != nil {
		return err
	}
	w.results.Write(out)
	w.results.WriteByte('\n')
	if w.scope.Progress != nil {
		w.scope.Progress(w.count.Read, w.total())
	}
	return nil
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

// checkMark holds the bucket against what this machine acknowledged.
func (w *audit) checkMark() {
	mark, ok := w.a.heads.Get(w.p.Code)
	if !ok {
		w.rollback = "not checked"
		return
	}
	w.rollback = "none"
	if w.scope.End > 0 {
		return // the ledger of a range runs, hence was held against its mark when it was opened
	}
	switch {
	case w.head.Number < mark.Number:
		w.checkEnd(mark)
	case w.head.Number == mark.Number && w.head.Commit != mark.Commit:
		w.rollback = "found"
		w.damage(ledger.Key(w.p.Code, mark.Number), "fork", "", "non è il commit che questa macchina ha confermato")
	}
}

// checkEnd names the commits that were acknowledged and lie behind the last sound one. When all of them are
// there, but damaged, nothing was rolled back.
func (w *audit) checkEnd(mark ledger.Head) {
	const most = 1000
	missing := mark.Number - w.head.Number
	for n := w.head.Number + 1; n <= min(mark.Number, w.head.Number+most); n++ {
		key := ledger.Key(w.p.Code, n)
		if w.lost[key] {
			missing--
			continue
		}
		w.lost[key] = true
		w.damage(key, "missing", "", "commit confermato che non c'è più")
	}
	if missing > 0 {
		w.rollback = "found"
		w.damage(w.p.Code+"/ledger", "rollback", "", fmt.Sprintf("questa macchina ha confermato il commit %d, il bucket finisce al %d", mark.Number, w.head.Number))
	}
}

// checkAgainst holds the ledger against papers from outside: each must be in it.
func (w *audit) checkAgainst() {
	for i, c := range w.scope.Against {
		if w.against[i] {
			if w.rollback == "not checked" {
				w.rollback = "none"
			}
			continue
		}
		w.rollback = "found"
		w.damage(w.p.Code+"/ledger", "rollback", c.Entry.ID, fmt.Sprintf("il documento dato prova un giornale di %d righe con un'altra radice: questo ne ha %d", c.Size, w.head.Size))
	}
}

// issue seals the report, puts it and enters it.
func (w *audit) issue(ctx context.Context) (*Audited, error) {
	a := w.a
	id, err := a.newSalt()
	if err != nil {
		return nil, fail(Internal, "audit", w.p.Code, err)
	}
	raw, err := hex.DecodeString(id)
	if err != nil {
		return nil, fail(Internal, "audit", w.p.Code, err)
	}
	out := &Audited{ID: idText.EncodeToString(raw[:20])}
	ended := wholeSecond(a.cfg.Now())
	out.Report = w.report(out.ID, stamp(ended))
	staged, err := a.spool()
	if err != nil {
		return nil, storeError("audit", w.p.Code, err)
	}
	defer staged.Close()
	size, err := paper.WriteReport(ctx, staged, out.Report, w.results.Bytes(), func(ctx context.Context, manifest []byte) ([]byte, error) {
		return a.cfg.Signer.Sign(ctx, manifest, ended)
	})
	if err != nil {
		return nil, fail(Internal, "audit", w.p.Code, err)
	}
	out.Object = make([]byte, size)
	if _, err := staged.ReadAt(out.Object, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, storeError("audit", w.p.Code, err)
	}
	if err := w.enter(ctx, out); err != nil {
		// The report is true whether or not it can be entered: a rolled back ledger takes no entry.
		out.ID = ""
		a.cfg.Log.Warn("report not entered in the ledger", slog.String("producer", w.p.Code), slog.Any("err", err))
		return out, nil
	}
	w.p.reread.note(w.scope, w.end, w.started)
	return out, nil
}

// enter puts the report and appends its entry. A crash between the two leaves an orphan, valid under our key.
func (w *audit) enter(ctx context.Context, out *Audited) error {
	a, p := w.a, w.p
	if p.log == nil || !a.writable() {
		return errors.Join(errReadOnly, p.stopped)
	}
	sum := sha256.Sum256(out.Object)
	key := fmt.Sprintf("%s/reports/%s/%s.asice", p.Code, out.Report.Ended[:4], out.ID)
	if err := a.put(ctx, key, out.Object, sum); err != nil {
		return err
	}
	a.crash("report.stored")
	entry := ledger.Entry{Type: ledger.ReportIssued, ID: out.ID, Object: key, Size: int64(len(out.Object)), SHA256: hex.EncodeToString(sum[:])}
	if _, err := p.log.Append(ctx, ledger.Pending{Entry: entry}); err != nil {
		return err
	}
	a.sealer.retry()
	return nil
}

// report makes the statement.
func (w *audit) report(id, ended string) *paper.Report {
	a, p := w.a, w.p
	r := &paper.Report{
		Kind: paper.KindReport, Identifier: paper.ReportURN(a.cfg.Installation, p.Code, id), Installation: a.cfg.Installation,
		Producer: paper.BodyProducer{Code: p.Code, Name: p.Name, TaxCode: p.TaxCode},
		Started:  stamp(w.started), Ended: ended,
		Selection: paper.Selection{What: "everything"},
		Ledger:    paper.ReportLedger{Origin: a.cfg.Installation + "/" + p.Code, Size: w.head.Size, Root: hex.EncodeToString(w.head.Root[:]), Commits: w.commits, Rollback: w.rollback},
		Objects:   w.count, Seals: w.seals, Findings: w.findings, NotChecked: w.missed,
		Protection: protection(a.cfg.Store), Qualification: a.qualification(), Program: a.cfg.Program.Name + " " + a.cfg.Program.Version,
	}
	if r.Findings == nil {
		r.Findings = []paper.ReportFinding{}
	}
	if r.NotChecked == nil {
		r.NotChecked = []string{}
	}
	for _, c := range w.scope.Against {
		r.Ledger.Against = c.Entry.ID
	}
	switch {
	case len(w.scope.IDs) > 0:
		r.Selection = paper.Selection{What: "packages", IDs: w.scope.IDs}
		if w.count.Expected < int64(len(w.scope.IDs)) {
			r.NotChecked = append(r.NotChecked, "pacchetti richiesti che il giornale non nomina")
		}
	case w.scope.End > 0:
		r.Selection = paper.Selection{What: "range", First: w.scope.First, End: min(w.end, w.scope.End)}
	}
	if p.stopped != nil {
		r.NotChecked = append(r.NotChecked, "il produttore è fermo: "+p.stopped.Error())
	}
	r.Verdict = paper.VerdictGood
	if len(r.NotChecked) > 0 || w.rollback == "not checked" {
		r.Verdict = paper.VerdictIncomplete
	}
	for _, f := range r.Findings {
		if f.Gravity == paper.Damage {
			r.Verdict = paper.VerdictDamaged
		}
	}
	return r
}

func protection(s storage.Store) string {
	if p, ok := s.(storage.Protector); ok {
		return p.Protection()
	}
	return "detection only"
}
