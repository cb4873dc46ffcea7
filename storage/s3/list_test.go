package s3_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// failing answers 500 to the listings it chooses, as versitygw does when an object goes under its feet.
type failing struct {
	n     atomic.Int64
	fails func(n int64) bool
}

func (f *failing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Has("versions") && f.fails(f.n.Add(1)) {
		text := `<Error><Code>InternalError</Code></Error>`
		return &http.Response{
			StatusCode: http.StatusInternalServerError, Status: "500 Internal Server Error", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Content-Type": {"application/xml"}}, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)), Request: r,
		}, nil
	}
	return http.DefaultTransport.RoundTrip(r)
}

func TestAListingIsTakenUpAgainWhereTheServerFailed(t *testing.T) {
	l := s3test.StartLiar(t, s3test.Flaws{})
	l.Page = 5 // more than any key has versions here, as real pages are
	for name, c := range map[string]struct {
		fails func(n int64) bool
		whole bool
	}{
		"never":           {func(int64) bool { return false }, true},
		"every other":     {func(n int64) bool { return n%2 == 0 }, true},
		"four in a row":   {func(n int64) bool { return n > 2 && n <= 6 }, true},
		"from the second": {func(n int64) bool { return n > 1 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &failing{fails: func(int64) bool { return false }}
			s := openedLiar(t, l, func(o *s3.Options) { o.Transport = f })
			var want []string
			prefix := "c_x901/" + strings.ReplaceAll(name, " ", "-") + "/"
			for i := range 10 {
				key := fmt.Sprintf("%s%02d", prefix, i)
				for v := range 1 + i%3 { // keys with more than one version, some across pages
					text := []byte(fmt.Sprint(key, v))
					o := storage.PutOptions{Size: int64(len(text)), SHA256: sha256.Sum256(text)}
					if err := s.Restore(t.Context(), key, bytes.NewReader(text), o); err != nil {
						t.Fatal(err)
					}
					want = append(want, key)
				}
			}
			f.n.Store(0)
			f.fails = c.fails
			var got []string
			var failed error
			seen := map[string]bool{}
			for v, err := range s.List(t.Context(), prefix, "") {
				if err != nil {
					failed = err
					break
				}
				if seen[v.ID] {
					t.Errorf("version %s of %s told twice", v.ID, v.Key)
				}
				seen[v.ID] = true
				got = append(got, v.Key)
			}
			if (failed == nil) != c.whole {
				t.Fatalf("got error %v after %d of %d versions, want a whole listing: %v", failed, len(got), len(want), c.whole)
			}
			if c.whole && fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
