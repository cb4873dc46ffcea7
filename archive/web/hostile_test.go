package web

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/policies"
)

// part writes one part of a form with boundary b.
func part(header, body string) string { return "--b\r\n" + header + "\r\n\r\n" + body + "\r\n" }

const (
	metadataHeader = "Content-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json"
	fileHeader     = "Content-Disposition: form-data; name=\"file\"; filename=\"determina.pdf\""
	formEnd        = "--b--\r\n"
)

func TestBadSubmissions(t *testing.T) {
	h := newHouse(t)
	d := archivetest.Determina("1", "uno")
	meta, file := part(metadataHeader, string(d.Description())), part(fileHeader, string(d.Files[0].Data))
	nested := strings.Repeat(`{"extra":`, 200) + "1" + strings.Repeat("}", 200)
	for name, c := range map[string]struct {
		body      string
		mediaType string // "" : multipart/form-data; boundary=b
		header    map[string]string
		status    int
		field     string
		rule      string
	}{
		"empty body":               {"", "", nil, 400, "metadata", "multipart.form"},
		"json instead of a form":   {"{}", "application/json", nil, 415, "Content-Type", "http.content-type"},
		"no boundary":              {meta, "multipart/form-data", nil, 415, "Content-Type", "http.content-type"},
		"mixed instead of a form":  {meta, "multipart/mixed; boundary=b", nil, 415, "Content-Type", "http.content-type"},
		"another boundary":         {meta + file + formEnd, "multipart/form-data; boundary=c", nil, 400, "metadata", "multipart.form"},
		"only the final boundary":  {formEnd, "", nil, 400, "metadata", "multipart.metadata"},
		"compressed":               {meta + file + formEnd, "", map[string]string{"Content-Encoding": "gzip"}, 415, "Content-Encoding", "http.encoding"},
		"file first":               {file + meta + formEnd, "", nil, 400, "metadata", "multipart.metadata"},
		"metadata of another type": {part(strings.ReplaceAll(metadataHeader, "application/json", "text/xml"), "<a/>") + file + formEnd, "", nil, 400, "metadata", "multipart.metadata"},
		"metadata not JSON":        {part(metadataHeader, "no") + file + formEnd, "", nil, 400, "$", "json.syntax"},
		"metadata nested 200 deep": {part(metadataHeader, nested) + file + formEnd, "", nil, 400, "$", ""},
		"metadata over 16 MiB":     {part(metadataHeader, strings.Repeat(" ", maxMetadata+1)) + file + formEnd, "", nil, 413, "metadata", "metadata.size"},
		"no files":                 {meta + formEnd, "", nil, 400, "files[0]", "file.missing"},
		"one file too many":        {meta + file + file + formEnd, "", nil, 400, "files", "file.unannounced"},
		"part not named file":      {meta + part(`Content-Disposition: form-data; name="upload"`, "x") + formEnd, "", nil, 400, "files[0]", "multipart.file"},
		"other file name":          {meta + part(`Content-Disposition: form-data; name="file"; filename="x.pdf"`, "x") + formEnd, "", nil, 400, "files[0].name", "file.order"},
		"path as file name":        {meta + part(`Content-Disposition: form-data; name="file"; filename="../../determina.pdf"`, "x") + formEnd, "", nil, 400, "files[0].name", "file.order"},
		"file name not UTF-8":      {meta + part("Content-Disposition: form-data; name=\"file\"; filename=\"\xff\xfe.pdf\"", "x") + formEnd, "", nil, 400, "files[0]", "multipart.name"},
		"no disposition":           {meta + part("Content-Type: application/pdf", "x") + formEnd, "", nil, 400, "files[0]", "multipart.name"},
		"base64":                   {meta + part(fileHeader+"\r\nContent-Transfer-Encoding: base64", "eA==") + formEnd, "", nil, 400, "files[0]", "multipart.encoding"},
		"quoted-printable":         {meta + part(fileHeader+"\r\nContent-Transfer-Encoding: Quoted-Printable", "x") + formEnd, "", nil, 400, "files[0]", "multipart.encoding"},
		"header of 64 KiB":         {meta + part(fileHeader+"\r\nX: "+strings.Repeat("x", 64<<10), "x") + formEnd, "", nil, 400, "files[0]", "multipart."},
		"10,000 header lines":      {meta + part(fileHeader+strings.Repeat("\r\nX: y", 10000), "x") + formEnd, "", nil, 400, "files[0]", "multipart.header"},
		"preamble without end":     {strings.Repeat("x\r\n", 1<<20), "", nil, 400, "metadata", "multipart.header"},
		"epilogue without end":     {meta + file + formEnd + strings.Repeat("x\r\n", 1<<20), "", nil, 400, "$", ""},
		"file too short":           {meta + part(fileHeader, "x") + formEnd, "", nil, 400, "files[0].size", "file.short"},
		"file too long":            {meta + part(fileHeader, string(d.Files[0].Data)+"x") + formEnd, "", nil, 400, "files[0].size", "file.long"},
		"cut in the file":          {meta + file[:len(file)-20], "", nil, 400, "files[0]", "multipart.form"},
		"cut before the end":       {meta + file, "", nil, 400, "$", ""},
		"cut after a boundary":     {meta + file + "--b\r\n", "", nil, 400, "files[1]", "multipart.form"},
		"cut in the end":           {meta + file + "--b-", "", nil, 400, "$", ""},
	} {
		t.Run(name, func(t *testing.T) {
			header := map[string]string{"Content-Type": "multipart/form-data; boundary=b", "Accept-Language": "en"}
			if c.mediaType != "" {
				header["Content-Type"] = c.mediaType
			}
			for k, v := range c.header {
				header[k] = v
			}
			p := h.send("POST", "/api/v1/producers/"+montesole+"/submissions", "montesole", header, strings.NewReader(c.body)).problem(t)
			if p.Status != c.status || len(p.Findings) == 0 {
				t.Fatalf("got %d %+v, want %d", p.Status, p, c.status)
			}
			f := p.Findings[0]
			if c.rule != "" && (f.Field != c.field || !strings.HasPrefix(f.Rule, c.rule)) {
				t.Errorf("got %s %s, want %s %s", f.Field, f.Rule, c.field, c.rule)
			}
			if f.Message == "" || f.Remedy == "" {
				t.Errorf("no message or remedy: %+v", f)
			}
			if p.Instance == "" {
				t.Error("no instance")
			}
		})
	}
	if head := mustStatus(t, h); head.Packages != 0 || head.Entries != 1 {
		t.Errorf("bad input left %d packages and %d entries, want 0 and the ledger's first", head.Packages, head.Entries)
	}
	h.mustSubmit("montesole", montesole, d)
}

