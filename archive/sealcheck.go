package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/marchesud/perenne/archive/ledger"
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
	// Seals are made meanwhile: those are looked at too, a few times. Who makes them faster than they can be checked
	// here is not run after for ever.
	const chase = 4
	at := sealPlace{chained: true, joined: true}
	for round, before := 1, int64(-1); ; round++ {
		if err := w.followSeals(ctx, &at, last); err != nil {
			return err
		}
		more, err := w.listSeals(ctx, at.next, at.next > before && round < chase)
		if err != nil {
			return err
		}
		if !more {
			w.seals.Unsealed = max(0, w.head.Size-at.end)
			return nil
		}
		before, last = at.next, max(last, w.a.seals.Head().Number)
	}
}

// followSeals checks seals until there is none and none is known to have been; of those behind the last that is known,
// one.
func (w *audit) followSeals(ctx context.Context, at *sealPlace, last int64) error {
	for beyond := max(last+1, at.next); at.next <= beyond; at.next++ {
		key := seal.Key(at.next)
		s, object, err := w.readSeal(ctx, at)
		if err != nil && (object != nil || errors.Is(err, storage.ErrNotFound)) {
			s, object, err = w.behindVoids(ctx, at, object, err)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				at.next = s.Number
				key = seal.Key(at.next)
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, storage.ErrNotFound) && at.next > last:
			return nil
		case errors.Is(err, storage.ErrNotFound):
			w.damage(key, "missing", "", "sigillo confermato che non c'è più")
			at.broken()
			continue
		case err != nil && object == nil:
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
			continue
		}
		w.checkSealLock(s.Number)
	}
	return nil
}

// readSeal reads a seal, once more where the store fails: of several versions the one that belongs here.
func (w *audit) readSeal(ctx context.Context, at *sealPlace) (s *seal.Seal, object []byte, err error) {
	fits := func(s *seal.Seal, object []byte) error { return w.belongs(s, object, at) }
	for range 2 {
		s, object, err = seal.Read(ctx, w.locks, at.next, fits)
		if err == nil || errors.Is(err, storage.ErrNotFound) || object != nil {
			break
		}
	}
	return s, object, err
}

// behindVoids reads the seal that calls the number void at which the chain stands, and names what lies there; else it
// returns what was found there. A void number whose object is gone, or is another now, is damage.
func (w *audit) behindVoids(ctx context.Context, at *sealPlace, there []byte, why error) (*seal.Seal, []byte, error) {
	fits := func(s *seal.Seal, object []byte) error { return w.belongs(s, object, at) }
	s, object, err := seal.Behind(ctx, w.locks, at.next, fits, func(s *seal.Seal) bool { return w.credible(ctx, s) })
	if err != nil {
		return nil, there, why
	}
	for _, v := range s.Voids {
		key := seal.Key(v.Number)
		found, err := matching(ctx, w.a.cfg.Store, key, -1, hex.EncodeToString(v.SHA256[:]), nil)
		if err != nil {
			found.id = ""
		}
		w.voids[key] = found.id
		switch {
		case err == nil:
			w.notice(key, "void", "oggetto estraneo al posto di un sigillo, che il sigillo "+seal.Key(s.Number)+" dichiara nullo")
		case errors.Is(err, storage.ErrNotFound):
			w.damage(key, "void", "", "numero dichiarato nullo: quanto vi stava non c'è più, o è stato sostituito")
		default:
			w.unchecked(key + ": " + err.Error())
		}
		if err := w.rivals(ctx, v, s); err != nil {
			return nil, nil, err
		}
	}
	return s, object, nil
}

