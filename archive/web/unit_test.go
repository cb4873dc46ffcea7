package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
)

func TestLanguageFollowsAcceptLanguage(t *testing.T) {
	for header, want := range map[string]paper.Lang{
		"": paper.Italian, "en": paper.English, "en-GB,en;q=0.9,it;q=0.8": paper.English, "it-IT, en;q=0.5": paper.Italian,
		"de, fr": paper.Italian, "de, en;q=0.1": paper.English, "en;q=0": paper.Italian, "en;q=x": paper.Italian, "EN": paper.English,
		strings.Repeat("x,", 5000) + "en": paper.Italian,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Language", header)
		if got := language(r); got != want {
			t.Errorf("%.40q: got %s want %s", header, got, want)
		}
	}
}

func TestEveryKindHasOneStatusAndComesBack(t *testing.T) {
	for k, status := range map[archive.Kind]int{
		archive.Internal: 500, archive.Invalid: 400, archive.Refused: 422, archive.Conflict: 409, archive.NotFound: 404,
		archive.Damaged: 500, archive.Unavailable: 503, archive.ReadOnly: 503,
	} {
		for _, l := range []paper.Lang{paper.Italian, paper.English} {
			p := problemOf(&archive.Error{Kind: k, Existing: "x"}, l)
			if p.Status != status || p.Kind() != k || archive.KindOf(p) != k || p.Title == "" || p.Detail == "" {
				t.Errorf("%s: got %+v, kind %s", k, p, p.Kind())
			}
			if (p.RetryAfter > 0) != (k == archive.Unavailable) {
				t.Errorf("%s: retry after %d", k, p.RetryAfter)
			}
		}
	}
	for status, want := range map[int]archive.Kind{401: archive.Refused, 403: archive.Refused, 404: archive.NotFound, 405: archive.Invalid, 408: archive.Unavailable, 413: archive.Invalid, 415: archive.Invalid, 429: archive.Unavailable, 502: archive.Unavailable, 504: archive.Unavailable, 500: archive.Internal} {
		resp := &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("<html>")), Header: http.Header{}}
		if got := readProblem(resp).Kind(); got != want {
			t.Errorf("%d from something in between: got %s want %s", status, got, want)
		}
	}
}

func TestNotFoundTellsNothing(t *testing.T) {
	a := problemOf(notFound(), paper.Italian)
	b := problemOf(&archive.Error{Kind: archive.NotFound, Object: "c_x901", Existing: "x", Err: errors.New("no such producer")}, paper.Italian)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("got %+v and %+v", a, b)
	}
}

func TestGuessingIsSlowedAndTheTableBounded(t *testing.T) {
	g, now := newGate(), time.Unix(1e9, 0)
	from := netip.MustParseAddr("192.0.2.1")
	var last time.Duration
	for i := range 20 {
		d := g.failed(from, now)
		if i == 0 && d != 0 || d < last || d > longestWait {
			t.Errorf("failure %d: got %v after %v", i, d, last)
		}
		last = d
	}
	if last != longestWait {
		t.Errorf("after 20 failures: got %v want %v", last, longestWait)
	}
	if d := g.failed(netip.MustParseAddr("192.0.2.2"), now); d != 0 {
		t.Errorf("another source: got %v", d)
	}
	if d := g.failed(from, now.Add(time.Hour)); d != 0 {
		t.Errorf("an hour later: got %v", d)
	}
	for i := range 5 * maxSources {
		g.failed(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), now.Add(time.Duration(i)*time.Microsecond))
	}
	if len(g.sources) > maxSources {
		t.Errorf("%d sources remembered", len(g.sources))
	}
	if a, b := sourceOf(netip.MustParseAddr("2001:db8::1")), sourceOf(netip.MustParseAddr("2001:db8::2:1")); a != b {
		t.Errorf("one /64 counts as %v and %v", a, b)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g.hold(ctx, time.Hour)
}

