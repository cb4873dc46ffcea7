package archive

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
)

// rereading remembers when which part of a ledger was last read again: contiguous stretches of entries, each
// with the time of the audit that read it; and what the last audit concluded, and those that found damage. It is a
// local note, not evidence (the reports are): losing it makes the scheduler begin again.
type rereading struct {
	path string

	mu        sync.Mutex
	stretches []stretch
	last      conclusion
	damaged   []conclusion    // that found damage, as far as no later audit has found good what they spoke of
	reports   []named         // issued by other daemons, not looked at yet
	own       map[string]bool // identifiers of reports on their way into the ledger from here
}

// named is a report as its entry names it.
type named struct {
	ID     string `json:"id"`
	Object string `json:"object"`
	SHA256 string `json:"sha256"`
}

// conclusion is what an audit of everything, or of a range, said of entries First to End (excluded).
type conclusion struct {
	Ended   string `json:"ended,omitempty"`
	Verdict string `json:"verdict,omitempty"`
	Damage  int    `json:"damage,omitempty"` // findings that are damage
	First   int64  `json:"first,omitempty"`
	End     int64  `json:"end,omitempty"` // whole, of an audit of everything
}

// whole is behind every range: an audit of everything speaks of more than entries, and no range makes up for it.
const whole = math.MaxInt64

// without takes from conclusions what a later audit speaks of too.
func without(all []conclusion, later conclusion) []conclusion {
	var left []conclusion
	for _, c := range all {
		if c.Ended > later.Ended {
			left = append(left, c)
			continue
		}
		if head := c; head.First < later.First {
			head.End = min(head.End, later.First)
			left = append(left, head)
		}
		if tail := c; later.End < tail.End {
			tail.First = max(tail.First, later.End)
			left = append(left, tail)
		}
	}
	return left
}

// rereadingFile is the form of the note.
type rereadingFile struct {
	Stretches []stretch    `json:"stretches"`
	Last      conclusion   `json:"last"`
	Damaged   []conclusion `json:"damaged,omitempty"`
	Reports   []named      `json:"reports,omitempty"`
}

// stretch is entries First to End (excluded), read at Time; or, Unread, asked for then of a store that did not give them.
type stretch struct {
	First  int64     `json:"first"`
	End    int64     `json:"end"`
	Time   time.Time `json:"time"`
	Unread bool      `json:"unread,omitempty"`
}

// unreadAgain is when entries that the store did not give come up again: an outage passes, a damaged file does not.
const unreadAgain = 24 * time.Hour

// dueAt is when the stretch is to be read again.
func (x stretch) dueAt(every, tick time.Duration) time.Time {
	if after := every - tick; !x.Unread || after < unreadAgain {
		return x.Time.Add(after)
	}
	return x.Time.Add(unreadAgain)
}

func openRereading(path string) *rereading {
	r := &rereading{path: path, own: map[string]bool{}}
	b, err := os.ReadFile(path)
	var f rereadingFile
	if err == nil && json.Unmarshal(b, &f) == nil && contiguous(f.Stretches) {
		r.stretches, r.last, r.damaged, r.reports = f.Stretches, f.Last, f.Damaged, f.Reports
	}
	return r
}

func contiguous(s []stretch) bool {
	at := int64(0)
	for _, x := range s {
		if x.First != at || x.End <= x.First {
			return false
		}
		at = x.End
	}
	return true
}

// read is the number of entries that were read again at least once, from the first on.
func (r *rereading) read() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.readLocked()
}

func (r *rereading) readLocked() int64 {
	if len(r.stretches) == 0 {
		return 0
	}
	return r.stretches[len(r.stretches)-1].End
}

// refused reports whether the store did not give an entry's object, or its commit, when it was last asked.
func (r *rereading) refused(index int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.stretches, func(x stretch) bool { return x.Unread && x.First <= index && index < x.End })
}

// note enters an audit of everything up to end, or of a range that stopped at end; of which the store did not give unread.
func (r *rereading) note(s Scope, end int64, at time.Time, unread []stretch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := s.First
	switch {
	case len(s.IDs) > 0 || end == 0:
		return
	case s.End == 0:
		first = 0
	default:
		end = min(end, s.End)
	}
	if first > r.readLocked() || end <= first {
		return
	}
	r.stretches = overlay(r.stretches, stretch{First: first, End: end, Time: at})
	for _, x := range unread {
		if x.First, x.End = max(x.First, first), min(x.End, end); x.First < x.End {
			r.stretches = overlay(r.stretches, stretch{First: x.First, End: x.End, Time: at, Unread: true})
		}
	}
	r.save()
}

