package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
)

// Restore implements [storage.Restorer]: a new version on top of whatever lies there.
func (s *Store) Restore(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	right, err := s.has(ctx, key, o)
	if err == nil && !right {
		_, err = s.create(ctx, key, r, o, false)
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", key, err)
	}
	return nil
}

// has tells whether the newest version of key is what o announces. A version that cannot be read, or not to its end,
// is not: that is how damage looks on servers that check what they read, and a line that broke costs a version more.
// A server that does not answer is an error.
func (s *Store) has(ctx context.Context, key string, o storage.PutOptions) (bool, error) {
	r, err := s.get(ctx, key, "", 0, -1)
	if err != nil {
		if _, answered := answer(err); answered || errors.Is(err, storage.ErrNotFound) {
			return false, nil
		}
		return false, err
	}
	defer func() { _ = r.Close() }()
	right, err := same(r, o)
	if err != nil {
		return false, ctx.Err()
	}
	return right, nil
}

// Replace implements [storage.Replacer].
func (s *Store) Replace(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	if !storage.Replaceable(key) {
		return fmt.Errorf("replace %s: %w: not a derived object", key, storage.ErrKey)
	}
	o.RetainUntil = time.Time{}
	version, err := s.create(ctx, key, r, o, false)
	if err != nil {
		return fmt.Errorf("replace %s: %w", key, err)
	}
	s.prune(ctx, key, version)
	return nil
}

// prune removes the versions of a derived object that are older than the one before version. The one before may still
// have readers; a version that could not be removed is met again by the next Replace, and costs room meanwhile.
func (s *Store) prune(ctx context.Context, key, version string) {
	all, err := s.history(ctx, key)
	if err != nil {
		return
	}
	older := -1 // how many versions below version were met
	for _, v := range all {
		switch {
		case older >= 0:
			if older++; older > 1 {
				_ = s.client.RemoveObject(ctx, s.o.Bucket, key, minio.RemoveObjectOptions{VersionID: v.ID})
			}
		case v.ID == version:
			older = 0
		}
	}
}
