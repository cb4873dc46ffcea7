package pack

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Profile is the AgID metadata profile of a document unit: a DocumentoInformatico of Allegato 5 to the
// Linee guida. [Profile.Marshal] gives a document that is valid against the schema, or an error that names
// the field at fault. The schema's optional hours and TracciatureModificheDocumento are never written: a
// package is written once, and its changes are entries of the ledger.
type Profile struct {
	// Document identifies the main document.
	Document DocumentID
	// Formation says how the document came about.
	Formation Formation
	// Type is the tipologia documentale, such as "determina".
	Type string
	// Flow tells incoming, outgoing and internal documents apart.
	Flow Flow
	// Registration in a register or protocol.
	Registration Registration
	// Subjects with their roles; at least one.
	Subjects []Subject
	// Title is the oggetto.
	Title string
	// Keywords, at most five.
	Keywords []string
	// Attachments, at most 4999.
	Attachments []Attachment
	// Classification in the plan of the body (optional).
	Classification *Classification
	// Reserved marks documents of restricted access (riservato).
	Reserved bool
	// Format of the main document, such as "application/pdf".
	Format string
	// Product that made the main document (optional).
	Product *Product
	// Signed, Sealed, Timestamped say what the document carries.
	Signed, Sealed, Timestamped bool
	// ImageCopy says that conformity of image copies was verified.
	ImageCopy bool
	// Aggregations the document belongs to.
	Aggregations []AggregationRef
	// Primary is the primary document, when this one is an attachment (optional).
	Primary *DocumentID
	// Name of the main document's file, as submitted.
	Name string
	// Version of the document, such as "1".
	Version string
	// RetentionYears from 1 to 4999; 0 leaves the element out: undefined or permanent retention.
	RetentionYears int
	// Note is free text (optional).
	Note string
}

// DocumentID identifies a document by digest and name.
type DocumentID struct {
	SHA256     [32]byte
	Identifier string
}

// Formation is a modalità di formazione.
type Formation int

// The four ways in which a document comes about (Linee guida, 2.1.1).
const (
	FormationSoftware     Formation = iota + 1 // a: made with software
	FormationAcquired                          // b: acquired electronically, or copied from paper
	FormationTransactions                      // c: recorded from transactions or forms
	FormationAggregated                        // d: generated from data of one or more databases
)

// Flow is a tipologia di flusso.
type Flow string

// The three flows.
const (
	Incoming Flow = "E"
	Outgoing Flow = "U"
	Internal Flow = "I"
)

// RegistrationKind says what kind of register a document is entered in.
type RegistrationKind int

// The three kinds of register.
const (
	Unregistered RegistrationKind = iota // in no register
	Protocol                             // the protocol, ordinary or of emergency
	Register                             // a repertory or any other register
)

// Registration is where and when a document was registered.
type Registration struct {
	Kind RegistrationKind
	// Date of registration, or of the document; only year, month and day are used, as they stand in Date's
	// own location.
	Date time.Time
	// Number in the register. The schema wants seven digits or more of a protocol number: a shorter one is
	// padded with zeros on the left, one with other characters is refused.
	Number string
	// Code of the register; brought into the schema's form by [RegisterCode]. Unused when Unregistered.
	Code string
}

// Role of a subject; its values are the names of the schema's elements.
type Role string

// The roles of the schema, with what a subject in the role may be.
const (
	RoleRegistrar       Role = "SoggettoCheEffettuaLaRegistrazione" // Person or Organisation
	RoleAssignee        Role = "Assegnatario"                       // Assignee
	RoleRecipient       Role = "Destinatario"                       // Person, Organisation, Administration, Foreign
	RoleSender          Role = "Mittente"                           // Person, Organisation, Administration, Foreign
	RoleAuthor          Role = "Autore"                             // Person, Organisation, Administration, Foreign
	RoleOperator        Role = "Operatore"                          // Person
	RoleRecordsManager  Role = "ResponsabileGestioneDocumentale"    // Person
	RoleProtocolManager Role = "ResponsabileServizioProtocollo"     // Person
	RoleSystem          Role = "Produttore"                         // System
	RoleOther           Role = "Altro"                              // Person, Organisation, Administration, Foreign
)

