package web

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	pathpkg "path"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
)

// exchange is one request and its answer. It is the http.ResponseWriter that handlers get.
type exchange struct {
	http.ResponseWriter
	s    *Server
	r    *http.Request
	id   string
	lang paper.Lang
	body *body
	rc   *http.ResponseController
	out  *pace

	route    string // path pattern, for logs and metrics
	producer string // once the token was found good for it
	token    *Token
	status   int
	bytes    int64
}

// serve is the handler of everything.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	start := s.cfg.Now()
	x := s.newExchange(w, r)
	s.metrics.inFlight.Inc()
	defer func() {
		p := recover()
		aborted := p == http.ErrAbortHandler //nolint:errorlint // a panic's value, not an error that was wrapped
		if p != nil && !aborted {
			s.cfg.Log.Error("panic", slog.String("request", x.id), slog.String("route", x.route), slog.String("stack", string(debug.Stack())))
		}
		if p != nil && !aborted && x.status == 0 {
			p = nil
			x.fail(errors.New("panic"))
		}
		if p == nil {
			x.flush()
		}
		x.body.pace.stop()
		x.out.stop()
		s.metrics.inFlight.Dec()
		s.metrics.count(x.route, x.status)
		x.log(start)
		if p != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	if s.cfg.ProxyOnly && !s.throughProxy(r) {
		x.fail(&transportError{status: http.StatusForbidden})
		return
	}
	if !straight(r) {
		x.fail(notFound())
		return
	}
	s.mux.ServeHTTP(x, x.r)
}

func (s *Server) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	rc := http.NewResponseController(w)
	x := &exchange{ResponseWriter: w, s: s, id: rand.Text(), lang: language(r), rc: rc, route: "none"}
	x.out = newPace(s.cfg.MinRate, s.window, func() { _ = rc.SetWriteDeadline(past()) })
	x.body = &body{r: r.Body, ended: r.Body == http.NoBody, pace: newPace(s.cfg.MinRate, s.window, func() { _ = rc.SetReadDeadline(past()) })}
	x.r = r.WithContext(r.Context())
	x.r.Body = x.body
	h := w.Header()
	h.Set("X-Request-Id", x.id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	return x
}

// throughProxy reports whether a request comes from a trusted proxy, or from this machine.
func (s *Server) throughProxy(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	from := peer.Addr().Unmap()
	return from.IsLoopback() || slices.ContainsFunc(s.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(from) })
}

// straight reports whether the path is one that could be ours: clean, absolute, nothing escaped. So no path
// has two spellings, and ServeMux never redirects.
func straight(r *http.Request) bool {
	p := r.URL.Path
	return strings.HasPrefix(p, "/") && r.URL.RawPath == "" && pathpkg.Clean(p) == p && r.URL.EscapedPath() == p
}

// handler answers a request, or returns the error that says why not; then it has written nothing.
type handler func(*exchange) error

// routes registers everything that there is.
func (s *Server) routes() {
	const api, of = "/api/v1", "/api/v1/producers/{producer}"
	const one = of + "/packages/{id}"
	methods := map[string]string{}
	route := func(method, pattern string, h handler) {
		s.handle(method+" "+pattern, pattern, h)
		if method == http.MethodGet {
			method = "GET, HEAD"
		}
		methods[pattern] = method
	}
	tenant := func(method, pattern string, h handler, roles ...Role) { route(method, pattern, authorized(h, roles)) }

	tenant("POST", of+"/submissions", (*exchange).submit, Submit)
	tenant("GET", of+"/packages", (*exchange).search, Read)
	tenant("GET", one, (*exchange).record, Read)
	tenant("GET", one+"/package", (*exchange).sendPackage, Read)
	tenant("GET", one+"/receipt", (*exchange).receipt, Submit, Read)
	tenant("GET", one+"/receipt.xml", (*exchange).receiptXML, Submit, Read)
	tenant("GET", one+"/proof", (*exchange).proof, Submit, Read)
	tenant("GET", one+"/evidence", (*exchange).evidence, Submit, Read)
	tenant("POST", one+"/copies", (*exchange).copyOut, Read)
	tenant("POST", of+"/audits", (*exchange).audit, Audit)

	route("GET", api+"/status", (*exchange).health)
	for _, at := range []string{"", api} {
		route("GET", at+"/healthz", (*exchange).alive)
		route("GET", at+"/readyz", (*exchange).ready)
	}
	shown := func(h handler) handler { return h }
	if !s.cfg.Public {
		shown = func(h handler) handler { return authorized(h, []Role{Read, Audit}) }
	}
	route("GET", "/ledger/{producer}/checkpoint", shown((*exchange).checkpoint))
	route("GET", "/ledger/{producer}/tile/{path...}", shown((*exchange).tile))

	for pattern, allow := range methods {
		s.handle(pattern, pattern, func(x *exchange) error {
			x.Header().Set("Allow", allow)
			return &transportError{status: http.StatusMethodNotAllowed}
		})
	}
	s.handle("/", "none", func(*exchange) error { return notFound() })
}

