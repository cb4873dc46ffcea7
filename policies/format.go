package policies

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/gabriel-vasile/mimetype"
)

// HeadSize is how many leading bytes of a file DetectFormat wants, and how many last ones AdmitFile looks at.
const HeadSize = 4096

// Format is a file format as the leading bytes tell it: a statement about the file's form, not about whether
// it is well-formed or valid.
type Format struct {
	MIME        string // registered name where there is one; "application/octet-stream" when not recognised
	Extension   string // usual one, with the dot; "" when there is none
	Description string // for people, language-neutral: "PDF 1.7", "CMS signed data, BER"
	Executable  bool   // a program, a script, or a package of programs
	Encrypted   bool   // needs a key to be read
}

// The formats that other code of this package names.
const (
	mimeUnknown   = "application/octet-stream"
	mimeText      = "text/plain"
	mimeXML       = "application/xml"
	mimeZIP       = "application/zip"
	mimeOLE       = "application/x-ole-storage"
	mimePDF       = "application/pdf"
	mimeCMS       = "application/pkcs7-mime"
	mimeDetached  = "application/pkcs7-signature"
	mimeTSR       = "application/timestamp-reply"
	mimeTST       = "application/vnd.etsi.timestamp-token"
	mimeTSD       = "application/timestamped-data"
	mimeCert      = "application/pkix-cert"
	mimePEM       = "application/x-pem-file"
	mimeEML       = "message/rfc822"
	mimeMbox      = "application/mbox"
	mimeScript    = "text/x-script"
	mimeByteCode  = "application/x-java-applet"
	mimeMachO     = "application/x-mach-binary"
	mimePE        = "application/vnd.microsoft.portable-executable"
	mimeJAR       = "application/java-archive"
	mimeAPK       = "application/vnd.android.package-archive"
	mimeJSON      = "application/json"
	mimePrefixDoc = "application/vnd.openxmlformats-officedocument."
)

// DetectFormat names the format of a file that begins with head; more than HeadSize bytes are not looked at.
// The name of the file plays no part. Our own table comes first, a general library second, and of the
// library's answers those are dropped that a plain text can provoke.
func DetectFormat(head []byte) Format {
	head = head[:min(len(head), HeadSize)]
	if len(head) == 0 {
		return Format{MIME: mimeUnknown, Description: "no bytes"}
	}
	readable := isText(head)
	for _, detect := range [](func([]byte, bool) (Format, bool)){
		detectProgram, detectZIP, detectCMS, detectPDF, detectScript, detectXML, detectArmour, detectMail,
	} {
		if f, ok := detect(head, readable); ok {
			return f
		}
	}
	f := detectOther(head, readable)
	if f.MIME == mimeUnknown || f.MIME == mimeText {
		if pdf, ok := latePDF(head, readable); ok {
			return pdf
		}
	}
	return f
}

// detectProgram knows what a processor or a virtual machine would run. Signatures of letters alone ("MZ",
// "FWS") count only where the rest is no text: minutes may begin with them.
func detectProgram(head []byte, readable bool) (Format, bool) {
	if readable {
		return Format{}, false
	}
	for _, s := range programSignatures {
		if bytes.HasPrefix(head, []byte(s.magic)) {
			return program(s.mime, s.extension, s.description)
		}
	}
	if bytes.HasPrefix(head, []byte("\xca\xfe\xba\xbe")) && len(head) >= 8 {
		// A fat Mach-O file counts its architectures here; a Java class has its version, 45 or more.
		if binary.BigEndian.Uint32(head[4:]) < 40 {
			return program(mimeMachO, "", "Mach-O universal program")
		}
		return program(mimeByteCode, ".class", "Java class")
	}
	return Format{}, false
}

// detectScript knows texts that an interpreter would run, by their first line or by what makes Windows run
// a page.
func detectScript(head []byte, readable bool) (Format, bool) {
	if !readable {
		return Format{}, false
	}
	line := bytes.TrimLeft(trimBOM(head), " \t\r\n")
	lower := string(bytes.ToLower(line))
	switch {
	case bytes.HasPrefix(trimBOM(head), []byte("#!")):
		return program(mimeScript, ".sh", "script")
	case strings.HasPrefix(lower, "@echo off"), strings.HasPrefix(lower, "@echo on"):
		return program(mimeScript, ".bat", "batch script")
	case strings.HasPrefix(lower, "!<arch>\ndebian-binary"):
		return program("application/vnd.debian.binary-package", ".deb", "Debian package")
	case strings.HasPrefix(lower, "<?php"):
		return program("text/x-php", ".php", "PHP script")
	case strings.Contains(lower, "<hta:application"), strings.Contains(lower, "<job") && strings.Contains(lower, "<script language"):
		return program(mimeScript, ".hta", "Windows script")
	}
	return Format{}, false
}

