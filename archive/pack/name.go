package pack

import (
	"fmt"
	"regexp"
	"strings"
)

// The names with a meaning of their own.
const (
	mimetypeName  = "mimetype"
	indexName     = "PIndex.xml"
	manifestName  = "META-INF/ASiCManifest.xml"
	signatureName = "META-INF/signature.p7s"
)

const (
	maxName       = 255
	maxComponents = 8
)

var (
	component = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?$`)
	device    = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)`)
)

// checkName holds a name to the rules of the package comment.
func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("%w: name of %d bytes, %d at most", ErrForm, len(name), maxName)
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxComponents {
		return fmt.Errorf("%w: name %q has more than %d components", ErrForm, name, maxComponents)
	}
	for _, p := range parts {
		if !component.MatchString(p) || device.MatchString(p) {
			return fmt.Errorf("%w: unsafe name %q", ErrForm, name)
		}
	}
	return nil
}

// The places of a container, in order.
const (
	placeMimetype = iota
	placeContent
	placeMetadata
	placeIndex
	placeOther
	placeManifest
	placeSignature
)

// place tells where in a container the name belongs.
func place(name string) (int, error) {
	folder, _, nested := strings.Cut(name, "/")
	switch {
	case name == mimetypeName:
		return placeMimetype, nil
	case name == indexName:
		return placeIndex, nil
	case name == manifestName:
		return placeManifest, nil
	case name == signatureName:
		return placeSignature, nil
	case strings.EqualFold(folder, "META-INF"):
		return 0, fmt.Errorf("%w: %s has no place in META-INF", ErrForm, name)
	case nested && folder == "content":
		return placeContent, nil
	case nested && folder == "metadata":
		return placeMetadata, nil
	}
	return placeOther, nil
}

// sequence is the names of a container so far.
type sequence struct {
	last    int            // place of the last name
	index   map[string]int // lower-case name → number of the member
	folders map[string]bool
}

func newSequence() *sequence {
	return &sequence{index: map[string]int{}, folders: map[string]bool{}}
}

// admit takes the next name, or says why it may not stand here.
func (s *sequence) admit(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	where, err := place(name)
	if err != nil {
		return err
	}
	if len(s.index) >= maxMembers {
		return fmt.Errorf("%w: more than %d members", ErrForm, maxMembers)
	}
	if (len(s.index) == 0) != (where == placeMimetype) {
		return fmt.Errorf("%w: %s: %s comes first, once", ErrForm, name, mimetypeName)
	}
	if where < s.last {
		return fmt.Errorf("%w: %s out of order", ErrForm, name)
	}
	lower := strings.ToLower(name)
	if _, dup := s.index[lower]; dup {
		return fmt.Errorf("%w: name %s given twice", ErrForm, name)
	}
	if s.folders[lower] {
		return fmt.Errorf("%w: name %s is a folder of another", ErrForm, name)
	}
	for i := range lower {
		if lower[i] != '/' {
			continue
		}
		if _, file := s.index[lower[:i]]; file {
			return fmt.Errorf("%w: %s lies under another file", ErrForm, name)
		}
		s.folders[lower[:i]] = true
	}
	s.last = where
	s.index[lower] = len(s.index)
	return nil
}

// complete says whether the names make a whole container.
func (s *sequence) complete() error {
	if s.last != placeSignature {
		return fmt.Errorf("%w: no %s at its end", ErrForm, signatureName)
	}
	if _, ok := s.index[strings.ToLower(manifestName)]; !ok {
		return fmt.Errorf("%w: no %s", ErrForm, manifestName)
	}
	return nil
}

const (
	maxSafeName  = 100
	maxExtension = 10
)

// SafeName makes the name of file number i of a submission, under content/, from the name it was submitted
// under: "content/<i, three digits or more>-<slug>.<extension>", at most 100 bytes. The slug is what is left
// of the last component of the original in lower-case letters, digits and '_', runs of anything else
// becoming one '-'; accents are dropped, and nothing left is "file". The extension is what follows the last
// dot, if that is 1 to 10 letters or digits; one that wraps another, such as p7m, keeps the one before it
// too. Equal arguments give equal names; different i give different names.
func SafeName(i int, original string) string {
	name := original[strings.LastIndexAny(original, `/\`)+1:]
	stem, ext := cutExtension(name)
	if inner := ""; wrappers[ext] {
		if stem, inner = cutExtension(stem); inner != "" {
			ext = inner + "." + ext
		}
	}
	if ext != "" {
		ext = "." + ext
	}
	prefix := fmt.Sprintf("content/%03d-", i)
	room := maxSafeName - len(prefix) - len(ext)
	s := slug(stem)
	if len(s) > room {
		s = strings.TrimRight(s[:room], "-")
	}
	if s == "" {
		s = "file"
	}
	return prefix + s + ext
}

// wrappers are extensions of formats that hold another file, named before them.
var wrappers = map[string]bool{"p7m": true, "m7m": true, "tsd": true, "p7s": true, "tsr": true, "gz": true}

// cutExtension splits a name before its last dot; ext is in lower case, and empty if there is none to keep.
func cutExtension(name string) (stem, ext string) {
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 {
		return name, ""
	}
	ext = strings.ToLower(name[dot+1:])
	if len(ext) == 0 || len(ext) > maxExtension || strings.ContainsFunc(ext, func(r rune) bool { return !plain(r) }) {
		return name, ""
	}
	return name[:dot], ext
}

func plain(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }

// slug is s in the alphabet of names.
func slug(s string) string {
	var b strings.Builder
	gap := false
	for _, r := range strings.ToLower(s) {
		letters, ok := latin[r]
		switch {
		case plain(r) || r == '_':
			letters = string(r)
		case r >= 0x300 && r <= 0x36F: // combining accents
			continue
		case !ok:
			gap = b.Len() > 0
			continue
		}
		if gap {
			b.WriteByte('-')
			gap = false
		}
		b.WriteString(letters)
	}
	return b.String()
}

// latin spells accented letters of the languages of Europe without accents.
var latin = spell(map[string]string{
	"a": "àáâãäåāăą", "ae": "æ", "c": "çćĉċč", "d": "ďđð", "e": "èéêëēĕėęě", "g": "ĝğġģ", "h": "ĥħ",
	"i": "ìíîïĩīĭįı", "j": "ĵ", "k": "ķ", "l": "ĺļľŀł", "n": "ñńņňŉ", "o": "òóôõöøōŏő", "oe": "œ",
	"r": "ŕŗř", "s": "śŝşšș", "ss": "ß", "t": "ţťŧț", "th": "þ", "u": "ùúûüũūŭůűų", "w": "ŵ", "y": "ýÿŷ", "z": "źżž",
})

func spell(groups map[string]string) map[rune]string {
	m := map[rune]string{}
	for letters, accented := range groups {
		for _, r := range accented {
			m[r] = letters
		}
	}
	return m
}
