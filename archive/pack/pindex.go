package pack

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// PIndex is the SInCRO index of a package (UNI 11386:2020). What the standard has no element for stands in
// MoreInfo/EmbeddedMetadata, in the namespace urn:perenne:sincro:1, whose schema is sincro.xsd beside this
// file: generation and superseded package of the volume, original name and role of a file, IPA code and
// validity of an agent. Every field not marked optional must be filled:
// [PIndex.Marshal] refuses an empty one and names it.
type PIndex struct {
	// ID identifies this index, distinct from the volume it describes.
	ID string
	// Application is the program that made the package.
	Application Application
	// Volume is the package.
	Volume Volume
	// FileGroups hold every file under content/ and metadata/, each once; at least one group.
	FileGroups []FileGroup
	// Submitter handed the submission over.
	Submitter Agent
	// Holders own, possess or produced the documents; at least one; Role is one of the four of the schema.
	Holders []Agent
	// Signers answer for the package, the conservatore first; at least one; Role is free.
	Signers []Agent
	// Time is when the package was made, to the second, written in UTC.
	Time time.Time
	// Laws names the rules the package was made under (optional).
	Laws string
}

// Application is a program (CreatingApplication).
type Application struct {
	Name     string
	Version  string
	Producer string
}

// Volume describes the package (PVolume).
type Volume struct {
	// ID is the package identifier.
	ID string
	// Label is a short title (optional).
	Label string
	// Description says in a sentence what the package holds (optional).
	Description string
	// Generation counts the packages made for the same key: 0, then 1 + the annulments and disposals.
	Generation int64
	// Supersedes is the identifier of the package that this one replaces (optional).
	Supersedes string
}

// FileGroup is a group of files of a package, such as content and metadata.
type FileGroup struct {
	ID          string
	Label       string // optional
	Description string // optional
	Files       []IndexedFile
}

// IndexedFile is a file of a package as its index names it (File).
type IndexedFile struct {
	// ID identifies the file within the index; unique.
	ID string
	// Path is the name of the file in the container; unique.
	Path string
	// SHA256 is the digest of its bytes.
	SHA256 [32]byte
	// Format is its media type, such as application/pdf.
	Format string
	// Extension is the file name's extension without the dot (optional).
	Extension string
	// OriginalName is the name it was submitted under, any text (optional).
	OriginalName string
	// Role is its role in the document unit: main, attachment, annex, annotation, metadata … (optional).
	Role string
}

// AgentKind tells natural persons from legal ones; its values are the schema's.
type AgentKind string

// The two kinds of agent.
const (
	Natural AgentKind = "natural person"
	Legal   AgentKind = "legal person"
)

// HolderRole values that the schema admits as the Role of a holder.
const (
	HolderProducer  = "soggetto produttore"
	HolderOwner     = "soggetto proprietario"
	HolderPossessor = "soggetto possessore"
	HolderDetainer  = "soggetto detentore"
)

// Agent is a person or a body with a part in the making of a package.
type Agent struct {
	Kind AgentKind
	// TaxCode is the Italian codice fiscale, letters and digits; written as AgentID "CF:IT-<tax code>".
	TaxCode string
	// IPACode is the body's code in the Indice delle pubbliche amministrazioni (optional).
	IPACode string
	// FirstName and LastName of a natural person; empty for a legal one.
	FirstName, LastName string
	// FormalName of a legal person; empty for a natural one.
	FormalName string
	// Deeds are the acts the agent acts under: appointment, contract, manual; at least one.
	Deeds []RelevantDocument
	// Role in the process: for a holder one of the four of the schema, for a signer free, for the submitter
	// optional.
	Role string
	// ValidFrom and ValidTo bound the appointment (both optional; days, written in UTC).
	ValidFrom, ValidTo time.Time
}

// RelevantDocument names a deed.
type RelevantDocument struct {
	// Text says which deed it is.
	Text string
	// SHA256 is the digest of the deed; zero when there is none.
	SHA256 [32]byte
	// URI says where the deed is (optional).
	URI string
}

// Fixed values of the index.
const (
	sincroNamespace = "http://www.uni.com/U3011/sincro-v2/"
	sincroURI       = "http://www.uni.com/U3011/sincro-v2/PIndex.xsd"
	ownNamespace    = "urn:perenne:sincro:1"
	idScheme        = "perenne"
	hashFunction    = "SHA-256"

	secondForm = "2006-01-02T15:04:05Z"
	dayForm    = "2006-01-02"
)

var (
	taxCodeForm = regexp.MustCompile(`^[A-Z0-9]{11}([A-Z0-9]{5})?$`)
	uriForm     = regexp.MustCompile("^[!#-;=?-Z_a-z~]+$")
)

