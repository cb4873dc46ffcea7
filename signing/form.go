package signing

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	utcTime         = "060102150405Z"
	generalizedTime = "20060102150405Z"
)

var tagDirectoryName = cbasn1.Tag(4).ContextSpecific().Constructed()

// form is all that is not fixed in a CMS of ours: of a signature (version 1, id-data, detached) and of the
// local authority's tokens (version 3, id-ct-TSTInfo, with content).
type form struct {
	version     int64
	contentType asn1.ObjectIdentifier
	content     []byte // nil when detached
	certs       []*x509.Certificate
	signer      *x509.Certificate
	attrs       []byte // from signedAttributes
	signature   []byte
}

// marshal writes the ContentInfo.
func (f form) marshal() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(tagContext0, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, f.addSignedData) })
	})
	return b.Bytes()
}

func (f form) addSignedData(b *cryptobyte.Builder) {
	b.AddASN1Int64(f.version)
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, oidSHA256, nil) })
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(f.contentType)
		if f.content != nil {
			b.AddASN1(tagContext0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(f.content) })
		}
	})
	if len(f.certs) > 0 {
		b.AddASN1(tagContext0, func(b *cryptobyte.Builder) {
			for _, c := range f.certs {
				b.AddBytes(c.Raw)
			}
		})
	}
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, f.addSignerInfo) })
}

func (f form) addSignerInfo(b *cryptobyte.Builder) {
	b.AddASN1Int64(1)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(f.signer.RawIssuer)
		b.AddASN1BigInt(f.signer.SerialNumber)
	})
	addAlgorithm(b, oidSHA256, nil)
	b.AddASN1(tagContext0, func(b *cryptobyte.Builder) { b.AddBytes(f.attrs) })
	oid, params := signatureAlgorithm(f.signer.PublicKey)
	addAlgorithm(b, oid, params)
	b.AddASN1OctetString(f.signature)
}

// signatureAlgorithm is the one that we sign with, over SHA-256.
func signatureAlgorithm(pub crypto.PublicKey) (asn1.ObjectIdentifier, []byte) {
	if _, ok := pub.(*rsa.PublicKey); ok {
		return oidRSASHA256, derNull
	}
	return oidECDSASHA256, nil
}

// signedAttributes returns the sorted signed attributes of a CMS of ours, without the tag around them.
func signedAttributes(contentType asn1.ObjectIdentifier, digest [32]byte, at time.Time, signer *x509.Certificate) ([]byte, error) {
	stamp, err := marshalTime(at)
	if err != nil {
		return nil, err
	}
	ess, err := signingCertificate(signer)
	if err != nil {
		return nil, err
	}
	attrs := make([][]byte, 4)
	for i, a := range []struct {
		oid asn1.ObjectIdentifier
		add func(*cryptobyte.Builder)
	}{
		{oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(contentType) }},
		{oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) }},
		{oidSigningTime, func(b *cryptobyte.Builder) { b.AddBytes(stamp) }},
		{oidSigningCertV2, func(b *cryptobyte.Builder) { b.AddBytes(ess) }},
	} {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(a.oid)
			b.AddASN1(cbasn1.SET, a.add)
		})
		if attrs[i], err = b.Bytes(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(attrs, bytes.Compare)
	return bytes.Join(attrs, nil), nil
}

// signingCertificate is the value of signing-certificate-v2 (RFC 5035) for our own signatures.
func signingCertificate(signer *x509.Certificate) ([]byte, error) {
	hash := sha256.Sum256(signer.Raw)
	seq := func(add func(*cryptobyte.Builder)) func(*cryptobyte.Builder) {
		return func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, add) }
	}
	var b cryptobyte.Builder
	seq(seq(seq(func(b *cryptobyte.Builder) {
		b.AddASN1OctetString(hash[:])
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tagDirectoryName, func(b *cryptobyte.Builder) { b.AddBytes(signer.RawIssuer) })
			})
			b.AddASN1BigInt(signer.SerialNumber)
		})
	})))(&b)
	return b.Bytes()
}

// marshalTime writes a signing time as RFC 5652 section 11.3 wants it.
func marshalTime(at time.Time) ([]byte, error) {
	at = at.UTC()
	tag, layout := cbasn1.UTCTime, utcTime
	switch y := at.Year(); {
	case y < 1950 || y > 9999:
		return nil, fmt.Errorf("signing time in the year %d", y)
	case y >= 2050:
		tag, layout = cbasn1.GeneralizedTime, generalizedTime
	}
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(at.Format(layout))) })
	return b.Bytes()
}

// parseTime reads what marshalTime writes.
func parseTime(in cryptobyte.String) (time.Time, error) {
	var text cryptobyte.String
	switch {
	case in.PeekASN1Tag(cbasn1.UTCTime) && in.ReadASN1(&text, cbasn1.UTCTime):
		at, err := time.Parse(utcTime, string(text))
		if err == nil && at.Year() >= 2050 {
			at = at.AddDate(-100, 0, 0)
		}
		return at, err
	case in.PeekASN1Tag(cbasn1.GeneralizedTime) && in.ReadASN1(&text, cbasn1.GeneralizedTime):
		return time.Parse(generalizedTime, string(text))
	}
	return time.Time{}, errors.New("neither UTCTime nor GeneralizedTime")
}

// setOf puts the tag of a SET around signed attributes: what the signature covers.
func setOf(attrs []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(attrs) })
	return b.Bytes()
}
