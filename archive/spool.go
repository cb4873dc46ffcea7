package archive

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage/spool"
)

// spooling is a store with a spool in front of it, which the archive keeps going.
type spooling interface {
	Run(
		ctx context.Context, sealed func(ctx context.Context, room string) time.Time,
		superseded func(ctx context.Context, key string, sum [32]byte) (bool, error),
	)
	Sift(ctx context.Context, never func(key string, sum [32]byte) bool)
	Stats() spool.Stats
	Again(room string) int64
}

var _ spooling = (*spool.Spool)(nil)

// entryTime is how long an object may wait for its entry after it was put, for the spool to be certain that a seal
// over all entries covers it. One that waits longer may be given up a little before its seal.
const entryTime = time.Minute

// sealedBefore gives a time before which everything that was put in a room is covered by a seal; the zero time when
// that cannot be told. What no entry names (seals, keys) waits for none.
func (a *Archive) sealedBefore(ctx context.Context, room string) time.Time {
	now := a.cfg.Now().Add(-entryTime)
	p, served := a.producers[room]
	if !served {
		return now
	}
	sealed := a.seals.End(room)
	log := p.ledger()
	if log == nil {
		if mark, ok := a.heads.Get(room); ok && mark.Size > sealed {
			return time.Time{}
		}
		return now
	}
	if log.Head().Size <= sealed {
		return now
	}
	oldest, err := log.Entry(ctx, sealed)
	if err != nil {
		return time.Time{}
	}
	return oldest.Time.Add(-entryTime)
}

// neverPromised reports what superseded knows before any ledger is open: that the bytes are not those of the commit that
// the mark names, or of a seal that the index does.
func (a *Archive) neverPromised(key string, sum [32]byte) bool {
	room, _, _ := strings.Cut(key, "/")
	if n, is := seal.ParseKey(key); is {
		noted, ok := a.seals.Noted(n)
		return ok && a.seals.Doubted() == "" && noted != sum
	}
	n, is := ledger.ParseKey(room, key)
	mark, ok := a.heads.Get(room)
	return is && ok && !a.cfg.TrustBucketHead && n == mark.Number && mark.Commit != sum
}

// superseded reports whether it is certain that this machine never said yes for bytes that its spool holds, because
// what is kept went on with another object: a daemon died before its Put was done, and another took the key. What the
// ledger, or the index of the seals, names was acknowledged; it is no copy's end that the store has something else
// there. Only what is numbered, or derived from the submission, is put by two daemons under one key.
func (a *Archive) superseded(ctx context.Context, key string, sum [32]byte) (bool, error) {
	room, rest, _ := strings.Cut(key, "/")
	if room == "evidence" {
		return a.sealSuperseded(ctx, key, sum)
	}
	p, served := a.producers[room]
	if !served || a.cfg.TrustBucketHead { // what this machine acknowledged is not known while the bucket is taken at its word
		return false, nil
	}
	if a.neverPromised(key, sum) { // also where the ledger could not be opened
		return true, nil
	}
	if n, is := ledger.ParseKey(room, key); is {
		return a.commitSuperseded(ctx, p, n, sum)
	}
	kind, name, _ := strings.Cut(rest, "/")
	t, named := map[string]ledger.Type{"packages": ledger.PackageSealed, "refusals": ledger.SubmissionRefused}[kind]
	if !named {
		return false, nil
	}
	log, err := refreshed(ctx, p)
	if log == nil {
		return false, err
	}
	_, name, _ = strings.Cut(name, "/")
	id, _, _ := strings.Cut(name, ".")
	return a.objectSuperseded(ctx, p, log, t, id, sum)
}

// refreshed gives a producer's ledger, read on to its end. It is nil where the ledger does not run, with an error when
// that may pass.
func refreshed(ctx context.Context, p *producer) (*ledger.Log, error) {
	log, why := p.state()
	if log != nil && why == nil {
		why = log.Refresh(ctx)
	}
	switch {
	case log != nil && why == nil:
		return log, nil
	case passing(why):
		return nil, fmt.Errorf("the producer stands still: %w", why)
	}
	return nil, nil
}

