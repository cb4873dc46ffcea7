package s3_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/doctor"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		flaws  s3test.Flaws
		change func(*s3.Options)
		want   []string
	}{
		{"no endpoint", s3test.Flaws{}, func(o *s3.Options) { o.Endpoint = "" }, []string{"endpoint", "host:port"}},
		{"an address", s3test.Flaws{}, func(o *s3.Options) { o.Endpoint = "https://" + o.Endpoint + "/x" }, []string{"endpoint", "host:port"}},
		{"no bucket", s3test.Flaws{}, func(o *s3.Options) { o.Bucket = "" }, []string{"bucket", "Object Lock"}},
		{"no key", s3test.Flaws{}, func(o *s3.Options) { o.SecretKey = "" }, []string{"secret key"}},
		{"no clock", s3test.Flaws{}, func(o *s3.Options) { o.Now = nil }, []string{"Now"}},
		{"unknown encryption", s3test.Flaws{}, func(o *s3.Options) { o.SSE = "aes" }, []string{"sse", "kms"}},
		{"a key for nothing", s3test.Flaws{}, func(o *s3.Options) { o.KMSKey = "k" }, []string{"kms key", "sse"}},
		{"missing bucket", s3test.Flaws{}, func(o *s3.Options) { o.Bucket = "another" }, []string{"bucket", "does not exist", "--with-lock"}},
		{"no versions", s3test.Flaws{NoVersioning: true}, nil, []string{"bucket", "versioning is off", "make a new bucket"}},
		{"no lock", s3test.Flaws{NoObjectLock: true}, nil, []string{"bucket", "no Object Lock", "make a new bucket"}},
		{"nobody there", s3test.Flaws{}, func(o *s3.Options) { o.Endpoint = "127.0.0.1:1" }, []string{"endpoint", "does not answer now"}},
		{"tls to a server without", s3test.Flaws{}, func(o *s3.Options) { o.TLS = true }, []string{"endpoint", "tls (now true)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := s3test.StartLiar(t, c.flaws).Options()
			if c.change != nil {
				c.change(&o)
			}
			_, err := s3.Open(t.Context(), o)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
		})
	}
	for _, kind := range s3test.Kinds {
		t.Run(kind, func(t *testing.T) {
			o := s3test.Start(t, kind).Options()
			for want, change := range map[string]func(*s3.Options){
				"access key": func(o *s3.Options) { o.AccessKey = "nobody" },
				"secret key": func(o *s3.Options) { o.SecretKey = "wrong-wrong" },
				"bucket":     func(o *s3.Options) { o.Bucket = "another" },
			} {
				o := o
				change(&o)
				_, err := s3.Open(t.Context(), o)
				for range 50 { // MinIO answers to its own account before it knows others
					if err == nil || !strings.Contains(err.Error(), "not initialized") {
						break
					}
					time.Sleep(100 * time.Millisecond)
					_, err = s3.Open(t.Context(), o)
				}
				if err == nil || !strings.Contains(err.Error(), ": "+want+": ") || strings.Contains(err.Error(), o.SecretKey) {
					t.Errorf("wrong %s: got %v", want, err)
				}
			}
		})
	}
}

// TestAServerThatIsAwayHasBrokenNothing: whoever starts meanwhile is told to come again, not to mend the bucket.
func TestAServerThatIsAwayHasBrokenNothing(t *testing.T) {
	l := s3test.StartLiar(t, s3test.Flaws{})
	o := l.Options()
	away := &answering{status: http.StatusServiceUnavailable}
	o.Transport = away
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	away.on.Store(true)
	if _, err := s3.Open(t.Context(), o); !errors.Is(err, s3.ErrAway) || strings.Contains(err.Error(), "make a new bucket") {
		t.Errorf("open: got %v, want ErrAway", err)
	}
	report := doctor.Examine(t.Context(), s, doctor.Options{Now: time.Now})
	if broken := report.Of(storage.Broken); report.Good() || len(broken) > 0 {
		t.Errorf("examination: got good %v, broken %v, want neither", report.Good(), broken)
	}
	away.on.Store(false)
	o.Endpoint, o.Transport = "127.0.0.1:1", nil
	if _, err := s3.Open(t.Context(), o); !errors.Is(err, s3.ErrAway) {
		t.Errorf("open where nobody listens: got %v, want ErrAway", err)
	}
}

// answering gives every request the same empty answer while it is on.
type answering struct {
	on     atomic.Bool
	status int
}

