package main

import (
	"slices"
	"testing"

	"github.com/marchesud/perenne/archive/paper"
)

func TestKeysAreReadAsPeopleWriteThem(t *testing.T) {
	key := func(register string, year int, number string) paper.BodyKey {
		return paper.BodyKey{Register: register, Year: year, Number: number}
	}
	for _, c := range []struct {
		text string
		want []paper.BodyKey
	}{
		{"DETE 2026/12", []paper.BodyKey{key("DETE", 2026, "12")}},
		{"DETE/2026/12", []paper.BodyKey{key("DETE", 2026, "12")}},
		{"DETE 2026 12", []paper.BodyKey{key("DETE", 2026, "12")}},
		{"DETE 2026/0012", []paper.BodyKey{key("DETE", 2026, "0012")}},
		{"Registro Generale 2026/12/bis", []paper.BodyKey{key("Registro Generale", 2026, "12/bis")}},
		{"Delibere 2020 2026/7", []paper.BodyKey{key("Delibere", 2020, "2026/7"), key("Delibere 2020", 2026, "7")}},
		{"PG/2026/2025/1", []paper.BodyKey{key("PG", 2026, "2025/1"), key("PG/2026", 2025, "1")}},
		{"Città 2026/1", []paper.BodyKey{key("Città", 2026, "1")}},
		{"DETE 26/12", nil},
		{"DETE 20266/12", nil},
		{"DETE 2026/", nil},
		{"2026/12", nil},
		{"k3f", nil},
		{"", nil},
	} {
		if got := keysIn(c.text); !slices.Equal(got, c.want) {
			t.Errorf("keysIn(%q) = %v, want %v", c.text, got, c.want)
		}
		if err := checkName(c.text); (err == nil) != (len(c.want) > 0) || err != nil && exitCode(err) != exitUsage {
			t.Errorf("checkName(%q) = %v", c.text, err)
		}
	}
	if err := checkName("abcdefghijklmnopqrstuvwxyz234567"); err != nil {
		t.Errorf("an identifier: %v", err)
	}
}

func FuzzKeysInNeverLoseAnything(f *testing.F) {
	for _, s := range []string{"DETE 2026/12", "a/2026/b/2027/c", "è 2026/è", " /2026/ "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, k := range keysIn(text) {
			if k.Register == "" || k.Number == "" || k.Year < 0 || k.Year > 9999 || len(k.Register)+len(k.Number)+6 > len(text) {
				t.Errorf("keysIn(%q) gives %+v", text, k)
			}
		}
	})
}