// Subject is somebody or something in a role; exactly one of the pointers is set.
type Subject struct {
	Role           Role
	Person         *Person
	Organisation   *Organisation
	Administration *Administration
	Foreign        *ForeignAdministration
	Assignee       *Assignee
	System         *System
}

// Person is a natural person (PF).
type Person struct {
	LastName, FirstName string
	// TaxCode is left out where the schema's pattern rejects it (provisional numeric codes).
	TaxCode   string
	Addresses []string // indirizzi digitali di riferimento
}

// Organisation is a legal person that is no public administration (PG).
type Organisation struct {
	Name string
	// TaxCode of eleven digits; left out otherwise, as the schema rejects it.
	TaxCode   string
	Office    string
	Addresses []string
}

// Administration is an Italian public administration (PAI).
type Administration struct {
	Body      IPAEntry
	Area      *IPAEntry // AOO (optional)
	Office    *IPAEntry // UOR (optional)
	Addresses []string
}

// IPAEntry is a name with its code in the Indice delle pubbliche amministrazioni.
type IPAEntry struct {
	Name, Code string
}

// ForeignAdministration is a public administration outside Italy (PAE).
type ForeignAdministration struct {
	Name, Office string
	Addresses    []string
}

// Assignee is the office, and perhaps the person, a document was assigned to (AS).
type Assignee struct {
	LastName, FirstName, TaxCode string // optional
	Organisation, Office         string
	Addresses                    []string
}

// System is the software that made a document by itself (SW).
type System struct {
	Name string
}

// Attachment of the document unit.
type Attachment struct {
	Document    DocumentID
	Description string
}

// Classification of a document; every field is optional.
type Classification struct {
	Index, Description, Plan string
}

// Product is a software product; every field is optional.
type Product struct {
	Name, Version, Producer string
}

// AggregationKind is a tipo di aggregazione; its values are the schema's.
type AggregationKind string

// The three kinds of aggregation.
const (
	Dossier        AggregationKind = "Fascicolo"
	DocumentSeries AggregationKind = "Serie Documentale"
	DossierSeries  AggregationKind = "Serie Di Fascicoli"
)

// AggregationRef names an aggregation.
type AggregationRef struct {
	Kind AggregationKind
	ID   string
}

// Bounds and forms of the schema.
const (
	maxKeywords     = 5
	maxAttachments  = 4999
	maxRetention    = 4999
	maxRegisterCode = 16
	protocolDigits  = 7
)

var (
	// formations are the literals of ModalitaDiFormazioneType, to the byte.
	formations = map[Formation]string{
		FormationSoftware:     "creazione tramite utilizzo di strumenti software che assicurino la produzione di documenti nei formati previsti in allegato 2",
		FormationAcquired:     "acquisizione di un documento informatico per via telematica o su supporto informatico, acquisizione della copia per immagine su supporto informatico di un documento analogico, acquisizione della copia informatica di un documento analogico",
		FormationTransactions: "memorizzazione su supporto informatico in formato digitale delle informazioni risultanti da transazioni o processi informatici o dalla presentazione telematica di dati attraverso moduli o formulari resi disponibili ad utente",
		FormationAggregated:   "generazione o raggruppamento anche in via automatica di un insieme di dati o registrazioni, provenienti da una o più banche dati, anche appartenenti a più soggetti interoperanti, secondo una struttura logica predeterminata e memorizzata in forma statica",
	}
	// roles are the literals of TipoRuolo and the kinds of subject that may have the role.
	roles = map[Role]struct {
		literal string
		kinds   string
	}{
		RoleRegistrar:       {"Soggetto Che Effettua La Registrazione", "PF PG"},
		RoleAssignee:        {"Assegnatario", "AS"},
		RoleRecipient:       {"Destinatario", "PF PG PAI PAE"},
		RoleSender:          {"Mittente", "PF PG PAI PAE"},
		RoleAuthor:          {"Autore", "PF PG PAI PAE"},
		RoleOperator:        {"Operatore", "PF"},
		RoleRecordsManager:  {"Responsabile della Gestione Documentale", "PF"},
		RoleProtocolManager: {"Responsabile del Servizio di Protocollo", "PF"},
		RoleSystem:          {"Produttore", "SW"},
		RoleOther:           {"Altro", "PF PG PAI PAE"},
	}
	personCode       = regexp.MustCompile(`^[A-Z]{6}[0-9LMNPQRSTUV]{2}[ABCDEHLMPRST][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]$`)
	organisationCode = regexp.MustCompile(`^[0-9]{11}$`)
	digits           = regexp.MustCompile(`^[0-9]+$`)
)

