package evidence

import (
	"bytes"
	encasn1 "encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidSignedData = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo    = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
)

var (
	explicit0 = asn1.Tag(0).Constructed().ContextSpecific()
	implicit1 = asn1.Tag(1).Constructed().ContextSpecific()
	implicit2 = asn1.Tag(2).Constructed().ContextSpecific()
)

// imprint is the messageImprint of a token: what it says it covers, whether genuine or not.
type imprint struct {
	*algorithm
	value []byte
}

// readImprint finds the message imprint of an RFC 3161 token that has passed scan. It judges nothing else
// about the token.
func readImprint(token []byte) (imprint, error) {
	info, err := readTSTInfo(token)
	if err != nil {
		return imprint{}, err
	}
	var body, mi, id cryptobyte.String
	var value []byte
	ok := info.ReadASN1(&body, asn1.SEQUENCE) && info.Empty() &&
		body.SkipASN1(asn1.INTEGER) && // version
		body.SkipASN1(asn1.OBJECT_IDENTIFIER) && // policy
		body.ReadASN1(&mi, asn1.SEQUENCE) &&
		mi.ReadASN1(&id, asn1.SEQUENCE) &&
		mi.ReadASN1Bytes(&value, asn1.OCTET_STRING) && mi.Empty()
	if !ok {
		return imprint{}, fmt.Errorf("%w: timestamp without a message imprint", ErrForm)
	}
	a, err := readIdentifier(id)
	if err != nil {
		return imprint{}, fmt.Errorf("message imprint: %w", err)
	}
	if len(value) != a.size {
		return imprint{}, fmt.Errorf("%w: message imprint of %d bytes under %s", ErrForm, len(value), a.name)
	}
	return imprint{a.algorithm, bytes.Clone(value)}, nil
}

// readTSTInfo unwraps ContentInfo, SignedData and EncapsulatedContentInfo (RFC 5652 sections 3 and 5).
func readTSTInfo(token []byte) (cryptobyte.String, error) {
	s := cryptobyte.String(token)
	var content, wrapped, signed, encap, inner, info cryptobyte.String
	var outer, kind encasn1.ObjectIdentifier
	if !s.ReadASN1(&content, asn1.SEQUENCE) || !s.Empty() || !content.ReadASN1ObjectIdentifier(&outer) {
		return nil, fmt.Errorf("%w: timestamp is no ContentInfo", ErrForm)
	}
	if !outer.Equal(oidSignedData) {
		return nil, fmt.Errorf("%w: timestamp of type %v", ErrUnsupported, outer)
	}
	ok := content.ReadASN1(&wrapped, explicit0) && content.Empty() &&
		wrapped.ReadASN1(&signed, asn1.SEQUENCE) && wrapped.Empty() &&
		signed.SkipASN1(asn1.INTEGER) && // version
		signed.SkipASN1(asn1.SET) && // digestAlgorithms
		signed.ReadASN1(&encap, asn1.SEQUENCE) &&
		encap.ReadASN1ObjectIdentifier(&kind)
	if !ok {
		return nil, fmt.Errorf("%w: timestamp is no SignedData", ErrForm)
	}
	if !kind.Equal(oidTSTInfo) {
		return nil, fmt.Errorf("%w: timestamp with content of type %v", ErrUnsupported, kind)
	}
	if !encap.ReadASN1(&inner, explicit0) || !encap.Empty() ||
		!inner.ReadASN1(&info, asn1.OCTET_STRING) || !inner.Empty() {
		return nil, fmt.Errorf("%w: timestamp without content", ErrForm)
	}
	return info, nil
}
