package policies

import (
	"bytes"
	"encoding/base64"
)

// What an Italian .p7m, .p7s, .tsr or .tsd holds lies in its first few elements. They are read here with
// lengths of DER or BER, definite or not, without recursion, and never further than the head goes: whether
// the rest is sound is for the signature check to say.

// Object identifiers as they stand in the bytes (tag, length, value).
const (
	oidSignedData    = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
	oidEnvelopedData = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03"
	oidEncryptedData = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x06"
	oidTSTInfo       = "\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x04"
	oidTimestamped   = "\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x1f"
)

const (
	tagInteger  = 0x02
	tagSequence = 0x30
	tagSet      = 0x31
	tagContext0 = 0xa0
)

// element is one TLV: its identifier octet, where its content begins, and its content's length, -1 when
// indefinite. Identifiers of more than one octet do not occur in what is read here.
type element struct {
	tag    byte
	start  int
	length int
}

// elementAt reads the header at b[at:].
func elementAt(b []byte, at int) (element, bool) {
	if at < 0 || at+2 > len(b) || b[at]&0x1f == 0x1f {
		return element{}, false
	}
	e := element{tag: b[at], start: at + 2}
	first := b[at+1]
	switch {
	case first < 0x80:
		e.length = int(first)
	case first == 0x80:
		e.length = -1
		return e, e.tag&0x20 != 0 // only constructed encodings may be indefinite
	default:
		n := int(first & 0x7f)
		if n > 7 || e.start+n > len(b) {
			return element{}, false
		}
		for _, c := range b[e.start : e.start+n] {
			e.length = e.length<<8 | int(c)
		}
		e.start += n
	}
	return e, true
}

// after returns where the element behind e begins, walking over an indefinite one.
func after(b []byte, e element) (int, bool) {
	if e.length >= 0 {
		return e.start + e.length, e.start+e.length <= len(b)
	}
	at := e.start
	for open := 1; open > 0; {
		inner, ok := elementAt(b, at)
		switch {
		case !ok:
			return 0, false
		case inner.tag == 0 && inner.length == 0:
			open--
			at = inner.start
		case inner.length < 0:
			open++
			at = inner.start
		default:
			at = inner.start + inner.length
		}
	}
	return at, true
}

// child returns the element at the start of e when it has the tag wanted.
func child(b []byte, at int, tag byte) (element, bool) {
	e, ok := elementAt(b, at)
	return e, ok && e.tag == tag
}

func detectCMS(head []byte, readable bool) (Format, bool) {
	if f, ok := cmsFormat(head, ""); ok {
		return f, true
	}
	if !readable {
		return Format{}, false
	}
	if b, ok := decodeBase64(head); ok {
		return cmsFormat(b, "Base64")
	}
	return Format{}, false
}

// detectArmour reads PEM: a CMS in it is a CMS, a certificate is one, everything else stays PEM, private
// keys among it.
func detectArmour(head []byte, _ bool) (Format, bool) {
	b := bytes.TrimLeft(trimBOM(head), " \t\r\n")
	rest, ok := bytes.CutPrefix(b, []byte("-----BEGIN "))
	if !ok {
		return Format{}, false
	}
	label, body, ok := bytes.Cut(rest, []byte("-----"))
	if !ok {
		return Format{}, false
	}
	body, _, _ = bytes.Cut(body, []byte("-----"))
	if der, ok := decodeBase64(body); ok {
		if f, ok := cmsFormat(der, "PEM"); ok {
			return f, true
		}
	}
	if string(label) == "CERTIFICATE" {
		return Format{MIME: mimeCert, Extension: ".cer", Description: "X.509 certificate, PEM"}, true
	}
	return Format{MIME: mimePEM, Extension: ".pem", Description: "PEM " + quoted(string(label))}, true
}

// cmsFormat tells what DER or BER bytes are; form names the armour they came in.
func cmsFormat(b []byte, form string) (Format, bool) {
	outer, ok := child(b, 0, tagSequence)
	if !ok {
		return Format{}, false
	}
	if form == "" {
		form = "DER"
		if outer.length < 0 {
			form = "BER"
		}
	}
	f, ok := contentInfo(b, outer.start)
	if !ok {
		f, ok = timestampReply(b, outer.start)
	}
	if !ok {
		f, ok = certificate(b, outer.start)
	}
	f.Description += ", " + form
	return f, ok
}

