package policies

import (
	"bytes"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// detectXML recognises a text whose first element has a name, whatever its encoding, and names the dialects
// that a municipality receives by the root's namespace and name. Nothing is resolved, nothing decoded.
func detectXML(head []byte, readable bool) (Format, bool) {
	if !readable {
		return Format{}, false
	}
	text := trimBOM(head)
	if bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff")) {
		text = narrow(head)
	}
	text = bytes.TrimLeft(text, " \t\r\n")
	declared := bytes.HasPrefix(text, []byte("<?xml"))
	root, ok := rootOf(text)
	if !ok {
		return Format{MIME: mimeXML, Extension: ".xml", Description: "XML"}, declared
	}
	for _, d := range dialects {
		if d.matches(root) {
			return Format{MIME: d.mime, Extension: d.extension, Description: d.description}, true
		}
	}
	if !declared && root.namespace == "" && (!root.whole || mimetype.Detect(text).Is("text/html")) {
		return Format{}, false // "<p>", "<html>", or a line of text that begins with "<"
	}
	return Format{MIME: mimeXML, Extension: ".xml", Description: "XML"}, true
}

type rootElement struct {
	namespace, name string
	whole           bool // its start tag is well-formed and ends within the head
}

// rootOf finds the first start tag behind declaration, comments, instructions and document type, and reads
// its name and namespace as far as the head shows them.
func rootOf(text []byte) (rootElement, bool) {
	for {
		text = bytes.TrimLeft(text, " \t\r\n")
		var end []byte
		switch {
		case bytes.HasPrefix(text, []byte("<?")):
			end = []byte("?>")
		case bytes.HasPrefix(text, []byte("<!--")):
			end = []byte("-->")
		case bytes.HasPrefix(text, []byte("<!")):
			end = []byte(">")
			if i := bytes.IndexAny(text, "[>"); i >= 0 && text[i] == '[' {
				end = []byte("]>")
			}
		default:
			return startTag(text)
		}
		_, rest, ok := bytes.Cut(text, end)
		if !ok {
			return rootElement{}, false
		}
		text = rest
	}
}

func startTag(text []byte) (rootElement, bool) {
	if len(text) < 2 || text[0] != '<' {
		return rootElement{}, false
	}
	tag, _, closed := bytes.Cut(text[1:], []byte(">"))
	tag = bytes.TrimSuffix(tag, []byte("/"))
	qualified, attributes := string(tag), ""
	if i := bytes.IndexAny(tag, " \t\r\n"); i >= 0 {
		qualified, attributes = string(tag[:i]), string(tag[i:])
	}
	prefix, name, ok := strings.Cut(qualified, ":")
	if !ok {
		prefix, name = "", qualified
	}
	if name == "" || strings.ContainsAny(name, "<&\"'=") || !isNameStart(name[0]) {
		return rootElement{}, false
	}
	declaration := "xmlns"
	if prefix != "" {
		declaration += ":" + prefix
	}
	namespace, rest := attribute(attributes, declaration)
	return rootElement{namespace: namespace, name: name, whole: closed && rest == ""}, true
}

func isNameStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// attribute finds the value of an attribute among those of a tag; rest is what could not be read as
// attributes.
func attribute(attributes, name string) (value, rest string) {
	for rest = attributes; ; {
		before, behind, ok := strings.Cut(rest, "=")
		behind = strings.TrimLeft(behind, " \t\r\n")
		if !ok || behind == "" || behind[0] != '"' && behind[0] != '\'' {
			return value, strings.TrimSpace(rest)
		}
		v, next, ok := strings.Cut(behind[1:], behind[:1])
		if !ok {
			return value, strings.TrimSpace(rest)
		}
		if strings.TrimSpace(before) == name {
			value = strings.TrimSpace(v) // a namespace with a blank in it is a fault met in real invoices
		}
		rest = next
	}
}

// dialect names documents by their root. An empty name matches any, an empty namespace matches none at all,
// and a namespace ending in * matches by its beginning.
type dialect struct {
	namespace, name              string
	mime, extension, description string
}

func (d dialect) matches(root rootElement) bool {
	if d.name != "" && d.name != root.name {
		return false
	}
	if prefix, open := strings.CutSuffix(d.namespace, "*"); open {
		return strings.HasPrefix(root.namespace, prefix)
	}
	return d.namespace == root.namespace
}

var dialects = []dialect{
	{"http://ivaservizi.agenziaentrate.gov.it/docs/xsd/fatture/*", "FatturaElettronica", mimeXML, ".xml", "FatturaPA"},
	{"http://ivaservizi.agenziaentrate.gov.it/docs/xsd/fatture/*", "FatturaElettronicaSemplificata", mimeXML, ".xml", "FatturaPA, simplified"},
	{"http://www.fatturapa.gov.it/sdi/fatturapa/*", "FatturaElettronica", mimeXML, ".xml", "FatturaPA 1.1 or older"},
	{"http://www.fatturapa.gov.it/sdi/messaggi/*", "", mimeXML, ".xml", "SdI message"},
	{"http://ivaservizi.agenziaentrate.gov.it/docs/xsd/fattura/messaggi/*", "", mimeXML, ".xml", "SdI message"},
	{"http://www.digitpa.gov.it/schemas/2011/Pagamenti/*", "", mimeXML, ".xml", "pagoPA message"},
	{"http://www.agenziaentrate.gov.it/2014/MarcaDaBollo*", "", mimeXML, ".xml", "digital stamp"},
	{"http://www.agid.gov.it/protocollo/*", "", mimeXML, ".xml", "segnatura di protocollo"},
	{"", "Segnatura", mimeXML, ".xml", "segnatura di protocollo"},
	{"", "postacert", mimeXML, ".xml", "PEC certification data"},
	{"http://www.uni.com/U3011/sincro-v2/*", "PIndex", mimeXML, ".xml", "SInCRO index, UNI 11386:2020"},
	{"http://www.uni.com/U3011/sincro/*", "", mimeXML, ".xml", "SInCRO index, UNI 11386:2010"},
	{"", "DocumentoAmministrativoInformatico", mimeXML, ".xml", "AgID metadata"},
	{"", "DocumentoInformatico", mimeXML, ".xml", "AgID metadata"},
	{"http://www.w3.org/2001/XMLSchema", "schema", mimeXML, ".xsd", "XML schema"},
	{"http://www.w3.org/1999/XSL/Transform", "", "application/xslt+xml", ".xslt", "XSLT"},
	{"http://www.w3.org/2000/svg", "svg", "image/svg+xml", ".svg", "SVG"},
	{"", "svg", "image/svg+xml", ".svg", "SVG"},
	{"http://www.w3.org/1999/xhtml", "html", "application/xhtml+xml", ".xhtml", "XHTML"},
	{"urn:hl7-org:v3", "ClinicalDocument", mimeXML, ".xml", "HL7 CDA 2"},
	{"urn:oasis:names:tc:SAML:2.0:*", "", mimeXML, ".xml", "SAML assertion"},
	{"urn:oasis:names:specification:ubl:schema:xsd:*", "", mimeXML, ".xml", "UBL document"},
}
