package s3

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
)

// Erase implements [storage.Eraser]. All locks are asked for before anything is removed, and no bypass of a
// lock is ever asked for. Of all versions the oldest goes first, so that none below the newest comes to light
// if it is interrupted.
func (s *Store) Erase(ctx context.Context, key, version, why string) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	err := ctx.Err()
	switch {
	case err != nil:
	case why == "":
		err = errors.New("no reason given")
	default:
		err = s.erase(ctx, key, version)
	}
	if err != nil {
		return fmt.Errorf("erase %s: %w", key, err)
	}
	return nil
}

func (s *Store) erase(ctx context.Context, key, version string) error {
	all, err := s.history(ctx, key)
	if err != nil {
		return err
	}
	mine := func(v storage.Version) bool { return version == "" || v.ID == version }
	doomed := slices.DeleteFunc(all, func(v storage.Version) bool { return !mine(v) })
	if len(doomed) == 0 {
		return fmt.Errorf("%w: version %q", storage.ErrNotFound, version)
	}
	for _, v := range doomed {
		if err := s.free(ctx, v); err != nil {
			return err
		}
	}
	for _, v := range slices.Backward(doomed) {
		if err := s.remove(ctx, v); err != nil {
			return err
		}
	}
	// A server may say yes and do nothing, or have listed less than there is.
	left, err := s.history(ctx, key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if i := slices.IndexFunc(left, mine); err == nil && i >= 0 {
		err = fmt.Errorf("version %s is still there after all was removed", left[i].ID)
	}
	return err
}

// free tells as ErrLocked that a version may not be removed yet.
func (s *Store) free(ctx context.Context, v storage.Version) error {
	if v.Marker {
		return nil
	}
	l, err := s.locked(ctx, v.Key, v.ID)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return err
	case l.hold:
		return fmt.Errorf("%w: version %s has a legal hold", storage.ErrLocked, v.ID)
	case l.until.After(s.o.Now()):
		return fmt.Errorf("%w: version %s until %s", storage.ErrLocked, v.ID, l.until)
	}
	return nil
}

// remove removes one version for good. A refusal of a version that has a lock is the lock's: the server's clock may
// be behind ours.
func (s *Store) remove(ctx context.Context, v storage.Version) error {
	err := s.client.RemoveObject(ctx, s.o.Bucket, v.Key, minio.RemoveObjectOptions{VersionID: v.ID})
	if err == nil || errors.Is(fault(err), storage.ErrNotFound) {
		return nil // the listing afterwards tells
	}
	if l, lockErr := s.locked(ctx, v.Key, v.ID); lockErr == nil && (l.hold || !l.until.IsZero()) {
		return fmt.Errorf("%w: version %s: %w", storage.ErrLocked, v.ID, err)
	}
	return fault(err)
}
