package main

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/storage"
)

// Producer is producers/<code>.yaml: a body that owns documents. What stands here goes into the SInCRO index
// of each package, so nothing may be left empty that the index needs.
type Producer struct {
	// Code is the body's code in the Indice delle pubbliche amministrazioni, lower case: c_x901.
	Code string `yaml:"code"`
	// Name is its denomination.
	Name string `yaml:"name"`
	// TaxCode is its codice fiscale.
	TaxCode string `yaml:"tax_code"`
	// Policy is the name of a policy that comes with the program; default comune.
	Policy string `yaml:"policy,omitempty"`
	// Rules override parts of that policy, in the form of policies/builtin/comune.yaml.
	Rules yaml.Node `yaml:"rules,omitempty"`
	// Responsible is the responsabile della conservazione, an officer of the body.
	Responsible Person `yaml:"responsible"`
	// Conservator is who runs the archive: the body itself, the lead body of an aggregation, a company.
	Conservator Body `yaml:"conservator"`
	// Manual is the manuale di conservazione in force.
	Manual Deed `yaml:"manual"`
	// Laws the packages are made under; optional.
	Laws string `yaml:"laws,omitempty"`
	// Tokens of the systems that may speak for this body; made by perenne token add.
	Tokens []Token `yaml:"tokens,omitempty"`
}

// Person is a natural person with an appointment.
type Person struct {
	FirstName string `yaml:"first_name"`
	LastName  string `yaml:"last_name"`
	TaxCode   string `yaml:"tax_code"`
	// Appointment is the deed of appointment.
	Appointment Deed `yaml:"appointment"`
	// From and To bound the appointment, YYYY-MM-DD; To may be open.
	From string `yaml:"from"`
	To   string `yaml:"to,omitempty"`
}

// Body is a legal person with an appointment.
type Body struct {
	Name        string `yaml:"name"`
	TaxCode     string `yaml:"tax_code"`
	Appointment Deed   `yaml:"appointment"`
	From        string `yaml:"from"`
	To          string `yaml:"to,omitempty"`
}

// Deed names an act.
type Deed struct {
	Text string `yaml:"text"`
	// SHA256 of the act, hex; optional.
	SHA256 string `yaml:"sha256,omitempty"`
	URI    string `yaml:"uri,omitempty"`
}

// Token is how a system proves that it may speak for the body. The token itself is shown once, when made.
type Token struct {
	Name    string     `yaml:"name"`
	Roles   []web.Role `yaml:"roles"`
	SHA256  string     `yaml:"sha256"`
	Expires string     `yaml:"expires,omitempty"` // YYYY-MM-DD
}