func mustStatus(t *testing.T, h *house) archive.ProducerHealth {
	t.Helper()
	s := h.arc.Status(t.Context())
	i := slices.IndexFunc(s.Producers, func(p archive.ProducerHealth) bool { return p.Code == montesole })
	return s.Producers[i]
}

func TestEveryFindingOfThisPackageIsBilingual(t *testing.T) {
	for rule, text := range english {
		if text[0] == "" || text[1] == "" {
			t.Errorf("%s: no English text", rule)
		}
	}
	f := []policies.Finding{finding("f", "multipart.form", "messaggio", "rimedio")}
	if got := speak(f, "en")[0]; got.Message == "messaggio" || got.Remedy == "rimedio" {
		t.Errorf("English: got %+v", got)
	}
	if got := speak(f, "it")[0]; got.Message != "messaggio" {
		t.Errorf("Italian: got %+v", got)
	}
}

func TestBadRequestsBesideSubmissions(t *testing.T) {
	h := newHouse(t)
	id := h.mustSubmit("montesole", montesole, archivetest.Determina("1", "uno")).Body.Package
	const of = "/api/v1/producers/" + montesole
	jsonType := map[string]string{"Content-Type": "application/json"}
	for name, c := range map[string]struct {
		method, path, body string
		header             map[string]string
		status             int
		field              string
	}{
		"unknown parameter":      {"GET", of + "/packages?subject=x", "", nil, 400, "query"},
		"repeated parameter":     {"GET", of + "/packages?year=1&year=2", "", nil, 400, "year"},
		"year no number":         {"GET", of + "/packages?year=MMXXVI", "", nil, 400, "year"},
		"limit negative":         {"GET", of + "/packages?limit=-1", "", nil, 400, "limit"},
		"date no date":           {"GET", of + "/packages?from=9/3/2026", "", nil, 400, "from"},
		"cursor no cursor":       {"GET", of + "/packages?after=x", "", nil, 400, "after"},
		"words not UTF-8":        {"GET", of + "/packages?q=%ff", "", nil, 400, "q"},
		"words too many":         {"GET", of + "/packages?q=" + strings.Repeat("a", 2000), "", nil, 400, "q"},
		"malformed query":        {"GET", of + "/packages?q=%zz", "", nil, 400, "$"},
		"copy without purpose":   {"POST", of + "/packages/" + id + "/copies", "{}", jsonType, 400, "purpose"},
		"copy without body":      {"POST", of + "/packages/" + id + "/copies", "", nil, 400, "purpose"},
		"purpose with a newline": {"POST", of + "/packages/" + id + "/copies", `{"purpose":"a\nb"}`, jsonType, 400, "purpose"},
		"unknown member":         {"POST", of + "/packages/" + id + "/copies", `{"purpose":"a","x":1}`, jsonType, 400, "$"},
		"two values":             {"POST", of + "/packages/" + id + "/copies", `{"purpose":"a"}{}`, jsonType, 400, "$"},
		"body too large":         {"POST", of + "/packages/" + id + "/copies", `{"purpose":"` + strings.Repeat("a", 70<<10) + `"}`, jsonType, 413, "$"},
		"form instead of JSON":   {"POST", of + "/packages/" + id + "/copies", "purpose=a", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 415, "Content-Type"},
		"empty ids":              {"POST", of + "/audits", `{"ids":[]}`, jsonType, 400, "ids"},
		"ids no ids":             {"POST", of + "/audits", `{"ids":["../x"]}`, jsonType, 400, "ids"},
		"against no receipt":     {"POST", of + "/audits", `{"against":[{"body":1}]}`, jsonType, 400, "against[0]"},
		"nested 100,000 deep":    {"POST", of + "/audits", `{"against":` + strings.Repeat("[", 100_000), jsonType, 400, "$"},
	} {
		t.Run(name, func(t *testing.T) {
			p := h.send(c.method, c.path, "montesole", c.header, strings.NewReader(c.body)).problem(t)
			if p.Status != c.status || len(p.Findings) != 1 || p.Findings[0].Field != c.field || p.Findings[0].Remedy == "" {
				t.Errorf("got %d %+v, want %d %s", p.Status, p.Findings, c.status, c.field)
			}
		})
	}
	for path, allow := range map[string]string{of + "/submissions": "POST", of + "/packages": "GET, HEAD", "/api/v1/status": "GET, HEAD"} {
		a := h.send("DELETE", path, "montesole", nil, nil)
		if p := a.problem(t); p.Status != 405 || a.header.Get("Allow") != allow {
			t.Errorf("%s: got %d %q", path, p.Status, a.header.Get("Allow"))
		}
	}
	for _, path := range []string{"/", "/api/v1", of, of + "/packages/", of + "//packages", of + "/./packages", "/api/v1/producers/%2e%2e/packages", of + "/packages/" + id + "%2Freceipt", of + "/packages/..%2f", "/favicon.ico"} {
		if p := h.send("GET", path, "montesole", nil, nil).problem(t); p.Status != 404 {
			t.Errorf("%s: got %d want 404", path, p.Status)
		}
	}
}

