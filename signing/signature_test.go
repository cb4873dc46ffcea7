package signing_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"testing"
	"time"

	"github.com/digitorus/pkcs7"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/signing/signingtest"
)

var (
	noon    = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	content = []byte("<ASiCManifest/>")
)

// branch is a tree of certificates: root, intermediates, leaf.
type branch struct {
	root  *x509.Certificate
	chain []*x509.Certificate // leaf first, root excluded
	key   crypto.Signer
}

// grow makes a branch with n intermediates whose leaf, changed, is that of key.
func grow(t testing.TB, key crypto.Signer, n int, change func(*x509.Certificate)) branch {
	t.Helper()
	issue := func(name string, public any, parent *x509.Certificate, parentKey crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
		serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: serial, Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
			NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(40, 0, 0),
		}
		change(c)
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, public, parentKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	asCA := func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }
	parentKey := newKey(t)
	b := branch{key: key, root: issue("Radice", parentKey.Public(), nil, parentKey, asCA)}
	parent := b.root
	for i := range n {
		own := newKey(t)
		parent = issue("Intermedia "+string(rune('A'+i)), own.Public(), parent, parentKey, asCA)
		parentKey = own
		b.chain = append([]*x509.Certificate{parent}, b.chain...)
	}
	leaf := issue("Firma", key.Public(), parent, parentKey, change)
	b.chain = append([]*x509.Certificate{leaf}, b.chain...)
	return b
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func nothing(*x509.Certificate) {}

func (b branch) trust() *signing.Trust {
	return signing.NewTrust([]*x509.Certificate{b.root}, []*x509.Certificate{b.root})
}

func (b branch) sign(t testing.TB, content []byte) []byte {
	t.Helper()
	s, err := signing.NewSigner(b.key, b.chain)
	if err != nil {
		t.Fatal(err)
	}
	cms, err := s.Sign(t.Context(), content, noon)
	if err != nil {
		t.Fatal(err)
	}
	return cms
}

func TestASignatureVerifiesWithEveryKindOfKey(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t), "P-384": p384, "P-521": p521, "RSA-2048": newRSA(t, 2048)} {
		for intermediates := range 3 {
			b := grow(t, key, intermediates, nothing)
			cms := b.sign(t, content)
			got, err := b.trust().CheckSignature(content, cms, noon)
			if err != nil {
				t.Errorf("%s, %d intermediates: %v", name, intermediates, err)
				continue
			}
			if !got.Signer.Equal(b.chain[0]) || !got.SigningTime.Equal(noon) || got.Qualified {
				t.Errorf("%s: got %+v, want signer %s at %s, not qualified", name, got, b.chain[0].Subject, noon)
			}
			p7, err := pkcs7.Parse(cms)
			if err != nil {
				t.Fatalf("%s: second opinion: %v", name, err)
			}
			p7.Content = content
			roots := x509.NewCertPool()
			roots.AddCert(b.root)
			if err := p7.VerifyWithChainAtTime(roots, noon); err != nil {
				t.Errorf("%s: second opinion: %v", name, err)
			}
		}
	}
}

// TestEveryFlippedBitOfASignatureIsFound is exhaustive: no bit of our signatures is without meaning.
func TestEveryFlippedBitOfASignatureIsFound(t *testing.T) {
	branches := map[string]branch{
		"P-256": grow(t, newKey(t), 0, nothing),
	}
	if !testing.Short() {
		branches["P-256, two intermediates"] = grow(t, newKey(t), 2, nothing)
		branches["RSA, one intermediate"] = grow(t, newRSA(t, 2048), 1, nothing)
	}
	for name, b := range branches {
		t.Run(name, func(t *testing.T) {
			cms, trust := b.sign(t, content), b.trust()
			if _, err := trust.CheckSignature(content, cms, noon); err != nil {
				t.Fatalf("control: %v", err)
			}
			for i := range 8 * len(cms) {
				cms[i/8] ^= 1 << (i % 8)
				if _, err := trust.CheckSignature(content, cms, noon); err == nil {
					t.Errorf("bit %d of byte %d flipped: accepted", i%8, i/8)
				}
				cms[i/8] ^= 1 << (i % 8)
			}
			for n := range cms {
				if _, err := trust.CheckSignature(content, cms[:n], noon); err == nil {
					t.Errorf("cut to %d bytes: accepted", n)
				}
			}
		})
	}
}

