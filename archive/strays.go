package archive

import (
	"context"
	"fmt"
	"slices"

	"github.com/marchesud/perenne/storage"
)

// stray is a key under which more lies than the object that is meant.
type stray struct {
	key, version string // the version that is meant
	all          []storage.Version
}

// covers reports whether there is something in front of the object, and whether behind it.
func (s stray) covers() (front, behind bool) {
	i := slices.IndexFunc(s.all, func(v storage.Version) bool { return v.ID == s.version })
	return i != 0, i < len(s.all)-1
}

// strays is told that one version of a key is the object that is meant, and not all there is. The listing of the bucket
// will come to the key; where there is none, in an audit of a part, what lies beside it is named once the walk has ended.
func (w *audit) strays(key, version string, all []storage.Version) {
	w.astray[short(key)] = version
	if !w.scope.everything() {
		w.beside = append(w.beside, stray{key, version, all})
	}
}

// nameBeside names what strays was told of. Behind an object lies what a repair could not remove, and the entry that says
// so comes later in the ledger, mostly behind the part that was walked: then the ledger is asked for it.
func (w *audit) nameBeside(ctx context.Context) {
	var unread error
	asked := false
	for _, s := range w.beside {
		front, behind := s.covers()
		if _, met := w.repaired[short(s.key)]; w.part && behind && !met {
			if !asked {
				asked, unread = true, w.p.repairs.read(ctx, w.p.ledger(), w.first, mostRepairs)
			}
			if w.p.repairs.has(s.key) {
				w.repaired[short(s.key)] = struct{}{}
			} else if unread != nil && !front {
				w.unchecked(fmt.Sprintf("%s: %s, se non le spiega una riparazione: %v", s.key, textVersions, unread))
				continue
			}
		}
		w.nameStrays(s.all, s.version, true)
	}
}

// nameStrays names, of all versions and delete markers of one key, those that are not the object that is meant,
// where there is one. Behind it lies what a repair could not remove; in front of it nothing may lie.
func (w *audit) nameStrays(group []storage.Version, meant string, intact bool) {
	behind := false
	for _, v := range group {
		if intact && v.ID == meant {
			behind = true
			continue
		}
		if behind && !v.Marker && storage.Replaceable(v.Key) {
			continue // a store that keeps versions leaves the one before for its readers: see storage.Replacer
		}
		kind, text := "versions", textVersions
		if v.Marker {
			kind, text = "delete marker", textMarker
		}
		text += fmt.Sprintf(" (versione %s)", v.ID)
		switch _, repaired := w.repaired[short(v.Key)]; {
		case behind && repaired:
			w.notice(v.Key, kind, text+": resto di quanto una riparazione ha rimesso a posto")
			continue
		case intact:
			text += fmt.Sprintf("; l'oggetto è integro (versione %s): perenne repair lo rimette davanti", meant)
		}
		w.damage(v.Key, kind, "", text)
	}
}

// nameOverVoid names the delete markers among what lies under a void number. Other versions beside the one that was called
// void are no finding of their own: nobody here made them, and a lock may keep them there.
func (w *audit) nameOverVoid(group []storage.Version) {
	meant := w.voids[group[0].Key]
	group = slices.DeleteFunc(slices.Clone(group), func(v storage.Version) bool { return !v.Marker && (v.ID != meant || meant == "") })
	w.nameStrays(group, meant, meant != "")
}

// several reports whether there is more under a key than one version.
func several(group []storage.Version) bool { return len(group) > 1 || group[0].Marker }

// meant is the version of a key that the ledger means, and whether there is one. Of a key that the ledger does not
// name it is not known.
func (w *audit) meant(group []storage.Version) (id string, intact bool) {
	key := short(group[0].Key)
	if id, found := w.astray[key]; found {
		return id, true
	}
	if _, bad := w.bad[key]; bad || w.lost[group[0].Key] {
		return "", false
	}
	_, named := w.expected[key]
	return group[0].ID, named && !group[0].Marker
}

// groups calls judge for each key of a listing, with all its versions.
func groups(ctx context.Context, s storage.Store, prefix string, judge func(group []storage.Version) error) error {
	var group []storage.Version
	for v, err := range s.List(ctx, prefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if len(group) > 0 && group[0].Key != v.Key {
			if err := judge(group); err != nil {
				return err
			}
			group = group[:0]
		}
		group = append(group, v)
	}
	if len(group) == 0 {
		return nil
	}
	return judge(group)
}
