package signing

import (
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"unicode"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Media types of RFC 3161 section 3.4.
const (
	queryType = "application/timestamp-query"
	replyType = "application/timestamp-reply"
)

// Values of PKIStatus used here (RFC 3161 section 2.4.2).
const (
	statusGranted   = 0
	statusRejection = 2
)

// failure is a bit of PKIFailureInfo.
type failure int

const (
	badAlg              failure = 0
	badRequest          failure = 2
	badDataFormat       failure = 5
	unacceptedPolicy    failure = 15
	unacceptedExtension failure = 16
	systemFailure       failure = 25
)

func (f failure) String() string {
	switch f {
	case badAlg:
		return "badAlg"
	case badRequest:
		return "badRequest"
	case badDataFormat:
		return "badDataFormat"
	case 14:
		return "timeNotAvailable"
	case unacceptedPolicy:
		return "unacceptedPolicy"
	case unacceptedExtension:
		return "unacceptedExtension"
	case 17:
		return "addInfoNotAvailable"
	case systemFailure:
		return "systemFailure"
	}
	return fmt.Sprintf("failure %d", int(f))
}

// refusal is a failure with the words that go with it.
type refusal struct {
	info failure
	text string
}

func (r *refusal) Error() string { return r.info.String() + ": " + r.text }

// query is a TimeStampReq.
type query struct {
	imprint    algorithm
	hashed     []byte
	policy     asn1.ObjectIdentifier // nil when any will do
	nonce      *big.Int              // nil when absent
	certs      bool
	extensions bool
}

// parseQuery reads a TimeStampReq (RFC 3161 section 2.4.1) or says why it is refused.
func parseQuery(der []byte) (query, *refusal) {
	var q query
	if err := scan(der); err != nil {
		return q, &refusal{badDataFormat, err.Error()}
	}
	in := cryptobyte.String(der)
	var s, hashed cryptobyte.String
	var version int
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !s.ReadASN1Integer(&version) || !readImprint(&s, &q.imprint, &hashed) {
		return q, &refusal{badDataFormat, "not a TimeStampReq"}
	}
	if version != 1 {
		return q, &refusal{badRequest, fmt.Sprintf("version %d, not 1", version)}
	}
	q.hashed = hashed
	if s.PeekASN1Tag(cbasn1.OBJECT_IDENTIFIER) && !s.ReadASN1ObjectIdentifier(&q.policy) {
		return q, &refusal{badDataFormat, "policy cannot be read"}
	}
	if s.PeekASN1Tag(cbasn1.INTEGER) {
		q.nonce = new(big.Int)
		if !s.ReadASN1Integer(q.nonce) || q.nonce.BitLen() > maxNonce {
			return q, &refusal{badDataFormat, "nonce cannot be read"}
		}
	}
	var extensions cryptobyte.String
	if s.PeekASN1Tag(cbasn1.BOOLEAN) && !s.ReadASN1Boolean(&q.certs) ||
		!s.ReadOptionalASN1(&extensions, &q.extensions, tagContext0) || !s.Empty() {
		return q, &refusal{badDataFormat, "the end of the TimeStampReq cannot be read"}
	}
	return q, nil
}

// marshalReply writes a TimeStampResp: with the token when r is nil, else with the refusal.
func marshalReply(token []byte, r *refusal) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if r == nil {
				b.AddASN1Int64(statusGranted)
				return
			}
			b.AddASN1Int64(statusRejection)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(r.text)) })
			})
			b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) {
				bits := make([]byte, 1+r.info/8+1)
				bits[0] = byte(7 - r.info%8)
				bits[1+r.info/8] = 0x80 >> (r.info % 8)
				b.AddBytes(bits)
			})
		})
		if r == nil {
			b.AddBytes(token)
		}
	})
	return b.Bytes()
}

// parseReply takes the token out of a TimeStampResp. Anything but "granted" is an error that gives the
// authority's words.
func parseReply(der []byte) ([]byte, error) {
	if err := scan(der); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	in := cryptobyte.String(der)
	var resp, info, texts, bits, token cryptobyte.String
	var hasTexts, hasBits bool
	var status int
	if !in.ReadASN1(&resp, cbasn1.SEQUENCE) || !resp.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1Integer(&status) ||
		!info.ReadOptionalASN1(&texts, &hasTexts, cbasn1.SEQUENCE) || !info.ReadOptionalASN1(&bits, &hasBits, cbasn1.BIT_STRING) ||
		!info.Empty() {
		return nil, invalid("answer is not a TimeStampResp")
	}
	if status != statusGranted || hasBits {
		return nil, fmt.Errorf("refused with status %d%s%s", status, statusText(texts), failureText(bits))
	}
	if !resp.ReadASN1Element(&token, cbasn1.SEQUENCE) || !resp.Empty() {
		return nil, invalid("answer is granted and has no token")
	}
	return token, nil
}

// statusText quotes the first of the authority's words, without what could harm a terminal or log.
func statusText(texts cryptobyte.String) string {
	var text cryptobyte.String
	if !texts.ReadASN1(&text, cbasn1.UTF8String) {
		return ""
	}
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(text), "?"))
	return fmt.Sprintf(" %.200q", clean)
}

func failureText(bits cryptobyte.String) string {
	var b strings.Builder
	for i := 8; i < 8*min(len(bits), 9); i++ {
		if bits[i/8]&(0x80>>(i%8)) != 0 {
			fmt.Fprintf(&b, " %v", failure(i-8))
		}
	}
	return b.String()
}
