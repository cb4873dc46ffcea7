package signing

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/digitorus/pkcs7"
)

var errAttributes = errors.New("content is a set of attributes, which a signature would cover in two meanings")

type signer struct {
	key   crypto.Signer
	chain []*x509.Certificate
}

// NewSigner makes a Signer of a key and its certificates. The first certificate is the key's; of the others those
// that lead upwards from it are kept, in order, and the root is left out. Keys are RSA (2048 to 8192 bits) or
// ECDSA (P-256, P-384, P-521).
func NewSigner(key crypto.Signer, chain []*x509.Certificate) (Signer, error) {
	ordered, err := chainOf(key, chain)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	if err := checkSealCertificate(ordered[0]); err != nil {
		return nil, fmt.Errorf("signer %q: %w", ordered[0].Subject, err)
	}
	return &signer{key: key, chain: ordered}, nil
}

func (s *signer) Chain() []*x509.Certificate { return slices.Clone(s.chain) }

func (s *signer) Qualified() bool { return qualifiedSigner(s.chain[0]) }

func (s *signer) Sign(ctx context.Context, content []byte, at time.Time) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if isAttributes(content) {
		return nil, fmt.Errorf("sign: %w", errAttributes)
	}
	if err := ValidAt(s.chain, at); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	digest := sha256.Sum256(content)
	attrs, err := signedAttributes(oidData, digest, at, s.chain[0])
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	value, err := signAttributes(s.key, attrs)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	cms, err := s.message(content, at, value)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	// Another encoder wrote the message; a key or device that errs, or a difference in form, shows here.
	if _, _, err := openSignature(content, cms); err != nil {
		return nil, fmt.Errorf("sign: the signature just made: %w", err)
	}
	return cms, nil
}

// message lets digitorus/pkcs7 lay out the CMS. That library takes the signing time from the machine's clock, so
// it is given a key that does not sign, and time and signature are put in their places afterwards.
func (s *signer) message(content []byte, at time.Time, value []byte) ([]byte, error) {
	ess, err := signingCertificate(s.chain[0])
	if err != nil {
		return nil, err
	}
	stamp, err := marshalTime(at)
	if err != nil {
		return nil, err
	}
	sd, err := pkcs7.NewSignedData(content)
	if err != nil {
		return nil, err
	}
	sd.SetDigestAlgorithm(oidSHA256)
	err = sd.AddSignerChain(s.chain[0], unsigned{s.key.Public()}, s.chain[1:], pkcs7.SignerInfoConfig{
		ExtraSignedAttributes: []pkcs7.Attribute{{Type: oidSigningCertV2, Value: asn1.RawValue{FullBytes: ess}}},
	})
	if err != nil {
		return nil, err
	}
	info := &sd.GetSignedData().SignerInfos[0]
	for i, a := range info.AuthenticatedAttributes {
		if a.Type.Equal(oidSigningTime) {
			info.AuthenticatedAttributes[i].Value = asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: stamp}
		}
	}
	oid, params := signatureAlgorithm(s.key.Public())
	info.DigestEncryptionAlgorithm = pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: params}}
	info.EncryptedDigest = value
	sd.Detach()
	return sd.Finish()
}

// signAttributes signs the SET of signed attributes with SHA-256.
func signAttributes(key crypto.Signer, attrs []byte) ([]byte, error) {
	set, err := setOf(attrs)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(set)
	value, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if pub, ok := key.Public().(*ecdsa.PublicKey); ok && err == nil {
		return lowS(pub, value)
	}
	return value, err
}

// unsigned is a public key in the shape of a signer; its signatures are empty.
type unsigned struct{ public crypto.PublicKey }

func (u unsigned) Public() crypto.PublicKey { return u.public }

func (u unsigned) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, nil }
