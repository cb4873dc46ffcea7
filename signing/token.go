package signing

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxAccuracy is the widest interval around its time that a token may claim.
const maxAccuracy = 60 * time.Second

// Bounds of the numbers in a token, in bits. RFC 3161 asks for 160 of a serial number and sets no limit to a nonce,
// which is the requester's own; real ones longer than 256 have been seen.
const (
	maxSerial = 256
	maxNonce  = 4096
)

var (
	oidTSTInfo = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}

	tagMillis = cbasn1.Tag(0).ContextSpecific()
	tagMicros = cbasn1.Tag(1).ContextSpecific()
)

// Token is what a timestamp token (RFC 3161) says.
type Token struct {
	// Time is genTime, UTC. The true time lies within Accuracy around it; zero means that none was given.
	Time     time.Time
	Accuracy time.Duration
	// Imprint is the SHA-256 digest stamped; zero when Algorithm is another one.
	Imprint [32]byte
	// Algorithm and Hashed are the message imprint as it stands in the token.
	Algorithm asn1.ObjectIdentifier
	Hashed    []byte
	Serial    *big.Int
	Policy    asn1.ObjectIdentifier
	Nonce     *big.Int // nil when absent
	// Signer is the certificate that the token names as its signer's.
	Signer *x509.Certificate
	// Qualified tells that the token claims to be a qualified timestamp (EN 319 422 section 9.1). Whether its
	// authority is one, trusted lists say.
	Qualified bool
}

// ParseToken reads a token and all certificates inside. It checks structure only: the token may be forged. Every
// error is ErrInvalid.
func ParseToken(der []byte) (Token, []*x509.Certificate, error) {
	token, sd, err := parseToken(der)
	if err != nil {
		return Token{}, nil, fmt.Errorf("timestamp token: %w", err)
	}
	return token, sd.certs, nil
}

// CheckToken accepts a stored token over a SHA-256 digest if everything holds that the package comment lists. The
// errors are ErrInvalid, ErrUntrusted and ErrNoTrust, in this order of precedence.
func (t *Trust) CheckToken(der []byte, imprint [32]byte) (Token, error) {
	return t.CheckTokenDigest(der, imprint[:], oidSHA256)
}

// CheckTokenDigest is CheckToken for a digest of any algorithm accepted: SHA-256, SHA-384 or SHA-512.
func (t *Trust) CheckTokenDigest(der, digest []byte, algorithm asn1.ObjectIdentifier) (Token, error) {
	token, err := t.checkToken(der, digest, algorithm)
	if err != nil {
		return Token{}, fmt.Errorf("timestamp token: %w", err)
	}
	return token, nil
}

func (t *Trust) checkToken(der, digest []byte, algorithm asn1.ObjectIdentifier) (Token, error) {
	token, sd, err := parseToken(der)
	if err != nil {
		return Token{}, err
	}
	if sd.crls || sd.signer.unsigned {
		return Token{}, invalid("it carries revocation lists or attributes that nobody signed")
	}
	signer, err := sd.verify(sd.content)
	if err != nil {
		return Token{}, err
	}
	if err := checkTSACertificate(signer); err != nil {
		return Token{}, invalid("%w", err)
	}
	if !token.Algorithm.Equal(algorithm) {
		return Token{}, invalid("it stamps a digest of algorithm %v, not %v", token.Algorithm, algorithm)
	}
	if !bytes.Equal(token.Hashed, digest) {
		return Token{}, invalid("it stamps %x, not %x", token.Hashed, digest)
	}
	if token.Accuracy > maxAccuracy {
		return Token{}, invalid("accuracy of %s, more than %s", token.Accuracy, maxAccuracy)
	}
	certs := []*x509.Certificate{signer}
	for _, c := range sd.certs {
		if c != signer {
			certs = append(certs, c)
		}
	}
	return token, t.tsaAnchors().check(certs, x509.ExtKeyUsageTimeStamping, token.Time)
}

func parseToken(der []byte) (Token, *signedData, error) {
	sd, err := parseSignedData(der)
	if err != nil {
		return Token{}, nil, err
	}
	if !sd.contentType.Equal(oidTSTInfo) {
		return Token{}, nil, invalid("content type is %v, not id-ct-TSTInfo", sd.contentType)
	}
	if sd.version != 3 {
		return Token{}, nil, invalid("SignedData has version %d, not 3", sd.version)
	}
	if sd.content == nil {
		return Token{}, nil, invalid("TSTInfo is missing")
	}
	token, err := parseTSTInfo(sd.content)
	if err != nil {
		return Token{}, nil, err
	}
	if token.Signer, err = sd.signerCertificate(); err != nil {
		return Token{}, nil, err
	}
	return token, sd, nil
}

