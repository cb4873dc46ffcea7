package web

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/storage/storagetest"
)

// everyRoute lists a request for each route of a producer; {id} is a package.
func everyRoute(producer, id string) []struct{ method, path, body string } {
	of := "/api/v1/producers/" + producer
	one := of + "/packages/" + id
	return []struct{ method, path, body string }{
		{"POST", of + "/submissions", ""},
		{"GET", of + "/packages", ""},
		{"HEAD", of + "/packages", ""},
		{"GET", one, ""},
		{"GET", one + "/package", ""},
		{"GET", one + "/receipt", ""},
		{"GET", one + "/receipt.xml", ""},
		{"GET", one + "/proof", ""},
		{"GET", one + "/evidence", ""},
		{"POST", one + "/copies", `{"purpose":"accesso"}`},
		{"POST", of + "/audits", `{}`},
	}
}

var asJSON = map[string]string{"Content-Type": "application/json"}

// TestNobodySeesAnotherProducer tries every route of each of two producers, of one that does not exist and of
// hostile names, with the other's token: the bytes are the same throughout.
func TestNobodySeesAnotherProducer(t *testing.T) {
	h := newHouse(t)
	ids := map[string]string{
		montesole: h.mustSubmit("montesole", montesole, archivetest.Determina("1", "uno")).Body.Package,
		colli:     h.mustSubmit("colli", colli, archivetest.Determina("1", "due")).Body.Package,
	}
	want := h.send("GET", "/api/v1/producers/c_x999/packages", "montesole", nil, nil)
	if want.status != http.StatusNotFound || bytes.Contains(want.body, []byte("instance")) {
		t.Fatalf("got %d %s", want.status, want.body)
	}
	same := func(what string, a answerOf) {
		t.Helper()
		if a.status != want.status || len(a.body) > 0 && !bytes.Equal(a.body, want.body) {
			t.Errorf("%s: got %d %s", what, a.status, a.body)
		}
		for k := range a.header {
			if want.header.Get(k) == "" || k != "Date" && k != "X-Request-Id" && want.header.Get(k) != a.header.Get(k) {
				t.Errorf("%s: header %s: got %q want %q", what, k, a.header.Get(k), want.header.Get(k))
			}
		}
	}
	for token, own := range map[string]string{"montesole": montesole, "colli": colli} {
		for _, other := range []string{montesole, colli, "c_x999", "C_X901", "*", "c_x901.", "evidence", "keys"} {
			if other == own {
				continue
			}
			for _, id := range []string{ids[other], ids[own], "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"} {
				if id == "" {
					id = "x"
				}
				for _, r := range everyRoute(other, id) {
					same(token+" "+r.method+" "+r.path, h.send(r.method, r.path, token, asJSON, strings.NewReader(r.body)))
				}
			}
		}
		// The other's package under one's own producer.
		for _, r := range everyRoute(own, ids[map[string]string{montesole: colli, colli: montesole}[own]]) {
			if strings.Contains(r.path, "/packages/") {
				same(token+" "+r.method+" "+r.path, h.send(r.method, r.path, token, asJSON, strings.NewReader(r.body)))
			}
		}
	}
}

func TestRoles(t *testing.T) {
	h := newHouse(t)
	d := archivetest.Determina("1", "uno")
	id := h.mustSubmit("montesole", montesole, d).Body.Package
	may := map[string]string{ // route → roles that may, beside admin
		"/submissions": "submit", "/packages": "read", "/packages/{id}": "read", "/package": "read", "/receipt": "submit read",
		"/receipt.xml": "submit read", "/proof": "submit read", "/evidence": "submit read", "/copies": "read", "/audits": "audit",
	}
	for _, token := range []string{"m-submit", "m-read", "m-audit", "montesole"} {
		for _, r := range everyRoute(montesole, id) {
			route := r.path[strings.LastIndexByte(r.path, '/'):]
			if strings.HasSuffix(r.path, id) {
				route = "/packages/{id}"
			}
			a := h.send(r.method, r.path, token, asJSON, strings.NewReader(r.body))
			allowed := token == "montesole" || strings.Contains(may[route], strings.TrimPrefix(token, "m-"))
			if allowed == (a.status == http.StatusForbidden) || a.status == http.StatusNotFound || a.status == http.StatusUnauthorized {
				t.Errorf("%s %s %s: got %d, allowed %t", token, r.method, route, a.status, allowed)
			}
		}
	}
}

