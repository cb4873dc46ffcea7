package policies

import (
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestComuneIsWhatTheContractAsks(t *testing.T) {
	p := comune(t)
	if got, want := p.Limits(), (Limits{MaxFiles: 5000, MaxFileSize: 16 << 30, MaxSubmission: 64 << 30, MaxMetadata: 8 << 20}); got != want {
		t.Errorf("limits: got %+v want %+v", got, want)
	}
	if got, want := p.AuditEvery(), 30*24*time.Hour; got != want {
		t.Errorf("audit: got %v want %v", got, want)
	}
	if p.RefusalLimit() != 3 {
		t.Errorf("refusals: got %d want 3", p.RefusalLimit())
	}
	for _, name := range []string{
		"determina", "delibera", "ordinanza", "decreto", "contratto", "fattura", "registro-giornaliero-protocollo", "protocollo",
		"protocollo-entrata", "protocollo-uscita", "pec", "verbale", "mandato", "reversale", "permesso-di-costruire", "documento",
	} {
		if _, ok := p.Type(name); !ok {
			t.Errorf("no type %s", name)
		}
	}
	if n := len(p.Classes()); n < 36 {
		t.Errorf("got %d retention classes want a few dozen", n)
	}
	for _, mime := range p.Formats() {
		if a, ok := p.Format(mime); !ok || a.Title == "" {
			t.Errorf("%s: got %+v", mime, a)
		}
	}
	if _, err := Builtin("provincia"); err == nil {
		t.Error("Builtin of an unknown name: got no error")
	}
	if _, err := Builtin("../builtin/comune"); err == nil {
		t.Error("Builtin of a path: got no error")
	}
}

func TestRetainUntilNeverGuesses(t *testing.T) {
	p := comune(t)
	closed := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		class string
		from  time.Time
		want  string
	}{
		{"mandati-di-pagamento", closed, "2034-03-01"},
		{"assicurazioni", time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC), "2028-12-31"},
		{"contratti", closed, ""},
		{"", closed, ""},
		{"sconosciuta", closed, ""},
		{"mandati-di-pagamento", time.Time{}, ""},
	} {
		until, ok := p.RetainUntil(c.class, c.from)
		got := ""
		if ok {
			got = until.Format(time.DateOnly)
		}
		if got != c.want {
			t.Errorf("%q from %v: got %q want %q", c.class, c.from, got, c.want)
		}
	}
}

func TestOverridesChangeOnlyWhatTheySay(t *testing.T) {
	base := comune(t)
	before := base.Digest()
	p, err := Parse([]byte(`
name: montesole
registers: [DETE, PROT]
limits: {file: 1 GiB}
types:
  fattura: null
  patto: {title: Patto di collaborazione, require: [parties, folder], formats: [application/pdf]}
formats:
  image/gif: null
  text/x-tex: {title: TeX, judgement: accepted}
retention:
  patti: {title: Patti, years: 7, from: scadenza}
rules:
  date.year: error
  format.unlisted: warning
`), base)
	if err != nil {
		t.Fatal(err)
	}
	if base.Digest() != before {
		t.Error("the base has changed")
	}
	if p.Digest() == before {
		t.Error("the digest has not changed")
	}
	if got, want := p.Limits(), (Limits{MaxFiles: 5000, MaxFileSize: 1 << 30, MaxSubmission: 64 << 30, MaxMetadata: 8 << 20}); got != want {
		t.Errorf("limits: got %+v want %+v", got, want)
	}
	if _, ok := p.Type("fattura"); ok {
		t.Error("type fattura was taken away and is there")
	}
	if _, ok := base.Type("fattura"); !ok {
		t.Error("type fattura was taken from the base")
	}
	if until, ok := p.RetainUntil("patti", received); !ok || until.Year() != 2033 {
		t.Errorf("patti: got %v, %v", until, ok)
	}
	d := submission("%PDF-1.7 %%EOF")
	d.Type, d.Register, d.Date = "patto", "DELC", "2025-12-31"
	found := p.AdmitDescription(d, received)
	if got, want := places(found), "field.required parties, field.required folder, date.year date, register.unknown register"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	for _, f := range found {
		if f.Level != Error {
			t.Errorf("%s: got level %s want error", f.Rule, f.Level)
		}
	}
	gif := []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;")
	if got := p.AdmitFile(submission(string(gif)), 0, foundOf(gif)); Refused(got) || !strings.Contains(places(got), "format.unlisted") {
		t.Errorf("GIF: got %s want format.unlisted as a warning", listing(got))
	}
}

