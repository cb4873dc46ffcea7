package pack

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSafeNameKeepsWhatItCan(t *testing.T) {
	for _, tt := range []struct {
		i        int
		original string
		want     string
	}{
		{1, "determina.pdf", "content/001-determina.pdf"},
		{2, "Delibera n. 12 – Città àèìòù.PDF", "content/002-delibera-n-12-citta-aeiou.pdf"},
		{3, "fattura.xml.p7m", "content/003-fattura.xml.p7m"},
		{4, "IT01234567890_FPR02.XML.P7M", "content/004-it01234567890_fpr02.xml.p7m"},
		{5, "../../etc/passwd", "content/005-passwd"},
		{6, `C:\atti\relazione finale.docx`, "content/006-relazione-finale.docx"},
		{7, "", "content/007-file"},
		{8, ".pdf", "content/008-pdf"},
		{9, "日本.pdf", "content/009-file.pdf"},
		{10, "a.estensionelunghissima", "content/010-a-estensionelunghissima"},
		{11, "citta\u0300.txt", "content/011-citta.txt"},
		{12, "a\x00b\xFFc.txt", "content/012-a-b-c.txt"},
		{13, "Straße.gz", "content/013-strasse.gz"},
		{1000, "con", "content/1000-con"},
		{14, "relazione.", "content/014-relazione"},
	} {
		if got := SafeName(tt.i, tt.original); got != tt.want {
			t.Errorf("SafeName(%d, %q): got %q, want %q", tt.i, tt.original, got, tt.want)
		}
	}
}

func TestSafeNameIsAlwaysSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, 200_000).Draw(t, "i")
		original := rapid.OneOf(rapid.String(), rapid.StringMatching(`.{0,200}\.[a-z0-9]{0,12}`), rapid.StringMatching(`[a-zÀ-ž ._/-]{0,200}`)).Draw(t, "original")
		got := SafeName(i, original)
		if err := checkName(got); err != nil || len(got) > maxSafeName || !strings.HasPrefix(got, "content/") {
			t.Fatalf("SafeName(%d, %q): got %q, %v", i, original, got, err)
		}
		if other := SafeName(i+1, original); strings.EqualFold(got, other) {
			t.Fatalf("got %q for two numbers", got)
		}
	})
}
