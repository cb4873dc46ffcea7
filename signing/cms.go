package signing

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const maxCertificates = 16

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}

	tagContext0 = cbasn1.Tag(0).ContextSpecific().Constructed()
	tagContext1 = cbasn1.Tag(1).ContextSpecific().Constructed()
	tagKeyID    = cbasn1.Tag(0).ContextSpecific()
)

// signedData is a CMS SignedData (RFC 5652 section 5) with one signer.
type signedData struct {
	version     int
	digest      algorithm
	contentType asn1.ObjectIdentifier
	content     []byte // nil when detached
	certs       []*x509.Certificate
	crls        bool
	signer      signerInfo
}

type signerInfo struct {
	version   int
	issuer    []byte // DER of the issuer's name; nil when the signer is named by keyID
	serial    *big.Int
	keyID     []byte
	digest    algorithm
	attrs     []attribute
	rawAttrs  []byte // the attributes' DER, without tag and length
	signature algorithm
	value     []byte
	unsigned  bool // there are unsigned attributes
}

// attribute is a signed attribute; values is the inside of its SET.
type attribute struct {
	oid    asn1.ObjectIdentifier
	values cryptobyte.String
}

// parseSignedData reads the structure and judges nothing but that: one digest algorithm, one signer, signed
// attributes present, sorted and none twice.
func parseSignedData(der []byte) (*signedData, error) {
	if err := scan(der); err != nil {
		return nil, err
	}
	in := cryptobyte.String(der)
	var info, explicit, body, digests cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidSignedData) ||
		!info.ReadASN1(&explicit, tagContext0) || !info.Empty() ||
		!explicit.ReadASN1(&body, cbasn1.SEQUENCE) || !explicit.Empty() {
		return nil, invalid("not a CMS SignedData")
	}
	sd := new(signedData)
	if !body.ReadASN1Integer(&sd.version) || !body.ReadASN1(&digests, cbasn1.SET) ||
		!readAlgorithm(&digests, &sd.digest) {
		return nil, invalid("SignedData has no digest algorithm")
	}
	if !digests.Empty() {
		return nil, invalid("SignedData has more than one digest algorithm")
	}
	if err := sd.readContent(&body); err != nil {
		return nil, err
	}
	if err := sd.readCertificates(&body); err != nil {
		return nil, err
	}
	return sd, sd.readSigners(&body)
}

func (sd *signedData) readContent(body *cryptobyte.String) error {
	var encap, explicit, octets cryptobyte.String
	if !body.ReadASN1(&encap, cbasn1.SEQUENCE) || !encap.ReadASN1ObjectIdentifier(&sd.contentType) {
		return invalid("SignedData has no content type")
	}
	if encap.Empty() {
		return nil
	}
	if !encap.ReadASN1(&explicit, tagContext0) || !encap.Empty() ||
		!explicit.ReadASN1(&octets, cbasn1.OCTET_STRING) || !explicit.Empty() {
		return invalid("content of the SignedData is not one OCTET STRING")
	}
	sd.content = append([]byte{}, octets...)
	return nil
}

func (sd *signedData) readCertificates(body *cryptobyte.String) error {
	var set cryptobyte.String
	var present bool
	if !body.ReadOptionalASN1(&set, &present, tagContext0) || present && set.Empty() {
		return invalid("certificates of the SignedData cannot be read")
	}
	for !set.Empty() {
		var raw cryptobyte.String
		if len(sd.certs) == maxCertificates {
			return invalid("more than %d certificates", maxCertificates)
		}
		if !set.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
			return invalid("something else than an X.509 certificate among the certificates")
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return invalid("certificate %d: %w", len(sd.certs)+1, err)
		}
		for _, other := range sd.certs {
			if other.Equal(cert) {
				return invalid("certificate %d is there twice", len(sd.certs)+1)
			}
		}
		sd.certs = append(sd.certs, cert)
	}
	if !body.ReadOptionalASN1(&set, &sd.crls, tagContext1) {
		return invalid("revocation lists of the SignedData cannot be read")
	}
	return nil
}

