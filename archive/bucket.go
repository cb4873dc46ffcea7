package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage"
)

// checkBundle holds the search bundle of a commit against the digests in its entries.
func (w *audit) checkBundle(ctx context.Context, c *ledger.Commit) {
	sealed := 0
	for _, e := range c.Entries {
		if e.Type == ledger.PackageSealed {
			sealed++
		}
	}
	if sealed == 0 {
		return
	}
	key := bundleKey(w.p.Code, c.Number)
	w.expected[short(key)] = struct{}{}
	text, err := readSmall(ctx, w.a.cfg.Store, key, maxBundle)
	if err == nil {
		err = bundleFits(text, c)
	}
	switch {
	case err == nil:
	case errors.Is(err, storage.ErrNotFound):
		w.damage(key, "missing", "", "dati di ricerca derivati: vengono rifatti")
		w.derived = append(w.derived, key)
	default:
		w.damage(key, "changed", "", "dati di ricerca derivati, vengono rifatti: "+err.Error())
		w.derived = append(w.derived, key)
	}
}

// bundleFits reports whether text is exactly the bundle of the commit.
func bundleFits(text []byte, c *ledger.Commit) error {
	lines := bytes.SplitAfter(text, []byte("\n"))
	n := 0
	for _, e := range c.Entries {
		if e.Type != ledger.PackageSealed {
			continue
		}
		if n >= len(lines) || !bytes.HasSuffix(lines[n], []byte("\n")) {
			return errors.New("it ends too early")
		}
		var r searchRecord
		if err := canon.Unmarshal(bytes.TrimSuffix(lines[n], []byte("\n")), &r); err != nil {
			return err
		}
		if sum, err := r.digest(); err != nil || sum != e.Record {
			return fmt.Errorf("line %d is not the record that the entry names", n+1)
		}
		n++
	}
	if n != len(lines)-1 || len(lines[n]) > 0 {
		return errors.New("it has more lines than the commit has packages")
	}
	return nil
}

// checkBucket looks at everything that lies under the producer's keys and is not named by the ledger.
func (w *audit) checkBucket(ctx context.Context) error {
	prefix := w.p.Code + "/"
	last := ""
	for v, err := range w.a.cfg.Store.List(ctx, prefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if v.Marker {
			w.damage(v.Key, "delete marker", "", "qualcuno ha chiesto di cancellare l'oggetto")
			continue
		}
		if v.Key == last {
			w.damage(v.Key, "versions", "", "più versioni sotto una sola chiave")
			continue
		}
		last = v.Key
		if err := w.judgeKey(ctx, strings.TrimPrefix(v.Key, prefix), v); err != nil {
			return err
		}
	}
	return w.checkTilesThere(ctx)
}

// judgeKey decides what an object in the bucket is.
func (w *audit) judgeKey(ctx context.Context, name string, v storage.Version) error {
	room, _, _ := strings.Cut(name, "/")
	if _, named := w.expected[short(v.Key)]; named {
		return nil
	}
	switch room {
	case "packages":
		return w.judgeUnnamed(ctx, v)
	case "reports", "refusals":
		return w.judgeUnnamedPaper(ctx, room, v)
	case "ledger":
		if !w.isCommit(v.Key) {
			w.damage(v.Key, "foreign", "", "nessun commit di questo giornale ha questa chiave")
		}
	case "tiles":
		w.checkTile(ctx, name, v.Key)
	case "records":
		// Personal data, unlocked and erasable: nothing here is evidence.
	case "catalog":
		if !w.isRecentBundle(v.Key) {
			w.damage(v.Key, "foreign", "", "nessun commit ha questi dati di ricerca")
		}
	default:
		w.damage(v.Key, "foreign", "", "nessun oggetto di Perenne ha questa chiave")
	}
	return nil
}

// isCommit reports whether a key is one of the commits walked, or one committed since.
func (w *audit) isCommit(key string) bool {
	n := w.commitNumber(key, "/ledger/", "")
	return n >= 0 && n <= w.newest() && ledger.Key(w.p.Code, n) == key
}

