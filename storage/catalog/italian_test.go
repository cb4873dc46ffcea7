package catalog

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSingularAndPluralAreOneTerm(t *testing.T) {
	a, err := newItalian()
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range strings.Fields(`familiare/familiari disagiato/disagiata opera/opere gara/gare bando/bandi piano/piani
		scuola/scuole lavoro/lavori comunale/comunali delibera/delibere determina/determine concessione/concessioni
		incarico/incarichi parco/parchi edificio/edifici ufficio/uffici ente/enti anziano/anziani pubblico/pubbliche
		bene/beni mezzo/mezzi luogo/luoghi sportivo/sportive studio/studi consorzio/consorzi banca/banche legge/leggi
		città/CITTA' attività/attivita perché/perche dell’università/universita 0045/45 0012/12 0/00`) {
		one, two, _ := strings.Cut(pair, "/")
		got, want := slices.Sorted(maps.Keys(a.terms(one))), slices.Sorted(maps.Keys(a.terms(two)))
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", pair, got, want)
		}
	}
}

func FuzzTermsAreStable(f *testing.F) {
	for _, s := range []string{"Affidamento dell’appalto", "n. 0045/PA", "\xff\xfe", "İıſß", "é́́", strings.Repeat("aà", 300), "日本語 テスト"} {
		f.Add(s)
	}
	a, err := newItalian()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := a.terms(s)
		if !maps.Equal(got, a.terms(s)) {
			t.Errorf("%q has other terms the second time", s)
		}
		if utf8.ValidString(s) && !maps.Equal(got, a.terms(s+" ")) {
			t.Errorf("%q has other terms with a space behind", s)
		}
	})
}
