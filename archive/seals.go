package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/signing/evidence"
	"github.com/marchesud/perenne/storage"
)

// sealer makes the seals: one at a time in this daemon, and by conditional create one history among all.
type sealer struct {
	a    *Archive
	kick chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every seal
	since   time.Time     // something is unsealed since then; zero when nothing is
	err     error         // of the last attempt
}

func newSealer(a *Archive) *sealer {
	return &sealer{a: a, kick: make(chan struct{}, 1), changed: make(chan struct{})}
}

// wait waits until an entry is sealed, where seals are made at once; a bounded time, since the receipt can be
// had later. It makes the seal due.
func (s *sealer) wait(ctx context.Context, producer string, entry int64) {
	if _, ok := s.a.seals.Of(producer, entry); ok {
		return
	}
	select {
	case s.kick <- struct{}{}:
	default:
	}
	if s.a.cfg.SealEvery > 0 || s.a.cfg.SealWait <= 0 {
		return
	}
	deadline := time.NewTimer(s.a.cfg.SealWait)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if _, ok := s.a.seals.Of(producer, entry); ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// run makes seals until ctx ends. While no TSA answers it tries again, at growing intervals up to a minute:
// submissions go on, and their receipts say that the seal is pending.
func (s *sealer) run(ctx context.Context) {
	const longest = time.Minute
	pause := time.Duration(0)
	var tick <-chan time.Time
	if s.a.cfg.SealEvery > 0 {
		t := time.NewTicker(s.a.cfg.SealEvery)
		defer t.Stop()
		tick = t.C
	}
	s.retry() // what the last run left unsealed
	for {
		kick := s.kick
		if tick != nil {
			kick = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-tick:
		case <-after(pause):
		}
		if err := s.all(ctx); err != nil && ctx.Err() == nil {
			pause = min(max(2*pause, time.Second), longest)
			s.a.cfg.Log.Error("seal not made", slog.Any("err", err), slog.Duration("retry", pause))
			continue
		}
		pause = 0
	}
}

func (s *sealer) retry() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// after is a timer that never fires for zero.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

// all makes seals until nothing is unsealed.
func (s *sealer) all(ctx context.Context) error {
	for {
		more, err := s.one(ctx)
		s.mu.Lock()
		s.err = err
		switch {
		case err == nil && !more:
			s.since = time.Time{}
		case s.since.IsZero():
			s.since = s.a.cfg.Now()
		}
		s.mu.Unlock()
		if err != nil || !more {
			return err
		}
	}
}

// one makes one seal over everything unsealed and reports whether there was something.
func (s *sealer) one(ctx context.Context) (bool, error) {
	a := s.a
	if err := a.seals.Refresh(ctx); err != nil {
		return false, err
	}
	head := a.seals.Head()
	n := &seal.Seal{Number: head.Number + 1}
	if head.Number >= 0 {
		n.Previous, n.PreviousToken = head.SHA256, head.Token
	}
	var err error
	if n.Ranges, err = s.ranges(ctx); err != nil || len(n.Ranges) == 0 {
		return false, err
	}
	tree, err := n.Tree(ctx, a.commits)
	if err != nil {
		return false, err
	}
	if n.Root, err = tree.Root(); err != nil {
		return false, err
	}
	n.Leaves = int64(tree.Len())

	// Token. A crash here leaves nothing; the token is dropped.
	start := a.cfg.Now()
	if n.Token, err = a.cfg.Timestamper.Timestamp(ctx, n.Root); err != nil {
		return false, fmt.Errorf("timestamp: %w", err)
	}
	a.metrics.timestamps.Observe(a.cfg.Now().Sub(start).Seconds())
	a.crash("seal.token")

	// Put, conditionally: after it the seal is there for everybody. Who loses the number drops its token.
	object := n.Marshal()
	err = a.put(ctx, seal.Key(n.Number), object, sha256.Sum256(object))
	if errors.Is(err, storage.ErrExists) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	a.crash("seal.stored") // leaves a seal that the next start reads
	if err := a.seals.Add(n, object); err != nil {
		return false, err
	}
	a.metrics.seals.Set(float64(n.Number))
	s.mu.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	return true, nil
}

// maxRange bounds the commits of one producer in one seal, so that a backlog is sealed in pieces.
const maxRange = 4096

// ranges finds what is unsealed of each ledger.
func (s *sealer) ranges(ctx context.Context) ([]seal.Range, error) {
	var ranges []seal.Range
	for _, code := range s.a.Producers() {
		p := s.a.producers[code]
		if p.log == nil {
			continue
		}
		head, from := p.log.Head(), s.a.seals.End(code)
		if head.Size <= from {
			continue
		}
		first, err := p.log.CommitOf(from)
		if err != nil {
			return nil, err
		}
		last, err := p.log.Commit(ctx, min(head.Number, first+maxRange-1))
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, seal.Range{
			Producer: code, First: from, End: last.Size, FirstCommit: first, LastCommit: last.Number,
			Checkpoint: sha256.Sum256(last.Checkpoint),
		})
	}
	return ranges, nil
}

// commits reads a commit of any producer, also of one this daemon does not serve.
func (a *Archive) commits(ctx context.Context, producer string, n int64) (*ledger.Commit, error) {
	if p, ok := a.producers[producer]; ok && p.log != nil {
		return p.log.Commit(ctx, n)
	}
	return readCommit(ctx, a.cfg.Store, producer, n, a.cfg.Trust.Ledgers)
}