// Marshal writes the index in its one form, valid against the schema of UNI 11386:2020. Digests are in
// lower-case hexadecimal. It refuses empty mandatory fields, and values the schema has no room for, naming
// all of them.
func (p PIndex) Marshal() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	d := newDocument()
	d.begin("sincro:PIndex", attr{"xmlns:sincro", sincroNamespace}, attr{"xmlns:perenne", ownNamespace},
		attr{"sincro:language", "it"}, attr{"sincro:uri", sincroURI}, attr{"sincro:sincroVersion", "2.0"})
	d.begin("sincro:SelfDescription")
	d.sincroID(p.ID)
	d.begin("sincro:CreatingApplication")
	d.text("sincro:Name", p.Application.Name)
	d.text("sincro:Version", p.Application.Version)
	d.text("sincro:Producer", p.Application.Producer)
	d.end()
	d.end()
	p.Volume.write(d)
	for _, g := range p.FileGroups {
		g.write(d)
	}
	p.writeProcess(d)
	d.end()
	return d.bytes(), nil
}

func (d *document) sincroID(id string) { d.text("sincro:ID", id, attr{"sincro:scheme", idScheme}) }

// beginMore opens a MoreInfo that holds an element of our own namespace; endMore closes it.
func (d *document) beginMore(name string) {
	d.begin("sincro:MoreInfo", attr{"sincro:xmlSchema", ownNamespace})
	d.begin("sincro:EmbeddedMetadata")
	d.begin(name)
}

func (d *document) endMore() {
	d.end()
	d.end()
	d.end()
}

func (v Volume) write(d *document) {
	d.begin("sincro:PVolume")
	d.sincroID(v.ID)
	d.optional("sincro:Label", v.Label)
	d.optional("sincro:Description", v.Description)
	d.beginMore("perenne:Volume")
	d.text("perenne:Generation", strconv.FormatInt(v.Generation, 10))
	d.optional("perenne:Supersedes", v.Supersedes)
	d.endMore()
	d.end()
}

func (g FileGroup) write(d *document) {
	d.begin("sincro:FileGroup")
	d.sincroID(g.ID)
	d.optional("sincro:Label", g.Label)
	d.optional("sincro:Description", g.Description)
	for _, f := range g.Files {
		d.begin("sincro:File", attr{"sincro:encoding", "binary"},
			attr{"sincro:extension", f.Extension}, attr{"sincro:format", f.Format})
		d.sincroID(f.ID)
		d.text("sincro:Path", f.Path)
		d.text("sincro:Hash", hex.EncodeToString(f.SHA256[:]), attr{"sincro:hashFunction", hashFunction})
		if f.OriginalName != "" || f.Role != "" {
			d.beginMore("perenne:File")
			d.optional("perenne:OriginalName", f.OriginalName)
			d.optional("perenne:Role", f.Role)
			d.endMore()
		}
		d.end()
	}
	d.end()
}

func (p PIndex) writeProcess(d *document) {
	d.begin("sincro:Process")
	p.Submitter.write(d, "sincro:Submitter", attr{})
	for _, a := range p.Holders {
		a.write(d, "sincro:Holder", attr{"sincro:holderRole", a.Role})
	}
	for _, a := range p.Signers {
		a.write(d, "sincro:AuthorizedSigner", attr{"sincro:signerRole", a.Role})
	}
	d.begin("sincro:TimeReference")
	d.text("sincro:TimeInfo", p.Time.UTC().Format(secondForm), attr{"sincro:attachedTimeStamp", "false"})
	d.end()
	d.optional("sincro:LawsAndRegulations", p.Laws)
	d.end()
}

// write writes the agent; its role is an attribute where the schema has one.
func (a Agent) write(d *document, name string, role attr) {
	d.begin(name, attr{"sincro:agentType", string(a.Kind)}, role)
	d.text("sincro:AgentID", "CF:IT-"+a.TaxCode)
	d.begin("sincro:AgentName")
	if a.Kind == Natural {
		d.begin("sincro:NameAndSurname")
		d.text("sincro:FirstName", a.FirstName)
		d.text("sincro:LastName", a.LastName)
		d.end()
	} else {
		d.text("sincro:FormalName", a.FormalName)
	}
	d.end()
	for _, r := range a.Deeds {
		var digest, function string
		if r.SHA256 != [32]byte{} {
			digest, function = hex.EncodeToString(r.SHA256[:]), hashFunction
		}
		d.text("sincro:RelevantDocument", r.Text, attr{"sincro:docHash", digest},
			attr{"sincro:hashFunction", function}, attr{"sincro:uriDoc", r.URI})
	}
	ownRole := ""
	if role.name == "" {
		ownRole = a.Role
	}
	from, to := day(a.ValidFrom), day(a.ValidTo)
	if a.IPACode+ownRole+from+to != "" {
		d.beginMore("perenne:Agent")
		d.optional("perenne:IPACode", a.IPACode)
		d.optional("perenne:Role", ownRole)
		d.optional("perenne:ValidFrom", from)
		d.optional("perenne:ValidTo", to)
		d.endMore()
	}
	d.end()
}

