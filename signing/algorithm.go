package signing

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha512" // for digestAlgorithms
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of the RSA keys accepted, in bits. The upper one bounds the work a stranger's key can cause.
const (
	minRSA = 2048
	maxRSA = 8192
)

var (
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}

	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidMGF1          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidRSAPSS        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidRSASHA256     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidRSASHA384     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}
	oidRSASHA512     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}
	oidECDSASHA256   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSASHA384   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidECDSASHA512   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}
	derNull          = []byte{tagNull, 0}
	digestAlgorithms = []digestAlgorithm{
		{crypto.SHA256, oidSHA256, oidRSASHA256, oidECDSASHA256},
		{crypto.SHA384, oidSHA384, oidRSASHA384, oidECDSASHA384},
		{crypto.SHA512, oidSHA512, oidRSASHA512, oidECDSASHA512},
	}
)

// digestAlgorithm is a digest accepted, with the signature algorithms that use it.
type digestAlgorithm struct {
	hash            crypto.Hash
	oid, rsa, ecdsa asn1.ObjectIdentifier
}

func (d digestAlgorithm) sum(data []byte) []byte {
	h := d.hash.New()
	h.Write(data)
	return h.Sum(nil)
}

// algorithm is an AlgorithmIdentifier. Params is the DER of the parameters, nil when absent.
type algorithm struct {
	oid    asn1.ObjectIdentifier
	params []byte
}

func (a algorithm) plain() bool { return a.params == nil || bytes.Equal(a.params, derNull) }

func readAlgorithm(s *cryptobyte.String, out *algorithm) bool {
	var inner, params cryptobyte.String
	var tag cbasn1.Tag
	if !s.ReadASN1(&inner, cbasn1.SEQUENCE) || !inner.ReadASN1ObjectIdentifier(&out.oid) {
		return false
	}
	if inner.Empty() {
		out.params = nil
		return true
	}
	if !inner.ReadAnyASN1Element(&params, &tag) || !inner.Empty() {
		return false
	}
	out.params = params
	return true
}

func addAlgorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, params []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddBytes(params)
	})
}

// digest finds the digest algorithm that a names. SHA-1, MD5 and unknown ones are ErrInvalid.
func (a algorithm) digest() (digestAlgorithm, error) {
	for _, d := range digestAlgorithms {
		if a.oid.Equal(d.oid) && a.plain() {
			return d, nil
		}
	}
	return digestAlgorithm{}, invalid("digest algorithm %v is not acceptable", a.oid)
}

// checkKey tells whether a public key is strong and sane enough to be used.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("RSA key of %d bits, not %d to %d", n, minRSA, maxRSA)
		}
		if k.E < 3 || k.E%2 == 0 || k.E > math.MaxInt32 {
			return fmt.Errorf("RSA exponent %d", k.E)
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("curve %s", k.Curve.Params().Name)
	}
	if pub == nil {
		return errors.New("key of an algorithm that crypto/x509 does not know, such as id-RSASSA-PSS")
	}
	return fmt.Errorf("key of type %T, neither RSA nor ECDSA", pub)
}

// checkSignatureValue verifies value over message with the certificate's key, by the algorithm alg names, which
// must go with the key and with digest d.
func checkSignatureValue(cert *x509.Certificate, alg algorithm, d digestAlgorithm, message, value []byte) error {
	if err := checkKey(cert.PublicKey); err != nil {
		return invalid("signer's %w", err)
	}
	sum := d.sum(message)
	switch k := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return checkRSA(k, alg, d, sum, value)
	case *ecdsa.PublicKey:
		if !alg.oid.Equal(d.ecdsa) || alg.params != nil {
			return invalid("signature algorithm %v does not go with the key and digest", alg.oid)
		}
		if !ecdsa.VerifyASN1(k, sum, value) {
			return invalid("ECDSA signature is wrong")
		}
	}
	return nil
}

func checkRSA(key *rsa.PublicKey, alg algorithm, d digestAlgorithm, sum, value []byte) error {
	var err error
	switch {
	case (alg.oid.Equal(oidRSA) || alg.oid.Equal(d.rsa)) && alg.plain():
		err = rsa.VerifyPKCS1v15(key, d.hash, sum, value)
	case alg.oid.Equal(oidRSAPSS) && bytes.Equal(alg.params, pssParams(d)):
		err = rsa.VerifyPSS(key, d.hash, sum, value, &rsa.PSSOptions{SaltLength: d.hash.Size(), Hash: d.hash})
	default:
		return invalid("signature algorithm %v does not go with the key and digest", alg.oid)
	}
	if err != nil {
		return invalid("RSA signature is wrong")
	}
	return nil
}

// pssParams is the only form of RSASSA-PSS-params accepted (RFC 4055): digest, MGF1 with the same digest, a
// salt as long as the digest, parameters of the digests NULL.
func pssParams(d digestAlgorithm) []byte {
	var b cryptobyte.Builder
	context := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).Constructed().ContextSpecific() }
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(context(0), func(b *cryptobyte.Builder) { addAlgorithm(b, d.oid, derNull) })
		b.AddASN1(context(1), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidMGF1)
				addAlgorithm(b, d.oid, derNull)
			})
		})
		b.AddASN1(context(2), func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(d.hash.Size())) })
	})
	return b.BytesOrPanic()
}

// lowS returns an ECDSA signature with the smaller of the two values of s that verify. Without this rule anybody
// could turn a signature into another one as good.
func lowS(pub *ecdsa.PublicKey, value []byte) ([]byte, error) {
	in := cryptobyte.String(value)
	var pair cryptobyte.String
	r, s := new(big.Int), new(big.Int)
	if !in.ReadASN1(&pair, cbasn1.SEQUENCE) || !in.Empty() || !pair.ReadASN1Integer(r) || !pair.ReadASN1Integer(s) || !pair.Empty() {
		return nil, errors.New("ECDSA signature cannot be read")
	}
	n := pub.Params().N
	if new(big.Int).Lsh(s, 1).Cmp(n) > 0 {
		s.Sub(n, s)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	return b.Bytes()
}
