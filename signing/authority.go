package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"
)

// Life of what a local authority issues, in years, and the longest name in a certificate (RFC 5280, ub-common-name).
const (
	caYears   = 30
	leafYears = 10
	maxName   = 64
)

const notQualified = " (non qualificato)"

// CAKind says what the certificates of an authority are for. Seals and timestamps have authorities of their own,
// so that neither key can do the other's work.
type CAKind int

const (
	SealCA CAKind = iota // signers of packages and papers
	TSACA                // timestamping units
)

func (k CAKind) String() string {
	switch k {
	case SealCA:
		return "CA dei sigilli"
	case TSACA:
		return "CA delle marche temporali"
	}
	return fmt.Sprintf("CAKind(%d)", int(k))
}

// Authority is a local certification authority: one self-signed certificate that issues signers' certificates and
// no authorities. Nothing of it is qualified, and every name says so.
type Authority struct {
	kind CAKind
	key  crypto.Signer
	cert *x509.Certificate
	rand io.Reader
}

// NewLocalCA makes a new authority with a P-256 key, valid for 30 years from the second of from. The name is the
// installation's; one longer than fits in a certificate is cut. Serial numbers are read from random; nil means
// crypto/rand. Keys always come from crypto/rand.
func NewLocalCA(name string, kind CAKind, from time.Time, random io.Reader) (*Authority, error) {
	if kind != SealCA && kind != TSACA {
		return nil, fmt.Errorf("local authority: unknown kind %d", int(kind))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("local authority: %w", err)
	}
	a := &Authority{kind: kind, key: key, rand: orSystem(random)}
	subject, err := subject(name, kind.String())
	if err != nil {
		return nil, fmt.Errorf("local authority: %w", err)
	}
	template := &x509.Certificate{
		Subject:               subject,
		NotBefore:             from.UTC().Truncate(time.Second),
		NotAfter:              from.UTC().Truncate(time.Second).AddDate(caYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	if a.cert, err = a.sign(template, template, key.Public()); err != nil {
		return nil, fmt.Errorf("local authority: %w", err)
	}
	return a, nil
}

// OpenLocalCA takes up an authority made before, with its key and certificate.
func OpenLocalCA(kind CAKind, key crypto.Signer, cert *x509.Certificate, random io.Reader) (*Authority, error) {
	if !cert.IsCA || !samePublicKey(key.Public(), cert.PublicKey) {
		return nil, errors.New("local authority: key and certificate are not those of one authority")
	}
	return &Authority{kind: kind, key: key, cert: cert, rand: orSystem(random)}, nil
}

// Certificate is the authority's own, the anchor of all that it issues.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Key is the authority's own. It belongs on paper or on another machine, not in a daemon.
func (a *Authority) Key() crypto.Signer { return a.key }

// Issue makes a P-256 key and its certificate, valid for 10 years from the second of at, but never longer than the
// authority. A seal's has the key usages digitalSignature and contentCommitment; a timestamping unit's
// has digitalSignature and the extended key usage timeStamping, critical and alone.
func (a *Authority) Issue(name string, at time.Time) (crypto.Signer, *x509.Certificate, error) {
	at = at.UTC().Truncate(time.Second)
	if err := ValidAt([]*x509.Certificate{a.cert}, at); err != nil {
		return nil, nil, fmt.Errorf("issue %q: %w", name, err)
	}
	organization := name
	if o := a.cert.Subject.Organization; len(o) > 0 {
		organization = o[0]
	}
	subject, err := subject(organization, name)
	if err != nil {
		return nil, nil, fmt.Errorf("issue: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("issue %q: %w", name, err)
	}
	template := &x509.Certificate{
		Subject:               subject,
		NotBefore:             at,
		NotAfter:              at.AddDate(leafYears, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	if a.kind == TSACA {
		usage, err := asn1.Marshal([]asn1.ObjectIdentifier{oidTimeStamping})
		if err != nil {
			return nil, nil, fmt.Errorf("issue %q: %w", name, err)
		}
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtraExtensions = []pkix.Extension{{Id: oidExtKeyUsage, Critical: true, Value: usage}}
	}
	cert, err := a.sign(template, a.cert, key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("issue %q: %w", name, err)
	}
	if selfSigned(cert) {
		return nil, nil, fmt.Errorf("issue %q: that is the authority's own name", name)
	}
	return key, cert, nil
}

// sign completes a template with serial number and key identifier and signs it.
func (a *Authority) sign(template, parent *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(a.rand, serial); err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, never zero, always of one length
	template.SerialNumber = new(big.Int).SetBytes(serial)
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	template.SubjectKeyId = id[:20] // RFC 7093 section 2, method 1, over the whole key information
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// subject makes the name in a certificate; its common name says that nothing is qualified.
func subject(organization, common string) (pkix.Name, error) {
	if strings.TrimSpace(organization) == "" || strings.TrimSpace(common) == "" {
		return pkix.Name{}, errors.New("the name is empty")
	}
	return pkix.Name{
		Organization: []string{fit(organization, "")},
		CommonName:   fit(common, notQualified),
	}, nil
}

// fit cuts a name so that it fits into a certificate with its suffix.
func fit(name, suffix string) string {
	runes := []rune(name)
	if room := maxName - len(suffix); len(runes) > room {
		return string(runes[:room-1]) + "…" + suffix
	}
	return name + suffix
}

func orSystem(random io.Reader) io.Reader {
	if random == nil {
		return rand.Reader
	}
	return random
}