func (sd *signedData) readSigners(body *cryptobyte.String) error {
	var signers, s cryptobyte.String
	if !body.ReadASN1(&signers, cbasn1.SET) || !body.Empty() || !signers.ReadASN1(&s, cbasn1.SEQUENCE) {
		return invalid("SignedData has no signer")
	}
	if !signers.Empty() {
		return invalid("SignedData has more than one signer")
	}
	si := &sd.signer
	if !s.ReadASN1Integer(&si.version) || !si.readID(&s) || !readAlgorithm(&s, &si.digest) {
		return invalid("SignerInfo does not say who signed")
	}
	var attrs, unsigned cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&attrs, &present, tagContext0) || !present {
		return invalid("signature without signed attributes")
	}
	var value cryptobyte.String
	if !readAlgorithm(&s, &si.signature) || !s.ReadASN1(&value, cbasn1.OCTET_STRING) ||
		!s.ReadOptionalASN1(&unsigned, &si.unsigned, tagContext1) || !s.Empty() {
		return invalid("SignerInfo has no signature")
	}
	si.value = value
	return si.readAttributes(attrs)
}

func (si *signerInfo) readID(s *cryptobyte.String) bool {
	if s.PeekASN1Tag(tagKeyID) {
		var id cryptobyte.String
		ok := s.ReadASN1(&id, tagKeyID) && len(id) > 0
		si.keyID = id
		return ok
	}
	var sid, issuer cryptobyte.String
	si.serial = new(big.Int)
	ok := s.ReadASN1(&sid, cbasn1.SEQUENCE) && sid.ReadASN1Element(&issuer, cbasn1.SEQUENCE) &&
		sid.ReadASN1Integer(si.serial) && sid.Empty()
	si.issuer = issuer
	return ok
}

func (si *signerInfo) readAttributes(set cryptobyte.String) error {
	si.rawAttrs = set
	var before cryptobyte.String
	for !set.Empty() {
		var element, inner cryptobyte.String
		var a attribute
		if !set.ReadASN1Element(&element, cbasn1.SEQUENCE) {
			return invalid("signed attributes cannot be read")
		}
		rest := element
		if !rest.ReadASN1(&inner, cbasn1.SEQUENCE) || !inner.ReadASN1ObjectIdentifier(&a.oid) ||
			!inner.ReadASN1(&a.values, cbasn1.SET) || !inner.Empty() || a.values.Empty() {
			return invalid("signed attributes cannot be read")
		}
		if bytes.Compare(before, element) >= 0 {
			return invalid("signed attributes are not in DER order")
		}
		for _, other := range si.attrs {
			if other.oid.Equal(a.oid) {
				return invalid("signed attribute %v is there twice", a.oid)
			}
		}
		si.attrs = append(si.attrs, a)
		before = element
	}
	return nil
}

// attribute returns the one value of a signed attribute.
func (si *signerInfo) attribute(oid asn1.ObjectIdentifier, name string) (cryptobyte.String, error) {
	for _, a := range si.attrs {
		if !a.oid.Equal(oid) {
			continue
		}
		values := a.values
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !values.ReadAnyASN1Element(&value, &tag) || !values.Empty() {
			return nil, invalid("signed attribute %s has more than one value", name)
		}
		return value, nil
	}
	return nil, invalid("signed attribute %s is missing", name)
}

// verify checks the signature, with all that binds it to content, to the type of the content and to its
// signer's certificate, which it returns. Trust is another question.
func (sd *signedData) verify(content []byte) (*x509.Certificate, error) {
	signer, err := sd.signerCertificate()
	if err != nil {
		return nil, err
	}
	d, err := sd.digest.digest()
	if err != nil {
		return nil, err
	}
	if !sd.signer.digest.oid.Equal(d.oid) || !sd.signer.digest.plain() {
		return nil, invalid("SignedData and SignerInfo name different digest algorithms")
	}
	if err := sd.checkContent(content, d); err != nil {
		return nil, err
	}
	if err := sd.signer.checkESS(signer); err != nil {
		return nil, err
	}
	message, err := setOf(sd.signer.rawAttrs)
	if err != nil {
		return nil, invalid("signed attributes: %w", err)
	}
	return signer, checkSignatureValue(signer, sd.signer.signature, d, message, sd.signer.value)
}

