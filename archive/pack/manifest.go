package pack

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Reference is a line of the manifest: a member and its digest.
type Reference struct {
	Name      string
	MediaType string
	SHA256    [32]byte
}

// The fixed text of the manifest.
const (
	manifestOpen = xmlDeclaration +
		`<asic:ASiCManifest xmlns:asic="http://uri.etsi.org/02918/v1.2.1#" xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` + "\n" +
		`<asic:SigReference URI="META-INF/signature.p7s" MimeType="application/pkcs7-signature"/>` + "\n"
	manifestURI    = `<asic:DataObjectReference URI="`
	manifestType   = `" MimeType="`
	manifestDigest = `"><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue>`
	manifestNext   = "</ds:DigestValue></asic:DataObjectReference>\n"
	manifestClose  = "</asic:ASiCManifest>\n"

	maxMediaType = 127
	// maxReference bounds the bytes of one reference.
	maxReference = len(manifestURI) + maxName + len(manifestType) + maxMediaType + len(manifestDigest) + 44 + len(manifestNext)
)

var mediaTypeForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*$`)

// MarshalManifest writes the ASiC manifest (EN 319 162-1, clause A.4) that names the references, in their
// order.
func MarshalManifest(refs []Reference) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(manifestOpen)
	for _, r := range refs {
		if err := checkName(r.Name); err != nil {
			return nil, err
		}
		if len(r.MediaType) > maxMediaType || !mediaTypeForm.MatchString(r.MediaType) {
			return nil, fmt.Errorf("%w: %s: media type %q", ErrForm, r.Name, r.MediaType)
		}
		for _, s := range [...]string{
			manifestURI, r.Name, manifestType, r.MediaType,
			manifestDigest, base64.StdEncoding.EncodeToString(r.SHA256[:]), manifestNext,
		} {
			b.WriteString(s)
		}
	}
	b.WriteString(manifestClose)
	return b.Bytes(), nil
}

// ParseManifest reads a manifest. It returns ErrForm for any bytes but those that MarshalManifest writes.
// That the names are those of a container is for its reader to check.
func ParseManifest(b []byte) ([]Reference, error) {
	rest, ok := bytes.CutPrefix(b, []byte(manifestOpen))
	if !ok {
		return nil, fmt.Errorf("%w: %s: its opening", ErrForm, manifestName)
	}
	var refs []Reference
	for {
		if string(rest) == manifestClose {
			return refs, nil
		}
		var r Reference
		if r, rest, ok = cutReference(rest); !ok || checkName(r.Name) != nil {
			return nil, fmt.Errorf("%w: %s: reference %d", ErrForm, manifestName, len(refs)+1)
		}
		refs = append(refs, r)
	}
}

// cutReference reads one reference from the front of b.
func cutReference(b []byte) (r Reference, rest []byte, ok bool) {
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok || len(line) >= maxReference {
		return r, nil, false
	}
	s, ok := strings.CutPrefix(string(line)+"\n", manifestURI)
	if !ok {
		return r, nil, false
	}
	name, s, ok := strings.Cut(s, manifestType)
	if !ok {
		return r, nil, false
	}
	mediaType, s, ok := strings.Cut(s, manifestDigest)
	if !ok || len(mediaType) > maxMediaType || !mediaTypeForm.MatchString(mediaType) {
		return r, nil, false
	}
	digest, ok := strings.CutSuffix(s, manifestNext)
	if !ok || len(digest) != 44 {
		return r, nil, false
	}
	sum, err := base64.StdEncoding.Strict().DecodeString(digest)
	if err != nil || len(sum) != len(r.SHA256) {
		return r, nil, false
	}
	return Reference{Name: name, MediaType: mediaType, SHA256: [32]byte(sum)}, rest, true
}

// references are the lines of the manifest over the members.
func references(members []Member) []Reference {
	refs := make([]Reference, len(members))
	for i, m := range members {
		refs[i] = Reference{Name: m.Name, MediaType: mediaType(m.Name), SHA256: m.SHA256}
	}
	return refs
}

// mediaType guesses from the extension. It serves readers that want a type; the index has the real one.
func mediaType(name string) string {
	if name == mimetypeName {
		return "text/plain"
	}
	if t, ok := mediaTypes[strings.ToLower(path.Ext(name))]; ok {
		return t
	}
	return "application/octet-stream"
}

var mediaTypes = map[string]string{
	".asice": "application/vnd.etsi.asic-e+zip",
	".csv":   "text/csv",
	".doc":   "application/msword",
	".docx":  "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".dwg":   "image/vnd.dwg",
	".dxf":   "image/vnd.dxf",
	".eml":   "message/rfc822",
	".gif":   "image/gif",
	".htm":   "text/html",
	".html":  "text/html",
	".jpeg":  "image/jpeg",
	".jpg":   "image/jpeg",
	".json":  "application/json",
	".mp3":   "audio/mpeg",
	".mp4":   "video/mp4",
	".odp":   "application/vnd.oasis.opendocument.presentation",
	".ods":   "application/vnd.oasis.opendocument.spreadsheet",
	".odt":   "application/vnd.oasis.opendocument.text",
	".p7m":   "application/pkcs7-mime",
	".p7s":   "application/pkcs7-signature",
	".pdf":   "application/pdf",
	".png":   "image/png",
	".pptx":  "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".rtf":   "application/rtf",
	".svg":   "image/svg+xml",
	".tif":   "image/tiff",
	".tiff":  "image/tiff",
	".tsd":   "application/timestamped-data",
	".tsr":   "application/timestamp-reply",
	".txt":   "text/plain",
	".wav":   "audio/x-wav",
	".xls":   "application/vnd.ms-excel",
	".xlsx":  "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	".xml":   "application/xml",
	".xsd":   "application/xml",
	".zip":   "application/zip",
}
