package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// bucket is a bucket of a server, as the archive and as an administrator see it.
type bucket struct {
	*s3.Store
	o      s3.Options
	server string
	admin  *minio.Core
}

// onEveryServer runs a test on a bucket of its own of each real server, and of the Liar.
func onEveryServer(t *testing.T, test func(t *testing.T, b bucket), change ...func(*s3.Options)) {
	t.Helper()
	for _, kind := range s3test.Kinds {
		t.Run(kind, func(t *testing.T) {
			server := s3test.Start(t, kind)
			admin, err := server.Client()
			if err != nil {
				t.Fatal(err)
			}
			test(t, bucketOf(t, kind, server.Options(), admin, change))
		})
	}
	t.Run("liar", func(t *testing.T) {
		l := s3test.StartLiar(t, s3test.Flaws{})
		admin, err := l.Client()
		if err != nil {
			t.Fatal(err)
		}
		test(t, bucketOf(t, "liar", l.Options(), admin, change))
	})
}

func bucketOf(t *testing.T, server string, o s3.Options, admin *minio.Core, change []func(*s3.Options)) bucket {
	t.Helper()
	for _, c := range change {
		c(&o)
	}
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return bucket{s, o, server, admin}
}

// behind puts an object as anybody with the account's key could, unconditionally and without a lock.
func (b bucket) behind(t *testing.T, key string, data []byte) (version string) {
	t.Helper()
	up, err := b.admin.PutObject(t.Context(), b.o.Bucket, key, bytes.NewReader(data), int64(len(data)), "", "", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return up.VersionID
}

// mark lays a delete marker on key.
func (b bucket) mark(t *testing.T, key string) {
	t.Helper()
	if err := b.admin.RemoveObject(t.Context(), b.o.Bucket, key, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (b bucket) put(t *testing.T, key string, data []byte, until time.Time) {
	t.Helper()
	o := announced(data)
	o.RetainUntil = until
	if err := b.Put(t.Context(), key, bytes.NewReader(data), o); err != nil {
		t.Fatal(err)
	}
}

func (b bucket) read(ctx context.Context, key, version string) ([]byte, error) {
	r, err := b.Get(ctx, key, version, 0, -1)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func TestDeleteMarker(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		const key = "p/ledger/0000000000000000/0001"
		ctx, data := t.Context(), noise(1, 500)
		b.put(t, key, data, lieUntil)
		b.mark(t, key)
		if _, err := b.read(ctx, key, ""); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("get below a marker: got %v, want ErrNotFound", err)
		}
		o, err := b.Stat(ctx, key)
		if err != nil || len(o.Versions) != 2 || !o.Versions[0].Marker || !o.Versions[0].Latest || o.Size != 0 || o.Versions[1].Marker ||
			!o.Versions[1].RetainUntil.Equal(lieUntil) || !o.RetainUntil.IsZero() {
			t.Fatalf("stat: got %+v, %v, want a marker above a locked version", o, err)
		}
		if got, err := b.read(ctx, key, o.Versions[1].ID); err != nil || !bytes.Equal(got, data) {
			t.Errorf("get of the version below: got %d bytes, %v", len(got), err)
		}
		if _, err := b.read(ctx, key, o.Versions[0].ID); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("get of the marker: got %v, want ErrNotFound", err)
		}
		var listed []string
		for v, err := range b.List(ctx, "p/", "") {
			if err != nil {
				t.Fatal(err)
			}
			listed = append(listed, fmt.Sprint(v.ID, v.Marker, v.Latest))
		}
		if want := []string{fmt.Sprint(o.Versions[0].ID, true, true), fmt.Sprint(o.Versions[1].ID, false, false)}; fmt.Sprint(listed) != fmt.Sprint(want) {
			t.Errorf("list: got %v, want %v", listed, want)
		}
		// A marker is no object to AWS and MinIO, and one to versitygw: nobody may rest on either.
		if err := b.Put(ctx, key, bytes.NewReader(data[1:]), announced(data[1:])); b.server == "versitygw" != errors.Is(err, storage.ErrExists) {
			t.Errorf("put over a marker: got %v", err)
		}
		if err := b.Erase(ctx, key, o.Versions[0].ID, "test"); err != nil {
			t.Errorf("erase of a marker: %v", err)
		}
		if o, err = b.Stat(ctx, key); err != nil || o.Versions[len(o.Versions)-1].Marker || !o.Versions[len(o.Versions)-1].RetainUntil.Equal(lieUntil) {
			t.Errorf("stat without the marker: got %+v, %v", o, err)
		}
		b.mark(t, key)
		if err := b.Restore(ctx, key, bytes.NewReader(data), announced(data)); err != nil {
			t.Errorf("restore over a marker: %v", err)
		}
		if got, err := b.read(ctx, key, ""); err != nil || !bytes.Equal(got, data) {
			t.Errorf("get after restore: got %d bytes, %v", len(got), err)
		}
	})
}

