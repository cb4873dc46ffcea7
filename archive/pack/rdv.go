package pack

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
)

// RdV is what the XML rendering of a receipt body says: the rapporto di versamento of an accepted
// submission, or the comunicazione di rifiuto of a refused one.
type RdV struct {
	// Refused makes it a ComunicazioneDiRifiuto, which says "documento non preso in carico".
	Refused bool
	// ID is the unique identifier of the receipt.
	ID string
	// Time of the receipt, to the second, written in UTC.
	Time time.Time
	// Producer is the body whose submission it was.
	Producer RdVProducer
	// Key of the document unit.
	Key RdVKey
	// PackageID and Generation of the package; absent from a refusal.
	PackageID  string
	Generation int64
	// Submission is the digest over the whole submission.
	Submission [32]byte
	// Files in submitted order.
	Files []RdVFile
	// Checks made, each with its finding.
	Checks []RdVCheck
	// Salt of the receipt; absent when zero.
	Salt [32]byte
	// Policy the submission was judged by.
	Policy RdVPolicy
	// Qualification labels the seal, such as "sigillo non qualificato".
	Qualification string
}

// RdVProducer is a body as a receipt names it.
type RdVProducer struct {
	Code    string // IPA code
	Name    string
	TaxCode string
}

// RdVKey is the key of a document unit.
type RdVKey struct {
	Structure string
	Register  string
	Year      int
	Number    string
}

// RdVFile is a file of the submission.
type RdVFile struct {
	Name   string // as submitted
	Role   string
	Size   int64 // bytes
	SHA256 [32]byte
	Format string // media type
}

// RdVCheck is one check and what it found.
type RdVCheck struct {
	Rule    string // name of the rule
	Field   string // what it looked at (optional)
	Level   string // the weight of the finding
	Message string
	Remedy  string // what to do about it (optional)
}

// RdVPolicy names the rules a submission was judged by.
type RdVPolicy struct {
	Name   string
	SHA256 [32]byte
}

// The fixed words of the rendering.
const (
	rdvNamespace = "urn:perenne:rdv:1"
	rdvAccepted  = "documento preso in carico"
	rdvRefused   = "documento non preso in carico"
)

// MarshalRdV writes the rendering in its one form, frozen with the namespace urn:perenne:rdv:1, whose schema
// is rdv.xsd beside this file. The same body gives the same bytes for ever. Digests and salt are in
// lower-case hexadecimal. Any text can be written: the package comment says how.
func MarshalRdV(v RdV) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	root, outcome := "RapportoDiVersamento", rdvAccepted
	if v.Refused {
		root, outcome = "ComunicazioneDiRifiuto", rdvRefused
	}
	d := newDocument()
	d.begin(root, attr{"xmlns", rdvNamespace})
	d.text("Identificativo", v.ID)
	d.text("DataOra", v.Time.UTC().Format(secondForm))
	d.text("Esito", outcome)
	d.begin("EnteProduttore")
	d.text("CodiceIPA", v.Producer.Code)
	d.text("Denominazione", v.Producer.Name)
	d.text("CodiceFiscale", v.Producer.TaxCode)
	d.end()
	d.begin("Chiave")
	d.text("Struttura", v.Key.Structure)
	d.text("Registro", v.Key.Register)
	d.text("Anno", strconv.Itoa(v.Key.Year))
	d.text("Numero", v.Key.Number)
	d.end()
	if !v.Refused {
		d.begin("PacchettoDiArchiviazione")
		d.text("Identificativo", v.PackageID)
		d.text("Generazione", strconv.FormatInt(v.Generation, 10))
		d.end()
	}
	d.digest("ImprontaDelVersamento", v.Submission)
	v.writeFiles(d)
	v.writeChecks(d)
	if v.Salt != [32]byte{} {
		d.text("Sale", hex.EncodeToString(v.Salt[:]))
	}
	d.begin("Politica")
	d.text("Nome", v.Policy.Name)
	d.digest("Impronta", v.Policy.SHA256)
	d.end()
	d.text("Qualificazione", v.Qualification)
	d.end()
	return d.bytes(), nil
}

func (d *document) digest(name string, sum [32]byte) {
	d.text(name, hex.EncodeToString(sum[:]), attr{"algoritmo", hashFunction})
}

func (v RdV) writeFiles(d *document) {
	d.begin("Files")
	for _, file := range v.Files {
		d.begin("File")
		d.text("Nome", file.Name)
		d.text("Ruolo", file.Role)
		d.text("Dimensione", strconv.FormatInt(file.Size, 10))
		d.digest("Impronta", file.SHA256)
		d.text("Formato", file.Format)
		d.end()
	}
	d.end()
}

func (v RdV) writeChecks(d *document) {
	d.begin("Controlli")
	for _, c := range v.Checks {
		d.begin("Controllo")
		d.text("Regola", c.Rule)
		d.optional("Campo", c.Field)
		d.text("Livello", c.Level)
		d.text("Messaggio", c.Message)
		d.optional("Rimedio", c.Remedy)
		d.end()
	}
	d.end()
}

func (v RdV) check() error {
	f := &faults{of: "rapporto di versamento"}
	f.need("ID", v.ID)
	f.need("Producer.Code", v.Producer.Code)
	f.needTime("Time", v.Time)
	if v.Refused != (v.PackageID == "") {
		f.add("PackageID", "goes with acceptance, and only with it")
	}
	for i, file := range v.Files {
		if file.Size < 0 {
			f.add(fmt.Sprintf("Files[%d].Size", i), "is negative")
		}
	}
	if v.Generation < 0 {
		f.add("Generation", "is negative")
	}
	return f.err()
}
