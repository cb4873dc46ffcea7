package signing_test

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/marchesud/perenne/signing"
)

func localCA(t *testing.T, name string, kind signing.CAKind) *signing.Authority {
	t.Helper()
	a, err := signing.NewLocalCA(name, kind, noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestALocalAuthorityIssuesForItsKindOnly(t *testing.T) {
	for _, kind := range []signing.CAKind{signing.SealCA, signing.TSACA} {
		a := localCA(t, "Unione dei Colli", kind)
		key, cert, err := a.Issue("Unione dei Colli", noon)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*x509.Certificate{a.Certificate(), cert} {
			if !strings.Contains(c.Subject.CommonName, "non qualificato") || c.Subject.Organization[0] != "Unione dei Colli" {
				t.Errorf("%v: got name %q, want one that says non qualificato", kind, c.Subject)
			}
			if n := c.SerialNumber.BitLen(); n != 127 {
				t.Errorf("%v: got a serial number of %d bits, want 127", kind, n)
			}
		}
		if got, want := a.Certificate().NotAfter, noon.AddDate(30, 0, 0); !got.Equal(want) {
			t.Errorf("%v: authority until %s, want %s", kind, got, want)
		}
		if got, want := cert.NotAfter, noon.AddDate(10, 0, 0); !got.Equal(want) {
			t.Errorf("%v: certificate until %s, want %s", kind, got, want)
		}
		chain := []*x509.Certificate{cert}
		_, asSigner := signing.NewSigner(key, chain)
		_, asTSA := signing.NewResponder(key, chain, time.Now)
		if (asSigner == nil) != (kind == signing.SealCA) || (asTSA == nil) != (kind == signing.TSACA) {
			t.Errorf("%v: as signer %v, as TSA %v", kind, asSigner, asTSA)
		}
	}
}

func TestACertificateNeverOutlivesItsAuthority(t *testing.T) {
	a := localCA(t, "Prova", signing.SealCA)
	_, cert, err := a.Issue("Sigillo", noon.AddDate(25, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if !cert.NotAfter.Equal(a.Certificate().NotAfter) {
		t.Errorf("got %s, want the authority's %s", cert.NotAfter, a.Certificate().NotAfter)
	}
	for _, at := range []time.Time{noon.AddDate(0, 0, -1), noon.AddDate(31, 0, 0)} {
		if _, _, err := a.Issue("Sigillo", at); err == nil {
			t.Errorf("issued at %s, want an error", at)
		}
	}
}

func TestALocalAuthorityIsTakenUpAgain(t *testing.T) {
	a := localCA(t, "Prova", signing.TSACA)
	again, err := signing.OpenLocalCA(signing.TSACA, a.Key(), a.Certificate(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, cert, err := again.Issue("Marche", noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(a.Certificate()); err != nil {
		t.Error(err)
	}
	if _, err := signing.OpenLocalCA(signing.TSACA, newKey(t), a.Certificate(), nil); err == nil {
		t.Error("another key: got an authority, want an error")
	}
	if _, err := signing.OpenLocalCA(signing.TSACA, a.Key(), cert, nil); err == nil {
		t.Error("a leaf: got an authority, want an error")
	}
}

func TestNamesFitIntoCertificates(t *testing.T) {
	long := strings.Repeat("Unione Montana dell'Alta Valle è ", 5)
	a := localCA(t, long, signing.SealCA)
	_, cert, err := a.Issue(long, noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{a.Certificate().Subject.Organization[0], cert.Subject.CommonName} {
		if n := utf8.RuneCountInString(name); n != 64 || !utf8.ValidString(name) {
			t.Errorf("got %q of %d characters, want 64", name, n)
		}
	}
	if _, err := signing.NewLocalCA(" ", signing.SealCA, noon, nil); err == nil {
		t.Error("empty name: got an authority, want an error")
	}
	if _, err := signing.NewLocalCA("x", signing.CAKind(7), noon, nil); err == nil {
		t.Error("unknown kind: got an authority, want an error")
	}
	if _, _, err := a.Issue("CA dei sigilli", noon); err == nil {
		t.Error("the authority's own name: got a certificate, want an error")
	}
}

func TestSerialNumbersComeFromTheReader(t *testing.T) {
	_, err := signing.NewLocalCA("x", signing.SealCA, noon, bytes.NewReader([]byte("short")))
	if err == nil {
		t.Error("reader that ends: got an authority, want an error")
	}
	a, err := signing.NewLocalCA("x", signing.SealCA, noon, bytes.NewReader(make([]byte, 16)))
	if err != nil || a.Certificate().SerialNumber.Sign() <= 0 {
		t.Errorf("reader of zeros: got %v, want a positive serial number", err)
	}
}
