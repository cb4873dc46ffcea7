package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
)

// twoWin is a store that now and then tells the loser of a number that it has won. Asked afterwards, it says that the
// number has one version, as a store does that forgets what it overwrites.
type twoWin struct {
	*dir.Store
	lost *atomic.Int64
}

func (s twoWin) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	err := s.Store.Put(ctx, key, r, o)
	if errors.Is(err, storage.ErrExists) && strings.Contains(key, "/ledger/") && s.lost.Add(1)%20 == 0 {
		return nil
	}
	return err
}

// planted wants the checker to find no order where a store lets two win, and to find one where it does not.
func planted(ctx context.Context, scratch string, r *rig.Result) error {
	for _, lies := range []bool{true, false} {
		s, err := newSetting(filepath.Join(scratch, fmt.Sprint(lies), "state"))
		if err != nil {
			return err
		}
		s.Dir, s.Each = filepath.Join(scratch, fmt.Sprint(lies), "bucket"), 60
		history, err := s.inOneProcess(ctx, 4, lies)
		if err != nil {
			return err
		}
		switch err := linearizable(history); {
		case lies && !errors.Is(err, errNoOrder):
			return fmt.Errorf("a store let two win, and of the history of %d operations the checker says: %w", len(history), err)
		case !lies && err != nil:
			return fmt.Errorf("nothing was planted: %w", err)
		}
	}
	r.Planted = "a conditional create that lets two win, unseen by the look at the versions: no order of the history was found, and one without it"
	return nil
}

// inOneProcess runs a few writers here. With lies it is no failure that they stop for a fork: what they were told before
// counts.
func (s *setting) inOneProcess(ctx context.Context, writers int, lies bool) ([]op, error) {
	root, err := dir.Open(s.Dir, dir.Options{Immutable: dir.Off})
	if err != nil {
		return nil, err
	}
	var store storage.Store = root
	if lies {
		store = twoWin{root, &atomic.Int64{}}
	}
	logs := make([]*ledger.Log, writers)
	for i := range logs {
		if logs[i], err = s.log(ctx, root, i); err != nil {
			return nil, err
		}
		if err := logs[i].Close(); err != nil { // opened on the honest store, so that each has a mark
			return nil, err
		}
	}
	for i := range logs {
		if logs[i], err = s.log(ctx, store, i); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	var history []op
	errs := make([]error, writers)
	var work sync.WaitGroup
	for i, l := range logs {
		work.Go(func() {
			errs[i] = s.write(ctx, l, i, func(o op) {
				mu.Lock()
				defer mu.Unlock()
				history = append(history, o)
			})
		})
	}
	work.Wait()
	for _, l := range logs {
		_ = l.Close() // a ledger that stopped says so again
	}
	if lies {
		for i, err := range errs {
			var fork *ledger.Fork
			if errors.As(err, &fork) { // it found out later
				errs[i] = nil
			}
		}
	}
	return history, errors.Join(errs...)
}
