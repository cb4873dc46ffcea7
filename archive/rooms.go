package archive

import (
	"context"
	"fmt"
	"strings"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/storage"
)

// checkRooms finds what lies in the bucket beside the rooms it has: those of the producers, evidence/, keys/
// and the one where the store is put to the test. A ledger signed by a key of ours is a producer that another daemon
// serves; any other room is named once, by the first key in it.
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
		if !isRoom {
			w.foreign(key)
			after = key
			continue
		}
		after = room + "/\U0010ffff" // behind every key of the room
		if room == storage.ProbeRoom {
			if err := w.checkProbes(ctx); err != nil {
				return err
			}
			continue
		}
		ours, err := w.isRoom(ctx, room)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			w.unchecked("se sia di questo archivio una cartella dello storage che nessun ente servito qui ha: " + err.Error())
		case !ours:
			w.damage(key, "foreign", "", "cartella che non è di nessun ente di questo archivio")
		}
	}
}

// checkProbes lets be what examinations of the store leave: it proves nothing, and nothing rests on it.
func (w *audit) checkProbes(ctx context.Context) error {
	last := ""
	for v, err := range w.a.cfg.Store.List(ctx, storage.ProbeRoom+"/", "") {
		if err != nil {
			return fmt.Errorf("list %s/: %w", storage.ProbeRoom, err)
		}
		if !storage.ProbeKey(v.Key) && v.Key != last {
			last = v.Key
			w.foreign(v.Key)
		}
	}
	return nil
}

// isRoom reports whether a room is one of this archive; an error, that the store does not say.
func (w *audit) isRoom(ctx context.Context, room string) (bool, error) {
	if _, served := w.a.producers[room]; served || room == "evidence" || room == "keys" {
		return true, nil
	}
	if storage.ValidKey(ledger.Key(room, 0)) != nil {
		return false, nil
	}
	c, err := ledger.Read(ctx, w.a.cfg.Store, room, 0, w.a.cfg.Trust.Ledgers)
	if commitDamaged(err) {
		return false, nil
	}
	return err == nil && c.Origin == w.a.cfg.Installation+"/"+room, err
}
