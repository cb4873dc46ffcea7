package policies

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"maps"
	"slices"
	"time"
)

//go:embed builtin/*.yaml
var builtin embed.FS

// Policy is a producer's rules: what is admitted, how long it stays, how often it is checked. It is made by
// Builtin or Parse, does not change, and may be used concurrently.
type Policy struct {
	Name  string
	Title string // for people

	limits     Limits
	audit      time.Duration
	refusals   int
	structures []string // admitted ones; empty: any
	registers  []string
	types      map[string]Type
	formats    map[string]Admission
	classes    map[string]Class
	levels     map[string]Level // of rules, where they differ from the rule's own

	canonical []byte
}

// Limits bounds a submission; sizes are in bytes.
type Limits struct {
	MaxFiles      int   `json:"files"`
	MaxFileSize   int64 `json:"file"`
	MaxSubmission int64 `json:"submission"` // all files together
	MaxMetadata   int64 `json:"metadata"`   // the description
}

// Type is a document type (tipologia documentale).
type Type struct {
	Title   string   `json:"title"`
	Require []string `json:"require,omitempty"` // members of the description that are otherwise optional
	Formats []string `json:"formats,omitempty"` // MIME types of the main file; empty: any admitted one
}

// Admission says how well an admitted format is suited to conservation, in the spirit of AgID's Allegato 2.
type Admission struct {
	Title     string    `json:"title"`
	Judgement Judgement `json:"judgement"`
}

// Judgement of a format.
type Judgement string

const (
	Suitable    Judgement = "suitable"    // idoneo alla conservazione
	Accepted    Judgement = "accepted"    // ammesso
	Discouraged Judgement = "discouraged" // ammesso, sconsigliato: will have to be migrated (riversamento)
)

// Class is a retention class: a series of the retention plan (piano di conservazione).
type Class struct {
	Title  string `json:"title"`
	Filing string `json:"filing,omitempty"` // title and class of the filing plan (titolario): "IV/12"
	Years  int    `json:"years"`            // 0: permanent
	From   string `json:"from,omitempty"`   // the event from which the years count
	Source string `json:"source,omitempty"` // the plan or law the row comes from
}

// The bounds within which a policy may set what the norms bound.
const (
	minRefusals = 3                        // Linee guida 4.7 c
	maxAudit    = 5 * 365 * 24 * time.Hour // Linee guida 4.5 f: at least every five years
	minAudit    = time.Hour                // less would only keep the store busy
	maxYears    = 4999                     // AgID Allegato 5, TempoDiConservazione
	maxBytes    = int64(1) << 50           // a PiB; JSON numbers stay exact
	policyForm  = "perenne policy v1"      // of the canonical form
)

// Builtin returns a policy that comes with the program. There is one, "comune".
func Builtin(name string) (*Policy, error) {
	b, err := builtin.ReadFile("builtin/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("policy %q: not built in; there is \"comune\"", name)
	}
	return Parse(b, nil)
}

// Limits returns the bounds of a submission.
func (p *Policy) Limits() Limits { return p.limits }

// AuditEvery returns the time within which every package is read again.
func (p *Policy) AuditEvery() time.Duration { return p.audit }

// RefusalLimit returns after how many refusals of one key somebody must look at it; at least 3.
func (p *Policy) RefusalLimit() int { return p.refusals }

// RetainUntil returns the day until which a document of the class is kept, counted from the event that the
// class names. It returns false when there is no such day: permanent, unknown or undefined classes, and
// classes whose event has not happened (zero from), are never disposed of.
func (p *Policy) RetainUntil(class string, from time.Time) (time.Time, bool) {
	c, ok := p.classes[class]
	if !ok || c.Years == 0 || from.IsZero() {
		return time.Time{}, false
	}
	return from.AddDate(c.Years, 0, 0), true
}

// Types returns the names of the document types, in order.
func (p *Policy) Types() []string { return slices.Sorted(maps.Keys(p.types)) }

// Type returns a document type.
func (p *Policy) Type(name string) (Type, bool) { t, ok := p.types[name]; return t, ok }

// Classes returns the names of the retention classes, in order.
func (p *Policy) Classes() []string { return slices.Sorted(maps.Keys(p.classes)) }

// Class returns a retention class.
func (p *Policy) Class(name string) (Class, bool) { c, ok := p.classes[name]; return c, ok }

// Formats returns the MIME types admitted, in order.
func (p *Policy) Formats() []string { return slices.Sorted(maps.Keys(p.formats)) }

// Format returns how a format is admitted.
func (p *Policy) Format(mime string) (Admission, bool) { a, ok := p.formats[mime]; return a, ok }

// Canonical returns the policy's canonical form: RFC 8785 JSON of everything that decides, with "form":
// "perenne policy v1". Equal forms decide alike under one version of the rules.
func (p *Policy) Canonical() []byte { return bytes.Clone(p.canonical) }

// Digest returns the SHA-256 of the canonical form. It stands in receipts.
func (p *Policy) Digest() [32]byte { return sha256.Sum256(p.canonical) }

// note makes a finding at the level that the policy gives its rule.
func (p *Policy) note(id, field string, args ...string) Finding {
	f := finding(id, field, args...)
	if level, ok := p.levels[id]; ok {
		f.Level = level
	}
	return f
}
