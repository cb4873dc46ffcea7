package archive

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
)

// What a report says of a rollback: an end that is good needs notRolledBack.
const (
	notRolledBack = "none"
	rolledBack    = "found"
	notHeld       = "not checked"
)

// meet holds a commit against the mark of this machine and against the papers given.
func (w *audit) meet(c *ledger.Commit) {
	if w.marked && c.Number == w.mark.Number && c.SHA256 != w.mark.Commit {
		w.rollback = rolledBack
		w.damage(ledger.Key(w.p.Code, c.Number), "fork", "", "non è il commit che questa macchina ha confermato")
	}
	for i, ch := range w.scope.Against {
		if c.Size == ch.Size {
			w.against[i] = [32]byte(c.Root) == ch.Root
		}
	}
}

// checkMark holds the end of the bucket against what this machine acknowledged before the audit began. The ledger
// of a range runs, hence was held against its mark when it was opened.
func (w *audit) checkMark(ctx context.Context) {
	if !w.marked {
		w.rollback = notHeld
		return
	}
	if w.scope.End > 0 || w.head.Number >= w.mark.Number {
		return
	}
	// When the commits behind the last sound one are all there, but damaged, nothing was rolled back.
	const most = 1000
	missing := w.mark.Number - w.head.Number
	for n := w.head.Number + 1; n <= min(w.mark.Number, w.head.Number+most); n++ {
		key := ledger.Key(w.p.Code, n)
		if _, err := w.a.cfg.Store.Stat(ctx, key); w.lost[key] && !errors.Is(err, storage.ErrNotFound) {
			missing--
		} else if !w.lost[key] {
			w.lost[key] = true
			w.damage(key, "missing", "", "commit confermato che non c'è più")
		}
	}
	if missing > 0 {
		w.rollback = rolledBack
		w.damage(w.p.Code+"/ledger", "rollback", "", fmt.Sprintf("questa macchina ha confermato il commit %d, il bucket finisce al %d", w.mark.Number, w.head.Number))
	}
}

// checkAgainst holds the ledger against papers from outside: each must be in it.
func (w *audit) checkAgainst(ctx context.Context) {
	for i, c := range w.scope.Against {
		is, err := w.against[i], error(nil)
		if !is {
			is, err = w.extends(ctx, c)
		}
		switch {
		case err != nil:
			w.unchecked(fmt.Sprintf("il documento %s dato a confronto: %v", c.Entry.ID, err))
		case is && w.rollback == notHeld:
			w.rollback = notRolledBack
		case !is:
			w.rollback = rolledBack
			w.damage(w.p.Code+"/ledger", "rollback", c.Entry.ID, fmt.Sprintf("il documento dato prova un giornale di %d righe con un'altra radice: questo ne ha %d", c.Size, w.size()))
		}
	}
}

// size is the number of entries the ledger is known to have by now.
func (w *audit) size() int64 {
	if w.p.ledger() == nil {
		return w.head.Size
	}
	return max(w.head.Size, w.p.ledger().Head().Size)
}

// extends reports whether the ledger, when it had as many entries as a paper says, had the root it says. A walk
// meets only what lies in its range, and papers are younger than its end: the ledger proves the others. An
// error says that it cannot be told.
func (w *audit) extends(ctx context.Context, c paper.Checked) (bool, error) {
	if c.Size > w.size() && w.p.ledger() != nil {
		if err := w.p.ledger().Refresh(ctx); err != nil {
			return false, err
		}
	}
	if c.Size > w.size() {
		return false, nil
	}
	if w.p.ledger() == nil {
		if len(w.lost) == 0 {
			return false, nil // every commit was met, and none of this size has this root
		}
		return false, errors.New("il giornale non si legge per intero")
	}
	head := w.p.ledger().Head()
	proof, err := w.p.ledger().Consistency(ctx, c.Size, head.Size)
	if err != nil {
		return false, err
	}
	return tlog.CheckTree(proof, head.Size, head.Root, c.Size, tlog.Hash(c.Root)) == nil, nil
}