// dial opens a raw connection, which the server must have answered or closed within a minute.
func (h *house) dial() (net.Conn, *bufio.Reader) {
	h.t.Helper()
	c, err := net.Dial("tcp", h.http.Listener.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		h.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

func (h *house) postHead(extra string) string {
	return "POST /api/v1/producers/" + montesole + "/submissions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer montesole\r\nContent-Type: multipart/form-data; boundary=b\r\n" + extra + "\r\n\r\n"
}

// answered reads an answer from a raw connection.
func answered(t *testing.T, r *bufio.Reader) (int, []policies.Finding) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	var p Problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, p.Findings
}

func TestSlowAndLyingClientsAreCut(t *testing.T) {
	h := newHouse(t)
	h.srv.window = 300 * time.Millisecond
	d := archivetest.Determina("1", "uno")
	meta := part(metadataHeader, string(d.Description()))

	t.Run("trickle", func(t *testing.T) {
		c, r := h.dial()
		fmt.Fprint(c, h.postHead("Content-Length: 100000"))
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					if _, err := c.Write([]byte("x")); err != nil {
						return
					}
				}
			}
		}()
		status, findings := answered(t, r)
		close(stop)
		if status != 408 || len(findings) == 0 || findings[0].Rule != "http.slow" {
			t.Errorf("got %d %+v", status, findings)
		}
	})
	t.Run("in the middle of a file", func(t *testing.T) {
		c, r := h.dial()
		fmt.Fprint(c, h.postHead("Content-Length: 100000")+meta+"--b\r\n"+fileHeader+"\r\n\r\n%PDF-1.4")
		if status, _ := answered(t, r); status != 408 {
			t.Errorf("got %d want 408", status)
		}
	})
	t.Run("length too large, then closed", func(t *testing.T) {
		c, r := h.dial()
		fmt.Fprint(c, h.postHead("Content-Length: 100000")+meta)
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if status, findings := answered(t, r); status != 400 || findings[0].Rule != "multipart.form" {
			t.Errorf("got %d %+v", status, findings)
		}
	})
	t.Run("length too small", func(t *testing.T) {
		c, r := h.dial()
		fmt.Fprint(c, h.postHead("Content-Length: 100")+meta)
		if status, findings := answered(t, r); status != 400 || findings[0].Rule != "multipart.form" {
			t.Errorf("got %d %+v", status, findings)
		}
	})
	t.Run("chunks without end", func(t *testing.T) {
		c, r := h.dial()
		fmt.Fprint(c, h.postHead("Transfer-Encoding: chunked"))
		go func() {
			for {
				if _, err := fmt.Fprint(c, "5\r\nx\r\nx\r\n\r\n"); err != nil {
					return
				}
			}
		}()
		if status, _ := answered(t, r); status != 400 {
			t.Errorf("got %d want 400", status)
		}
	})
	t.Run("two lengths", func(t *testing.T) {
		c, r := h.dial()
		fmt.Fprint(c, h.postHead("Content-Length: 10\r\nContent-Length: 20"))
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 400 {
			t.Errorf("got %v %v", resp, err)
		}
	})
	t.Run("header of 64 KiB", func(t *testing.T) {
		c, r := h.dial()
		go fmt.Fprint(c, h.postHead("X: "+strings.Repeat("x", 64<<10)))
		if resp, err := http.ReadResponse(r, nil); err == nil && resp.StatusCode != 431 {
			t.Errorf("got %d", resp.StatusCode)
		}
	})
	t.Run("body of a GET that never comes", func(t *testing.T) {
		c, r := h.dial()
		fmt.Fprint(c, "GET /api/v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
		if status, _ := answered(t, r); status != 401 {
			t.Errorf("got %d want 401", status)
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("the connection stays open: %v", err)
		}
	})
	t.Run("100-continue with a wrong token", func(t *testing.T) {
		c, r := h.dial()
		fmt.Fprint(c, strings.Replace(h.postHead("Content-Length: 1000\r\nExpect: 100-continue"), "Bearer montesole", "Bearer wrong", 1))
		if status, _ := answered(t, r); status != 401 {
			t.Errorf("got %d want 401 without a 100", status)
		}
	})
	if s := mustStatus(t, h); s.Packages != 0 || s.Entries != 1 {
		t.Errorf("left %d packages, %d entries", s.Packages, s.Entries)
	}
}