// parseTSTInfo reads a TSTInfo (RFC 3161 section 2.4.2).
func parseTSTInfo(der []byte) (Token, error) {
	if err := scan(der); err != nil {
		return Token{}, fmt.Errorf("TSTInfo: %w", err)
	}
	in := cryptobyte.String(der)
	var s, hashed, when cryptobyte.String
	var version int
	var alg algorithm
	t := Token{Serial: new(big.Int)}
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !s.ReadASN1Integer(&version) || !s.ReadASN1ObjectIdentifier(&t.Policy) ||
		!readImprint(&s, &alg, &hashed) || !s.ReadASN1Integer(t.Serial) || !s.ReadASN1(&when, cbasn1.GeneralizedTime) {
		return Token{}, invalid("TSTInfo cannot be read")
	}
	if version != 1 {
		return Token{}, invalid("TSTInfo has version %d, not 1", version)
	}
	if t.Serial.Sign() < 0 || t.Serial.BitLen() > maxSerial {
		return Token{}, invalid("serial number is negative or longer than %d bits", maxSerial)
	}
	d, err := alg.digest()
	if err != nil {
		return Token{}, fmt.Errorf("imprint: %w", err)
	}
	if len(hashed) != d.hash.Size() {
		return Token{}, invalid("imprint of %d bytes, not %d", len(hashed), d.hash.Size())
	}
	t.Algorithm, t.Hashed = d.oid, slices.Clone(hashed)
	if d.oid.Equal(oidSHA256) {
		copy(t.Imprint[:], hashed)
	}
	if t.Time, err = parseGenTime(string(when)); err != nil {
		return Token{}, err
	}
	return t, t.readOptional(&s)
}

func readImprint(s *cryptobyte.String, alg *algorithm, hashed *cryptobyte.String) bool {
	var imprint cryptobyte.String
	return s.ReadASN1(&imprint, cbasn1.SEQUENCE) && readAlgorithm(&imprint, alg) &&
		imprint.ReadASN1(hashed, cbasn1.OCTET_STRING) && imprint.Empty()
}

// parseGenTime reads a GeneralizedTime as RFC 3161 restricts it: UTC, seconds present, a fraction without zeros
// at its end.
func parseGenTime(text string) (time.Time, error) {
	const layout = "20060102150405.999999999Z"
	at, err := time.Parse(layout, text)
	if err != nil || at.Format(layout) != text {
		return time.Time{}, invalid("genTime %.40q is not in the form of RFC 3161", text)
	}
	return at.UTC(), nil
}

// readOptional reads what may follow genTime: accuracy, ordering, nonce, tsa, extensions. Ordering and tsa say
// nothing that the signature and the signer's certificate do not.
func (t *Token) readOptional(s *cryptobyte.String) error {
	if s.PeekASN1Tag(cbasn1.SEQUENCE) {
		if err := t.readAccuracy(s); err != nil {
			return err
		}
	}
	var ordering bool
	if s.PeekASN1Tag(cbasn1.BOOLEAN) && !s.ReadASN1Boolean(&ordering) {
		return invalid("ordering cannot be read")
	}
	if s.PeekASN1Tag(cbasn1.INTEGER) {
		t.Nonce = new(big.Int)
		if !s.ReadASN1Integer(t.Nonce) || t.Nonce.BitLen() > maxNonce {
			return invalid("nonce cannot be read or is longer than %d bits", maxNonce)
		}
	}
	var tsa, extensions cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&tsa, &present, tagContext0) || !s.ReadOptionalASN1(&extensions, &present, tagContext1) || !s.Empty() {
		return invalid("the end of the TSTInfo cannot be read")
	}
	if !present {
		return nil
	}
	return t.readExtensions(extensions)
}

// readAccuracy reads Accuracy; milliseconds and microseconds are 1 to 999 each.
func (t *Token) readAccuracy(s *cryptobyte.String) error {
	var acc cryptobyte.String
	var seconds, millis, micros int64
	ok := s.ReadASN1(&acc, cbasn1.SEQUENCE)
	if ok && acc.PeekASN1Tag(cbasn1.INTEGER) {
		ok = acc.ReadASN1Integer(&seconds) && seconds >= 0 && seconds <= 1<<31
	}
	if ok && acc.PeekASN1Tag(tagMillis) {
		ok = acc.ReadASN1Int64WithTag(&millis, tagMillis) && millis >= 1 && millis <= 999
	}
	if ok && acc.PeekASN1Tag(tagMicros) {
		ok = acc.ReadASN1Int64WithTag(&micros, tagMicros) && micros >= 1 && micros <= 999
	}
	if !ok || !acc.Empty() {
		return invalid("accuracy cannot be read")
	}
	t.Accuracy = time.Duration(seconds)*time.Second + time.Duration(millis)*time.Millisecond + time.Duration(micros)*time.Microsecond
	return nil
}

// readExtensions refuses critical extensions: RFC 3161 defines none, and qcStatements must not be critical.
func (t *Token) readExtensions(s cryptobyte.String) error {
	var seen []asn1.ObjectIdentifier
	for !s.Empty() {
		var ext, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		critical := false
		if !s.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&oid) ||
			ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) ||
			!ext.ReadASN1(&value, cbasn1.OCTET_STRING) || !ext.Empty() {
			return invalid("extensions of the TSTInfo cannot be read")
		}
		if critical {
			return invalid("unknown critical extension %v in the TSTInfo", oid)
		}
		if slices.ContainsFunc(seen, oid.Equal) {
			return invalid("extension %v is in the TSTInfo twice", oid)
		}
		seen = append(seen, oid)
		if oid.Equal(oidQCStatements) {
			t.Qualified = hasStatement(value, oidQCTimestamp)
		}
	}
	return nil
}
