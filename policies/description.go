package policies

// Roles of a file in its document unit.
const (
	RoleMain       = "main"       // documento principale: exactly one
	RoleAttachment = "attachment" // allegato
	RoleAnnex      = "annex"      // annesso
	RoleAnnotation = "annotation" // annotazione
)

// Description is the metadata of a submission as a producer sends it: see ParseDescription for its JSON form.
type Description struct {
	Structure string `json:"structure,omitempty"` // AOO or structure; absent means DefaultStructure
	Register  string `json:"register"`            // register type: "DETE"
	Year      int    `json:"year"`                // of the register, 1861 to 2200
	Number    string `json:"number"`              // within register and year; a string: "12/bis", "0012"
	Date      string `json:"date"`                // of registration, YYYY-MM-DD
	Type      string `json:"type"`                // document type, one of the policy's: "determina"
	Subject   string `json:"subject"`             // oggetto
	Reserved  *bool  `json:"reserved"`            // riservato; must be said, hence a pointer
	Class     string `json:"class,omitempty"`     // retention class, one of the policy's; absent: never disposed of
	Flow      string `json:"flow,omitempty"`      // tipologia di flusso: E (in entrata), U (in uscita), I (interno)

	Parties        []Party `json:"parties,omitempty"`        // soggetti
	Classification string  `json:"classification,omitempty"` // index in the filing plan (titolario): "VI/3"
	Folder         string  `json:"folder,omitempty"`         // fascicolo
	Notes          string  `json:"notes,omitempty"`

	// Extra holds what the producer's own system wants to find again; it is kept and shown, never interpreted.
	Extra map[string]string `json:"extra,omitempty"`

	Files []FileDescription `json:"files"` // in the order in which their bytes follow
}

// Party is somebody who has to do with the document.
type Party struct {
	Role    string `json:"role,omitempty"` // "mittente", "destinatario", "autore", "rup" …
	Name    string `json:"name"`
	TaxCode string `json:"tax_code,omitempty"` // codice fiscale or partita IVA
}

// FileDescription announces one file before its bytes arrive.
type FileDescription struct {
	Name   string `json:"name"`             // as the producer calls it; kept in the index, never a path
	Role   string `json:"role"`             // RoleMain, RoleAttachment, RoleAnnex, RoleAnnotation
	Size   int64  `json:"size"`             // bytes, exactly
	SHA256 string `json:"sha256,omitempty"` // 64 hexadecimal digits
	Format string `json:"format,omitempty"` // MIME type claimed
}
