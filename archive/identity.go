package archive

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
)

// idText is the alphabet of identifiers: RFC 4648 base32, lower case, no padding; 160 bits are 32 characters.
var idText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// packageID derives a package's identifier from what was submitted (docs/formats.md §5): retries meet, and
// whoever lacks the name key learns nothing from it.
func (p *producer) packageID(key policies.Key, generation int64, metadata string, files []paper.BodyFile) (string, error) {
	type file struct {
		Path   string `json:"path"`
		SHA256 string `json:"sha256"`
	}
	in := struct {
		Files      []file        `json:"files"`
		Generation int64         `json:"generation"`
		Key        paper.BodyKey `json:"key"`
		Metadata   string        `json:"metadata"`
		Producer   string        `json:"producer"`
	}{[]file{}, generation, bodyKey(key), metadata, p.Code}
	for _, f := range files {
		in.Files = append(in.Files, file{f.Path, f.SHA256})
	}
	return p.name(in)
}

// refusalID is the identifier of a refusal: the same submission under the same policy has the same.
func (p *producer) refusalID(key paper.BodyKey, submission string, policy string) (string, error) {
	return p.name(struct {
		Key        paper.BodyKey `json:"key"`
		Policy     string        `json:"policy"`
		Producer   string        `json:"producer"`
		Refusal    bool          `json:"refusal"`
		Submission string        `json:"submission"`
	}{key, policy, p.Code, true, submission})
}

func (p *producer) name(v any) (string, error) {
	text, err := canon.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := p.hmac(text)
	return idText.EncodeToString(sum[:20]), nil
}

// keyHMAC is how a key stands in the ledger.
func (p *producer) keyHMAC(k policies.Key) string {
	sum := p.hmac(k.Canonical())
	return hex.EncodeToString(sum)
}

func (p *producer) hmac(text []byte) []byte {
	h := hmac.New(sha256.New, p.NameKey)
	h.Write(text)
	return h.Sum(nil)
}

func bodyKey(k policies.Key) paper.BodyKey {
	return paper.BodyKey{Structure: k.Structure, Register: k.Register, Year: k.Year, Number: k.Number}
}

// packageKey is where a package lies; attempt 2 and above stand beside an object that is no package of ours.
func packageKey(producer, id string, attempt int) string {
	if attempt > 1 {
		return fmt.Sprintf("%s/packages/%s/%s.%d.asice", producer, id[:2], id, attempt)
	}
	return fmt.Sprintf("%s/packages/%s/%s.asice", producer, id[:2], id)
}

// validID reports whether text has the form of an identifier.
func validID(text string) bool {
	b, err := idText.DecodeString(text)
	return err == nil && len(b) == 20 && idText.EncodeToString(b) == text
}
