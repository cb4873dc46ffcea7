package signing

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidExtKeyUsage  = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTimeStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	oidQCStatements = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 3}
	// EN 319 412-5: a qualified certificate; its key in a qualified device. EN 319 422: a qualified timestamp.
	oidQCCompliance = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 1}
	oidQCSSCD       = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 4}
	oidQCTimestamp  = asn1.ObjectIdentifier{0, 4, 0, 19422, 1, 1}
)

// signingUsage is what a signer's key may be used for. Whatever else stands in a key usage extension is
// refused for a TSA and tolerated beside these for a seal.
const signingUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment

// chainOf puts a key's certificates in order: its own, its issuer's, and so on, without the root.
func chainOf(key crypto.Signer, certs []*x509.Certificate) ([]*x509.Certificate, error) {
	if key == nil || len(certs) == 0 {
		return nil, errors.New("a key and its certificate are needed")
	}
	if err := checkKey(key.Public()); err != nil {
		return nil, err
	}
	leaf := certs[0]
	if !samePublicKey(key.Public(), leaf.PublicKey) {
		return nil, fmt.Errorf("the key is not that of the certificate of %q", leaf.Subject)
	}
	if selfSigned(leaf) {
		return nil, fmt.Errorf("the certificate of %q is self-signed: there is no root to trust besides it", leaf.Subject)
	}
	chain := []*x509.Certificate{leaf}
	for last := leaf; ; last = chain[len(chain)-1] {
		i := slices.IndexFunc(certs, func(c *x509.Certificate) bool {
			return !selfSigned(c) && !slices.ContainsFunc(chain, c.Equal) && issued(c, last)
		})
		if i < 0 {
			return chain, nil
		}
		if len(chain) == maxCertificates {
			return nil, fmt.Errorf("more than %d certificates in the chain", maxCertificates)
		}
		chain = append(chain, certs[i])
	}
}

func issued(parent, child *x509.Certificate) bool {
	return bytes.Equal(parent.RawSubject, child.RawIssuer) && child.CheckSignatureFrom(parent) == nil
}

func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// ValidAt returns an error that names the first certificate not valid at that time.
func ValidAt(chain []*x509.Certificate, at time.Time) error {
	for _, c := range chain {
		if at.Before(c.NotBefore) {
			return fmt.Errorf("certificate of %q is valid only from %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
		}
		if at.After(c.NotAfter) {
			return fmt.Errorf("certificate of %q expired on %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// checkSealCertificate tells whether a certificate may sign packages and papers.
func checkSealCertificate(c *x509.Certificate) error {
	if c.IsCA {
		return errors.New("the signer is a certification authority")
	}
	if c.KeyUsage != 0 && c.KeyUsage&signingUsage == 0 {
		return errors.New("the signer's key usage does not include signing")
	}
	if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageTimeStamping) {
		return errors.New("the signer's certificate is a timestamping authority's")
	}
	return nil
}

// checkTSACertificate holds a certificate to RFC 3161 section 2.3 and EN 319 422.
func checkTSACertificate(c *x509.Certificate) error {
	if c.IsCA {
		return errors.New("the signer is a certification authority")
	}
	if c.KeyUsage&^signingUsage != 0 {
		return errors.New("the signer's key usage is more than signing")
	}
	i := slices.IndexFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidExtKeyUsage) })
	if i < 0 {
		return errors.New("the signer has no extended key usage")
	}
	if !c.Extensions[i].Critical {
		return errors.New("the signer's extended key usage is not critical")
	}
	if len(c.UnknownExtKeyUsage) > 0 || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageTimeStamping {
		return errors.New("the signer's extended key usage is not timeStamping alone")
	}
	return nil
}

// qualifiedSigner tells what a certificate claims of itself; whether the claim is true, trusted lists say.
func qualifiedSigner(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(oidQCStatements) {
			return hasStatement(e.Value, oidQCCompliance) && hasStatement(e.Value, oidQCSSCD)
		}
	}
	return false
}

// hasStatement looks for a statement in the value of a qcStatements extension (RFC 3739 section 3.2.6).
func hasStatement(value []byte, want asn1.ObjectIdentifier) bool {
	in := cryptobyte.String(value)
	var statements cryptobyte.String
	if !in.ReadASN1(&statements, cbasn1.SEQUENCE) || !in.Empty() {
		return false
	}
	found := false
	for !statements.Empty() {
		var statement cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !statements.ReadASN1(&statement, cbasn1.SEQUENCE) || !statement.ReadASN1ObjectIdentifier(&oid) {
			return false
		}
		found = found || oid.Equal(want)
	}
	return found
}