// signerCertificate finds the certificate that the SignerInfo names.
func (sd *signedData) signerCertificate() (*x509.Certificate, error) {
	si := &sd.signer
	want := 1
	if si.keyID != nil {
		want = 3
	}
	if si.version != want {
		return nil, invalid("SignerInfo has version %d, not %d", si.version, want)
	}
	for _, c := range sd.certs {
		if si.keyID != nil && bytes.Equal(c.SubjectKeyId, si.keyID) ||
			si.keyID == nil && bytes.Equal(c.RawIssuer, si.issuer) && c.SerialNumber.Cmp(si.serial) == 0 {
			return c, nil
		}
	}
	return nil, invalid("the signer's certificate is not inside")
}

func (sd *signedData) checkContent(content []byte, d digestAlgorithm) error {
	value, err := sd.signer.attribute(oidContentType, "content-type")
	if err != nil {
		return err
	}
	var oid asn1.ObjectIdentifier
	if !value.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(sd.contentType) {
		return invalid("signed content-type is another one")
	}
	value, err = sd.signer.attribute(oidMessageDigest, "message-digest")
	if err != nil {
		return err
	}
	var sum cryptobyte.String
	if !value.ReadASN1(&sum, cbasn1.OCTET_STRING) {
		return invalid("signed message-digest cannot be read")
	}
	if !bytes.Equal(sum, d.sum(content)) {
		return invalid("the content is not what was signed")
	}
	return nil
}

// checkESS holds the signing-certificate-v2 attribute (RFC 5035) against the signer's certificate. Only the
// first entry names the signer; others are no more than hints and are covered by the signature.
func (si *signerInfo) checkESS(signer *x509.Certificate) error {
	value, err := si.attribute(oidSigningCertV2, "signing-certificate-v2")
	if err != nil {
		return err
	}
	var attr, ids, id, hash cryptobyte.String
	if !value.ReadASN1(&attr, cbasn1.SEQUENCE) || !attr.ReadASN1(&ids, cbasn1.SEQUENCE) || !ids.ReadASN1(&id, cbasn1.SEQUENCE) {
		return invalid("signing-certificate-v2 cannot be read")
	}
	alg := algorithm{oid: oidSHA256}
	if id.PeekASN1Tag(cbasn1.SEQUENCE) && !readAlgorithm(&id, &alg) {
		return invalid("signing-certificate-v2 cannot be read")
	}
	d, err := alg.digest()
	if err != nil {
		return err
	}
	if !id.ReadASN1(&hash, cbasn1.OCTET_STRING) || !bytes.Equal(hash, d.sum(signer.Raw)) {
		return invalid("signing-certificate-v2 names another certificate")
	}
	if id.Empty() {
		return nil
	}
	return checkIssuerSerial(id, signer)
}

func checkIssuerSerial(id cryptobyte.String, signer *x509.Certificate) error {
	var issuerSerial, names, name cryptobyte.String
	serial := new(big.Int)
	if !id.ReadASN1(&issuerSerial, cbasn1.SEQUENCE) || !id.Empty() ||
		!issuerSerial.ReadASN1(&names, cbasn1.SEQUENCE) || !issuerSerial.ReadASN1Integer(serial) || !issuerSerial.Empty() ||
		!names.ReadASN1(&name, tagDirectoryName) || !names.Empty() {
		return invalid("issuer and serial of signing-certificate-v2 cannot be read")
	}
	if !bytes.Equal(name, signer.RawIssuer) || serial.Cmp(signer.SerialNumber) != 0 {
		return invalid("signing-certificate-v2 names another certificate's issuer or serial")
	}
	return nil
}

// isAttributes tells whether content is the DER of a SET OF Attribute, which a signature over attributes
// would cover as well as it covers a message without any (see the package comment).
func isAttributes(content []byte) bool {
	if len(content) == 0 || content[0] != tagSet || scan(content) != nil {
		return false
	}
	in := cryptobyte.String(content)
	var set cryptobyte.String
	if !in.ReadASN1(&set, cbasn1.SET) || set.Empty() {
		return false
	}
	for !set.Empty() {
		var a, values cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !set.ReadASN1(&a, cbasn1.SEQUENCE) || !a.ReadASN1ObjectIdentifier(&oid) || !a.ReadASN1(&values, cbasn1.SET) || !a.Empty() {
			return false
		}
	}
	return true
}