func TestEmptyOverrideIsTheBase(t *testing.T) {
	base := comune(t)
	for _, file := range []string{"", "# nothing\n", "---\n", "{}"} {
		p, err := Parse([]byte(file), base)
		if file == "---\n" { // an explicit null is no mapping
			if err == nil {
				t.Errorf("%q: got no error", file)
			}
			continue
		}
		if err != nil || p.Digest() != base.Digest() {
			t.Errorf("%q: got %v", file, err)
		}
	}
}

func TestParseSaysWhichKeyAndWhy(t *testing.T) {
	base := comune(t)
	for _, c := range []struct{ file, want string }{
		{"refusal: 3", "line 1: refusal: unknown key; known here: audit, formats,"},
		{"limits:\n  fils: 3", "line 2: limits.fils: unknown key; known here: file, files, metadata, submission"},
		{"refusals: 2", "line 1: refusals: must be a whole number from 3 to 1000"},
		{"refusals: '3'", "refusals: must be a whole number"},
		{"refusals: 3\nrefusals: 4", "line 2: refusals: given twice"},
		{"name: Montesole", "name: a name has 1 to 64"},
		{"title: 5", "title: must be text"},
		{"title: ''", "title: must be text"},
		{"audit: {every: 6 years}", "audit.every: must be a whole number and a unit of days, hours"},
		{"audit: {every: 1826 days}", "audit.every: must be a whole number"},
		{"audit: {every: 0 days}", "audit.every: must be"},
		{"audit: 30 days", "line 1: audit: must be a mapping"},
		{"limits: {file: 16GiB}", "limits.file: must be a whole number and a unit"},
		{"limits: {file: 9223372036854775807 TiB}", "limits.file: must be"},
		{"limits: {metadata: 9 MiB}", "limits.metadata: must be"},
		{"limits: {files: 10001}", "limits.files: must be a whole number from 1 to 10000"},
		{"limits: {file: 1 TiB}", "limits.file: is more than limits.submission"},
		{"registers: DETE", "registers: must be a list"},
		{"registers: [DETE, 5]", "registers[1]: must be text"},
		{"types: {patto: {titolo: x}}", "types.patto.titolo: unknown key"},
		{"types: {patto: {}}", "types.patto: title is missing"},
		{"types: {Patto: {title: x}}", "types.Patto: a name has 1 to 64"},
		{"types: {patto: {title: x, require: [subject]}}", `types.patto.require: "subject" is no optional member`},
		{"types: {patto: {title: x, formats: [image/x-dpx]}}", `types.patto.formats: "image/x-dpx" is not in formats`},
		{"types: {patto: null}", "types.patto: nothing of this name to take away"},
		{"formats: {application/xml: null}", `types.fattura.formats: "application/xml" is not in formats`},
		{"formats: {text/xml: {title: x, judgement: accepted}}", `formats.text/xml: is not a MIME type as it is written here; that would be "application/xml"`},
		{"formats: {image/x-dpx: {title: x, judgement: good}}", "judgement: must be suitable, accepted or discouraged"},
		{"formats: {image/x-dpx: {title: x}}", "formats.image/x-dpx: judgement is missing"},
		{"retention: {patti: {title: x}}", "retention.patti: years is missing"},
		{"retention: {patti: {title: x, years: 10}}", "retention.patti: from is missing"},
		{"retention: {patti: {title: x, years: 0, from: a}}", "retention.patti.years: must be a whole number from 1 to 4999"},
		{"retention: {patti: {title: x, years: 9999, from: a}}", "retention.patti.years: must be"},
		{"rules: {date.years: error}", "rules.date.years: there is no such rule"},
		{"rules: {format.executable: warning}", "rules.format.executable: the level of this rule is fixed"},
		{"rules: {date.year: off}", "rules.date.year: must be error, warning or info"},
		{"a: &x 1\ntitle: *x", "title: aliases are not read here"},
		{"<<: {title: x}", "keys must be plain text, without anchors or merges"},
		{"- 1", "line 1: the file: must be a mapping"},
		{"title: x\n---\ntitle: y", "more than one YAML document"},
		{"title: [", "yaml"},
		{strings.Repeat(" ", maxPolicyFile+1), "file has 1048577 bytes"},
	} {
		_, err := Parse([]byte(c.file), base)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: got %v want …%s…", c.file, err, c.want)
		}
	}
}

func TestParseWithoutBaseWantsEverything(t *testing.T) {
	_, err := Parse([]byte("name: x"), nil)
	for _, key := range []string{"title", "limits.files", "limits.file", "limits.submission", "limits.metadata", "audit.every", "refusals", "types", "formats"} {
		if err == nil || !strings.Contains(err.Error(), key+": is missing") {
			t.Errorf("got %v want %s: is missing", err, key)
		}
	}
}

