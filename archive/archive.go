package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"sync"
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
	// Store is the bucket: the truth.
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
	// Adoption, when set, gives the entry that takes new keys into use, nil when the newest checkpoint shows
	// that they are.
	Adoption func(producer string, checkpoint []byte) (*ledger.Entry, error)
	// Published are objects that lie under keys/: certificates (DER) and verifier keys (text).
	Published [][]byte

	// SealEvery is the interval between seals; 0 seals at once, and a receipt then waits for its seal.
	SealEvery time.Duration
	// SealWait bounds that wait.
	SealWait time.Duration
	// AuditTick is how often the scheduler looks for packages to read again; 0 switches it off.
	AuditTick time.Duration
	// AuditBudget bounds the bytes one tick reads; 0 means no bound.
	AuditBudget int64
	// LockHorizon is how far ahead objects are locked (DESIGN: Locks).
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

	stop context.CancelFunc
	done sync.WaitGroup
}

// producer is a Producer with what the archive holds of it.
type producer struct {
	Producer
	log     *ledger.Log // nil while the producer stands still
	stopped error       // why, when log is nil

	mu       sync.Mutex
	arriving map[string]searchRecord // search records of packages on their way into a commit, by ID
	lastSeal int64                   // number of the newest seal that an entry of this ledger names; -1: none
	reread   *rereading
}

// Open opens the archive, finishes what a crash has left, and starts the sealer and the audit scheduler. A
// producer whose ledger cannot be trusted (rolled back, forked, without a mark) stands still: its documents
// can be audited and retrieved, none is accepted, and Status says why.
func Open(ctx context.Context, cfg Config) (*Archive, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	heads, err := ledger.OpenHeads(filepath.Join(cfg.State, "heads"))
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	a := &Archive{cfg: cfg, producers: map[string]*producer{}, heads: heads, metrics: newMetrics()}
	if err := os.MkdirAll(filepath.Join(cfg.State, "ledger"), 0o755); err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	if a.seals, err = seal.OpenIndex(ctx, cfg.Store, filepath.Join(cfg.State, "seals")); err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	a.sealer = newSealer(a)
	for _, p := range cfg.Producers {
		if err := a.openProducer(ctx, p); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	if err := a.publish(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.start()
	return a, nil
}

func (c *Config) check() error {
	switch {
	case c.Installation == "" || c.Store == nil || c.Catalog == nil || c.State == "" || c.Now == nil || c.Rand == nil || c.Log == nil:
		return errors.New("open archive: the configuration lacks a required part")
	case c.LedgerSigner != nil && (c.Signer == nil || c.Timestamper == nil):
		return errors.New("open archive: a ledger key without a signer and a timestamper")
	}
	return nil
}

// writable reports whether the archive has keys to write with.
func (a *Archive) writable() bool { return a.cfg.LedgerSigner != nil }

// openProducer opens one ledger. Only faults of the machine are errors; what is wrong with the ledger stops the
// producer.
func (a *Archive) openProducer(ctx context.Context, cfg Producer) error {
	p := &producer{Producer: cfg, arriving: map[string]searchRecord{}, lastSeal: -1}
	p.reread = openRereading(filepath.Join(a.cfg.State, "reread-"+p.Code))
	a.producers[p.Code] = p
	var signer note.Signer
	if a.writable() {
		var err error
		if signer, err = a.cfg.LedgerSigner(p.Code); err != nil {
			return fmt.Errorf("open ledger of %s: %w", p.Code, err)
		}
	}
	log, err := a.openLedger(ctx, p, signer)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("open ledger of %s: %w", p.Code, err)
		}
		p.stopped = err
		a.cfg.Log.Error("producer stands still", slog.String("producer", p.Code), slog.Any("err", err))
		return nil
	}
	p.log = log
	log.SetRider(func() *ledger.Entry { return a.rider(p) })
	return a.begin(ctx, p)
}