// overlay puts a stretch over contiguous others.
func overlay(all []stretch, over stretch) []stretch {
	var next []stretch
	for _, x := range all {
		if x.End = min(x.End, over.First); x.First < x.End {
			next = append(next, x)
		}
	}
	next = append(next, over)
	for _, x := range all {
		if x.First = max(x.First, over.End); x.First < x.End {
			next = append(next, x)
		}
	}
	return next
}

// concluded enters what an audit said, whether or not its report could be entered in the ledger. That it found damage is
// forgotten only when a later one has found good what it spoke of.
func (r *rereading) concluded(s Scope, rep *paper.Report) {
	if len(s.IDs) > 0 {
		return
	}
	c := conclusion{Ended: rep.Ended, Verdict: rep.Verdict, Damage: damaged(rep), End: whole}
	if rep.Selection.What == "range" {
		c.First, c.End = rep.Selection.First, rep.Selection.End
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch c.Verdict {
	case paper.VerdictGood:
		r.damaged = without(r.damaged, c)
	case paper.VerdictDamaged:
		r.damaged = append(without(r.damaged, c), r.standing(c)...)
	}
	if c.Ended >= r.last.Ended { // else another daemon's, heard of late
		r.last = c
	}
	r.save()
}

// standing is what of a conclusion that found damage no later audit, heard of before it, speaks of.
func (r *rereading) standing(c conclusion) []conclusion {
	left := []conclusion{c}
	if r.last.Ended > c.Ended && r.last.End == whole && r.last.Verdict != paper.VerdictIncomplete {
		left = without(left, r.last)
	}
	for _, x := range r.stretches {
		if at := stamp(x.Time); at > c.Ended && !x.Unread {
			left = without(left, conclusion{Ended: at, First: x.First, End: x.End})
		}
	}
	return left
}

// conclusion is what the last audit said, or the last of those that found damage which still stands; zero when there was
// none.
func (r *rereading) conclusion() conclusion {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.damaged) == 0 {
		return r.last
	}
	return slices.MaxFunc(r.damaged, func(a, b conclusion) int { return strings.Compare(a.Ended, b.Ended) })
}

// save writes the note; what cannot be written is forgotten at the next start, and read again then.
func (r *rereading) save() {
	b, err := json.Marshal(rereadingFile{r.stretches, r.last, r.damaged, r.reports})
	if err != nil {
		return
	}
	tmp := r.path + ".new"
	if os.WriteFile(tmp, b, 0o644) == nil {
		_ = os.Rename(tmp, r.path)
	}
}

// due is the oldest part that is to be read again: what was never read, once its time has come; then what was
// read longest ago, once that is longer than every less one tick.
func (r *rereading) due(size int64, firstReading func(from int64) (time.Time, bool), now time.Time, every, tick time.Duration) (first, end int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if read := r.readLocked(); read < size {
		if at, known := firstReading(read); known && !now.Before(at) {
			return read, size, true
		}
	}
	oldest := -1
	for i, x := range r.stretches {
		at := x.dueAt(every, tick)
		if !now.Before(at) && (oldest < 0 || at.Before(r.stretches[oldest].dueAt(every, tick))) {
			oldest = i
		}
	}
	if oldest < 0 {
		return 0, 0, false
	}
	return r.stretches[oldest].First, r.stretches[oldest].End, true
}

// overdue counts the entries that were not read again within every, and those that the store did not give.
func (r *rereading) overdue(size int64, accepted func(entry int64) (time.Time, bool), now time.Time, every time.Duration) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var n int64
	for _, x := range r.stretches {
		if x.Unread || now.Sub(x.Time) > every {
			n += x.End - x.First
		}
	}
	if read := r.readLocked(); read < size {
		if at, known := accepted(read); known && now.Sub(at) > every {
			n += size - read
		}
	}
	return n
}