func TestDigestCoversWhatDecides(t *testing.T) {
	base := comune(t)
	seen := map[[32]byte]string{base.Digest(): "base"}
	for _, file := range []string{
		"name: a", "title: a", "limits: {files: 1}", "limits: {file: 1 B}", "limits: {submission: 17 GiB}", "limits: {metadata: 1 KiB}",
		"audit: {every: 31 days}", "refusals: 4", "registers: [A]", "structures: [A]", "types: {a: {title: a}}",
		"types: {determina: {title: Determinazione, require: [class]}}", "types: {determina: {title: Determinazione, formats: [application/pdf]}}",
		"formats: {image/gif: null}", "formats: {image/gif: {title: GIF, judgement: accepted}}", "retention: {contratti: null}",
		"retention: {pubblicita: {title: Pubblicità e affissioni, filing: IV/14, years: 6, from: scadenza, source: S1}}", "rules: {date.year: info}",
	} {
		p, err := Parse([]byte(file), base)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if other, ok := seen[p.Digest()]; ok {
			t.Errorf("%s: got the digest of %s", file, other)
		}
		seen[p.Digest()] = file
	}
	a, err := Parse([]byte("registers: [A, B]\nname: x"), base)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse([]byte("name: x\nregisters: [B, A, B]"), base)
	if err != nil {
		t.Fatal(err)
	}
	if a.Digest() != b.Digest() {
		t.Error("order and repetition of a list: got two digests want one")
	}
}

// A digest stands in receipts for decades: the form that it is taken of must not drift by accident.
func TestCanonicalFormIsFrozen(t *testing.T) {
	p, err := Parse([]byte(`
name: prova
title: Prova
limits: {files: 2, file: 1 KiB, submission: 2 KiB, metadata: 1 KiB}
audit: {every: 24 hours}
refusals: 3
types: {determina: {title: Determinazione, require: [parties, class], formats: [application/pdf]}}
formats: {application/pdf: {title: PDF, judgement: suitable}}
retention: {contratti: {title: Contratti, years: permanent}, mandati: {title: Mandati, years: 10, from: chiusura}}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	var form map[string]any
	if err := json.Unmarshal(p.Canonical(), &form); err != nil {
		t.Fatal(err)
	}
	levels := form["rules"].(map[string]any)
	for _, rule := range Rules() {
		if levels[rule.ID] != string(rule.Level) {
			t.Errorf("rules.%s: got %v want %v", rule.ID, levels[rule.ID], rule.Level)
		}
	}
	delete(form, "rules")
	var want map[string]any
	if err := json.Unmarshal([]byte(`{"audit":{"every":86400},"form":"perenne policy v1",
		"formats":{"application/pdf":{"judgement":"suitable","title":"PDF"}},
		"limits":{"file":1024,"files":2,"metadata":1024,"submission":2048},"name":"prova","refusals":3,"registers":[],
		"retention":{"contratti":{"title":"Contratti","years":0},"mandati":{"from":"chiusura","title":"Mandati","years":10}},
		"structures":[],"title":"Prova",
		"types":{"determina":{"formats":["application/pdf"],"require":["class","parties"],"title":"Determinazione"}}}`), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(form, want) {
		t.Errorf("got %v want %v", form, want)
	}
	digest := p.Digest()
	if got := hex.EncodeToString(digest[:]); got != frozenDigest {
		t.Errorf("got %s want %s", got, frozenDigest)
	}
}

// frozenDigest changes when a rule is added or weighs differently, and for no other reason.
const frozenDigest = "77fa53760b36d11c9600f22a72d3689afc6af218a0d9bc0df27f7910c3755401"

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"name: a", "types: {a: {title: b}}", "limits: {file: 1 KiB}", "rules: {date.year: error}", "&a [*a]", "a: &a {<<: *a}", "? [a]: b",
		"retention: {a: {title: b, years: permanent}}", "- - - -", "!!binary a", "'\\ud800'", "%YAML 1.1\n---\n",
	} {
		f.Add([]byte(s))
	}
	base, err := Builtin("comune")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b, base)
		if err != nil {
			return
		}
		if l := p.Limits(); l.MaxFiles < 1 || l.MaxFileSize < 1 || l.MaxSubmission < l.MaxFileSize || l.MaxMetadata > MaxDescription || p.RefusalLimit() < minRefusals || p.AuditEvery() < minAudit || p.AuditEvery() > maxAudit {
			t.Fatalf("out of bounds: %+v, %d, %v", l, p.RefusalLimit(), p.AuditEvery())
		}
		if !json.Valid(p.Canonical()) {
			t.Fatalf("canonical form is no JSON: %s", p.Canonical())
		}
		if again, err := Parse(b, base); err != nil || again.Digest() != p.Digest() {
			t.Fatalf("read again: %v", err)
		}
	})
}