// isRecentBundle reports whether a key is that of the search bundle of a commit that was not read: committed since,
// or damaged.
func (w *audit) isRecentBundle(key string) bool {
	n := w.commitNumber(key, "/catalog/", ".0")
	if n < 0 || bundleKey(w.p.Code, n) != key {
		return false
	}
	return n > w.head.Number && n <= w.newest() || w.lost[ledger.Key(w.p.Code, n)]
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

// newest is the number of the last commit there is now, which may be beyond what was walked.
func (w *audit) newest() int64 {
	if w.p.log != nil {
		return max(w.head.Number, w.p.log.Head().Number)
	}
	return w.head.Number
}

// judgeUnnamed looks at a package that the walked ledger does not name: committed meanwhile, an orphan of a
// crash (valid under our own key), or foreign.
func (w *audit) judgeUnnamed(ctx context.Context, v storage.Version) error {
	id, _, _ := strings.Cut(path.Base(v.Key), ".")
	if rec, ok, err := w.a.cfg.Catalog.ByID(w.p.Code, id); err == nil && ok && rec.Object == v.Key && rec.Commit > w.head.Number {
		return nil
	}
	o, err := openObject(ctx, w.a.cfg.Store, v.Key)
	if err != nil {
		return w.unreadable(ctx, v.Key, err)
	}
	got, err := paper.ReadPackage(ctx, o, o.size, w.a.cfg.Trust)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || got.Body.Producer.Code != w.p.Code || !strings.HasPrefix(v.Key, strings.TrimSuffix(packageKey(w.p.Code, got.Body.Package, 1), ".asice")) {
		w.damage(v.Key, "foreign", "", "oggetto estraneo al posto di un pacchetto")
		return nil
	}
	w.notice(v.Key, "orphan", "pacchetto integro che il giornale non nomina: resto di un versamento interrotto"+w.orLost())
	return nil
}

// orLost adds, where commits are damaged, that one of them may have named the object.
func (w *audit) orLost() string {
	if len(w.lost) == 0 {
		return ""
	}
	return ", o iscritto in un commit danneggiato"
}

// unreadable names an object that is listed and cannot be read; one that went meanwhile is none.
func (w *audit) unreadable(ctx context.Context, key string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !errors.Is(err, storage.ErrNotFound) {
		w.damage(key, "unreadable", "", err.Error())
	}
	return nil
}

// judgeUnnamedPaper does the same for a report or a refusal.
func (w *audit) judgeUnnamedPaper(ctx context.Context, room string, v storage.Version) error {
	text, err := readSmall(ctx, w.a.cfg.Store, v.Key, 1<<30)
	if err != nil {
		return w.unreadable(ctx, v.Key, err)
	}
	if room == "reports" {
		rep, _, err := paper.ReadReport(ctx, bytes.NewReader(text), int64(len(text)), w.a.cfg.Trust)
		if err == nil && rep.Producer.Code == w.p.Code {
			w.notice(v.Key, "orphan", "rapporto integro che il giornale non nomina ancora"+w.orLost())
			return nil
		}
	} else {
		var b paper.Body
		id := path.Base(v.Key)
		if canon.Unmarshal(text, &b) == nil && b.Identifier == paper.ReceiptURN(w.a.cfg.Installation, w.p.Code, id) && w.isOwnRefusal(&b, id) {
			w.notice(v.Key, "orphan", "rifiuto che il giornale non nomina ancora: resto di un versamento interrotto"+w.orLost())
			return nil
		}
	}
	w.damage(v.Key, "foreign", "", "oggetto estraneo tra i documenti del produttore")
	return nil
}

// isOwnRefusal recomputes the identifier, which only the holder of the name key can make.
func (w *audit) isOwnRefusal(b *paper.Body, id string) bool {
	if len(w.p.NameKey) == 0 {
		return false
	}
	want, err := w.p.refusalID(b.Key, b.Submission, b.Policy.Digest)
	return err == nil && want == id
}

// checkTile holds a derived tile against the ledger's own hashes.
func (w *audit) checkTile(ctx context.Context, name, key string) {
	t, err := ledger.ParseTilePath(strings.TrimPrefix(name, "tiles/"))
	if err != nil {
		w.damage(key, "foreign", "", "nessuna tessera ha questa chiave")
		return
	}
	w.expected[short(key)] = struct{}{}
	want, err := w.tile(ctx, t)
	if err != nil {
		if w.p.log == nil {
			w.missed = append(w.missed, "la tessera derivata "+key)
			return
		}
		w.damage(key, "foreign", "", "il giornale non ha questa tessera: "+err.Error())
		return
	}
	got, err := readSmall(ctx, w.a.cfg.Store, key, int64(len(want))+1)
	if err != nil || !bytes.Equal(got, want) {
		w.damage(key, "changed", "", "tessera derivata dal giornale: viene rifatta")
		w.derived = append(w.derived, key)
	}
}

// tile computes a tile, or a bundle of entries, from the ledger.
func (w *audit) tile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	if w.p.log == nil {
		return nil, w.p.stopped
	}
	if t.L == ledger.BundleLevel {
		return w.p.log.EntryBundle(ctx, t.N, t.W)
	}
	return w.p.log.Tile(ctx, t)
}