// rivals names the seals that there are, or were, under a number that the seal s calls void: what was given in evidence
// from one of them is not in the chain. The ledger and this machine know of such seals; those in the bucket, in whatever
// version, are known by their token. What s names by digest was judged when it was called void: it counts where its leaves
// are those of the ledgers, any other also where it follows what s follows.
func (w *audit) rivals(ctx context.Context, void seal.Void, s *seal.Seal) error {
	key, text := seal.Key(void.Number), "il sigillo "+seal.Key(s.Number)+" dichiara nullo il numero"
	if _, named := w.sealed[void.Number]; named {
		w.damage(key, "fork", "", text+", di cui il giornale nomina un sigillo")
	}
	if _, noted := w.a.seals.Noted(void.Number); noted && !w.a.seals.Void(void.Number) {
		w.damage(key, "fork", "", text+", di cui questa macchina ha fatto o letto un sigillo")
	}
	for v, err := range storage.Versions(ctx, w.a.cfg.Store, key) {
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			w.unchecked(key + ": " + err.Error())
			return ctx.Err()
		}
		object, err := readSmall(ctx, w.a.cfg.Store, key, v.ID, maxSeal)
		if unread(err) {
			w.unchecked(key + ": " + err.Error())
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		rival, parseErr := seal.Parse(object)
		if err != nil || parseErr != nil || rival.Number != void.Number {
			continue
		}
		if _, err := w.a.cfg.Trust.Certificates.CheckToken(rival.Token, rival.Root); err != nil {
			continue
		}
		over, err := w.over(ctx, rival)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case over, sha256.Sum256(object) != void.SHA256 && rival.Previous == s.Previous:
			w.damage(key, "fork", "", fmt.Sprintf("%s, sotto cui sta un sigillo (versione %s)", text, v.ID))
		case err != nil:
			w.unchecked(fmt.Sprintf("%s: se la versione %s sia un sigillo: un commit che copre non si legge", key, v.ID))
		}
	}
	return nil
}

// credible reports whether somebody may rest on a seal: its token is good, and its leaves are those of the ledgers as far as
// these can be read.
func (w *audit) credible(ctx context.Context, s *seal.Seal) bool {
	if _, err := w.a.cfg.Trust.Certificates.CheckToken(s.Token, s.Root); err != nil {
		return false
	}
	over, err := w.over(ctx, s)
	return over || err != nil
}

