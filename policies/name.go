package policies

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A name is what the producer called a file. It is kept in the index as it came and never becomes a path or
// a key here, so most of what is odd is admitted with a warning for those who will write it to a disk.

const (
	maxName         = 1024 // bytes; longer ones are refused
	maxPortableName = 255  // bytes; longer ones fit no usual file system
)

func (c *check) name(name, field string) {
	switch {
	case strings.TrimSpace(name) == "":
		c.note("field.required", field, "name", "name")
		return
	case forbiddenName(name):
		c.note("name.forbidden", field, "value", quoted(name))
		return
	}
	if misleadingName(name) {
		c.note("name.misleading", field, "value", quoted(name))
	}
	if !portableName(name) {
		c.note("name.portable", field, "value", quoted(name))
	}
	if !norm.NFC.IsNormalString(name) {
		c.note("text.normalised", field)
	}
}

func forbiddenName(name string) bool {
	if !utf8.ValidString(name) || len(name) > maxName || name == "." || name == ".." {
		return true
	}
	for _, r := range name {
		if r == '/' || r == '\\' || unicode.IsControl(r) || !isXMLChar(r) {
			return true
		}
	}
	return false
}

// slashes are characters that look like a path separator.
const slashes = "⁄∕⧸⧵／＼"

// misleadingName finds invisible and direction-changing characters, lines, false separators, and words
// that mix Latin letters with Cyrillic or Greek ones.
func misleadingName(name string) bool {
	latin, other := false, false
	for _, r := range name {
		switch {
		case isInvisible(r) || strings.ContainsRune(slashes, r):
			return true
		case !unicode.IsLetter(r) && !unicode.IsMark(r):
			latin, other = false, false
		case unicode.Is(unicode.Latin, r):
			latin = true
		case unicode.In(r, unicode.Cyrillic, unicode.Greek):
			other = true
		}
		if latin && other {
			return true
		}
	}
	return false
}

// devices are names that Windows keeps for itself, with any extension.
var devices = map[string]bool{
	"con": true, "prn": true, "aux": true, "nul": true, "conin$": true, "conout$": true,
	"com0": true, "com1": true, "com2": true, "com3": true, "com4": true, "com5": true, "com6": true, "com7": true,
	"com8": true, "com9": true, "lpt0": true, "lpt1": true, "lpt2": true, "lpt3": true, "lpt4": true, "lpt5": true,
	"lpt6": true, "lpt7": true, "lpt8": true, "lpt9": true,
}

// portableName wants a name that Windows, Linux and macOS can write, that a spreadsheet takes for no formula,
// a shell for no option and a web server for no escape.
func portableName(name string) bool {
	stem, _, _ := strings.Cut(strings.ToLower(name), ".")
	switch {
	case len(name) > maxPortableName, devices[strings.TrimSpace(stem)]:
		return false
	case strings.ContainsAny(name, `<>:"|?*`), strings.ContainsRune("=+-@", rune(name[0])):
		return false
	case name[0] == ' ' || strings.HasSuffix(name, " ") || strings.HasSuffix(name, "."):
		return false
	}
	for i := 0; i+2 < len(name); i++ {
		if name[i] == '%' && isHex(name[i+1]) && isHex(name[i+2]) {
			return false
		}
	}
	return true
}

// sameName is what two names have in common when a file system, or a reader, takes them for one.
func sameName(name string) string {
	return strings.TrimRight(strings.ToLower(norm.NFC.String(name)), ". ")
}

func extensionOf(name string) string {
	return strings.ToLower(path.Ext(strings.TrimRight(name, ". ")))
}

func isHex(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// isXMLChar is the production Char of XML 1.0: what the index of a package can carry.
func isXMLChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000
}

// isInvisible is true of characters without a form of their own: directions, joiners, selectors, fillers,
// separators of lines, and the control characters of ISO 6429 that a wrong decoding of windows-1252 leaves.
func isInvisible(r rune) bool {
	if r < 0x80 {
		return false
	}
	return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) ||
		unicode.IsControl(r)
}
