package samples

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/digitorus/pkcs7"
)

// throwaway signs without randomness (RFC 6979), so that envelopes can be made again byte for byte.
type throwaway struct{ *ecdsa.PrivateKey }

func (k throwaway) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.PrivateKey.Sign(nil, digest, opts)
}

// key derives a P-256 key from the desk's seed. Whoever knows the seed has it: it signs samples only.
func (d *desk) key(name string) throwaway {
	secret := sha256.Sum256(fmt.Appendf(nil, "perenne samples %d %s %s", d.seed, d.body.code, name))
	return throwaway{must(ecdsa.ParseRawPrivateKey(elliptic.P256(), secret[:]))}
}

// authority gives the self-signed certificate of the certification authority of the samples.
func (d *desk) authority() *x509.Certificate {
	key := d.key("authority")
	return certify(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA di prova (senza valore)", Organization: []string{"Ente di fantasia"}, Country: []string{"IT"}},
		NotBefore: d.day.AddDate(-3, 0, 0), NotAfter: d.day.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, key, key)
}

// certify issues a certificate for key; a nil issuer means that it is its own.
func certify(c, issuer *x509.Certificate, key, issuerKey throwaway) *x509.Certificate {
	if issuer == nil {
		issuer = c
	}
	der := must(x509.CreateCertificate(nil, c, issuer, key.Public(), issuerKey))
	return must(x509.ParseCertificate(der))
}

// The attribute of RFC 5035 that makes a CMS signature a CAdES-B-B one (EN 319 122-1 §5.2.2.3). The hash
// algorithm is left out, since SHA-256 is its default.
var signingCertificateV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}

type signingCertificates struct{ Certs []certificateID }

type certificateID struct{ Hash []byte }

// envelope puts content into a .p7m: CMS signed data with the content inside, one signer, its chain, and
// the signed attributes of CAdES-B-B, signed at the time given.
func (d *desk) envelope(content []byte, at time.Time) []byte {
	ca, key := d.authority(), d.key("signer")
	signer := certify(&x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "Firmatario di prova", Organization: []string{d.body.name}, Country: []string{"IT"}},
		NotBefore:    d.day.AddDate(-1, 0, 0), NotAfter: d.day.AddDate(2, 0, 0),
		KeyUsage: x509.KeyUsageContentCommitment, BasicConstraintsValid: true,
	}, ca, key, d.key("authority"))
	sd := must(pkcs7.NewSignedData(content))
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	hash := sha256.Sum256(signer.Raw)
	must(0, sd.AddSignerChain(signer, key, []*x509.Certificate{ca}, pkcs7.SignerInfoConfig{
		ExtraSignedAttributes: []pkcs7.Attribute{{Type: signingCertificateV2, Value: signingCertificates{[]certificateID{{hash[:]}}}}},
	}))
	// The library has put the clock's time among the signed attributes: put the sample's and sign again.
	info := &sd.GetSignedData().SignerInfos[0]
	for i, a := range info.AuthenticatedAttributes {
		if a.Type.Equal(pkcs7.OIDAttributeSigningTime) {
			info.AuthenticatedAttributes[i].Value.Bytes = must(asn1.Marshal(at.UTC()))
		}
	}
	digest := sha256.Sum256(must(asn1.MarshalWithParams(info.AuthenticatedAttributes, "set")))
	info.EncryptedDigest = must(key.Sign(nil, digest[:], crypto.SHA256))
	return must(sd.Finish())
}