// checkTilesThere finds the full tiles that should lie in the bucket and do not.
func (w *audit) checkTilesThere(ctx context.Context) error {
	if _, derives := w.a.cfg.Store.(storage.Replacer); !derives || w.p.log == nil {
		return nil
	}
	for _, t := range ledger.FullTiles(w.head.Size) {
		key := ledger.TileKey(w.p.Code, t)
		if _, met := w.expected[short(key)]; met {
			continue
		}
		// The newest are put behind the commit: one that lies there by now was only late.
		if _, err := w.a.cfg.Store.Stat(ctx, key); err == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if full, _ := w.p.log.Tiled(); full < w.head.Size/tileEntries {
			continue // they are being put
		}
		w.damage(key, "missing", "", "tessera derivata dal giornale: viene rifatta")
		w.derived = append(w.derived, key)
	}
	return nil
}

// tileEntries is the number of entries of a full bundle.
const tileEntries = 256

// remake writes again what was missing under keys/, and damaged derived objects: these are no evidence, and the
// ledger gives them.
func (w *audit) remake(ctx context.Context) {
	for _, b := range w.unkept {
		if err := w.a.publishKey(ctx, b); err != nil {
			w.a.cfg.Log.Warn("key not published again", "err", err)
		}
	}
	r, ok := w.a.cfg.Store.(storage.Replacer)
	if !ok || w.p.log == nil || !w.a.writable() {
		return
	}
	for _, key := range w.derived {
		if n := w.commitNumber(key, "/catalog/", ".0"); n >= 0 {
			if c, err := w.p.log.Commit(ctx, n); err == nil {
				_, _ = w.a.searchRecords(ctx, w.p, c) // puts the bundle again; it logs what it cannot find
			}
			continue
		}
		t, err := ledger.ParseTilePath(strings.TrimPrefix(key, w.p.Code+"/tiles/"))
		if err != nil {
			continue
		}
		data, err := w.tile(ctx, t)
		if err != nil {
			continue
		}
		o := storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)}
		if err := r.Replace(ctx, key, bytes.NewReader(data), o); err != nil {
			w.a.cfg.Log.Warn("derived object not made again", slog.String("key", key), slog.Any("err", err))
		}
	}
}

// checkSeals walks the chain of seals: form, chain, leaves, token; then what this ledger and this machine know
// of seals that the bucket does not have, and what lies among them unasked.
func (w *audit) checkSeals(ctx context.Context) error {
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
		s, object, err := seal.Read(ctx, w.a.cfg.Store, at.next)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, storage.ErrNotFound) && at.next > last:
			return nil
		case errors.Is(err, storage.ErrNotFound):
			w.damage(key, "missing", "", "sigillo confermato che non c'è più")
			at.broken()
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

// checkSeal holds one seal against the seal before it, the ledgers and its token, and moves on.
func (w *audit) checkSeal(ctx context.Context, s *seal.Seal, object []byte, at *sealPlace) error {
	sum := sha256.Sum256(object)
	if at.chained && (s.Previous != at.previous || s.PreviousToken != at.token) {
		return errors.New("non è concatenato al sigillo precedente")
	}
	if named, ok := w.sealed[s.Number]; ok && named != hex.EncodeToString(sum[:]) {
		return errors.New("non è il sigillo che il giornale nomina")
	}
	r, ranged := s.Range(w.p.Code)
	if ranged && at.joined && r.First != at.end {
		return fmt.Errorf("il sigillo riprende dalla riga %d invece che dalla %d", r.First, at.end)
	}
	if err := w.checkLeaves(ctx, s); err != nil {
		return err
	}
	if _, err := w.a.cfg.Trust.Certificates.CheckToken(s.Token, s.Root); err != nil {
		return err
	}
	at.previous, at.token, at.chained = sum, sha256.Sum256(s.Token), true
	if ranged {
		at.end, at.joined = r.End, true
	}
	return nil
}

