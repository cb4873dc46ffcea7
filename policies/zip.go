package policies

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"path"
	"strings"
)

const (
	localHeader    = "PK\x03\x04"
	dataDescriptor = "PK\x07\x08"
)

// member is what the local header of an archive's file says, and as much of its data as the head shows.
type member struct {
	name      string
	method    uint16
	encrypted bool
	data      []byte
}

// membersOf reads the local headers (APPNOTE 4.3.7) that lie in the head. Where a size is not stated there,
// the next signature is looked for.
func membersOf(head []byte) []member {
	var list []member
	for at := 0; at+30 <= len(head) && bytes.HasPrefix(head[at:], []byte(localHeader)); {
		h := head[at : at+30]
		flags := binary.LittleEndian.Uint16(h[6:])
		size := int64(binary.LittleEndian.Uint32(h[18:]))
		nameEnd := at + 30 + int(binary.LittleEndian.Uint16(h[26:]))
		start := nameEnd + int(binary.LittleEndian.Uint16(h[28:]))
		if nameEnd > len(head) {
			break
		}
		m := member{name: string(head[at+30 : nameEnd]), method: binary.LittleEndian.Uint16(h[8:]), encrypted: flags&1 != 0}
		end := int64(len(head))
		if start < len(head) {
			if flags&8 == 0 {
				end = min(end, int64(start)+size)
			} else if i := bytes.Index(head[start:], []byte(localHeader)); i >= 0 {
				end = int64(start + i)
			}
			m.data = head[start:end]
			if i := bytes.Index(m.data, []byte(dataDescriptor)); i >= 0 && flags&8 != 0 {
				m.data = m.data[:i]
			}
		}
		list = append(list, m)
		at = int(end)
	}
	return list
}

// detectZIP tells apart what is a ZIP outside: office documents, signed containers, programs, archives.
func detectZIP(head []byte, _ bool) (Format, bool) {
	archive := Format{MIME: mimeZIP, Extension: ".zip", Description: "ZIP"}
	if bytes.HasPrefix(head, []byte("PK\x05\x06")) || bytes.HasPrefix(head, []byte("PK\x07\x08")) {
		return archive, true
	}
	if !bytes.HasPrefix(head, []byte(localHeader)) {
		return Format{}, false
	}
	members := membersOf(head)
	for _, detect := range [](func([]member) (Format, bool)){declaredType, packageOfPrograms, officeOpenXML} {
		if f, ok := detect(members); ok {
			return f, true
		}
	}
	if len(members) > 0 && members[0].encrypted {
		archive.Description, archive.Encrypted = "ZIP, encrypted", true
	}
	return archive, true
}

// declaredType reads the first file "mimetype", stored, of OpenDocument, EPUB and ASiC.
func declaredType(members []member) (Format, bool) {
	if len(members) == 0 || members[0].name != "mimetype" || members[0].method != 0 {
		return Format{}, false
	}
	declared := strings.TrimSpace(string(members[0].data))
	for _, k := range containerTypes {
		if declared == k.MIME {
			return k, true
		}
	}
	return Format{}, false
}

var containerTypes = []Format{
	{MIME: "application/vnd.oasis.opendocument.text", Extension: ".odt", Description: "OpenDocument text"},
	{MIME: "application/vnd.oasis.opendocument.spreadsheet", Extension: ".ods", Description: "OpenDocument spreadsheet"},
	{MIME: "application/vnd.oasis.opendocument.presentation", Extension: ".odp", Description: "OpenDocument presentation"},
	{MIME: "application/vnd.oasis.opendocument.graphics", Extension: ".odg", Description: "OpenDocument drawing"},
	{MIME: "application/vnd.oasis.opendocument.text-template", Extension: ".ott", Description: "OpenDocument template"},
	{MIME: "application/epub+zip", Extension: ".epub", Description: "EPUB"},
	{MIME: "application/vnd.etsi.asic-e+zip", Extension: ".asice", Description: "ASiC-E container"},
	{MIME: "application/vnd.etsi.asic-s+zip", Extension: ".asics", Description: "ASiC-S container"},
}

func packageOfPrograms(members []member) (Format, bool) {
	for _, m := range members {
		switch {
		case m.name == "AndroidManifest.xml" || m.name == "classes.dex":
			return Format{MIME: mimeAPK, Extension: ".apk", Description: "Android package", Executable: true}, true
		case m.name == "META-INF/MANIFEST.MF" || path.Ext(m.name) == ".class":
			return Format{MIME: mimeJAR, Extension: ".jar", Description: "Java archive", Executable: true}, true
		}
	}
	return Format{}, false
}

// officeOpenXML decides by the type of the main part, which [Content_Types].xml states (ISO/IEC 29500-2), or,
// where the head does not show it, by the folder of the parts. Documents with macros have types of their own.
func officeOpenXML(members []member) (Format, bool) {
	var types []byte
	for _, m := range members {
		if m.name == "[Content_Types].xml" && !m.encrypted {
			types = contentTypes(m)
			break
		}
	}
	if types == nil {
		return Format{}, false
	}
	for _, k := range officeTypes {
		if bytes.Contains(types, []byte(k.main)) {
			return Format{MIME: k.mime, Extension: k.extension, Description: k.description}, true
		}
	}
	for _, m := range members {
		for _, k := range officeTypes {
			if k.folder != "" && strings.HasPrefix(m.name, k.folder) {
				return Format{MIME: k.mime, Extension: k.extension, Description: k.description}, true
			}
		}
	}
	return Format{}, false
}

// maxContentTypes bounds what [Content_Types].xml may swell to.
const maxContentTypes = 256 << 10

// contentTypes inflates as much of the part as the head holds; never nil.
func contentTypes(m member) []byte {
	switch m.method {
	case 0:
		return append([]byte{}, m.data...)
	case 8:
		r := flate.NewReader(bytes.NewReader(m.data))
		b, _ := io.ReadAll(io.LimitReader(r, maxContentTypes)) // the head may end within
		return append([]byte{}, b...)
	}
	return []byte{}
}

var officeTypes = []struct{ main, folder, mime, extension, description string }{
	{"wordprocessingml.document.main+xml", "word/", mimePrefixDoc + "wordprocessingml.document", ".docx", "Word document"},
	{"wordprocessingml.template.main+xml", "", mimePrefixDoc + "wordprocessingml.template", ".dotx", "Word template"},
	{"ms-word.document.macroEnabled", "", "application/vnd.ms-word.document.macroenabled.12", ".docm", "Word document with macros"},
	{"ms-word.template.macroEnabled", "", "application/vnd.ms-word.template.macroenabled.12", ".dotm", "Word template with macros"},
	{"spreadsheetml.sheet.main+xml", "xl/", mimePrefixDoc + "spreadsheetml.sheet", ".xlsx", "Excel workbook"},
	{"ms-excel.sheet.macroEnabled", "", "application/vnd.ms-excel.sheet.macroenabled.12", ".xlsm", "Excel workbook with macros"},
	{"ms-excel.sheet.binary", "", "application/vnd.ms-excel.sheet.binary.macroenabled.12", ".xlsb", "Excel binary workbook"},
	{"presentationml.presentation.main+xml", "ppt/", mimePrefixDoc + "presentationml.presentation", ".pptx", "PowerPoint presentation"},
	{"presentationml.slideshow.main+xml", "", mimePrefixDoc + "presentationml.slideshow", ".ppsx", "PowerPoint show"},
	{"ms-powerpoint.presentation.macroEnabled", "", "application/vnd.ms-powerpoint.presentation.macroenabled.12", ".pptm", "PowerPoint presentation with macros"},
}
