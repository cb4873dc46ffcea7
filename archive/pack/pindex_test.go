package pack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// schemas is the folder of the schemas of others, seen from this package.
const schemas = "../../../shared/data/italy"

// hostile is text that XML does not hold as it is.
const hostile = " a<b>&amp;\"'\r\n\t\x00\x1F _x0041_ _x0041 _x004\x01 \uFFFE 𝄞 é e\u0301 ]]> <!-- -->"

// schema gives the path of a schema, or skips the test saying that it is missing.
func schema(t testing.TB, name string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join(schemas, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Skipf("no schema at %s", p)
	}
	return p
}

// validate holds XML to a schema with xmllint.
func validate(t testing.TB, xsd string, b []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "document.xml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, tool(t, "xmllint"), "--noout", "--nonet", "--schema", xsd, path)
}

// withOwn makes a schema of the norm's and our own.
func withOwn(t testing.TB, norm string) string {
	t.Helper()
	own, err := filepath.Abs("sincro.xsd")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "both.xsd")
	text := fmt.Sprintf(`<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:import namespace="http://www.uni.com/U3011/sincro-v2/" schemaLocation="%s"/>
<xs:import namespace="urn:perenne:sincro:1" schemaLocation="%s"/></xs:schema>`, norm, own)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func exampleIndex() PIndex {
	deed := []RelevantDocument{{Text: "Decreto di nomina n. 4", SHA256: sha256.Sum256([]byte("deed")), URI: "https://example.invalid/atti/4?x=%20y"}, {Text: "Manuale"}}
	return PIndex{
		ID:          "urn:perenne:pindex:k3f",
		Application: Application{"Perenne", "1.0", "Marche Sud"},
		Volume:      Volume{ID: "k3f", Label: "DETE 2026/12", Description: "Affidamento lavori", Generation: 2, Supersedes: "a2b"},
		FileGroups: []FileGroup{
			{ID: "content", Label: "Contenuto", Description: "come versato", Files: []IndexedFile{
				{ID: "1", Path: "content/001-determina.pdf", SHA256: sha256.Sum256([]byte("1")), Format: "application/pdf", Extension: "pdf", OriginalName: "Determina àèì.pdf", Role: "main"},
				{ID: "2", Path: "content/002-x", SHA256: sha256.Sum256([]byte("2")), Format: "text/plain; charset=utf-8"},
			}},
			{ID: "metadata", Files: []IndexedFile{{ID: "3", Path: "metadata/a.json", SHA256: sha256.Sum256(nil), Format: "application/json"}}},
		},
		Submitter: Agent{Kind: Legal, TaxCode: "00000000000", IPACode: "c_x901", FormalName: "Comune di Montesole", Deeds: deed, Role: "produttore"},
		Holders:   []Agent{{Kind: Legal, TaxCode: "00000000000", FormalName: "Comune di Montesole", Deeds: deed[1:], Role: HolderProducer}},
		Signers: []Agent{{
			Kind: Natural, TaxCode: "RSSMRA00A01X000X", FirstName: "Nome", LastName: "Cognome", Deeds: deed, Role: "responsabile della conservazione",
			ValidFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), ValidTo: time.Date(2030, 12, 31, 0, 0, 0, 0, time.UTC),
		}, {Kind: Legal, TaxCode: "00000000001", FormalName: "Conservatore", Deeds: deed[1:]}},
		Time: time.Date(2026, 3, 9, 10, 11, 12, 0, time.UTC),
		Laws: "D.Lgs. 82/2005, art. 44",
	}
}

// smallestIndex leaves out everything that may be.
func smallestIndex() PIndex {
	p := exampleIndex()
	p.Volume = Volume{ID: "k3f"}
	p.FileGroups = p.FileGroups[1:]
	p.Signers, p.Laws = p.Signers[1:], ""
	p.Submitter = p.Signers[0]
	return p
}

// hostileIndex has text everywhere that XML does not hold as it is.
func hostileIndex() PIndex {
	p := exampleIndex()
	p.ID, p.Application, p.Laws = hostile, Application{hostile, hostile, hostile}, hostile
	p.Volume.ID, p.Volume.Label, p.Volume.Description, p.Volume.Supersedes = hostile, hostile, hostile, hostile
	g := &p.FileGroups[0]
	g.ID, g.Label, g.Description = hostile, hostile, hostile
	f := &g.Files[0]
	f.ID, f.Format, f.Extension, f.OriginalName, f.Role = hostile, hostile, hostile, hostile, hostile
	p.Submitter.FormalName, p.Submitter.IPACode, p.Submitter.Role = hostile, hostile, hostile
	p.Submitter.Deeds = []RelevantDocument{{Text: hostile}}
	p.Signers[0].FirstName, p.Signers[0].LastName, p.Signers[0].Role = hostile, hostile, hostile
	return p
}

