package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/spool"
	"github.com/marchesud/perenne/storage/storagetest"
)

const (
	montesole = archivetest.Montesole
	colli     = archivetest.Colli
)

// house is a served archive.
type house struct {
	t     *testing.T
	bench *archivetest.Bench
	arc   *archive.Archive
	srv   *Server
	http  *httptest.Server
	logs  *archivetest.SafeBuffer
}

// tokens of the tests: text → token.
func testTokens(now time.Time) []Token {
	token := func(text, producer string, roles ...Role) Token {
		return Token{Name: "sistema-" + text, Producer: producer, Roles: roles, SHA256: sha256.Sum256([]byte(text))}
	}
	expired := token("expired", montesole, Admin)
	expired.Expires = now.Add(-time.Second)
	return []Token{
		token("montesole", montesole, Admin), token("colli", colli, Admin), token("all", AllProducers, Admin), expired,
		token("m-submit", montesole, Submit), token("m-read", montesole, Read), token("m-audit", montesole, Audit),
	}
}

func newHouse(t *testing.T, vary ...func(*Config)) *house {
	t.Helper()
	return newHouseOn(t, storagetest.NewMem(t), vary...)
}

func newHouseOn(t *testing.T, store storage.Store, vary ...func(*Config)) *house {
	t.Helper()
	h := &house{t: t, bench: archivetest.New(t, store), logs: &archivetest.SafeBuffer{}}
	h.arc = h.bench.MustOpen()
	now := time.Now()
	cfg := Config{
		Archive: h.arc, Tokens: func() []Token { return testTokens(now) }, Now: time.Now, Public: true,
		Log: slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, v := range vary {
		v(&cfg)
	}
	h.srv = NewServer(cfg)
	h.http = httptest.NewUnstartedServer(nil)
	h.http.Config = h.srv.HTTP()
	h.http.Start()
	t.Cleanup(h.http.Close)
	return h
}

func (h *house) client(token string) *Client {
	return &Client{Base: h.http.URL, Token: token, HTTP: h.http.Client()}
}

func uploads(d archivetest.Doc) []Upload {
	var all []Upload
	for _, f := range d.Files {
		all = append(all, Upload{Name: f.Name, Size: int64(len(f.Data)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.Data)), nil }})
	}
	return all
}

func (h *house) mustSubmit(token, producer string, d archivetest.Doc) *paper.Receipt {
	h.t.Helper()
	r, err := h.client(token).Submit(context.Background(), producer, d.Description(), uploads(d), nil)
	if err != nil {
		h.t.Fatalf("submit: %v", err)
	}
	if r.Refused() {
		h.t.Fatalf("refused: %+v", r.Body.Checks)
	}
	return r
}

// answerOf is an answer read whole.
type answerOf struct {
	status int
	header http.Header
	body   []byte
}

func (h *house) send(method, path, token string, header map[string]string, body io.Reader) answerOf {
	h.t.Helper()
	req, err := http.NewRequest(method, h.http.URL+path, body)
	if err != nil {
		h.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := h.http.Client().Do(req)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answerOf{resp.StatusCode, resp.Header, text}
}

// problem wants problem details.
func (a answerOf) problem(t *testing.T) *Problem {
	t.Helper()
	var p Problem
	if got := a.header.Get("Content-Type"); got != ProblemType {
		t.Fatalf("content type: got %q want %q; status %d, body %.200s", got, ProblemType, a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatal(err)
	}
	if p.Status != a.status || p.Title == "" || !strings.HasPrefix(p.Type, problemPrefix) {
		t.Errorf("problem: got %+v for status %d", p, a.status)
	}
	return &p
}

// withSubject is a document with words that nothing else has.
func withSubject(number, subject string) archivetest.Doc {
	d := archivetest.Determina(number, "testo "+number)
	d.Subject = subject
	return d
}

// TestAFullDiskSaysWhenToComeBack has a spool whose disk is full: who submits is told to come back, and then can.
func TestAFullDiskSaysWhenToComeBack(t *testing.T) {
	var full atomic.Bool
	s, err := spool.Open(context.Background(), storagetest.NewMem(t), spool.Options{
		Dir: filepath.Join(t.TempDir(), "spool"), ReadBack: time.Hour, Quota: 1 << 30, Reserve: 1 << 20, Ballast: -1,
		Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Free: func() (int64, error) {
			if full.Load() {
				return 0, nil
			}
			return 1 << 40, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // behind the archive's own end
	h := newHouseOn(t, s.Store())
	d := archivetest.Determina("1", "testo")
	full.Store(true)
	_, err = h.client("montesole").Submit(context.Background(), montesole, d.Description(), uploads(d), nil)
	var p *Problem
	if !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable || p.RetryAfter <= 0 {
		t.Fatalf("got %v, want a 503 that says when to come back", err)
	}
	full.Store(false)
	h.mustSubmit("montesole", montesole, d)
}
