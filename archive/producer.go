package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/singleflight"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/storage"
)

// producer is a Producer with what the archive holds of it.
type producer struct {
	Producer
	mu       sync.Mutex
	log      *ledger.Log                       // nil until it could be opened once
	closed   bool                              // log is, to be mended or opened again: it answers with errors
	stopped  error                             // why the producer stands still; nil while it runs
	arriving map[string]searchRecord           // search records of packages on their way into a commit, by ID
	ahead    map[int64]map[string]searchRecord // what is right of the bundles of commits about to be applied, by commit
	lastSeal int64                             // number of the newest seal that an entry of this ledger names; -1: none
	adopt    *ledger.Entry                     // takes new keys into use; it rides with the first commit, nil once it stands
	adopted  bool                              // it stands in the ledger
	reread   *rereading
	reading  singleflight.Group // of the ledger, for submissions about to be refused
	repairs  repairs
	turn     chan struct{} // held by whoever opens the ledger again, or mends it: see take
	bundling sync.Mutex    // held while a search bundle is put behind its commit
	lossSaid atomic.Int64  // of putAgain, what a report has said
	owed     *owedBundle   // the one that the store did not take; nil otherwise. Under bundling
}

// openProducer opens one ledger. Whatever is wrong with it stops this producer and no other.
func (a *Archive) openProducer(ctx context.Context, cfg Producer) {
	p := &producer{Producer: cfg, arriving: map[string]searchRecord{}, ahead: map[int64]map[string]searchRecord{}, lastSeal: -1, turn: make(chan struct{}, 1)}
	p.reread = openRereading(filepath.Join(a.cfg.State, "reread-"+p.Code))
	a.producers[p.Code] = p
	if err := a.run(ctx, p); err != nil {
		a.cfg.Log.Error("producer stands still", slog.String("producer", p.Code), slog.Any("err", err))
	}
}

// run opens the ledger of a producer and writes what must stand first in it.
func (a *Archive) run(ctx context.Context, p *producer) error {
	log, err := a.openLedger(ctx, p)
	if err == nil {
		p.set(log)
		if err = a.begin(ctx, p, log); err == nil {
			return nil
		}
		err = errors.Join(err, log.Close())
	}
	p.stop(err)
	return err
}

