package signing

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"
)

// Signature is what a signature of ours says.
type Signature struct {
	Signer *x509.Certificate
	// SigningTime is what the signer claims, in whole seconds. It proves nothing.
	SigningTime time.Time
	// Qualified is what the signer's certificate claims; see [Signer].
	Qualified bool
}

// CheckSignature accepts a detached CMS over content if it is, byte for byte, the form of the package comment,
// its signature holds, and its certificates lead to a seal anchor at the time at, which should be the best
// proven time of the signature, not the one it claims. The errors are ErrInvalid, ErrUntrusted and ErrNoTrust,
// in this order of precedence.
func (t *Trust) CheckSignature(content, cms []byte, at time.Time) (Signature, error) {
	s, chain, err := openSignature(content, cms)
	if err != nil {
		return Signature{}, fmt.Errorf("signature: %w", err)
	}
	if err := t.sealAnchors().check(chain, x509.ExtKeyUsageAny, at); err != nil {
		return Signature{}, fmt.Errorf("signature: %w", err)
	}
	return s, nil
}

// openSignature checks all but trust.
func openSignature(content, cms []byte) (Signature, []*x509.Certificate, error) {
	if isAttributes(content) {
		return Signature{}, nil, invalid("%w", errAttributes)
	}
	sd, err := parseSignedData(cms)
	if err != nil {
		return Signature{}, nil, err
	}
	signer, err := sd.verify(content)
	if err != nil {
		return Signature{}, nil, err
	}
	if err := checkSealCertificate(signer); err != nil {
		return Signature{}, nil, invalid("%w", err)
	}
	if err := checkOrder(sd.certs, signer); err != nil {
		return Signature{}, nil, err
	}
	value, err := sd.signer.attribute(oidSigningTime, "signing-time")
	if err != nil {
		return Signature{}, nil, err
	}
	at, err := parseTime(value)
	if err != nil {
		return Signature{}, nil, invalid("signing-time: %w", err)
	}
	if err := checkForm(cms, content, sd, at); err != nil {
		return Signature{}, nil, err
	}
	return Signature{Signer: signer, SigningTime: at, Qualified: qualifiedSigner(signer)}, sd.certs, nil
}

// checkOrder wants the signer first, each certificate issued by the next, and no root.
func checkOrder(certs []*x509.Certificate, signer *x509.Certificate) error {
	if !certs[0].Equal(signer) {
		return invalid("the signer's certificate is not the first")
	}
	for i, c := range certs {
		if selfSigned(c) {
			return invalid("certificate %d is a root", i+1)
		}
		if err := checkKey(c.PublicKey); err != nil {
			return invalid("certificate %d: %w", i+1, err)
		}
		if i > 0 && !issued(c, certs[i-1]) {
			return invalid("certificate %d did not issue the one before", i+1)
		}
	}
	return nil
}

// checkForm writes the message anew from what may vary and compares.
func checkForm(cms, content []byte, sd *signedData, at time.Time) error {
	attrs, err := signedAttributes(oidData, sha256.Sum256(content), at, sd.certs[0])
	if err != nil {
		return invalid("%w", err)
	}
	if pub, ok := sd.certs[0].PublicKey.(*ecdsa.PublicKey); ok {
		low, err := lowS(pub, sd.signer.value)
		if err != nil || !bytes.Equal(low, sd.signer.value) {
			return invalid("the ECDSA signature is not the one with the smaller s")
		}
	}
	f := form{version: 1, contentType: oidData, certs: sd.certs, signer: sd.certs[0], attrs: attrs, signature: sd.signer.value}
	again, err := f.marshal()
	if err != nil {
		return invalid("%w", err)
	}
	if !bytes.Equal(again, cms) {
		n := min(len(again), len(cms))
		i := 0
		for i < n && again[i] == cms[i] {
			i++
		}
		return invalid("not the form of our signatures: differs at byte %d", i)
	}
	return nil
}