func TestSlowReadersAreCut(t *testing.T) {
	h := newHouse(t)
	h.srv.window = 300 * time.Millisecond
	d := archivetest.Determina("1", "uno")
	d.Files[0].Data = append(archivetest.PDF("grande"), bytes.Repeat([]byte(" "), 24<<20)...)
	id := h.mustSubmit("montesole", montesole, d).Body.Package
	c, _ := h.dial()
	fmt.Fprint(c, "GET /api/v1/producers/"+montesole+"/packages/"+id+"/package HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer montesole\r\n\r\n")
	for range 500 {
		if strings.Contains(h.logs.String(), "method=GET route=/api/v1/producers/{producer}/packages/{id}/package") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("a client that reads nothing keeps its connection")
}

// TestAHundredThousandSmallPartsTakeNoMemory sends more parts than could be held.
func TestAHundredThousandSmallPartsTakeNoMemory(t *testing.T) {
	h := newHouse(t)
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	one := part(`Content-Disposition: form-data; name="file"`, "x")
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)

	f := newForm(io.MultiReader(strings.NewReader(part(metadataHeader, "{}")), &repeated{text: one, left: n}, strings.NewReader(formEnd)), "b", -1)
	if _, err := f.metadata(); err != nil {
		t.Fatal(err)
	}
	parts := 0
	var peak uint64
	for {
		p, err := f.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(p.Body); err != nil || string(text) != "x" {
			t.Fatalf("part %d: %q %v", parts, text, err)
		}
		if parts++; parts%(n/10) == 0 {
			runtime.GC()
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapAlloc)
		}
	}
	if parts != n {
		t.Errorf("got %d parts want %d", parts, n)
	}
	if grown := int64(peak) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}

	// The same over the wire: the second part is one too many, and the rest is not waited for.
	d := archivetest.Determina("1", "uno")
	body := io.MultiReader(strings.NewReader(part(metadataHeader, string(d.Description()))+part(fileHeader, string(d.Files[0].Data))), &repeated{text: one, left: n}, strings.NewReader(formEnd))
	p := h.send("POST", "/api/v1/producers/"+montesole+"/submissions", "montesole", map[string]string{"Content-Type": "multipart/form-data; boundary=b", "Expect": "100-continue"}, body).problem(t)
	if p.Status != 400 || p.Findings[0].Rule != "file.unannounced" {
		t.Errorf("got %d %+v", p.Status, p.Findings)
	}
}

