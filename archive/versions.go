package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/marchesud/perenne/storage"
)

// A key means its matching version: the one whose digest the ledger names. Whoever may write to a bucket can put a
// newer version, or a delete marker, over an object that its lock keeps; everything here that reads an object
// named by the ledger comes through this file, and goes on reading the one that is meant. As long as the newest
// version is that one, nothing is asked of the store that would not be asked anyway. A version that the store does not
// give is one that may not be the one meant: the others are read all the same.

// version is one that was found to be the one meant.
type version struct {
	contents
	id  string
	all []storage.Version // of its key, newest first, markers too
}

// matching reads the versions of a key, newest first, until one has exactly size bytes, where that is known and not
// negative, with this digest. storage.ErrNotFound: none has; any other error, that none of those that were read has, and
// that one was not. second is as for readDigest.
func matching(ctx context.Context, s storage.Store, key string, size int64, sum string, second func() hash.Hash) (version, error) {
	all, err := storage.History(ctx, s, key)
	if err != nil {
		return version{}, err
	}
	none := fmt.Errorf("%s: no version has the bytes that the ledger names: %w", key, storage.ErrNotFound)
	for _, v := range all {
		if v.Marker || size >= 0 && v.Size != size {
			continue
		}
		got, err := readDigest(ctx, s, key, v.ID, second)
		if err == nil && got.is(size, sum) {
			return version{got, v.ID, all}, nil
		}
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			none = fmt.Errorf("version %q: %w", v.ID, err)
		}
	}
	return version{all: all}, none
}

// openNamed opens the object that an entry names; a size that is not known is negative. Where there is more than one
// version, or the store says nothing of the newest, the matching one is found first; where none matches the newest is
// opened, and whoever reads it finds out.
func openNamed(ctx context.Context, s storage.Store, key string, size int64, sum string) (*object, error) {
	o, err := openObject(ctx, s, key)
	if errors.Is(err, storage.ErrNotFound) || err == nil && len(o.versions) == 1 && !o.versions[0].Marker {
		return o, err
	}
	v, other := matching(ctx, s, key, size, sum, nil)
	switch {
	case other == nil:
		return &object{ctx: ctx, store: s, key: key, size: v.size, version: v.id, versions: v.all}, nil
	case !errors.Is(other, storage.ErrNotFound):
		return nil, &readError{fmt.Errorf("open %s: %w", key, other)}
	}
	return o, err
}

// readNamed reads the small object that an entry names, whole.
func readNamed(ctx context.Context, s storage.Store, key string, size int64, sum string, limit int64) ([]byte, error) {
	text, err := readSmall(ctx, s, key, "", limit)
	if got := sha256.Sum256(text); err == nil && hex.EncodeToString(got[:]) == sum {
		return text, nil
	}
	v, other := matching(ctx, s, key, size, sum, nil)
	switch {
	case other == nil:
		return readSmall(ctx, s, key, v.id, limit)
	case errors.Is(other, storage.ErrNotFound), unread(err):
		return text, err
	}
	return nil, &readError{other}
}

// contents is what an object turned out to hold.
type contents struct {
	size   int64
	sha256 [32]byte
	sha512 string
	told   bool // the store said until when it is locked
	until  time.Time
}

// is reports whether it is what an entry names.
func (c contents) is(size int64, sum string) bool {
	return (size < 0 || c.size == size) && hex.EncodeToString(c.sha256[:]) == sum
}

// readDigest reads a version of an object, "" for the newest, whole in one request; second, when not nil, makes a
// SHA-512 to feed as well.
func readDigest(ctx context.Context, s storage.Store, key, id string, second func() hash.Hash) (contents, error) {
	return readTold(ctx, s, key, id, second, false)
}

// readTold is readDigest that also takes note of the lock, which costs a request on some stores.
func readTold(ctx context.Context, s storage.Store, key, id string, second func() hash.Hash, lock bool) (contents, error) {
	r, err := s.Get(ctx, key, id, 0, -1)
	if err != nil {
		return contents{}, err
	}
	first := sha256.New()
	var to io.Writer = first
	var other hash.Hash
	if second != nil {
		other = second()
		to = io.MultiWriter(first, other)
	}
	buf := make([]byte, 32<<10)
	n, err := io.CopyBuffer(onlyWriter{to}, &cancellable{ctx, r}, buf)
	got := contents{size: n}
	if d, ok := r.(storage.Described); ok && lock {
		got.told, got.until = true, d.RetainUntil()
	}
	first.Sum(got.sha256[:0])
	if other != nil {
		got.sha512 = hex.EncodeToString(other.Sum(nil))
	}
	return got, errors.Join(err, r.Close())
}

// onlyWriter hides ReadFrom, which would make io.CopyBuffer ignore the buffer.
type onlyWriter struct{ io.Writer }