// checkLeaves recomputes the root from the commits. A commit that cannot be read is damage of its own, whichever
// ledger it is of; then the root is left unchecked.
func (w *audit) checkLeaves(ctx context.Context, s *seal.Seal) error {
	var unread string
	tree, err := s.Tree(ctx, func(ctx context.Context, producer string, n int64) (*ledger.Commit, error) {
		c, err := w.a.commits(ctx, producer, n)
		if err != nil && n <= w.newestOf(producer) {
			unread = ledger.Key(producer, n)
		}
		return c, err
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case unread != "":
		if !w.lost[unread] {
			w.lost[unread] = true
			w.damage(unread, "ledger", "", err.Error())
		}
		w.missed = append(w.missed, "la radice di "+seal.Key(s.Number)+": manca il commit "+unread)
		return nil
	case err != nil:
		return err
	}
	root, err := tree.Root()
	if err != nil || root != s.Root || int64(tree.Len()) != s.Leaves {
		return errors.Join(err, errors.New("la radice non è quella delle sue foglie"))
	}
	return nil
}

// newestOf is the number of the last commit of a ledger that this machine knows to have existed; -1 for none.
func (w *audit) newestOf(producer string) int64 {
	if producer == w.p.Code {
		mark, _ := w.a.heads.Get(producer)
		return max(w.newest(), mark.Number)
	}
	if p, ok := w.a.producers[producer]; ok && p.log != nil {
		return p.log.Head().Number
	}
	if mark, ok := w.a.heads.Get(producer); ok {
		return mark.Number
	}
	return -1
}

// listSeals finds what is no seal under evidence/. more says that seal next was made meanwhile and is to be
// followed; where that was tried already (young false), it is foreign too.
func (w *audit) listSeals(ctx context.Context, next int64, young bool) (more bool, err error) {
	before := ""
	var findings []paper.ReportFinding
	for v, err := range w.a.cfg.Store.List(ctx, "evidence/", "") {
		if err != nil {
			return false, fmt.Errorf("list evidence/: %w", err)
		}
		f := paper.ReportFinding{Gravity: paper.Damage, Object: v.Key}
		n, err := strconv.ParseInt(strings.Replace(strings.TrimPrefix(v.Key, "evidence/"), "/", "", 1), 10, 64)
		switch {
		case v.Marker:
			f.Kind, f.Text = "delete marker", "qualcuno ha chiesto di cancellare l'oggetto"
		case v.Key == before:
			f.Kind, f.Text = "versions", "più versioni sotto una sola chiave"
		case err == nil && seal.Key(n) == v.Key && n == next && young:
			return true, nil
		case err != nil || seal.Key(n) != v.Key || n >= next:
			f.Kind, f.Text = "foreign", "nessun sigillo ha questa chiave"
		}
		before = v.Key
		if f.Kind != "" {
			findings = append(findings, f)
		}
	}
	for _, f := range findings {
		w.damage(f.Object, f.Kind, "", f.Text)
	}
	return false, nil
}

// maxKey bounds an object under keys/: a revocation list is the largest.
const maxKey = 64 << 20

// checkRooms finds what lies in the bucket beside the rooms it has: those of the producers, evidence/ and keys/. A
// ledger signed by a key of ours is a producer that another daemon serves.
func (w *audit) checkRooms(ctx context.Context) error {
	for after := ""; ; {
		key := ""
		for v, err := range w.a.cfg.Store.List(ctx, "", after) {
			if err != nil {
				return fmt.Errorf("list bucket: %w", err)
			}
			key = v.Key
			break
		}
		if key == "" {
			return nil
		}
		room, _, isRoom := strings.Cut(key, "/")
		if isRoom && w.isRoom(ctx, room) {
			after = room + "/\U0010ffff" // behind every key of the room
			continue
		}
		w.damage(key, "foreign", "", "nessun oggetto di Perenne ha questa chiave")
		after = key
	}
}

func (w *audit) isRoom(ctx context.Context, room string) bool {
	if _, served := w.a.producers[room]; served || room == "evidence" || room == "keys" {
		return true
	}
	c, err := readCommit(ctx, w.a.cfg.Store, room, 0, w.a.cfg.Trust.Ledgers)
	return err == nil && c.Origin == w.a.cfg.Installation+"/"+room
}

// checkKeys holds what lies under keys/ against its own names, and finds what the ledger needs and is not there.
func (w *audit) checkKeys(ctx context.Context) error {
	there := map[string]bool{}
	for v, err := range w.a.cfg.Store.List(ctx, "keys/", "") {
		if err != nil {
			return fmt.Errorf("list keys/: %w", err)
		}
		name := strings.TrimPrefix(v.Key, "keys/")
		if v.Marker {
			w.damage(v.Key, "delete marker", "", "qualcuno ha chiesto di cancellare l'oggetto")
			continue
		}
		text, err := readSmall(ctx, w.a.cfg.Store, v.Key, maxKey)
		if err != nil {
			if err := w.unreadable(ctx, v.Key, err); err != nil {
				return err
			}
			there[name] = there[name] || !errors.Is(err, storage.ErrNotFound)
			continue
		}
		sum := sha256.Sum256(text)
		switch raw, err := hex.DecodeString(name); {
		case err != nil || len(raw) != 32:
			w.damage(v.Key, "foreign", "", "nessuna chiave ha questo nome")
		case name != hex.EncodeToString(sum[:]):
			w.damage(v.Key, "changed", "", "il contenuto non è quello che il nome dice")
			there[name] = true
		default:
			there[name] = true
			if !w.isPublished(name) && len(w.lost) > 0 {
				w.missed = append(w.missed, "di chi sia "+v.Key+": forse lo dice un commit danneggiato")
			} else if !w.isPublished(name) {
				w.damage(v.Key, "foreign", "", "chiave o certificato che nessun giornale e nessuna configurazione nomina")
			}
		}
	}
	for name := range w.live {
		if !there[name] && !(w.a.writable() && w.isInUse(name)) {
			w.damage("keys/"+name, "missing", "", "certificato che il giornale nomina")
		}
	}
	if !w.a.writable() {
		return nil // an archive that was made of a bucket alone has keys of its own that never were there
	}
	for _, b := range w.a.cfg.Published {
		sum := sha256.Sum256(b)
		if name := hex.EncodeToString(sum[:]); !there[name] {
			w.damage("keys/"+name, "missing", "", "chiave o certificato in uso: viene rimesso")
			w.unkept = append(w.unkept, b)
			there[name] = true
		}
	}
	return nil
}

// isPublished reports whether a fingerprint is one that was ever taken into use.
func (w *audit) isPublished(name string) bool {
	if _, ok := w.live[name]; ok {
		return true
	}
	return w.isInUse(name)
}

// isInUse reports whether a fingerprint is one this archive publishes.
func (w *audit) isInUse(name string) bool {
	for _, b := range w.a.cfg.Published {
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) == name {
			return true
		}
	}
	return false
}

// checkCatalog holds the catalog against the ledger: as many live packages, and each where it should be. A
// catalog that differs is a cache gone wrong: whoever opened it is told, and makes it again at the next start.
func (w *audit) checkCatalog(context.Context) error {
	if len(w.lost) > 0 {
		w.missed = append(w.missed, "il catalogo: il giornale non si legge per intero")
		return nil
	}
	if w.p.log == nil || w.newest() != w.head.Number {
		return nil // it moved on meanwhile: the next audit will see
	}
	wrong := 0
	for _, id := range w.keys {
		if rec, ok, err := w.a.cfg.Catalog.ByID(w.p.Code, id); err != nil || !ok || rec.Annulled {
			wrong++
		}
	}
	if n := w.a.cfg.Catalog.Count(w.p.Code); wrong > 0 || n != int64(len(w.keys)) {
		if w.newest() != w.head.Number {
			return nil
		}
		w.damage("catalog", "changed", "", fmt.Sprintf("il catalogo ha %d pacchetti, il giornale %d; ne mancano %d: riavviare per rifarlo", n, len(w.keys), wrong))
		if w.a.cfg.CatalogInDoubt != nil {
			return w.a.cfg.CatalogInDoubt()
		}
	}
	return nil
}