func TestEveryFlippedBitOfTheContentIsFound(t *testing.T) {
	kit := signingtest.New(t)
	cms, err := kit.Signer.Sign(t.Context(), content, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(content)
	for i := range 8 * len(other) {
		other[i/8] ^= 1 << (i % 8)
		if _, err := kit.Trust.CheckSignature(other, cms, time.Now()); !errors.Is(err, signing.ErrInvalid) {
			t.Errorf("bit %d: got %v, want ErrInvalid", i, err)
		}
		other[i/8] ^= 1 << (i % 8)
	}
}

func TestCheckSignatureTellsInvalidFromUntrusted(t *testing.T) {
	b, other := grow(t, newKey(t), 1, nothing), grow(t, newKey(t), 0, nothing)
	cms := b.sign(t, content)
	broken := bytes.Clone(cms)
	broken[len(broken)-1] ^= 1
	for _, c := range []struct {
		name  string
		trust *signing.Trust
		cms   []byte
		at    time.Time
		want  error
	}{
		{"good", b.trust(), cms, noon, nil},
		{"another root", other.trust(), cms, noon, signing.ErrUntrusted},
		{"no anchors", signing.NewTrust(nil, []*x509.Certificate{b.root}), cms, noon, signing.ErrNoTrust},
		{"nil trust", nil, cms, noon, signing.ErrNoTrust},
		{"broken, no anchors", signing.NewTrust(nil, nil), broken, noon, signing.ErrInvalid},
		{"broken", b.trust(), broken, noon, signing.ErrInvalid},
		{"before its validity", b.trust(), cms, noon.AddDate(-2, 0, 0), signing.ErrUntrusted},
		{"after its validity", b.trust(), cms, noon.AddDate(41, 0, 0), signing.ErrUntrusted},
		{"pinned signer", signing.NewTrust(b.chain[:1], nil), cms, noon, signing.ErrUntrusted}, // its intermediate leads nowhere
		{"pinned intermediate", signing.NewTrust(b.chain[1:2], nil), cms, noon, nil},
		{"nothing", b.trust(), nil, noon, signing.ErrInvalid},
	} {
		_, err := c.trust.CheckSignature(content, c.cms, c.at)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestQualifiedIsWhatTheCertificateClaims(t *testing.T) {
	statements := func(oids ...asn1.ObjectIdentifier) func(*x509.Certificate) {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, oid := range oids {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) })
			}
		})
		ext := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 3}, Value: b.BytesOrPanic()}
		return func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, ext) }
	}
	compliance, device := asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 1}, asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 4}
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   bool
	}{
		"no statement":            {nothing, false},
		"compliance alone":        {statements(compliance), false},
		"device alone":            {statements(device), false},
		"compliance and device":   {statements(compliance, device), true},
		"the same, the other way": {statements(device, compliance), true},
	} {
		b := grow(t, newKey(t), 0, c.change)
		s, err := signing.NewSigner(b.key, b.chain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.trust().CheckSignature(content, b.sign(t, content), noon)
		if err != nil {
			t.Fatal(err)
		}
		if s.Qualified() != c.want || got.Qualified != c.want {
			t.Errorf("%s: got signer %v, signature %v, want %v", name, s.Qualified(), got.Qualified, c.want)
		}
	}
}

func TestNewSignerPutsItsChainInOrder(t *testing.T) {
	b, stranger := grow(t, newKey(t), 2, nothing), grow(t, newKey(t), 1, nothing)
	given := []*x509.Certificate{b.chain[0], b.root, stranger.chain[0], b.chain[2], b.chain[1]}
	s, err := signing.NewSigner(b.key, given)
	if err != nil {
		t.Fatal(err)
	}
	got := s.Chain()
	if len(got) != 3 || !got[0].Equal(b.chain[0]) || !got[1].Equal(b.chain[1]) || !got[2].Equal(b.chain[2]) {
		t.Errorf("got %d certificates, want leaf, A, B in order", len(got))
	}
}

