package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
)

// answer returns what the server said, when err is an answer and not the want of one.
func answer(err error) (minio.ErrorResponse, bool) {
	var a minio.ErrorResponse
	ok := errors.As(err, &a)
	return a, ok
}

// fault gives a read's error its meaning, and names the server's code, which minio-go leaves out.
func fault(err error) error {
	a, ok := answer(err)
	if !ok {
		return err
	}
	switch a.Code {
	case minio.NoSuchKey, minio.NoSuchVersion:
		return fmt.Errorf("%w: %s", storage.ErrNotFound, a.Code)
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "EDQUOT", "ENOSPC":
		return fmt.Errorf("%w: %s: %w", storage.ErrFull, a.Code, err)
	case "ObjectParentIsFile", "ExistingObjectIsDirectory", "XMinioParentIsObject", minio.XMinioInvalidObjectName:
		return fmt.Errorf("%w: %s: %w", storage.ErrKey, a.Code, err)
	}
	if a.StatusCode == http.StatusInsufficientStorage {
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	return fmt.Errorf("%d %s: %w", a.StatusCode, a.Code, err)
}

// outcome gives a write's error its meaning: one that says surely that nothing was stored, or ErrUnknown.
func outcome(err error) error {
	a, ok := answer(err)
	if !ok {
		return fmt.Errorf("%w: %w", storage.ErrUnknown, err)
	}
	if a.Code == minio.PreconditionFailed || a.StatusCode == http.StatusPreconditionFailed {
		return fmt.Errorf("%w: the server says so", storage.ErrExists)
	}
	err = unborn(err)
	if errors.Is(err, storage.ErrDigest) || errors.Is(err, storage.ErrFull) || errors.Is(err, storage.ErrKey) {
		return err
	}
	return fmt.Errorf("%w: %w", storage.ErrUnknown, err)
}

// unborn is outcome for the steps before an object can come into being.
func unborn(err error) error {
	a, ok := answer(err)
	if !ok {
		return err
	}
	switch a.Code {
	case minio.BadDigest, minio.InvalidDigest, minio.XAmzContentSHA256Mismatch, "XAmzContentChecksumMismatch":
		return fmt.Errorf("%w: %s", storage.ErrDigest, a.Code)
	}
	if told := fault(err); !errors.Is(told, storage.ErrNotFound) {
		return told
	}
	return fmt.Errorf("%d %s: %w", a.StatusCode, a.Code, err) // of the bucket or the upload, not of an object
}

// settled looks once, after a conditional write without a definite answer, whether an object lies under key now. Whose
// it is makes no difference: whoever is told ErrExists reads it. When there is none the outcome stays unknown,
// since the server may still be at it.
func (s *Store) settled(ctx context.Context, key string, err error) error {
	if !errors.Is(err, storage.ErrUnknown) || errors.Is(err, errStalled) || ctx.Err() != nil {
		return err
	}
	if _, stat := s.client.StatObject(ctx, s.o.Bucket, key, minio.StatObjectOptions{}); stat == nil {
		return fmt.Errorf("%w: seen after no definite answer: %s", storage.ErrExists, err.Error())
	}
	return err
}
