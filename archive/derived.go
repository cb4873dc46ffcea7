package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/storage"
)

// checkBundle holds the search bundle of a commit against the digests in its entries, and keeps the keys it tells.
func (w *audit) checkBundle(ctx context.Context, c *ledger.Commit) {
	packages := packagesOf(c)
	if len(packages) == 0 {
		return
	}
	key := bundleKey(w.p.Code, c.Number)
	w.expected[short(key)] = struct{}{}
	text, err := w.fetch(ctx, key, maxBundle)
	if errors.Is(err, storage.ErrNotFound) { // the newest is put behind its commit
		if err = w.a.bundled(ctx, w.p); err == nil {
			text, err = w.fetch(ctx, key, maxBundle)
		}
	}
	if storeFailed(err) {
		w.unchecked(key + ": " + err.Error())
		return
	}
	var records []searchRecord
	if err == nil {
		records, err = bundleRecords(text, packages)
	}
	switch {
	case err == nil:
		for i, e := range packages {
			w.clear.add(records[i], e)
		}
		return
	case errors.Is(err, storage.ErrNotFound):
		w.missingDerived(key, "dati di ricerca derivati: vengono rifatti")
	default:
		w.damage(key, "changed", "", "dati di ricerca derivati, vengono rifatti: "+err.Error())
	}
	w.derived = append(w.derived, key)
	for _, e := range packages {
		if r, err := w.a.recordFromPackage(ctx, e); err == nil {
			w.clear.add(r, e)
		} else {
			w.unchecked("se altri abbiano la chiave del pacchetto " + e.ID)
		}
	}
}

// packagesOf are the entries of a commit that have a search record.
func packagesOf(c *ledger.Commit) []ledger.Entry {
	var list []ledger.Entry
	for _, e := range c.Entries {
		if e.Type == ledger.PackageSealed {
			list = append(list, e)
		}
	}
	return list
}

// bundleRecords reads a bundle that must be exactly that of these packages, line by line.
func bundleRecords(text []byte, packages []ledger.Entry) ([]searchRecord, error) {
	lines := bytes.SplitAfter(text, []byte("\n"))
	records := make([]searchRecord, len(packages))
	for i, e := range packages {
		if i >= len(lines) || !bytes.HasSuffix(lines[i], []byte("\n")) {
			return nil, errors.New("it ends too early")
		}
		if err := canon.Unmarshal(bytes.TrimSuffix(lines[i], []byte("\n")), &records[i]); err != nil {
			return nil, err
		}
		if sum, err := records[i].digest(); err != nil || sum != e.Record {
			return nil, fmt.Errorf("line %d is not the record that the entry names", i+1)
		}
	}
	if n := len(packages); n != len(lines)-1 || len(lines[n]) > 0 {
		return nil, errors.New("it has more lines than the commit has packages")
	}
	return records, nil
}

// checkTile holds a derived tile against the ledger's own hashes. Only full ones lie in the bucket.
func (w *audit) checkTile(ctx context.Context, name, key string) error {
	t, err := ledger.ParseTilePath(strings.TrimPrefix(name, "tiles/"))
	if err != nil || t.W != tileEntries {
		w.foreign(key)
		return nil
	}
	w.expected[short(key)] = struct{}{}
	if w.p.ledger() == nil {
		w.unchecked("la tessera derivata " + key)
		return nil
	}
	want, err := w.tile(ctx, t)
	if errors.Is(err, ledger.ErrRange) {
		if err := w.readOn(ctx); err != nil { // another daemon may have filled it
			return w.unreadable(ctx, key, err)
		}
		want, err = w.tile(ctx, t)
	}
	switch {
	case errors.Is(err, ledger.ErrRange):
		w.foreign(key)
		return nil
	case err != nil:
		return w.unreadable(ctx, key, err)
	}
	got, err := w.fetch(ctx, key, int64(len(want)))
	if storeFailed(err) {
		return w.unreadable(ctx, key, err)
	}
	if err != nil || !bytes.Equal(got, want) {
		w.damage(key, "changed", "", "tessera derivata dal giornale: viene rifatta")
		w.derived = append(w.derived, key)
	}
	return nil
}

// tile computes a tile, or a bundle of entries, from the ledger.
func (w *audit) tile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	if t.L == ledger.BundleLevel {
		return w.p.ledger().EntryBundle(ctx, t.N, t.W)
	}
	return w.p.ledger().Tile(ctx, t)
}

