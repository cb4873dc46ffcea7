package signing_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/marchesud/perenne/signing"
)

func keyFile(t *testing.T, data []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func marshalPEM(t *testing.T, b branch, certs ...*x509.Certificate) []byte {
	t.Helper()
	data, err := signing.MarshalPEM(b.key, certs)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestLoadKeyReadsWhatItShould(t *testing.T) {
	for name, b := range map[string]branch{"P-256": grow(t, newKey(t), 2, nothing), "RSA": grow(t, newRSA(t, 2048), 2, nothing)} {
		modern, err := pkcs12.Modern.Encode(b.key, b.chain[0], []*x509.Certificate{b.root, b.chain[2], b.chain[1]}, "segreta è")
		if err != nil {
			t.Fatal(err)
		}
		legacy, err := pkcs12.LegacyDES.Encode(b.key, b.chain[0], b.chain[1:], "segreta è")
		if err != nil {
			t.Fatal(err)
		}
		for kind, data := range map[string][]byte{
			"PEM":             marshalPEM(t, b, b.chain...),
			"PEM, any order":  marshalPEM(t, b, b.root, b.chain[2], b.chain[0], b.chain[1]),
			"PKCS #12":        modern,
			"PKCS #12 legacy": legacy,
		} {
			for _, mode := range []os.FileMode{0o600, 0o400} {
				key, chain, err := signing.LoadKey(keyFile(t, data, mode), "segreta è")
				if err != nil {
					t.Errorf("%s, %s: %v", name, kind, err)
					continue
				}
				if len(chain) != 3 || !chain[0].Equal(b.chain[0]) || !chain[1].Equal(b.chain[1]) || !chain[2].Equal(b.chain[2]) {
					t.Errorf("%s, %s: got %d certificates, want leaf and two intermediates in order", name, kind, len(chain))
				}
				if _, err := signing.NewSigner(key, chain); err != nil {
					t.Errorf("%s, %s: %v", name, kind, err)
				}
			}
		}
	}
}

func TestLoadKeyRefusesWhatItShould(t *testing.T) {
	b, other := grow(t, newKey(t), 0, nothing), grow(t, newKey(t), 0, nothing)
	good := marshalPEM(t, b, b.chain...)
	p12, err := pkcs12.Modern.Encode(b.key, b.chain[0], nil, "giusta")
	if err != nil {
		t.Fatal(err)
	}
	agreement, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(agreement)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	broken := bytes.Replace(good, []byte("-----END CERT"), []byte("-----END CRET"), 1)
	for _, c := range []struct {
		name string
		data []byte
		mode os.FileMode
		want string
	}{
		{"readable by the group", good, 0o640, "chmod 600"},
		{"readable by all", good, 0o604, "chmod 600"},
		{"writable by others", good, 0o602, "chmod 600"},
		{"another's certificate", marshalPEM(t, b, other.chain...), 0o600, "not that of the certificate"},
		{"no certificate", marshalPEM(t, b), 0o600, "neither"},
		{"no key", signing.MarshalCertificates(b.chain), 0o600, "neither"},
		{"two keys", append(bytes.Clone(good), marshalPEM(t, other)...), 0o600, "more than one"},
		{"encrypted PEM", block("ENCRYPTED PRIVATE KEY", []byte{0x30, 0}), 0o600, "PKCS #12 takes a password"},
		{"broken certificate block", append(broken, signing.MarshalCertificates(b.chain)...), 0o600, "broken"},
		{"key that does not sign", append(block("PRIVATE KEY", der), signing.MarshalCertificates(b.chain)...), 0o600, "not that of the certificate"},
		{"wrong password", p12, 0o600, "password"},
		{"broken PKCS #12", p12[:100], 0o600, "key file"},
		{"empty", nil, 0o600, "neither"},
		{"huge", make([]byte, 2<<20), 0o600, "more than"},
	} {
		_, _, err := signing.LoadKey(keyFile(t, c.data, c.mode), "sbagliata")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, err, c.want)
		}
	}
	if _, _, err := signing.LoadKey(filepath.Join(t.TempDir(), "none"), ""); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: got %v, want a not-exist error", err)
	}
	if _, _, err := signing.LoadKey(t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("a folder: got %v", err)
	}
}

func TestParseCertificatesReadsOnlyCertificates(t *testing.T) {
	b := grow(t, newKey(t), 1, nothing)
	text := signing.MarshalCertificates(b.chain)
	for _, c := range []struct {
		name string
		text []byte
		want int
	}{
		{"two", text, 2},
		{"with comments", append([]byte("# anchors\n"), text...), 2},
		{"none", nil, 0},
		{"no PEM", []byte("hello"), 0},
		{"with a key", append(bytes.Clone(text), marshalPEM(t, b)...), 0},
		{"cut off", text[:len(text)-20], 0},
		{"broken in the middle", bytes.Replace(text, []byte("-----END CERT"), []byte("-----END CRET"), 1), 0},
		{"not DER", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), 0},
	} {
		got, err := signing.ParseCertificates(c.text)
		if len(got) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: got %d, %v, want %d", c.name, len(got), err, c.want)
		}
	}
}

func FuzzParseCertificates(f *testing.F) {
	b := grow(f, newKey(f), 0, nothing)
	f.Add(signing.MarshalCertificates(b.chain))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := signing.ParseCertificates(text)
		if err == nil && len(certs) == 0 {
			t.Error("neither certificates nor an error")
		}
	})
}
