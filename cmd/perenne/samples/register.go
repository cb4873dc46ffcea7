package samples

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
)

// registration is one line of the protocol register. Correspondents are offices and firms, never persons.
type registration struct {
	Number, Hour, Flow, Party, Subject, Digest string
	Annulled                                   bool
}

var letters = [...]struct{ flow, party, subject string }{
	{"E", "Prefettura di Esempio", "Rilevazione semestrale dei procedimenti: trasmissione modulistica"},
	{"E", supplier, "Richiesta di svincolo della polizza fideiussoria"},
	{"U", "Istituto comprensivo «Città di Montesole»", "Servizio mensa: comunicazione delle tariffe"},
	{"E", "Azienda sanitaria di Esempio", "Parere igienico-sanitario su piano attuativo"},
	{"I", "Settore Lavori pubblici", "Trasmissione della contabilità finale dei lavori"},
	{"U", "Regione Esempio – Servizio Protezione civile", "Segnalazione di dissesto sulla strada comunale del Poggio"},
	{"E", "Comitato di quartiere La Còsta", "Osservazioni alla variante: più verde, meno traffico"},
	{"U", "Tesoreria", "Distinta dei mandati e delle reversali"},
}

func (d *desk) registrations(at time.Time) []registration {
	r := d.chance("register")
	first, n := at.YearDay()*61, 46+r.IntN(20)
	clock := time.Date(at.Year(), at.Month(), at.Day(), 7, 50, 0, 0, time.UTC)
	rows := make([]registration, n)
	for i := range rows {
		l := letters[r.IntN(len(letters))]
		clock = clock.Add(time.Duration(1+r.IntN(14)) * time.Minute)
		number := fmt.Sprintf("%07d", first+i)
		digest := sha256.Sum256([]byte(d.body.code + at.Format(time.DateOnly) + number))
		rows[i] = registration{
			Number: number, Hour: clock.Format("15:04"), Flow: l.flow, Party: l.party, Subject: l.subject,
			Digest: hex.EncodeToString(digest[:]), Annulled: i == n/2,
		}
	}
	return rows
}

// dailyRegister is the register of the day before, which the law wants in conservation by the end of the
// next working day (d.P.C.M. 3 December 2013, art. 7 c. 5; AgID guidelines 2021, §3.1.6).
func (d *desk) dailyRegister() Unit {
	at := d.ago(1)
	rows := d.registrations(at)
	reference := fmt.Sprintf("RGP %d/%d", at.Year(), at.YearDay())
	subject := "Registro giornaliero di protocollo " + withDate("del", at) + "."
	s := newSheet(d.body, "Registro giornaliero "+reference, reference, at)
	s.title("REGISTRO GIORNALIERO DI PROTOCOLLO", "area organizzativa omogenea unica – "+longDate(at), subject)
	head := []string{"numero", "ora", "f.", "corrispondente", "oggetto"}
	lines, list := make([][]string, len(rows)), [][]string{{"numero", "ora", "flusso", "corrispondente", "oggetto", "annullata", "sha256"}}
	for i, r := range rows {
		what, annulled := r.Subject, "no"
		if r.Annulled {
			what, annulled = "ANNULLATA – "+what, "sì"
		}
		lines[i] = []string{r.Number, r.Hour, r.Flow, short(r.Party, 36), short(what, 60)}
		list = append(list, []string{r.Number, r.Hour, r.Flow, r.Party, r.Subject, annulled, r.Digest})
	}
	s.table([]float64{15, 10, 5, 54, 82}, head, lines)
	s.paragraphs(fmt.Sprintf("Registrazioni: %d, dal n. %s al n. %s; annullate: 1. Il registro è prodotto automaticamente dal sistema di protocollo informatico e trasmesso al sistema di conservazione entro la giornata lavorativa successiva.",
		len(rows), rows[0].Number, rows[len(rows)-1].Number))
	record := form("registro.xml", map[string]any{
		"Body": d.body.name, "Code": d.body.code, "Date": at.Format(time.DateOnly), "First": rows[0].Number,
		"Last": rows[len(rows)-1].Number, "Count": strconv.Itoa(len(rows)), "Annulled": "1", "Rows": rows,
	})
	return d.unit("RGP", "registro-giornaliero-protocollo", at, at.YearDay(), subject,
		file("registro.pdf", roleMain, formatPDF, s.bytes()),
		file("registro.csv", roleAttachment, formatCSV, table(list)),
		file("registro.xml", roleAttachment, formatXML, record))
}

// short cuts text to at most n characters, the last then being an ellipsis.
func short(text string, n int) string {
	if r := []rune(text); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return text
}
