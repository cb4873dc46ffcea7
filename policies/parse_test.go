package policies

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

const determina = `{"register":"DETE","year":2026,"number":"12/bis","date":"2026-03-09","type":"determina",` +
	`"subject":"Affidamento lavori di ripristino","reserved":false,"class":"contratti",` +
	`"parties":[{"role":"autore","name":"Comune di Montesole","tax_code":"00000000000"}],"extra":{"CIG":"Z000000000"},` +
	`"files":[{"name":"determina.pdf","role":"main","size":73,"format":"application/pdf"}]}`

func TestParseDescriptionReadsWhatJSONMarshalWrites(t *testing.T) {
	no := false
	want := Description{
		Structure: "AOO1", Register: "DETE", Year: 2026, Number: "12/bis", Date: "2026-03-09", Type: "determina",
		Subject: "Perché «sì» 𝄞", Reserved: &no, Class: "contratti", Flow: "I", Classification: "VI/3", Folder: "2026/7", Notes: "a\nb",
		Parties: []Party{{Role: "rup", Name: "Ufficio tecnico", TaxCode: "00000000000"}},
		Extra:   map[string]string{"CIG": "Z0", "numero ordine": "4"},
		Files:   []FileDescription{{Name: "a.pdf", Role: RoleMain, Size: 1 << 40, SHA256: strings.Repeat("0", 64), Format: "application/pdf"}},
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, found := ParseDescription(b)
	if len(found) != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v with\n%swant %+v", got, listing(found), want)
	}
}

func TestParseDescriptionNamesEveryFaultAndItsPlace(t *testing.T) {
	edit := func(old, replacement string) string {
		if !strings.Contains(determina, old) {
			t.Fatalf("nothing to edit: %s", old)
		}
		return strings.Replace(determina, old, replacement, 1)
	}
	for _, c := range []struct{ name, in, want string }{
		{"good", determina, ""},
		{"empty", "", "json.syntax $"},
		{"byte order mark", "\ufeff" + determina, "json.syntax $"},
		{"truncated", determina[:len(determina)-1], "json.syntax $"},
		{"two values", determina + "{}", "json.syntax $"},
		{"comma at the end", edit(`73,"format":"application/pdf"}`, `73,}`), "json.syntax $"},
		{"array", "[" + determina + "]", "json.type $"},
		{"null", "null", "json.type $"},
		{"not UTF-8", edit("lavori", "citt\xe0"), "json.encoding $"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "json.encoding $"},
		{"lone high surrogate", edit("lavori", `\ud834`), "json.encoding $"},
		{"lone low surrogate", edit("lavori", `\udd1e`), "json.encoding $"},
		{"pair of surrogates", edit("lavori", `\ud834\udd1e`), ""},
		{"escaped backslash before u", edit("lavori", `\\ud834`), ""},
		{"duplicate", edit(`"year":2026`, `"year":2026,"year":2026`), "json.duplicate year"},
		{"duplicate by escape", edit(`"year":2026`, `"year":2026,"\u0079ear":2027`), "json.duplicate year"},
		{"case variant", edit(`"year"`, `"Year"`), "json.name Year"},
		{"unknown in a file", edit(`"role":"main"`, `"role":"main","path":"/tmp"`), "json.name files[0].path"},
		{"duplicate in a file", edit(`"role":"main"`, `"role":"main","role":"annex"`), "json.duplicate files[0].role"},
		{"null member", edit(`false`, `null`), "json.type reserved"},
		{"string for a number", edit(`2026,`, `"2026",`), "json.type year"},
		{"fraction", edit(`2026,`, `2026.0,`), "json.type year"},
		{"exponent", edit(`"size":73`, `"size":1e3`), "json.type files[0].size"},
		{"huge number", edit(`"size":73`, `"size":`+strings.Repeat("9", 400)), "json.type files[0].size"},
		{"year beyond 32 bits", edit(`2026,`, `4294969322,`), "json.type year"},
		{"object for a string", edit(`"12/bis"`, `{"a":[1,{"b":null}]}`), "json.type number"},
		{"object for files", `{"files":{"0":{"name":"a"}}}`, "json.type files"},
		{"extra not text", edit(`"Z000000000"`, `5`), "json.type extra.CIG"},
		{"extra twice but for case", edit(`"CIG":`, `"cig":"x","CIG":`), "json.duplicate extra.CIG"},
		{"odd name", edit(`"year"`, `"a b\u202e":1,"year"`), `json.name ["a b\u202e"]`},
		{"200 levels", edit(`"Z000000000"`, strings.Repeat("[", 200)+strings.Repeat("]", 200)), "json.type extra.CIG, json.limits extra.CIG"},
		{"many", edit(`"year":2026`, `"Year":1,"anno":2,"flow":3`), "json.name Year, json.name anno, json.type flow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, found := ParseDescription([]byte(c.in))
			if got := places(found); got != c.want {
				t.Errorf("got %s want %s", got, c.want)
			}
		})
	}
}

