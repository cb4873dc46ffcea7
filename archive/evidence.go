package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/signing/evidence"
)

// evidence derives the evidence of an entry from the seal that covers it: of the object whose digest is leaf,
// or, where leaf is nil, of the checkpoint that the seal covers. It is pending where there is no such seal yet, and
// where the seal, or a commit it covers, is damaged: the entry was committed, and that is what the paper says. The
// only error is that of ctx.
func (a *Archive) evidence(ctx context.Context, p *producer, entry int64, leaf *[32]byte) (paper.Evidence, error) {
	n, ok := a.seals.Of(p.Code, entry)
	if !ok { // another daemon may have sealed it
		if err := a.readSeals(ctx); err != nil {
			a.cfg.Log.Warn("seals not read on", slog.Any("err", err))
		}
		if n, ok = a.seals.Of(p.Code, entry); !ok {
			return paper.Evidence{Seal: paper.Pending}, nil
		}
	}
	e, err := a.derive(ctx, p, entry, leaf, n)
	switch {
	case err == nil:
		return e, nil
	case ctx.Err() != nil:
		return paper.Evidence{}, ctx.Err()
	}
	a.sealer.alarm("evidence cannot be derived from its seal: run perenne audit", slog.String("producer", p.Code), slog.Int64("entry", entry), slog.Int64("seal", n), slog.Any("err", err))
	return paper.Evidence{Seal: paper.Pending}, nil
}

// readSeals is refreshSeals for many who ask at once: whoever comes while one reads takes what it finds.
func (a *Archive) readSeals(ctx context.Context) error {
	_, err := once(ctx, &a.trees.reading, "", func(ctx context.Context) (any, error) { return nil, a.refreshSeals(ctx) })
	return err
}

