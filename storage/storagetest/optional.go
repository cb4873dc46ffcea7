package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/marchesud/perenne/storage"
)

// far is a lock's end that no test reaches.
var far = time.Date(2190, 1, 1, 0, 0, 0, 0, time.UTC)

func locks(ctx context.Context, s storage.Store) error {
	const key = "t-locks/a"
	data := sample(1, 100)
	o := options(data)
	o.RetainUntil = far
	if err := s.Put(ctx, key, bytes.NewReader(data), o); err != nil {
		return fmt.Errorf("put with a lock: %w", err)
	}
	if err := holds(ctx, s, key, data); err != nil {
		return err
	}
	l, ok := s.(storage.Locker)
	if !ok {
		return nil
	}
	for _, until := range []time.Time{far.AddDate(-1, 0, 0), {}, far, far.AddDate(0, 1, 0)} {
		if err := l.Extend(ctx, key, "", until); err != nil && until.After(far) {
			return fmt.Errorf("extend to a later date: %w", err)
		}
		want := far
		if until.After(far) {
			want = until
		}
		o, err := s.Stat(ctx, key)
		if err != nil || !o.RetainUntil.Equal(want) {
			return fmt.Errorf("stat after extending to %v: got %v, %w, want %v", until, o.RetainUntil, orNil(err), want)
		}
	}
	if err := described(ctx, s, key); err != nil {
		return err
	}
	if err := l.Extend(ctx, "t-locks/none", "", far); err == nil {
		return errors.New("extend of a missing object: got no error")
	}
	if e, ok := s.(storage.Eraser); ok {
		o, err := s.Stat(ctx, key)
		if err != nil {
			return err
		}
		err = e.Erase(ctx, key, o.Versions[0].ID, "test of the lock")
		if err := refused("erase of a locked version", err, storage.ErrLocked); err != nil {
			return err
		}
	}
	return holds(ctx, s, key, data)
}

// described holds what the reader of a Get tells against what Stat says.
func described(ctx context.Context, s storage.Store, key string) error {
	o, err := s.Stat(ctx, key)
	if err != nil {
		return err
	}
	r, err := s.Get(ctx, key, "", 0, -1)
	if err != nil {
		return err
	}
	d, ok := r.(storage.Described)
	if err := r.Close(); err != nil || !ok {
		return fmt.Errorf("the reader of a store with locks does not tell them: %w", orNil(err))
	}
	if d.Version() != o.Versions[0].ID || !d.RetainUntil().Equal(o.RetainUntil) {
		return fmt.Errorf("the reader tells of version %q locked until %v, stat of %q until %v", d.Version(), d.RetainUntil(), o.Versions[0].ID, o.RetainUntil)
	}
	return nil
}

func erasing(ctx context.Context, s storage.Store) error {
	e, ok := s.(storage.Eraser)
	if !ok {
		return nil
	}
	const key, neighbour = "t-erase/d/e/a", "t-erase/d/b"
	data := sample(1, 100)
	if err := errors.Join(put(ctx, s, key, data), put(ctx, s, neighbour, data)); err != nil {
		return err
	}
	if err := e.Erase(ctx, key, "", ""); err == nil {
		return errors.New("erase without a reason: got no error")
	}
	if err := refused("erase of a missing object", e.Erase(ctx, "t-erase/none", "", "test"), storage.ErrNotFound); err != nil {
		return err
	}
	if err := refused("erase of a missing version", e.Erase(ctx, key, "no-such-version", "test"), storage.ErrNotFound); err != nil {
		return err
	}
	if err := holds(ctx, s, key, data); err != nil {
		return fmt.Errorf("after refused erasures: %w", err)
	}
	for round := range 2 {
		if err := e.Erase(ctx, key, "", "test"); err != nil {
			return fmt.Errorf("erase: %w", err)
		}
		if err := absent(ctx, s, key); err != nil {
			return fmt.Errorf("after erase: %w", err)
		}
		if err := refused("second erase", e.Erase(ctx, key, "", "test"), storage.ErrNotFound); err != nil {
			return err
		}
		data := sample(uint64(round)+2, 50)
		if err := put(ctx, s, key, data); err != nil {
			return fmt.Errorf("put after erase: %w", err)
		}
		if err := holds(ctx, s, key, data); err != nil {
			return fmt.Errorf("put after erase: %w", err)
		}
	}
	return holds(ctx, s, neighbour, data)
}