// day is the date of t in UTC; "" for the zero time.
func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(dayForm)
}

// Match holds the index to the members of the container it lies in: the files under content/ and metadata/
// are those of the index, with the same digests. It returns ErrForm, naming the first that is missing on
// either side, or ErrDigest.
func (p PIndex) Match(members []Member) error {
	indexed := map[string][32]byte{}
	for _, g := range p.FileGroups {
		for _, f := range g.Files {
			indexed[f.Path] = f.SHA256
		}
	}
	for _, m := range members {
		if where, err := place(m.Name); err != nil || where != placeContent && where != placeMetadata {
			continue
		}
		sum, ok := indexed[m.Name]
		if !ok {
			return fmt.Errorf("%w: %s does not name %s", ErrForm, indexName, m.Name)
		}
		if sum != m.SHA256 {
			return fmt.Errorf("%w: %s: SHA-256 is not that of %s", ErrDigest, m.Name, indexName)
		}
		delete(indexed, m.Name)
	}
	if len(indexed) > 0 {
		first := slices.Sorted(maps.Keys(indexed))[0]
		return fmt.Errorf("%w: %s names %s, which is not there", ErrForm, indexName, first)
	}
	return nil
}

// check names every field that cannot be written.
func (p PIndex) check() error {
	f := &faults{of: "index"}
	f.need("ID", p.ID)
	f.need("Application.Name", p.Application.Name)
	f.need("Application.Version", p.Application.Version)
	f.need("Application.Producer", p.Application.Producer)
	f.need("Volume.ID", p.Volume.ID)
	if p.Volume.Generation < 0 {
		f.add("Volume.Generation", "is negative")
	}
	p.checkFiles(f)
	p.Submitter.check(f, "Submitter")
	if len(p.Holders) == 0 {
		f.add("Holders", "is empty")
	}
	for i, a := range p.Holders {
		field := fmt.Sprintf("Holders[%d]", i)
		a.check(f, field)
		switch a.Role {
		case HolderProducer, HolderOwner, HolderPossessor, HolderDetainer:
		default:
			f.add(field+".Role", "is not one of the schema's")
		}
	}
	if len(p.Signers) == 0 {
		f.add("Signers", "is empty")
	}
	for i, a := range p.Signers {
		a.check(f, fmt.Sprintf("Signers[%d]", i))
	}
	f.needTime("Time", p.Time)
	return f.err()
}

func (p PIndex) checkFiles(f *faults) {
	if len(p.FileGroups) == 0 {
		f.add("FileGroups", "is empty")
	}
	ids, paths := map[string]bool{}, map[string]bool{}
	for i, g := range p.FileGroups {
		group := fmt.Sprintf("FileGroups[%d]", i)
		f.need(group+".ID", g.ID)
		if len(g.Files) == 0 {
			f.add(group+".Files", "is empty")
		}
		for j, file := range g.Files {
			field := fmt.Sprintf("%s.Files[%d]", group, j)
			f.need(field+".ID", file.ID)
			f.need(field+".Format", file.Format)
			if err := checkName(file.Path); err != nil {
				f.add(field+".Path", "is no name of a container")
			}
			if file.SHA256 == [32]byte{} {
				f.add(field+".SHA256", "is empty")
			}
			if ids[file.ID] {
				f.add(field+".ID", "is given twice")
			}
			if paths[file.Path] {
				f.add(field+".Path", "is given twice")
			}
			ids[file.ID], paths[file.Path] = true, true
		}
	}
}

func (a Agent) check(f *faults, field string) {
	if !taxCodeForm.MatchString(a.TaxCode) {
		f.add(field+".TaxCode", "is not 11 or 16 capital letters and digits")
	}
	switch a.Kind {
	case Natural:
		f.need(field+".FirstName", a.FirstName)
		f.need(field+".LastName", a.LastName)
		if a.FormalName != "" {
			f.add(field+".FormalName", "is for legal persons")
		}
	case Legal:
		f.need(field+".FormalName", a.FormalName)
		if a.FirstName+a.LastName != "" {
			f.add(field+".FirstName", "is for natural persons")
		}
	default:
		f.add(field+".Kind", "is neither natural nor legal person")
	}
	if len(a.Deeds) == 0 {
		f.add(field+".Deeds", "is empty")
	}
	for i, r := range a.Deeds {
		deed := fmt.Sprintf("%s.Deeds[%d]", field, i)
		f.need(deed+".Text", r.Text)
		if _, err := url.Parse(r.URI); err != nil || r.URI != "" && !uriForm.MatchString(r.URI) {
			f.add(deed+".URI", "is no URI")
		}
	}
	if !a.ValidFrom.IsZero() {
		f.needTime(field+".ValidFrom", a.ValidFrom)
	}
	if !a.ValidTo.IsZero() {
		f.needTime(field+".ValidTo", a.ValidTo)
	}
}
