package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage"
)

// namedSeal is what an entry of the ledger says of a seal.
type namedSeal struct{ sha256, root, token string }

// noteSeal keeps what an entry says of a seal; two entries that differ cannot both be true.
func (w *audit) noteSeal(c *ledger.Commit, e ledger.Entry) {
	is := namedSeal{strings.Clone(e.SHA256), strings.Clone(e.Root), strings.Clone(e.Token)}
	if other, twice := w.sealed[*e.Seal]; twice && other != is {
		w.damage(ledger.Key(w.p.Code, c.Number), "contradiction", "", "una riga dice del sigillo "+seal.Key(*e.Seal)+" altro da una riga precedente")
		return
	}
	w.sealed[*e.Seal] = is
}

// fits reports whether a seal is the one that the entry names.
func (n namedSeal) fits(s *seal.Seal, sum [32]byte) bool {
	token := sha256.Sum256(s.Token)
	return n.sha256 == hex.EncodeToString(sum[:]) && n.root == hex.EncodeToString(s.Root[:]) && n.token == hex.EncodeToString(token[:])
}

// checkSeals walks the chain of seals: form, chain, leaves, token; then what this ledger and this machine know
// of seals that the bucket does not have, and what lies among them unasked.
func (w *audit) checkSeals(ctx context.Context) error {
	if why := w.a.seals.Doubted(); why != "" {
		w.unchecked("se manchino sigilli alla fine della catena: " + why)
	}
	last := w.a.seals.Head().Number
	for n := range w.sealed {
		last = max(last, n)
	}
	at := sealPlace{chained: true, joined: true}
	for before := int64(-1); ; {
		if err := w.followSeals(ctx, &at, last); err != nil {
			return err
		}
		more, err := w.listSeals(ctx, at.next, at.next > before)
		if err != nil {
			return err
		}
		if !more {
			w.seals.Unsealed = max(0, w.head.Size-at.end)
			return nil
		}
		before = at.next
	}
}

// followSeals checks seals until there is none and none is known to have been.
func (w *audit) followSeals(ctx context.Context, at *sealPlace, last int64) error {
	for ; ; at.next++ {
		key := seal.Key(at.next)
		s, object, err := w.readSeal(ctx, at.next)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, storage.ErrNotFound) && at.next > last:
			return nil
		case errors.Is(err, storage.ErrNotFound):
			w.damage(key, "missing", "", "sigillo confermato che non c'è più")
			at.broken()
			continue
		case err != nil && !errors.Is(err, seal.ErrForm):
			w.unchecked(key + ": " + err.Error())
			at.broken()
			if at.next > last {
				at.next = math.MaxInt64 // whatever there is: how many there should be is not known
				return nil
			}
			continue
		case err == nil:
			err = w.checkSeal(ctx, s, object, at)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.seals.Checked++
		if err != nil {
			w.damage(key, "changed", "", err.Error())
			at.broken()
		}
	}
}

// readSeal reads a seal, once more where the store fails.
func (w *audit) readSeal(ctx context.Context, n int64) (s *seal.Seal, object []byte, err error) {
	for range 2 {
		s, object, err = seal.Read(ctx, w.a.cfg.Store, n)
		if err == nil || errors.Is(err, storage.ErrNotFound) || errors.Is(err, seal.ErrForm) {
			break
		}
	}
	return s, object, err
}

// sealPlace is how far the chain of seals was followed: what the next one must name and where it must go on.
// Behind a damaged seal neither is known, and the next one is not accused of it.
type sealPlace struct {
	next            int64 // number of the next one
	previous, token [32]byte
	chained         bool // previous and token are known
	end             int64
	joined          bool // end is known
}

func (p *sealPlace) broken() { p.chained, p.joined = false, false }

// checkSeal holds one seal against the seal before it, its token and the ledgers, and moves on.
func (w *audit) checkSeal(ctx context.Context, s *seal.Seal, object []byte, at *sealPlace) error {
	sum := sha256.Sum256(object)
	if at.chained && (s.Previous != at.previous || s.PreviousToken != at.token) {
		return errors.New("non è concatenato al sigillo precedente")
	}
	if named, ok := w.sealed[s.Number]; ok && !named.fits(s, sum) {
		return errors.New("non è il sigillo che il giornale nomina")
	}
	r, ranged := s.Range(w.p.Code)
	if ranged && at.joined && r.First != at.end {
		return fmt.Errorf("il sigillo riprende dalla riga %d invece che dalla %d", r.First, at.end)
	}
	if _, err := w.a.cfg.Trust.Certificates.CheckToken(s.Token, s.Root); err != nil {
		return err
	}
	if err := w.checkLeaves(ctx, s); err != nil {
		return err
	}
	at.previous, at.token, at.chained = sum, sha256.Sum256(s.Token), true
	if ranged {
		at.end, at.joined = r.End, true
	}
	return nil
}

