// Package storagetest holds every [storage.Store] to the promises of its interface.
//
// A store's test is three lines:
//
//	func TestStore(t *testing.T) {
//		storagetest.Test(t, func(t *testing.T) storage.Store { … })
//	}
//
// Each check of [Checks] stands for a sentence of the interface's comments and answers with an error that
// says what was promised and what was got, so that the suite itself is tested: stores with planted bugs must
// be found out. Promises of the optional interfaces are checked where the store has them. What needs
// more than one process, a power cut or a disk that is full is the business of the implementation's tests.
//
// [Mem] is a store in memory that polices its caller, for tests of everything above a store.
package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
)

// patience is how long one check may take before its context ends.
const patience = 60 * time.Second

// Check is one promise.
type Check struct {
	Name string
	// Run tries the promise on a store and returns what was broken. It uses keys under the name's own
	// producer, so that one empty store can serve all checks.
	Run func(ctx context.Context, s storage.Store) error
}

// Test runs every check against stores that open returns. open is called once per check; each store it
// returns is empty, or at least empty under the producers the checks use.
func Test(t *testing.T, open func(t *testing.T) storage.Store) {
	for _, check := range Checks() {
		t.Run(check.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := check.Run(ctx, open(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Checks returns the suite.
func Checks() []Check {
	return []Check{
		{"created-object-reads-back", createdReadsBack},
		{"put-keeps-no-hold-on-the-callers-bytes", putCopies},
		{"second-put-is-refused", secondPutRefused},
		{"slow-put-is-invisible-and-loses-to-a-fast-one", slowAgainstFast},
		{"of-concurrent-puts-one-wins", oneWins},
		{"concurrent-puts-share-new-directories", newDirectories},
		{"other-bytes-than-announced-are-refused", otherBytes},
		{"failed-reader-leaves-nothing", failedReader},
		{"cancelled-put-leaves-nothing", cancelledPut},
		{"keys-outside-the-alphabet-are-refused", badKeys},
		{"key-under-an-object-hurts-nothing", nestedKeys},
		{"ranges", ranges},
		{"missing-object-is-not-found", missing},
		{"listing-is-ordered-and-resumes", listing},
		{"listing-stays-whole-while-others-write", listingUnderWrites},
		{"cancelled-reads-end", cancelledReads},
		{"locks-hold-and-never-shorten", locks},
		{"holds-forbid-erasure", holding},
		{"versions-stay-what-they-were", versionsKept},
		{"erase-says-why-and-leaves-nothing", erasing},
		{"restore-brings-exactly-the-bytes-named", restoring},
		{"replace-is-atomic-and-for-derived-objects-only", replacing},
		{"staged-object-is-put-as-sealed", staging},
		{"unput-staged-object-vanishes", unputStaged},
		{"protection-is-named", protection},
	}
}

// sample returns n bytes that depend on seed.
func sample(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// options announces data truthfully.
func options(data []byte) storage.PutOptions {
	return storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)}
}

func put(ctx context.Context, s storage.Store, key string, data []byte) error {
	return s.Put(ctx, key, bytes.NewReader(data), options(data))
}

// read gets a range and closes the reader.
func read(ctx context.Context, s storage.Store, key string, offset, n int64) ([]byte, error) {
	r, err := s.Get(ctx, key, "", offset, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// holds checks that key has exactly the bytes of want, by Get, Stat and List.
func holds(ctx context.Context, s storage.Store, key string, want []byte) error {
	got, err := read(ctx, s, key, 0, -1)
	if err != nil {
		return fmt.Errorf("get %s: got %w, want its bytes", key, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("get %s: got %s, want %s", key, brief(got), brief(want))
	}
	o, err := s.Stat(ctx, key)
	if err != nil {
		return fmt.Errorf("stat %s: got %w, want its size", key, err)
	}
	if o.Key != key || o.Size != int64(len(want)) || len(o.Versions) == 0 {
		return fmt.Errorf("stat %s: got %+v, want the key, size %d and a version", key, o, len(want))
	}
	if v := o.Versions[0]; v.Key != key || !v.Latest || v.Marker || v.Size != o.Size {
		return fmt.Errorf("stat %s: got newest version %+v, want the latest with size %d", key, v, o.Size)
	}
	all, err := storage.History(ctx, s, key)
	if err != nil || len(all) != len(o.Versions) {
		return fmt.Errorf("history of %s: got %+v, %w, want the versions that Stat tells: %+v", key, all, orNil(err), o.Versions)
	}
	for i := range all {
		if all[i].ID != o.Versions[i].ID || all[i].Marker != o.Versions[i].Marker {
			return fmt.Errorf("history of %s: got %+v, want the versions that Stat tells: %+v", key, all, o.Versions)
		}
	}
	found := 0
	for v, err := range s.List(ctx, key, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", key, err)
		}
		if v.Key == key && v.Latest {
			found++
			if v.Size != o.Size || v.Marker || v.ID != o.Versions[0].ID {
				return fmt.Errorf("list %s: got %+v, want what Stat says: %+v", key, v, o.Versions[0])
			}
		}
	}
	if found != 1 {
		return fmt.Errorf("list %s: got the latest version %d times, want once", key, found)
	}
	return nil
}

// absent checks that nothing can be seen under key.
func absent(ctx context.Context, s storage.Store, key string) error {
	if data, err := read(ctx, s, key, 0, -1); !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("get %s: got %s, %w, want ErrNotFound", key, brief(data), orNil(err))
	}
	if o, err := s.Stat(ctx, key); !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("stat %s: got %+v, %w, want ErrNotFound", key, o, orNil(err))
	}
	if all, err := storage.History(ctx, s, key); !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("history of %s: got %+v, %w, want ErrNotFound", key, all, orNil(err))
	}
	for v, err := range s.List(ctx, key, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", key, err)
		}
		return fmt.Errorf("list %s: got %+v, want nothing", key, v)
	}
	return nil
}

// refused checks that err is the one wanted.
func refused(what string, err, want error) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("%s: got %w, want %w", what, orNil(err), want)
	}
	return nil
}

var errNone = errors.New("no error")

func orNil(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

func brief(b []byte) string {
	return fmt.Sprintf("%d bytes with digest %x", len(b), sha256.Sum256(b))
}