// over reports whether the root of a seal is that of the leaves that the ledgers give it. An error says that it is not known.
func (w *audit) over(ctx context.Context, s *seal.Seal) (bool, error) {
	if w.a.seals.Kept(s) != nil {
		return true, nil
	}
	leaves, err := s.Digests(ctx, w.a.commits)
	if errors.Is(err, seal.ErrUnread) {
		return false, err
	}
	if err == nil {
		_, err = s.Over(leaves)
	}
	return err == nil, nil
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

// belongs holds a seal against the seal before it, what the ledger says of it, and its token.
func (w *audit) belongs(s *seal.Seal, object []byte, at *sealPlace) error {
	sum := sha256.Sum256(object)
	if at.chained && (s.Previous != at.previous || s.PreviousToken != at.token) {
		return errors.New("non è concatenato al sigillo precedente")
	}
	// A token may be changed and still verify, where nobody signed: which bytes are meant is known here, or in the ledger.
	named, ok := w.sealed[s.Number]
	if ok && !named.fits(s, sum) {
		return errors.New("non è il sigillo che il giornale nomina")
	}
	if noted, known := w.a.seals.Noted(s.Number); !ok && known && noted != sum {
		return errors.New("non è il sigillo che questa macchina ha fatto o letto")
	}
	if r, ranged := s.Range(w.p.Code); ranged && at.joined && r.First != at.end {
		return fmt.Errorf("il sigillo riprende dalla riga %d invece che dalla %d", r.First, at.end)
	}
	_, err := w.a.cfg.Trust.Certificates.CheckToken(s.Token, s.Root)
	return err
}

// checkSeal holds a seal that belongs here against the ledgers, and moves on.
func (w *audit) checkSeal(ctx context.Context, s *seal.Seal, object []byte, at *sealPlace) error {
	if err := w.checkLeaves(ctx, s); err != nil {
		return err
	}
	at.previous, at.token, at.chained = sha256.Sum256(object), sha256.Sum256(s.Token), true
	if r, ranged := s.Range(w.p.Code); ranged {
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

// errYoung ends a listing of the seals: one was made meanwhile.
var errYoung = errors.New("a seal was made meanwhile")

// listSeals finds what is no seal under evidence/, and what lies beside the seals. more says that seal next was made
// meanwhile and is to be followed; where that was tried already (young false), it is foreign too.
func (w *audit) listSeals(ctx context.Context, next int64, young bool) (more bool, err error) {
	var foreign []string
	var later []int64 // in the form of a seal's key, behind those that were checked
	var besides [][]storage.Version
	err = groups(ctx, w.a.cfg.Store, "evidence/", func(group []storage.Version) error {
		key := group[0].Key
		n, err := strconv.ParseInt(strings.Replace(strings.TrimPrefix(key, "evidence/"), "/", "", 1), 10, 64)
		switch is := err == nil && seal.Key(n) == key; {
		case is && n == next && young && !group[0].Marker:
			return errYoung
		case is && n >= next && !group[0].Marker:
			later = append(later, n)
		case !is && !group[0].Marker && len(foreign) <= maxFindings:
			foreign = append(foreign, key)
		}
		if several(group) && len(besides) <= maxFindings {
			besides = append(besides, slices.Clone(group))
		}
		return nil
	})
	if errors.Is(err, errYoung) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if len(later) > 0 { // what was made meanwhile is believed, after a check of its own, by who makes the next one
		if err := w.a.refreshSeals(ctx); err != nil && ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	for _, n := range later {
		if n > w.a.seals.Head().Number && len(foreign) <= maxFindings {
			foreign = append(foreign, seal.Key(n))
		}
	}
	for _, key := range foreign {
		w.damage(key, "foreign", "", "nessun sigillo ha questa chiave")
	}
	for _, group := range besides {
		if _, void := w.voids[group[0].Key]; void {
			w.nameOverVoid(group)
			continue
		}
		if err := w.nameBesideSeal(ctx, group); err != nil {
			return false, err
		}
	}
	return false, nil
}

// nameBesideSeal names what lies beside a seal: of its versions the one that this machine has noted, or that the
// ledger names, is meant. Two that were both made as this seal are a fork. A version that the store does not give
// leaves that open, unless it lies behind the one that is meant and a repair put that there.
func (w *audit) nameBesideSeal(ctx context.Context, group []storage.Version) error {
	key, id, intact := group[0].Key, "", false
	var previous, meant [32]byte
	_, repaired := w.repaired[short(key)]
	for _, v := range group {
		if v.Marker {
			continue
		}
		text, err := readSmall(ctx, w.a.cfg.Store, key, v.ID, maxSeal)
		if unread(err) {
			if !intact || !repaired {
				w.unchecked(key + ": " + err.Error())
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		s, parseErr := seal.Parse(text)
		if err != nil || parseErr != nil || seal.Key(s.Number) != key {
			continue
		}
		if _, err := w.a.cfg.Trust.Certificates.CheckToken(s.Token, s.Root); err != nil {
			continue
		}
		sum := sha256.Sum256(text)
		if intact && sum == meant {
			continue
		}
		if intact && s.Previous == previous {
			w.damage(key, "fork", "", fmt.Sprintf("due sigilli diversi con lo stesso numero (versioni %s e %s)", id, v.ID))
		}
		noted, known := w.a.seals.Noted(s.Number)
		if named, ok := w.sealed[s.Number]; !intact || known && sum == noted || ok && named.fits(s, sum) {
			id, intact, previous, meant = v.ID, true, s.Previous, sum
		}
	}
	w.nameStrays(group, id, intact)
	return nil
}

// maxSeal bounds a seal object.
const maxSeal = 4 << 20
