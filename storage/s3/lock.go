package s3

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
)

// lock is what the server says keeps a version.
type lock struct {
	version string
	mode    minio.RetentionMode
	until   time.Time
	hold    bool
}

// locked reads the lock of a version; "" is the newest. The head of HEAD tells it in one request. Only versitygw tells
// none there of versions that are not the newest, so for a version that is named and seems to have none the
// documents are asked for as well.
func (s *Store) locked(ctx context.Context, key, version string) (lock, error) {
	i, err := s.client.StatObject(ctx, s.o.Bucket, key, minio.StatObjectOptions{VersionID: version})
	if err != nil {
		return lock{}, ofVersion(err, version)
	}
	if version != "" && i.VersionID != version {
		return lock{}, fmt.Errorf("the server tells of version %q instead of %q", i.VersionID, version)
	}
	l, err := lockOf(i.Headers)
	if err != nil || version == "" || l.hold || !l.until.IsZero() {
		return l, err
	}
	err = s.askLock(ctx, key, version, &l)
	return l, err
}

// askLock reads a version's retention and legal hold from their own documents.
func (s *Store) askLock(ctx context.Context, key, version string, l *lock) error {
	mode, until, err := s.client.GetObjectRetention(ctx, s.o.Bucket, key, version)
	if err != nil && !noLock(err) {
		return fmt.Errorf("ask for the lock: %w", fault(err))
	}
	if err == nil && mode != nil && until != nil {
		l.mode, l.until = *mode, until.UTC()
	}
	status, err := s.client.GetObjectLegalHold(ctx, s.o.Bucket, key, minio.GetObjectLegalHoldOptions{VersionID: version})
	if err != nil && !noLock(err) {
		return fmt.Errorf("ask for the hold: %w", fault(err))
	}
	l.hold = err == nil && status != nil && *status == minio.LegalHoldEnabled
	return nil
}

// noLock tells the answer that there is none.
func noLock(err error) bool {
	a, ok := answer(err)
	return ok && a.Code == "NoSuchObjectLockConfiguration"
}

// lockOf reads the head of an answer about a version.
func lockOf(h http.Header) (lock, error) {
	l := lock{version: h.Get("X-Amz-Version-Id"), mode: minio.RetentionMode(h.Get("X-Amz-Object-Lock-Mode"))}
	l.hold = h.Get("X-Amz-Object-Lock-Legal-Hold") == string(minio.LegalHoldEnabled)
	if until := h.Get("X-Amz-Object-Lock-Retain-Until-Date"); until != "" {
		t, err := time.Parse(time.RFC3339, until)
		if err != nil {
			return lock{}, fmt.Errorf("the server's date of the lock: %w", err)
		}
		l.until = t.UTC()
	}
	return l, nil
}

// Extend implements [storage.Locker]. Version "" is the newest. A governance lock becomes a compliance lock where
// that is the Store's mode; never the other way round.
func (s *Store) Extend(ctx context.Context, key, version string, until time.Time) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	if err := s.extend(ctx, key, version, wholeSecond(until)); err != nil {
		return fmt.Errorf("extend the lock of %s: %w", key, err)
	}
	return nil
}

func (s *Store) extend(ctx context.Context, key, version string, until time.Time) error {
	l, err := s.locked(ctx, key, version)
	if err != nil {
		return err
	}
	if !until.After(l.until) {
		return nil
	}
	mode := s.o.Lock.mode()
	if l.mode == minio.Compliance {
		mode = minio.Compliance
	}
	asked := s.client.PutObjectRetention(ctx, s.o.Bucket, key, minio.PutObjectRetentionOptions{
		Mode: &mode, RetainUntilDate: &until, VersionID: l.version,
	})
	// The answer is not what counts: another daemon may have been faster, and a 200 is only a word.
	now, err := s.locked(ctx, key, l.version)
	switch {
	case asked != nil && (err != nil || now.until.Before(until)):
		return fault(asked)
	case err != nil:
		return err
	case now.until.Before(until):
		return fmt.Errorf("the server says yes, and the lock still ends %s", now.until.Format(time.RFC3339))
	}
	return nil
}

// Hold implements [storage.Locker]. Version "" is the newest.
func (s *Store) Hold(ctx context.Context, key, version string, on bool) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	if err := s.hold(ctx, key, version, on); err != nil {
		return fmt.Errorf("hold %s: %w", key, err)
	}
	return nil
}

func (s *Store) hold(ctx context.Context, key, version string, on bool) error {
	l, err := s.locked(ctx, key, version)
	if err != nil || l.hold == on {
		return err
	}
	status := minio.LegalHoldDisabled
	if on {
		status = minio.LegalHoldEnabled
	}
	if err := s.client.PutObjectLegalHold(ctx, s.o.Bucket, key, minio.PutObjectLegalHoldOptions{VersionID: l.version, Status: &status}); err != nil {
		return fault(err)
	}
	now, err := s.locked(ctx, key, l.version)
	if err != nil {
		return err
	}
	if now.hold != on {
		return fmt.Errorf("the server says yes, and the hold is still %v", now.hold)
	}
	return nil
}