func indexes() map[string]PIndex {
	return map[string]PIndex{"example": exampleIndex(), "smallest": smallestIndex(), "hostile": hostileIndex()}
}

func TestIndexComesBackTheSame(t *testing.T) {
	for name, want := range indexes() {
		b, err := want.Marshal()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := ParsePIndex(b)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, b)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func TestIndexIsValidAgainstTheNorm(t *testing.T) {
	norm := schema(t, "sincro/PIndex-11386-2020.xsd")
	both := withOwn(t, norm)
	for name, p := range indexes() {
		t.Run(name, func(t *testing.T) {
			b, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			validate(t, norm, b)
			validate(t, both, b)
		})
	}
}

func TestIndexNamesEveryEmptyField(t *testing.T) {
	_, err := PIndex{}.Marshal()
	if err == nil {
		t.Fatal("got an index of nothing")
	}
	for _, field := range []string{"ID", "Application.Name", "Application.Version", "Application.Producer", "Volume.ID", "FileGroups", "Submitter.TaxCode", "Submitter.Kind", "Submitter.Deeds", "Holders", "Signers", "Time"} {
		if !strings.Contains(err.Error(), field+" is") {
			t.Errorf("got %q, want %s named", err, field)
		}
	}
	for field, spoil := range map[string]func(p *PIndex){
		"FileGroups[1].Files is empty":         func(p *PIndex) { p.FileGroups[1].Files = nil },
		"FileGroups[0].ID":                     func(p *PIndex) { p.FileGroups[0].ID = " " },
		"FileGroups[0].Files[1].Format":        func(p *PIndex) { p.FileGroups[0].Files[1].Format = "" },
		"FileGroups[0].Files[1].SHA256":        func(p *PIndex) { p.FileGroups[0].Files[1].SHA256 = [32]byte{} },
		"FileGroups[0].Files[1].Path":          func(p *PIndex) { p.FileGroups[0].Files[1].Path = "../x" },
		"FileGroups[0].Files[1].ID is given":   func(p *PIndex) { p.FileGroups[0].Files[1].ID = "1" },
		"FileGroups[1].Files[0].Path is given": func(p *PIndex) { p.FileGroups[1].Files[0].Path = "content/002-x" },
		"Submitter.FormalName":                 func(p *PIndex) { p.Submitter.FormalName = "" },
		"Submitter.FirstName is for":           func(p *PIndex) { p.Submitter.FirstName = "x" },
		"Signers[0].LastName":                  func(p *PIndex) { p.Signers[0].LastName = "" },
		"Signers[0].FormalName is for":         func(p *PIndex) { p.Signers[0].FormalName = "x" },
		"Holders[0].Role":                      func(p *PIndex) { p.Holders[0].Role = "ente" },
		"Holders[0].TaxCode":                   func(p *PIndex) { p.Holders[0].TaxCode = "c_x901" },
		"Signers[1].Deeds[0].Text":             func(p *PIndex) { p.Signers[1].Deeds = []RelevantDocument{{}} },
		"Signers[1].Deeds[0].URI":              func(p *PIndex) { p.Signers[1].Deeds = []RelevantDocument{{Text: "x", URI: "a b"}} },
		"Volume.Generation":                    func(p *PIndex) { p.Volume.Generation = -1 },
		"Time is out of bounds":                func(p *PIndex) { p.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"Signers[0].ValidTo is out of bounds":  func(p *PIndex) { p.Signers[0].ValidTo = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		p := exampleIndex()
		spoil(&p)
		if _, err := p.Marshal(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, want %s named", err, field)
		}
	}
}

func TestIndexMatchesTheContainerItLiesIn(t *testing.T) {
	p := exampleIndex()
	members := func() []Member {
		return []Member{
			{Name: mimetypeName},
			{Name: "content/001-determina.pdf", SHA256: sha256.Sum256([]byte("1"))},
			{Name: "content/002-x", SHA256: sha256.Sum256([]byte("2"))},
			{Name: "metadata/a.json", SHA256: sha256.Sum256(nil)},
			{Name: indexName},
			{Name: manifestName},
		}
	}
	if err := p.Match(members()); err != nil {
		t.Error(err)
	}
	if err := p.Match(members()[:3]); !errors.Is(err, ErrForm) {
		t.Errorf("file missing: got %v, want ErrForm", err)
	}
	if err := p.Match(append(members(), Member{Name: "metadata/b"})); !errors.Is(err, ErrForm) {
		t.Errorf("file not in the index: got %v, want ErrForm", err)
	}
	other := members()
	other[1].SHA256[0] ^= 1
	if err := p.Match(other); !errors.Is(err, ErrDigest) {
		t.Errorf("other digest: got %v, want ErrDigest", err)
	}
}

func TestOtherSpellingsOfAnIndexAreRefused(t *testing.T) {
	b, err := exampleIndex().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	replace := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the index has no %s", old)
		}
		return strings.Replace(good, old, with, 1)
	}
	deep := strings.Repeat("<a>", 200) + strings.Repeat("</a>", 200)
	for name, s := range map[string]string{
		"empty":                "",
		"cut":                  good[:len(good)-2],
		"grown":                good + "\n",
		"second root":          good + "<a></a>\n",
		"no declaration":       strings.TrimPrefix(good, xmlDeclaration),
		"byte order mark":      "\uFEFF" + good,
		"document type":        replace(xmlDeclaration, xmlDeclaration+`<!DOCTYPE a [<!ENTITY b "c">]>`),
		"entity":               replace("Perenne<", "Perenne&b;<"),
		"needless reference":   replace("Perenne<", "Perenn&#101;<"),
		"needless escape":      replace("Perenne<", "Perenn_x0065_<"),
		"escaped surrogate":    replace("Perenne<", "Perenne_xD800_<"),
		"comment":              replace("Perenne<", "Perenne<!-- --><"),
		"CDATA":                replace("Perenne<", "<![CDATA[Perenne]]><"),
		"instruction":          replace("Perenne<", "Perenne<?php ?><"),
		"single quotes":        replace(`"2.0"`, `'2.0'`),
		"attribute twice":      replace(`sincro:language="it"`, `sincro:language="it" sincro:language="it"`),
		"other white space":    replace("\n  <", "\n   <"),
		"space in a tag":       replace("<sincro:PVolume>", "<sincro:PVolume >"),
		"short form":           replace("</sincro:PIndex>", "<a/></sincro:PIndex>"),
		"other prefix":         strings.ReplaceAll(good, "sincro:", "s:"),
		"unknown element":      replace("<sincro:PVolume>", "<sincro:X></sincro:X>\n  <sincro:PVolume>"),
		"other language":       replace(`sincro:language="it"`, `sincro:language="en"`),
		"other hash":           replace("SHA-256", "SHA-512"),
		"capital digest":       replace(fmt.Sprintf("%x", sha256.Sum256([]byte("1"))), fmt.Sprintf("%X", sha256.Sum256([]byte("1")))),
		"time zone":            replace("10:11:12Z", "11:11:12+01:00"),
		"fraction of a second": replace("10:11:12Z", "10:11:12.0Z"),
		"generation 02":        replace(">2<", ">02<"),
		"NUL":                  replace("Perenne<", "Peren\x00ne<"),
		"not UTF-8":            replace("Perenne<", "Peren\xFFne<"),
		"deep":                 replace("<sincro:PVolume>", deep+"<sincro:PVolume>"),
		"crossed tags":         replace("</sincro:Name>", "</sincro:Version>"),
		"text outside":         good + "x",
		"million levels":       xmlDeclaration + strings.Repeat("<a>", 1_000_000),
		"million attributes":   xmlDeclaration + "<a" + strings.Repeat(` a="b"`, 1_000_000) + "></a>",
	} {
		if _, err := ParsePIndex([]byte(s)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: got %v, want ErrForm", name, err)
		}
	}
}

func TestEveryTextSurvivesEscaping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		alphabet := []rune("_xX0041\x00\x01\x1FABCF&<>\"'\t\r\n \uFFFE\uFFFD é𝄞")
		text := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom(alphabet))).Draw(t, "text")
		p := smallestIndex()
		p.Laws = text
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParsePIndex(b)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got.Laws != text {
			t.Fatalf("got %q, want %q", got.Laws, text)
		}
	})
}

func FuzzParsePIndex(f *testing.F) {
	for _, p := range indexes() {
		b, err := p.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(xmlDeclaration + "<a></a>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePIndex(b)
		if err != nil {
			if !errors.Is(err, ErrForm) {
				t.Fatalf("got %v, want ErrForm", err)
			}
			return
		}
		if again, err := p.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("got %s, %v back from %s", again, err, b)
		}
	})
}