// RegisterCode brings the name of a register into the form that the schema wants of a CodiceRegistro: other
// characters than letters, digits, '_', '.' and '-' become '_', and what is longer than 16 characters is cut.
func RegisterCode(s string) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len() == maxRegisterCode {
			break
		}
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r) {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	return b.String()
}

// Marshal writes the profile as a DocumentoInformatico of Allegato 5.
func (p Profile) Marshal() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	d := newDocument()
	d.begin("DocumentoInformatico")
	p.Document.write(d, "IdDoc")
	d.text("ModalitaDiFormazione", formations[p.Formation])
	d.text("TipologiaDocumentale", p.Type)
	p.writeRegistration(d)
	d.begin("Soggetti")
	for _, s := range p.Subjects {
		s.write(d)
	}
	d.end()
	d.begin("ChiaveDescrittiva")
	d.text("Oggetto", p.Title)
	for _, k := range p.Keywords {
		d.text("ParoleChiave", k)
	}
	d.end()
	p.writeAttachments(d)
	if c := p.Classification; c != nil {
		d.begin("Classificazione")
		d.optional("IndiceDiClassificazione", c.Index)
		d.optional("Descrizione", c.Description)
		d.optional("PianoDiClassificazione", c.Plan)
		d.end()
	}
	d.flag("Riservato", p.Reserved)
	p.writeFormat(d)
	d.begin("Agg")
	for _, a := range p.Aggregations {
		d.begin("TipoAgg")
		d.text("TipoAggregazione", string(a.Kind))
		d.text("IdAggregazione", a.ID)
		d.end()
	}
	d.end()
	if p.Primary != nil {
		p.Primary.write(d, "IdIdentificativoDocumentoPrimario")
	}
	d.text("NomeDelDocumento", p.Name)
	d.text("VersioneDelDocumento", p.Version)
	if p.RetentionYears > 0 {
		d.text("TempoDiConservazione", strconv.Itoa(p.RetentionYears))
	}
	d.optional("Note", p.Note)
	d.end()
	return d.bytes(), nil
}

func (d *document) flag(name string, v bool) { d.text(name, strconv.FormatBool(v)) }

func (i DocumentID) write(d *document, name string) {
	d.begin(name)
	d.begin("ImprontaCrittograficaDelDocumento")
	d.text("Impronta", base64.StdEncoding.EncodeToString(i.SHA256[:]))
	d.text("Algoritmo", hashFunction)
	d.end()
	d.text("Identificativo", i.Identifier)
	d.end()
}

func (p Profile) writeRegistration(d *document) {
	date := p.Registration.Date.Format(dayForm)
	code := RegisterCode(p.Registration.Code)
	d.begin("DatiDiRegistrazione")
	d.text("TipologiaDiFlusso", string(p.Flow))
	d.begin("TipoRegistro")
	switch p.Registration.Kind {
	case Protocol:
		number := p.Registration.Number
		if n := protocolDigits - len(number); n > 0 {
			number = strings.Repeat("0", n) + number
		}
		d.begin("ProtocolloOrdinario_ProtocolloEmergenza")
		d.text("TipoRegistro", `ProtocolloOrdinario\ProtocolloEmergenza`)
		d.text("DataProtocollazioneDocumento", date)
		d.text("NumeroProtocolloDocumento", number)
		d.text("CodiceRegistro", code)
	case Register:
		d.begin("Repertorio_Registro")
		d.text("TipoRegistro", `Repertorio\Registro`)
		d.text("DataRegistrazioneDocumento", date)
		d.text("NumeroRegistrazioneDocumento", p.Registration.Number)
		d.text("CodiceRegistro", code)
	default:
		d.begin("Nessuno")
		d.text("TipoRegistro", "Nessuno")
		d.text("DataDocumento", date)
		d.text("NumeroDocumento", p.Registration.Number)
	}
	d.end()
	d.end()
	d.end()
}