func (a *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if !a.on.Load() {
		return http.DefaultTransport.RoundTrip(r)
	}
	return &http.Response{
		StatusCode: a.status, Status: http.StatusText(a.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody, Request: r,
	}, nil
}

func TestParseLock(t *testing.T) {
	for _, l := range []s3.Lock{s3.Compliance, s3.Governance} {
		if got, err := s3.ParseLock(l.String()); got != l || err != nil {
			t.Errorf("%v: got %v, %v", l, got, err)
		}
	}
	if got, err := s3.ParseLock(""); got != s3.Compliance || err != nil {
		t.Errorf("empty: got %v, %v", got, err)
	}
	if _, err := s3.ParseLock("none"); err == nil {
		t.Error("none: got no error")
	}
}

func TestTLS(t *testing.T) {
	l := s3test.StartLiar(t, s3test.Flaws{})
	server := httptest.NewUnstartedServer(l)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	o := l.Options()
	o.Endpoint, o.TLS, o.Transport = strings.TrimPrefix(server.URL, "https://"), true, nil
	if _, err := s3.Open(t.Context(), o); err == nil {
		t.Error("open without the server's authority: got no error")
	}
	o.Roots = x509.NewCertPool()
	o.Roots.AddCert(server.Certificate())
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	data := noise(1, 5000)
	if err := s.Put(t.Context(), "p/a", bytes.NewReader(data), announced(data)); err != nil || !bytes.Equal(l.Bytes("p/a"), data) {
		t.Errorf("put: got %v", err)
	}
}

// heads is a transport that notes the heads of writes.
type heads struct {
	next http.RoundTripper
	mu   sync.Mutex
	all  []http.Header
}

func (h *heads) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut || r.Method == http.MethodPost {
		h.mu.Lock()
		h.all = append(h.all, r.Header.Clone())
		h.mu.Unlock()
	}
	return h.next.RoundTrip(r)
}

func TestWhatAPutAsksFor(t *testing.T) {
	for _, c := range []struct {
		sse, key, encryption, kms string
		lock                      s3.Lock
		mode                      string
	}{
		{"", "", "", "", s3.Compliance, "COMPLIANCE"},
		{"none", "", "", "", s3.Governance, "GOVERNANCE"},
		{"s3", "", "AES256", "", s3.Compliance, "COMPLIANCE"},
		{"kms", "", "aws:kms", "", s3.Compliance, "COMPLIANCE"},
		{"kms", "our-key", "aws:kms", "our-key", s3.Compliance, "COMPLIANCE"},
	} {
		for _, size := range []int{500, 1500} {
			h := &heads{next: http.DefaultTransport}
			s := openedLiar(t, s3test.StartLiar(t, s3test.Flaws{}), func(o *s3.Options) {
				o.SSE, o.KMSKey, o.Lock, o.Transport, o.Single, o.Part = c.sse, c.key, c.lock, h, 1000, 1000
			})
			data := noise(1, size)
			o := announced(data)
			o.RetainUntil = time.Date(2190, 1, 1, 0, 0, 0, 1, time.UTC)
			if err := s.Put(t.Context(), "p/a", bytes.NewReader(data), o); err != nil {
				t.Fatal(err)
			}
			first, last := h.all[0], h.all[len(h.all)-1]
			for name, want := range map[string]string{
				"X-Amz-Server-Side-Encryption": c.encryption, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": c.kms,
				"X-Amz-Object-Lock-Mode": c.mode, "X-Amz-Object-Lock-Retain-Until-Date": "2190-01-01T00:00:01Z",
			} {
				if got := first.Get(name); got != want {
					t.Errorf("sse %q, %d bytes: %s: got %q, want %q", c.sse, size, name, got, want)
				}
			}
			if got := last.Get("If-None-Match"); got != "*" {
				t.Errorf("%d bytes: condition: got %q", size, got)
			}
			for _, head := range h.all[:max(1, len(h.all)-1)] {
				if head.Get("X-Amz-Checksum-Sha256") == "" && head.Get("X-Amz-Checksum-Algorithm") != "SHA256" {
					t.Errorf("%d bytes: a request without its SHA-256: %v", size, head)
				}
			}
		}
	}
}

// TestServerThatDiesOrStops is a server killed, and one that stops in its tracks, between and under requests.
func TestServerThatDiesOrStops(t *testing.T) {
	for _, kind := range s3test.Kinds {
		t.Run(kind, func(t *testing.T) {
			server := s3test.Start(t, kind)
			s := opened(t, server, func(o *s3.Options) { o.Stall = 2 * time.Second })
			data := noise(1, 500)
			put := func(key string) error {
				return s.Put(t.Context(), key, bytes.NewReader(data), announced(data))
			}
			if err := put("p/before"); err != nil {
				t.Fatal(err)
			}
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			_, stat := s.Stat(t.Context(), "p/before")
			for what, err := range map[string]error{"put": put("p/dead"), "stat": stat} {
				if err == nil || errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrExists) {
					t.Errorf("%s on a dead server: got %v", what, err)
				}
			}
			if err := server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := put("p/dead"); err != nil {
				t.Errorf("put after its restart: %v", err)
			}
			if err := server.Pause(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if err := put("p/stopped"); !errors.Is(err, storage.ErrUnknown) || !strings.Contains(err.Error(), "stalls") {
				t.Errorf("put on a stopped server: got %v", err)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("put on a stopped server took %v", took)
			}
			if err := server.Resume(); err != nil {
				t.Fatal(err)
			}
			// The server may have had the request all the while: it is there, or can be put.
			if err := put("p/stopped"); err != nil && !errors.Is(err, storage.ErrExists) {
				t.Errorf("put again: %v", err)
			}
		})
	}
}

