package web

import (
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/marchesud/perenne/archive"
)

// Config is what a Server is made of.
type Config struct {
	Archive *archive.Archive
	// Tokens gives the current set; it may change between calls.
	Tokens func() []Token
	Log    *slog.Logger
	// Now is the clock for expiry and durations. Time-outs run by timers and need none.
	Now func() time.Time
	// TrustedProxies may say in X-Forwarded-For for whom they ask.
	TrustedProxies []netip.Prefix
	// ProxyOnly lets nobody in but TrustedProxies and this machine: where a proxy ends TLS, anybody else would
	// speak in clear.
	ProxyOnly bool

	// MaxUploads bounds submissions being received at once; 0 means 64.
	MaxUploads int
	// MaxUploadsPerProducer bounds those of one producer; 0 means 32.
	MaxUploadsPerProducer int
	// MinRate is the bytes a second that a body must make over 30 seconds; 0 means 1024.
	MinRate int64
	// HeaderTimeout bounds the arrival of a request's header; 0 means 10 s.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request; 0 means 2 min.
	IdleTimeout time.Duration
	// Public serves /ledger without a token. Configurations default to true: what it shows has no personal
	// data, and witnesses and auditors need it.
	Public bool
}

func (c Config) withDefaults() Config {
	if c.MaxUploads <= 0 {
		c.MaxUploads = 64
	}
	if c.MaxUploadsPerProducer <= 0 {
		c.MaxUploadsPerProducer = 32
	}
	if c.MinRate <= 0 {
		c.MinRate = 1024
	}
	if c.HeaderTimeout <= 0 {
		c.HeaderTimeout = 10 * time.Second
	}
	if c.IdleTimeout <= 0 {
		c.IdleTimeout = 2 * time.Minute
	}
	return c
}

// Server serves an archive over HTTP.
type Server struct {
	cfg      Config
	mux      *http.ServeMux
	gate     *gate
	slots    *slots
	readers  chan struct{} // bounds readings of ledgers
	metrics  *metrics
	window   time.Duration // over which MinRate is judged
	patience time.Duration // how long a submission waits for its turn
	beat     time.Duration // after which a silent audit says again how far it is
	draining atomic.Bool
}

// NewServer makes a server of an open archive.
func NewServer(cfg Config) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg, mux: http.NewServeMux(), gate: newGate(), metrics: newMetrics(),
		slots:   newSlots(cfg.MaxUploads, cfg.MaxUploadsPerProducer, cfg.Archive.Producers()),
		readers: make(chan struct{}, maxLedgerReaders),
		window:  30 * time.Second, patience: 5 * time.Second, beat: 15 * time.Second,
	}
	s.routes()
	return s
}

// Handler gives the handler of all routes.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// HTTP gives a server with every time-out and limit set. Listening, TLS and Shutdown are the caller's. There is
// no ReadTimeout and no WriteTimeout: a document may be large and a line slow; the pace is watched instead.
func (s *Server) HTTP() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    maxHeader,
		// OPTIONS * is no request of ours, and gets the answer of any other.
		DisableGeneralOptionsHandler: true,
		// What net/http has to say names addresses of clients: only for who debugs.
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
}

// maxHeader bounds a request's line and header, beside the 4 KiB that net/http adds.
const maxHeader = 16 << 10

// Drain makes /readyz say no, so that a load balancer sends nothing more before Shutdown.
func (s *Server) Drain() { s.draining.Store(true) }

// Metrics gives the collectors to register.
func (s *Server) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.requests, s.metrics.inFlight}
}
