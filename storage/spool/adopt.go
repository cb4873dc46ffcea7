package spool

import (
	"context"
	"fmt"
	"io"

	"github.com/marchesud/perenne/storage"
)

// Adopt implements [storage.Adopter]. A copy that is held already is taken for one that the store gave back equal; who
// rests an answer on it anew has its time begin anew.
func (s *Spool) Adopt(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if storage.Replaceable(key) {
		return nil
	}
	it, err := s.hold(ctx, key, r, o)
	if err != nil {
		return fmt.Errorf("adopt %s: spool: %w", key, err)
	}
	// crash: the copy, which the next process reads back, or puts again, like any other
	return s.settle(ctx, it, stored)
}
