package s3_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
	"github.com/marchesud/perenne/storage/storagetest"
)

// inParts lets objects go in parts as soon as real servers allow it.
func inParts(o *s3.Options) { o.Single, o.Part = 1<<20, 5<<20 }

// TestStoreInParts is the suite where most larger objects go in parts, the last of them only one part.
func TestStoreInParts(t *testing.T) {
	for _, kind := range s3test.Kinds {
		t.Run(kind, func(t *testing.T) {
			server := s3test.Start(t, kind)
			storagetest.Test(t, func(t *testing.T) storage.Store { return opened(t, server, inParts) })
		})
	}
	t.Run("liar", func(t *testing.T) {
		storagetest.Test(t, func(t *testing.T) storage.Store {
			return openedLiar(t, s3test.StartLiar(t, s3test.Flaws{}), func(o *s3.Options) { o.Single, o.Part = 1000, 50_000 })
		})
	})
}

func TestPutInParts(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		const key = "p/packages/aa/a.asice"
		ctx, data := t.Context(), noise(1, 12<<20)
		bad := announced(data)
		bad.SHA256[0] ^= 1
		if err := b.Put(ctx, key, bytes.NewReader(data), bad); !errors.Is(err, storage.ErrDigest) {
			t.Errorf("put with another digest: got %v, want ErrDigest", err)
		}
		if _, err := b.Stat(ctx, key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("stat after it: got %v, want ErrNotFound", err)
		}
		b.put(t, key, data, lieUntil)
		if got, err := b.read(ctx, key, ""); err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
			t.Errorf("get: got %d bytes, %v", len(got), err)
		}
		o, err := b.Stat(ctx, key)
		if err != nil || len(o.Versions) != 1 || !o.RetainUntil.Equal(lieUntil) {
			t.Errorf("stat: got %+v, %v, want the lock of the put", o, err)
		}
		if err := b.Put(ctx, key, bytes.NewReader(data[1:]), announced(data[1:])); !errors.Is(err, storage.ErrExists) {
			t.Errorf("put of others: got %v, want ErrExists", err)
		}
		uploads, err := b.admin.ListMultipartUploads(ctx, b.o.Bucket, key, "", "", "", 100)
		if err != nil || len(uploads.Uploads) != 0 {
			t.Errorf("incomplete uploads: got %+v, %v, want none", uploads.Uploads, err)
		}
	}, inParts)
}

func TestConcurrentCompletions(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		const key, writers = "p/packages/aa/a.asice", 4
		var errs [writers]error
		var writing sync.WaitGroup
		for i := range writers {
			writing.Go(func() {
				data := noise(byte(i), 6<<20)
				errs[i] = b.Put(t.Context(), key, bytes.NewReader(data), announced(data))
			})
		}
		writing.Wait()
		won := -1
		for i, err := range errs {
			switch {
			case err == nil && won >= 0:
				t.Error("two completions won")
			case err == nil:
				won = i
			case !errors.Is(err, storage.ErrExists):
				t.Errorf("a loser: got %v, want ErrExists", err)
			}
		}
		if won < 0 {
			t.Fatal("none won")
		}
		if got, err := b.read(t.Context(), key, ""); err != nil || !bytes.Equal(got, noise(byte(won), 6<<20)) {
			t.Errorf("get: got %d bytes, %v, want the winner's", len(got), err)
		}
	}, inParts)
}

// most is a transport that notes how many parts were on their way at once.
type most struct {
	next      http.RoundTripper
	mu        sync.Mutex
	now, peak int
}

func (m *most) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Has("partNumber") {
		m.mu.Lock()
		m.now++
		m.peak = max(m.peak, m.now)
		m.mu.Unlock()
		defer func() {
			m.mu.Lock()
			m.now--
			m.mu.Unlock()
		}()
		time.Sleep(5 * time.Millisecond)
	}
	return m.next.RoundTrip(r)
}