func TestNewSignerRefusesWhatCannotSeal(t *testing.T) {
	good := grow(t, newKey(t), 0, nothing)
	for name, b := range map[string]branch{
		"no certificate":    {key: good.key},
		"no key":            {chain: good.chain},
		"another key":       {key: newKey(t), chain: good.chain},
		"a root":            {key: good.key, chain: []*x509.Certificate{good.root}},
		"a CA":              grow(t, newKey(t), 0, func(c *x509.Certificate) { c.IsCA = true }),
		"a TSA":             grow(t, newKey(t), 0, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping} }),
		"key for agreement": grow(t, newKey(t), 0, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }),
		"short RSA key":     grow(t, newRSA(t, 1024), 0, nothing),
		"Ed25519":           grow(t, edKey(t), 0, nothing),
	} {
		if _, err := signing.NewSigner(b.key, b.chain); err == nil {
			t.Errorf("%s: got a signer, want an error", name)
		}
	}
}

func edKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSignRefusesAnExpiredCertificate(t *testing.T) {
	b := grow(t, newKey(t), 1, nothing)
	s, err := signing.NewSigner(b.key, b.chain)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{noon.AddDate(-2, 0, 0), noon.AddDate(41, 0, 0)} {
		if _, err := s.Sign(t.Context(), content, at); err == nil {
			t.Errorf("at %s: signed, want an error", at)
		}
	}
}

// failing is a key whose signatures are wrong, like those of a broken device.
type failing struct{ crypto.Signer }

func (f failing) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	other := bytes.Clone(digest)
	other[0] ^= 1
	return f.Signer.Sign(r, other, o)
}

func TestSignNoticesADeviceThatErrs(t *testing.T) {
	b := grow(t, newKey(t), 0, nothing)
	s, err := signing.NewSigner(failing{b.key}, b.chain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(t.Context(), content, noon); !errors.Is(err, signing.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

// message is a CMS with the parts that a forger would change; its encoder is not the one under test.
type message struct {
	b          branch
	digestOID  asn1.ObjectIdentifier
	signedType asn1.ObjectIdentifier
	content    []byte // encapsulated; nil when detached
	certs      []*x509.Certificate
	attrs      func(attrs [][]byte) [][]byte
	noAttrs    bool
	signature  []byte // instead of making one
	unsigned   []byte
	highS      bool
}

// withS gives the ECDSA P-256 signature with the higher or lower s.
func withS(t testing.TB, signature []byte, high bool) []byte {
	t.Helper()
	var pair struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &pair); err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	if (new(big.Int).Lsh(pair.S, 1).Cmp(n) > 0) != high {
		pair.S.Sub(n, pair.S)
	}
	signature, err := asn1.Marshal(pair)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

var (
	oidData   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

func seq(add func(*cryptobyte.Builder)) []byte { return wrap(cbasn1.SEQUENCE, add) }

func wrap(tag cbasn1.Tag, add func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, add)
	return b.BytesOrPanic()
}

func attr(oid asn1.ObjectIdentifier, values ...[]byte) []byte {
	return seq(func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			for _, v := range values {
				b.AddBytes(v)
			}
		})
	})
}

func (m message) standardAttrs(digest [32]byte) [][]byte {
	oct := func(v []byte) []byte { return wrap(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddBytes(v) }) }
	leaf := m.b.chain[0]
	hash := sha256.Sum256(leaf.Raw)
	ess := seq(func(b *cryptobyte.Builder) {
		b.AddBytes(seq(func(b *cryptobyte.Builder) {
			b.AddBytes(seq(func(b *cryptobyte.Builder) {
				b.AddBytes(oct(hash[:]))
				b.AddBytes(seq(func(b *cryptobyte.Builder) {
					b.AddBytes(seq(func(b *cryptobyte.Builder) {
						b.AddASN1(cbasn1.Tag(4).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(leaf.RawIssuer) })
					}))
					b.AddASN1BigInt(leaf.SerialNumber)
				}))
			}))
		}))
	})
	return [][]byte{
		attr(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}, wrap(cbasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) {
			raw := seq(func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(m.signedType) })
			b.AddBytes(raw[4:])
		})),
		attr(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}, wrap(cbasn1.UTCTime, func(b *cryptobyte.Builder) { b.AddBytes([]byte("260309120000Z")) })),
		attr(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}, oct(digest[:])),
		attr(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}, ess),
	}
}

