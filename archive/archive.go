package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
)

// Config is everything an Archive is made of. Fields without "optional" are required.
type Config struct {
	// Installation names this archive for ever: the origin of each ledger is <Installation>/<producer>.
	Installation string
	// Program is the name and version that packages and reports state.
	Program pack.Application
	// Producers are the bodies served.
	Producers []Producer
	// Store is the bucket: the truth. One that may not keep its word has a spool in front (storage/spool).
	Store storage.Store
	// Catalog is the searchable cache.
	Catalog *catalog.Catalog
	// CatalogInDoubt is told when an audit finds the catalog wrong; optional.
	CatalogInDoubt func() error
	// State is a local directory: the marks of the ledgers, derived indexes, room for uploads.
	State string
	// Signer seals packages, copies and reports. Nil makes the archive read-only but for papers.
	Signer signing.Signer
	// Timestamper gives the token of a seal; nil with LedgerSigner nil.
	Timestamper signing.Timestamper
	// Trust is what this archive itself believes when it reads back.
	Trust paper.Trust
	// LedgerSigner gives the key that signs a producer's checkpoints; nil makes the archive read-only.
	LedgerSigner func(producer string) (note.Signer, error)
	// VerifierKey is the text of that key's public half, for the first entry of a ledger.
	VerifierKey func(producer string) (string, error)
	// Recovery is the public half of the offline recovery key, which stands in the first entry of each ledger.
	Recovery string
	// Adoption, when set, gives the entry that takes new keys into use, signed by the recovery key; nil when
	// there is none to write. Adopted is told when it stands in the ledger.
	Adoption func(producer string) (*ledger.Entry, error)
	Adopted  func(producer string) error
	// Published are objects that lie under keys/: certificates (DER) and verifier keys (text).
	Published [][]byte

	// SealEvery is the interval between seals; 0 seals at once, and a receipt then waits for its seal.
	SealEvery time.Duration
	// SealWait bounds that wait.
	SealWait time.Duration
	// StoreWait is how long a submission that was received waits for the store, with a second more for each MiB, before
	// the answer is Unavailable; 0 means a minute.
	StoreWait time.Duration
	// AuditTick is how often the scheduler looks for packages to read again; 0 switches it off.
	AuditTick time.Duration
	// AuditBudget bounds the bytes one tick reads; 0 means no bound.
	AuditBudget int64
	// LockHorizon is how far ahead objects are locked, on stores that keep dates: never further, so that a wrong
	// deposit can be erased within it.
	LockHorizon time.Duration
	// TrustBucketHead takes the bucket's ledgers as they are, once, where this machine has no mark of them.
	TrustBucketHead bool

	Now  func() time.Time
	Rand io.Reader
	Log  *slog.Logger
	// Crash is nil but in tests, which use it to die at a labelled step.
	Crash func(label string)
}

// Producer is a body that owns documents: a tenant and a legal boundary.
type Producer struct {
	Code    string // IPA code, lower case: c_x901
	Name    string // denomination
	TaxCode string
	Policy  *policies.Policy
	// NameKey derives identifiers; 32 bytes, never changed, never in the bucket. Empty in a read-only archive.
	NameKey []byte
	// Submitter, Holders and Signers are the agents of the SInCRO index, from the producer's file.
	Submitter pack.Agent
	Holders   []pack.Agent
	Signers   []pack.Agent
	Laws      string
}

// Archive is an open archive. All methods may be called concurrently.
type Archive struct {
	cfg       Config
	producers map[string]*producer
	heads     *ledger.Heads
	seals     *seal.Index
	sealer    *sealer
	metrics   *metrics
	trees     treeCache

	processors  chan struct{}  // see atWork
	checkpoints note.Verifiers // Trust.Ledgers, for the proofs of receipts

	locking   sync.Mutex                // held by a round over the locks
	lockRound atomic.Pointer[lastRound] // of the daily round over the locks; nil before the first

	stampsQualified atomic.Bool // the newest token said that it is qualified

	stop context.CancelFunc
	done sync.WaitGroup
}

