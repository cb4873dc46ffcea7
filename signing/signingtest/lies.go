package signingtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/marchesud/perenne/signing"
)

// KeyKind is the kind of key that a liar signs with.
type KeyKind int

const (
	ECDSA KeyKind = iota
	RSA
)

func (k KeyKind) String() string { return [...]string{"ECDSA", "RSA"}[k] }

// Lie is one way in which a timestamping authority can be wrong. Its certificate is issued by the Kit's TSACA,
// unless the lie is about that, so that nothing but the lie is a reason to refuse it.
type Lie struct {
	Name string
	// Handler answers every request with the lie.
	Handler http.Handler
	// Reason is part of the error that names the lie, so that it cannot be refused for another.
	Reason string
	// Second tells that only the second answer is a lie: the first is true.
	Second bool
}

// lie is how a Lie is made.
type lie struct {
	name, reason string
	change       func(*answer)
}

// answer is one answer under construction.
type answer struct {
	token
	status     int
	hideToken  bool
	mangle     func([]byte) []byte // of the token's DER
	body       []byte              // instead of everything
	mediaType  string
	httpStatus int
}

// liar makes answers that are true until a lie changes them.
type liar struct {
	kit      *Kit
	key      crypto.Signer
	stranger crypto.Signer // of the same kind, without a certificate
	cert     *x509.Certificate
	another  *x509.Certificate // of the same key
}

// Honest is the authority of the lies telling the truth: the control that shows that a lie alone is refused.
func (k *Kit) Honest(t testing.TB, kind KeyKind) http.Handler {
	t.Helper()
	return k.liar(t, kind).tell(func(*answer) {})
}

// Lies returns every lie, told with a key of the kind.
func (k *Kit) Lies(t testing.TB, kind KeyKind) []Lie {
	t.Helper()
	l := k.liar(t, kind)
	var lies []Lie
	for _, group := range [][]lie{l.aboutTSTInfo(), l.aboutSignedData(), l.aboutCertificates(t), l.aboutTransport()} {
		for _, one := range group {
			lies = append(lies, Lie{Name: one.name, Reason: one.reason, Handler: l.tell(one.change)})
		}
	}
	same := big.NewInt(0x5e71a1)
	return append(lies, Lie{
		Name: "duplicate serial", Reason: "was given before", Second: true,
		Handler: l.tell(func(a *answer) { a.serial = same }),
	})
}

func (k *Kit) liar(t testing.TB, kind KeyKind) *liar {
	t.Helper()
	l := &liar{kit: k, key: newKey(t, kind, 2048), stranger: newKey(t, kind, 2048)}
	l.cert = l.issue(t, l.key, k.TSACA, k.tsaKey, func(*x509.Certificate) {})
	l.another = l.issue(t, l.key, k.TSACA, k.tsaKey, func(*x509.Certificate) {})
	return l
}

func newKey(t testing.TB, kind KeyKind, bits int) crypto.Signer {
	t.Helper()
	if kind == RSA {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		check(t, err)
		return key
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

// issue makes a timestamping certificate, changed; without a parent it is self-signed.
func (l *liar) issue(t testing.TB, key crypto.Signer, parent *x509.Certificate, parentKey crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          number(),
		Subject:               pkix.Name{CommonName: "Marche bugiarde (non qualificato)"},
		NotBefore:             l.kit.now().AddDate(0, -6, 0),
		NotAfter:              l.kit.now().AddDate(5, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{usage(t, true, timeStamping)},
	}
	change(template)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert
}

var (
	timeStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	codeSigning  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}
	unknownOID   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 9}
)

func usage(t testing.TB, critical bool, oids ...asn1.ObjectIdentifier) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(oids)
	check(t, err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: value}
}

func number() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] = 0x40
	return new(big.Int).SetBytes(b)
}

// tell makes a handler that answers requests with the truth as change has changed it.
func (l *liar) tell(change func(*answer)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		req, err := timestamp.ParseRequest(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a := l.truth(req)
		change(a)
		w.Header().Set("Content-Type", a.mediaType)
		w.WriteHeader(a.httpStatus)
		_, _ = w.Write(a.marshal())
	})
}

func (l *liar) truth(req *timestamp.Request) *answer {
	sum := sha256.Sum256(l.cert.Raw)
	return &answer{
		token: token{
			key: l.key, signer: l.cert, certs: []*x509.Certificate{l.cert},
			imprintOID: oidSHA256, imprint: bytes.Clone(req.HashedMessage), policy: signing.LocalPolicy(), serial: number(),
			genTime: genTime(l.kit.now()), accuracy: 1, nonce: new(big.Int).Set(req.Nonce),
			version: 3, contentType: oidTSTInfo, signedType: oidTSTInfo, hash: crypto.SHA256, ess: sum[:], signers: 1,
		},
		mediaType: "application/timestamp-reply", httpStatus: http.StatusOK,
	}
}