func TestForwardedForCountsOnlyFromTrustedProxies(t *testing.T) {
	s := &Server{cfg: Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	for _, c := range []struct{ peer, forwarded, want string }{
		{"192.0.2.1:1", "198.51.100.1", "192.0.2.1"},
		{"10.1.1.1:1", "198.51.100.1", "198.51.100.1"},
		{"10.1.1.1:1", "203.0.113.9, 198.51.100.1, 10.2.2.2", "198.51.100.1"},
		{"10.1.1.1:1", "", "10.1.1.1"},
		{"10.1.1.1:1", "nonsense", "10.1.1.1"},
		{"[::ffff:10.1.1.1]:1", "198.51.100.1", "198.51.100.1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := s.client(r).String(); got != c.want {
			t.Errorf("%s for %q: got %s want %s", c.peer, c.forwarded, got, c.want)
		}
	}
}

func TestSlotsAreShared(t *testing.T) {
	s := newSlots(3, 2, []string{"a", "b"})
	ctx := context.Background()
	status := func(err error) int {
		var e *transportError
		errors.As(err, &e)
		return e.status
	}
	var releases []func()
	for _, p := range []string{"a", "a", "b"} {
		release, err := s.take(ctx, p, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	if _, err := s.take(ctx, "a", time.Millisecond); status(err) != 429 {
		t.Errorf("third of a: got %v", err)
	}
	if _, err := s.take(ctx, "b", time.Millisecond); status(err) != 503 {
		t.Errorf("fourth of all: got %v", err)
	}
	if _, err := s.take(ctx, "c", time.Millisecond); status(err) != 404 {
		t.Errorf("unknown: got %v", err)
	}
	for _, r := range releases {
		r()
	}
	if len(s.all)+len(s.of["a"])+len(s.of["b"]) != 0 {
		t.Error("places were not given back")
	}
}

func TestPaceCutsOnlyThePeersThatAreSlow(t *testing.T) {
	for name, c := range map[string]struct {
		each time.Duration // a call waits so long for the peer
		own  time.Duration // and we take so long between calls
		n    int           // bytes a call
		slow bool
	}{
		"nothing comes":   {5 * time.Millisecond, 0, 0, true},
		"a trickle":       {5 * time.Millisecond, 0, 1, true},
		"enough":          {5 * time.Millisecond, 0, 1000, false},
		"we are the slow": {0, 5 * time.Millisecond, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			var cut atomic.Bool
			p := newPace(10_000, 90*time.Millisecond, func() { cut.Store(true) })
			defer p.stop()
			for range 60 {
				_, _ = p.wait(func() (int, error) { time.Sleep(c.each); return c.n, nil })
				time.Sleep(c.own)
			}
			if cut.Load() != c.slow {
				t.Errorf("cut: got %t want %t", cut.Load(), c.slow)
			}
		})
	}
}

func TestNothingWholeIsSentOfOtherBytes(t *testing.T) {
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 200 << 10} {
		data := bytes.Repeat([]byte("x"), size)
		sum := sha256.Sum256(data)
		var got bytes.Buffer
		if err := sendVerified(context.Background(), &got, bytes.NewReader(data), int64(size), sum); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%d bytes: got %d, %v", size, got.Len(), err)
		}
		if size == 0 {
			continue
		}
		data[size/2] ^= 1
		got.Reset()
		if err := sendVerified(context.Background(), &got, bytes.NewReader(data), int64(size), sum); !errors.Is(err, errOtherBytes) || got.Len() >= size {
			t.Errorf("%d bytes, one changed: sent %d, %v", size, got.Len(), err)
		}
		if err := sendVerified(context.Background(), &got, bytes.NewReader(data[1:]), int64(size), sum); !errors.Is(err, errOtherBytes) {
			t.Errorf("%d bytes, one missing: %v", size, err)
		}
	}
}

func TestClientRefusesBytesThatWereNotAnnounced(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Repr-Digest", "sha-256=:AAAA:")
		fmt.Fprint(w, "bytes")
	}))
	defer srv.Close()
	c := &Client{Base: srv.URL}
	if err := c.Retrieve(context.Background(), "a", "b", "c", io.Discard, nil); !errors.Is(err, errChanged) || archive.KindOf(err) != archive.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestClientNeverFollowsRedirects(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	if _, err := (&Client{Base: srv.URL, Token: "x"}).Status(context.Background()); err == nil {
		t.Error("a redirect was taken for an answer")
	}
}

func TestQueriesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 40, 200)
		q := SearchQuery{
			Producer: "p", Structure: text.Draw(t, "structure"), Register: text.Draw(t, "register"), Number: text.Draw(t, "number"),
			Type: text.Draw(t, "type"), Words: text.Draw(t, "words"), After: text.Draw(t, "after"),
			Year: rapid.IntRange(0, 9999).Draw(t, "year"), Limit: rapid.IntRange(0, 1000).Draw(t, "limit"),
		}
		if got, err := parseQuery("p", q.values().Encode()); err != nil || got != q {
			t.Fatalf("got %+v %v want %+v", got, err, q)
		}
	})
}

func TestCopyNamesAreSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := paper.BodyKey{Register: rapid.String().Draw(t, "register"), Year: 2026, Number: rapid.String().Draw(t, "number")}
		name := copyName("c_x901", key, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
		if url.PathEscape(name) != name || strings.HasPrefix(name, ".") || strings.Contains(name, "/") || len(name) > 200 {
			t.Fatalf("got %q", name)
		}
	})
	if got, want := copyName("c_x901", paper.BodyKey{Register: "DETE", Year: 2026, Number: "12/bis"}, "abcdefghij"), "c_x901-DETE-2026-12-bis-abcdefgh.zip"; got != want {
		t.Errorf("got %q want %q", got, want)
	}
}

func TestErrorsAreLoggedWithoutFileNames(t *testing.T) {
	err := &archive.Error{Kind: archive.Damaged, Op: "package", Object: "id", Err: errors.New("content/0001-nome segreto.pdf: other digest: run perenne audit")}
	if got, want := discreet(err), "package id: content/…: other digest: run perenne audit"; got != want {
		t.Errorf("got %q want %q", got, want)
	}
}

func TestAPanicIsAnAnswer(t *testing.T) {
	h := newHouse(t)
	h.srv.handle("GET /panic", "/panic", func(*exchange) error { panic("segreto") })
	if p := h.send("GET", "/panic", "", nil, nil).problem(t); p.Status != 500 {
		t.Errorf("got %d", p.Status)
	}
	if strings.Contains(h.logs.String(), "segreto") || !strings.Contains(h.logs.String(), "panic") {
		t.Errorf("log: %s", h.logs.String())
	}
}