// commitSuperseded is superseded for commit n of a producer. Each commit names the one before, up to the mark: had this
// machine acknowledged the copy, it would be this one.
func (a *Archive) commitSuperseded(ctx context.Context, p *producer, n int64, sum [32]byte) (bool, error) {
	log, err := refreshed(ctx, p)
	if log == nil {
		return false, err
	}
	if mark, ok := a.heads.Get(p.Code); !ok || n > mark.Number {
		return false, nil
	}
	digest, err := log.Digest(ctx, n)
	return err == nil && digest != sum, err
}

// objectSuperseded is superseded for a package or a refusal: the ledger must name it with other bytes. While no entry
// names it one may still come, for these bytes or for others.
func (a *Archive) objectSuperseded(ctx context.Context, p *producer, log *ledger.Log, t ledger.Type, id string, sum [32]byte) (bool, error) {
	rec, ok, err := a.cfg.Catalog.ByID(p.Code, id)
	if err != nil {
		return false, err
	}
	if !ok {
		return false, fmt.Errorf("%s %s: %w", t, id, spool.ErrUnnamed)
	}
	at, err := log.Entry(ctx, rec.Index)
	if err != nil {
		return false, err
	}
	e, err := ledger.ParseEntry(at.Line)
	if err != nil {
		return false, err
	}
	return e.Type == t && e.ID == id && e.SHA256 != hex.EncodeToString(sum[:]), nil
}

// sealSuperseded is superseded for seals.
func (a *Archive) sealSuperseded(ctx context.Context, key string, sum [32]byte) (bool, error) {
	n, is := seal.ParseKey(key)
	if !is || a.seals.Doubted() != "" {
		return false, nil
	}
	if n > a.seals.Head().Number {
		if err := a.refreshSeals(ctx); err != nil { // which reads on past no fork
			return false, err
		}
	}
	noted, ok := a.seals.Noted(n)
	return ok && noted != sum, nil
}

// SpoolHealth is what the spool holds.
type SpoolHealth struct {
	Bytes    int64  `json:"bytes"`
	Objects  int64  `json:"objects"`
	Quota    int64  `json:"quota"` // bytes
	Oldest   string `json:"oldest,omitempty"`
	PutAgain int64  `json:"put_again"` // objects that the store lacked, since the start
}

// spoolHealth is nil where there is no spool.
func (a *Archive) spoolHealth() *SpoolHealth {
	s, ok := a.cfg.Store.(spooling)
	if !ok {
		return nil
	}
	st := s.Stats()
	h := &SpoolHealth{Bytes: st.Bytes, Objects: st.Objects, Quota: st.Quota, PutAgain: st.Again}
	if !st.Oldest.IsZero() {
		h.Oldest = stamp(st.Oldest)
	}
	return h
}

// putAgain counts the objects that the store lacked since the start, and the spool put again: of a producer, and of
// what is nobody's, seals and keys.
func (a *Archive) putAgain(code string) int64 {
	s, ok := a.cfg.Store.(spooling)
	if !ok {
		return 0
	}
	return s.Again(code) + s.Again("evidence") + s.Again("keys")
}

// alarms counts what needed a person, since the start.
func (a *Archive) alarms() float64 {
	n := a.metrics.alarms.Load()
	if s, ok := a.cfg.Store.(spooling); ok {
		n += s.Stats().Alarms
	}
	return float64(n)
}

// spoolMetrics are read when they are asked for.
func (a *Archive) spoolMetrics() []prometheus.Collector {
	s, ok := a.cfg.Store.(spooling)
	if !ok {
		return nil
	}
	gauge := func(name, help string, value func(spool.Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "perenne", Name: name, Help: help}, func() float64 { return value(s.Stats()) })
	}
	return []prometheus.Collector{
		gauge("spool_bytes", "Bytes held until they were read back.", func(st spool.Stats) float64 { return float64(st.Bytes) }),
		gauge("spool_quota_bytes", "Bytes that may be held.", func(st spool.Stats) float64 { return float64(st.Quota) }),
		gauge("spool_objects", "Objects held until they were read back.", func(st spool.Stats) float64 { return float64(st.Objects) }),
		gauge("spool_oldest_seconds", "Age of the oldest object held.", func(st spool.Stats) float64 {
			if st.Oldest.IsZero() {
				return 0
			}
			return a.cfg.Now().Sub(st.Oldest).Seconds()
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "perenne", Name: "spool_put_again_total", Help: "Objects that the store lacked and were put again."}, func() float64 { return float64(s.Stats().Again) }),
	}
}