// repeated gives a text left times.
type repeated struct {
	text string
	left int
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && r.left > 0 {
		m := copy(p[n:], r.text[r.at:])
		n += m
		if r.at += m; r.at == len(r.text) {
			r.at, r.left = 0, r.left-1
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// FuzzForm wants the reader of submissions to end, to say which field is wrong, and never to take a form for
// whole that was cut.
func FuzzForm(f *testing.F) {
	whole := part(metadataHeader, `{"a":1}`) + part(fileHeader, "uno") + part(fileHeader, "\r\n--due\r\n--b-") + formEnd
	f.Add([]byte(whole))
	f.Add([]byte(whole[:len(whole)-8]))
	f.Add([]byte("--b--"))
	f.Add([]byte(part(metadataHeader, "") + part(fileHeader+"\r\nContent-Transfer-Encoding: x", "") + formEnd))
	f.Add([]byte(part(metadataHeader, "") + "--b\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		form := newForm(bytes.NewReader(data), "b", int64(len(data)))
		_, err := form.metadata()
		read := 0
		for err == nil {
			var p archive.Part
			if p, err = form.next(); err == nil {
				var n int64
				n, err = io.Copy(io.Discard, p.Body)
				read += int(n)
			}
		}
		if read > len(data) {
			t.Fatalf("%d bytes of files in a form of %d", read, len(data))
		}
		if err == io.EOF {
			if !bytes.Contains(data, []byte("--b--")) {
				t.Fatalf("taken for whole without a final boundary: %q", data)
			}
			return
		}
		p := problemOf(err, "it")
		if p.Status != 400 && p.Status != 413 || len(p.Findings) == 0 || p.Findings[0].Field == "" {
			t.Fatalf("got %d %+v for %v", p.Status, p, err)
		}
	})
}

// BenchmarkForm measures what the framing costs: of ordinary bytes, and of bytes full of what looks like the
// beginning of a boundary.
func BenchmarkForm(b *testing.B) {
	for name, text := range map[string]string{"ordinary": "0123456789abcdefghij", "hostile": "0123456789abcdef\r\n--"} {
		b.Run(name, func(b *testing.B) {
			file := bytes.Repeat([]byte(text), 64<<20/20)
			head, buf := part(metadataHeader, "{}")+"--b\r\n"+fileHeader+"\r\n\r\n", make([]byte, 32<<10)
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				f := newForm(io.MultiReader(strings.NewReader(head), bytes.NewReader(file), strings.NewReader("\r\n"+formEnd)), "b", -1)
				if _, err := f.metadata(); err != nil {
					b.Fatal(err)
				}
				p, err := f.next()
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, p.Body, buf); err != nil || n != int64(len(file)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}
