package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/marchesud/perenne/storage"
)

// maxKey bounds an object under keys/: a revocation list is the largest.
const maxKey = 64 << 20

// keyCheck is what was met under keys/.
type keyCheck struct {
	w     *audit
	inUse map[string]bool // fingerprints that this archive publishes
	there map[string]bool // fingerprints under which something lies, good or bad
}

// checkKeys holds what lies under keys/ against its own names, and finds what the ledger needs and is not there.
func (w *audit) checkKeys(ctx context.Context) error {
	k := keyCheck{w: w, inUse: map[string]bool{}, there: map[string]bool{}}
	for _, b := range w.a.cfg.Published {
		k.inUse[fmt.Sprintf("%x", sha256.Sum256(b))] = true
	}
	err := groups(ctx, w.a.cfg.Store, "keys/", func(group []storage.Version) error {
		id, intact, unread := "", false, error(nil)
		if several(group) {
			if id, intact, unread = k.meant(ctx, group); ctx.Err() != nil {
				return ctx.Err()
			}
			w.nameStrays(group, id, intact)
		}
		if unread != nil {
			k.there[strings.TrimPrefix(group[0].Key, "keys/")] = true // it may be
			w.unchecked(unread.Error())
			return nil
		}
		if group[0].Marker || intact {
			k.there[strings.TrimPrefix(group[0].Key, "keys/")] = intact
			return nil
		}
		return k.judge(ctx, group[0].Key)
	})
	if err != nil {
		return err
	}
	k.missing()
	return k.locks(ctx)
}

// meant is the version whose content is what the name says. An error says that none of those that were read is, and that
// one was not.
func (k *keyCheck) meant(ctx context.Context, group []storage.Version) (id string, intact bool, unread error) {
	for _, v := range group {
		if v.Marker || v.Size > maxKey {
			continue
		}
		got, err := readDigest(ctx, k.w.a.cfg.Store, v.Key, v.ID, nil)
		if err == nil && v.Key == "keys/"+hex.EncodeToString(got.sha256[:]) {
			return v.ID, true, nil
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			unread = fmt.Errorf("%s: %w", v.Key, err)
		}
	}
	return "", false, unread
}

// judge reads one object under keys/.
func (k *keyCheck) judge(ctx context.Context, key string) error {
	w, name := k.w, strings.TrimPrefix(key, "keys/")
	if raw, err := hex.DecodeString(name); err != nil || len(raw) != sha256.Size || name != hex.EncodeToString(raw) {
		w.damage(key, "foreign", "", "nessuna chiave ha questo nome")
		return nil
	}
	text, err := w.fetch(ctx, key, maxKey)
	if storeFailed(err) || errors.Is(err, storage.ErrNotFound) {
		k.there[name] = !errors.Is(err, storage.ErrNotFound)
		return w.unreadable(ctx, key, err)
	}
	sum := sha256.Sum256(text)
	_, live := w.live[name]
	switch {
	case err != nil || name != hex.EncodeToString(sum[:]):
		w.damage(key, "changed", "", "il contenuto non è quello che il nome dice")
	case !live && !k.inUse[name]:
		w.damageOrDoubt(key, "foreign", "", "chiave o certificato che nessun giornale e nessuna configurazione nomina")
	}
	k.there[name] = true
	return nil
}

// locks looks at the locks of what lies under keys/ and is needed.
func (k *keyCheck) locks(ctx context.Context) error {
	if _, dated := k.w.a.cfg.Store.(storage.Locker); !dated {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(k.there)) {
		if _, live := k.w.live[name]; !k.there[name] || !live && !k.inUse[name] {
			continue
		}
		if err := k.w.checkKeyLock(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// missing names what should lie under keys/ and does not. What is in use is put again. An archive that was made of
// a bucket alone has keys of its own that never were there.
func (k *keyCheck) missing() {
	w := k.w
	for _, name := range slices.Sorted(maps.Keys(w.live)) {
		if !k.there[name] && !(w.a.writable() && k.inUse[name]) {
			w.damage("keys/"+name, "missing", "", "chiave o certificato che il giornale nomina")
		}
	}
	if !w.a.writable() {
		return
	}
	for _, b := range w.a.cfg.Published {
		if name := fmt.Sprintf("%x", sha256.Sum256(b)); !k.there[name] {
			w.damage("keys/"+name, "missing", "", "chiave o certificato in uso: viene rimesso")
			w.unkept = append(w.unkept, b)
			k.there[name] = true
		}
	}
}