// contentInfo reads a ContentInfo (RFC 5652 §3) whose first member lies at at.
func contentInfo(b []byte, at int) (Format, bool) {
	kind := b[at:]
	switch {
	case bytes.HasPrefix(kind, []byte(oidSignedData)):
		return signedData(b, at+len(oidSignedData)), true
	case bytes.HasPrefix(kind, []byte(oidEnvelopedData)), bytes.HasPrefix(kind, []byte(oidEncryptedData)):
		return Format{MIME: mimeCMS, Extension: ".p7m", Description: "CMS encrypted data", Encrypted: true}, true
	case bytes.HasPrefix(kind, []byte(oidTimestamped)):
		return Format{MIME: mimeTSD, Extension: ".tsd", Description: "timestamped data, RFC 5544"}, true
	}
	return Format{}, false
}

// signedData looks into SignedData (RFC 5652 §5.1) for what is signed: a document inside, one elsewhere, or
// the statement of a time-stamping authority (RFC 3161 §2.4.2). at is behind the OID.
func signedData(b []byte, at int) Format {
	whole := Format{MIME: mimeCMS, Extension: ".p7m", Description: "CMS signed data"}
	explicit, ok := child(b, at, tagContext0)
	if !ok {
		return whole
	}
	signed, ok := child(b, explicit.start, tagSequence)
	if !ok {
		return whole
	}
	version, ok := child(b, signed.start, tagInteger)
	if !ok {
		return whole
	}
	at, _ = after(b, version)
	algorithms, ok := child(b, at, tagSet)
	if !ok {
		return whole
	}
	if at, ok = after(b, algorithms); !ok {
		return whole
	}
	encapsulated, ok := child(b, at, tagSequence)
	if !ok {
		return whole
	}
	if bytes.HasPrefix(b[encapsulated.start:], []byte(oidTSTInfo)) {
		return Format{MIME: mimeTST, Extension: ".tst", Description: "RFC 3161 time-stamp token"}
	}
	kind, ok := elementAt(b, encapsulated.start)
	if !ok {
		return whole
	}
	end, ok := after(b, kind)
	content, found := elementAt(b, end)
	inside := found && content.tag == tagContext0 && (encapsulated.length < 0 || end < encapsulated.start+encapsulated.length)
	if ok && found && !inside {
		return Format{MIME: mimeDetached, Extension: ".p7s", Description: "CMS detached signature"}
	}
	return whole
}

// timestampReply reads a TimeStampResp (RFC 3161 §2.4.2): a PKIStatusInfo, then the token unless refused.
func timestampReply(b []byte, at int) (Format, bool) {
	status, ok := child(b, at, tagSequence)
	if !ok {
		return Format{}, false
	}
	code, ok := child(b, status.start, tagInteger)
	if !ok || code.length != 1 {
		return Format{}, false
	}
	end, ok := after(b, status)
	if !ok {
		return Format{}, false
	}
	token, ok := child(b, end, tagSequence)
	if !ok || !bytes.HasPrefix(b[token.start:], []byte(oidSignedData)) {
		return Format{}, false
	}
	return Format{MIME: mimeTSR, Extension: ".tsr", Description: "RFC 3161 time-stamp response"}, true
}

// certificate knows the start of an X.509 v3 certificate (RFC 5280 §4.1).
func certificate(b []byte, at int) (Format, bool) {
	tbs, ok := child(b, at, tagSequence)
	if !ok || !bytes.HasPrefix(b[tbs.start:], []byte("\xa0\x03\x02\x01\x02")) {
		return Format{}, false
	}
	return Format{MIME: mimeCert, Extension: ".cer", Description: "X.509 certificate"}, true
}

// decodeBase64 decodes a head that is Base64 throughout, lines or not. The end may have been cut.
func decodeBase64(head []byte) ([]byte, bool) {
	digits := make([]byte, 0, len(head))
	for _, c := range trimBOM(head) {
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '=':
		case c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || isDigit(c) || c == '+' || c == '/':
			digits = append(digits, c)
		default:
			return nil, false
		}
	}
	digits = digits[:len(digits)&^3]
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(digits)))
	n, err := base64.RawStdEncoding.Decode(out, digits)
	return out[:n], err == nil && n > 0
}
