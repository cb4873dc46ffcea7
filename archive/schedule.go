package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
)

// rereading remembers when which part of a ledger was last read again: contiguous stretches of entries, each
// with the time of the audit that read it; and what the last audit concluded. It is a local note, not evidence
// (the reports are): losing it makes the scheduler begin again.
type rereading struct {
	path string

	mu        sync.Mutex
	stretches []stretch
	last      conclusion
}

// conclusion is what the last audit of everything, or of a range, said.
type conclusion struct {
	Ended   string `json:"ended,omitempty"`
	Verdict string `json:"verdict,omitempty"`
	Damage  int    `json:"damage,omitempty"` // findings that are damage
}

// rereadingFile is the form of the note.
type rereadingFile struct {
	Stretches []stretch  `json:"stretches"`
	Last      conclusion `json:"last"`
}

// stretch is entries First to End (excluded), read at Time.
type stretch struct {
	First int64     `json:"first"`
	End   int64     `json:"end"`
	Time  time.Time `json:"time"`
}

func openRereading(path string) *rereading {
	r := &rereading{path: path}
	b, err := os.ReadFile(path)
	var f rereadingFile
	if err == nil && json.Unmarshal(b, &f) == nil && contiguous(f.Stretches) {
		r.stretches, r.last = f.Stretches, f.Last
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

// note enters an audit of everything up to end, or of a range that stopped at end.
func (r *rereading) note(s Scope, end int64, at time.Time) {
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
	var next []stretch
	for _, x := range r.stretches {
		if x.First < first {
			next = append(next, stretch{x.First, min(x.End, first), x.Time})
		}
	}
	next = append(next, stretch{first, end, at})
	for _, x := range r.stretches {
		if x.End > end {
			next = append(next, stretch{max(x.First, end), x.End, x.Time})
		}
	}
	r.stretches = next
	r.save()
}

// concluded enters what an audit said, whether or not its report could be entered in the ledger.
func (r *rereading) concluded(s Scope, rep *paper.Report) {
	if len(s.IDs) > 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = conclusion{Ended: rep.Ended, Verdict: rep.Verdict, Damage: damaged(rep)}
	r.save()
}

// conclusion is what the last audit said; zero when there was none.
func (r *rereading) conclusion() conclusion {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// save writes the note; what cannot be written is forgotten at the next start, and read again then.
func (r *rereading) save() {
	b, err := json.Marshal(rereadingFile{r.stretches, r.last})
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
		if now.Sub(x.Time) >= every-tick && (oldest < 0 || x.Time.Before(r.stretches[oldest].Time)) {
			oldest = i
		}
	}
	if oldest < 0 {
		return 0, 0, false
	}
	return r.stretches[oldest].First, r.stretches[oldest].End, true
}

// overdue counts the entries that were not read again within every.
func (r *rereading) overdue(size int64, accepted func(entry int64) (time.Time, bool), now time.Time, every time.Duration) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var n int64
	for _, x := range r.stretches {
		if now.Sub(x.Time) > every {
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

// oldest is the time of the oldest reading; zero when something was never read again.
func (r *rereading) oldest(size int64) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readLocked() < size || len(r.stretches) == 0 {
		return time.Time{}
	}
	t := r.stretches[0].Time
	for _, x := range r.stretches {
		if x.Time.Before(t) {
			t = x.Time
		}
	}
	return t
}

// rereadEvery reads packages again, oldest first, within the byte budget of a tick, so that each is read
// within the policy's audit period (Linee guida AgID 4.5 f asks for five years; the shipped policy, 30 days).
func (a *Archive) rereadEvery(ctx context.Context) {
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
	Installation  string           `json:"installation"`
	Program       string           `json:"program"`
	ReadOnly      bool             `json:"read_only"`
	Protection    string           `json:"protection"`
	Qualification string           `json:"qualification"`
	Seal          int64            `json:"seal"` // number of the newest; -1: none
	UnsealedSince string           `json:"unsealed_since,omitempty"`
	SealError     string           `json:"seal_error,omitempty"`
	Producers     []ProducerHealth `json:"producers"`
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
	// The last audit of everything, or of a range: when it ended, its verdict, how many findings were damage.
	LastAudit   string `json:"last_audit,omitempty"`
	LastVerdict string `json:"last_verdict,omitempty"`
	LastDamage  int    `json:"last_damage"`
}

// Status tells how the archive is.
func (a *Archive) Status(ctx context.Context) Health {
	h := Health{
		Installation: a.cfg.Installation, Program: a.cfg.Program.Name + " " + a.cfg.Program.Version, ReadOnly: !a.writable(),
		Protection: protection(a.cfg.Store), Qualification: a.qualification(), Seal: a.seals.Head().Number,
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

func (a *Archive) producerHealth(ctx context.Context, p *producer) ProducerHealth {
	h := ProducerHealth{Code: p.Code, Name: p.Name, Packages: a.cfg.Catalog.Count(p.Code), AuditEvery: fmt.Sprintf("%gh", p.Policy.AuditEvery().Hours())}
	last := p.reread.conclusion()
	h.LastAudit, h.LastVerdict, h.LastDamage = last.Ended, last.Verdict, last.Damage
	log, why := p.state()
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