func genTime(at time.Time) string { return at.UTC().Format("20060102150405Z") }

func (a *answer) marshal() []byte {
	if a.body != nil {
		return a.body
	}
	der := a.token.marshal()
	if a.mangle != nil {
		der = a.mangle(der)
	}
	if a.hideToken {
		der = nil
	}
	return build(seq(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(a.status)) })
		b.AddBytes(der)
	}))
}

func (l *liar) aboutTSTInfo() []lie {
	return []lie{
		{"wrong imprint", "it stamps", func(a *answer) { a.imprint[0] ^= 1 }},
		{"other hash", "digest of algorithm", func(a *answer) { a.imprintOID, a.imprint = oidSHA512, append(a.imprint, a.imprint...) }},
		{"other hash, same length", "imprint of 32 bytes", func(a *answer) { a.imprintOID = oidSHA512 }},
		{"SHA-1 imprint", "not acceptable", func(a *answer) { a.imprintOID, a.imprint = oidSHA1, a.imprint[:20] }},
		{"wrong nonce", "nonce", func(a *answer) { a.nonce.Add(a.nonce, big.NewInt(1)) }},
		{"negative nonce", "nonce", func(a *answer) { a.nonce.Neg(a.nonce) }},
		{"no nonce", "nonce", func(a *answer) { a.nonce = nil }},
		{"other policy", "policy", func(a *answer) { a.policy = unknownOID }},
		{"time in the past", "is not between", func(a *answer) { a.genTime = genTime(l.kit.now().Add(-5 * time.Minute)) }},
		{"time in the future", "is not between", func(a *answer) { a.genTime = genTime(l.kit.now().Add(5 * time.Minute)) }},
		{"local time", "genTime", func(a *answer) { a.genTime = a.genTime[:14] + "+0000" }},
		{"fraction not DER", "genTime", func(a *answer) { a.genTime = a.genTime[:14] + ".10Z" }},
		{"accuracy huge", "accuracy of 1h", func(a *answer) { a.accuracy = 3600 }},
		{"accuracy absurd", "accuracy", func(a *answer) { a.accuracy = 1 << 40 }},
		{"accuracy negative", "accuracy", func(a *answer) { a.accuracy = -1 }},
		{"serial too long", "serial number", func(a *answer) { a.serial.Lsh(a.serial, 1000) }},
		{"critical extension", "critical extension", func(a *answer) {
			a.extensions = build(seq(func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(unknownOID)
				b.AddASN1Boolean(true)
				b.AddASN1OctetString([]byte{5, 0})
			}))
		}},
		{"replay of yesterday's token", "another request", func(a *answer) {
			a.genTime, a.nonce = genTime(l.kit.now().AddDate(0, 0, -1)), number()
		}},
	}
}

func (l *liar) aboutSignedData() []lie {
	return []lie{
		{"other content type", "not id-ct-TSTInfo", func(a *answer) { a.contentType, a.signedType = oidData, oidData }},
		{"other content type in attribute", "content-type is another", func(a *answer) { a.signedType = oidData }},
		{"version 1", "version 1", func(a *answer) { a.version = 1 }},
		{"two signers", "more than one signer", func(a *answer) { a.signers = 2 }},
		{"no signer", "no signer", func(a *answer) { a.signers = 0 }},
		{"no signed attributes", "without signed attributes", func(a *answer) { a.noAttrs = true }},
		{"two message digests", "there twice", func(a *answer) { a.twoDigests = true }},
		{"wrong message digest", "not what was signed", func(a *answer) { a.badDigest = true }},
		{"attributes not sorted", "DER order", func(a *answer) { a.unsorted = true }},
		{"ESSCertID of another cert", "names another certificate", func(a *answer) { sum := sha256.Sum256(l.another.Raw); a.ess = sum[:] }},
		{"no ESSCertID", "signing-certificate-v2 is missing", func(a *answer) { a.ess = nil }},
		{"SHA-1 signature", "digest algorithm", func(a *answer) { a.hash = crypto.SHA1 }},
		{"unsigned attributes", "nobody signed", func(a *answer) { a.unsignedToo = true }},
		{"revocation lists", "nobody signed", func(a *answer) { a.crls = true }},
		{"signature of another key", "signature is wrong", func(a *answer) { a.key = l.stranger }},
		{"BER stream", "indefinite length", func(a *answer) {
			a.mangle = func(der []byte) []byte {
				return append(append([]byte{0x30, 0x80}, der[4:]...), 0, 0)
			}
		}},
		{"trailing bytes in the token", "no token", func(a *answer) {
			a.mangle = func(der []byte) []byte { return append(der, 5, 0) }
		}},
		{"token cut off", "out of bounds", func(a *answer) {
			a.mangle = func(der []byte) []byte { return der[:len(der)-8] }
		}},
	}
}

