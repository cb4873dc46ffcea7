package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/marchesud/perenne/storage"
)

func ranges(ctx context.Context, s storage.Store) error {
	const key = "t-ranges/a"
	data := sample(1, 10_000)
	if err := put(ctx, s, key, data); err != nil {
		return err
	}
	for _, r := range []struct{ offset, n, from, to int64 }{
		{0, -1, 0, 10_000},
		{0, 10_000, 0, 10_000},
		{0, 0, 0, 0},
		{0, 1, 0, 1},
		{1, 1, 1, 2},
		{9_999, 1, 9_999, 10_000},
		{4_095, 2, 4_095, 4_097},
		{5_000, -1, 5_000, 10_000},
		{9_990, 100, 9_990, 10_000},
		{10_000, -1, 10_000, 10_000},
		{10_000, 5, 10_000, 10_000},
		{20_000, 5, 10_000, 10_000},
		{1, math.MaxInt64, 1, 10_000},
		{math.MaxInt64, 1, 10_000, 10_000},
	} {
		got, err := read(ctx, s, key, r.offset, r.n)
		if err != nil {
			return fmt.Errorf("get %d bytes from %d of 10000: %w", r.n, r.offset, err)
		}
		if !bytes.Equal(got, data[r.from:r.to]) {
			return fmt.Errorf("get %d bytes from %d of 10000: got %s, want bytes %d to %d", r.n, r.offset, brief(got), r.from, r.to)
		}
	}
	if data, err := read(ctx, s, key, -1, 1); err == nil {
		return fmt.Errorf("get from offset -1: got %s, want an error", brief(data))
	}
	return nil
}

func missing(ctx context.Context, s storage.Store) error {
	if err := put(ctx, s, "t-missing/a/b", []byte("x")); err != nil {
		return err
	}
	for _, key := range []string{"t-missing/x", "t-missing/a/x", "t-missing/a/b/x", "t-missing/a", "t-missing", "t-missing/a/bb"} {
		if _, err := read(ctx, s, key, 0, 0); !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("get %s: got %w, want ErrNotFound", key, orNil(err))
		}
		if _, err := s.Stat(ctx, key); !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("stat %s: got %w, want ErrNotFound", key, orNil(err))
		}
		if _, err := storage.History(ctx, s, key); !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("history of %s: got %w, want ErrNotFound", key, orNil(err))
		}
	}
	r, err := s.Get(ctx, "t-missing/a/b", "no-such-version", 0, -1)
	if err == nil {
		err = errors.Join(errNone, r.Close())
	}
	return refused("get of a version that is not there", err, storage.ErrNotFound)
}

// tangled are keys whose order as bytes is not the order in which directories are walked: '-' and '.' come
// before '/', digits and letters after it.
func tangled() []string {
	keys := []string{
		"t-list/a-b", "t-list/a/b", "t-list/a.b", "t-list/a0", "t-list/aa", "t-list/A", "t-list/a-", "t-list/a_",
		"t-list/a/b-c", "t-list/a/b.c/d", "t-list/a/b-c.d", "t-list/a-b.c/d", "t-list/a-b-/d", "t-list/b/x/y/z",
		"t-list/b/x-y/z", "t-list/b/x.y", "t-list/_", "t-list/-", "t-list/0/0", "t-list/0-0", "t-list-/a",
		"t-list/z/10", "t-list/z/9", "t-list/z/1", "t-list/B/a", "t-list/B.a", "t-list.x", "t-list0/a",
	}
	for i := range 30 {
		keys = append(keys, fmt.Sprintf("t-list/many/%02d/%04d", i%7, i))
	}
	return keys
}