// once does work for all who ask for it by the same name meanwhile. It is done to the end also when who asked first
// goes away.
func once(ctx context.Context, g *singleflight.Group, name string, work func(context.Context) (any, error)) (any, error) {
	done := g.DoChan(name, func() (any, error) { return work(context.WithoutCancel(ctx)) })
	select {
	case r := <-done:
		return r.Val, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// derive is evidence from seal n.
func (a *Archive) derive(ctx context.Context, p *producer, entry int64, leaf *[32]byte, n int64) (paper.Evidence, error) {
	st, err := a.sealTree(ctx, n)
	if err != nil {
		return paper.Evidence{}, err
	}
	e := paper.Evidence{Seal: paper.Sealed}
	if leaf == nil {
		r, ok := st.seal.Range(p.Code)
		if !ok {
			return paper.Evidence{}, errors.New("the seal does not cover this ledger")
		}
		leaf = &r.Checkpoint
		if e.Proof, err = a.proofIn(ctx, p, entry, r.LastCommit); err != nil {
			return paper.Evidence{}, err
		}
	}
	record, err := st.tree.Derive(*leaf, st.seal.Token)
	if err != nil {
		return paper.Evidence{}, err
	}
	if err := st.holds(record, *leaf); err != nil {
		return paper.Evidence{}, err
	}
	e.Record, e.Root, e.Time = base64.StdEncoding.EncodeToString(record), hex.EncodeToString(st.seal.Root[:]), stamp(st.time)
	return e, nil
}

// proofIn is the proof of an entry in the checkpoint of a commit; empty when that is the entry's own, whose proof
// the receipt has.
func (a *Archive) proofIn(ctx context.Context, p *producer, entry, commit int64) (string, error) {
	log, why := p.state()
	if log == nil {
		return "", why
	}
	if own, err := log.CommitOf(entry); err == nil && own == commit {
		return "", nil
	}
	text, err := log.ProofIn(ctx, entry, commit)
	return string(text), err
}

// sealTree is a seal with its tree, whose token was checked.
type sealTree struct {
	seal *seal.Seal
	tree *evidence.Tree
	time time.Time // of the token
}

// newSealTree checks the token: once for all the records that are derived from it.
func (a *Archive) newSealTree(s *seal.Seal, tree *evidence.Tree) (*sealTree, error) {
	token, err := a.cfg.Trust.Certificates.CheckToken(s.Token, s.Root)
	if err != nil {
		return nil, err
	}
	return &sealTree{s, tree, token.Time}, nil
}

// holds checks a record derived from the seal as a stranger would, but for the token, which must be the seal's.
func (st *sealTree) holds(record []byte, leaf [32]byte) error {
	r, err := evidence.Parse(record)
	if err != nil {
		return err
	}
	_, err = r.Verify(leaf, func(token, imprint []byte, _ asn1.ObjectIdentifier) (time.Time, error) {
		if !bytes.Equal(token, st.seal.Token) || !bytes.Equal(imprint, st.seal.Root[:]) {
			return time.Time{}, errors.New("the record has another token than its seal")
		}
		return st.time, nil
	})
	return errors.Join(err, r.Minimal(leaf))
}

// treeCache keeps the trees of recent seals, since the receipts of one seal are asked for together. A tree is made
// once, however many ask for it.
type treeCache struct {
	making, reading singleflight.Group

	mu     sync.Mutex
	trees  map[int64]*sealTree
	order  []int64 // oldest first
	leaves int64   // of all of them
}

// What treeCache keeps at most; a leaf takes 64 bytes of a tree. The newest tree is kept whatever its size.
const (
	cachedTrees  = 32
	cachedLeaves = 1 << 20
)

func (c *treeCache) get(n int64) *sealTree {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trees[n]
}

func (c *treeCache) keep(n int64, st *sealTree) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trees == nil {
		c.trees = map[int64]*sealTree{}
	}
	if c.trees[n] != nil {
		return
	}
	c.trees[n] = st
	c.order = append(c.order, n)
	c.leaves += st.seal.Leaves
	for len(c.order) > 1 && (len(c.order) > cachedTrees || c.leaves > cachedLeaves) {
		c.leaves -= c.trees[c.order[0]].seal.Leaves
		delete(c.trees, c.order[0])
		c.order = c.order[1:]
	}
}

// sealTree gives seal n with its tree.
func (a *Archive) sealTree(ctx context.Context, n int64) (*sealTree, error) {
	if st := a.trees.get(n); st != nil {
		return st, nil
	}
	made, err := once(ctx, &a.trees.making, strconv.FormatInt(n, 10), func(ctx context.Context) (any, error) {
		if st := a.trees.get(n); st != nil { // made by one that ended between the look above and this turn
			return st, nil
		}
		st, err := a.makeTree(ctx, n)
		if err == nil {
			a.trees.keep(n, st)
		}
		return st, err
	})
	if err != nil {
		return nil, err
	}
	st, _ := made.(*sealTree)
	return st, nil
}

// makeTree makes the tree of seal n from the leaves kept on this machine, else from the commits it covers. Where the
// newest version of its object gives none, the one that this machine has noted does.
func (a *Archive) makeTree(ctx context.Context, n int64) (*sealTree, error) {
	s, object, err := seal.Read(ctx, a.cfg.Store, n, nil)
	if err == nil {
		var st *sealTree
		if st, err = a.treeOf(ctx, s); err == nil {
			return st, nil
		}
	}
	sum, noted := a.seals.Noted(n)
	if !noted || sha256.Sum256(object) == sum || ctx.Err() != nil {
		return nil, err
	}
	s, _, other := seal.Read(ctx, a.cfg.Store, n, func(_ *seal.Seal, object []byte) error {
		if sha256.Sum256(object) != sum {
			return errors.New("not the seal that this machine has noted")
		}
		return nil
	})
	if other != nil {
		return nil, err
	}
	return a.treeOf(ctx, s)
}

// treeOf is the tree of a seal whose token is good.
func (a *Archive) treeOf(ctx context.Context, s *seal.Seal) (*sealTree, error) {
	if tree := a.seals.Kept(s); tree != nil {
		return a.newSealTree(s, tree)
	}
	leaves, err := s.Digests(ctx, a.commits)
	if err != nil {
		return nil, err
	}
	tree, err := s.Over(leaves)
	if err != nil {
		return nil, err
	}
	a.keepLeaves(s.Number, leaves)
	return a.newSealTree(s, tree)
}

// evidenceRecord decodes the record of a sealed receipt.
func evidenceRecord(r *paper.Receipt) ([]byte, error) {
	der, err := base64.StdEncoding.DecodeString(r.Evidence.Record)
	if err != nil {
		return nil, fail(Internal, "evidence", r.Body.Package, err)
	}
	return der, nil
}
