package signingtest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // for the lie that signs with it
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidESS           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidSHA1          = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA512        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidECDSASHA1     = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	oidECDSASHA256   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}

	explicit0 = cbasn1.Tag(0).ContextSpecific().Constructed()
	explicit1 = cbasn1.Tag(1).ContextSpecific().Constructed()
)

// token is everything a token says, each part free to be wrong. The encoder is this package's own, so that it
// shares no mistake with the one it tests.
type token struct {
	key    crypto.Signer
	signer *x509.Certificate
	certs  []*x509.Certificate // inside

	// TSTInfo
	imprintOID asn1.ObjectIdentifier
	imprint    []byte
	policy     asn1.ObjectIdentifier
	serial     *big.Int
	genTime    string
	accuracy   int64 // seconds; 0 leaves it out
	nonce      *big.Int
	extensions []byte // elements inside [1]

	// SignedData
	version     int64
	contentType asn1.ObjectIdentifier
	signedType  asn1.ObjectIdentifier // in the attribute
	hash        crypto.Hash
	ess         []byte // hash of the certificate; nil leaves the attribute out
	badDigest   bool
	twoDigests  bool
	unsorted    bool
	noAttrs     bool
	signers     int
	unsignedToo bool
	crls        bool
}

func seq(add func(*cryptobyte.Builder)) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, add) }
}

func build(add func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	add(&b)
	return b.BytesOrPanic()
}

func algorithm(oid asn1.ObjectIdentifier) func(*cryptobyte.Builder) {
	return seq(func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) })
}

func (t *token) digestOID() asn1.ObjectIdentifier {
	if t.hash == crypto.SHA1 {
		return oidSHA1
	}
	return oidSHA256
}

func (t *token) signatureOID() asn1.ObjectIdentifier {
	if _, ok := t.key.Public().(*rsa.PublicKey); ok {
		return oidRSA
	}
	if t.hash == crypto.SHA1 {
		return oidECDSASHA1
	}
	return oidECDSASHA256
}

func (t *token) info() []byte {
	return build(seq(func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1ObjectIdentifier(t.policy)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			algorithm(t.imprintOID)(b)
			b.AddASN1OctetString(t.imprint)
		})
		b.AddASN1BigInt(t.serial)
		b.AddASN1(cbasn1.GeneralizedTime, func(b *cryptobyte.Builder) { b.AddBytes([]byte(t.genTime)) })
		if t.accuracy != 0 {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(t.accuracy) })
		}
		if t.nonce != nil {
			b.AddASN1BigInt(t.nonce)
		}
		if t.extensions != nil {
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { b.AddBytes(t.extensions) })
		}
	}))
}

func attribute(oid asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) []byte {
	return build(seq(func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(cbasn1.SET, value)
	}))
}

func octets(v []byte) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) { b.AddASN1OctetString(v) }
}

func (t *token) sum(data []byte) []byte {
	h := t.hash.New()
	h.Write(data)
	return h.Sum(nil)
}

func (t *token) attributes(info []byte) []byte {
	digest := t.sum(info)
	if t.badDigest {
		digest[0] ^= 1
	}
	attrs := [][]byte{
		attribute(oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(t.signedType) }),
		attribute(oidMessageDigest, octets(digest)),
	}
	if t.twoDigests {
		other := slices.Clone(digest)
		other[0] ^= 1
		attrs = append(attrs, attribute(oidMessageDigest, octets(other)))
	}
	if t.ess != nil {
		attrs = append(attrs, attribute(oidESS, seq(seq(seq(octets(t.ess))))))
	}
	slices.SortFunc(attrs, bytes.Compare)
	if t.unsorted {
		slices.Reverse(attrs)
	}
	return bytes.Join(attrs, nil)
}

// marshal returns the ContentInfo of the token.
func (t *token) marshal() []byte {
	info := t.info()
	attrs := t.attributes(info)
	message := build(func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(attrs) }) })
	if t.noAttrs {
		message = info
	}
	signature, err := t.key.Sign(rand.Reader, t.sum(message), t.hash)
	if err != nil {
		panic(err) // a key made by this package
	}
	return build(seq(func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(explicit0, seq(func(b *cryptobyte.Builder) {
			b.AddASN1Int64(t.version)
			b.AddASN1(cbasn1.SET, algorithm(t.digestOID()))
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(t.contentType)
				b.AddASN1(explicit0, octets(info))
			})
			t.addCertificates(b)
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				for range t.signers {
					t.addSigner(b, attrs, signature)
				}
			})
		}))
	}))
}

func (t *token) addCertificates(b *cryptobyte.Builder) {
	if len(t.certs) > 0 {
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
			for _, c := range t.certs {
				b.AddBytes(c.Raw)
			}
		})
	}
	if t.crls {
		b.AddASN1(explicit1, seq(func(*cryptobyte.Builder) {}))
	}
}

func (t *token) addSigner(b *cryptobyte.Builder, attrs, signature []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(t.signer.RawIssuer)
			b.AddASN1BigInt(t.signer.SerialNumber)
		})
		algorithm(t.digestOID())(b)
		if !t.noAttrs {
			b.AddASN1(explicit0, func(b *cryptobyte.Builder) { b.AddBytes(attrs) })
		}
		algorithm(t.signatureOID())(b)
		b.AddASN1OctetString(signature)
		if t.unsignedToo {
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { b.AddBytes(attribute(oidData, octets([]byte("nobody signed this")))) })
		}
	})
}
