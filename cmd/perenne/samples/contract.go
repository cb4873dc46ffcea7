package samples

import (
	"fmt"
	"time"
)

// contract is a deed with the metadata of PDF/A: XMP that agrees with the document information, a language.
// It makes no claim (pdfaid) to be PDF/A, because the standard fonts are not embedded and because the
// library writes a wrong trailer when it is given an output intent.
func (d *desk) contract() Unit {
	at := d.ago(8)
	number := at.YearDay()/12 + 1
	subject := "Contratto d’appalto del servizio di manutenzione del verde pubblico, triennio."
	reference := fmt.Sprintf("Rep. %d/%d", at.Year(), number)
	s := newSheet(d.body, "Contratto "+reference, reference, at)
	s.SetXmpMetadata(form("xmp.xml", map[string]string{
		"Title": "Contratto " + reference, "Creator": d.body.name, "Subject": subject, "Date": at.Format(time.RFC3339),
	}))
	cents := int64(9_000_000 + d.chance("contract").IntN(3_000_000))
	s.title("CONTRATTO D’APPALTO", reference+" – scrittura privata in modalità elettronica", subject)
	s.paragraphs(
		fmt.Sprintf("L’anno %d, il giorno %d del mese di %s, tra il %s, C.F. %s, rappresentato dal Responsabile del Settore Ambiente, e la ditta %s, P.IVA %s, rappresentata dal legale rappresentante, si conviene e si stipula quanto segue.",
			at.Year(), at.Day(), months[at.Month()-1], d.body.name, taxCode, supplier, taxCode))
	articles := [...][2]string{
		{"Art. 1 – Oggetto", "L’appalto comprende lo sfalcio dei tappeti erbosi, la potatura delle alberature e la cura delle aiuole, secondo il capitolato speciale, che le parti dichiarano di conoscere e di accettare."},
		{"Art. 2 – Durata", "Il servizio ha durata di trentasei mesi dalla consegna. È esclusa la proroga tacita; è ammessa la proroga tecnica di sei mesi alle stesse condizioni."},
		{"Art. 3 – Corrispettivo", "Il corrispettivo annuo è di € " + euro(cents) + " oltre IVA, al netto del ribasso offerto, comprensivo di € 1.850,00 per oneri di sicurezza. I prezzi sono soggetti a revisione ai sensi dell’art. 60 del d.lgs. 36/2023."},
		{"Art. 4 – Pagamenti e tracciabilità", "I pagamenti avvengono entro trenta giorni dal ricevimento della fattura elettronica. L’appaltatore assume gli obblighi di tracciabilità dei flussi finanziari di cui alla legge 13 agosto 2010, n. 136."},
		{"Art. 5 – Penali", "Per ogni giorno di ritardo rispetto al programma si applica una penale pari all’uno per mille dell’importo contrattuale, fino al dieci per cento."},
		{"Art. 6 – Garanzie", "L’appaltatore ha costituito cauzione definitiva mediante fideiussione e polizza di responsabilità civile verso terzi con massimale di € 1.500.000,00."},
		{"Art. 7 – Risoluzione e recesso", "Trovano applicazione gli artt. 122 e 123 del d.lgs. 36/2023. È causa di risoluzione la violazione del codice di comportamento."},
		{"Art. 8 – Foro competente", "Per ogni controversia è competente il foro nel cui circondario ha sede la stazione appaltante. È escluso l’arbitrato."},
		{"Art. 9 – Trattamento dei dati", "Le parti trattano i dati personali necessari all’esecuzione del contratto nel rispetto del regolamento (UE) 2016/679; l’appaltatore non accede a dati di cui è titolare la stazione appaltante."},
		{"Art. 10 – Spese e registrazione", "Le spese di stipula sono a carico dell’appaltatore. Il contratto, soggetto a IVA, si registra in caso d’uso; l’imposta di bollo è assolta ai sensi dell’art. 18, comma 10, del d.lgs. 36/2023."},
	}
	for _, a := range articles {
		s.heading(a[0])
		s.paragraphs(a[1])
	}
	s.signature(d.body.place, at, "PER L’ENTE  ·  PER L’APPALTATORE")
	return d.unit("REP", "contratto", at, number, subject,
		file("contratto.pdf", roleMain, formatPDF, s.bytes()))
}