// places lists rule and field of findings.
func places(found []Finding) string {
	list := make([]string, 0, len(found))
	for _, f := range found {
		list = append(list, f.Rule+" "+f.Field)
	}
	return strings.Join(list, ", ")
}

func TestSyntaxErrorsHaveLineAndColumn(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"{\n  \"a\": x}", "la descrizione non è JSON (riga 2, colonna 8)"},
		{"x", "la descrizione non è JSON (riga 1, colonna 1)"},
		{"", "la descrizione non è JSON (riga 1, colonna 1)"},
	} {
		_, found := ParseDescription([]byte(c.in))
		if len(found) != 1 || found[0].Message != c.want {
			t.Errorf("%q: got\n%swant %s", c.in, listing(found), c.want)
		}
	}
}

func TestDescriptionsAreBoundedBeforeTheyAreBuilt(t *testing.T) {
	many := func(n int, element string) string { return strings.TrimSuffix(strings.Repeat(element+",", n), ",") }
	var names strings.Builder
	for i := range 300_000 {
		fmt.Fprintf(&names, `"n%d":0,`, i)
	}
	for _, c := range []struct{ name, in, want string }{
		{"bytes", strings.Repeat(" ", MaxDescription) + "{}", "json.limits $"},
		{"files", `{"files":[` + many(1_000_000, "{}") + `]}`, "json.limits files"},
		{"parties", `{"parties":[` + many(1_001, `{"name":"x"}`) + `]}`, "json.limits parties"},
		{"extra", `{"extra":{` + strings.TrimSuffix(names.String(), ",") + `}}`, "findings.more $"},
		{"names", `{` + strings.TrimSuffix(names.String(), ",") + `}`, "findings.more $"},
		{"nesting", strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000), "json.type $, json.limits $"},
		{"nesting beyond the library", strings.Repeat("[", 2_000_000) + strings.Repeat("]", 2_000_000), "json.syntax $"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := []byte(c.in)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			d, found := ParseDescription(in)
			runtime.ReadMemStats(&after)
			if got := places(found); !strings.HasSuffix(got, c.want) || len(found) > maxFindings+1 {
				t.Errorf("got %d findings, %.200s want %s", len(found), got, c.want)
			}
			if len(d.Files) > maxFiles || len(d.Parties) > maxParties || len(d.Extra) > maxExtra {
				t.Errorf("got %d files, %d parties, %d extra", len(d.Files), len(d.Parties), len(d.Extra))
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 200<<20 {
				t.Errorf("allocated %d MiB for %d MiB", used>>20, len(in)>>20)
			}
		})
	}
}

func TestJoinLeavesOutWhatOnlyFollows(t *testing.T) {
	p := comune(t)
	look := func(in string) string {
		d, parsed := ParseDescription([]byte(in))
		return places(Join(parsed, p.AdmitDescription(d, received)))
	}
	for _, c := range []struct{ in, want string }{
		{strings.Replace(determina, "2026,", `"2026",`, 1), "json.type year"},
		{strings.Replace(determina, `"size":73`, `"size":"73"`, 1), "json.type files[0].size"},
		{determina[1:], "json.syntax $"},
		{strings.Replace(strings.Replace(determina, "2026,", `"2026",`, 1), "DETE", " ", 1), "json.type year, field.required register"},
	} {
		if got := look(c.in); got != c.want {
			t.Errorf("%s: got %s want %s", c.in, got, c.want)
		}
	}
}

func FuzzParseDescription(f *testing.F) {
	for _, s := range []string{determina, "{}", "[]", `{"extra":{"a":"\ud834\udd1e","A":1}}`, `{"files":[{"name":null}]}`, strings.Repeat("[", 40)} {
		f.Add([]byte(s))
	}
	p, err := Builtin("comune")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, found := ParseDescription(b)
		for _, x := range found {
			if x.Message == "" || x.Field == "" || strings.ContainsAny(x.Message+x.Field, "\n\x1b\u202e") {
				t.Fatalf("finding not fit to be shown: %+v", x)
			}
		}
		admitted := p.AdmitDescription(d, received)
		for i := range d.Files {
			p.AdmitFile(d, i, foundOf(b))
		}
		if len(found) > 0 || Refused(admitted) {
			return
		}
		// What is admitted says the same when it is written again, to our reader and to the standard one.
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if e, found := ParseDescription(again); len(found) > 0 || !sameDescription(d, e) {
			t.Fatalf("written again: got %+v with\n%swant %+v", e, listing(found), d)
		}
		var standard Description
		if err := json.Unmarshal(b, &standard); err != nil {
			t.Fatalf("encoding/json refuses what was admitted: %v", err)
		}
		if standard.Structure == "" {
			standard.Structure = DefaultStructure
		}
		if !sameDescription(d, standard) {
			t.Fatalf("encoding/json reads %+v, we read %+v", standard, d)
		}
	})
}

func sameDescription(a, b Description) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}