// TestComplianceLockHolds is what an administrator with the account's own key cannot do.
func TestComplianceLockHolds(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		const key = "p/packages/aa/a.asice"
		ctx, data := t.Context(), noise(1, 500)
		b.put(t, key, data, lieUntil)
		o, err := b.Stat(ctx, key)
		if err != nil || len(o.Versions) != 1 || !o.RetainUntil.Equal(lieUntil) {
			t.Fatalf("stat: got %+v, %v", o, err)
		}
		id := o.Versions[0].ID
		compliance, governance, soon := minio.Compliance, minio.Governance, time.Now().Add(time.Hour)
		for name, err := range map[string]error{
			"delete":             b.admin.RemoveObject(ctx, b.o.Bucket, key, minio.RemoveObjectOptions{VersionID: id}),
			"delete with bypass": b.admin.RemoveObject(ctx, b.o.Bucket, key, minio.RemoveObjectOptions{VersionID: id, GovernanceBypass: true}),
			"shorten": b.admin.PutObjectRetention(ctx, b.o.Bucket, key, minio.PutObjectRetentionOptions{
				VersionID: id, Mode: &compliance, RetainUntilDate: &soon, GovernanceBypass: true,
			}),
			"downgrade": b.admin.PutObjectRetention(ctx, b.o.Bucket, key, minio.PutObjectRetentionOptions{
				VersionID: id, Mode: &governance, RetainUntilDate: &lieUntil, GovernanceBypass: true,
			}),
		} {
			if err == nil {
				t.Errorf("%s: was done", name)
			}
		}
		if err := b.Erase(ctx, key, "", "test"); !errors.Is(err, storage.ErrLocked) {
			t.Errorf("erase: got %v, want ErrLocked", err)
		}
		if got, err := b.read(ctx, key, id); err != nil || !bytes.Equal(got, data) {
			t.Errorf("get afterwards: got %d bytes, %v", len(got), err)
		}
	})
}

func TestLockEnds(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		const key = "p/packages/aa/a.asice"
		ctx, until := t.Context(), time.Now().Add(3*time.Second)
		b.put(t, key, noise(1, 500), until)
		b.behind(t, key, noise(2, 100))
		if err := b.Erase(ctx, key, "", "test"); !errors.Is(err, storage.ErrLocked) {
			t.Fatalf("erase before the end: got %v, want ErrLocked", err)
		}
		if o, err := b.Stat(ctx, key); err != nil || len(o.Versions) != 2 || o.Versions[1].RetainUntil.Before(until) || o.Versions[1].RetainUntil.Sub(until) > time.Second {
			t.Fatalf("stat: got %+v, %v, want both versions, and the lock until %v, in whole seconds", o, err, until)
		}
		time.Sleep(5 * time.Second)
		if err := b.Erase(ctx, key, "", "test"); err != nil {
			t.Errorf("erase after the end: %v", err)
		}
		if _, err := b.Stat(ctx, key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("stat after erase: got %v, want ErrNotFound", err)
		}
	})
}