// rider is the seal entry that rides along with the next commit of a ledger: the newest seal, once.
func (a *Archive) rider(p *producer) *ledger.Entry {
	head := a.seals.Head()
	p.mu.Lock()
	last := p.lastSeal
	p.mu.Unlock()
	if head.Number < 0 || head.Number <= last {
		return nil
	}
	return &ledger.Entry{
		Type: ledger.SealEntry, Seal: &head.Number, Root: hex.EncodeToString(head.Root[:]), Token: hex.EncodeToString(head.Token[:]),
		Object: seal.Key(head.Number), Size: head.Size, SHA256: hex.EncodeToString(head.SHA256[:]),
	}
}

// findLastSeal looks for the newest seal entry of a ledger in its last commits. Finding none costs at most a
// second entry for a seal that has one already.
func (a *Archive) findLastSeal(ctx context.Context, p *producer) {
	const depth = 64
	head := p.log.Head().Number
	for n := head; n >= 0 && n > head-depth; n-- {
		c, err := p.log.Commit(ctx, n)
		if err != nil {
			return
		}
		for _, e := range slices.Backward(c.Entries) {
			if e.Type == ledger.SealEntry {
				p.mu.Lock()
				p.lastSeal = max(p.lastSeal, *e.Seal)
				p.mu.Unlock()
				return
			}
		}
	}
}

// evidence derives the evidence of an entry from the seal that covers it: of the object whose digest is leaf,
// or, where leaf is nil, of the checkpoint that the seal covers.
func (a *Archive) evidence(ctx context.Context, p *producer, entry int64, leaf *[32]byte) (paper.Evidence, error) {
	n, ok := a.seals.Of(p.Code, entry)
	if !ok {
		if err := a.seals.Refresh(ctx); err != nil {
			return paper.Evidence{}, err
		}
		if n, ok = a.seals.Of(p.Code, entry); !ok {
			return paper.Evidence{Seal: paper.Pending}, nil
		}
	}
	st, err := a.sealTree(ctx, n)
	if err != nil {
		return paper.Evidence{}, err
	}
	e := paper.Evidence{Seal: paper.Sealed}
	if leaf == nil {
		r, ok := st.seal.Range(p.Code)
		if !ok {
			return paper.Evidence{}, fmt.Errorf("seal %d does not cover %s", n, p.Code)
		}
		leaf = &r.Checkpoint
		if own, err := p.log.CommitOf(entry); err != nil || own != r.LastCommit {
			text, err := p.log.ProofIn(ctx, entry, r.LastCommit)
			if err != nil {
				return paper.Evidence{}, err
			}
			e.Proof = string(text)
		}
	}
	record, err := st.tree.Derive(*leaf, st.seal.Token)
	if err != nil {
		return paper.Evidence{}, fmt.Errorf("seal %d: %w", n, err)
	}
	proof, err := paper.CheckRecord(a.cfg.Trust, record, *leaf)
	if err != nil {
		return paper.Evidence{}, fmt.Errorf("seal %d: %w", n, err)
	}
	e.Record, e.Root, e.Time = base64.StdEncoding.EncodeToString(record), hex.EncodeToString(proof.Root[:]), stamp(proof.Time)
	return e, nil
}

// sealTree is a seal with its tree.
type sealTree struct {
	seal *seal.Seal
	tree *evidence.Tree
}

// treeCache keeps the trees of recent seals: receipts of one seal share one.
type treeCache struct {
	mu    sync.Mutex
	trees map[int64]*sealTree
	order []int64
}

const cachedTrees = 32

func (a *Archive) sealTree(ctx context.Context, n int64) (*sealTree, error) {
	c := &a.trees
	c.mu.Lock()
	st := c.trees[n]
	c.mu.Unlock()
	if st != nil {
		return st, nil
	}
	s, _, err := seal.Read(ctx, a.cfg.Store, n)
	if err != nil {
		return nil, err
	}
	tree, err := s.Tree(ctx, a.commits)
	if err != nil {
		return nil, err
	}
	if root, err := tree.Root(); err != nil || !bytes.Equal(root[:], s.Root[:]) {
		return nil, errors.Join(err, fmt.Errorf("seal %d: its root is not that of its leaves", n))
	}
	st = &sealTree{s, tree}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trees == nil {
		c.trees = map[int64]*sealTree{}
	}
	c.trees[n] = st
	c.order = append(c.order, n)
	if len(c.order) > cachedTrees {
		delete(c.trees, c.order[0])
		c.order = c.order[1:]
	}
	return st, nil
}

// readCommit reads one commit from the bucket. Only its checkpoint is proved by its signature: that the entries
// are those of the checkpoint's tree, the root of the seal over them has to show.
func readCommit(ctx context.Context, s storage.Store, producer string, n int64, v note.Verifiers) (*ledger.Commit, error) {
	text, err := readSmall(ctx, s, ledger.Key(producer, n), maxCommit)
	if err != nil {
		return nil, err
	}
	c, err := ledger.ParseCommit(text, producer, v)
	if err == nil && c.Number != n {
		err = fmt.Errorf("%s: it is commit %d", ledger.Key(producer, n), c.Number)
	}
	return c, err
}

// maxCommit bounds a commit object: a batch of 4 MiB and its checkpoint.
const maxCommit = 8 << 20

// evidenceRecord decodes the record of a sealed receipt.
func evidenceRecord(r *paper.Receipt) ([]byte, error) {
	der, err := base64.StdEncoding.DecodeString(r.Evidence.Record)
	if err != nil {
		return nil, fail(Internal, "evidence", r.Body.Package, err)
	}
	return der, nil
}