// openLedger opens the ledger and brings the catalog up to it. A catalog that is ahead of the ledger, or of
// another history, is forgotten first: it is a cache.
func (a *Archive) openLedger(ctx context.Context, p *producer, signer note.Signer) (*ledger.Log, error) {
	cfg := ledger.Config{
		Producer: p.Code, Origin: a.cfg.Installation + "/" + p.Code,
		Signer: signer, Verifiers: a.cfg.Trust.Ledgers, Store: a.cfg.Store,
		Dir: filepath.Join(a.cfg.State, "ledger", p.Code), Heads: a.heads,
		Now: a.cfg.Now, RetainUntil: a.lockUntil,
		Applied:         func(ctx context.Context, c *ledger.Commit) error { return a.index(ctx, p, c) },
		AppliedTo:       a.cfg.Catalog.State(p.Code).Commit,
		TrustBucketHead: a.cfg.TrustBucketHead, Crash: a.cfg.Crash,
	}
	known := a.cfg.Catalog.State(p.Code)
	log, err := ledger.Open(ctx, cfg)
	if err == nil && known.Commit >= 0 {
		var c *ledger.Commit
		if c, err = log.Commit(ctx, known.Commit); err == nil && ([32]byte(c.Root) != known.Root || c.Size != known.Size) {
			err = errors.Join(ledger.ErrAhead, log.Close())
		}
	}
	if !errors.Is(err, ledger.ErrAhead) {
		return log, err
	}
	a.cfg.Log.Warn("catalog is of another history than the ledger: made again", slog.String("producer", p.Code))
	if err := a.cfg.Catalog.Reset(p.Code); err != nil {
		return nil, err
	}
	cfg.AppliedTo = -1
	return ledger.Open(ctx, cfg)
}

// begin writes the entries a ledger must have before any other: its first, which binds its keys, and an
// adoption of new ones.
func (a *Archive) begin(ctx context.Context, p *producer) error {
	a.findLastSeal(ctx, p)
	if !a.writable() {
		return nil
	}
	if p.log.Head().Size == 0 {
		vkey, err := a.cfg.VerifierKey(p.Code)
		if err != nil {
			return fmt.Errorf("open ledger of %s: %w", p.Code, err)
		}
		first := ledger.Entry{Type: ledger.KeyAdded, VKey: vkey, Certificate: signing.Fingerprint(a.cfg.Signer.Chain()[0]), Recovery: a.cfg.Recovery}
		if _, err := p.log.Append(ctx, ledger.Pending{Entry: first}); err != nil {
			return fmt.Errorf("begin ledger of %s: %w", p.Code, err)
		}
	}
	if a.cfg.Adoption == nil {
		return nil
	}
	e, err := a.cfg.Adoption(p.Code, p.log.Checkpoint())
	if err != nil || e == nil {
		return err
	}
	if _, err := p.log.Append(ctx, ledger.Pending{Entry: *e}); err != nil {
		return fmt.Errorf("adopt keys in ledger of %s: %w", p.Code, err)
	}
	return nil
}

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
	if a.writable() {
		a.done.Go(func() { a.sealer.run(ctx) })
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
		if p.log != nil {
			err = errors.Join(err, p.log.Close())
		}
	}
	return errors.Join(err, a.seals.Close())
}

// producer finds one by its code.
func (a *Archive) producer(op, code string) (*producer, error) {
	p, ok := a.producers[code]
	if !ok {
		return nil, &Error{Kind: NotFound, Op: op, Object: code, Err: errors.New("no such producer in this archive")}
	}
	return p, nil
}

// running is producer, for operations that need its ledger.
func (a *Archive) running(op, code string) (*producer, error) {
	p, err := a.producer(op, code)
	if err != nil {
		return nil, err
	}
	if p.log == nil {
		return nil, &Error{Kind: Unavailable, Op: op, Object: code, Err: fmt.Errorf("the producer stands still: %w", p.stopped)}
	}
	return p, nil
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
	return p.log, nil
}

// lockUntil is the date to which an object made at t is locked: never beyond the horizon.
func (a *Archive) lockUntil(t time.Time) time.Time { return t.Add(a.cfg.LockHorizon) }

func (a *Archive) crash(label string) {
	if a.cfg.Crash != nil {
		a.cfg.Crash(label)
	}
}

func (a *Archive) qualification() string {
	if a.cfg.Signer != nil && a.cfg.Signer.Qualified() {
		return paper.Qualified
	}
	return paper.Unqualified
}

func stamp(t time.Time) string { return t.UTC().Format(paper.TimeFormat) }