// oldest is the time of the oldest reading; zero when something was never read again, or was not given.
func (r *rereading) oldest(size int64) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readLocked() < size || len(r.stretches) == 0 {
		return time.Time{}
	}
	t := r.stretches[0].Time
	for _, x := range r.stretches {
		if x.Unread {
			return time.Time{}
		}
		if x.Time.Before(t) {
			t = x.Time
		}
	}
	return t
}

// issuing tells of a report that is about to be entered from here.
func (r *rereading) issuing(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own[id] = true
}

// mostReports are kept to be looked at: of a ledger that is applied from its beginning the newest count.
const mostReports = 256

// issued keeps the report that an entry names, to be looked at by the scheduler: another daemon's spares this one the
// reading of what it read.
func (r *rereading) issued(e ledger.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own[e.ID] {
		delete(r.own, e.ID)
		return
	}
	r.reports = append(r.reports, named{e.ID, e.Object, e.SHA256})
	r.reports = r.reports[max(0, len(r.reports)-mostReports):]
	r.save()
}

// unlooked gives the reports of others, once each.
func (r *rereading) unlooked() []named {
	r.mu.Lock()
	defer r.mu.Unlock()
	reports := r.reports
	if r.reports = nil; reports != nil {
		r.save()
	}
	return reports
}

// lookLater puts reports back before those that have come since.
func (r *rereading) lookLater(reports []named) {
	if len(reports) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports = append(reports, r.reports...)
	r.reports = r.reports[max(0, len(r.reports)-mostReports):]
	r.save()
}

// shareReports takes over what other daemons have read again, from their reports. What such a report must be: whole
// and signed by a key of ours, with the bytes that the ledger names; about this ledger, at a root it had. One that is
// not good is told by Status, and spares nothing: what was hurt, or could not be read there, is read here too.
func (a *Archive) shareReports(ctx context.Context, p *producer) {
	var later []named // could not be read now
	defer func() { p.reread.lookLater(later) }()
	for _, e := range p.reread.unlooked() {
		r, at, err := a.readReport(ctx, p, e)
		if unread(err) || ctx.Err() != nil {
			later = append(later, e)
			continue
		}
		if err != nil {
			a.cfg.Log.Warn("another daemon's report is not relied upon", slog.String("report", e.Object), slog.Any("err", err))
			continue
		}
		s, end := Scope{IDs: r.Selection.IDs}, r.Ledger.Size
		if r.Selection.What == "range" {
			s.First, s.End, end = r.Selection.First, r.Selection.End, r.Selection.End
		}
		p.reread.concluded(s, r)
		if r.Verdict == paper.VerdictGood {
			p.reread.note(s, end, at, nil)
		}
	}
}

// readReport reads a report that can be relied upon, and tells when its audit began.
func (a *Archive) readReport(ctx context.Context, p *producer, e named) (*paper.Report, time.Time, error) {
	o, err := openNamed(ctx, a.cfg.Store, e.Object, -1, e.SHA256)
	if err != nil {
		return nil, time.Time{}, err
	}
	r, sum, err := paper.ReadReport(ctx, o, o.size, a.cfg.Trust)
	if err != nil {
		return nil, time.Time{}, err
	}
	at, err := time.Parse(paper.TimeFormat, r.Started)
	if err != nil {
		return nil, time.Time{}, err
	}
	last, err := p.ledger().CommitOf(r.Ledger.Size - 1)
	if err != nil {
		return nil, time.Time{}, err
	}
	c, err := p.ledger().Commit(ctx, last)
	switch {
	case commitDamaged(err):
	case err != nil: // the store's own: it says nothing of the report
		err = &readError{err}
	case hex.EncodeToString(sum[:]) != e.SHA256:
		err = errors.New("other bytes than those that the ledger names")
	case r.Identifier != paper.ReportURN(a.cfg.Installation, p.Code, e.ID) || r.Ledger.Origin != a.cfg.Installation+"/"+p.Code:
		err = errors.New("it is another report, or of another ledger")
	case c.Size != r.Ledger.Size || hex.EncodeToString(c.Root[:]) != r.Ledger.Root || r.Selection.End > c.Size:
		err = errors.New("the ledger never was what it says")
	case at.After(a.cfg.Now()):
		err = errors.New("it lies in the future")
	}
	return r, at, err
}

