package policies

import (
	"strings"
	"testing"
)

func TestHostileNamesAreJudged(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"determina.pdf", ""},
		{"Delibera n. 3 – perché sì (allegato A) & altro.pdf", ""},
		{"l'acqua è bene comune.PDF.p7m", ""},
		{"100% finanziato.pdf", ""},
		{"Παράρτημα.pdf", ""},
		{".pdf", ""},

		{"", "field.required"},
		{" \t", "field.required"},
		{".", "name.forbidden"},
		{"..", "name.forbidden"},
		{"../a.pdf", "name.forbidden"},
		{"/etc/passwd", "name.forbidden"},
		{`C:\a.pdf`, "name.forbidden"},
		{`..\a.pdf`, "name.forbidden"},
		{"a\x00.pdf", "name.forbidden"},
		{"a\nb.pdf", "name.forbidden"},
		{"a\x1b[31m.pdf", "name.forbidden"},
		{"a\u0085b.pdf", "name.forbidden"},
		{"a\uffffb.pdf", "name.forbidden"},
		{"citt\xe0.pdf", "name.forbidden"},
		{strings.Repeat("a", 1025), "name.forbidden"},

		{"fattura\u202efdp.exe", "name.misleading"},
		{"a\u200b.pdf", "name.misleading"},
		{"a\u2028b.pdf", "name.misleading"},
		{"a\u3164.pdf", "name.misleading"},
		{"..∕a.pdf", "name.misleading"},
		{"p\u0430gina.pdf", "name.misleading"},
		{"αlfa.pdf", "name.misleading"},
		{"❤️.pdf", "name.misleading"},

		{"CON", "name.portable"},
		{"con.pdf", "name.portable"},
		{"Lpt1 .txt", "name.portable"},
		{"a.pdf.", "name.portable"},
		{"a.pdf ", "name.portable"},
		{" a.pdf", "name.portable"},
		{"a?.pdf", "name.portable"},
		{"12:30.pdf", "name.portable"},
		{"%2e%2e%2fa.pdf", "name.portable"},
		{"=cmd.csv", "name.portable"},
		{"-rf.pdf", "name.portable"},
		{strings.Repeat("a", 252) + ".pdf", "name.portable"},

		{"citta\u0300.pdf", "text.normalised"},
		{"=citta\u0300\u202e.pdf ", "name.misleading name.portable text.normalised"},
	} {
		check := newCheck(comune(t))
		check.name(c.name, "x")
		var got []string
		for _, f := range check.findings() {
			got = append(got, f.Rule)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: got %q want %q", c.name, got, c.want)
		}
	}
}

func TestNamesThatManySystemsTakeForTheSameAreTold(t *testing.T) {
	p := comune(t)
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"a.pdf", "a.pdf", true},
		{"A.pdf", "a.PDF", true},
		{"città.pdf", "citta\u0300.pdf", true},
		{"a.pdf", "a.pdf. ", true},
		{"a.pdf", "b.pdf", false},
		{"a.pdf", "a.pdf.p7m", false},
		{"", "", false},
	} {
		d := Description{Files: []FileDescription{{Name: c.a}, {Name: c.b}}}
		got := false
		for _, f := range p.AdmitDescription(d, received) {
			got = got || f.Rule == "name.duplicate"
		}
		if got != c.same {
			t.Errorf("%q and %q: got %v want %v", c.a, c.b, got, c.same)
		}
	}
}