func TestTokensThatAreNone(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Public = false })
	paths := []string{"/api/v1/status", "/ledger/" + montesole + "/checkpoint", "/ledger/" + montesole + "/tile/0/000.p/1"}
	for _, r := range everyRoute(montesole, "x") {
		if r.method == "GET" {
			paths = append(paths, r.path)
		}
	}
	for _, path := range paths {
		for name, value := range map[string]string{
			"none": "", "empty": "Bearer ", "another scheme": "Basic bW9udGVzb2xl", "bare": "montesole", "too long": "Bearer " + strings.Repeat("x", 600),
		} {
			header := map[string]string{}
			if value != "" {
				header["Authorization"] = value
			}
			a := h.send("GET", path, "", header, nil)
			if p := a.problem(t); p.Status != 401 || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%s: %s: got %d %v", path, name, p.Status, a.header)
			}
			h.srv.gate = newGate() // the delays have a test of their own
		}
	}
	for _, token := range []string{"expired", "wrong"} {
		if a := h.send("GET", "/api/v1/status", token, nil, nil); a.status != 401 {
			t.Errorf("%s: got %d want 401", token, a.status)
		}
	}
	if a := h.send("GET", "/ledger/"+montesole+"/checkpoint", "m-read", nil, nil); a.status != 200 {
		t.Errorf("checkpoint of one's own: got %d", a.status)
	}
	if a := h.send("GET", "/ledger/"+montesole+"/checkpoint", "colli", nil, nil); a.status != 404 {
		t.Errorf("checkpoint of another's: got %d", a.status)
	}
}

// TestNoSecretAndNoPersonalDatumIsLogged uses words that occur nowhere else, in every place a client chooses.
func TestNoSecretAndNoPersonalDatumIsLogged(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	d := withSubject("99877", "Zwölfton Quastenflosser")
	d.Register = "REGZZQ"
	d.Files[0].Name = "wurzelgemüse.pdf"
	r := h.mustSubmit("montesole", montesole, d)
	c := h.client("montesole")
	if _, err := c.Search(ctx, SearchQuery{Producer: montesole, Words: "quastenflosser"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Retrieve(ctx, montesole, r.Body.Package, "Blumenkohl", &bytes.Buffer{}, nil); err != nil {
		t.Fatal(err)
	}
	bad := d
	bad.Type = "kaulquappe"
	h.postForm("montesole", montesole, bad, nil)
	conflict := d
	conflict.Subject += " Kartoffel"
	h.postForm("montesole", montesole, conflict, nil)
	h.postForm("montesole", "c_zzqproducer", d, nil)
	h.send("GET", "/api/v1/producers/"+montesole+"/packages?q=tannenzapfen&x=1", "montesole", nil, nil)
	h.send("GET", "/unbekannt/pfad", "geheimzeichen", map[string]string{"User-Agent": "spionagent", "X-Forwarded-For": "198.51.100.77"}, nil)
	h.send("GET", "/api/v1/status", "geheimzeichen", nil, nil)
	h.send("ZZQMETHOD", "/api/v1/status", "montesole", nil, nil)
	h.damage(r.Body.Package)
	if err := c.Package(ctx, montesole, r.Body.Package, &bytes.Buffer{}, nil); err == nil {
		t.Error("a damaged package was given out")
	}
	h.http.Close()
	logs := strings.ToLower(h.logs.String())
	for _, word := range []string{
		"zwölfton", "quastenflosser", "wurzelgem", "99877", "regzzq", "blumenkohl", "kaulquappe", "kartoffel", "c_zzqproducer", "tannenzapfen",
		"unbekannt", "geheimzeichen", "spionagent", "198.51.100.77", "zzqmethod", "127.0.0.1", "montesole\"", "sistema-", "bearer", "q=",
	} {
		if i := strings.Index(logs, word); i >= 0 {
			t.Errorf("%q is in the log: %.200s", word, logs[max(0, i-100):])
		}
	}
	for _, want := range []string{"method=post route=/api/v1/producers/{producer}/submissions status=201", "producer=" + montesole, "method=other", "route=none"} {
		if !strings.Contains(logs, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	// The archive's own log, too.
	for _, word := range []string{"quastenflosser", "wurzelgem", "blumenkohl"} {
		if strings.Contains(strings.ToLower(h.bench.Logs.String()), word) {
			t.Errorf("%q is in the archive's log", word)
		}
	}
}

func TestEveryAnswerHasTheSecurityHeaders(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/", "/api/v1/status", "/healthz", "/ledger/" + montesole + "/checkpoint", "/api/v1/producers/" + montesole + "/packages"} {
		a := h.send("GET", path, "montesole", nil, nil)
		if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Cache-Control") != "no-store" || len(a.header.Get("X-Request-Id")) < 20 || a.header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: got %v", path, a.header)
		}
	}
}

// damage changes a byte of the document inside a package.
func (h *house) damage(id string) {
	h.t.Helper()
	store := h.bench.Store.(*storagetest.Mem)
	for _, key := range store.Keys() {
		if strings.Contains(key, id) {
			store.Damage(key, func(b []byte) []byte { b[bytes.Index(b, []byte("%PDF"))+6] ^= 1; return b })
			return
		}
	}
	h.t.Fatalf("no object of %s", id)
}