// checkLeaves recomputes the root from the commits. A commit that cannot be read is damage of its own, then the
// root is left unchecked. A seal covers several bodies, and a report speaks to one: of the others it says
// neither the name nor what they keep.
func (w *audit) checkLeaves(ctx context.Context, s *seal.Seal) error {
	var number int64
	var own, others error // the first that each could not read
	leaves, err := s.Digests(ctx, func(ctx context.Context, producer string, n int64) (*ledger.Commit, error) {
		c, err := w.a.commits(ctx, producer, n)
		switch {
		case err == nil:
		case producer == w.p.Code && own == nil:
			number, own = n, err
		case producer != w.p.Code && others == nil:
			others = err
		}
		return c, err
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case own != nil:
		return w.commitUnread(s, number, own)
	case others != nil:
		return w.checkKept(ctx, s)
	case err != nil:
		return errNotCovered
	}
	if _, err := s.Over(leaves); err != nil {
		return errors.New("la radice non è quella delle sue foglie")
	}
	return nil
}

var errNotCovered = errors.New("le righe che dice di coprire non sono quelle dei giornali")

// checkKept holds a seal that covers a ledger of another body which cannot be read against the leaves that this
// machine kept of it: they give its root, and those of this ledger must be among them.
func (w *audit) checkKept(ctx context.Context, s *seal.Seal) error {
	tree := w.a.seals.Kept(s)
	if tree == nil {
		w.unchecked("la radice di " + seal.Key(s.Number) + ": il giornale di un altro ente non si legge per intero")
		return nil
	}
	r, ok := s.Range(w.p.Code)
	if !ok {
		return nil
	}
	got, leaves, err := seal.Collect(ctx, w.p.Code, r.First, r.FirstCommit, r.LastCommit, w.a.commits)
	switch {
	case errors.Is(err, seal.ErrUnread):
		return w.commitUnread(s, got.LastCommit+1, err)
	case err != nil || got != r:
		return errNotCovered
	}
	for _, leaf := range leaves {
		if _, err := tree.Derive(leaf, s.Token); err != nil {
			return errNotCovered
		}
	}
	return nil
}

// commitUnread says what it means that commit n of this ledger, which a seal covers, cannot be read.
func (w *audit) commitUnread(s *seal.Seal, n int64, err error) error {
	if n > w.newestKnown() {
		if errors.Is(err, ledger.ErrRange) || commitDamaged(err) {
			return fmt.Errorf("copre il commit %d, che il giornale non ha", n)
		}
		w.unchecked("la radice di " + seal.Key(s.Number) + ": " + err.Error())
		return nil
	}
	key := ledger.Key(w.p.Code, n)
	if commitDamaged(err) && !w.lost[key] {
		w.lost[key] = true
		w.damage(key, "ledger", "", err.Error())
	}
	w.unchecked("la radice di " + seal.Key(s.Number) + ": manca il commit " + key)
	return nil
}

// commitDamaged tells a commit that is not there, or not what it should be, from a store that does not answer.
func commitDamaged(err error) bool {
	var d *ledger.Damage
	return errors.As(err, &d) || errors.Is(err, ledger.ErrCommit) || errors.Is(err, storage.ErrNotFound)
}

// newestKnown is the number of the last commit of the ledger that this machine knows to have existed.
func (w *audit) newestKnown() int64 {
	if mark, ok := w.a.heads.Get(w.p.Code); ok {
		return max(w.newest(), mark.Number)
	}
	return w.newest()
}

// listSeals finds what is no seal under evidence/. more says that seal next was made meanwhile and is to be
// followed; where that was tried already (young false), it is foreign too.
func (w *audit) listSeals(ctx context.Context, next int64, young bool) (more bool, err error) {
	before := ""
	var found []paper.ReportFinding
	for v, err := range w.a.cfg.Store.List(ctx, "evidence/", "") {
		if err != nil {
			return false, fmt.Errorf("list evidence/: %w", err)
		}
		f := paper.ReportFinding{Object: v.Key}
		n, err := strconv.ParseInt(strings.Replace(strings.TrimPrefix(v.Key, "evidence/"), "/", "", 1), 10, 64)
		switch {
		case v.Marker:
			f.Kind, f.Text = "delete marker", textMarker
		case v.Key == before:
			f.Kind, f.Text = "versions", textVersions
		case err == nil && seal.Key(n) == v.Key && n == next && young:
			return true, nil
		case err != nil || seal.Key(n) != v.Key || n >= next:
			f.Kind, f.Text = "foreign", "nessun sigillo ha questa chiave"
		}
		before = v.Key
		if f.Kind != "" && len(found) <= maxFindings {
			found = append(found, f)
		}
	}
	for _, f := range found {
		w.damage(f.Object, f.Kind, "", f.Text)
	}
	return false, nil
}