func program(mime, extension, description string) (Format, bool) {
	return Format{MIME: mime, Extension: extension, Description: description, Executable: true}, true
}

var programSignatures = []struct{ magic, mime, extension, description string }{
	{"MZ", mimePE, ".exe", "Windows or DOS program"},
	{"\x7fELF", "application/x-elf", "", "ELF program"},
	{"\xfe\xed\xfa\xce", mimeMachO, "", "Mach-O program"},
	{"\xfe\xed\xfa\xcf", mimeMachO, "", "Mach-O program"},
	{"\xce\xfa\xed\xfe", mimeMachO, "", "Mach-O program"},
	{"\xcf\xfa\xed\xfe", mimeMachO, "", "Mach-O program"},
	{"dex\n", "application/vnd.android.dex", ".dex", "Android program"},
	{"\x00asm", "application/wasm", ".wasm", "WebAssembly program"},
	{"L\x00\x00\x00\x01\x14\x02\x00", "application/x-ms-shortcut", ".lnk", "Windows shortcut"},
	{"FWS", "application/x-shockwave-flash", ".swf", "Flash program"},
	{"CWS", "application/x-shockwave-flash", ".swf", "Flash program"},
	{"ZWS", "application/x-shockwave-flash", ".swf", "Flash program"},
	{"\xed\xab\xee\xdb", "application/x-rpm", ".rpm", "RPM package"},
	{"xar!", "application/x-xar", ".pkg", "macOS installer"},
	{"Cr24", "application/x-chrome-extension", ".crx", "browser extension"},
	{"ITSF", "application/vnd.ms-htmlhelp", ".chm", "Windows compiled help"},
}

// detectPDF wants the header at the very start; white space is forgiven.
func detectPDF(head []byte, _ bool) (Format, bool) {
	version, ok := bytes.CutPrefix(bytes.TrimLeft(trimBOM(head), " \t\r\n"), []byte("%PDF-"))
	return pdfFormat(version), ok
}

// latePDF finds the header anywhere in the first kilobyte, as readers do (ISO 32000-1, annex H.3.4.1), since
// scanners put lines of their own in front. It comes after everything else: envelopes, archives and messages
// with a PDF in them are not PDFs; in a text it must begin a line.
func latePDF(head []byte, readable bool) (Format, bool) {
	first := head[:min(len(head), 1024)]
	at := bytes.Index(first, []byte("%PDF-"))
	if at < 1 || readable && first[at-1] != '\n' && first[at-1] != '\r' {
		return Format{}, false
	}
	return pdfFormat(head[at+len("%PDF-"):]), true
}

func pdfFormat(version []byte) Format {
	f := Format{MIME: mimePDF, Extension: ".pdf", Description: "PDF"}
	if len(version) >= 3 && isDigit(version[0]) && version[1] == '.' && isDigit(version[2]) {
		f.Description += " " + string(version[:3])
	}
	return f
}

// mailHeaders are fields that open real messages: a "Name: value" line alone would make mail of any list.
var mailHeaders = map[string]bool{
	"received": true, "return-path": true, "delivered-to": true, "from": true, "to": true, "cc": true, "date": true,
	"subject": true, "message-id": true, "mime-version": true, "content-type": true, "reply-to": true, "sender": true,
	"dkim-signature": true, "authentication-results": true, "received-spf": true, "content-transfer-encoding": true,
	"x-ricevuta": true, "x-trasporto": true, "x-tiporicevuta": true, "x-riferimento-message-id": true,
	"x-verificasicurezza": true, "x-mittente": true, "in-reply-to": true, "references": true, "importance": true,
}

// detectMail takes for a message (RFC 5322) what begins with header lines of which two or more are usual
// ones, and for a mailbox (RFC 4155) the same behind a "From " line.
func detectMail(head []byte, readable bool) (Format, bool) {
	if !readable {
		return Format{}, false
	}
	f := Format{MIME: mimeEML, Extension: ".eml", Description: "e-mail message"}
	rest := string(trimBOM(head))
	if first, after, ok := strings.Cut(rest, "\n"); ok && strings.HasPrefix(first, "From ") {
		f = Format{MIME: mimeMbox, Extension: ".mbox", Description: "mailbox"}
		rest = after
	}
	usual := 0
	for n := 0; rest != "" && usual < 2; n++ {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		line = strings.TrimRight(line, "\r")
		if n > 0 && line != "" && (line[0] == ' ' || line[0] == '\t') {
			continue
		}
		name, _, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return Format{}, false
		}
		if lower := strings.ToLower(name); mailHeaders[lower] || strings.HasPrefix(lower, "arc-") {
			usual++
		}
	}
	return f, usual >= 2
}