func (p Profile) writeAttachments(d *document) {
	d.begin("Allegati")
	d.text("NumeroAllegati", strconv.Itoa(len(p.Attachments)))
	for _, a := range p.Attachments {
		d.begin("IndiceAllegati")
		a.Document.write(d, "IdDoc")
		d.text("Descrizione", a.Description)
		d.end()
	}
	d.end()
}

func (p Profile) writeFormat(d *document) {
	d.begin("IdentificativoDelFormato")
	d.text("Formato", p.Format)
	if s := p.Product; s != nil {
		d.begin("ProdottoSoftware")
		d.optional("NomeProdotto", s.Name)
		d.optional("VersioneProdotto", s.Version)
		d.optional("Produttore", s.Producer)
		d.end()
	}
	d.end()
	d.begin("Verifica")
	d.flag("FirmatoDigitalmente", p.Signed)
	d.flag("SigillatoElettronicamente", p.Sealed)
	d.flag("MarcaturaTemporale", p.Timestamped)
	d.flag("ConformitaCopieImmagineSuSupportoInformatico", p.ImageCopy)
	d.end()
}

// kinds names the schema's types of the pointers that are set.
func (s Subject) kinds() []string {
	var k []string
	for _, c := range []struct {
		name string
		set  bool
	}{
		{"PF", s.Person != nil},
		{"PG", s.Organisation != nil},
		{"PAI", s.Administration != nil},
		{"PAE", s.Foreign != nil},
		{"AS", s.Assignee != nil},
		{"SW", s.System != nil},
	} {
		if c.set {
			k = append(k, c.name)
		}
	}
	return k
}

func (s Subject) write(d *document) {
	d.begin("Ruolo")
	d.begin(string(s.Role))
	d.text("TipoRuolo", roles[s.Role].literal)
	d.begin(s.kinds()[0])
	switch {
	case s.Person != nil:
		d.text("Cognome", s.Person.LastName)
		d.text("Nome", s.Person.FirstName)
		d.optionalCode("CodiceFiscale", s.Person.TaxCode, personCode)
		d.addresses(s.Person.Addresses)
	case s.Organisation != nil:
		d.text("DenominazioneOrganizzazione", s.Organisation.Name)
		d.optionalCode("CodiceFiscale_PartitaIva", s.Organisation.TaxCode, organisationCode)
		d.optional("DenominazioneUfficio", s.Organisation.Office)
		d.addresses(s.Organisation.Addresses)
	case s.Administration != nil:
		d.ipa("IPAAmm", &s.Administration.Body)
		d.ipa("IPAAOO", s.Administration.Area)
		d.ipa("IPAUOR", s.Administration.Office)
		d.addresses(s.Administration.Addresses)
	case s.Foreign != nil:
		d.text("DenominazioneAmministrazione", s.Foreign.Name)
		d.optional("DenominazioneUfficio", s.Foreign.Office)
		d.addresses(s.Foreign.Addresses)
	case s.Assignee != nil:
		d.optional("Cognome", s.Assignee.LastName)
		d.optional("Nome", s.Assignee.FirstName)
		d.optionalCode("CodiceFiscale", s.Assignee.TaxCode, personCode)
		d.text("DenominazioneOrganizzazione", s.Assignee.Organisation)
		d.text("DenominazioneUfficio", s.Assignee.Office)
		d.addresses(s.Assignee.Addresses)
	case s.System != nil:
		d.text("DenominazioneSistema", s.System.Name)
	}
	d.end()
	d.end()
	d.end()
}

func (d *document) optionalCode(name, code string, form *regexp.Regexp) {
	if form.MatchString(code) {
		d.text(name, code)
	}
}

func (d *document) ipa(name string, e *IPAEntry) {
	if e == nil {
		return
	}
	d.begin(name)
	d.text("Denominazione", e.Name)
	d.text("CodiceIPA", e.Code)
	d.end()
}

