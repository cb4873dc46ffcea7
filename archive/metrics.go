package archive

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/marchesud/perenne/archive/paper"
)

// metrics are the archive's collectors. Labels come from closed sets: producer codes and outcomes.
type metrics struct {
	submissions *prometheus.CounterVec
	submitTime  prometheus.Histogram
	retrievals  *prometheus.CounterVec
	retrieval   prometheus.Histogram
	audits      *prometheus.CounterVec
	damage      *prometheus.CounterVec
	auditBytes  prometheus.Counter
	overdue     *prometheus.GaugeVec
	entries     *prometheus.GaugeVec
	seals       prometheus.Gauge
	timestamps  prometheus.Histogram
	dropped     prometheus.Counter
	alarms      tally

	locksExtended prometheus.Counter
	locksShort    prometheus.Gauge
}

// tally is a counter that others are added to when it is read.
type tally struct{ atomic.Int64 }

// Inc adds one.
func (t *tally) Inc() { t.Add(1) }

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "perenne", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "perenne", Name: name, Help: help}, labels)
	}
	seconds := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "perenne", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.002, 3, 10)})
	}
	return &metrics{
		submissions:   counter("submissions_total", "Submissions by outcome.", "outcome"),
		submitTime:    seconds("submit_seconds", "Time of a submission from its first byte to the answer."),
		retrievals:    counter("retrievals_total", "Retrievals by outcome.", "outcome"),
		retrieval:     seconds("retrieve_seconds", "Time until a distribution package is ready to be sent."),
		audits:        counter("audits_total", "Audits by verdict.", "verdict"),
		damage:        counter("damage_findings_total", "Findings of damage in audits.", "producer"),
		auditBytes:    prometheus.NewCounter(prometheus.CounterOpts{Namespace: "perenne", Name: "audit_bytes_total", Help: "Bytes read by audits."}),
		overdue:       gauge("audit_overdue_packages", "Objects not read again within the policy's audit period.", "producer"),
		entries:       gauge("ledger_entries", "Entries of a ledger.", "producer"),
		seals:         prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "perenne", Name: "seal_number", Help: "Number of the newest seal."}),
		timestamps:    seconds("timestamp_seconds", "Time until a timestamp authority gave an accepted token."),
		dropped:       prometheus.NewCounter(prometheus.CounterOpts{Namespace: "perenne", Name: "timestamps_dropped_total", Help: "Tokens that no seal has, because another daemon was first."}),
		locksExtended: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "perenne", Name: "locks_extended_total", Help: "Locks of objects set to a later date."}),
		locksShort:    prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "perenne", Name: "locks_short", Help: "Objects whose lock was missing or short in the last daily round."}),
	}
}

// Metrics gives the collectors to register.
func (a *Archive) Metrics() []prometheus.Collector {
	m := a.metrics
	return append([]prometheus.Collector{
		m.submissions, m.submitTime, m.retrievals, m.retrieval, m.audits, m.damage, m.auditBytes, m.overdue,
		m.entries, m.seals, m.timestamps, m.dropped, m.locksExtended, m.locksShort,
		prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "perenne", Name: "alarms_total", Help: "Things found in passing that need a person: see the log."}, a.alarms),
	}, a.spoolMetrics()...)
}

func (m *metrics) submitted(r *paper.Receipt, err error, d time.Duration) {
	outcome := "accepted"
	switch {
	case err != nil:
		outcome = KindOf(err).String()
	case r.Refused():
		outcome = "refused"
	}
	m.submissions.WithLabelValues(outcome).Inc()
	m.submitTime.Observe(d.Seconds())
}

func (m *metrics) retrieved(err error, d time.Duration) {
	outcome := "given"
	if err != nil {
		outcome = KindOf(err).String()
	}
	m.retrievals.WithLabelValues(outcome).Inc()
	m.retrieval.Observe(d.Seconds())
}