func TestAtMostFourPartsAreOnTheirWay(t *testing.T) {
	l := s3test.StartLiar(t, s3test.Flaws{})
	m := &most{next: http.DefaultTransport}
	s := openedLiar(t, l, func(o *s3.Options) { o.Single, o.Part, o.Transport = 1000, 1000, m })
	var writing sync.WaitGroup
	for i := range 8 {
		writing.Go(func() {
			data := noise(byte(i), 12_000)
			if err := s.Put(t.Context(), "p/a"+string(rune('a'+i)), bytes.NewReader(data), announced(data)); err != nil {
				t.Error(err)
			}
		})
	}
	writing.Wait()
	if m.peak != 4 {
		t.Errorf("got %d parts at once, want 4", m.peak)
	}
}

// begun ends a context as soon as an upload has begun.
type begun struct {
	cancel context.CancelFunc
	mu     sync.Mutex
}

func (b *begun) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Method == http.MethodPost && r.URL.Query().Has("uploads") && b.cancel != nil {
		b.cancel()
	}
	return resp, err
}

// TestACancelledUploadGivesItsPlaceBack: clients that go away must not use up the places that large objects share.
func TestACancelledUploadGivesItsPlaceBack(t *testing.T) {
	l := s3test.StartLiar(t, s3test.Flaws{})
	b := &begun{}
	s := openedLiar(t, l, func(o *s3.Options) { o.Single, o.Part, o.Transport = 1000, 1000, b })
	data := noise(1, 12_000)
	for i := range 40 { // a place was lost in about every other one
		ctx, cancel := context.WithCancel(t.Context())
		b.mu.Lock()
		b.cancel = cancel
		b.mu.Unlock()
		if err := s.Put(ctx, fmt.Sprintf("p/cancelled-%d", i), bytes.NewReader(data), announced(data)); err == nil {
			t.Fatal("a cancelled put succeeded")
		}
		cancel()
	}
	b.mu.Lock()
	b.cancel = nil
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Put(ctx, "p/whole", bytes.NewReader(data), announced(data)); err != nil {
		t.Errorf("put after forty that were cancelled: %v", err)
	}
}

func TestSweep(t *testing.T) {
	onEveryServer(t, func(t *testing.T, b bucket) {
		ctx := t.Context()
		if b.server == "minio" {
			t.Skip("MinIO lists incomplete uploads only by the name of their key, and clears old ones away itself")
		}
		for _, key := range []string{"p/a", "p/b"} {
			if _, err := b.admin.NewMultipartUpload(ctx, b.o.Bucket, key, minio.PutObjectOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := b.Sweep(ctx); n != 0 || err != nil {
			t.Errorf("sweep of young uploads: got %d, %v, want none", n, err)
		}
		o := b.o
		o.Now = func() time.Time { return time.Now().Add(25 * time.Hour) }
		later, err := s3.Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := later.Sweep(ctx); n != 2 || err != nil {
			t.Errorf("sweep a day later: got %d, %v, want 2", n, err)
		}
		if n, err := later.Sweep(ctx); n != 0 || err != nil {
			t.Errorf("second sweep: got %d, %v, want none", n, err)
		}
	})
}

// vast is a reader of any size that takes no memory.
type vast struct{ size int64 }

func (v vast) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), v.size-off))
	clear(p[:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestMemoryDoesNotGrowWithTheObject(t *testing.T) {
	const size, bound = 192 << 20, 48 << 20
	s := opened(t, s3test.Start(t, "versitygw"))
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(vast{size}, 0, size)); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before, peak := heap(), uint64(0)
	end := make(chan error, 1)
	go func() {
		end <- s.Put(t.Context(), "p/a", vast{size}, storage.PutOptions{Size: size, SHA256: [32]byte(h.Sum(nil))})
	}()
	for {
		select {
		case err := <-end:
			if err != nil {
				t.Fatal(err)
			}
			if peak > before+bound {
				t.Errorf("heap grew by %d MiB for an object of %d MiB, want less than %d", (peak-before)>>20, size>>20, bound>>20)
			}
			return
		case <-time.After(5 * time.Millisecond):
			peak = max(peak, heap())
		}
	}
}
