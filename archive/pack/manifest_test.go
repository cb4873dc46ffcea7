package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"reflect"
	"strings"
	"testing"
)

var exampleReferences = []Reference{
	{"mimetype", "text/plain", sha256.Sum256([]byte(mimetype))},
	{"content/001-a.pdf", "application/pdf", sha256.Sum256([]byte("a"))},
	{"content/002-b.svg", "image/svg+xml", sha256.Sum256([]byte("b"))},
}

func TestManifestComesBackTheSame(t *testing.T) {
	for _, want := range [][]Reference{nil, exampleReferences[:1], exampleReferences} {
		b, err := MarshalManifest(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseManifest(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestManifestIsWhatEtsiDescribes(t *testing.T) {
	b, err := MarshalManifest(exampleReferences)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		XMLName xml.Name `xml:"http://uri.etsi.org/02918/v1.2.1# ASiCManifest"`
		Sig     struct {
			URI      string `xml:"URI,attr"`
			MimeType string `xml:"MimeType,attr"`
		} `xml:"http://uri.etsi.org/02918/v1.2.1# SigReference"`
		Objects []struct {
			URI      string `xml:"URI,attr"`
			MimeType string `xml:"MimeType,attr"`
			Method   struct {
				Algorithm string `xml:"Algorithm,attr"`
			} `xml:"http://www.w3.org/2000/09/xmldsig# DigestMethod"`
			Value []byte `xml:"http://www.w3.org/2000/09/xmldsig# DigestValue"`
		} `xml:"http://uri.etsi.org/02918/v1.2.1# DataObjectReference"`
	}
	if err := xml.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Sig.URI != "META-INF/signature.p7s" || got.Sig.MimeType != "application/pkcs7-signature" {
		t.Errorf("got signature reference %+v", got.Sig)
	}
	if len(got.Objects) != len(exampleReferences) {
		t.Fatalf("got %d references, want %d", len(got.Objects), len(exampleReferences))
	}
	for i, o := range got.Objects {
		if want := exampleReferences[i]; o.URI != want.Name || o.MimeType != want.MediaType || o.Method.Algorithm != "http://www.w3.org/2001/04/xmlenc#sha256" {
			t.Errorf("got reference %+v, want %+v", o, want)
		}
	}
}

func TestOtherSpellingsOfAManifestAreRefused(t *testing.T) {
	b, err := MarshalManifest(exampleReferences)
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for name, s := range map[string]string{
		"empty":            "",
		"cut":              good[:len(good)-1],
		"grown":            good + "\n",
		"other namespace":  strings.Replace(good, "v1.2.1", "v1.1.1", 1),
		"other hash":       strings.Replace(good, "xmlenc#sha256", "xmlenc#sha512", 1),
		"unsafe name":      strings.Replace(good, "content/001", "../001", 1),
		"escaped name":     strings.Replace(good, "content/001", "content%2F001", 1),
		"no media type":    strings.Replace(good, "image/svg+xml", "", 1),
		"media type":       strings.Replace(good, "image/svg+xml", "image/svg; a=b", 1),
		"long media type":  strings.Replace(good, "image/svg+xml", "image/"+strings.Repeat("a", 127), 1),
		"digest cut":       strings.Replace(good, "=</ds", "</ds", 1),
		"digest's spare":   strings.Replace(good, "=</ds", "\n=</ds", 1),
		"white space":      strings.Replace(good, "><ds:DigestMethod", "> <ds:DigestMethod", 1),
		"Windows newlines": strings.ReplaceAll(good, "\n", "\r\n"),
		"two on a line":    strings.Replace(good, "Reference>\n<asic:Data", "Reference><asic:Data", 1),
	} {
		if s == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := ParseManifest([]byte(s)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: got %v, want ErrForm", name, err)
		}
	}
	for name, r := range map[string]Reference{"name": {"../a", "a/b", [32]byte{}}, "type": {"a", "a", [32]byte{}}} {
		if _, err := MarshalManifest([]Reference{r}); !errors.Is(err, ErrForm) {
			t.Errorf("%s: got %v, want ErrForm", name, err)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, refs := range [][]Reference{nil, exampleReferences} {
		b, err := MarshalManifest(refs)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		refs, err := ParseManifest(b)
		if err != nil {
			if !errors.Is(err, ErrForm) {
				t.Fatalf("got %v, want ErrForm", err)
			}
			return
		}
		if again, err := MarshalManifest(refs); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("got %s, %v back from %s", again, err, b)
		}
	})
}
