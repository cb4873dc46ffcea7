package archive

import (
	"context"
	"errors"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
)

const (
	textMarker   = "qualcuno ha chiesto di cancellare l'oggetto"
	textVersions = "più versioni sotto una sola chiave"
)

// checkBucket looks at everything that lies under the producer's keys and is not named by the ledger.
func (w *audit) checkBucket(ctx context.Context) error {
	prefix := w.p.Code + "/"
	err := groups(ctx, w.a.cfg.Store, prefix, func(group []storage.Version) error {
		if !group[0].Marker { // first: of a tile it says whether the key is one
			if err := w.judgeKey(ctx, strings.TrimPrefix(group[0].Key, prefix), group[0].Key); err != nil {
				return err
			}
		}
		if _, void := w.voids[group[0].Key]; void {
			w.nameOverVoid(group)
		} else if several(group) {
			id, intact := w.meant(group)
			w.nameStrays(group, id, intact)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.checkTilesThere(ctx)
}

// recordName is the form of what lies under records/: personal data, unlocked and erasable, so that nothing else
// about it can be held against anything.
var recordName = regexp.MustCompile(`^records/[0-9]{4}/[0-9a-f]{32}$`)

// judgeKey decides what an object in the bucket is.
func (w *audit) judgeKey(ctx context.Context, name, key string) error {
	if _, named := w.expected[short(key)]; named {
		return nil
	}
	if storage.ValidKey(key) != nil {
		w.foreign(key)
		return nil
	}
	room, _, _ := strings.Cut(name, "/")
	switch room {
	case "tiles":
		return w.checkTile(ctx, name, key)
	case "records":
		if !recordName.MatchString(name) {
			w.foreign(key)
		}
		return nil
	case "packages", "reports", "refusals", "ledger", "catalog":
	default:
		w.foreign(key)
		return nil
	}
	if w.isWalked(key) {
		return nil
	}
	// Before anybody is accused the ledger is read on: it may have been named since.
	named, err := w.namedLater(ctx, key)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case named:
		return nil
	case err != nil:
		w.unchecked(key + ", che il giornale non nominava: " + err.Error())
		return nil
	}
	switch room {
	case "packages":
		return w.judgePackage(ctx, key)
	case "reports":
		return w.judgeReport(ctx, key)
	case "refusals":
		return w.judgeRefusal(ctx, key)
	}
	w.foreign(key)
	return nil
}

func (w *audit) foreign(key string) {
	w.damage(key, "foreign", "", "nessun oggetto di Perenne ha questa chiave, e il giornale non la nomina")
}

// isWalked reports whether a key is that of a commit that was walked, sound or not, or of the search records of
// one that was found damaged.
func (w *audit) isWalked(key string) bool {
	if n := w.commitNumber(key, "/ledger/", ""); n >= 0 && ledger.Key(w.p.Code, n) == key {
		return n <= w.head.Number || w.lost[key]
	}
	n := w.commitNumber(key, "/catalog/", ".0")
	return n >= 0 && bundleKey(w.p.Code, n) == key && w.lost[ledger.Key(w.p.Code, n)]
}

// commitNumber reads the number out of <producer><room><16 digits>/<4 digits><suffix>; -1 for any other key.
func (w *audit) commitNumber(key, room, suffix string) int64 {
	digits, ok := strings.CutPrefix(key, w.p.Code+room)
	if !ok {
		return -1
	}
	digits = strings.Replace(strings.TrimSuffix(digits, suffix), "/", "", 1)
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// later is what the ledger named after the walk.
type later struct {
	keys map[[16]byte]struct{} // commits, their search records, the objects they name
	last int64                 // number of the last commit looked at
}

// namedLater reads the ledger on, as far as it goes by now, and reports whether it names the object. An error
// says that it could not be read.
func (w *audit) namedLater(ctx context.Context, key string) (bool, error) {
	if _, named := w.later.keys[short(key)]; named {
		return true, nil
	}
	if err := w.readOn(ctx); err != nil {
		return false, err
	}
	_, named := w.later.keys[short(key)]
	return named, nil
}

// readOn takes in the commits that there are since. One that is damaged ends it: it is beyond what this audit
// speaks of.
func (w *audit) readOn(ctx context.Context) error {
	var d *ledger.Damage
	if w.p.ledger() != nil {
		if err := w.p.ledger().Refresh(ctx); err != nil && !errors.As(err, &d) {
			return err
		}
	}
	for {
		n := w.later.last + 1
		if w.p.ledger() != nil && n > w.p.ledger().Head().Number {
			return nil
		}
		c, err := w.a.commits(ctx, w.p.Code, n)
		if commitDamaged(err) {
			return nil
		}
		if err != nil {
			return err
		}
		w.later.last = n
		w.later.keys[short(ledger.Key(w.p.Code, n))] = struct{}{}
		w.later.keys[short(bundleKey(w.p.Code, n))] = struct{}{}
		for _, e := range c.Entries {
			if namesObject(e) {
				w.later.keys[short(e.Object)] = struct{}{}
			}
		}
	}
}

// newest is the number of the last commit there is now, which may be beyond what was walked.
func (w *audit) newest() int64 {
	if w.p.ledger() != nil {
		return max(w.head.Number, w.p.ledger().Head().Number)
	}
	return w.head.Number
}

// judgePackage looks at a package that the ledger does not name: on its way, an orphan of a crash (valid under our
// own key), or foreign.
func (w *audit) judgePackage(ctx context.Context, key string) error {
	id, _, _ := strings.Cut(path.Base(key), ".")
	if !validID(id) || !w.isPackageKey(key, id) {
		w.foreign(key)
		return nil
	}
	o, err := w.watch(ctx, key)
	if err != nil {
		return w.unreadable(ctx, key, err)
	}
	got, err := paper.ReadPackage(ctx, o, o.size, w.a.cfg.Trust)
	if o.failed != nil || ctx.Err() != nil {
		return w.unreadable(ctx, key, o.failed)
	}
	if err != nil || got.Body.Producer.Code != w.p.Code || got.Body.Package != id {
		w.damage(key, "foreign", "", "oggetto estraneo al posto di un pacchetto")
		return nil
	}
	w.orphan(key, got.Body.Time, "pacchetto integro che il giornale non nomina: resto di un versamento interrotto")
	return nil
}

// isPackageKey reports whether a package may lie under key: beside an object that was no package of ours, it
// stands under one of the next two.
func (w *audit) isPackageKey(key, id string) bool {
	for attempt := 1; attempt <= 3; attempt++ {
		if key == packageKey(w.p.Code, id, attempt) {
			return true
		}
	}
	return false
}

// judgeReport does the same for a report.
func (w *audit) judgeReport(ctx context.Context, key string) error {
	id, _, _ := strings.Cut(path.Base(key), ".")
	o, err := w.watch(ctx, key)
	if err != nil {
		return w.unreadable(ctx, key, err)
	}
	rep, _, err := paper.ReadReport(ctx, o, o.size, w.a.cfg.Trust)
	if o.failed != nil || ctx.Err() != nil {
		return w.unreadable(ctx, key, o.failed)
	}
	if err != nil || !validID(id) || rep.Identifier != paper.ReportURN(w.a.cfg.Installation, w.p.Code, id) || key != reportKey(w.p.Code, rep.Ended[:4], id) {
		w.damage(key, "foreign", "", "oggetto estraneo al posto di un rapporto")
		return nil
	}
	w.orphan(key, rep.Ended, "rapporto integro che il giornale non nomina ancora")
	return nil
}

// judgeRefusal does the same for a refusal, which has no signature of its own: only the holder of the name key
// can make its identifier.
func (w *audit) judgeRefusal(ctx context.Context, key string) error {
	text, err := w.fetch(ctx, key, maxRefusal)
	if storeFailed(err) || errors.Is(err, storage.ErrNotFound) {
		return w.unreadable(ctx, key, err)
	}
	var b paper.Body
	id, _, _ := strings.Cut(path.Base(key), ".")
	if err != nil || canon.Unmarshal(text, &b) != nil || !w.isOwnRefusal(&b, id) || len(b.Time) < 4 || !w.isRefusalKey(key, b.Time[:4], id) {
		w.damage(key, "foreign", "", "oggetto estraneo al posto di un rifiuto")
		return nil
	}
	w.orphan(key, b.Time, "rifiuto che il giornale non nomina ancora: resto di un versamento interrotto")
	return nil
}

// isRefusalKey reports whether a refusal may lie under key.
func (w *audit) isRefusalKey(key, year, id string) bool {
	for attempt := 1; attempt <= refusalAttempts; attempt++ {
		if key == refusalKey(w.p.Code, year, id, attempt) {
			return true
		}
	}
	return false
}

// isOwnRefusal recomputes the identifier.
func (w *audit) isOwnRefusal(b *paper.Body, id string) bool {
	if len(w.p.NameKey) == 0 || b.Identifier != paper.ReceiptURN(w.a.cfg.Installation, w.p.Code, id) {
		return false
	}
	want, err := w.p.refusalID(b.Key, b.Submission, b.Policy.Digest)
	return err == nil && want == id
}

// orphan lists an object of ours that no entry names, unless the time it states lies behind the beginning of this
// audit: then it is on its way into the ledger.
func (w *audit) orphan(key, made, text string) {
	if at, err := time.Parse(paper.TimeFormat, made); err == nil && !at.Before(w.began) {
		return
	}
	if len(w.lost) > 0 {
		text += ", o iscritto in un commit danneggiato"
	}
	w.notice(key, "orphan", text)
}

// unreadable names an object that is listed and that the store does not give; one that went meanwhile is none. What
// is still listed, and is no object (a link, a pipe), was put there by somebody.
func (w *audit) unreadable(ctx context.Context, key string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !errors.Is(err, storage.ErrNotFound) {
		w.unchecked(key + ": " + err.Error())
		return nil
	}
	there, err := w.listed(ctx, key)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		w.unchecked(key + ": " + err.Error())
	case there:
		w.damage(key, "foreign", "", "una voce che non è un oggetto: non si legge")
	}
	return nil
}

// listed reports whether the store lists something under key, other than a delete marker.
func (w *audit) listed(ctx context.Context, key string) (bool, error) {
	for v, err := range w.a.cfg.Store.List(ctx, key, "") {
		if err != nil {
			return false, err
		}
		return v.Key == key && !v.Marker, nil
	}
	return false, nil
}
