package signing_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/signing/evidence"
	"github.com/marchesud/perenne/signing/signingtest"
)

var (
	oidSHA512   = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	criticalTSA = pkix.Extension{
		Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true,
		Value: []byte{0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08},
	}
)

// asTSA makes a leaf that of a timestamping unit.
func asTSA(c *x509.Certificate) {
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtraExtensions = []pkix.Extension{criticalTSA}
}

func localToken(t testing.TB, kit *signingtest.Kit, digest [32]byte) []byte {
	t.Helper()
	token, err := kit.Timestamper.Timestamp(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestALocalTokenSaysWhatItShould(t *testing.T) {
	kit := signingtest.New(t)
	digest := sha256.Sum256(content)
	before := time.Now()
	der := localToken(t, kit, digest)
	got, err := kit.Trust.CheckToken(der, digest)
	if err != nil {
		t.Fatal(err)
	}
	if got.Time.Before(before.Add(-time.Second)) || got.Time.After(time.Now()) {
		t.Errorf("time: got %s, want about %s", got.Time, before)
	}
	if got.Accuracy != time.Second || got.Imprint != digest || !got.Policy.Equal(signing.LocalPolicy()) ||
		got.Nonce == nil || got.Serial.Sign() <= 0 || got.Qualified {
		t.Errorf("got %+v, want accuracy 1s, imprint %x, local policy, nonce, serial, not qualified", got, digest)
	}
	parsed, certs, err := signing.ParseToken(der)
	if err != nil || len(certs) != 1 || !parsed.Signer.Equal(got.Signer) {
		t.Errorf("ParseToken: got %v, %d certificates, %v", parsed, len(certs), err)
	}
	second, err := timestamp.Parse(der)
	if err != nil || !second.Time.Equal(got.Time) || !bytes.Equal(second.HashedMessage, digest[:]) {
		t.Errorf("second opinion: got %+v, %v", second, err)
	}
}

// TestEveryFlippedBitOfATokenIsFound is exhaustive.
func TestEveryFlippedBitOfATokenIsFound(t *testing.T) {
	kit := signingtest.New(t)
	digest := sha256.Sum256(content)
	tokens := map[string][]byte{"local": localToken(t, kit, digest)}
	trusts := map[string]*signing.Trust{"local": kit.Trust}
	if !testing.Short() {
		for name, b := range map[string]branch{
			"P-256, two intermediates": grow(t, newKey(t), 2, asTSA),
			"RSA, one intermediate":    grow(t, newRSA(t, 2048), 1, asTSA),
		} {
			tokens[name], trusts[name] = b.stamp(t, digest), b.trust()
		}
	}
	for name, der := range tokens {
		t.Run(name, func(t *testing.T) {
			if _, err := trusts[name].CheckToken(der, digest); err != nil {
				t.Fatalf("control: %v", err)
			}
			for i := range 8 * len(der) {
				der[i/8] ^= 1 << (i % 8)
				if _, err := trusts[name].CheckToken(der, digest); err == nil {
					t.Errorf("bit %d of byte %d flipped: accepted", i%8, i/8)
				}
				der[i/8] ^= 1 << (i % 8)
			}
			for n := range der {
				if _, err := trusts[name].CheckToken(der[:n], digest); err == nil {
					t.Errorf("cut to %d bytes: accepted", n)
				}
			}
		})
	}
}

// stamp makes a token at noon with a Responder of the branch.
func (b branch) stamp(t testing.TB, digest [32]byte) []byte {
	t.Helper()
	r, err := signing.NewResponder(b.key, b.chain, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	request := timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: digest[:], Certificates: true, Nonce: big.NewInt(7)}
	body, err := request.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	resp := post(t, r, body)
	parsed, err := timestamp.ParseResponse(resp.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return parsed.RawToken
}

func TestCheckTokenTellsInvalidFromUntrusted(t *testing.T) {
	kit, other := signingtest.New(t), signingtest.New(t)
	digest := sha256.Sum256(content)
	der := localToken(t, kit, digest)
	broken := bytes.Clone(der)
	broken[len(broken)-1] ^= 1
	for _, c := range []struct {
		name    string
		trust   *signing.Trust
		der     []byte
		imprint [32]byte
		want    error
	}{
		{"good", kit.Trust, der, digest, nil},
		{"another installation's", other.Trust, der, digest, signing.ErrUntrusted},
		{"seal anchors only", signing.NewTrust([]*x509.Certificate{kit.TSACA}, nil), der, digest, signing.ErrNoTrust},
		{"nil trust", nil, der, digest, signing.ErrNoTrust},
		{"seal's CA as anchor", signing.NewTrust(nil, []*x509.Certificate{kit.SealCA}), der, digest, signing.ErrUntrusted},
		{"another imprint", kit.Trust, der, [32]byte{}, signing.ErrInvalid},
		{"broken, no anchors", signing.NewTrust(nil, nil), broken, digest, signing.ErrInvalid},
		{"a signature", kit.Trust, func() []byte {
			cms, err := kit.Signer.Sign(t.Context(), content, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return cms
		}(), digest, signing.ErrInvalid},
	} {
		if _, err := c.trust.CheckToken(c.der, c.imprint); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := kit.Trust.CheckSignature(content, der, time.Now()); !errors.Is(err, signing.ErrInvalid) {
		t.Errorf("token as signature: got %v, want ErrInvalid", err)
	}
}

func TestATokenOutlivesItsCertificate(t *testing.T) {
	b := grow(t, newKey(t), 1, asTSA)
	digest := sha256.Sum256(content)
	got, err := b.trust().CheckToken(b.stamp(t, digest), digest) // today its certificates may have expired
	if err != nil || !got.Time.Equal(noon) {
		t.Errorf("got %v, %v, want a token of %v", got.Time, err, noon)
	}
}

func TestTokensOfDigitorusAreAccepted(t *testing.T) {
	b := grow(t, newRSA(t, 2048), 1, asTSA)
	stamp := func(h crypto.Hash, sum []byte, nonce *big.Int, qualified bool) []byte {
		ts := timestamp.Timestamp{
			HashAlgorithm: h, HashedMessage: sum, Time: noon, Accuracy: 1500 * time.Millisecond, Nonce: nonce,
			Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1}, Ordering: true, Qualified: qualified,
			AddTSACertificate: true, Certificates: b.chain[1:],
		}
		answer, err := ts.CreateResponseWithOpts(b.chain[0], b.key, h)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := timestamp.ParseResponse(answer)
		if err != nil {
			t.Fatal(err)
		}
		return parsed.RawToken
	}
	sum256, sum512 := sha256.Sum256(content), sha512.Sum512(content)
	got, err := b.trust().CheckToken(stamp(crypto.SHA256, sum256[:], big.NewInt(5), true), sum256)
	if err != nil {
		t.Fatal(err)
	}
	if got.Accuracy != 1500*time.Millisecond || !got.Qualified || got.Nonce.Int64() != 5 {
		t.Errorf("got %+v, want accuracy 1.5s, qualified, nonce 5", got)
	}
	der := stamp(crypto.SHA512, sum512[:], nil, false)
	got, err = b.trust().CheckTokenDigest(der, sum512[:], oidSHA512)
	if err != nil {
		t.Fatal(err)
	}
	if got.Imprint != ([32]byte{}) || !bytes.Equal(got.Hashed, sum512[:]) || got.Qualified {
		t.Errorf("got %+v, want the SHA-512 digest in Hashed, not qualified", got)
	}
	if _, err := b.trust().CheckTokenDigest(der, sum512[:], oidSHA256); !errors.Is(err, signing.ErrInvalid) {
		t.Errorf("SHA-512 digest as SHA-256: got %v, want ErrInvalid", err)
	}
}

const sample = "../../shared/data/sacer/synthetic-signed"

func readSample(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(sample, name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no sample data here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTokensOfOthersFromTheSampleData(t *testing.T) {
	root, err := x509.ParseCertificate(readSample(t, "ca.cer"))
	if err != nil {
		t.Fatal(err)
	}
	trust := signing.NewTrust(nil, []*x509.Certificate{root})
	pdf := sha256.Sum256(readSample(t, "determina_12A.pdf"))
	token := readSample(t, "determina_12A.pdf.tst")
	if _, err := trust.CheckToken(token, pdf); err != nil {
		t.Errorf("bare token made by openssl: %v", err)
	}
	if _, err := trust.CheckToken(readSample(t, "determina_12A.pdf.tsr"), pdf); !errors.Is(err, signing.ErrInvalid) {
		t.Errorf("whole answer in place of a token: got %v, want ErrInvalid", err)
	}
	for i := range 8 * len(token) {
		if testing.Short() && i%61 != 0 {
			continue
		}
		token[i/8] ^= 1 << (i % 8)
		if _, err := trust.CheckToken(token, pdf); err == nil {
			t.Errorf("bit %d of byte %d of a token of openssl flipped: accepted", i%8, i/8)
		}
		token[i/8] ^= 1 << (i % 8)
	}
}

// TestTokensOfOthersFromEvidenceRecords takes tokens of real authorities, 2017 to 2024, out of foreign records. Their own
// authorities' certificates serve as anchors, so that everything but trust is put to the test.
func TestTokensOfOthersFromEvidenceRecords(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"er-asn1-on-tst.ers", ""},
		{"BIN-1_ER.ers", "nobody signed"},
		{"er-asn1-tst-renewal.ers", "nobody signed"},
		{"er-asn1-full-renewal.ers", "id-RSASSA-PSS"},
		{"1_0_Initial.er", "2.16.840.1.101.3.4.2.4 is not acceptable"}, // SHA-224
	} {
		path := filepath.Join("../../shared/data/italy/evidence-records/asn1", c.file)
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			t.Skipf("no sample data here: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		record, err := evidence.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		der := record.Tokens()[0]
		token, certs, err := signing.ParseToken(der)
		if err == nil {
			anchors := slices.DeleteFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA })
			_, err = signing.NewTrust(nil, anchors).CheckTokenDigest(der, token.Hashed, token.Algorithm)
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.file, err, c.want)
		}
	}
}

func TestSignaturesOfOthersAreNotOurs(t *testing.T) {
	root, err := x509.ParseCertificate(readSample(t, "ca.cer"))
	if err != nil {
		t.Fatal(err)
	}
	trust := signing.NewTrust([]*x509.Certificate{root}, nil)
	pdf := readSample(t, "determina_12A.pdf")
	files, err := filepath.Glob(filepath.Join(sample, "*.p7*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		cms, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.CheckSignature(pdf, cms, noon); !errors.Is(err, signing.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid: not in our form", filepath.Base(f), err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	b := grow(f, newKey(f), 1, asTSA)
	digest := sha256.Sum256(content)
	der, trust := b.stamp(f, digest), b.trust()
	f.Add(der)
	f.Add([]byte{0x30, 0x80, 0x30, 0x80})
	f.Fuzz(func(t *testing.T, other []byte) {
		_, _, err := signing.ParseToken(other)
		if err != nil && !errors.Is(err, signing.ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
		if _, err := trust.CheckToken(other, digest); err == nil && !bytes.Equal(other, der) {
			t.Errorf("accepted a token that was not made: %x", other)
		}
	})
}

func BenchmarkCheckToken(b *testing.B) {
	br := grow(b, newKey(b), 0, asTSA)
	digest := sha256.Sum256(content)
	der, trust := br.stamp(b, digest), br.trust()
	for b.Loop() {
		if _, err := trust.CheckToken(der, digest); err != nil {
			b.Fatal(err)
		}
	}
}

// TestFingerprintIsWhatOthersPrint compares with the digest of the DER.
func TestFingerprintIsWhatOthersPrint(t *testing.T) {
	cert := &x509.Certificate{Raw: []byte("abc")}
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if got := signing.Fingerprint(cert); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