func TestGovernance(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		const key = "p/packages/aa/a.asice"
		ctx := t.Context()
		b.put(t, key, noise(1, 500), lieUntil)
		o, err := b.Stat(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		i, err := b.admin.StatObject(ctx, b.o.Bucket, key, minio.StatObjectOptions{})
		if err != nil || i.Headers.Get("X-Amz-Object-Lock-Mode") != "GOVERNANCE" {
			t.Errorf("lock mode: got %q, %v, want GOVERNANCE", i.Headers.Get("X-Amz-Object-Lock-Mode"), err)
		}
		if got := b.Protection(); got != "object lock GOVERNANCE" {
			t.Errorf("protection: got %q", got)
		}
		if err := b.Extend(ctx, key, "", lieUntil.AddDate(1, 0, 0)); err != nil {
			t.Errorf("extend: %v", err)
		}
		if err := b.Erase(ctx, key, o.Versions[0].ID, "test"); !errors.Is(err, storage.ErrLocked) {
			t.Errorf("erase: got %v, want ErrLocked", err)
		}
		// The Store would never; whoever has the right may.
		if err := b.admin.RemoveObject(ctx, b.o.Bucket, key, minio.RemoveObjectOptions{VersionID: o.Versions[0].ID, GovernanceBypass: true}); err != nil {
			t.Errorf("delete with bypass: %v", err)
		}
	}, func(o *s3.Options) { o.Lock = s3.Governance })
}

func TestForeignKeysAreListed(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		want := []string{"p/a b", "p/a+b", "p/a%2Fb", "p/x/y", "p/è", "p/é~&=?#"}
		for _, key := range want {
			b.behind(t, key, []byte("x"))
		}
		var got []string
		for v, err := range b.List(t.Context(), "p/", "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, v.Key)
		}
		for _, key := range want {
			if n := strings.Count("\n"+strings.Join(got, "\n")+"\n", "\n"+key+"\n"); n != 1 {
				t.Errorf("%q is listed %d times in %q", key, n, got)
			}
		}
		if len(got) != len(want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestReplaceKeepsOneBefore: the versions of derived objects must not pile up.
func TestReplaceKeepsOneBefore(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		const key = "p/tiles/tile/0/000"
		for i := range 5 {
			data := noise(byte(i), 100)
			if err := b.Replace(t.Context(), key, bytes.NewReader(data), announced(data)); err != nil {
				t.Fatal(err)
			}
		}
		o, err := b.Stat(t.Context(), key)
		if err != nil || len(o.Versions) != 2 {
			t.Errorf("got %+v, %v, want the newest and the one before", o, err)
		}
	})
}

// TestListingBeyondAPage: versitygw repeats an entry on every page.
func TestListingBeyondAPage(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		const n = 1050
		for i := range n {
			b.behind(t, fmt.Sprintf("p/%02d/%04d", i%7, i), []byte("x"))
		}
		got, last := 0, ""
		for v, err := range b.List(t.Context(), "p/", "") {
			if err != nil {
				t.Fatal(err)
			}
			if v.Key <= last {
				t.Fatalf("got %s after %s", v.Key, last)
			}
			got, last = got+1, v.Key
		}
		if got != n {
			t.Errorf("got %d entries, want %d", got, n)
		}
	})
}

// TestMarkersAreListedInTheirPlace lays markers over some of more objects than a page holds: versitygw lists those of
// a page behind its versions.
func TestMarkersAreListedInTheirPlace(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		const n, every = 1050, 50
		for i := range n {
			key := fmt.Sprintf("p/%04d", i)
			b.behind(t, key, []byte("x"))
			if i%every == 0 {
				b.mark(t, key)
			}
		}
		var got []string
		for v, err := range b.List(t.Context(), "p/", "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(v.Key, " ", v.Marker, " ", v.Latest))
		}
		var want []string
		for i := range n {
			key := fmt.Sprintf("p/%04d", i)
			if i%every == 0 {
				want = append(want, key+" true true")
			}
			want = append(want, fmt.Sprint(key, " false ", i%every != 0))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %d entries, want %d: %.300q", len(got), len(want), got)
		}
	})
}
