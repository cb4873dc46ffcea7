package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
)

// Get implements [storage.Store]. Bytes of another range, version or length than asked for are an error: before
// the first byte where the answer's head betrays them, else in place of io.EOF.
func (s *Store) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	if err := storage.ValidKey(key); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	if offset < 0 {
		return nil, fmt.Errorf("get %s: offset %d", key, offset)
	}
	r, err := s.get(ctx, key, version, offset, n)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return r, nil
}

func (s *Store) get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o := minio.GetObjectOptions{VersionID: version}
	first, last, ranged := span(offset, n)
	if ranged {
		// SetRange has no way to say "from 0 to the end", which is the whole object but for n beyond all bounds.
		o.Set("Range", rangeHeader(first, last))
	}
	body, _, h, err := s.client.GetObject(context.WithValue(ctx, object{}, true), s.o.Bucket, key, o)
	if a, ok := answer(err); ok && (a.StatusCode == http.StatusRequestedRangeNotSatisfiable || a.Code == minio.InvalidRange) {
		return s.nothing(ctx, key, version) // it is there, and ends before offset
	}
	if err != nil {
		return nil, ofVersion(err, version)
	}
	length, err := checkHead(h, version, first, last, ranged)
	l := lock{}
	if err == nil {
		l, err = lockOf(h)
	}
	if err != nil {
		return nil, errors.Join(err, body.Close())
	}
	r := &reader{ctx: ctx, body: body, left: length, lock: l}
	if l.until.IsZero() {
		r.ask = func() (lock, error) {
			now, err := s.locked(ctx, key, version)
			if err == nil && now.version != l.version {
				return s.locked(ctx, key, l.version)
			}
			return now, err
		}
	}
	if n == 0 {
		r.body, r.left = http.NoBody, 0
		return r, body.Close()
	}
	return r, nil
}

// nothing is a reader of no bytes of a version that the server has told nothing of.
func (s *Store) nothing(ctx context.Context, key, version string) (io.ReadCloser, error) {
	l, err := s.locked(ctx, key, version)
	if err != nil {
		return nil, err
	}
	return &reader{ctx: ctx, body: http.NoBody, lock: l}, nil
}

// toEnd is the last byte of a range without one.
const toEnd = math.MaxInt64

// span is what a Range header says of n bytes from offset. For no bytes one is asked: the answer tells whether the
// object is there.
func span(offset, n int64) (first, last int64, ranged bool) {
	switch {
	case n < 0 && offset == 0:
		return 0, toEnd, false
	case n < 0, n > toEnd-offset:
		return offset, toEnd, true
	default:
		return offset, offset + max(n, 1) - 1, true
	}
}

// ofVersion is fault where a version was asked for: servers have more than one way to say that it is none.
func ofVersion(err error, version string) error {
	a, ok := answer(err)
	if ok && version != "" {
		switch {
		case a.StatusCode == http.StatusMethodNotAllowed: // a delete marker
			return fmt.Errorf("%w: version %q is a delete marker", storage.ErrNotFound, version)
		case a.Code == minio.InvalidArgument, a.Code == "InvalidVersionId":
			return fmt.Errorf("%w: version %q is none of this server's", storage.ErrNotFound, version)
		}
	}
	return fault(err)
}

// checkHead compares the head of an answer with what was asked, and returns the length of its body.
func checkHead(h http.Header, version string, first, last int64, ranged bool) (int64, error) {
	length, ok := number(h.Get("Content-Length"))
	if !ok {
		return 0, fmt.Errorf("the server's answer has length %q: where it ends could not be told", h.Get("Content-Length"))
	}
	if got := h.Get("X-Amz-Version-Id"); version != "" && got != version {
		return 0, fmt.Errorf("the server gives version %q instead of %q", got, version)
	}
	if !ranged {
		return length, nil
	}
	a, b, size, ok := contentRange(h.Get("Content-Range"))
	if !ok || a != first || b >= size || b-a+1 != length || b != min(size-1, last) {
		return 0, fmt.Errorf("the server gives range %q of %d bytes instead of %d to %d", h.Get("Content-Range"), length, first, last)
	}
	return length, nil
}

func rangeHeader(first, last int64) string {
	if last == toEnd {
		return fmt.Sprintf("bytes=%d-", first)
	}
	return fmt.Sprintf("bytes=%d-%d", first, last)
}

// contentRange reads "bytes first-last/size".
func contentRange(s string) (first, last, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, of, ok2 := strings.Cut(s, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, false
	}
	first, ok = number(from)
	last, ok2 = number(to)
	size, ok3 = number(of)
	return first, last, size, ok && ok2 && ok3 && first <= last
}

// number reads digits, and digits only.
func number(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// reader gives exactly left bytes of an answer's body, or an error.
type reader struct {
	ctx  context.Context
	body io.ReadCloser
	left int64
	lock lock
	ask  func() (lock, error) // for the lock, where the answer told of none
	err  error                // of ask
}

var _ storage.Described = (*reader)(nil)

// Version implements [storage.Described].
func (r *reader) Version() string { return r.lock.version }

// RetainUntil implements [storage.Described]. versitygw tells locks to HEAD and never to GET: where the answer has
// none it is asked once more, and Close tells if that failed, so that no lock is found wanting for it.
func (r *reader) RetainUntil() time.Time {
	if r.ask != nil {
		var l lock
		if l, r.err = r.ask(); r.err == nil {
			r.lock.until = l.until
		}
		r.ask = nil
	}
	return r.lock.until
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.body.Read(p)
	r.left -= int64(n)
	switch {
	case r.left < 0:
		return 0, errors.New("the server gives more bytes than it said")
	case err == io.EOF && r.left > 0:
		return n, fmt.Errorf("%d bytes before the end: %w", r.left, io.ErrUnexpectedEOF)
	case err != nil && err != io.EOF && r.ctx.Err() != nil:
		return n, errors.Join(r.ctx.Err(), err)
	}
	return n, err
}

func (r *reader) Close() error {
	if r.err != nil {
		return errors.Join(fmt.Errorf("ask for the lock: %w", r.err), r.body.Close())
	}
	return r.body.Close()
}

// same tells whether the n bytes of a reader are those with the digest, reading them all.
func same(r io.Reader, o storage.PutOptions) (bool, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, io.LimitReader(r, o.Size+1), make([]byte, 64<<10))
	if err != nil {
		return false, err
	}
	return n == o.Size && bytes.Equal(h.Sum(nil), o.SHA256[:]), nil
}