// Open opens the archive, finishes what a crash has left, and starts the sealer and the audit scheduler. A
// producer whose ledger cannot be trusted (rolled back, forked, without a mark) stands still: what is kept can be
// audited, no paper is issued and nothing is accepted, and Status says why. One whose ledger could not be opened
// for a passing reason is tried again.
func Open(ctx context.Context, cfg Config) (*Archive, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	heads, err := ledger.OpenHeads(filepath.Join(cfg.State, "heads"))
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	heads.Crash = cfg.Crash
	a := &Archive{
		cfg: cfg, producers: map[string]*producer{}, heads: heads, metrics: newMetrics(),
		processors: make(chan struct{}, runtime.GOMAXPROCS(0)), checkpoints: &remembering{Verifiers: cfg.Trust.Ledgers},
	}
	if err := os.MkdirAll(filepath.Join(cfg.State, "ledger"), 0o755); err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	if a.seals, err = seal.OpenIndex(cfg.Store, filepath.Join(cfg.State, "seals"), a.checkSeal); err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	a.sealer = newSealer(a)
	if s, ok := cfg.Store.(spooling); ok {
		s.Sift(ctx, a.neverPromised)
	}
	a.crash("open.begun") // recovery is the same code again: a crash in it leaves no more than there was
	for _, p := range cfg.Producers {
		a.openProducer(ctx, p)
		a.crash("open.ledger")
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("open archive: %w", err), a.Close())
	}
	if err := a.publish(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.crash("open.published")
	if err := a.sealer.settle(ctx); err != nil {
		// Submissions go on; Status says that sealing does not, and the audit names the object.
		cfg.Log.Error("a seal in the bucket cannot be believed", slog.Any("err", err))
		a.sealer.err = err
	}
	a.metrics.seals.Set(float64(a.seals.Head().Number))
	if cfg.Signer != nil && cfg.Signer.Qualified() {
		if s, _, err := seal.Read(ctx, cfg.Store, a.seals.Head().Number, nil); err == nil {
			a.noteToken(s.Token)
		}
	}
	a.crash("open.seals")
	a.start()
	return a, nil
}

func (c *Config) check() error {
	switch {
	case c.Installation == "" || c.Store == nil || c.Catalog == nil || c.State == "" || c.Now == nil || c.Rand == nil || c.Log == nil:
		return errors.New("open archive: the configuration lacks a required part")
	case c.LedgerSigner == nil:
		return c.checkProducers()
	case c.Signer == nil || c.Timestamper == nil || c.VerifierKey == nil || c.Recovery == "" || c.LockHorizon <= 0:
		return errors.New("open archive: to write, a signer, a timestamper, a verifier key, a recovery key and a lock horizon are needed")
	}
	return c.checkProducers()
}

// checkProducers refuses producers that would write identifiers under an empty key, or two under one code.
func (c *Config) checkProducers() error {
	seen := map[string]bool{}
	for _, p := range c.Producers {
		switch {
		case p.Code == "" || seen[p.Code]:
			return fmt.Errorf("open archive: producer %q stands twice, or has no code", p.Code)
		case p.Policy == nil:
			return fmt.Errorf("open archive: producer %s has no policy", p.Code)
		case c.LedgerSigner != nil && len(p.NameKey) != 32:
			return fmt.Errorf("open archive: the name key of %s has %d bytes, want 32", p.Code, len(p.NameKey))
		}
		seen[p.Code] = true
	}
	return nil
}

// writable reports whether the archive has keys to write with.
func (a *Archive) writable() bool { return a.cfg.LedgerSigner != nil }

// publish puts the public keys and certificates of this archive under keys/, where they outlive the machine. What
// this machine has published before is left to the audit, which says so when it is gone.
func (a *Archive) publish(ctx context.Context) error {
	if !a.writable() {
		return nil
	}
	path := filepath.Join(a.cfg.State, "published")
	known, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("publish keys: %w", err)
	}
	var list []byte
	for _, b := range a.cfg.Published {
		name := fmt.Appendf(nil, "%x\n", sha256.Sum256(b))
		list = append(list, name...)
		if bytes.Contains(known, name) {
			continue
		}
		if err := a.publishKey(ctx, b); err != nil {
			return fmt.Errorf("publish key: %w", err)
		}
	}
	if bytes.Equal(list, known) {
		return nil
	}
	if err := os.WriteFile(path, list, 0o644); err != nil {
		return fmt.Errorf("publish keys: %w", err)
	}
	return nil
}