// openLedger opens the ledger and brings the catalog up to it. A catalog that is ahead of the ledger, or of
// another history, is forgotten first: it is a cache.
func (a *Archive) openLedger(ctx context.Context, p *producer) (*ledger.Log, error) {
	cfg, err := a.ledgerConfig(p)
	if err != nil {
		return nil, err
	}
	known := a.cfg.Catalog.State(p.Code)
	if err := a.makeUp(ctx, p, known.Commit); err != nil {
		return nil, err
	}
	log, err := ledger.Open(ctx, cfg)
	if err == nil && known.Commit >= 0 {
		c, readErr := log.Commit(ctx, known.Commit)
		if readErr != nil {
			return nil, errors.Join(readErr, log.Close())
		}
		if [32]byte(c.Root) != known.Root || c.Size != known.Size {
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

// makeUp puts the search bundle of commit n, the last that was applied, where a crash has left it out. This comes before
// the ledger opens, which applies what was committed since: after a crash among those n would not be the last any more.
func (a *Archive) makeUp(ctx context.Context, p *producer, n int64) error {
	if n < 0 {
		return nil
	}
	c, err := ledger.Read(ctx, a.cfg.Store, p.Code, n, a.cfg.Trust.Ledgers)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, ledger.ErrCommit) {
		return nil // opening judges it
	}
	if err != nil {
		return fmt.Errorf("the last commit applied: %w", err)
	}
	_, bundle, err := a.searchRecords(ctx, p, c)
	if err != nil || bundle == nil {
		return err
	}
	return a.putBundle(ctx, bundleKey(p.Code, n), bundle)
}

func (a *Archive) ledgerConfig(p *producer) (ledger.Config, error) {
	cfg := ledger.Config{
		Producer: p.Code, Origin: a.cfg.Installation + "/" + p.Code, Verifiers: a.cfg.Trust.Ledgers, Store: a.cfg.Store,
		Dir: filepath.Join(a.cfg.State, "ledger", p.Code), Heads: a.heads,
		Now: a.cfg.Now, RetainUntil: a.lockUntil,
		Applied:         func(ctx context.Context, c *ledger.Commit) error { return a.index(ctx, p, c) },
		Ahead:           func(ctx context.Context, c *ledger.Commit) { a.readAhead(ctx, p, c) },
		AppliedTo:       a.cfg.Catalog.State(p.Code).Commit,
		Rider:           func() *ledger.Entry { return a.rider(p) },
		TrustBucketHead: a.cfg.TrustBucketHead, Crash: a.cfg.Crash,
	}
	if !a.writable() {
		return cfg, nil
	}
	var signer note.Signer
	signer, err := a.cfg.LedgerSigner(p.Code)
	if err != nil {
		return cfg, fmt.Errorf("ledger key of %s: %w", p.Code, err)
	}
	cfg.Signer = signer
	if a.cfg.Adoption != nil {
		if p.adopt, err = a.cfg.Adoption(p.Code); err != nil {
			return cfg, fmt.Errorf("adoption of keys for %s: %w", p.Code, err)
		}
	}
	return cfg, nil
}

// begin writes the entries a ledger must have before any other: its first, which binds its keys; an adoption of
// new ones, unless it rode with the first commit; a new certificate of the conservatore.
func (a *Archive) begin(ctx context.Context, p *producer, log *ledger.Log) error {
	a.findLastSeal(ctx, p)
	if !a.writable() {
		return nil
	}
	vkey, err := a.cfg.VerifierKey(p.Code)
	if err != nil {
		return fmt.Errorf("open ledger of %s: %w", p.Code, err)
	}
	own := ledger.Entry{Type: ledger.KeyAdded, VKey: vkey, Certificate: signing.Fingerprint(a.cfg.Signer.Chain()[0])}
	switch adoption := p.adopting(); {
	case log.Head().Size == 0:
		own.Recovery = a.cfg.Recovery
	case adoption != nil:
		own = *adoption
	case p.hasAdopted():
		return a.toldAdopted(p)
	default:
		// The certificate lies under keys/ once every ledger names it: publish comes after begin.
		if _, err := a.cfg.Store.Stat(ctx, "keys/"+own.Certificate); err == nil {
			return nil
		}
	}
	if _, err := log.Append(ctx, ledger.Pending{Entry: own}); err != nil {
		return fmt.Errorf("name keys in ledger of %s: %w", p.Code, err)
	}
	return a.toldAdopted(p)
}

// toldAdopted tells whoever gave the adoption that it stands in the ledger.
func (a *Archive) toldAdopted(p *producer) error {
	if a.cfg.Adopted == nil || !p.hasAdopted() {
		return nil
	}
	return a.cfg.Adopted(p.Code)
}

// reviveEvery is how often a producer that stands still is tried again.
const reviveEvery = 5 * time.Second

// revive opens again the ledgers that stopped, or could not be opened, for a reason that passes: a store away, a
// disk full, a clock behind. What only a person can judge (a rollback, a fork, a lost mark) is left alone.
func (a *Archive) revive(ctx context.Context) {
	t := time.NewTicker(reviveEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, code := range a.Producers() {
			p := a.producers[code]
			if p.why() == nil {
				_ = a.bundled(ctx, p) // it logs what it cannot
				continue
			}
			a.reopen(ctx, p)
		}
	}
}

// reopen opens the ledger of a producer that stands still again, unless somebody mends it.
func (a *Archive) reopen(ctx context.Context, p *producer) {
	select {
	case p.turn <- struct{}{}:
		defer p.release()
	default:
		return
	}
	why := p.why()
	if why == nil || !passing(why) { // mended meanwhile
		return
	}
	a.shut(p, why)
	if err := a.goOn(ctx, p); err != nil {
		a.cfg.Log.Warn("producer still stands still", slog.String("producer", p.Code), slog.Any("err", err))
		return
	}
	a.cfg.Log.Info("producer goes on", slog.String("producer", p.Code))
}

// goOn is run for a producer that stood still: what it has and no seal covers was left out of the seals meanwhile.
func (a *Archive) goOn(ctx context.Context, p *producer) error {
	err := a.run(ctx, p)
	if err == nil {
		a.sealer.retry()
	}
	return err
}

// shut closes the ledger of a producer that stands still, if it has one. Whoever was about to use it is answered with errors.
func (a *Archive) shut(p *producer, why error) {
	log := p.ledger()
	if log == nil {
		return
	}
	p.stop(why)
	if err := log.Close(); err != nil {
		a.cfg.Log.Warn("stopped ledger not closed cleanly", slog.String("producer", p.Code), slog.Any("err", err))
	}
}

// take waits for the turn to open the ledger again, or to mend it: two that are open would write to one local index.
func (p *producer) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *producer) release() { <-p.turn }

// passing reports whether a reason to stand still may pass by itself.
func passing(err error) bool {
	var rollback *ledger.Rollback
	var fork *ledger.Fork
	var damage *ledger.Damage
	return !errors.As(err, &rollback) && !errors.As(err, &fork) && !errors.As(err, &damage) && !errors.Is(err, ledger.ErrNoMark) && !errors.Is(err, ledger.ErrHeads)
}

// state is the producer's ledger and, when it does not run, why.
func (p *producer) state() (*ledger.Log, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped != nil || p.log == nil {
		return p.log, p.stopped
	}
	return p.log, p.log.Err()
}

// ledger is the producer's ledger, nil while it never could be opened. One that stopped answers with errors.
func (p *producer) ledger() *ledger.Log {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log
}

// why says why the producer stands still, nil while it runs.
func (p *producer) why() error {
	_, why := p.state()
	return why
}

// readable is the producer's ledger, also where it stands still, unless it is closed; nil then.
func (p *producer) readable() *ledger.Log {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	return p.log
}

// set makes log the producer's ledger.
func (p *producer) set(log *ledger.Log) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log, p.closed, p.stopped = log, false, nil
}

// stop says why the producer stands still, whose ledger, if it has one, is closed or about to be.
func (p *producer) stop(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.stopped = p.log != nil, why
}

// keyStands is told of every key.added entry that is applied.
func (p *producer) keyStands(e ledger.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.adopt != nil && e.VKey == p.adopt.VKey && e.Signature == p.adopt.Signature {
		p.adopt, p.adopted = nil, true
	}
}

func (p *producer) hasAdopted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.adopted
}

// adopting is the entry that takes new keys into use, until it stands.
func (p *producer) adopting() *ledger.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.adopt
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
	if log, why := p.state(); log == nil || why != nil {
		return nil, &Error{Kind: Unavailable, Op: op, Object: code, Err: fmt.Errorf("the producer stands still: %w", why)}
	}
	return p, nil
}