// handle registers one pattern.
func (s *Server) handle(pattern, name string, h handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		x := w.(*exchange) // serve is the only caller of the mux
		x.r, x.route = r, name
		if err := h(x); err != nil {
			x.fail(err)
		}
	})
}

// authorized lets a handler run only for a token that is good for the producer and has one of the roles. The
// producer comes before the role: who has no business with it learns nothing.
func authorized(h handler, roles []Role) handler {
	return func(x *exchange) error {
		if err := x.authenticate(); err != nil {
			return err
		}
		producer := x.r.PathValue("producer")
		if _, served := x.s.slots.of[producer]; !served || !x.token.sees(producer) {
			return notFound()
		}
		if !x.token.may(roles) {
			return &transportError{status: http.StatusForbidden}
		}
		x.producer = producer
		return h(x)
	}
}

func notFound() error { return &transportError{status: http.StatusNotFound} }

// authenticate finds the token of the request.
func (x *exchange) authenticate() error {
	text, given := bearer(x.r)
	now := x.s.cfg.Now()
	if x.token = match(x.s.cfg.Tokens(), text, now); x.token != nil {
		return nil
	}
	challenge := `Bearer realm="perenne"`
	if given {
		challenge += `, error="invalid_token"`
		x.s.gate.hold(x.r.Context(), x.s.gate.failed(x.s.client(x.r), now))
	}
	x.Header().Set("WWW-Authenticate", challenge)
	return &transportError{status: http.StatusUnauthorized}
}

// WriteHeader begins the answer. What is left of the request's body is settled first, since net/http would
// wait for it without a limit in time.
func (x *exchange) WriteHeader(status int) {
	if x.status != 0 {
		return
	}
	x.settle()
	x.status = status
	x.ResponseWriter.WriteHeader(status)
}

// settle makes sure that nobody waits for the rest of the body: it is read if it is little, and the connection
// is closed after the answer if it is not.
func (x *exchange) settle() {
	if x.body.ended {
		return
	}
	// A client that waits for 100 Continue has sent nothing, and is not to.
	if x.body.touched || x.r.Header.Get("Expect") == "" {
		x.body.drain()
	}
	if x.body.ended {
		return
	}
	if x.r.ProtoMajor == 1 {
		x.Header().Set("Connection", "close")
	}
	_ = x.rc.SetReadDeadline(past())
}

// Write writes under watch.
func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	n, err := x.out.wait(func() (int, error) { return x.ResponseWriter.Write(p) })
	x.bytes += int64(n)
	return n, err
}

// flush sends what is buffered, under watch.
func (x *exchange) flush() {
	// A client that is gone is seen by the next read or write.
	_, _ = x.out.wait(func() (int, error) { return 0, x.rc.Flush() })
}

// Unwrap lets http.ResponseController find what net/http gave.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// fail answers with a problem.
func (x *exchange) fail(err error) {
	p := problemOf(err, x.lang)
	if p.Status != http.StatusNotFound {
		p.Instance = "urn:perenne:request:" + x.id
	}
	if p.Status >= http.StatusInternalServerError {
		x.s.cfg.Log.Error("request failed", slog.String("request", x.id), slog.String("route", x.route), slog.String("producer", x.producer), slog.String("err", discreet(err)))
	}
	x.problem(p)
}

func (x *exchange) problem(p *Problem) {
	if p.RetryAfter > 0 {
		x.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	x.Header().Set("Content-Language", string(x.lang))
	x.Header().Set("Vary", "Accept-Language")
	x.json(p.Status, ProblemType, p)
}

// json answers with a value.
func (x *exchange) json(status int, media string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		// None of our wire types can fail to be written: it would be a fault in this package.
		panic(err)
	}
	x.send(status, media, append(text, '\n'))
}

// send answers with bytes.
func (x *exchange) send(status int, media string, text []byte) {
	x.Header().Set("Content-Type", media)
	x.Header().Set("Content-Length", strconv.Itoa(len(text)))
	x.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.Write(text) // to a client that is gone
	}
}

// contentPath is a member of a package, whose name comes from the submitted file's.
var contentPath = regexp.MustCompile(`content/[^:"]*`)

// discreet gives the text of an error without what the submission brought: findings quote it, and so do names
// of members of a package.
func discreet(err error) string {
	var e *archive.Error
	if errors.As(err, &e) {
		text := e.Op + " " + e.Object
		if e.Err != nil {
			text += ": " + e.Err.Error()
		}
		return contentPath.ReplaceAllString(text, "content/…")
	}
	return contentPath.ReplaceAllString(err.Error(), "content/…")
}