func (d *document) addresses(list []string) {
	for _, a := range list {
		d.text("IndirizziDigitaliDiRiferimento", a)
	}
}

// check names every field that the schema has no room for, or that must not be empty.
func (p Profile) check() error {
	f := &faults{of: "profile"}
	p.Document.check(f, "Document")
	if formations[p.Formation] == "" {
		f.add("Formation", "is not one of the schema's")
	}
	f.need("Type", p.Type)
	f.need("Title", p.Title)
	f.need("Format", p.Format)
	f.need("Name", p.Name)
	f.need("Version", p.Version)
	if !slices.Contains([]Flow{Incoming, Outgoing, Internal}, p.Flow) {
		f.add("Flow", "is not one of the schema's")
	}
	p.Registration.check(f)
	if len(p.Subjects) == 0 {
		f.add("Subjects", "is empty")
	}
	for i, s := range p.Subjects {
		s.check(f, fmt.Sprintf("Subjects[%d]", i))
	}
	if len(p.Keywords) > maxKeywords {
		f.add("Keywords", "has more than 5")
	}
	if len(p.Attachments) > maxAttachments {
		f.add("Attachments", "has more than 4999")
	}
	for i, a := range p.Attachments {
		a.Document.check(f, fmt.Sprintf("Attachments[%d].Document", i))
		f.need(fmt.Sprintf("Attachments[%d].Description", i), a.Description)
	}
	for i, a := range p.Aggregations {
		if !slices.Contains([]AggregationKind{Dossier, DocumentSeries, DossierSeries}, a.Kind) {
			f.add(fmt.Sprintf("Aggregations[%d].Kind", i), "is not one of the schema's")
		}
		f.need(fmt.Sprintf("Aggregations[%d].ID", i), a.ID)
	}
	if p.Primary != nil {
		p.Primary.check(f, "Primary")
	}
	if p.RetentionYears < 0 || p.RetentionYears > maxRetention {
		f.add("RetentionYears", "is not 0 to 4999")
	}
	return f.err()
}

func (i DocumentID) check(f *faults, field string) {
	if i.SHA256 == [32]byte{} {
		f.add(field+".SHA256", "is empty")
	}
	f.need(field+".Identifier", i.Identifier)
}

func (r Registration) check(f *faults) {
	f.needTime("Registration.Date", r.Date)
	f.need("Registration.Number", r.Number)
	switch r.Kind {
	case Unregistered:
		return
	case Protocol:
		if !digits.MatchString(r.Number) {
			f.add("Registration.Number", "of a protocol has other characters than digits")
		}
	case Register:
	default:
		f.add("Registration.Kind", "is unknown")
	}
	f.need("Registration.Code", r.Code)
}

func (s Subject) check(f *faults, field string) {
	kinds := s.kinds()
	if len(kinds) != 1 {
		f.add(field, "is not exactly one subject")
		return
	}
	if !slices.Contains(strings.Fields(roles[s.Role].kinds), kinds[0]) {
		f.add(field+".Role", fmt.Sprintf("%q does not go with %s", s.Role, kinds[0]))
	}
	switch {
	case s.Person != nil:
		f.need(field+".Person.LastName", s.Person.LastName)
		f.need(field+".Person.FirstName", s.Person.FirstName)
	case s.Organisation != nil:
		f.need(field+".Organisation.Name", s.Organisation.Name)
	case s.Administration != nil:
		a := s.Administration
		for _, e := range []*IPAEntry{&a.Body, a.Area, a.Office} {
			if e != nil {
				f.need(field+".Administration entry's Name", e.Name)
				f.need(field+".Administration entry's Code", e.Code)
			}
		}
	case s.Foreign != nil:
		f.need(field+".Foreign.Name", s.Foreign.Name)
	case s.Assignee != nil:
		f.need(field+".Assignee.Organisation", s.Assignee.Organisation)
		f.need(field+".Assignee.Office", s.Assignee.Office)
	case s.System != nil:
		f.need(field+".System.Name", s.System.Name)
	}
}
