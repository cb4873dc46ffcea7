package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
)

// inParts sends an object in parts:
//
//	begin the upload, with the lock     crash here, or at a part: an incomplete upload, aborted after a day by Sweep
//	each part with its SHA-256
//	compare the digest of the whole     other bytes than announced: abort, nothing was stored
//	complete, with the condition        crash here: the outcome is unknown, as after any Put
//	read the object back                other bytes: ErrUnknown, and the caller's own reading finds them
func (s *Store) inParts(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions, ifNone bool) (version string, err error) {
	p := s.putOptions(o)
	p.UserMetadata = map[string]string{"X-Amz-Checksum-Algorithm": "SHA256"}
	id, err := s.client.NewMultipartUpload(ctx, s.o.Bucket, key, p)
	if err != nil {
		return "", unborn(err)
	}
	if id == "" {
		return "", errors.New("the server's success names no upload")
	}
	sum, parts, err := s.send(ctx, key, id, r, o.Size)
	if err == nil && sum != o.SHA256 {
		err = fmt.Errorf("%w: the bytes sent have %x", storage.ErrDigest, sum)
	}
	if err != nil {
		s.abort(ctx, key, id)
		return "", err
	}
	version, err = s.complete(ctx, key, id, parts, o.Size, ifNone)
	if err != nil {
		s.abort(ctx, key, id)
		return "", err
	}
	if err := s.readBack(ctx, key, version, o); err != nil {
		s.abort(ctx, key, id)
		return "", err
	}
	return version, nil
}

// send sends the parts, a few at a time, and returns the digest of the whole.
func (s *Store) send(ctx context.Context, key, id string, r io.ReaderAt, size int64) (sum [32]byte, parts []minio.CompletePart, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts = make([]minio.CompletePart, (size+s.o.Part-1)/s.o.Part)
	whole := sha256.New()
	var sending sync.WaitGroup
	for i := range parts {
		from := int64(i) * s.o.Part
		src := &source{ctx: ctx, r: r, off: from, end: min(from+s.o.Part, size)}
		if !s.mayPart(ctx) {
			break
		}
		digest, err := digested(src, whole)
		if err != nil {
			<-s.parts
			cancel(err)
			break
		}
		src.off = from
		sending.Go(func() {
			defer func() { <-s.parts }()
			var err error
			if parts[i], err = s.part(ctx, key, id, i+1, src, digest); err != nil {
				cancel(err)
			}
		})
	}
	sending.Wait()
	if err := context.Cause(ctx); err != nil {
		return sum, nil, err
	}
	return [32]byte(whole.Sum(nil)), parts, nil
}

// mayPart waits for the right to send a part, which the caller gives back with <-s.parts; false when ctx has ended
// first, and then there is nothing to give back.
func (s *Store) mayPart(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case s.parts <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// digested reads a part, for its own digest and that of the whole.
func digested(src *source, whole io.Writer) (string, error) {
	h := sha256.New()
	if _, err := io.CopyBuffer(io.MultiWriter(h, whole), src, make([]byte, 64<<10)); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}

func (s *Store) part(ctx context.Context, key, id string, n int, src *source, digest string) (minio.CompletePart, error) {
	defer src.finish()
	p, err := s.client.PutObjectPart(ctx, s.o.Bucket, key, id, n, src, src.end-src.off, minio.PutObjectPartOptions{
		DisableContentSha256: true, CustomHeader: http.Header{sha256Header: {digest}},
	})
	if err != nil {
		return minio.CompletePart{}, src.blame(unborn(err))
	}
	if p.ETag == "" {
		return minio.CompletePart{}, errors.New("the server's success names no part")
	}
	return minio.CompletePart{PartNumber: n, ETag: p.ETag, ChecksumSHA256: digest}, nil
}

// slowest is the rate, in bytes a second, at which a server is trusted to put parts together without a word.
const slowest = 8 << 20

func (s *Store) complete(ctx context.Context, key, id string, parts []minio.CompletePart, size int64, ifNone bool) (string, error) {
	var p minio.PutObjectOptions
	if ifNone {
		p.SetMatchETagExcept("*")
	}
	ctx = context.WithValue(ctx, patience{}, time.Duration(size/slowest)*time.Second)
	up, err := s.client.CompleteMultipartUpload(ctx, s.o.Bucket, key, id, parts, p)
	if err != nil {
		return "", outcome(err)
	}
	return s.accepted(up)
}

// abort ends an upload that came to nothing, also when its Put was cancelled. It has no effect on one that was
// completed after all, and what it misses Sweep finds.
func (s *Store) abort(ctx context.Context, key, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	_ = s.client.AbortMultipartUpload(ctx, s.o.Bucket, key, id)
}

// readBack compares what the server has now with what it was given.
func (s *Store) readBack(ctx context.Context, key, version string, o storage.PutOptions) error {
	r, err := s.get(ctx, key, version, 0, -1)
	if err != nil {
		return fmt.Errorf("%w: read back: %w", storage.ErrUnknown, err)
	}
	right, err := same(r, o)
	switch err := errors.Join(err, r.Close()); {
	case err != nil:
		return fmt.Errorf("%w: read back: %w", storage.ErrUnknown, err)
	case !right:
		return fmt.Errorf("%w: read back other bytes than were sent, version %s", storage.ErrUnknown, version)
	}
	return nil
}

// abandoned is how old an incomplete upload must be for nobody to be at it any more.
const abandoned = 24 * time.Hour

// Sweep aborts incomplete uploads older than a day, which crashes leave and which cost room; it says how many.
// MinIO lists only uploads of a key asked for by name, and clears old ones away itself.
func (s *Store) Sweep(ctx context.Context) (aborted int, err error) {
	limit := s.o.Now().Add(-abandoned)
	var key, id string
	for {
		page, err := s.client.ListMultipartUploads(ctx, s.o.Bucket, "", key, id, "", 1000)
		if err != nil {
			return aborted, fmt.Errorf("sweep: %w", fault(err))
		}
		for _, u := range page.Uploads {
			if !u.Initiated.Before(limit) {
				continue
			}
			err := s.client.AbortMultipartUpload(ctx, s.o.Bucket, u.Key, u.UploadID)
			if a, ok := answer(err); ok && a.Code == minio.NoSuchUpload {
				continue
			}
			if err != nil {
				return aborted, fmt.Errorf("sweep %s: %w", u.Key, fault(err))
			}
			aborted++
		}
		if !page.IsTruncated {
			return aborted, nil
		}
		if page.NextKeyMarker < key || page.NextKeyMarker == key && page.NextUploadIDMarker == id {
			return aborted, fmt.Errorf("sweep: the server's listing does not advance after %q", key)
		}
		key, id = page.NextKeyMarker, page.NextUploadIDMarker
	}
}
