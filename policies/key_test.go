package policies

import (
	"encoding/json"
	"testing"

	"github.com/gowebpki/jcs"
)

func TestKeysAreTheSameOnlyWhenTheirNormalFormsAre(t *testing.T) {
	base := Description{Register: "DETE", Year: 2026, Number: "12"}
	for _, c := range []struct {
		name string
		d    Description
		same bool
	}{
		{"itself", base, true},
		{"default structure named", Description{Structure: "unica", Register: "DETE", Year: 2026, Number: "12"}, true},
		{"other structure", Description{Structure: "AOO2", Register: "DETE", Year: 2026, Number: "12"}, false},
		{"leading zeros", Description{Register: "DETE", Year: 2026, Number: "0012"}, false},
		{"bis", Description{Register: "DETE", Year: 2026, Number: "12/bis"}, false},
		{"case", Description{Register: "dete", Year: 2026, Number: "12"}, false},
		{"year", Description{Register: "DETE", Year: 2025, Number: "12"}, false},
	} {
		if got := string(c.d.Key().Canonical()) == string(base.Key().Canonical()); got != c.same {
			t.Errorf("%s: got same=%v want %v", c.name, got, c.same)
		}
		if got := c.d.Key() == base.Key(); got != c.same {
			t.Errorf("%s: got equal=%v want %v", c.name, got, c.same)
		}
	}
	composed, decomposed := Description{Register: "Città"}, Description{Register: "Citta\u0300"}
	if composed.Key() != decomposed.Key() {
		t.Error("composed and decomposed letters: got two keys want one")
	}
}

func TestKeyCanonicalIsFrozenAndIsRFC8785(t *testing.T) {
	k := Key{Structure: "unica", Register: "DETE", Year: 2026, Number: "12/bis"}
	if got, want := string(k.Canonical()), `{"number":"12/bis","register":"DETE","structure":"unica","year":2026}`; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	for _, s := range []string{"", "à€𝄞", "\u2028<&>", "a\"b\\c/d", "\x00\x01\b\t\n\v\f\r\x1f\x7f"} {
		k := Key{Structure: s, Register: s, Year: 1861, Number: s}
		plain, err := json.Marshal(map[string]any{"structure": s, "register": s, "number": s, "year": 1861})
		if err != nil {
			t.Fatal(err)
		}
		want, err := jcs.Transform(plain)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Canonical(); string(got) != string(want) {
			t.Errorf("%q: got %s want %s", s, got, want)
		}
	}
}

func TestKeyForPeopleLeavesOutTheDefaultStructure(t *testing.T) {
	for _, c := range []struct {
		k    Key
		want string
	}{
		{Key{"unica", "DETE", 2026, "12"}, "DETE 2026/12"},
		{Key{"AOO2", "DETE", 2026, "12"}, "AOO2 DETE 2026/12"},
	} {
		if got := c.k.String(); got != c.want {
			t.Errorf("got %q want %q", got, c.want)
		}
	}
}
