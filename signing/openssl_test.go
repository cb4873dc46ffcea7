package signing_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/pkcs7"

	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/signing/signingtest"
)

// attime is noon in the words of openssl.
var attime = strconv.FormatInt(noon.Unix(), 10)

// openssl runs the tool in dir with files put there, and returns what it says.
func openssl(t *testing.T, dir string, files map[string][]byte, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skipf("no openssl here: %v", err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func pemOf(certs ...*x509.Certificate) []byte { return signing.MarshalCertificates(certs) }

// TestOpenSSLAcceptsWhatWeMake runs the two commands that the README gives to a stranger.
func TestOpenSSLAcceptsWhatWeMake(t *testing.T) {
	kit := signingtest.New(t)
	cms, err := kit.Signer.Sign(t.Context(), content, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	verify := []string{"cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", "signature.p7s", "-content", "manifest", "-CAfile", "seal-ca.pem", "-out", os.DevNull}
	files := map[string][]byte{"signature.p7s": cms, "manifest": content, "seal-ca.pem": pemOf(kit.SealCA)}
	if out, err := openssl(t, t.TempDir(), files, verify...); err != nil {
		t.Errorf("cms -verify: %v: %s", err, out)
	}
	files["manifest"] = append([]byte("x"), content...)
	if _, err := openssl(t, t.TempDir(), files, verify...); err == nil {
		t.Error("control: openssl accepts another manifest")
	}

	digest := sha256.Sum256(content)
	stamped := map[string][]byte{"seal.tst": localToken(t, kit, digest), "tsa-ca.pem": pemOf(kit.TSACA)}
	check := []string{"ts", "-verify", "-token_in", "-in", "seal.tst", "-digest", hex.EncodeToString(digest[:]), "-CAfile", "tsa-ca.pem"}
	if out, err := openssl(t, t.TempDir(), stamped, check...); err != nil {
		t.Errorf("ts -verify: %v: %s", err, out)
	}
	check[6] = strings.Repeat("00", 32)
	if _, err := openssl(t, t.TempDir(), stamped, check...); err == nil {
		t.Error("control: openssl accepts another digest")
	}
}

func TestOpenSSLAcceptsSignaturesOfEveryKey(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t), "P-384": p384, "RSA": newRSA(t, 2048)} {
		b := grow(t, key, 2, nothing)
		files := map[string][]byte{"s.p7s": b.sign(t, content), "c": content, "ca.pem": pemOf(b.root)}
		out, err := openssl(t, t.TempDir(), files, "cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", "s.p7s", "-content", "c",
			"-CAfile", "ca.pem", "-out", os.DevNull, "-attime", attime)
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

const tsaConfig = `[tsa]
default_tsa = t
[t]
serial = serial
crypto_device = builtin
signer_cert = tsa.pem
certs = chain.pem
signer_key = key.pem
signer_digest = %DIGEST%
default_policy = 1.3.6.1.4.1.32473.5
digests = sha256, sha384, sha512
accuracy = secs:1, millisecs:500, microsecs:100
clock_precision_digits = 3
ordering = yes
tsa_name = yes
ess_cert_id_chain = yes
ess_cert_id_alg = %ESS%
`

func TestTokensOfOpenSSLAreAccepted(t *testing.T) {
	for _, c := range []struct {
		name, digest, ess string
		key               crypto.Signer
		ok                bool
	}{
		{"RSA", "sha256", "sha256", newRSA(t, 2048), true},
		{"RSA, SHA-512", "sha512", "sha512", newRSA(t, 2048), true},
		{"P-256", "sha256", "sha384", newKey(t), true},
		{"SHA-1 signature", "sha1", "sha256", newRSA(t, 2048), false},
		{"SHA-1 ESSCertID", "sha256", "sha1", newRSA(t, 2048), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := grow(t, c.key, 1, asTSA)
			key, err := signing.MarshalPEM(c.key, nil)
			if err != nil {
				t.Fatal(err)
			}
			dir, sum := t.TempDir(), sha256.Sum256(content)
			config := strings.NewReplacer("%DIGEST%", c.digest, "%ESS%", c.ess).Replace(tsaConfig)
			files := map[string][]byte{"tsa.pem": pemOf(b.chain[0]), "chain.pem": pemOf(b.chain[1:]...), "key.pem": key, "conf": []byte(config), "serial": []byte("0A\n")}
			if out, err := openssl(t, dir, files, "ts", "-query", "-digest", hex.EncodeToString(sum[:]), "-sha256", "-cert", "-out", "q"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if out, err := openssl(t, dir, nil, "ts", "-reply", "-config", "conf", "-section", "t", "-queryfile", "q", "-token_out", "-out", "tst"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			der, err := os.ReadFile(filepath.Join(dir, "tst"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := b.trust().CheckToken(der, sum)
			if (err == nil) != c.ok {
				t.Fatalf("got %v, want accepted: %v", err, c.ok)
			}
			if c.ok && got.Accuracy != time.Second+500*time.Millisecond+100*time.Microsecond {
				t.Errorf("accuracy: got %v", got.Accuracy)
			}
		})
	}
}

func TestOpenSSLAsksOurResponder(t *testing.T) {
	dir := t.TempDir()
	for _, alg := range []string{"-sha256", "-sha384", "-sha512"} {
		if out, err := openssl(t, dir, map[string][]byte{"c": content}, "ts", "-query", "-data", "c", alg, "-cert", "-out", "q"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		query, err := os.ReadFile(filepath.Join(dir, "q"))
		if err != nil {
			t.Fatal(err)
		}
		b := grow(t, newKey(t), 0, asTSA)
		r, err := signing.NewResponder(b.key, b.chain, func() time.Time { return noon })
		if err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{"r": post(t, r, query).Body.Bytes(), "ca.pem": pemOf(b.root)}
		if out, err := openssl(t, dir, files, "ts", "-verify", "-queryfile", "q", "-in", "r", "-CAfile", "ca.pem", "-attime", attime); err != nil {
			t.Errorf("%s: %v: %s", alg, err, out)
		}
	}
}

// TestOtherFormsOfCMSAreReadInTokens signs a TSTInfo of ours in ways that authorities elsewhere use.
func TestOtherFormsOfCMSAreReadInTokens(t *testing.T) {
	withKeyID := func(c *x509.Certificate) { asTSA(c); c.SubjectKeyId = []byte("twenty bytes of name") }
	b := grow(t, newRSA(t, 2048), 1, withKeyID)
	digest := sha256.Sum256(content)
	p7, err := pkcs7.Parse(b.stamp(t, digest))
	if err != nil {
		t.Fatal(err)
	}
	key, err := signing.MarshalPEM(b.key, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"info": p7.Content, "key.pem": key, "cert.pem": pemOf(b.chain[0]), "chain.pem": pemOf(b.chain[1:]...)}
	for _, c := range []struct {
		name string
		args []string
		ok   bool
	}{
		{"issuer and serial", nil, true},
		{"subject key identifier", []string{"-keyid"}, true},
		{"RSASSA-PSS", []string{"-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:-1"}, true},
		{"RSASSA-PSS, salt of 20 bytes", []string{"-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:20"}, false},
		{"SHA-512", []string{"-md", "sha512"}, true},
		{"SHA-1", []string{"-md", "sha1"}, false},
		{"BER stream", []string{"-stream"}, false},
		{"no certificates", []string{"-nocerts"}, false},
	} {
		dir := t.TempDir()
		args := append([]string{
			"cms", "-sign", "-cades", "-binary", "-nodetach", "-in", "info", "-signer", "cert.pem", "-inkey", "key.pem",
			"-certfile", "chain.pem", "-econtent_type", "1.2.840.113549.1.9.16.1.4", "-outform", "DER", "-out", "tst",
		}, c.args...)
		if out, err := openssl(t, dir, files, args...); err != nil {
			t.Fatalf("%s: %v: %s", c.name, err, out)
		}
		der, err := os.ReadFile(filepath.Join(dir, "tst"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.trust().CheckToken(der, digest); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want accepted: %v", c.name, err, c.ok)
		}
	}
}
