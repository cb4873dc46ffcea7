package s3

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
)

// sha256Header carries the digest that the server compares with what arrives.
const sha256Header = "X-Amz-Checksum-Sha256"

// Put implements [storage.Store].
func (s *Store) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if err := storage.ValidKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	if _, err := s.create(ctx, key, r, o, true); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// create makes a new version of key, under the condition that none is there if ifNone says so, and returns its name.
func (s *Store) create(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions, ifNone bool) (version string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if o.Size < 0 {
		return "", fmt.Errorf("%w: size %d", storage.ErrDigest, o.Size)
	}
	if o.Size > s.o.Single {
		version, err = s.inParts(ctx, key, r, o, ifNone)
	} else {
		version, err = s.atOnce(ctx, key, r, o, ifNone)
	}
	if err != nil && ifNone {
		err = s.settled(ctx, key, err)
	}
	return version, err
}

// atOnce sends an object in one request.
func (s *Store) atOnce(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions, ifNone bool) (version string, err error) {
	p := s.putOptions(o)
	p.UserMetadata = map[string]string{sha256Header: base64.StdEncoding.EncodeToString(o.SHA256[:])}
	if ifNone {
		p.SetMatchETagExcept("*")
	}
	src := &source{ctx: ctx, r: r, end: o.Size}
	defer src.finish()
	up, err := s.client.PutObject(ctx, s.o.Bucket, key, src, o.Size, "", "", p)
	if err != nil {
		return "", src.blame(outcome(err))
	}
	return s.accepted(up)
}

// accepted distrusts a success that says neither what was stored nor as which version: a proxy's error page in a
// 200, or a bucket whose versioning was switched off.
func (s *Store) accepted(up minio.UploadInfo) (version string, err error) {
	if up.ETag == "" || up.VersionID == "" {
		return "", fmt.Errorf("%w: the server's success has ETag %q and version %q; is versioning still on?", storage.ErrUnknown, up.ETag, up.VersionID)
	}
	return up.VersionID, nil
}

// putOptions are those of every new version.
func (s *Store) putOptions(o storage.PutOptions) minio.PutObjectOptions {
	p := minio.PutObjectOptions{ServerSideEncryption: s.sse, DisableContentSha256: true}
	if !o.RetainUntil.IsZero() {
		p.Mode, p.RetainUntilDate = s.o.Lock.mode(), wholeSecond(o.RetainUntil)
	}
	return p
}

// wholeSecond is t, or the next whole second: S3 knows no fractions, and a lock must not be shorter than asked.
func wholeSecond(t time.Time) time.Time {
	if w := t.UTC().Truncate(time.Second); w.Equal(t) {
		return w
	}
	return t.UTC().Truncate(time.Second).Add(time.Second)
}

// source gives the bytes [off, end) of a caller's reader to a request, and remembers why it could not. It gives none
// before it has seen that there is one more, unless they are the last: versitygw takes a body that breaks off for a
// whole one, so what is sent of a reader that is too short must never be all of it.
//
// A request's body may still be read when its answer is there, as when a server refuses before it has read it all:
// after finish nothing is read of r any more, which is the caller's again.
type source struct {
	ctx context.Context
	r   io.ReaderAt
	end int64

	mu  sync.Mutex
	off int64
	err error
}

var errFinished = errors.New("the request is over")

// lacking is the meaning of a reader that gave fewer bytes than asked for, and err.
func lacking(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: fewer bytes than announced", storage.ErrDigest)
	}
	return err
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err != nil {
		return 0, s.err
	}
	if s.off == s.end {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.end-s.off, math.MaxInt32)]
	n, err := s.r.ReadAt(p, s.off)
	if n == len(p) && s.off+int64(n) < s.end {
		var next [1]byte
		if n, err = s.r.ReadAt(next[:], s.off+int64(n)); n == 1 {
			n = len(p)
		}
	}
	if n < len(p) {
		s.err = lacking(err)
		return 0, s.err
	}
	s.off += int64(n)
	return n, nil
}

// blame says whose fault a failed request is: when its bytes could not be had, no whole body was ever sent and
// nothing was stored.
func (s *source) blame(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil && s.off < s.end {
		return s.err
	}
	if cause := s.ctx.Err(); cause != nil {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// finish waits for a read that is under way and lets none follow.
func (s *source) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = errFinished
	}
}