// detectOther asks the library.
func detectOther(head []byte, readable bool) Format {
	m := mimetype.Detect(head)
	mime, _, _ := strings.Cut(m.String(), ";")
	if readable && !textual[mime] && !descends(m, mimeText) {
		mime, m = mimeText, mimetype.Lookup(mimeText)
	}
	switch {
	case len(head) > 262 && string(head[257:262]) == "ustar":
		mime, m = "application/x-tar", mimetype.Lookup("application/x-tar")
	case mime == mimePDF: // somewhere in the first kilobyte: latePDF knows better
		mime, m = mimeUnknown, mimetype.Lookup(mimeUnknown)
	case mime == mimeUnknown && bytes.HasPrefix(head, []byte("\xd0\xcf\x11\xe0")):
		mime = mimeOLE
	case mime == "text/xml":
		mime = mimeText // with a root element our own scanner would have known it
	}
	f := Format{MIME: mime, Extension: m.Extension(), Description: described[mime], Executable: executable[mime]}
	if f.Description == "" {
		f.Description = mime
	}
	return f
}

// descends reports whether m lies below ancestor in the library's tree.
func descends(m *mimetype.MIME, ancestor string) bool {
	for ; m != nil; m = m.Parent() {
		if m.Is(ancestor) {
			return true
		}
	}
	return false
}

// textual are formats whose signature is text though the library does not count them as text.
var textual = map[string]bool{
	"application/postscript": true, "application/vnd.fdf": true, "image/x-xpixmap": true, "image/vnd.dxf": true,
	"model/gltf+json": true, "application/vnd.apple.mpegurl": true,
}

// executable are answers of the library that mean a program.
var executable = map[string]bool{
	"application/x-ms-installer": true, "text/x-shellscript": true,
	"text/x-python": true, "text/x-perl": true, "text/x-php": true, "text/x-ruby": true, "text/x-lua": true,
	"text/x-tcl": true, "text/javascript": true, "application/x-bytecode.python": true, "application/x-object": true,
	"application/x-executable": true, "application/x-sharedlib": true, "application/x-elf": true, mimeJAR: true, mimeAPK: true,
}

// described gives words to answers of the library that a municipality meets.
var described = map[string]string{
	mimeText: "plain text", mimeUnknown: "unrecognised", mimeOLE: "OLE compound file", mimeJSON: "JSON",
	"text/csv": "CSV", "text/tab-separated-values": "TSV", "text/html": "HTML", "text/rtf": "RTF",
	"image/jpeg": "JPEG", "image/png": "PNG", "image/tiff": "TIFF", "image/gif": "GIF", "image/jp2": "JPEG 2000",
	"image/vnd.dwg": "DWG", "image/vnd.dxf": "DXF", "application/msword": "Word 97-2003",
	"application/vnd.ms-excel": "Excel 97-2003", "application/vnd.ms-powerpoint": "PowerPoint 97-2003",
	"application/vnd.ms-outlook": "Outlook message", "application/x-ms-installer": "Windows installer",
	"application/x-7z-compressed": "7-Zip", "application/vnd.rar": "RAR", "application/gzip": "gzip",
	"application/x-tar": "tar", "application/warc": "WARC", "video/mp4": "MP4", "audio/mpeg": "MP3",
	"text/calendar": "iCalendar", "text/vcard": "vCard", "application/postscript": "PostScript",
}

// isText reports whether the bytes are text in UTF-8, in UTF-16 with a byte order mark, or in an 8-bit
// encoding of Western Europe: no control characters but those of layout.
func isText(head []byte) bool {
	if bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff")) {
		return isText8(narrow(head))
	}
	return isText8(head)
}

func isText8(b []byte) bool {
	high, continuation := 0, 0
	for _, c := range b {
		switch {
		case c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1b:
		case c < 0x20 || c == 0x7f:
			return false
		case c >= 0x80:
			high++
			if c < 0xa0 {
				continuation++
			}
		}
	}
	// Of an 8-bit text few bytes are letters with accents; of compressed bytes half are high.
	return high == 0 || utf8.Valid(trimPartialRune(b)) || high*3 < len(b) && continuation*10 < len(b)+10
}

// narrow gives the low bytes of UTF-16 behind its byte order mark, '?' for what is not ASCII: enough to read
// markup.
func narrow(b []byte) []byte {
	little := b[0] == 0xff
	out := make([]byte, 0, len(b)/2)
	for i := 2; i+1 < len(b); i += 2 {
		lo, hi := b[i], b[i+1]
		if !little {
			lo, hi = hi, lo
		}
		if hi != 0 || lo >= 0x80 {
			lo = '?'
		}
		out = append(out, lo)
	}
	return out
}

// trimPartialRune drops the UTF-8 sequence that the end of the head has cut.
func trimPartialRune(b []byte) []byte {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if c >= 0xc0 && !utf8.FullRune(b[len(b)-n:]) {
				return b[:len(b)-n]
			}
			break
		}
	}
	return b
}

func trimBOM(b []byte) []byte { return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