func (a *Archive) publishKey(ctx context.Context, b []byte) error {
	sum := sha256.Sum256(b)
	err := a.put(ctx, fmt.Sprintf("keys/%x", sum), b, sum)
	if errors.Is(err, storage.ErrExists) {
		return nil
	}
	return err
}

// start runs the sealer and the scheduler until Close.
func (a *Archive) start() {
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	a.done.Go(func() { a.revive(ctx) })
	a.done.Go(func() { a.follow(ctx) })
	if a.writable() {
		a.done.Go(func() { a.sealer.run(ctx) })
		if s, ok := a.cfg.Store.(storage.Sweeper); ok {
			a.done.Go(func() { a.sweepDaily(ctx, s) })
		}
		if s, ok := a.cfg.Store.(spooling); ok {
			a.done.Go(func() { s.Run(ctx, a.sealedBefore, a.superseded) })
		}
		if _, dated := a.cfg.Store.(storage.Locker); dated {
			a.done.Go(func() { a.lockDaily(ctx) })
		}
		if a.cfg.AuditTick > 0 {
			a.done.Go(func() { a.rereadEvery(ctx) })
		}
	}
}

// Close ends the archive in order: what was acknowledged is durable already, so it only waits for commits
// in flight. A last seal is attempted, so that an orderly stop leaves nothing unsealed.
func (a *Archive) Close() error {
	if a.stop != nil {
		a.stop()
	}
	a.done.Wait()
	var err error
	if a.stop != nil && a.writable() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if sealErr := a.sealer.all(ctx); sealErr != nil {
			a.cfg.Log.Warn("left unsealed until the next start", slog.Any("err", sealErr))
		}
		cancel()
	}
	for _, p := range a.producers {
		if p.ledger() != nil {
			err = errors.Join(err, p.ledger().Close())
		}
		p.bundling.Lock() // until the last bundle is put
		owed := p.owed != nil
		p.bundling.Unlock()
		if owed {
			a.cfg.Log.Warn("search records of the last commit not put: the next start makes them", slog.String("producer", p.Code))
		}
	}
	return errors.Join(err, a.seals.Close())
}

// Producers lists the codes served, in order.
func (a *Archive) Producers() []string {
	codes := make([]string, 0, len(a.producers))
	for c := range a.producers {
		codes = append(codes, c)
	}
	sort.Strings(codes)
	return codes
}

// Ledger gives the ledger of a producer, for serving it (C2SP tlog-tiles).
func (a *Archive) Ledger(code string) (*ledger.Log, error) {
	p, err := a.running("ledger", code)
	if err != nil {
		return nil, err
	}
	return p.ledger(), nil
}

// lockUntil is the date to which an object made at t is locked: never beyond the horizon.
func (a *Archive) lockUntil(t time.Time) time.Time { return t.Add(a.cfg.LockHorizon) }

func (a *Archive) crash(label string) {
	if a.cfg.Crash != nil {
		a.cfg.Crash(label)
	}
}

// qualification is what papers say of the seals: qualified only when the conservatore's certificate is and the
// newest timestamp was, since a paper that claims more than its token does not verify.
func (a *Archive) qualification() string {
	if a.cfg.Signer != nil && a.cfg.Signer.Qualified() && a.stampsQualified.Load() {
		return paper.Qualified
	}
	return paper.Unqualified
}

// noteToken remembers what the newest token says of itself.
func (a *Archive) noteToken(der []byte) {
	if t, _, err := signing.ParseToken(der); err == nil {
		a.stampsQualified.Store(t.Qualified)
	}
}

// random is a random part of d.
func (a *Archive) random(d time.Duration) time.Duration {
	var b [4]byte
	if _, err := io.ReadFull(a.cfg.Rand, b[:]); err != nil {
		return 0
	}
	return time.Duration(float64(d) * float64(binary.BigEndian.Uint32(b[:])) / (1 << 32))
}

func stamp(t time.Time) string { return t.UTC().Format(paper.TimeFormat) }
