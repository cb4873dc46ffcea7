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

	"github.com/marchesud/perenne/archive/paper"
)

// rereading remembers when which part of a ledger was last read again: contiguous stretches of entries, each
// with the time of the audit that read it. It is a local note, not evidence (the reports are): losing it makes
// the scheduler begin again.
type rereading struct {
	path string

	mu        sync.Mutex
	stretches []stretch
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
	if err != nil || json.Unmarshal(b, &r.stretches) != nil || !contiguous(r.stretches) {
		r.stretches = nil
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

// save writes the note; what cannot be written is forgotten at the next start, and read again then.
func (r *rereading) save() {
	b, err := json.Marshal(r.stretches)
	if err != nil {
		return
	}
	tmp := r.path + ".new"
	if os.WriteFile(tmp, b, 0o644) == nil {
		_ = os.Rename(tmp, r.path)
	}
}

// due is the oldest part that is to be read again: what was read longest ago, once that is longer than every
// less one tick; before it, what was never read and is older than a tick.
func (r *rereading) due(size int64, accepted func(entry int64) (time.Time, bool), now time.Time, every, tick time.Duration) (first, end int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if read := r.readLocked(); read < size {
		if at, known := accepted(read); known && now.Sub(at) >= tick {
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

// reread audits what is due of one producer, until nothing is or the budget is spent.
func (a *Archive) reread(ctx context.Context, p *producer) error {
	if p.log == nil {
		return nil
	}
	budget := a.cfg.AuditBudget
	for ctx.Err() == nil {
		size := p.log.Head().Size
		first, end, ok := p.reread.due(size, a.acceptedAt(ctx, p), a.cfg.Now(), p.Policy.AuditEvery(), a.cfg.AuditTick)
		if !ok {
			break
		}
		out, err := a.Audit(ctx, Scope{Producer: p.Code, First: first, End: end, Budget: budget})
		if err != nil {
			return err
		}
		if out.Report.Verdict != paper.VerdictGood {
			a.metrics.alarms.Inc()
			a.cfg.Log.Error("scheduled audit found damage", slog.String("producer", p.Code), slog.String("report", out.ID), slog.Int("findings", len(out.Report.Findings)))
		}
		if out.ID == "" {
			return errors.New("its report could not be entered in the ledger")
		}
		if budget > 0 {
			if budget -= out.Report.Objects.Bytes; budget <= 0 {
				break
			}
		}
	}
	a.metrics.overdue.WithLabelValues(p.Code).Set(float64(a.overdue(ctx, p)))
	return ctx.Err()
}

func (a *Archive) overdue(ctx context.Context, p *producer) int64 {
	return p.reread.overdue(p.log.Head().Size, a.acceptedAt(ctx, p), a.cfg.Now(), p.Policy.AuditEvery())
}

// acceptedAt tells the time of an entry.
func (a *Archive) acceptedAt(ctx context.Context, p *producer) func(int64) (time.Time, bool) {
	return func(entry int64) (time.Time, bool) {
		c, err := p.log.Entry(ctx, entry)
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
	if p.log == nil {
		h.Stopped = p.stopped.Error()
		return h
	}
	head := p.log.Head()
	h.Entries, h.Commits, h.Unsealed = head.Size, head.Number+1, head.Size-a.seals.End(p.Code)
	h.Overdue = a.overdue(ctx, p)
	if t := p.reread.oldest(head.Size); !t.IsZero() {
		h.OldestRead = stamp(t)
	}
	return h
}
