package archive

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/marchesud/perenne/archive/ledger"
)

// holders knows which live packages stand under which key, as the ledger has keys: HMACs under the name key.
type holders struct {
	one  map[[16]byte]string    // ID
	more map[[16]byte][]claimed // where one key has several live packages: those after the first
}

// claimed is a package under a key that another package has.
type claimed struct{ id, object string }

// claimedBy copies what it keeps: the text of an entry is a piece of its whole line, which would stay in memory.
func claimedBy(e ledger.Entry) claimed {
	return claimed{strings.Clone(e.ID), strings.Clone(e.Object)}
}

func newHolders() holders {
	return holders{one: map[[16]byte]string{}, more: map[[16]byte][]claimed{}}
}

func (h *holders) add(e ledger.Entry) {
	k := short(e.Key)
	switch first, taken := h.one[k]; {
	case !taken:
		h.one[k] = strings.Clone(e.ID)
	case first != e.ID:
		h.more[k] = append(h.more[k], claimedBy(e))
	}
}

// remove takes the package of an entry away and reports whether it stood under the entry's key.
func (h *holders) remove(e ledger.Entry) bool {
	k := short(e.Key)
	rest := h.more[k]
	if h.one[k] != e.ID {
		i := slices.IndexFunc(rest, func(c claimed) bool { return c.id == e.ID })
		if i < 0 {
			return false
		}
		rest = slices.Delete(rest, i, i+1)
	} else if len(rest) == 0 {
		delete(h.one, k)
		return true
	} else {
		h.one[k], rest = rest[0].id, rest[1:]
	}
	if h.more[k] = rest; len(rest) == 0 {
		delete(h.more, k)
	}
	return true
}

// clearKeys knows the same by the key itself (structure, register, year, number), which search records tell. Two
// packages under one key have two HMACs when the name key changed between them, and only this shows it.
type clearKeys struct {
	first   map[[16]byte]string
	more    map[[16]byte][]claimed
	removed map[string]bool
}

func newClearKeys() clearKeys {
	return clearKeys{first: map[[16]byte]string{}, more: map[[16]byte][]claimed{}, removed: map[string]bool{}}
}

func (c *clearKeys) add(r searchRecord, e ledger.Entry) {
	k := short(strings.Join([]string{r.Structure, r.Register, strconv.Itoa(r.Year), r.Number}, "\x00"))
	switch first, taken := c.first[k]; {
	case !taken:
		c.first[k] = strings.Clone(e.ID)
	case first != e.ID:
		c.more[k] = append(c.more[k], claimedBy(e))
	}
}

// alive are, for each key that more than one package has had, those that live.
func (c *clearKeys) alive() [][]claimed {
	var list [][]claimed
	for k, more := range c.more {
		all := append([]claimed{{id: c.first[k]}}, more...)
		all = slices.DeleteFunc(all, func(x claimed) bool { return c.removed[x.id] })
		if len(all) > 1 {
			list = append(list, all)
		}
	}
	return list
}

// checkDuplicates names packages that live under a key that another live package has.
func (w *audit) checkDuplicates() {
	found := map[string]duplicate{}
	for k, more := range w.keys.more {
		for _, x := range more {
			found[x.id] = duplicate{x.object, w.keys.one[k]}
		}
	}
	for _, alive := range w.clear.alive() {
		for _, x := range alive[1:] {
			if _, named := found[x.id]; !named {
				found[x.id] = duplicate{x.object, alive[0].id}
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(found)) {
		d := found[id]
		w.damageOrDoubt(d.object, "duplicate", id, "due pacchetti vivi con la stessa chiave: l'altro è "+d.other)
	}
}

// askDuplicates asks the catalog, which is no evidence, whether another package lives under the key of one asked for.
func (w *audit) askDuplicates() {
	for _, id := range w.scope.IDs {
		r, found, err := w.a.cfg.Catalog.ByID(w.p.Code, id)
		if err != nil || !found || r.Annulled {
			continue
		}
		all, _ := w.a.cfg.Catalog.Generations(w.p.Code, r.KeyHMAC)
		for _, other := range all {
			if other.ID != id && !other.Annulled {
				w.unchecked(fmt.Sprintf("il pacchetto %s: secondo il catalogo ne vive un altro con la stessa chiave, %s; lo dirà una verifica di tutto", id, other.ID))
			}
		}
	}
}

type duplicate struct{ object, other string }