// checkTilesThere finds the full tiles that should lie in the bucket and do not.
func (w *audit) checkTilesThere(ctx context.Context) error {
	if _, derives := w.a.cfg.Store.(storage.Replacer); !derives || w.p.ledger() == nil {
		return nil
	}
	for _, t := range ledger.FullTiles(w.head.Size) {
		key := ledger.TileKey(w.p.Code, t)
		if _, met := w.expected[short(key)]; met {
			continue
		}
		// The newest are put behind the commit: one that lies there by now was only late.
		_, err := w.a.cfg.Store.Stat(ctx, key)
		if err == nil {
			continue
		}
		if ctx.Err() != nil || !errors.Is(err, storage.ErrNotFound) {
			if err := w.unreadable(ctx, key, err); err != nil {
				return err
			}
			continue
		}
		coming, err := w.tileComing(ctx, t)
		switch {
		case err != nil:
			if err := w.unreadable(ctx, key, err); err != nil {
				return err
			}
			continue
		case coming:
			continue
		case w.a.writable():
			w.missingDerived(key, "tessera derivata dal giornale: viene rifatta")
		default:
			w.missingDerived(key, "tessera derivata dal giornale: la rifà un archivio che scrive")
		}
		w.derived = append(w.derived, key)
	}
	return nil
}

// tilesLate is how long after a commit the tiles that it fills may be missing where it is another daemon that puts them.
const tilesLate = 10 * time.Minute

// tileComing reports whether a tile that is missing is about to be put: it lies behind those that the ledger here has put;
// where nothing is put here, it was filled a short while ago.
func (w *audit) tileComing(ctx context.Context, t tlog.Tile) (bool, error) {
	bundles := t.N + 1 // up to the end of the tile
	for range t.L {
		bundles *= tileEntries
	}
	if w.a.writable() {
		full, _ := w.p.ledger().Tiled()
		return bundles > full, nil
	}
	last, err := w.p.ledger().Entry(ctx, bundles*tileEntries-1)
	return err == nil && w.began.Sub(last.Time) < tilesLate, err
}

// missingDerived names a derived object that is gone. No spool holds those: where the store was seen to lose what it
// had acknowledged, that is the better explanation, and nothing that is kept is hurt. Else somebody deleted it.
func (w *audit) missingDerived(key, text string) {
	if w.a.putAgain(w.p.Code) > 0 {
		w.notice(key, "missing", text+"; il magazzino ha perso anche altro, rimesso dalla copia di questa macchina")
		return
	}
	w.damage(key, "missing", "", text)
}

// storeLost says what the store lost since the start and an audit does not find any more, once per loss.
func (w *audit) storeLost() {
	n := w.a.putAgain(w.p.Code)
	if said := w.p.lossSaid.Swap(n); n > said {
		w.notice(w.p.Code, "lost", fmt.Sprintf("il magazzino ha perso %d oggetti che aveva confermato, o non li ha mai avuti: rimessi dalla copia di questa macchina (dettagli nel registro)", n-said))
	}
}

// tileEntries is the number of entries of a full bundle, and of hashes of a full tile.
const tileEntries = 256

// remake writes again what was missing under keys/, and damaged derived objects: these are no evidence, and the
// ledger gives them.
func (w *audit) remake(ctx context.Context) {
	for _, b := range w.unkept {
		if err := w.a.publishKey(ctx, b); err != nil {
			w.a.cfg.Log.Warn("key not published again", slog.Any("err", err))
		}
	}
	r, ok := w.a.cfg.Store.(storage.Replacer)
	if !ok || w.p.ledger() == nil || !w.a.writable() {
		return
	}
	for _, key := range w.derived {
		if n := w.commitNumber(key, "/catalog/", ".0"); n >= 0 {
			if c, err := w.p.ledger().Commit(ctx, n); err == nil {
				if _, bundle, err := w.a.searchRecords(ctx, w.p, c); err == nil && bundle != nil { // it logs what it cannot find
					_ = w.a.putBundle(ctx, key, bundle) // it logs what it cannot write
				}
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

// checkCatalog holds the catalog against the ledger: as many live packages, and each where it should be. A
// catalog that differs is a cache gone wrong: whoever opened it is told, and makes it again at the next start. One
// that stands at another commit than the walk ended at went on meanwhile; the next audit will see.
func (w *audit) checkCatalog(context.Context) error {
	if len(w.lost) > 0 || len(w.keys.more) > 0 {
		w.unchecked("il catalogo: il giornale non dice per intero quali pacchetti vivono")
		return nil
	}
	at := w.a.cfg.Catalog.State(w.p.Code)
	if w.p.ledger() == nil || at.Commit != w.head.Number {
		return nil
	}
	wrong := 0
	for _, id := range w.keys.one {
		if rec, ok, err := w.a.cfg.Catalog.ByID(w.p.Code, id); err != nil || !ok || rec.Annulled {
			wrong++
		}
	}
	right := wrong == 0 && at.Count == int64(len(w.keys.one)) && at.Size == w.head.Size && at.Root == [32]byte(w.head.Root)
	if right || w.a.cfg.Catalog.State(w.p.Code).Commit != at.Commit {
		return nil
	}
	w.damage("catalog", "changed", "", fmt.Sprintf("il catalogo ha %d pacchetti, il giornale %d; ne mancano %d: riavviare per rifarlo", at.Count, len(w.keys.one), wrong))
	if w.a.cfg.CatalogInDoubt != nil {
		return w.a.cfg.CatalogInDoubt()
	}
	return nil
}