func (m message) marshal(t testing.TB, over []byte) []byte {
	t.Helper()
	attrs := m.standardAttrs(sha256.Sum256(over))
	if m.attrs != nil {
		attrs = m.attrs(attrs)
	}
	joined := bytes.Join(attrs, nil)
	signed := wrap(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(joined) })
	if m.noAttrs {
		signed = over
	}
	signature := m.signature
	if signature == nil {
		sum := sha256.Sum256(signed)
		var err error
		if signature, err = m.b.key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
		signature = withS(t, signature, m.highS)
	}
	explicit := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	alg := func(oid asn1.ObjectIdentifier) []byte {
		return seq(func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) })
	}
	leaf := m.b.chain[0]
	signer := seq(func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddBytes(seq(func(b *cryptobyte.Builder) { b.AddBytes(leaf.RawIssuer); b.AddASN1BigInt(leaf.SerialNumber) }))
		b.AddBytes(alg(m.digestOID))
		if !m.noAttrs {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddBytes(joined) })
		}
		b.AddBytes(alg(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}))
		b.AddASN1OctetString(signature)
		if m.unsigned != nil {
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) { b.AddBytes(m.unsigned) })
		}
	})
	return seq(func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2})
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddBytes(seq(func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(alg(m.digestOID)) })
				b.AddBytes(seq(func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidData)
					if m.content != nil {
						b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1OctetString(m.content) })
					}
				}))
				b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
					for _, c := range m.certs {
						b.AddBytes(c.Raw)
					}
				})
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(signer) })
			}))
		})
	})
}

func TestOnlyTheOneFormIsAccepted(t *testing.T) {
	b := grow(t, newKey(t), 1, nothing)
	stranger := grow(t, newKey(t), 0, nothing)
	sibling := grow(t, newKey(t), 0, nothing)
	honest := message{b: b, digestOID: oidSHA256, signedType: oidData, certs: b.chain}
	if _, err := b.trust().CheckSignature(content, honest.marshal(t, content), noon); err != nil {
		t.Fatalf("control: %v", err)
	}
	for name, change := range map[string]func(*message){
		"the other s":          func(m *message) { m.highS = true },
		"content inside":       func(m *message) { m.content = content },
		"no certificates":      func(m *message) { m.certs = nil },
		"without intermediate": func(m *message) { m.certs = b.chain[:1] },
		"chain the other way":  func(m *message) { m.certs = []*x509.Certificate{b.chain[1], b.chain[0]} },
		"root inside":          func(m *message) { m.certs = []*x509.Certificate{b.chain[0], b.chain[1], b.root} },
		"stranger inside":      func(m *message) { m.certs = []*x509.Certificate{b.chain[0], b.chain[1], stranger.chain[0]} },
		"certificate twice":    func(m *message) { m.certs = []*x509.Certificate{b.chain[0], b.chain[1], b.chain[1]} },
		"SHA-1":                func(m *message) { m.digestOID = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26} },
		"MD5":                  func(m *message) { m.digestOID = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 5} },
		"SHA-512 said":         func(m *message) { m.digestOID = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3} },
		"other content type":   func(m *message) { m.signedType = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4} },
		"no signed attributes": func(m *message) { m.noAttrs = true },
		"unsigned attribute":   func(m *message) { m.unsigned = attr(oidData, []byte{5, 0}) },
		"no signing time":      func(m *message) { m.attrs = func(a [][]byte) [][]byte { return [][]byte{a[0], a[2], a[3]} } },
		"no ESS":               func(m *message) { m.attrs = func(a [][]byte) [][]byte { return a[:3] } },
		"no message digest":    func(m *message) { m.attrs = func(a [][]byte) [][]byte { return [][]byte{a[0], a[1], a[3]} } },
		"unsorted":             func(m *message) { m.attrs = func(a [][]byte) [][]byte { return [][]byte{a[1], a[0], a[2], a[3]} } },
		"two message digests": func(m *message) {
			m.attrs = func(a [][]byte) [][]byte { return [][]byte{a[0], a[1], a[2], a[2], a[3]} }
		},
		"an attribute more": func(m *message) {
			m.attrs = func(a [][]byte) [][]byte { return append([][]byte{attr(oidData, []byte{5, 0})}, a...) }
		},
		"another's ESS": func(m *message) {
			m.attrs = func(a [][]byte) [][]byte {
				return [][]byte{a[0], a[1], a[2], message{b: sibling, signedType: oidData}.standardAttrs([32]byte{})[3]}
			}
		},
		"two values of the message digest": func(m *message) {
			m.attrs = func(a [][]byte) [][]byte {
				oct := wrap(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddBytes(make([]byte, 32)) })
				return [][]byte{a[0], a[1], attr(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}, oct, oct), a[3]}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := honest
			change(&m)
			if _, err := b.trust().CheckSignature(content, m.marshal(t, content), noon); !errors.Is(err, signing.ErrInvalid) && !errors.Is(err, signing.ErrUntrusted) {
				t.Errorf("got %v, want an error", err)
			}
		})
	}
}

