package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/cmd/perenne/bench"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
)

// benchHorizon is how far ahead objects of a measurement are locked, where the store locks.
const benchHorizon = 24 * time.Hour

// measure makes all rows, one after the other, with one installation.
func (m *measurement) measure(ctx context.Context, sizes []int64) (err error) {
	s, err := m.subject(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, size := range sizes {
		if err := m.ingest(ctx, s, size); err != nil {
			return fmt.Errorf("%s: %w", sizeName(size), err)
		}
	}
	for _, row := range []func(context.Context, *subject) error{m.proof, m.audit, m.rebuild} {
		if err := row(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// ingest measures submissions of one size against the yardstick, and prints the direct put beside.
func (m *measurement) ingest(ctx context.Context, s *subject, size int64) error {
	l := m.load
	l.Size = size
	if size >= 1<<30 {
		l.Clients, l.Documents, l.Bytes = min(l.Clients, 2), 2, 0
	}
	y := s.yardstick
	url, stop, err := serveLoopback(&http.Server{Handler: y.Handler(), ReadHeaderTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer stop()
	there := bench.NewHTTPTarget(url, "none", false, l.Clients)
	defer there.Close()
	name := sizeName(size)
	bar := newProgress(m.progress, name)
	defer bar.end()
	packages, commits, seals := s.counts(ctx)
	compared, err := bench.Compare(ctx, l, m.rounds, s.target, there, &m.series, bar.objects)
	if err != nil {
		return err
	}
	direct, err := l.Round(ctx, y, &m.series)
	if err != nil {
		return err
	}
	p, c, n := s.counts(ctx)
	ours, theirs := bench.MedianRate(compared.Ours), bench.MedianRate(compared.Yardstick)
	row := benchRow{What: "ingest " + name, Value: compared.Ratio(), Unit: "×", Target: ingestTarget(size), Comparison: &compared}
	row.Note = fmt.Sprintf("%.4g/s, %.3g ms of processor; yardstick %.4g/s, %.3g ms; direct put %.4g/s; %.1f to a commit, %.1f to a seal",
		ours.PerSecond, ours.Processor*1e3, theirs.PerSecond, theirs.Processor*1e3, direct.PerSecond,
		float64(p-packages)/float64(max(c-commits, 1)), float64(p-packages)/float64(max(n-seals, 1)))
	m.add(row, true)
	return nil
}

// ingestTarget is the ratio that is wanted at a size, 0 where nothing was promised.
func ingestTarget(size int64) float64 {
	return map[int64]float64{10_000: 0.60, 100_000: 0.70, 1_000_000: 0.80, 1 << 30: 0.60}[size]
}

// proof measures the check of a sealed receipt, offline.
func (m *measurement) proof(ctx context.Context, s *subject) error {
	a, code := s.opened.Archive, m.load.Producers[0]
	page, err := a.Search(ctx, catalog.Query{Producer: code})
	if err != nil || len(page.Records) == 0 {
		return errors.Join(err, errors.New("nothing was kept"))
	}
	r, err := a.Receipt(ctx, code, page.Records[0].ID)
	if err != nil {
		return err
	}
	text, err := r.Marshal()
	if err != nil {
		return err
	}
	var times []float64
	for range 50 {
		start := time.Now()
		parsed, err := paper.ParseReceipt(text)
		if err != nil {
			return err
		}
		if res, _ := parsed.Check(s.opened.Trust, m.lang); res.Verdict() != paper.Good {
			return fmt.Errorf("the receipt does not verify: %+v", res)
		}
		times = append(times, time.Since(start).Seconds()*1e3)
	}
	m.add(benchRow{What: "proof checked offline", Value: bench.Median(times), Unit: "ms", Target: 5}, false)
	return nil
}

// audit measures an audit of all entries of one producer against reading and hashing its packages, in turn. The first
// takes SHA-512 too, which no later one does, and is printed beside.
func (m *measurement) audit(ctx context.Context, s *subject) error {
	code := m.load.Producers[0]
	log, err := s.opened.Archive.Ledger(code)
	if err != nil {
		return err
	}
	end := log.Head().Size
	first, _, err := m.audited(ctx, s, code, end)
	if err != nil {
		return err
	}
	var ratios []float64
	var objects int64
	for range 3 {
		ratio, n, err := m.audited(ctx, s, code, end)
		if err != nil {
			return err
		}
		ratios, objects = append(ratios, ratio), n
	}
	m.add(benchRow{What: "audit", Value: bench.Median(ratios), Unit: "×", Target: 0.90, Note: fmt.Sprintf("of GET and SHA-256, %d objects, four at once", objects)}, true)
	m.add(benchRow{What: "first audit", Value: first, Unit: "×", Note: "takes SHA-512 too, once in the life of an object"}, true)
	return nil
}

// audited makes one audit of a producer's entries before end, and tells how fast it read beside hashAll, and how many
// objects.
func (m *measurement) audited(ctx context.Context, s *subject, code string, end int64) (ratio float64, objects int64, err error) {
	start := time.Now()
	n, err := hashAll(ctx, s.store, code+"/packages/")
	if err != nil {
		return 0, 0, err
	}
	theirs := float64(n) / time.Since(start).Seconds()
	start = time.Now()
	out, err := s.opened.Archive.Audit(ctx, archive.Scope{Producer: code, End: end})
	if err != nil {
		return 0, 0, err
	}
	objects = out.Report.Objects.Read
	ours := float64(objects) / time.Since(start).Seconds()
	if err := out.Close(); err != nil {
		return 0, 0, err
	}
	if out.Report.Verdict == paper.VerdictDamaged {
		return 0, 0, fmt.Errorf("the audit finds damage: %+v", out.Report.Findings)
	}
	return ours / theirs, objects, nil
}

// hashAll gets and hashes every object under a prefix, as many at once as an audit does.
func hashAll(ctx context.Context, store storage.Store, prefix string) (n int64, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for v, err := range store.List(ctx, prefix, "") {
		if err != nil {
			return 0, errors.Join(err, g.Wait())
		}
		n++
		g.Go(func() error {
			r, err := store.Get(gctx, v.Key, "", 0, -1)
			if err != nil {
				return err
			}
			_, err = io.Copy(sha256.New(), r)
			return errors.Join(err, r.Close())
		})
	}
	return n, g.Wait()
}

// rebuild measures how fast the catalog is made again from the bucket.
func (m *measurement) rebuild(ctx context.Context, s *subject) error {
	packages, _, _ := s.counts(ctx)
	if err := s.end(); err != nil {
		return err
	}
	start, used := time.Now(), bench.ProcessorTime()
	opened, err := s.in.open(ctx, openOptions{Log: slog.New(slog.DiscardHandler), ReadOnly: true, ForgetCatalog: true})
	if err != nil {
		return err
	}
	took, used := time.Since(start), bench.ProcessorTime()-used
	var again int64
	for _, p := range opened.Archive.Status(ctx).Producers {
		again += p.Packages
	}
	if err := opened.Close(); err != nil {
		return err
	}
	if again != packages {
		return fmt.Errorf("the catalog made again has %d packages of %d", again, packages)
	}
	target := 20_000.0
	if m.bucket != nil {
		target = 5_000
	}
	m.add(benchRow{What: "catalog made again", Value: float64(packages) / took.Seconds(), Unit: "/s", Target: target, Note: fmt.Sprintf("%d packages, %.3g ms of processor each; words are filled in behind", packages, used.Seconds()*1e3/float64(packages))}, true)
	return nil
}

// subject is a temporary installation, served in this process, so that a profile shows all there is.
type subject struct {
	in        *installation
	opened    *opened
	store     storage.Store // the archive's, opened once more
	yardstick *bench.Yardstick
	target    *bench.HTTPTarget
	log       *os.File
	stop      func()
}

// end stops serving.
func (s *subject) end() error {
	if s.opened == nil {
		return nil
	}
	s.target.Close()
	s.stop()
	err := errors.Join(s.opened.Close(), s.log.Close())
	s.opened = nil
	return err
}

func (s *subject) close() error {
	err := s.end()
	for _, store := range []storage.Store{s.store, s.yardstick.Store} {
		if c, ok := store.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// counts tells how many packages, commits and seals there are.
func (s *subject) counts(ctx context.Context) (packages, commits, seals int64) {
	h := s.opened.Archive.Status(ctx)
	for _, p := range h.Producers {
		packages, commits = packages+p.Packages, commits+p.Commits
	}
	return packages, commits, h.Seal + 1
}

func (m *measurement) subject(ctx context.Context) (*subject, error) {
	cfg := Config{Installation: "misura.perenne", Listen: "127.0.0.1:0", Store: StoreConfig{Dir: "store", Immutable: "off"}}
	cfg.Locks.Horizon = Duration(benchHorizon)
	aside := StoreConfig{Dir: "yardstick", Immutable: "off"}
	if m.bucket != nil {
		cfg.Store, aside = StoreConfig{S3: m.bucket}, StoreConfig{S3: m.bucket}
	}
	in, err := makeInstallation(filepath.Join(m.root, "archive"), cfg, m.secrets, time.Now())
	if err != nil {
		return nil, err
	}
	if err := m.signers.lay(in); err != nil {
		return nil, err
	}
	for _, code := range m.load.Producers {
		if err := in.addMeasured(code); err != nil {
			return nil, err
		}
	}
	s := &subject{in: in}
	if s.store, err = in.openStore(ctx, in.config.Store); err != nil {
		return nil, err
	}
	beside, err := in.openStore(ctx, aside)
	if err != nil {
		return nil, err
	}
	s.yardstick = bench.NewYardstick(beside, benchHorizon)
	for v, err := range s.store.List(ctx, "", "") {
		if err != nil {
			return nil, err
		}
		return nil, usageIn("il bucket contiene già %s: ne serve uno vuoto, da buttare", "the bucket holds %s: an empty one is needed, to be thrown away", v.Key)
	}
	return s, s.serve(ctx, m.load.Clients)
}

func (in *installation) addMeasured(code string) error {
	deed := Deed{Text: "Atto di prova n. 1/2026"}
	_, err := in.addProducer(Producer{
		Code: code, Name: "Comune di Misura", TaxCode: "00000000901", Policy: "comune", Manual: Deed{Text: "Manuale di prova, versione 1.0"},
		Responsible: Person{FirstName: "Persona", LastName: "Inventata", TaxCode: "NVNPSN80A01X901A", Appointment: deed, From: "2026-01-01"},
		Conservator: Body{Name: "Comune di Misura", TaxCode: "00000000901", Appointment: deed, From: "2026-01-01"},
	})
	return err
}

func (s *subject) serve(ctx context.Context, clients int) error {
	token, err := os.ReadFile(s.in.path("keys", "cli.token"))
	if err != nil {
		return err
	}
	if s.log, err = os.Create(s.in.path("daemon.log")); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if s.opened, err = s.in.open(ctx, openOptions{Log: log}); err != nil {
		return err
	}
	server := web.NewServer(web.Config{
		Archive: s.opened.Archive, Tokens: s.in.tokens(log), Log: log, Now: time.Now,
		MaxUploads: clients, MaxUploadsPerProducer: clients, Public: true,
	})
	url, stop, err := serveLoopback(server.HTTP())
	if err != nil {
		return err
	}
	s.stop, s.target = stop, bench.NewHTTPTarget(url, strings.TrimSpace(string(token)), true, clients)
	return nil
}

// serveLoopback serves on a free port of this machine until stop.
func serveLoopback(srv *http.Server) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() { _ = srv.Serve(l) }() // ends with stop
	return "http://" + l.Addr().String(), func() { _ = srv.Close() }, nil
}