func restoring(ctx context.Context, s storage.Store) error {
	r, ok := s.(storage.Restorer)
	if !ok {
		return nil
	}
	right, wrong := sample(1, 80_000), sample(2, 70_000)
	restore := func(key string, data []byte) error {
		return r.Restore(ctx, key, bytes.NewReader(data), options(right))
	}
	const lost, hurt = "t-restore/new/dir/lost", "t-restore/hurt"
	if err := put(ctx, s, hurt, wrong); err != nil {
		return err
	}
	for _, key := range []string{lost, hurt} {
		if err := refused("restore from other bytes", restore(key, wrong), storage.ErrDigest); err != nil {
			return err
		}
	}
	if err := errors.Join(absent(ctx, s, lost), holds(ctx, s, hurt, wrong)); err != nil {
		return fmt.Errorf("after refused restores: %w", err)
	}
	for _, key := range []string{lost, hurt, hurt} {
		if err := restore(key, right); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		if err := holds(ctx, s, key, right); err != nil {
			return fmt.Errorf("after restore: %w", err)
		}
	}
	before, err := s.Stat(ctx, hurt)
	if err != nil {
		return err
	}
	if err := restore(hurt, nil); err != nil {
		return fmt.Errorf("restore of bytes that lie there already: got %w, want nil at once", err)
	}
	after, err := s.Stat(ctx, hurt)
	if err != nil || len(after.Versions) != len(before.Versions) {
		return fmt.Errorf("restore of bytes that lie there already: got %+v, %w, want nothing new", after, orNil(err))
	}
	if err := refused("put over a restored object", put(ctx, s, lost, wrong), storage.ErrExists); err != nil {
		return err
	}
	return refused("restore under a bad key", restore("t-restore/../x", right), storage.ErrKey)
}

func replacing(ctx context.Context, s storage.Store) error {
	r, ok := s.(storage.Replacer)
	if !ok {
		return nil
	}
	replace := func(key string, data []byte) error {
		return r.Replace(ctx, key, bytes.NewReader(data), options(data))
	}
	first, second := sample(1, 1000), sample(2, 2000)
	for _, key := range []string{"t-replace/packages/a", "t-replace/ledger/a", "t-replace/tiles", "tiles/a/b", "t-replace/packages/tiles/a"} {
		if err := refused("replace of "+key, replace(key, first), storage.ErrKey); err != nil {
			return err
		}
		if err := absent(ctx, s, key); err != nil {
			return err
		}
	}
	for _, key := range []string{"t-replace/tiles/tile/0/000", "t-replace/catalog/0/1.0", "t-replace/records/2026/a"} {
		if err := put(ctx, s, key, first); err != nil {
			return err
		}
		if err := replace(key, second); err != nil {
			return fmt.Errorf("replace: %w", err)
		}
		if err := holds(ctx, s, key, second); err != nil {
			return fmt.Errorf("after replace: %w", err)
		}
		err := r.Replace(ctx, key, bytes.NewReader(first), options(second))
		if err := refused("replace with other bytes than announced", err, storage.ErrDigest); err != nil {
			return err
		}
		if err := holds(ctx, s, key, second); err != nil {
			return fmt.Errorf("after a refused replace: %w", err)
		}
	}
	const key = "t-replace/tiles/fresh/a"
	if err := replace(key, sample(0, 3000)); err != nil {
		return fmt.Errorf("replace where nothing was: %w", err)
	}
	return replacedWhole(ctx, s, key, replace)
}

// replacedWhole reads key while it is being replaced: every reader must see one generation, whole.
func replacedWhole(ctx context.Context, s storage.Store, key string, replace func(string, []byte) error) error {
	const generations = 40
	var all [generations][]byte
	for i := range all {
		all[i] = sample(uint64(i), 3000+i)
	}
	var writer sync.WaitGroup
	var wrote, seen error
	end := make(chan struct{})
	writer.Go(func() {
		defer close(end)
		for _, data := range all {
			if wrote = replace(key, data); wrote != nil {
				return
			}
		}
	})
	for open := true; open && seen == nil; {
		select {
		case <-end:
			open = false
		default:
		}
		data, err := read(ctx, s, key, 0, -1)
		if err != nil || !slices.ContainsFunc(all[:], func(b []byte) bool { return bytes.Equal(b, data) }) {
			seen = fmt.Errorf("get while it is replaced: got %s, %w, want one generation", brief(data), orNil(err))
		}
	}
	writer.Wait()
	return errors.Join(wrote, seen)
}

