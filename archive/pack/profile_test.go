package pack

import (
	"crypto/sha256"
	"os"
	"strings"
	"testing"
	"time"
)

func exampleProfile() Profile {
	id := DocumentID{sha256.Sum256([]byte("a")), "k3f"}
	person := &Person{LastName: "Cognome", FirstName: "Nome", TaxCode: "RSSMRA00A01H501X", Addresses: []string{"a@example.invalid"}}
	organisation := &Organisation{Name: "Impresa", TaxCode: "00000000000", Office: "Vendite", Addresses: []string{"b@example.invalid"}}
	administration := &Administration{Body: IPAEntry{"Comune di Montesole", "c_x901"}, Area: &IPAEntry{"AOO", "A1"}, Office: &IPAEntry{"Ufficio", "U1"}, Addresses: []string{"c@example.invalid"}}
	foreign := &ForeignAdministration{Name: "Gemeinde", Office: "Amt", Addresses: []string{"d@example.invalid"}}
	return Profile{
		Document: id, Formation: FormationSoftware, Type: "determina", Flow: Internal,
		Registration: Registration{Kind: Register, Date: time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC), Number: "12/bis", Code: "DETE area tecnica"},
		Subjects: []Subject{
			{Role: RoleRegistrar, Organisation: organisation},
			{Role: RoleAssignee, Assignee: &Assignee{"Cognome", "Nome", "x", "Comune", "Ufficio", []string{"e@example.invalid"}}},
			{Role: RoleRecipient, Person: person},
			{Role: RoleSender, Administration: administration},
			{Role: RoleAuthor, Foreign: foreign},
			{Role: RoleOperator, Person: person},
			{Role: RoleRecordsManager, Person: person},
			{Role: RoleProtocolManager, Person: &Person{LastName: "C", FirstName: "N", TaxCode: "12345678901"}},
			{Role: RoleSystem, System: &System{"Gestionale"}},
			{Role: RoleOther, Organisation: &Organisation{Name: "Impresa", TaxCode: "IT1"}},
		},
		Title: "Affidamento lavori <urgenti> & altro", Keywords: []string{"lavori", "strade"},
		Attachments:    []Attachment{{id, "computo"}, {id, "planimetria"}},
		Classification: &Classification{"VI.5", "Opere pubbliche", "Titolario 2005"},
		Reserved:       true, Format: "application/pdf", Product: &Product{"Scrittore", "7", "Casa"},
		Signed: true, Aggregations: []AggregationRef{{Dossier, "f1"}, {DocumentSeries, "s1"}, {DossierSeries, "s2"}},
		Primary: &id, Name: "determina.pdf", Version: "1", RetentionYears: 4999, Note: hostile,
	}
}

func TestProfileIsValidAgainstTheSchema(t *testing.T) {
	xsd := schema(t, "agid-allegato5/DocumentoInformatico.xsd")
	smallest := exampleProfile()
	smallest = Profile{
		Document: smallest.Document, Formation: FormationAggregated, Type: "fattura", Flow: Incoming,
		Registration: Registration{Date: smallest.Registration.Date, Number: "1"},
		Subjects:     smallest.Subjects[:1], Title: "x", Format: "application/xml", Name: "x.xml", Version: "1",
	}
	protocol := exampleProfile()
	protocol.Registration = Registration{Protocol, time.Date(2026, 3, 9, 23, 0, 0, 0, time.FixedZone("", 7200)), "123", "PG"}
	protocol.Flow, protocol.Formation, protocol.RetentionYears = Outgoing, FormationTransactions, 0
	protocol.Classification, protocol.Product = &Classification{}, &Product{}
	acquired := exampleProfile()
	acquired.Formation = FormationAcquired
	for name, p := range map[string]Profile{"example": exampleProfile(), "smallest": smallest, "protocol": protocol, "acquired": acquired} {
		t.Run(name, func(t *testing.T) {
			b, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			validate(t, xsd, b)
		})
	}
	b, err := protocol.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<NumeroProtocolloDocumento>0000123<", "<DataProtocollazioneDocumento>2026-03-09<"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("got %s, want %s in it", b, want)
		}
	}
}

func TestProfileHasTheLiteralsOfTheSchema(t *testing.T) {
	xsd, err := os.ReadFile(schema(t, "agid-allegato5/DocumentoInformatico.xsd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, literal := range formations {
		if !strings.Contains(string(xsd), `<xs:enumeration value="`+literal+`"/>`) {
			t.Errorf("the schema has no %q", literal)
		}
	}
	for role, r := range roles {
		if !strings.Contains(string(xsd), `fixed="`+r.literal+`"`) || !strings.Contains(string(xsd), `<xs:element name="`+string(role)+`"`) {
			t.Errorf("the schema has no %s, %q", role, r.literal)
		}
	}
}

func TestProfileNamesEveryFieldAtFault(t *testing.T) {
	for field, spoil := range map[string]func(p *Profile){
		"Document.SHA256":                func(p *Profile) { p.Document.SHA256 = [32]byte{} },
		"Document.Identifier":            func(p *Profile) { p.Document.Identifier = "" },
		"Formation":                      func(p *Profile) { p.Formation = 0 },
		"Type":                           func(p *Profile) { p.Type = "" },
		"Flow":                           func(p *Profile) { p.Flow = "X" },
		"Registration.Date":              func(p *Profile) { p.Registration.Date = time.Time{} },
		"Registration.Number":            func(p *Profile) { p.Registration.Number = "" },
		"Registration.Code":              func(p *Profile) { p.Registration.Code = "" },
		"Registration.Kind":              func(p *Profile) { p.Registration.Kind = 9 },
		"Registration.Number of a proto": func(p *Profile) { p.Registration.Kind = Protocol },
		"Subjects is empty":              func(p *Profile) { p.Subjects = nil },
		"Subjects[0] is not exactly":     func(p *Profile) { p.Subjects[0].System = &System{"x"} },
		"Subjects[1] is not exactly":     func(p *Profile) { p.Subjects[1].Assignee = nil },
		"Subjects[0].Role":               func(p *Profile) { p.Subjects[0].Role = RoleOperator },
		"Subjects[2].Person.LastName":    func(p *Profile) { p.Subjects[2].Person.LastName = "" },
		"Title":                          func(p *Profile) { p.Title = "\t" },
		"Keywords":                       func(p *Profile) { p.Keywords = make([]string, 6) },
		"Attachments has":                func(p *Profile) { p.Attachments = make([]Attachment, 5000) },
		"Attachments[1].Description":     func(p *Profile) { p.Attachments[1].Description = "" },
		"Aggregations[0].Kind":           func(p *Profile) { p.Aggregations[0].Kind = "Dossier" },
		"RetentionYears":                 func(p *Profile) { p.RetentionYears = 9999 },
	} {
		p := exampleProfile()
		spoil(&p)
		if _, err := p.Marshal(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, want %s named", err, field)
		}
	}
}
