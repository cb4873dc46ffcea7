package policies

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// The smallest shapes of a CMS that tell its kinds apart: ContentInfo, [0], SignedData, version, one digest
// algorithm, encapsulated content.
const (
	digestAlgorithms = "\x02\x01\x01\x31\x0f\x30\x0d" + "\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01" + "\x05\x00"
	oidData          = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"
)

// der wraps content in an element of less than 64 KiB.
func der(tag byte, content string) string {
	n := len(content)
	if n < 0x80 {
		return string([]byte{tag, byte(n)}) + content
	}
	return string([]byte{tag, 0x82, byte(n >> 8), byte(n)}) + content
}

// ber wraps content in an element of indefinite length.
func ber(tag byte, content string) string { return string([]byte{tag, 0x80}) + content + "\x00\x00" }

func signed(wrap func(byte, string) string, encapsulated string) string {
	certificates := der(0xa0, der(0x30, "\x02\x01\x07"))
	return wrap(0x30, oidSignedData+wrap(0xa0, wrap(0x30, digestAlgorithms+wrap(0x30, encapsulated)+certificates)))
}

func attached(wrap func(byte, string) string, content string) string {
	return oidData + wrap(0xa0, der(0x04, content))
}

func zipOf(t testing.TB, entries ...[2]string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e[0], Method: zip.Deflate}
		if e[0] == "mimetype" {
			h.Method = zip.Store
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(e[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func contentTypesXML(main string) string {
	return `<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">` +
		`<Override PartName="/word/document.xml" ContentType="application/vnd.` + main + `"/></Types>`
}

func utf16LE(s string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

func TestDetectFormatTellsKindsByContent(t *testing.T) {
	p7m := signed(der, attached(der, strings.Repeat("contenuto ", 30)))
	lines := func(s string) string {
		e := base64.StdEncoding.EncodeToString([]byte(s))
		var b strings.Builder
		for ; len(e) > 64; e = e[64:] {
			b.WriteString(e[:64] + "\r\n")
		}
		return b.String() + e + "\r\n"
	}
	const invoice = `<p:FatturaElettronica versione="FPR12" xmlns:ds="x" xmlns:p="http://ivaservizi.agenziaentrate.gov.it/docs/xsd/fatture/v1.2 ">`
	for _, c := range []struct{ name, head, mime, description string }{
		{"nothing", "", mimeUnknown, "no bytes"},
		{"noise", "\x01\x02\x03\x04\xff\xfe", mimeUnknown, "unrecognised"},

		{"CMS in DER", p7m, mimeCMS, "CMS signed data, DER"},
		{"CMS in BER", signed(ber, attached(ber, "x")), mimeCMS, "CMS signed data, BER"},
		{"CMS in PEM", "-----BEGIN PKCS7-----\n" + lines(p7m) + "-----END PKCS7-----\n", mimeCMS, "CMS signed data, PEM"},
		{"CMS in Base64 lines", lines(p7m), mimeCMS, "CMS signed data, Base64"},
		{"CMS in one line of Base64", base64.StdEncoding.EncodeToString([]byte(p7m)), mimeCMS, "CMS signed data, Base64"},
		{"CMS cut behind its type", p7m[:17], mimeCMS, "CMS signed data, DER"},
		{"detached", signed(der, oidData), mimeDetached, "CMS detached signature, DER"},
		{"detached in BER", signed(ber, oidData), mimeDetached, "CMS detached signature, BER"},
		{"enveloped", der(0x30, oidEnvelopedData+der(0xa0, "")), mimeCMS, "CMS encrypted data, DER"},
		{"bare token", signed(der, oidTSTInfo+der(0xa0, der(0x04, "x"))), mimeTST, "RFC 3161 time-stamp token, DER"},
		{"response", der(0x30, der(0x30, "\x02\x01\x00")+signed(der, oidTSTInfo+der(0xa0, der(0x04, "x")))), mimeTSR, "RFC 3161 time-stamp response, DER"},
		{"timestamped data", der(0x30, oidTimestamped+der(0xa0, "")), mimeTSD, "timestamped data, RFC 5544, DER"},
		{"refused response is no document", der(0x30, der(0x30, "\x02\x01\x02")), mimeUnknown, "unrecognised"},
		{"private key", "-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----\n", mimePEM, "PEM PRIVATE KEY"},
		{"Base64 of something else", lines(strings.Repeat("testo ", 40)), mimeText, "plain text"},

		{"PDF", "%PDF-1.7\n", mimePDF, "PDF 1.7"},
		{"PDF behind a scanner's line", "\r\n\x1b%-12345X@PJL\r\n%PDF-1.4\n", mimePDF, "PDF 1.4"},
		{"PDF behind binary junk", "\x00\x01\x02junk%PDF-1.4\n", mimePDF, "PDF 1.4"},
		{"a PDF mentioned in a text", "il file comincia con %PDF-1.4\n", mimeText, "plain text"},
		{"a PDF in a message", "From: a\nTo: b\n\n%PDF-1.4\n", mimeEML, "e-mail message"},
		{"a PDF in an envelope", signed(der, attached(der, "%PDF-1.4\n")), mimeCMS, "CMS signed data, DER"},
		{"a PDF in a tar", "a.pdf" + strings.Repeat("\x00", 95) + "0000644\x000000000\x000000000\x0000000000010\x0000000000000\x00010245\x00 0" + strings.Repeat("\x00", 100) + "ustar\x0000" + strings.Repeat("\x00", 247) + "%PDF-1.4", "application/x-tar", "tar"},
		{"PDF without version", "%PDF-", mimePDF, "PDF"},

		{"invoice", `<?xml version="1.0" encoding="UTF-8"?>` + "\n<!-- c --><?xml-stylesheet href='a'?>" + invoice, mimeXML, "FatturaPA"},
		{"invoice with BOM", "\ufeff" + `<?xml version="1.0"?>` + invoice, mimeXML, "FatturaPA"},
		{"invoice in windows-1252", `<?xml version="1.0" encoding="windows-1252"?>` + invoice + "Societ\xe0 \x93Alfa\x94", mimeXML, "FatturaPA"},
		{"invoice in UTF-16", utf16LE(`<?xml version="1.0" encoding="UTF-16"?>` + invoice), mimeXML, "FatturaPA"},
		{"invoice without declaration", invoice, mimeXML, "FatturaPA"},
		{"XML with a document type", `<?xml version="1.0"?><!DOCTYPE Segnatura SYSTEM "s.dtd" [<!ENTITY a "b">]><Segnatura>`, mimeXML, "segnatura di protocollo"},
		{"PEC data", `<?xml version="1.0"?><postacert tipo="accettazione">`, mimeXML, "PEC certification data"},
		{"XML without declaration or namespace", `<UnitaDocumentaria a="1"><Intestazione/>`, mimeXML, "XML"},
		{"text between angle brackets", "<nome cognome> ha presentato istanza", mimeText, "plain text"},
		{"HTML", "<!DOCTYPE html><html><body>", "text/html", "HTML"},
		{"SVG", `<svg xmlns="http://www.w3.org/2000/svg">`, "image/svg+xml", "SVG"},

		{"mail", "Received: from a\r\n\tby b\r\nX-Trasporto: posta-certificata\r\nSubject: x\r\n\r\n", mimeEML, "e-mail message"},
		{"mailbox", "From a@b Thu Jan  1 00:00:00 2026\nFrom: a\nTo: b\n\n", mimeMbox, "mailbox"},
		{"a list is no mail", "Oggetto: lavori\nData: domani\nImporto: 10\n", mimeText, "plain text"},
		{"text", "Perché no\n", mimeText, "plain text"},
		{"text in windows-1252", "Perch\xe9 no, citt\xe0 e \x93virgolette\x94 per tutti gli enti\n", mimeText, "plain text"},
		{"text cut within a letter", strings.Repeat("a", HeadSize-1) + "\xc3", mimeText, "plain text"},
		{"CSV", "a;b;c\n", mimeText, "plain text"},
		{"CSV with commas", "nome,importo\nAlfa,1\nBeta,2\n", "text/csv", "CSV"},
		{"JSON", `{"a": [1, 2]}`, mimeJSON, "JSON"},
		{"minutes that begin with MZ", "MZ 12 del 3 marzo\n", mimeText, "plain text"},
		{"text that begins with FWS", "FWS\x20per tutti\n", mimeText, "plain text"},
		{"text that begins with BM", "BM comunale, elenco dei beni mobili\n", mimeText, "plain text"},
		{"text that begins with ID3", "ID3 elenco\n", mimeText, "plain text"},

		{"DOCX", zipOf(t, [2]string{"[Content_Types].xml", contentTypesXML("openxmlformats-officedocument.wordprocessingml.document.main+xml")}), mimePrefixDoc + "wordprocessingml.document", "Word document"},
		{"XLSX told by folder", zipOf(t, [2]string{"[Content_Types].xml", "<Types/>"}, [2]string{"xl/workbook.xml", "<w/>"}), mimePrefixDoc + "spreadsheetml.sheet", "Excel workbook"},
		{"DOCM", zipOf(t, [2]string{"[Content_Types].xml", contentTypesXML("ms-word.document.macroEnabled.main+xml")}), "application/vnd.ms-word.document.macroenabled.12", "Word document with macros"},
		{"ODT", zipOf(t, [2]string{"mimetype", "application/vnd.oasis.opendocument.text"}, [2]string{"content.xml", "<a/>"}), "application/vnd.oasis.opendocument.text", "OpenDocument text"},
		{"ASiC-E", zipOf(t, [2]string{"mimetype", "application/vnd.etsi.asic-e+zip"}, [2]string{"META-INF/ASiCManifest.xml", "<a/>"}), "application/vnd.etsi.asic-e+zip", "ASiC-E container"},
		{"ZIP", zipOf(t, [2]string{"determina.pdf", "%PDF-1.7"}), mimeZIP, "ZIP"},
		{"empty ZIP", zipOf(t), mimeZIP, "ZIP"},
		{"TIFF", "II*\x00\x08\x00\x00\x00", "image/tiff", "TIFF"},
		{"JPEG", "\xff\xd8\xff\xe0\x00\x10JFIF\x00", "image/jpeg", "JPEG"},
		{"OLE", "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + strings.Repeat("\x00", 600), mimeOLE, "OLE compound file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := DetectFormat([]byte(c.head))
			if f.MIME != c.mime || f.Description != c.description {
				t.Errorf("got %s (%s) want %s (%s)", f.MIME, f.Description, c.mime, c.description)
			}
			if f.Executable {
				t.Error("taken for a program")
			}
			if f.Encrypted != strings.Contains(c.description, "encrypted") {
				t.Errorf("got encrypted=%v", f.Encrypted)
			}
		})
	}
}

func TestDetectFormatKnowsPrograms(t *testing.T) {
	for _, c := range []struct{ name, head string }{
		{"Windows", "MZ\x90\x00\x03\x00\x00\x00"},
		{"ELF", "\x7fELF\x02\x01\x01\x00"},
		{"Mach-O", "\xcf\xfa\xed\xfe\x07\x00\x00\x01"},
		{"Mach-O universal", "\xca\xfe\xba\xbe\x00\x00\x00\x02"},
		{"Java class", "\xca\xfe\xba\xbe\x00\x00\x00\x41"},
		{"Android", "dex\n035\x00"},
		{"WebAssembly", "\x00asm\x01\x00\x00\x00"},
		{"shortcut", "L\x00\x00\x00\x01\x14\x02\x00\x00\x00"},
		{"shell script", "#!/bin/sh\nrm -rf /\n"},
		{"script behind a BOM", "\ufeff#!/usr/bin/env python3\n"},
		{"batch script", "\r\n@ECHO OFF\r\n"},
		{"PHP", "<?php system('id'); ?>"},
		{"HTA", "<html><head><HTA:APPLICATION id=a></head>"},
		{"Windows script", `<job id="a"><script language="VBScript">`},
		{"JAR", zipOf(t, [2]string{"META-INF/MANIFEST.MF", "Manifest-Version: 1.0"}, [2]string{"A.class", "x"})},
		{"APK", zipOf(t, [2]string{"res/a.png", "x"}, [2]string{"classes.dex", "x"})},
		{"Debian package", "!<arch>\ndebian-binary   1410122664  0     0     100644  4         `\n2.0\n"},
	} {
		if f := DetectFormat([]byte(c.head)); !f.Executable {
			t.Errorf("%s: got %s (%s) want a program", c.name, f.MIME, f.Description)
		}
	}
}

// Real files, as far as they are at hand; what each is was established with other tools.
func TestDetectFormatOnSampleFiles(t *testing.T) {
	root := filepath.Join("..", "..", "shared", "data")
	if _, err := os.Stat(root); err != nil {
		t.Skip("sample files are not here: ", err)
	}
	for pattern, want := range map[string]string{
		"italy/fatturapa/*/*.xml":                            "FatturaPA",
		"italy/sdi/notifications/*.xml":                      "SdI message",
		"italy/pdfa/*.pdf":                                   "PDF",
		"sacer/synthetic-signed/*.pdf.p7m":                   "CMS signed data",
		"sacer/synthetic-signed/pem_*.p7m":                   "CMS signed data, PEM",
		"sacer/synthetic-signed/b64_*.p7m":                   "CMS signed data, Base64",
		"sacer/synthetic-signed/*.p7s":                       "CMS detached signature, DER",
		"sacer/synthetic-signed/*.tsr":                       "RFC 3161 time-stamp response, DER",
		"sacer/synthetic-signed/*.tst":                       "RFC 3161 time-stamp token, DER",
		"sacer/synthetic-signed/*.cer":                       "X.509 certificate",
		"sacer/examples/*.xml":                               "", // XML of some dialect
		"sacer/examples/pindex.xml":                          "SInCRO index",
		"italy/agid-allegato6/*.xsd":                         "XML schema",
		"italy/titolario/*.json":                             "JSON",
		"italy/pagopa/samples/R*.xml":                        "pagoPA message",
		"italy/agid-allegato6/previous_schemas/*2013.xsd":    "XML schema",
		"italy/fatturapa/FatturaElettronica.NET/*FSM10*.xml": "FatturaPA, simplified",
	} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: no files (%v)", pattern, err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f := DetectFormat(b)
			if !strings.HasPrefix(f.Description, want) || f.MIME == mimeText || f.MIME == mimeUnknown || f.Executable {
				t.Errorf("%s: got %s (%s) want %s", name, f.MIME, f.Description, want)
			}
		}
	}
}

func TestClaimsAgreeAsFarAsLeadingBytesCanTell(t *testing.T) {
	for _, c := range []struct {
		claimed, found string
		want           bool
	}{
		{"application/pdf", mimePDF, true},
		{"Application/PDF; version=1.7", mimePDF, true},
		{"application/octet-stream", mimePDF, true},
		{"text/xml", mimeXML, true},
		{"text/plain", mimeXML, true},
		{"text/plain", "text/csv", true},
		{"text/csv", mimeText, true},
		{"application/csv", mimeText, true},
		{"application/sql", mimeText, true},
		{"text/markdown", mimeText, true},
		{"application/email", mimeEML, true},
		{"application/x-pkcs7-mime", mimeCMS, true},
		{"application/pkcs7-signature", mimeCMS, true},
		{"application/timestamp-reply", mimeTST, true},
		{"application/msword", mimeOLE, true},
		{"application/zip", mimePrefixDoc + "wordprocessingml.document", true},
		{mimePrefixDoc + "wordprocessingml.document", mimeZIP, true},
		{"application/vnd.etsi.asic-e+zip", mimeZIP, true},
		{"image/jpg", "image/jpeg", true},
		{"application/ld+json", mimeJSON, true},
		{"application/pdf", mimeCMS, false},
		{"application/pdf", mimeText, false},
		{"text/plain", mimePDF, false},
		{"image/png", "image/jpeg", false},
		{"application/msword", mimePrefixDoc + "wordprocessingml.document", false},
		{mimePrefixDoc + "spreadsheetml.sheet", mimePrefixDoc + "wordprocessingml.document", false},
		{"application/pdf", mimePE, false},
		{"application/xml", mimePDF, false},
	} {
		if got := agree(canonicalMIME(c.claimed), c.found); got != c.want {
			t.Errorf("%s against %s: got %v want %v", c.claimed, c.found, got, c.want)
		}
	}
	for _, s := range []string{"", "pdf", "PDF.P7M", "*/*", "a/", "/b", "a/b/c", "application/pdf;;"} {
		if got := canonicalMIME(s); got != "" {
			t.Errorf("%q: got %q want no MIME type", s, got)
		}
	}
}

func FuzzDetectFormat(f *testing.F) {
	for _, s := range []string{
		"", "%PDF-1.7", "PK\x03\x04", "MZ", "<?xml version='1.0'?><a xmlns=\"b\">", "<!DOCTYPE a [", "From a\nTo: b\nCc: c",
		signed(der, attached(der, "x")), signed(ber, oidData), "-----BEGIN CMS-----", "MIIG", "\xff\xfe<\x00a\x00", der(0x30, "\x30\x84\xff\xff\xff\xff"),
		zipOf(f, [2]string{"[Content_Types].xml", contentTypesXML("x")}),
	} {
		f.Add([]byte(s))
	}
	p, err := Builtin("comune")
	if err != nil {
		f.Fatal(err)
	}
	yes := true
	f.Fuzz(func(t *testing.T, b []byte) {
		format := DetectFormat(b)
		if canonicalMIME(format.MIME) == "" || format.Description == "" {
			t.Fatalf("got %+v", format)
		}
		if again := DetectFormat(b[:min(len(b), HeadSize)]); again != format {
			t.Fatalf("more than the head was looked at: got %+v want %+v", format, again)
		}
		d := Description{Type: "determina", Reserved: &yes, Files: []FileDescription{{Name: "a.pdf", Role: RoleMain, Size: int64(len(b)), Format: format.MIME}}}
		for _, x := range p.AdmitFile(d, 0, foundOf(b)) {
			if x.Rule == "format.mismatch" {
				t.Fatalf("a format disagrees with itself: %+v", x)
			}
		}
	})
}