func staging(ctx context.Context, s storage.Store) error {
	stager, ok := s.(storage.Stager)
	if !ok {
		return nil
	}
	st, err := stager.Stage(ctx)
	if err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	err = stageAndPut(ctx, s, st)
	if err := errors.Join(err, st.Close(), st.Close()); err != nil {
		return err
	}
	return holds(ctx, s, "t-stage/packages/new/a", stagedSample())
}

// stagedSample is what stageAndPut puts.
func stagedSample() []byte { return sample(1, 100_000) }

func stageAndPut(ctx context.Context, s storage.Store, st storage.Staged) error {
	want := stagedSample()
	if err := put(ctx, s, "t-stage/taken", []byte("x")); err != nil {
		return err
	}
	early := s.Put(ctx, "t-stage/early", st, storage.PutOptions{SHA256: sha256.Sum256(nil)})
	if early == nil {
		return errors.New("put of a staged object before Seal: got no error")
	}
	o, err := writeAndSeal(ctx, st, want)
	if err != nil {
		return err
	}
	if err := refused("put of a staged object under a key in use", s.Put(ctx, "t-stage/taken", st, o), storage.ErrExists); err != nil {
		return err
	}
	for _, untrue := range []storage.PutOptions{{Size: o.Size - 1, SHA256: o.SHA256}, {Size: o.Size, SHA256: sha256.Sum256(nil)}} {
		err := s.Put(ctx, "t-stage/false", st, untrue)
		if err := refused("put of a staged object as another", err, storage.ErrDigest); err != nil {
			return err
		}
	}
	const key = "t-stage/packages/new/a"
	if err := s.Put(ctx, key, st, o); err != nil {
		return fmt.Errorf("put of a staged object: %w", err)
	}
	if err := holds(ctx, s, key, want); err != nil {
		return err
	}
	if err := s.Put(ctx, "t-stage/twice", st, o); err == nil {
		return errors.New("second put of a staged object: got no error")
	}
	again := make([]byte, 10)
	if _, err := st.ReadAt(again, 50_000); err != nil || !bytes.Equal(again, want[50_000:50_010]) {
		return fmt.Errorf("read of a staged object after its put: got %x, %w", again, orNil(err))
	}
	for _, key := range []string{"t-stage/early", "t-stage/false", "t-stage/twice"} {
		if err := absent(ctx, s, key); err != nil {
			return err
		}
	}
	return nil
}

// writeAndSeal writes want piece by piece, some of it twice, and seals it.
func writeAndSeal(ctx context.Context, st storage.Staged, want []byte) (storage.PutOptions, error) {
	var o storage.PutOptions
	for _, piece := range []struct{ from, to int }{{0, 30_000}, {60_000, 100_000}, {30_000, 60_000}, {0, 100}} {
		if n, err := st.WriteAt(want[piece.from:piece.to], int64(piece.from)); err != nil || n != piece.to-piece.from {
			return o, fmt.Errorf("write at %d: got %d, %w", piece.from, n, orNil(err))
		}
	}
	var err error
	o.Size, o.SHA256, err = st.Seal(ctx)
	if err != nil || o.Size != int64(len(want)) || o.SHA256 != sha256.Sum256(want) {
		return o, fmt.Errorf("seal: got %d, %x, %w, want %s", o.Size, o.SHA256, orNil(err), brief(want))
	}
	if _, err := st.WriteAt([]byte{0}, 0); err == nil {
		return o, errors.New("write after Seal: got no error")
	}
	return o, nil
}

func unputStaged(ctx context.Context, s storage.Store) error {
	stager, ok := s.(storage.Stager)
	if !ok {
		return nil
	}
	st, err := stager.Stage(ctx)
	if err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	const size = 77_777 // of no other object
	_, err = st.WriteAt(sample(1, size), 0)
	open := noneListed(ctx, s, size)
	if err := errors.Join(err, open, st.Close()); err != nil {
		return fmt.Errorf("while an object is staged: %w", err)
	}
	if err := noneListed(ctx, s, size); err != nil {
		return fmt.Errorf("after an unput object was closed: %w", err)
	}
	return nil
}

// noneListed checks that no object of this size is listed.
func noneListed(ctx context.Context, s storage.Store, size int64) error {
	for v, err := range s.List(ctx, "", "") {
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		if v.Size == size {
			return fmt.Errorf("list: got %q, want no trace of the staged bytes", v.Key)
		}
	}
	return nil
}

func protection(_ context.Context, s storage.Store) error {
	if p, ok := s.(storage.Protector); ok && p.Protection() == "" {
		return errors.New("protection: got no name")
	}
	return nil
}
