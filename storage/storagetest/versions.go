package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/marchesud/perenne/storage"
)

// readVersion gets the whole of one version.
func readVersion(ctx context.Context, s storage.Store, key, version string) ([]byte, error) {
	r, err := s.Get(ctx, key, version, 0, -1)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// versionsKept lays three versions on one another where a store has versions: each stays what it was, is listed once,
// newest first, and comes to light again when those above it are erased.
func versionsKept(ctx context.Context, s storage.Store) error {
	r, ok := s.(storage.Restorer)
	if !ok {
		return nil
	}
	const key, neighbour = "t-versions/a", "t-versions/a-b"
	all := [][]byte{sample(1, 1000), sample(2, 2000), sample(3, 3000)}
	if err := errors.Join(put(ctx, s, key, all[0]), put(ctx, s, neighbour, all[0])); err != nil {
		return err
	}
	for _, data := range all[1:] {
		if err := r.Restore(ctx, key, bytes.NewReader(data), options(data)); err != nil {
			return fmt.Errorf("restore over another object: %w", err)
		}
	}
	if err := holds(ctx, s, key, all[2]); err != nil {
		return err
	}
	o, err := s.Stat(ctx, key)
	if err != nil {
		return err
	}
	if o.Versions[0].ID == "" {
		if len(o.Versions) != 1 {
			return fmt.Errorf("stat on a store without versions: got %+v", o.Versions)
		}
		return nil
	}
	var listed []storage.Version
	for v, err := range s.List(ctx, key, "") {
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		if v.Key == key {
			listed = append(listed, v)
		}
	}
	told, err := storage.History(ctx, s, key)
	if err != nil || len(o.Versions) != 3 || len(listed) != 3 || len(told) != 3 {
		return fmt.Errorf("three versions: stat gives %+v, list %+v, history %+v, %w", o.Versions, listed, told, orNil(err))
	}
	for i, v := range o.Versions {
		want := all[2-i]
		if l := listed[i]; l.ID != v.ID || l.Size != int64(len(want)) || l.Latest != (i == 0) || l.Marker {
			return fmt.Errorf("version %d: list gives %+v, stat %+v", i, l, v)
		}
		if told[i].ID != v.ID {
			return fmt.Errorf("version %d: history gives %+v, stat %+v", i, told[i], v)
		}
		if got, err := readVersion(ctx, s, key, v.ID); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("get version %d: got %s, %w, want %s", i, brief(got), orNil(err), brief(want))
		}
	}
	return eraseFromTop(ctx, s, key, neighbour, o.Versions, all)
}

func eraseFromTop(ctx context.Context, s storage.Store, key, neighbour string, versions []storage.Version, all [][]byte) error {
	e, ok := s.(storage.Eraser)
	if !ok {
		return nil
	}
	for i, v := range versions {
		if err := e.Erase(ctx, key, v.ID, "test"); err != nil {
			return fmt.Errorf("erase version %d: %w", i, err)
		}
		if i == len(versions)-1 {
			break
		}
		if err := holds(ctx, s, key, all[1-i]); err != nil {
			return fmt.Errorf("after the versions above were erased: %w", err)
		}
	}
	if _, err := s.Stat(ctx, key); !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("stat after all versions were erased: got %w, want ErrNotFound", orNil(err))
	}
	return holds(ctx, s, neighbour, all[0])
}

// holding sets and lifts a hold. Erasing all versions of a key asks the locks of all before it removes any.
func holding(ctx context.Context, s storage.Store) error {
	l, isLocker := s.(storage.Locker)
	e, isEraser := s.(storage.Eraser)
	r, isRestorer := s.(storage.Restorer)
	if !isLocker || !isEraser || !isRestorer {
		return nil
	}
	const key = "t-hold/a"
	first, second := sample(1, 100), sample(2, 200)
	if err := put(ctx, s, key, first); err != nil {
		return err
	}
	if err := l.Hold(ctx, key, "", true); err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	if err := r.Restore(ctx, key, bytes.NewReader(second), options(second)); err != nil {
		return fmt.Errorf("restore over a held object: %w", err)
	}
	o, err := s.Stat(ctx, key)
	if err != nil || len(o.Versions) != 2 {
		return fmt.Errorf("stat: got %+v, %w, want two versions", o, orNil(err))
	}
	held := o.Versions[1].ID
	for _, version := range []string{"", held} {
		if err := refused("erase of a held version", e.Erase(ctx, key, version, "test"), storage.ErrLocked); err != nil {
			return err
		}
	}
	if err := holds(ctx, s, key, second); err != nil {
		return fmt.Errorf("after a refused erasure of all versions: %w", err)
	}
	for range 2 {
		if err := l.Hold(ctx, key, held, false); err != nil {
			return fmt.Errorf("lift the hold: %w", err)
		}
	}
	if err := e.Erase(ctx, key, "", "test"); err != nil {
		return fmt.Errorf("erase after the hold was lifted: %w", err)
	}
	if err := l.Hold(ctx, key, "", true); err == nil {
		return errors.New("hold of a missing object: got no error")
	}
	return absent(ctx, s, key)
}