// lazy is a reader that takes its time.
type lazy struct{ *bytes.Reader }

func (l lazy) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(120 * time.Millisecond)
	return l.Reader.ReadAt(p, off)
}

// TestSlowCallerIsNoStall: a caller that gives or takes its bytes slowly is not the server's fault.
func TestSlowCallerIsNoStall(t *testing.T) {
	l := s3test.StartLiar(t, s3test.Flaws{})
	s := openedLiar(t, l, func(o *s3.Options) { o.Stall = 800 * time.Millisecond })
	data := noise(1, 400_000)
	if err := s.Put(t.Context(), "p/a", lazy{bytes.NewReader(data)}, announced(data)); err != nil {
		t.Errorf("put from a slow reader: %v", err)
	}
	r, err := s.Get(t.Context(), "p/a", "", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, r, 10); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	n, err := io.Copy(io.Discard, r)
	if err := errors.Join(err, r.Close()); err != nil || n != int64(len(data)-10) {
		t.Errorf("slow reading: got %d more bytes, %v", n, err)
	}
}

// lent is a reader that its owner has lent to a Put, and which counts the reads after it was given back.
type lent struct {
	*bytes.Reader
	back        atomic.Bool
	late, reads atomic.Int64
}

func (l *lent) ReadAt(p []byte, off int64) (int, error) {
	l.reads.Add(1)
	time.Sleep(time.Millisecond)
	if l.back.Load() {
		l.late.Add(1)
	}
	return l.Reader.ReadAt(p, off)
}

// hasty is a transport as Go's may be: it answers a PUT at its first bytes while it goes on reading the body.
type hasty struct {
	http.RoundTripper
	sending sync.WaitGroup
}

func (h *hasty) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPut {
		return h.RoundTripper.RoundTrip(r)
	}
	var first [10]byte
	if _, err := io.ReadFull(r.Body, first[:]); err != nil {
		return nil, err
	}
	h.sending.Go(func() { _, _ = io.Copy(io.Discard, r.Body) })
	const refusal = `<Error><Code>PreconditionFailed</Code></Error>`
	return &http.Response{
		StatusCode: http.StatusPreconditionFailed, ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/xml"}}, ContentLength: int64(len(refusal)),
		Body: io.NopCloser(strings.NewReader(refusal)),
	}, nil
}

// TestNothingIsReadAfterARefusal: a server that refuses before it has read the body gets no more of it, and the
// caller has his bytes back when Put returns.
func TestNothingIsReadAfterARefusal(t *testing.T) {
	h := &hasty{RoundTripper: http.DefaultTransport}
	s := openedLiar(t, s3test.StartLiar(t, s3test.Flaws{}), func(o *s3.Options) { o.Transport = h })
	data := noise(1, 2<<20)
	l := &lent{Reader: bytes.NewReader(data)}
	err := s.Put(t.Context(), "p/a", l, announced(data))
	l.back.Store(true)
	if err == nil {
		t.Error("put: refused, and yet no error")
	}
	h.sending.Wait()
	if n := l.late.Load(); n > 0 {
		t.Errorf("%d reads after Put returned", n)
	}
	if l.reads.Load() == 0 {
		t.Error("nothing was read at all: this test proves nothing")
	}
}

// TestUndefinedAnswersToAPut is what becomes of each status that a server may answer a conditional PUT with.
func TestUndefinedAnswersToAPut(t *testing.T) {
	data := noise(1, 500)
	for _, c := range []struct {
		lie   s3test.LieKind
		want  error
		there bool
	}{
		{s3test.Conflict, storage.ErrUnknown, false},
		{s3test.ConflictAfter, storage.ErrExists, true},
		{s3test.FailsAfter, storage.ErrExists, true},
		{s3test.RefusesAfter, storage.ErrExists, true},
		{s3test.ServiceDown, storage.ErrUnknown, false},
		{s3test.StorageFull, storage.ErrFull, false},
		{s3test.AccessForbidden, storage.ErrUnknown, false},
		{s3test.ErrorIn200, storage.ErrUnknown, false},
		{s3test.RedirectLoop, storage.ErrUnknown, false},
		{s3test.NotFound, storage.ErrUnknown, false},
	} {
		l := s3test.StartLiar(t, s3test.Flaws{})
		s := openedLiar(t, l)
		l.Telling(func(call s3test.Call) s3test.Lie {
			if call.Kind == s3test.PutObject {
				return s3test.Lie{What: c.lie}
			}
			return s3test.Lie{}
		})
		err := s.Put(context.Background(), "p/a", bytes.NewReader(data), announced(data))
		if !errors.Is(err, c.want) || errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: got %v, want %v", c.lie, err, c.want)
		}
		if there := l.Bytes("p/a") != nil; there != c.there {
			t.Errorf("%s: object lies there: %v", c.lie, there)
		}
		if n := len(l.Calls()); n > 2 {
			t.Errorf("%s: %d calls, want the put and at most one look: %v", c.lie, n, l.Calls())
		}
	}
}
