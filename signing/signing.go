// Package signing makes and judges the two kinds of signature that Perenne rests on: the seal over a package
// or report (CMS, ETSI EN 319 122-1 CAdES-B-B, detached) and the timestamp token (RFC 3161). It knows keys,
// certificates and time; it knows nothing of archives.
//
// # What comes from outside
//
// Every byte string is scanned before anything else looks at it: one element and nothing behind it, DER
// only (definite, minimal lengths; minimal integers and object identifiers; one-byte tags), at most 32
// levels, 8,192 elements and 256 KiB. The scan does not recurse. Only then are the bytes parsed. The
// verdict is this package's own; no library's "verified" counts.
//
// # The signature of ours, byte by byte
//
// [Signer] writes, and [Trust.CheckSignature] accepts, exactly one form:
//
//	ContentInfo { signedData, [0] SignedData {
//	  version           1
//	  digestAlgorithms  { SHA-256, parameters absent }
//	  encapContentInfo  { id-data }                    content absent: detached
//	  certificates  [0] the signer's, then its issuer's, and so on; no root, nothing else
//	  signerInfos       { SignerInfo {
//	    version            1
//	    sid                issuer and serial number of the first certificate
//	    digestAlgorithm    SHA-256, parameters absent
//	    signedAttrs    [0] content-type id-data, message-digest, signing-time, signing-certificate-v2
//	    signatureAlgorithm sha256WithRSAEncryption with NULL, or ecdsa-with-SHA256 without parameters
//	    signature } } } }
//
// An ECDSA signature is the one of the two possible whose s is at most half the order of the curve: otherwise
// anybody could make another, as good, without the key. The signed attributes are sorted as DER wants a
// SET OF. Signing-time is UTCTime up to 2049 and GeneralizedTime after, whole seconds.
// Signing-certificate-v2 holds one ESSCertIDv2: the SHA-256 of the signer's certificate (so the algorithm
// is absent, as its default) and its issuer and serial. A reader takes out certificates, digest, time and
// signature, writes the form anew from them and compares: what the signature does not protect is fixed,
// so no bit can change unnoticed.
//
// RFC 5652 lets one signature stand for two messages: it covers the DER of the attributes when there are
// some, and the content itself when there are none. Content that is a SET OF Attribute is therefore
// neither signed nor accepted, and neither is a signature without attributes.
//
// # Tokens
//
// A stored token is accepted by [Trust.CheckToken] when all of this holds:
//
//   - DER; one SignedData version 3 with one SignerInfo; no CRLs, no unsigned attributes (nobody vouches
//     for them);
//   - content type id-ct-TSTInfo, outside and in the signed attribute; signed attributes present, sorted,
//     none twice, each required one with a single value; message digest equal;
//   - signing-certificate-v2 present, its first hash (SHA-256, -384 or -512) that of the signer's
//     certificate, issuer and serial equal when given;
//   - exactly one digest algorithm, SHA-256, -384 or -512, the same in all places; RSA PKCS #1 v1.5, RSASSA-PSS
//     with the same digest, its MGF1 and a salt as long, or ECDSA with the same digest;
//   - RSA moduli of 2048 to 8192 bits with an odd exponent from 3 to 2^31-1, or the curves P-256, P-384 and
//     P-521, for every certificate inside and for every one of the signer's chain;
//   - the signer is no CA, has the extended key usage timeStamping, critical and alone, and no key usage but
//     digitalSignature and contentCommitment;
//   - TSTInfo version 1, DER to the last byte, no unknown critical extension, accuracy at most 60 s; imprint
//     algorithm and value equal;
//   - the signer's chain, and that of every other certificate inside, leads to one of the anchors, valid
//     at genTime, without unknown critical extensions.
//
// A fresh one, from [Timestamper], has besides: status granted; content type application/timestamp-reply; the
// nonce sent; the policy asked for; genTime between 60 s before sending and 60 s after receiving, widened
// by the accuracy; a serial number not seen before from this signer in this process.
//
// Revocation is not looked up here: certificates, CRLs and OCSP answers are kept beside the evidence.
//
// # Keys
//
// A key and its chain come from a PEM or PKCS #12 file ([LoadKey]). An installation without a contract with a
// trust service provider makes its own authorities ([NewLocalCA]), whose names say that they are not qualified.
// [Responder] is the local timestamping authority.
package signing

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrInvalid means that the bytes do not verify. Whoever made them, they prove nothing.
	ErrInvalid = errors.New("does not verify")
	// ErrUntrusted means that the bytes verify, but their certificates lead to no anchor given, or not at that time.
	ErrUntrusted = errors.New("not trusted")
	// ErrNoTrust means that the bytes verify, and there is no anchor of this kind to hold them against: nobody
	// can tell.
	ErrNoTrust = errors.New("no trust anchors")
	// ErrUnavailable means that no timestamping authority gave a token that holds.
	ErrUnavailable = errors.New("no timestamping authority answered")
)

// Signer seals content with one key.
type Signer interface {
	// Sign returns a CAdES-B-B signature over content in the form of the package comment: DER, detached,
	// SHA-256, with at as its signing time. The certificates must be valid at that time. The signature
	// has been checked strictly before it is returned.
	Sign(ctx context.Context, content []byte, at time.Time) ([]byte, error)
	// Chain returns the certificates that go into a signature: the signer's first, the root excluded.
	Chain() []*x509.Certificate
	// Qualified tells whether the signer's certificate claims to be qualified and its key to lie in a
	// qualified device (QcCompliance and QcSSCD, EN 319 412-5).
	Qualified() bool
}

// Timestamper obtains tokens.
type Timestamper interface {
	// Timestamp returns the DER of a TimeStampToken (a CMS ContentInfo) over a SHA-256 digest. It has been
	// checked against the whole list of the package comment. When no authority gives such a token the
	// error is ErrUnavailable and names each of them with what was wrong. It does not retry.
	Timestamp(ctx context.Context, digest [32]byte) (token []byte, err error)
}

// Fingerprint returns the SHA-256 of the certificate's DER, in hexadecimal.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// invalid makes an error that is ErrInvalid and says what is wrong.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}