func (l *liar) aboutCertificates(t testing.TB) []lie {
	t.Helper()
	k := l.kit
	with := func(change func(*x509.Certificate)) func(*answer) {
		return l.signedBy(l.key, l.issue(t, l.key, k.TSACA, k.tsaKey, change))
	}
	strangerKey := newKey(t, ECDSA, 0)
	stranger := l.issue(t, strangerKey, nil, strangerKey, func(c *x509.Certificate) {
		c.RawSubject, c.IsCA, c.ExtraExtensions = k.TSACA.RawSubject, true, nil
	})
	lies := []lie{
		{"no certs", "not inside", func(a *answer) { a.certs = nil }},
		{"only another cert", "not inside", func(a *answer) { a.certs = []*x509.Certificate{l.another} }},
		{"extra certs", "not trusted", func(a *answer) { a.certs = append(a.certs, stranger) }},
		{"cert twice", "there twice", func(a *answer) { a.certs = append(a.certs, l.cert) }},
		{"CA as signer", "certification authority", with(func(c *x509.Certificate) { c.IsCA = true })},
		{"key usage certSign", "key usage", with(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })},
		{"no EKU", "no extended key usage", with(func(c *x509.Certificate) { c.ExtraExtensions = nil })},
		{"EKU of something else", "not timeStamping alone", with(func(c *x509.Certificate) { c.ExtraExtensions[0] = usage(t, true, codeSigning) })},
		{"two EKUs", "not timeStamping alone", with(func(c *x509.Certificate) { c.ExtraExtensions[0] = usage(t, true, timeStamping, codeSigning) })},
		{"unknown EKU besides", "not timeStamping alone", with(func(c *x509.Certificate) { c.ExtraExtensions[0] = usage(t, true, timeStamping, unknownOID) })},
		{"non-critical EKU", "not critical", with(func(c *x509.Certificate) { c.ExtraExtensions[0] = usage(t, false, timeStamping) })},
		{"expired", "expired", with(func(c *x509.Certificate) { c.NotAfter = k.now().Add(-time.Hour) })},
		{"not yet valid", "not yet valid", with(func(c *x509.Certificate) { c.NotBefore = k.now().Add(time.Hour) })},
		{"critical unknown extension", "unhandled critical", with(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: unknownOID, Critical: true, Value: []byte{5, 0}})
		})},
		{"another CA of the same name", "not trusted", l.signedBy(l.key, l.issue(t, l.key, stranger, strangerKey, func(*x509.Certificate) {}))},
	}
	weak := newKey(t, RSA, 1024)
	weakCert := l.issue(t, weak, k.TSACA, k.tsaKey, func(*x509.Certificate) {})
	odd, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	check(t, err)
	oddCert := l.issue(t, odd, k.TSACA, k.tsaKey, func(*x509.Certificate) {})
	return append(lies,
		lie{"weak RSA key", "1024 bits", l.signedBy(weak, weakCert)},
		lie{"curve P-224", "P-224", l.signedBy(odd, oddCert)})
}

// signedBy makes an answer signed with another key and certificate.
func (l *liar) signedBy(key crypto.Signer, cert *x509.Certificate) func(*answer) {
	return func(a *answer) {
		sum := sha256.Sum256(cert.Raw)
		a.key, a.signer, a.certs, a.ess = key, cert, []*x509.Certificate{cert}, sum[:]
	}
}

func (l *liar) aboutTransport() []lie {
	return []lie{
		{"grantedWithMods", "status 1", func(a *answer) { a.status = 1 }},
		{"rejection with token", "status 2", func(a *answer) { a.status = 2 }},
		{"status 0 without token", "no token", func(a *answer) { a.hideToken = true }},
		{"error text as token", "answer", func(a *answer) { a.body = []byte("<html><body>Service unavailable</body></html>") }},
		{"empty answer", "cut off", func(a *answer) { a.body = []byte{} }},
		{"wrong media type", "content type", func(a *answer) { a.mediaType = "text/html" }},
		{"HTTP 500", "status 500", func(a *answer) { a.httpStatus = http.StatusInternalServerError }},
		{"HTTP 302", "status 302", func(a *answer) { a.httpStatus = http.StatusFound }},
		{"bomb of 30 80", "indefinite length", func(a *answer) { a.body = bytes.Repeat([]byte{0x30, 0x80}, 100_000) }},
		{"endless answer", "longer than", func(a *answer) { a.body = bytes.Repeat([]byte{0}, 32<<20) }},
		{"trailing bytes", "behind the end", func(a *answer) { a.body = append(a.marshal(), 0) }},
	}
}