// A code becomes a component of keys and a file name; the names of other rooms of the bucket are not to be had.
var validCode = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{1,62}$`)

// maxCode bounds a code, a hyphen counting twice: the name of a copy in the spool (storage/spool) takes it so, beside
// the 150 characters that the rest of a package's needs, and has room for 200.
const maxCode = 40

// validTaxCode is the form of a codice fiscale that the SInCRO schema and its profile take.
var validTaxCode = regexp.MustCompile(`^([0-9]{11}|[A-Z0-9]{16})$`)

var reservedCodes = map[string]bool{"evidence": true, "keys": true, storage.ProbeRoom: true}

// check refuses an incomplete producer, naming the key. A read-only archive, which was made of a bucket alone and
// writes no package, may leave empty what it does not know.
func (p *Producer) check(file string, readOnly bool) error {
	bad := func(key, why string) error { return usagef("producers/%s: %s: %s", file, key, why) }
	if !validCode.MatchString(p.Code) || reservedCodes[p.Code] {
		return bad("code", "the IPA code in lower case, such as c_x901")
	}
	if file != p.Code+".yaml" {
		return bad("code", "must be the name of the file")
	}
	if readOnly {
		return p.checkTokens(bad)
	}
	if len(p.Code)+strings.Count(p.Code, "-") > maxCode {
		return bad("code", fmt.Sprintf("longer than %d characters, a hyphen counting twice: IPA codes are shorter", maxCode))
	}
	for _, f := range []struct{ key, value string }{
		{"name", p.Name},
		{"tax_code", p.TaxCode},
		{"responsible.first_name", p.Responsible.FirstName},
		{"responsible.last_name", p.Responsible.LastName},
		{"responsible.tax_code", p.Responsible.TaxCode},
		{"responsible.appointment.text", p.Responsible.Appointment.Text},
		{"responsible.from", p.Responsible.From},
		{"conservator.name", p.Conservator.Name},
		{"conservator.tax_code", p.Conservator.TaxCode},
		{"conservator.appointment.text", p.Conservator.Appointment.Text},
		{"conservator.from", p.Conservator.From},
		{"manual.text", p.Manual.Text},
	} {
		if strings.TrimSpace(f.value) == "" {
			return bad(f.key, "is empty, and the index of every package needs it")
		}
	}
	for _, f := range []struct{ key, value string }{
		{"tax_code", p.TaxCode}, {"responsible.tax_code", p.Responsible.TaxCode}, {"conservator.tax_code", p.Conservator.TaxCode},
	} {
		if !validTaxCode.MatchString(f.value) {
			return bad(f.key, "want 11 digits, or 16 capital letters and digits: the index of every package needs it")
		}
	}
	for _, d := range []struct{ key, value string }{
		{"responsible.appointment.uri", p.Responsible.Appointment.URI}, {"conservator.appointment.uri", p.Conservator.Appointment.URI}, {"manual.uri", p.Manual.URI},
	} {
		if u, err := url.Parse(d.value); d.value != "" && (err != nil || u.Scheme == "" || strings.ContainsAny(d.value, " <>\"")) {
			return bad(d.key, "want an absolute URI")
		}
	}
	for _, d := range []struct{ key, value string }{
		{"responsible.from", p.Responsible.From},
		{"responsible.to", p.Responsible.To},
		{"conservator.from", p.Conservator.From},
		{"conservator.to", p.Conservator.To},
	} {
		if _, err := time.Parse(time.DateOnly, d.value); d.value != "" && err != nil {
			return bad(d.key, "want YYYY-MM-DD")
		}
	}
	for _, d := range []struct{ key, value string }{
		{"responsible.appointment.sha256", p.Responsible.Appointment.SHA256},
		{"conservator.appointment.sha256", p.Conservator.Appointment.SHA256},
		{"manual.sha256", p.Manual.SHA256},
	} {
		if b, err := hex.DecodeString(d.value); d.value != "" && (err != nil || len(b) != 32) {
			return bad(d.key, "want 64 hex digits")
		}
	}
	return p.checkTokens(bad)
}

func (p *Producer) checkTokens(bad func(key, why string) error) error {
	for i, t := range p.Tokens {
		key := fmt.Sprintf("tokens[%d]", i)
		if b, err := hex.DecodeString(t.SHA256); err != nil || len(b) != 32 {
			return bad(key+".sha256", "want 64 hex digits; make tokens with perenne token add")
		}
		if len(t.Roles) == 0 {
			return bad(key+".roles", "is empty")
		}
		for _, r := range t.Roles {
			if !validRoles[r] {
				return bad(key+".roles", "want submit, read, audit or admin")
			}
		}
		if _, err := time.Parse(time.DateOnly, t.Expires); t.Expires != "" && err != nil {
			return bad(key+".expires", "want YYYY-MM-DD")
		}
	}
	return nil
}

// policy is the policy with the producer's overrides.
func (p *Producer) policy() (*policies.Policy, error) {
	name := p.Policy
	if name == "" {
		name = "comune"
	}
	base, err := policies.Builtin(name)
	if err != nil {
		return nil, usagef("producers/%s.yaml: policy: %v", p.Code, err)
	}
	if p.Rules.IsZero() {
		return base, nil
	}
	text, err := yaml.Marshal(&p.Rules)
	if err != nil {
		return nil, usagef("producers/%s.yaml: rules: %v", p.Code, err)
	}
	own, err := policies.Parse(text, base)
	if err != nil {
		return nil, usagef("producers/%s.yaml: rules: %v", p.Code, err)
	}
	return own, nil
}

func (d Deed) document() pack.RelevantDocument {
	r := pack.RelevantDocument{Text: d.Text, URI: d.URI}
	if b, err := hex.DecodeString(d.SHA256); err == nil && len(b) == 32 {
		r.SHA256 = [32]byte(b)
	}
	return r
}

func day(text string) time.Time {
	t, _ := time.Parse(time.DateOnly, text) // checked when the file was loaded; an open end is zero
	return t
}

// served is the producer as the archive wants it.
func (p *Producer) served(nameKey []byte) (archive.Producer, error) {
	policy, err := p.policy()
	if err != nil {
		return archive.Producer{}, err
	}
	body := pack.Agent{Kind: pack.Legal, TaxCode: p.TaxCode, IPACode: p.Code, FormalName: p.Name, Deeds: []pack.RelevantDocument{p.Manual.document()}}
	holder := body
	holder.Role = pack.HolderProducer
	return archive.Producer{
		Code: p.Code, Name: p.Name, TaxCode: p.TaxCode, Policy: policy, NameKey: nameKey, Laws: p.Laws,
		Submitter: body, Holders: []pack.Agent{holder},
		Signers: []pack.Agent{
			{
				Kind: pack.Legal, TaxCode: p.Conservator.TaxCode, FormalName: p.Conservator.Name, Role: "conservatore",
				Deeds: []pack.RelevantDocument{p.Conservator.Appointment.document()}, ValidFrom: day(p.Conservator.From), ValidTo: day(p.Conservator.To),
			},
			{
				Kind: pack.Natural, TaxCode: p.Responsible.TaxCode, FirstName: p.Responsible.FirstName, LastName: p.Responsible.LastName,
				Role:  "responsabile della conservazione",
				Deeds: []pack.RelevantDocument{p.Responsible.Appointment.document()}, ValidFrom: day(p.Responsible.From), ValidTo: day(p.Responsible.To),
			},
		},
	}, nil
}

// loadProducers reads every producer's file.
func (in *installation) loadProducers() ([]Producer, error) {
	files, err := os.ReadDir(in.path("producers"))
	if err != nil {
		return nil, usagef("producers: %v", err)
	}
	var all []Producer
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".yaml") {
			continue
		}
		var p Producer
		if err := loadYAML(in.path("producers", f.Name()), &p); err != nil {
			return nil, usagef("producers/%v", err)
		}
		if err := p.check(f.Name(), in.config.ReadOnly); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, usagef("producers/: no producer yet; add one with perenne producer add")
	}
	return all, nil
}

// writeYAML writes a configuration file that only its owner may write.
func writeYAML(path string, v any) error {
	text, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(path, text, 0o644)
}
