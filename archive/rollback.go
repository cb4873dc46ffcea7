package archive

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"

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

// checkMark holds the end of the bucket against what this machine acknowledged before the audit began. The walk of a
// part ends where the part does: then the commit of the mark is read by itself. That the ledger runs proves nothing of
// the bucket: it was held against the mark when it was opened, and answers from its local index since.
func (w *audit) checkMark(ctx context.Context) {
	if !w.marked {
		w.rollback = notHeld
		return
	}
	if w.head.Number >= w.mark.Number {
		return
	}
	if w.part {
		w.readMark(ctx)
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

// hold has a ledger stop writing over a bucket that was set back under it, and go on where it was stopped so and the bucket
// has its end again, which follow looks for too. It comes before the report, which says whether the producer stands still.
func (w *audit) hold(ctx context.Context) {
	if log := w.p.ledger(); log != nil && w.marked && (w.rollback == rolledBack || log.Suspended()) {
		w.a.hold(ctx, w.p, log)
	}
}

// hold holds the bucket against the mark of a ledger, and says what changed by it.
func (a *Archive) hold(ctx context.Context, p *producer, log *ledger.Log) {
	before := log.Suspended()
	err := log.Hold(ctx)
	switch after := log.Suspended(); {
	case !before && after:
		a.cfg.Log.Error("producer stands still", slog.String("producer", p.Code), slog.Any("err", err))
	case before && !after:
		a.cfg.Log.Info("producer goes on", slog.String("producer", p.Code))
	case err != nil && !after:
		a.cfg.Log.Warn("end of the ledger not held against the bucket", slog.String("producer", p.Code), slog.Any("err", err))
	}
}

// readMark reads the commit of the mark, for a part that ends before it.
func (w *audit) readMark(ctx context.Context) {
	key := ledger.Key(w.p.Code, w.mark.Number)
	kind, err := w.stands(ctx, w.mark.Number, w.mark.Commit)
	switch {
	case err != nil:
		w.rollback = notHeld
		w.unchecked(fmt.Sprintf("se il bucket arriva al commit %d, l'ultimo che questa macchina ha confermato: %v", w.mark.Number, err))
		return
	case kind == "":
		w.met = w.mark.Number
		return
	case kind == commitHurt:
		w.rollback = notHeld // there is something, and it does not say of which history
	default:
		w.rollback = rolledBack
	}
	if !slices.ContainsFunc(w.list, func(f paper.ReportFinding) bool { return f.Object == key && f.Gravity == paper.Damage }) { // by the walk
		w.damage(key, kind, "", commitFlaw(kind))
	}
	if kind == commitGone {
		w.damage(w.p.Code+"/ledger", "rollback", "", fmt.Sprintf("questa macchina ha confermato il commit %d, e nel bucket non c'è", w.mark.Number))
	}
}

// What stands finds in the place of a commit that was acknowledged: kinds of findings.
const (
	commitGone  = "missing"
	commitHurt  = "ledger" // something is there, and is no commit
	commitOther = "fork"
)

// commitFlaw is what a finding says of it.
func commitFlaw(kind string) string {
	switch kind {
	case commitGone:
		return "commit confermato che non c'è più"
	case commitHurt:
		return "al posto del commit confermato c'è altro"
	default:
		return "non è il commit che questa macchina ha confermato"
	}
}

// stands reads commit n from the bucket, never from what the ledger has at hand, and says what is found in the place of
// the one with this digest; "" when it is there. An error says that it cannot be told. What lies over it is noted.
func (w *audit) stands(ctx context.Context, n int64, digest [32]byte) (kind string, err error) {
	s, key, sum := w.a.cfg.Store, ledger.Key(w.p.Code, n), hex.EncodeToString(digest[:])
	for range 2 {
		var got contents
		got, err = readDigest(ctx, s, key, "", nil)
		if err == nil && got.is(-1, sum) {
			return "", nil
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			continue
		}
		var v version
		if v, err = matching(ctx, s, key, -1, sum, nil); err == nil {
			w.strays(key, v.id, v.all)
			return "", nil
		}
		if !errors.Is(err, storage.ErrNotFound) {
			continue
		}
		// None of its versions is it.
		switch _, err = ledger.Read(ctx, s, w.p.Code, n, w.a.cfg.Trust.Ledgers); {
		case err == nil:
			return commitOther, nil
		case errors.Is(err, storage.ErrNotFound):
			return commitGone, nil
		case errors.Is(err, ledger.ErrCommit):
			return commitHurt, nil
		}
	}
	return "", err
}

// checkAgainst holds the ledger against papers from outside: each must be in it.
func (w *audit) checkAgainst(ctx context.Context) {
	for i, c := range w.scope.Against {
		is, kind, err := w.against[i], "", error(nil)
		if !is {
			is, err = w.extends(ctx, c)
		}
		if is && err == nil && w.part && !w.against[i] {
			kind, err = w.reaches(ctx, c)
		}
		switch {
		case err != nil:
			w.unchecked(fmt.Sprintf("il documento %s dato a confronto: %v", c.Entry.ID, err))
		case kind == commitHurt:
			w.damage(w.p.Code+"/ledger", kind, c.Entry.ID, commitFlaw(kind))
		case kind != "":
			w.rollback = rolledBack
			w.damage(w.p.Code+"/ledger", "rollback", c.Entry.ID, fmt.Sprintf("il documento dato prova un giornale di %d righe, e nel bucket il suo commit non c'è", c.Size))
		case is && w.rollback == notHeld && !w.marked:
			w.rollback = notRolledBack
		case !is:
			w.rollback = rolledBack
			w.damage(w.p.Code+"/ledger", "rollback", c.Entry.ID, fmt.Sprintf("il documento dato prova un giornale di %d righe con un'altra radice: questo ne ha %d", c.Size, w.size()))
		}
	}
}

// reaches reads the commit of a paper that the ledger extends, where this audit has met neither it nor one behind it:
// of the bucket extends says nothing.
func (w *audit) reaches(ctx context.Context, c paper.Checked) (kind string, err error) {
	n, err := w.p.ledger().CommitOf(c.Size - 1)
	if err != nil || n <= max(w.met, w.head.Number) {
		return "", err
	}
	digest, err := w.p.ledger().Digest(ctx, n)
	if err != nil {
		return "", err
	}
	if kind, err = w.stands(ctx, n, digest); kind == "" && err == nil {
		w.met = n
	}
	return kind, err
}

// size is the number of entries the ledger is known to have by now.
func (w *audit) size() int64 {
	if w.p.ledger() == nil {
		return w.head.Size
	}
	return max(w.head.Size, w.p.ledger().Head().Size)
}

// extends reports whether the ledger, when it had as many entries as a paper says, had the root it says. A walk
// meets only what lies in its range, and papers are younger than its end: the ledger proves the others, from its local
// index (see reaches). An error says that it cannot be told.
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