func listing(ctx context.Context, s storage.Store) error {
	keys := tangled()
	for i, key := range keys {
		if err := put(ctx, s, key, sample(1, i)); err != nil {
			return err
		}
	}
	slices.Sort(keys)
	afters := append(slices.Clone(keys), "", "t-list/a/", "t-list/a/b-", "t-list/a/zzz", "t-list/many/03", "t-list/many/03/", "t", "u", "t-list/zz")
	for _, prefix := range []string{
		"t-list", "t-list/", "t-list/a", "t-list/a/", "t-list/a/b", "t-list/a-", "t-list/b/x", "t-list/b/x/", "t-list/many/0", "t-list/many/03/",
		"t-list/many/03/0017", "t-list/none", "t-list/none/", "t-list/a/b/", "t-list/a//", "t-list/../t-list/", "/t-list",
	} {
		for _, after := range afters {
			var want []string
			for _, key := range keys {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			if err := lists(ctx, s, prefix, after, want); err != nil {
				return err
			}
		}
	}
	return stopsEarly(ctx, s, keys)
}

// lists checks the latest versions of a listing.
func lists(ctx context.Context, s storage.Store, prefix, after string, want []string) error {
	var got []string
	for v, err := range s.List(ctx, prefix, after) {
		if err != nil {
			return fmt.Errorf("list %q after %q: %w", prefix, after, err)
		}
		if v.Latest {
			got = append(got, v.Key)
		}
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("list %q after %q: got %q, want %q", prefix, after, got, want)
	}
	return nil
}

// stopsEarly walks the whole list by a new listing after each key.
func stopsEarly(ctx context.Context, s storage.Store, keys []string) error {
	var got []string
	after := ""
	for range keys {
		for v, err := range s.List(ctx, "t-list", after) {
			if err != nil {
				return fmt.Errorf("list after %q: %w", after, err)
			}
			got = append(got, v.Key)
			after = v.Key
			break
		}
	}
	if !slices.Equal(got, keys) {
		return fmt.Errorf("listing one key at a time: got %q, want %q", got, keys)
	}
	return nil
}

// listingUnderWrites puts objects before and behind the place where a listing has come to.
func listingUnderWrites(ctx context.Context, s storage.Store) error {
	const old, prefix = 60, "t-busy/"
	for i := range old {
		if err := put(ctx, s, fmt.Sprintf("%s%02d/old-%03d", prefix, i%9, i), []byte("x")); err != nil {
			return err
		}
	}
	found, last, fresh := 0, "", 0
	for v, err := range s.List(ctx, prefix, "") {
		if err != nil {
			return fmt.Errorf("list while others write: %w", err)
		}
		if v.Key <= last && v.Latest {
			return fmt.Errorf("list while others write: got %s after %s", v.Key, last)
		}
		last = v.Key
		if !strings.Contains(v.Key, "/old-") || !v.Latest {
			continue
		}
		if found++; found%5 == 0 {
			for range 6 {
				if err := put(ctx, s, fmt.Sprintf("%s%02d/new-%03d", prefix, fresh%11, fresh), []byte("x")); err != nil {
					return err
				}
				fresh++
			}
		}
	}
	if found != old {
		return fmt.Errorf("list while others write: got %d of %d objects that were there before", found, old)
	}
	return nil
}

func cancelledReads(ctx context.Context, s storage.Store) error {
	const key = "t-stop/a"
	data := sample(1, 1<<20)
	if err := put(ctx, s, key, data); err != nil {
		return err
	}
	during, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := s.Get(during, key, "", 0, -1)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
		return errors.Join(err, r.Close())
	}
	cancel()
	_, err = io.Copy(io.Discard, r)
	if err := errors.Join(refused("read after the context has ended", err, context.Canceled), r.Close()); err != nil {
		return err
	}
	if _, err := s.Get(during, key, "", 0, -1); err == nil {
		return errors.New("get under a cancelled context: got no error")
	}
	if _, err := s.Stat(during, key); err == nil || errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("stat under a cancelled context: got %w, want the context's error", orNil(err))
	}
	for v, err := range s.List(during, "t-stop/", "") {
		return refused("list under a cancelled context, which gave "+v.Key, err, context.Canceled)
	}
	return errors.New("list under a cancelled context: got an empty listing and no error")
}
