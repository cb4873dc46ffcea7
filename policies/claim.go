package policies

import (
	"mime"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// A producer says what a file is by a MIME type and by its extension; neither is believed. Both are compared
// with what the bytes show, as far as leading bytes can tell formats apart.

// aliases are names in use beside the one this package gives a format. "application/email" is what AgID's
// Allegato 2 prints for messages.
var aliases = map[string]string{
	"text/xml": mimeXML, "application/x-pkcs7-mime": mimeCMS, "application/pkcs7": mimeCMS, "application/x-p7m": mimeCMS,
	"application/x-pkcs7-signature": mimeDetached, "application/cms": mimeCMS, "application/email": mimeEML,
	"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "application/rtf": "text/rtf", "application/csv": "text/csv",
	"application/timestamp-token": mimeTST, "application/x-pkcs7-certificates": mimeCert, "application/x-x509-ca-cert": mimeCert,
	"application/dxf": "image/vnd.dxf", "image/x-dxf": "image/vnd.dxf", "application/x-zip-compressed": mimeZIP,
	"text/xsl": "application/xslt+xml", "text/json": mimeJSON,
}

// canonicalMIME gives the name that this package uses for a MIME type, without parameters, or "" when s is none.
func canonicalMIME(s string) string {
	name, _, err := mime.ParseMediaType(s)
	if err != nil || !strings.Contains(name, "/") || strings.Contains(name, "*") {
		return ""
	}
	if a, ok := aliases[name]; ok {
		return a
	}
	if m := mimetype.Lookup(name); m != nil {
		if known, _, _ := strings.Cut(m.String(), ";"); known != "text/xml" {
			return known
		}
		return mimeXML
	}
	return name
}

// families are formats that producers name by one another, and that differ for a verifier only.
var families = map[string]string{
	mimeCMS: "cms", mimeDetached: "cms",
	mimeTSR: "timestamp", mimeTST: "timestamp",
	"video/x-matroska": "matroska", "video/matroska": "matroska", "video/webm": "matroska",
}

// generic are answers of DetectFormat that stand for many formats whose difference leading bytes may not show.
var generic = map[string]bool{mimeText: true, mimeXML: true, mimeZIP: true, mimeOLE: true, mimeJSON: true}

// agree reports whether a file claimed to be one format can be what was found. Both are canonical names.
func agree(claimed, found string) bool {
	switch {
	case claimed == found || claimed == mimeUnknown: // "some bytes" claims nothing
		return true
	case families[claimed] != "" && families[claimed] == families[found]:
		return true
	}
	return isKindOf(found, claimed) || generic[found] && isKindOf(claimed, found)
}

// isKindOf reports whether a format is a special case of another: every CSV is text, every DOCX a ZIP.
func isKindOf(special, general string) bool {
	for _, parent := range parents(special) {
		if parent == general {
			return true
		}
	}
	return false
}

func parents(name string) []string {
	var list []string
	switch {
	case strings.HasSuffix(name, "+xml"):
		list = append(list, mimeXML, mimeText)
	case strings.HasSuffix(name, "+zip"), strings.HasPrefix(name, mimePrefixDoc), strings.Contains(name, "macroenabled"),
		strings.HasPrefix(name, "application/vnd.oasis.opendocument."):
		list = append(list, mimeZIP)
	case strings.HasSuffix(name, "+json"):
		list = append(list, mimeJSON, mimeText)
	case name == mimeXML, name == mimeJSON, name == mimeEML, name == mimeMbox, name == "application/sql",
		strings.HasPrefix(name, "text/") && name != mimeText:
		list = append(list, mimeText)
	}
	for m := mimetype.Lookup(name); m != nil; m = m.Parent() {
		if parent, _, _ := strings.Cut(m.String(), ";"); parent != name && parent != mimeUnknown {
			list = append(list, parent)
		}
	}
	return list
}

// extensions are those that a municipality's files have, with the format that belongs to each.
var extensions = map[string]string{
	".pdf": mimePDF, ".p7m": mimeCMS, ".p7s": mimeDetached, ".tsr": mimeTSR, ".tst": mimeTST, ".tsd": mimeTSD,
	".xml": mimeXML, ".xsd": mimeXML, ".xsl": "application/xslt+xml", ".eml": mimeEML, ".mbox": mimeMbox,
	".txt": mimeText, ".csv": "text/csv", ".json": mimeJSON, ".html": "text/html", ".htm": "text/html", ".rtf": "text/rtf",
	".docx": mimePrefixDoc + "wordprocessingml.document", ".xlsx": mimePrefixDoc + "spreadsheetml.sheet",
	".pptx": mimePrefixDoc + "presentationml.presentation", ".doc": "application/msword",
	".xls": "application/vnd.ms-excel", ".ppt": "application/vnd.ms-powerpoint", ".msg": "application/vnd.ms-outlook",
	".odt": "application/vnd.oasis.opendocument.text", ".ods": "application/vnd.oasis.opendocument.spreadsheet",
	".odp": "application/vnd.oasis.opendocument.presentation", ".odg": "application/vnd.oasis.opendocument.graphics",
	".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".tif": "image/tiff", ".tiff": "image/tiff",
	".gif": "image/gif", ".svg": "image/svg+xml", ".zip": mimeZIP, ".7z": "application/x-7z-compressed",
	".asice": "application/vnd.etsi.asic-e+zip", ".asics": "application/vnd.etsi.asic-s+zip", ".cer": mimeCert,
	".mp4": "video/mp4", ".mp3": "audio/mpeg", ".wav": "audio/wav", ".dwg": "image/vnd.dwg", ".dxf": "image/vnd.dxf",
	".exe": mimePE, ".dll": mimePE, ".jar": mimeJAR, ".apk": mimeAPK,
}

// runnable are extensions by which a plain text, or an OLE file, is run where it is opened. Content decides
// what a file is, and admits it; these names alone refuse what content cannot tell from a document.
var runnable = map[string]bool{
	".bat": true, ".cmd": true, ".ps1": true, ".psm1": true, ".vbs": true, ".vbe": true, ".js": true, ".jse": true,
	".wsf": true, ".wsh": true, ".hta": true, ".reg": true, ".sh": true, ".msi": true, ".msp": true, ".scr": true,
	".pif": true, ".exe": true, ".scf": true, ".inf": true, ".py": true, ".pl": true, ".php": true, ".jar": true,
}