// TestASignatureIsNotReusedForItsAttributes holds the forgery that digitorus and openssl let through: the signature
// of a genuine message, put over the DER of that message's attributes as if they were a document.
func TestASignatureIsNotReusedForItsAttributes(t *testing.T) {
	b := grow(t, newKey(t), 0, nothing)
	honest := message{b: b, digestOID: oidSHA256, signedType: oidData, certs: b.chain}
	attrs := bytes.Join(honest.standardAttrs(sha256.Sum256(content)), nil)
	document := wrap(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(attrs) })
	sum := sha256.Sum256(document)
	signature, err := b.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	forged := honest
	forged.noAttrs, forged.signature = true, signature
	der := forged.marshal(t, document)

	p7, err := pkcs7.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	p7.Content = document
	if err := p7.Verify(); err != nil {
		t.Fatalf("control: the forgery is not one that a library accepts: %v", err)
	}
	if _, err := b.trust().CheckSignature(document, der, noon); !errors.Is(err, signing.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}

	// The other direction: we do not sign a document that is a set of attributes, nor accept one.
	s, err := signing.NewSigner(b.key, b.chain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(t.Context(), document, noon); err == nil {
		t.Error("signed a set of attributes, want an error")
	}
	if _, err := b.trust().CheckSignature(document, honest.marshal(t, document), noon); !errors.Is(err, signing.ErrInvalid) {
		t.Errorf("set of attributes as content: got %v, want ErrInvalid", err)
	}
}

func TestSigningTimeAfter2049(t *testing.T) {
	at := time.Date(2051, 2, 3, 4, 5, 6, 0, time.UTC)
	b := grow(t, newKey(t), 0, func(c *x509.Certificate) { c.NotAfter = at.AddDate(1, 0, 0) })
	s, err := signing.NewSigner(b.key, b.chain)
	if err != nil {
		t.Fatal(err)
	}
	cms, err := s.Sign(t.Context(), content, at.Add(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	got, err := signing.NewTrust(b.chain, nil).CheckSignature(content, cms, at)
	if err != nil || !got.SigningTime.Equal(at) {
		t.Errorf("got %v, %v, want %v", got.SigningTime, err, at)
	}
}

func FuzzCheckSignature(f *testing.F) {
	b := grow(f, newKey(f), 1, nothing)
	cms, trust := b.sign(f, content), b.trust()
	f.Add(cms)
	f.Add([]byte{0x30, 0x80, 0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := trust.CheckSignature(content, der, noon)
		if err == nil && !bytes.Equal(der, cms) {
			t.Errorf("accepted another signature than the one made: %+v", got)
		}
		if err != nil && !errors.Is(err, signing.ErrInvalid) && !errors.Is(err, signing.ErrUntrusted) {
			t.Errorf("got %v, want ErrInvalid or ErrUntrusted", err)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	br := grow(b, newKey(b), 0, nothing)
	s, err := signing.NewSigner(br.key, br.chain)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Sign(b.Context(), content, noon); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckSignature(b *testing.B) {
	br := grow(b, newKey(b), 0, nothing)
	cms, trust := br.sign(b, content), br.trust()
	for b.Loop() {
		if _, err := trust.CheckSignature(content, cms, noon); err != nil {
			b.Fatal(err)
		}
	}
}