// rereadEvery reads packages again, oldest first, within the byte budget of a tick, so that each is read
// within the policy's audit period (Linee guida AgID 4.5 f asks for five years; the shipped policy, 30 days).
// It begins at a random moment of its tick: of several daemons that were started together one reads what has come due
// before the others look, and they find its report.
func (a *Archive) rereadEvery(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(a.random(a.cfg.AuditTick)):
	}
	t := time.NewTicker(a.cfg.AuditTick)
	defer t.Stop()
	for {
		for _, code := range a.Producers() {
			if err := a.reread(ctx, a.producers[code]); err != nil && ctx.Err() == nil {
				a.cfg.Log.Error("scheduled audit failed", slog.String("producer", code), slog.Any("err", err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// reread audits what is due of one producer, until nothing is or the budget is spent. A round that read nothing,
// or that is due again at once, is the last of a tick: whatever keeps it from being done, haste will not do it.
func (a *Archive) reread(ctx context.Context, p *producer) error {
	if p.ledger() == nil {
		return nil
	}
	a.readOn(ctx, p)
	a.shareReports(ctx, p)
	budget := a.cfg.AuditBudget
	for before := (stretch{}); ctx.Err() == nil; {
		first, end, ok := p.reread.due(p.ledger().Head().Size, a.firstReading(ctx, p), a.cfg.Now(), p.Policy.AuditEvery(), a.cfg.AuditTick)
		if !ok || before.First == first && before.End == end {
			break
		}
		before = stretch{First: first, End: end}
		rep, err := a.rereadStretch(ctx, p, before, budget)
		if err != nil {
			return err
		}
		if rep.Objects.Read == 0 {
			break
		}
		if budget > 0 {
			if budget -= rep.Objects.Bytes; budget <= 0 {
				break
			}
		}
	}
	a.metrics.overdue.WithLabelValues(p.Code).Set(float64(a.overdue(ctx, p)))
	return ctx.Err()
}

// rereadStretch audits one stretch, as far as the budget goes.
func (a *Archive) rereadStretch(ctx context.Context, p *producer, s stretch, budget int64) (*paper.Report, error) {
	out, err := a.Audit(ctx, Scope{Producer: p.Code, First: s.First, End: s.End, Budget: budget})
	if err != nil {
		return nil, err
	}
	if out.Report.Verdict != paper.VerdictGood {
		a.metrics.alarms.Inc()
		a.cfg.Log.Error("scheduled audit did not end well", slog.String("producer", p.Code), slog.String("verdict", out.Report.Verdict), slog.String("report", out.ID), slog.Int("findings", len(out.Report.Findings)))
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	if out.ID == "" {
		return nil, errors.New("its report could not be entered in the ledger")
	}
	return out.Report, nil
}

func (a *Archive) overdue(ctx context.Context, p *producer) int64 {
	return p.reread.overdue(p.ledger().Head().Size, a.acceptedAt(ctx, p), a.cfg.Now(), p.Policy.AuditEvery())
}

// firstReading tells when the entries from one on, which were never read, are to be: a tick after the first package
// or refusal among them was accepted; at once, when a commit there cannot be read, since only an audit says what
// that means. Reports alone can wait nearly their whole period; otherwise each audit would be the reason for the
// next one, and an idle archive would never rest.
func (a *Archive) firstReading(ctx context.Context, p *producer) func(int64) (time.Time, bool) {
	const most = 4096 // commits looked through before what lies behind them is not made to wait
	return func(from int64) (time.Time, bool) {
		n, err := p.ledger().CommitOf(from)
		if err != nil {
			return time.Time{}, false
		}
		oldest, last := time.Time{}, p.ledger().Head().Number
		for end := n + most; n <= last; n++ {
			if n == end {
				return oldest, true
			}
			c, err := p.ledger().Commit(ctx, n)
			if err != nil {
				return time.Time{}, ctx.Err() == nil
			}
			for i, e := range c.Entries {
				if c.First+int64(i) < from {
					continue
				}
				at, err := time.Parse(ledger.TimeLayout, e.Time)
				if err != nil {
					return time.Time{}, true
				}
				if oldest.IsZero() {
					oldest = at
				}
				if e.Type == ledger.PackageSealed || e.Type == ledger.SubmissionRefused {
					return at.Add(a.cfg.AuditTick), true
				}
			}
		}
		return oldest.Add(p.Policy.AuditEvery() - a.cfg.AuditTick), true
	}
}

// acceptedAt tells the time of an entry.
func (a *Archive) acceptedAt(ctx context.Context, p *producer) func(int64) (time.Time, bool) {
	return func(entry int64) (time.Time, bool) {
		c, err := p.ledger().Entry(ctx, entry)
		return c.Time, err == nil
	}
}

// Health is what an operator wants to know at a glance.
type Health struct {
	Installation  string       `json:"installation"`
	Program       string       `json:"program"`
	ReadOnly      bool         `json:"read_only"`
	Protection    string       `json:"protection"`
	Qualification string       `json:"qualification"`
	Seal          int64        `json:"seal"` // number of the newest; -1: none
	UnsealedSince string       `json:"unsealed_since,omitempty"`
	SealError     string       `json:"seal_error,omitempty"`
	Spool         *SpoolHealth `json:"spool,omitempty"` // where the store has one in front
	// LocksAt is when the locks were last gone through, LocksShort how many were missing or short then; empty on a
	// store without locks.
	LocksAt    string           `json:"locks_at,omitempty"`
	LocksShort int64            `json:"locks_short,omitempty"`
	Producers  []ProducerHealth `json:"producers"`
}

// ProducerHealth is the same of one producer.
type ProducerHealth struct {
	Code       string `json:"code"`
	Name       string `json:"name"`
	Stopped    string `json:"stopped,omitempty"` // why it takes no documents
	Packages   int64  `json:"packages"`
	Entries    int64  `json:"entries"`
	Commits    int64  `json:"commits"`
	Unsealed   int64  `json:"unsealed"`
	Overdue    int64  `json:"audit_overdue"`               // entries not read again in time
	OldestRead string `json:"audit_oldest_read,omitempty"` // empty: something was never read again
	AuditEvery string `json:"audit_every"`
	// The last audit of everything, or of a range: when it ended, its verdict, how many findings were damage. While what one
	// found damaged was not found good since, that one.
	LastAudit   string `json:"last_audit,omitempty"`
	LastVerdict string `json:"last_verdict,omitempty"`
	LastDamage  int    `json:"last_damage"`
}

// Status tells how the archive is.
func (a *Archive) Status(ctx context.Context) Health {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	h := Health{
		Installation: a.cfg.Installation, Program: a.cfg.Program.Name + " " + a.cfg.Program.Version, ReadOnly: !a.writable(),
		Protection: protection(a.cfg.Store), Qualification: a.qualification(), Seal: a.seals.Head().Number,
		Spool: a.spoolHealth(),
	}
	if last := a.lockRound.Load(); last != nil {
		h.LocksAt, h.LocksShort = stamp(last.at), last.Short
	}
	a.sealer.mu.Lock()
	if !a.sealer.since.IsZero() {
		h.UnsealedSince = stamp(a.sealer.since)
	}
	if a.sealer.err != nil {
		h.SealError = a.sealer.err.Error()
	}
	a.sealer.mu.Unlock()
	for _, code := range a.Producers() {
		h.Producers = append(h.Producers, a.producerHealth(ctx, a.producers[code]))
	}
	return h
}

// statusWait bounds what Status reads of the store: who asks what is the matter with it must not wait for it.
const statusWait = time.Second

func (a *Archive) producerHealth(ctx context.Context, p *producer) ProducerHealth {
	h := ProducerHealth{Code: p.Code, Name: p.Name, Packages: a.cfg.Catalog.Count(p.Code), AuditEvery: fmt.Sprintf("%gh", p.Policy.AuditEvery().Hours())}
	last := p.reread.conclusion()
	h.LastAudit, h.LastVerdict, h.LastDamage = last.Ended, last.Verdict, last.Damage
	log, why := p.state()
	if why == nil && log != nil {
		why = log.Unsettled()
	}
	if why != nil {
		h.Stopped = why.Error()
	}
	if log == nil {
		return h
	}
	head := log.Head()
	h.Entries, h.Commits, h.Unsealed = head.Size, head.Number+1, head.Size-a.seals.End(p.Code)
	h.Overdue = a.overdue(ctx, p)
	if t := p.reread.oldest(head.Size); !t.IsZero() {
		h.OldestRead = stamp(t)
	}
	return h
}
