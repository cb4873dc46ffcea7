package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
)

// List implements [storage.Store]. S3 tells no locks in a listing: RetainUntil is zero; see Stat.
//
// versitygw repeats an entry where a page ends: repetitions are dropped. A listing that goes backwards, or whose
// pages do not advance, is an error, since what it left out could not be told.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		for v, err := range s.versions(ctx, prefix, after) {
			if err != nil {
				yield(storage.Version{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// versions is List before its errors are named.
func (s *Store) versions(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
	return func(yield func(storage.Version, error) bool) {
		start := after
		if !strings.HasPrefix(after, prefix) { // MinIO refuses such a marker
			if start = ""; after > prefix {
				if err := ctx.Err(); err != nil {
					yield(storage.Version{}, err)
				}
				return // all keys with the prefix come before after
			}
		}
		l := &lister{s: s, prefix: prefix, after: after, before: start, seen: map[string]bool{}, yield: yield}
		for failed := 0; ; failed++ {
			at := len(l.seen)
			err := l.pass(ctx)
			if err == nil {
				break
			}
			if l.key != l.began || len(l.seen) > at {
				failed = 0
			}
			if !relist(ctx, failed, err) {
				yield(storage.Version{}, fault(err))
				return
			}
		}
		if l.ended {
			return
		}
		// minio-go ends a cancelled listing without a word.
		if err := ctx.Err(); err != nil {
			yield(storage.Version{}, err)
		}
	}
}

// relists is how often a listing is taken up again where the server failed with a 5xx, without having got any
// further, and relistPause how long is waited before, doubled each time. versitygw fails so when an object goes
// while it walks its folders. Nothing is blurred thereby: a listing changes nothing.
const (
	relists     = 4
	relistPause = 50 * time.Millisecond
)

// relist reports whether a listing that err has ended, having failed so often before, is to be taken up again, and
// waits before it says yes.
func relist(ctx context.Context, failed int, err error) bool {
	if a, ok := answer(err); !ok || a.StatusCode < http.StatusInternalServerError || failed == relists {
		return false
	}
	select {
	case <-time.After(relistPause << failed):
	case <-ctx.Done():
	}
	return true
}

// lister is a listing that can be taken up again.
type lister struct {
	s             *Store
	prefix, after string
	before        string          // the last key before key: where to begin again
	key           string          // the last that was met
	seen          map[string]bool // versions of key that were told
	began         string          // key when this pass began
	again         bool            // this pass has not come to key yet
	ended         bool            // the caller wants no more, or was told why there is no more
	yield         func(storage.Version, error) bool
}

// pass lists on from key until the end, or returns why the server does not.
func (l *lister) pass(ctx context.Context) error {
	pages := &pages{}
	ctx, cancel := context.WithCancel(context.WithValue(ctx, listing{}, pages))
	defer cancel()
	l.began, l.again = l.key, l.key != ""
	var page []minio.ObjectInfo
	turned := 0
	for o := range l.s.client.ListObjectsIter(ctx, l.s.o.Bucket, minio.ListObjectsOptions{
		WithVersions: true, Recursive: true, Prefix: l.prefix, StartAfter: l.before,
	}) {
		if o.Err != nil || pages.count != turned {
			if l.tell(page); l.ended {
				return nil
			}
			page, turned = page[:0], pages.count
		}
		if a, ok := answer(o.Err); ok && (a.Code == minio.XMinioInvalidObjectName || a.Code == "XMinioInvalidResourceName") {
			return nil // says MinIO of a prefix that no key of its can have
		}
		if o.Err != nil {
			return o.Err
		}
		page = append(page, o)
	}
	l.tell(page)
	return nil
}

// tell yields a page. versitygw lists its versions first, and then its delete markers, each in order; others mix them.
func (l *lister) tell(page []minio.ObjectInfo) {
	var versions, markers []minio.ObjectInfo
	for _, o := range page {
		if o.IsDeleteMarker {
			markers = append(markers, o)
		} else {
			versions = append(versions, o)
		}
	}
	for len(versions)+len(markers) > 0 && !l.ended {
		from := &versions
		if len(versions) == 0 || len(markers) > 0 && before(markers[0], versions[0]) {
			from = &markers
		}
		l.one((*from)[0])
		*from = (*from)[1:]
	}
}

// before reports whether a marker stands before a version: its key does, or it is newer.
func before(marker, version minio.ObjectInfo) bool {
	if marker.Key != version.Key {
		return marker.Key < version.Key
	}
	return marker.IsLatest || !version.IsLatest && marker.LastModified.After(version.LastModified)
}

// one yields one entry, unless it was told before.
func (l *lister) one(o minio.ObjectInfo) {
	if !strings.HasPrefix(o.Key, l.prefix) || o.Key <= l.after || l.again && o.Key < l.key {
		return // the latter was made since, behind what was told
	}
	l.again = false
	if o.Key < l.key {
		l.ended = true
		l.yield(storage.Version{}, fmt.Errorf("the server lists %q after %q: not in order, so perhaps not whole", o.Key, l.key))
		return
	}
	if o.Key > l.key {
		if l.key != "" {
			l.before = l.key
		}
		l.key = o.Key
		clear(l.seen)
	}
	if l.seen[o.VersionID] {
		return
	}
	l.seen[o.VersionID] = true
	l.ended = !l.yield(storage.Version{Key: o.Key, ID: o.VersionID, Size: o.Size, Latest: o.IsLatest, Marker: o.IsDeleteMarker}, nil)
}

// listing is, in a context, the key of its pages.
type listing struct{}

// pages is one listing as its requests go out. minio-go follows a server's markers wherever they lead: a
// page that says "more" and moves no marker would be asked for without end.
type pages struct {
	key, version string
	count        int // of requests
}

// turn looks at the query of the next page.
func (p *pages) turn(q url.Values) error {
	if !q.Has("versions") {
		return nil
	}
	key, version := q.Get("key-marker"), q.Get("version-id-marker")
	if p.count > 0 && (key < p.key || key == p.key && version == p.version) {
		return fmt.Errorf("the server's listing does not advance after %q", p.key)
	}
	p.key, p.version = key, version
	p.count++
	return nil
}

// versionLimit bounds the versions of one key that are looked at. Nobody of ours makes more than a few.
const versionLimit = 10_000

// history returns the versions and markers of one key, newest first, without their locks.
func (s *Store) history(ctx context.Context, key string) ([]storage.Version, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all []storage.Version
	for v, err := range s.versions(ctx, key, "") {
		if err != nil {
			return nil, err
		}
		if v.Key != key {
			break // those of one key come together, before all longer keys
		}
		if len(all) == versionLimit {
			return nil, fmt.Errorf("more than %d versions: somebody floods the key", versionLimit)
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		return nil, storage.ErrNotFound
	}
	return all, nil
}

// History implements [storage.Historian] with one request.
func (s *Store) History(ctx context.Context, key string) ([]storage.Version, error) {
	if err := storage.ValidKey(key); err != nil {
		return nil, fmt.Errorf("versions: %w", err)
	}
	all, err := s.history(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("versions of %s: %w", key, err)
	}
	return all, nil
}

// lookedAt is how many versions of a key Stat asks for their locks.
const lookedAt = 16

// Stat implements [storage.Store]. The locks of the newest 16 versions are told.
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := storage.ValidKey(key); err != nil {
		return storage.Object{}, fmt.Errorf("stat: %w", err)
	}
	o, err := s.stat(ctx, key)
	if err != nil {
		return storage.Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return o, nil
}

func (s *Store) stat(ctx context.Context, key string) (storage.Object, error) {
	all, err := s.history(ctx, key)
	if err != nil {
		return storage.Object{}, err
	}
	for i := range all[:min(len(all), lookedAt)] {
		if all[i].Marker {
			continue
		}
		version := all[i].ID
		if all[i].Latest {
			version = "" // one request
		}
		l, err := s.locked(ctx, key, version)
		if err == nil && l.version != all[i].ID {
			continue // another was laid on top since
		}
		if errors.Is(err, storage.ErrNotFound) {
			continue // erased since
		}
		if err != nil {
			return storage.Object{}, err
		}
		all[i].RetainUntil = l.until
	}
	return storage.Object{Key: key, Size: all[0].Size, RetainUntil: all[0].RetainUntil, Versions: all}, nil
}
