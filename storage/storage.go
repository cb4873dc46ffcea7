// Package storage says what Perenne asks of the place where its objects lie, and what it promises them.
//
// A store maps keys to objects. An object is created once, whole, and never changes: nothing in [Store]
// overwrites. What a lawful disposal, a repair or a derived object needs stands in optional interfaces
// beside it ([Locker], [Eraser], [Restorer], [Replacer], [Adopter], [Stager], [Prober]), found by type assertion.
//
// # Keys
//
// Keys use Perenne's own alphabet only, because on real servers two keys can otherwise be one object:
// components of 1 to 200 characters from a-z, A-Z, 0-9, '-', '_' and '.', none starting with '.', joined by
// single slashes, at most 800 bytes; no key is a directory of another. [ValidKey] is the judge.
//
// # What is trusted
//
// Nothing. The ledger names the SHA-256 of every object; a store that loses or changes one is found out by
// the audit. The promises below are what the order of effects rests on, and storagetest holds every
// implementation to them.
package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// The few errors a caller acts upon. Implementations wrap them with the operation and the key.
var (
	// ErrNotFound: no object lies under the key (or under the version asked for).
	ErrNotFound = errors.New("no such object")
	// ErrExists: an object lies under the key already; it was not touched.
	ErrExists = errors.New("object exists already")
	// ErrDigest: the bytes offered are not Size bytes with the SHA-256 announced; nothing was stored.
	ErrDigest = errors.New("bytes differ from the digest announced")
	// ErrUnknown: it cannot be said whether the object was created. The caller reads back.
	ErrUnknown = errors.New("outcome unknown")
	// ErrFull: no room (bytes or inodes) or quota reached; nothing was stored.
	ErrFull = errors.New("store is full")
	// ErrLocked: the object may not be erased yet.
	ErrLocked = errors.New("object is locked")
	// ErrKey: the key is outside the alphabet of the package comment.
	ErrKey = errors.New("invalid key")
)

// PutOptions describes the object to be created.
type PutOptions struct {
	// Size is the exact number of bytes that r gives.
	Size int64
	// SHA256 is the digest of those bytes. A store refuses (ErrDigest) other bytes.
	SHA256 [32]byte
	// RetainUntil asks the store to lock the object until then; zero asks for no lock. A store without
	// dates of its own (the embedded one) ignores it: there retention is the ledger's.
	RetainUntil time.Time
}

// Store holds immutable objects. All methods may be called concurrently, from several processes.
type Store interface {
	// Put creates key with exactly the bytes r[0:Size]. When it returns nil, the object is whole, durable
	// against a power cut as far as the store can promise it, and visible to every later Get, Stat and List
	// of every process. Of any number of concurrent Puts of one key at most one returns nil; the others get
	// ErrExists, even when their bytes are the same. ErrExists is given only for an object that is as durable
	// as if its Put had returned nil here: a caller that finds its own bytes under key may rest on them.
	// A failed or interrupted Put leaves nothing under key.
	// Any error that is not one of this package's, and ErrUnknown, mean that the outcome is unknown.
	// Put does not retry and may read r more than once.
	Put(ctx context.Context, key string, r io.ReaderAt, o PutOptions) error

	// Get opens n bytes from offset of the object, n < 0 meaning all the rest; version "" means the
	// newest. The bytes are as the store has them: callers check digests. A missing object is ErrNotFound,
	// before the first byte. A range that ends beyond the object gives what there is, then io.EOF.
	// On a store with versions or dates the reader is also [Described].
	Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error)

	// Stat tells what the store says of key: evidence of nothing, since only reading proves bytes.
	// ErrNotFound when there is no version at all.
	Stat(ctx context.Context, key string) (Object, error)

	// List yields every version and delete marker of the keys that begin with prefix and are greater than
	// after, in ascending key order, newest version first, none twice. Keys outside the alphabet of the
	// package comment are yielded too (somebody put them there: they are findings); unfinished
	// writes of the store's own are not. A listing is not a snapshot.
	List(ctx context.Context, prefix, after string) iter.Seq2[Version, error]
}

// Object is what a store says of a key.
type Object struct {
	Key         string
	Size        int64     // bytes of the newest version
	RetainUntil time.Time // lock of the newest version; zero when none
	Versions    []Version // newest first, delete markers included; exactly one on a store without versions
}

// Version is one version, or delete marker, of a key.
type Version struct {
	Key         string
	ID          string // "" on a store without versions
	Size        int64
	Latest      bool
	Marker      bool // a delete marker
	RetainUntil time.Time
}

// Historian is a store that tells which versions there are with fewer requests than Stat, which tells their locks too.
type Historian interface {
	// History tells the versions and delete markers of key, newest first, as List does: their locks need not be there.
	// ErrNotFound when there are none.
	History(ctx context.Context, key string) ([]Version, error)
}

