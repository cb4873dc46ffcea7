package archive

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/storage"
)

// checkRooms finds what lies in the bucket beside the rooms it has: those of the producers, evidence/ and keys/. A
// ledger signed by a key of ours is a producer that another daemon serves; any other room is named once, by the
// first key in it.
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
		ours, err := w.isRoom(ctx, room)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			w.unchecked("se sia di questo archivio una cartella dello storage che nessun ente servito qui ha: " + err.Error())
		case !ours:
			w.damage(key, "foreign", "", "cartella che non è di nessun ente di questo archivio")
		}
		after = room + "/\U0010ffff" // behind every key of the room
	}
}

// isRoom reports whether a room is one of this archive; an error, that the store does not say.
func (w *audit) isRoom(ctx context.Context, room string) (bool, error) {
	if _, served := w.a.producers[room]; served || room == "evidence" || room == "keys" {
		return true, nil
	}
	key := ledger.Key(room, 0)
	if storage.ValidKey(key) != nil {
		return false, nil
	}
	text, err := w.fetch(ctx, key, maxCommit)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, errLarge) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c, err := ledger.ParseCommit(text, room, w.a.cfg.Trust.Ledgers)
	return err == nil && c.Number == 0 && c.Origin == w.a.cfg.Installation+"/"+room, nil
}
