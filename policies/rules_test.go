package policies

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the findings into testdata instead of comparing them")

// received is when the test submissions arrive.
var received = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)

func comune(t testing.TB) *Policy {
	t.Helper()
	p, err := Builtin("comune")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// part returns a part of an archive, decoded when its name ends in .hex.
func part(t *testing.T, a *txtar.Archive, name string) ([]byte, bool) {
	t.Helper()
	for _, f := range a.Files {
		switch f.Name {
		case name:
			return f.Data, true
		case name + ".hex":
			b, err := hex.DecodeString(strings.TrimSpace(string(f.Data)))
			if err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			return b, true
		}
	}
	return nil, false
}

// look does what the archive does with a submission: description, then files, as far as it gets.
func look(t *testing.T, p *Policy, a *txtar.Archive, side string) []Finding {
	t.Helper()
	b, ok := part(t, a, side+".json")
	if !ok {
		t.Fatalf("no %s.json", side)
	}
	d, found := ParseDescription(b)
	found = Join(found, p.AdmitDescription(d, received))
	for i := 0; ; i++ {
		content, ok := part(t, a, fmt.Sprintf("%s.file%d", side, i))
		if !ok {
			return found
		}
		found = append(found, p.AdmitFile(d, i, foundOf(content))...)
	}
}

func foundOf(content []byte) Found {
	return Found{
		Size: int64(len(content)), SHA256: sha256.Sum256(content),
		Head: content[:min(len(content), HeadSize)], Tail: content[max(0, len(content)-HeadSize):],
	}
}

func listing(found []Finding) string {
	var b strings.Builder
	for _, f := range found {
		english, _ := f.In("en")
		fmt.Fprintf(&b, "%s %s %s: %s → %s [%s]\n", f.Level, f.Rule, f.Field, f.Message, f.Remedy, english)
	}
	return b.String()
}

func TestEveryRuleHasAGoodAndABadCase(t *testing.T) {
	for _, rule := range Rules() {
		t.Run(rule.ID, func(t *testing.T) {
			file := filepath.Join("testdata", "rules", rule.ID+".txtar")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			a := txtar.Parse(b)
			p := comune(t)
			if over, ok := part(t, a, "policy.yaml"); ok {
				if p, err = Parse(over, p); err != nil {
					t.Fatal(err)
				}
			}
			good, bad := look(t, p, a, "good"), look(t, p, a, "bad")
			if len(good) != 0 {
				t.Errorf("good case: got findings\n%swant none", listing(good))
			}
			wrong := false
			for _, f := range bad {
				wrong = wrong || f.Rule == rule.ID && f.Level == rule.Level
			}
			if !wrong {
				t.Errorf("bad case: got\n%swant %s %s among them", listing(bad), rule.Level, rule.ID)
			}
			golden(t, file, a, listing(bad))
		})
	}
}

// golden compares the findings of the bad case with those the file keeps.
func golden(t *testing.T, file string, a *txtar.Archive, got string) {
	t.Helper()
	const name = "bad.findings"
	want, ok := part(t, a, name)
	if got == string(want) && ok {
		return
	}
	if !*update {
		t.Errorf("findings of the bad case: got\n%swant\n%s", got, want)
		return
	}
	for i := range a.Files {
		if a.Files[i].Name == name {
			a.Files[i].Data = []byte(got)
			ok = true
		}
	}
	if !ok {
		a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(got)})
	}
	if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestNoCaseIsLeftWithoutItsRule(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "rules", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		id := strings.TrimSuffix(filepath.Base(f), ".txtar")
		if _, ok := ruleOf(id); !ok {
			t.Errorf("%s belongs to no rule", f)
		}
	}
}

// The table in the package comment is the specification; the program must not say anything else.
func TestPackageCommentListsTheRules(t *testing.T) {
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(source)) {
		if rest, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "//\t"); ok {
			fields := strings.Fields(rest)
			if len(fields) > 2 && strings.Contains(fields[0], ".") && isLevel(fields[1]) {
				got = append(got, strings.Join(fields, " "))
			}
		}
	}
	var want []string
	for i, rule := range Rules() {
		if i > 0 && Rules()[i-1].ID >= rule.ID {
			t.Errorf("rules are not in order: %s before %s", Rules()[i-1].ID, rule.ID)
		}
		level := string(rule.Level)
		if rule.Fixed {
			level += "!"
		}
		want = append(want, rule.ID+" "+level+" "+rule.Meaning)
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	if len(want) < 16 {
		t.Errorf("got %d rules, want at least 16", len(want))
	}
}

func isLevel(s string) bool {
	switch Level(strings.TrimSuffix(s, "!")) {
	case Error, Warning, Info:
		return true
	}
	return false
}

func TestTextsHaveNoPlaceholderLeft(t *testing.T) {
	for _, rule := range Rules() {
		b, err := os.ReadFile(filepath.Join("testdata", "rules", rule.ID+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		a := txtar.Parse(b)
		listed, _ := part(t, a, "bad.findings")
		if bytes.ContainsAny(listed, "{}") {
			t.Errorf("%s: a text has a placeholder that nothing fills:\n%s", rule.ID, listed)
		}
	}
}

func TestFindingSpeaksBothLanguagesAlsoAfterJSON(t *testing.T) {
	f := finding("size.limit", "files[0].size", "size", "20", "max", "10")
	for _, c := range []struct{ lang, message string }{
		{"it", "20 byte, ammessi fino a 10"}, {"en", "20 bytes, up to 10 are allowed"}, {"de", "20 byte, ammessi fino a 10"},
	} {
		if got, _ := f.In(c.lang); got != c.message {
			t.Errorf("In(%q): got %q want %q", c.lang, got, c.message)
		}
	}
	stranger := Finding{Field: "x", Rule: "later.rule", Message: "messaggio", Remedy: "rimedio"}
	if m, r := stranger.In("en"); m != "messaggio" || r != "rimedio" {
		t.Errorf("rule of a later program: got %q, %q want the texts it carries", m, r)
	}
}

func TestMessagesQuoteSafely(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"perché", "perché"},
		{"a\nb\x1b[31m", `a\nb\x1b[31m`},
		{"x\u202ey", `x\u202ey`},
		{"\xff", `\xff`},
		{`di "prova"`, `di "prova"`},
		{"{value}", "{value}"},
		{strings.Repeat("è", 200), strings.Repeat("è", maxQuoted) + "…"},
	} {
		if got := quoted(c.in); got != c.want {
			t.Errorf("quoted(%q): got %q want %q", c.in, got, c.want)
		}
	}
	f := finding("digest.mismatch", "files[0].sha256", "found", "{declared}", "declared", "b")
	if want := "l'impronta del file ricevuto è {declared}, quella dichiarata è b"; f.Message != want {
		t.Errorf("an argument was read as a placeholder: got %q want %q", f.Message, want)
	}
}