// History is that of [Historian], or what Stat tells.
func History(ctx context.Context, s Store, key string) ([]Version, error) {
	if h, ok := s.(Historian); ok {
		return h.History(ctx, key)
	}
	o, err := s.Stat(ctx, key)
	return o.Versions, err
}

// Versions yields the versions of key that are no delete markers, newest first: where the newest object is not the
// one that is meant, an older one may be. ErrNotFound when there is not even a marker.
func Versions(ctx context.Context, s Store, key string) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		all, err := History(ctx, s, key)
		if err != nil {
			yield(Version{}, err)
			return
		}
		for _, v := range all {
			if !v.Marker && !yield(v, nil) {
				return
			}
		}
	}
}

// Described is what a reader that Get returned says of the version it reads, from the headers of the same answer:
// no further request is made for it. Audits read locks from it, so a store that has locks implements it on every
// reader; the embedded one has neither versions nor dates, and does not.
type Described interface {
	// Version is the version being read, as List names it.
	Version() string
	// RetainUntil is the end of its lock; zero when it has none.
	RetainUntil() time.Time
}

// Keeper keeps exact bytes of objects apart from the store: the spool, a copy of the bucket. Repairs ask it for
// what the store has lost.
type Keeper interface {
	// Recall opens bytes kept for key: those with this SHA-256; where sum is zero, since nobody knows it, the
	// newest. ErrNotFound when there are none. The caller checks what it reads.
	Recall(ctx context.Context, key string, sum [32]byte) (io.ReadCloser, error)
}

// Sweeper is a store in which crashes leave what no listing shows and what costs room.
type Sweeper interface {
	// Sweep removes what was begun more than a day ago and never became an object; it says how many there were.
	Sweep(ctx context.Context) (removed int, err error)
}

// Locker is a store that keeps retention dates itself.
type Locker interface {
	// Extend moves the lock of a version to until; it never shortens one.
	Extend(ctx context.Context, key, version string, until time.Time) error
	// Hold sets or lifts a legal hold.
	Hold(ctx context.Context, key, version string, on bool) error
}

// Eraser removes an object for good. Only disposal, and the clearing of orphans whose lock has ended, call it.
type Eraser interface {
	// Erase removes a version of key, or all of them and their markers when version is ""; why names the
	// ledger entry or the reason that allows it and must not be empty. ErrLocked when a lock or hold still
	// stands; ErrNotFound when there is nothing. When it returns nil the removal is durable.
	Erase(ctx context.Context, key, version, why string) error
}

// Adopter is a store that answers for what it was given, until the place where it lies has proved to keep it: the spool.
// Whoever rests an answer on an object that somebody else put has it adopted first.
type Adopter interface {
	// Adopt takes over the answer for an object that lies under key already: when it returns nil, exactly the bytes
	// r[0:Size] are as safe as if their Put had returned nil here. It writes nothing under key. Where those bytes are
	// taken from the store, ErrDigest says that it gave others than the caller announces. ErrFull: no room for them.
	Adopt(ctx context.Context, key string, r io.ReaderAt, o PutOptions) error
}

// Restorer puts back an object that a store has lost or damaged.
type Restorer interface {
	// Restore makes key hold exactly the bytes r[0:Size] whose SHA256 the ledger names, replacing whatever
	// lies there, under the promises of Put. It answers nil at once when those bytes lie there already.
	Restore(ctx context.Context, key string, r io.ReaderAt, o PutOptions) error
}

// Replacer overwrites derived objects: those whose key is [Replaceable], and no others (ErrKey).
type Replacer interface {
	// Replace makes key hold the bytes r[0:Size], under the promises of Put: a reader sees the old bytes or
	// the new ones, never neither and never a mixture. RetainUntil is not heeded.
	Replace(ctx context.Context, key string, r io.ReaderAt, o PutOptions) error
}

// Stager is a store that lends room of its own for an object under construction, so that its bytes are
// written once: a Put given the Staged as its reader moves it to its key instead of copying it.
type Stager interface {
	Stage(ctx context.Context) (Staged, error)
}

// Staged is an unnamed, growing object. It vanishes at Close unless a Put has given it a key, and
// vanishes with the process.
type Staged interface {
	io.ReaderAt
	io.WriterAt
	// Seal ends writing and returns the size and digest of the bytes, reading them once. A Put of this
	// Staged is made with exactly these (ErrDigest otherwise), and once only: a Put that failed may be
	// repeated, also under another key.
	Seal(ctx context.Context) (size int64, sha256 [32]byte, err error)
	// Close discards the Staged unless it was put. It may be called more than once.
	Close() error
}

// Protector tells in a word what keeps an object from being changed behind Perenne's back.
type Protector interface {
	// Protection is "immutable flag", "object lock COMPLIANCE", …, or "detection only".
	Protection() string
}
