package samples

import (
	"fmt"
	"strings"
	"time"
)

// act is the text of an administrative act: what it rests on, what it considers, what it decides.
type act struct {
	kind, register string
	number         int
	at             time.Time
	office         string
	subject        string
	seen           []string // "Visto…"
	considered     []string // "Premesso che…"
	verb           string
	decided        []string
	role           string
}

func (a act) reference() string {
	return fmt.Sprintf("%s %d/%d", a.register, a.at.Year(), a.number)
}

// sheet sets the act as a PDF; the caller may add tables before it takes the bytes.
func (a act) sheet(b body) *sheet {
	s := newSheet(b, a.kind+" "+a.reference(), a.reference(), a.at)
	s.title(a.kind, fmt.Sprintf("n. %d %s  –  %s", a.number, withDate("del", a.at), a.office), a.subject)
	s.heading(a.role)
	s.paragraphs(a.considered...)
	s.paragraphs(a.seen...)
	s.heading(a.verb)
	s.points(a.decided...)
	return s
}

func (a act) pdf(b body) []byte {
	s := a.sheet(b)
	s.signature(b.place, a.at, a.role)
	return s.bytes()
}

// streets and works vary with the seed.
var (
	streets = [...]string{"via Libertà", "viale dell’Unità d’Italia", "via dei Tigli", "contrada Poggio", "largo San Niccolò", "via Città di Spello"}
	works   = [...]string{
		"manutenzione straordinaria della pavimentazione", "rifacimento dell’illuminazione pubblica",
		"messa in sicurezza dei marciapiedi", "sostituzione degli infissi della scuola primaria",
	}
	lawsOfSpending = []string{
		"Visti gli artt. 107, 151 e 183 del d.lgs. 18 agosto 2000, n. 267, in materia di funzioni dei responsabili e di impegni di spesa;",
		"Visto l’art. 50 del d.lgs. 31 marzo 2023, n. 36, che consente l’affidamento diretto sotto le soglie ivi previste;",
		"Visto il bilancio di previsione approvato e accertata la disponibilità sul capitolo indicato;",
		"Acquisito il visto di regolarità contabile attestante la copertura finanziaria (art. 147-bis del d.lgs. 267/2000);",
	}
)

// award is the act with which works are given to a supplier.
func (d *desk) award(number int, at time.Time) act {
	r := d.chance(fmt.Sprint("award", number))
	work, street := works[r.IntN(len(works))], streets[r.IntN(len(streets))]
	cents := int64(1_200_000 + r.IntN(2_500_000))
	vat := cents * 22 / 100
	return act{
		kind: "DETERMINAZIONE DEL RESPONSABILE", register: "DETE", number: number, at: at,
		office:  "Settore Lavori pubblici e patrimonio",
		subject: fmt.Sprintf("Affidamento lavori di %s in %s. Impegno di spesa.", work, street),
		role:    "IL RESPONSABILE DEL SETTORE",
		considered: []string{
			fmt.Sprintf("Premesso che si è resa necessaria la %s in %s, come da relazione dell’ufficio tecnico allegata agli atti, e che l’esecuzione non può essere rinviata senza pregiudizio per la sicurezza della circolazione e per l’incolumità delle persone;", work, street),
			fmt.Sprintf("Considerato che è stato richiesto un preventivo alla ditta %s, che ha offerto un importo di € %s oltre IVA al 22 %% (€ %s), ritenuto congruo in rapporto al prezzario regionale vigente;", supplier, euro(cents), euro(vat)),
			"Dato atto che è stata verificata l’assenza di situazioni, anche potenziali, di conflitto d’interesse e che la ditta è in regola con il versamento dei contributi;",
		},
		seen: lawsOfSpending,
		verb: "DETERMINA",
		decided: []string{
			fmt.Sprintf("di affidare alla ditta %s, P.IVA %s, i lavori in oggetto, CIG X9010%05d, per l’importo complessivo di € %s, IVA compresa;", supplier, taxCode, r.IntN(100_000), euro(cents+vat)),
			fmt.Sprintf("di impegnare la spesa al capitolo %d, esercizio %d, secondo l’esigibilità indicata nel cronoprogramma;", 2000+r.IntN(900), at.Year()),
			"di dare atto che il contratto si perfeziona mediante corrispondenza secondo l’uso del commercio, ai sensi dell’art. 18 del d.lgs. 36/2023;",
			"di liquidare la spesa con successivo atto, a presentazione di fattura elettronica e previa verifica della regolarità delle prestazioni;",
			"di pubblicare la presente all’albo pretorio on line e nella sezione «Amministrazione trasparente».",
		},
	}
}

func (d *desk) determina() Unit {
	at := d.ago(3)
	a := d.award(2*at.YearDay(), at)
	return d.unit("DETE", "determina", at, a.number, a.subject,
		file("determina.pdf", roleMain, formatPDF, a.pdf(d.body)),
		file("computo metrico.csv", roleAttachment, formatCSV, d.billOfQuantities()))
}

func (d *desk) signedDetermina() Unit {
	at := d.ago(2)
	a := d.award(2*at.YearDay()+1, at)
	signed := d.envelope(a.pdf(d.body), at.Add(47*time.Minute))
	return d.unit("DETE", "determina", at, a.number, a.subject,
		file(fmt.Sprintf("determina n. %d.pdf.p7m", a.number), roleMain, formatP7M, signed))
}

func (d *desk) determinaWithNotice() Unit {
	at := d.ago(4)
	a := act{
		kind: "DETERMINAZIONE DEL RESPONSABILE", register: "DETE", number: at.YearDay(), at: at,
		office:     "Servizio Personale associato",
		subject:    "Indizione di selezione pubblica per un istruttore amministrativo a tempo pieno. Approvazione del bando.",
		role:       "IL RESPONSABILE DEL SERVIZIO",
		considered: []string{"Premesso che il piano integrato di attività e organizzazione prevede la copertura di un posto e che le procedure di mobilità obbligatoria hanno avuto esito negativo;"},
		seen:       []string{"Visto il d.P.R. 9 maggio 1994, n. 487, come da ultimo modificato;", "Visto il regolamento dei concorsi dell’Unione;"},
		verb:       "DETERMINA",
		decided: []string{
			"di indire la selezione in oggetto e di approvare lo schema di bando allegato, parte integrante e sostanziale del presente atto;",
			"di pubblicare il bando sul portale unico del reclutamento per trenta giorni;",
			"di demandare a un successivo provvedimento la nomina della commissione.",
		},
	}
	return d.unit("DETE", "determina", at, a.number, a.subject,
		file("determina.pdf", roleMain, formatPDF, a.pdf(d.body)),
		file("Bando di selezione – città, comunità e servizi.odt", roleAnnex, formatODT, d.notice(at)))
}

func (d *desk) deliberation(number int, at time.Time, subject, why string, decided ...string) act {
	return act{
		kind: "DELIBERAZIONE DEL " + strings.ToUpper(d.body.council), register: "DELC", number: number, at: at,
		office: "seduta pubblica di prima convocazione", subject: subject,
		role:       "IL " + strings.ToUpper(d.body.council),
		considered: []string{why, "Udita la relazione dell’assessore competente e la discussione riportata nel verbale della seduta;"},
		seen: []string{
			"Visto l’art. 42 del d.lgs. 267/2000 sulle competenze dell’organo consiliare;",
			"Acquisiti i pareri di regolarità tecnica e contabile ai sensi dell’art. 49 del medesimo decreto;",
			"Con votazione palese: presenti 13, votanti 12, favorevoli 9, contrari 3, astenuti 1;",
		},
		verb: "DELIBERA", decided: decided,
	}
}

func (d *desk) deliberaWithMap() Unit {
	at := d.ago(6)
	a := d.deliberation(at.YearDay()/8+1, at,
		"Variante parziale al piano regolatore, zona «La Còsta». Adozione.",
		"Premesso che l’area è già urbanizzata e che la variante non comporta consumo di suolo né aumento del carico urbanistico, poiché riduce l’indice di edificabilità e destina a verde pubblico una superficie di m² 4.180;",
		"di adottare la variante rappresentata nella planimetria e descritta nella tabella delle particelle, entrambe allegate;",
		"di depositare gli atti in segreteria per trenta giorni, durante i quali chiunque può prenderne visione e presentare osservazioni;",
		"di dichiarare la presente immediatamente eseguibile, ai sensi dell’art. 134, comma 4, del d.lgs. 267/2000.")
	parcels := d.parcels()
	return d.unit("DELC", "delibera", at, a.number, a.subject,
		file("delibera.pdf", roleMain, formatPDF, a.pdf(d.body)),
		file("Planimetria zona «La Còsta» 1-2000.pdf", roleAnnex, formatPDF, d.zoningMap(at, parcels)),
		file("particelle.csv", roleAttachment, formatCSV, parcelList(parcels)))
}

func (d *desk) deliberaWithNotes() Unit {
	at := d.ago(9)
	a := d.deliberation(at.YearDay()/9+1, at,
		"Convenzione per la gestione associata della polizia locale. Approvazione.",
		"Premesso che la gestione associata assicura un servizio più continuo e più vicino ai cittadini dei nove Comuni aderenti, con un’unica centrale operativa;",
		"di approvare lo schema di convenzione, della durata di nove anni;",
		"di autorizzare il Presidente alla sottoscrizione.")
	notes := "Interventi trascritti dalla segreteria\r\n" +
		"======================================\r\n\r\n" +
		"Il Presidente: «Perché il servizio funzioni, ciò che conta è la continuità: sette giorni su sette.»\r\n" +
		"Un consigliere: «È così che si spende di più? Chiedo quant’è il costo per abitante.»\r\n" +
		"L’assessore: «11,40 € l’anno; oggi sono 13,85 €.»\r\n\r\n" +
		"Ora di chiusura: 22:17.\r\n"
	return d.unit("DELC", "delibera", at, a.number, a.subject,
		file("delibera.pdf", roleMain, formatPDF, a.pdf(d.body)),
		file("Così si è discusso – trascrizione.txt", roleAttachment, formatText, []byte(notes)))
}

func (d *desk) ordinanza() Unit {
	at := d.ago(1)
	street := streets[d.chance("ordinanza").IntN(len(streets))]
	a := act{
		kind: "ORDINANZA", register: "ORD", number: at.YearDay()/3 + 1, at: at,
		office: "Polizia locale", subject: "Modifica temporanea della viabilità e della sosta in " + street + ".",
		role:       "IL COMANDANTE DELLA POLIZIA LOCALE",
		considered: []string{"Considerato che i lavori di posa della rete idrica occupano l’intera carreggiata e che è necessario tutelare la pubblica incolumità;"},
		seen:       []string{"Visti gli artt. 5, 6, 7 e 21 del d.lgs. 30 aprile 1992, n. 285 (Codice della strada);", "Visto il d.P.R. 16 dicembre 1992, n. 495;"},
		verb:       "ORDINA",
		decided: []string{
			fmt.Sprintf("il divieto di transito e di sosta con rimozione in %s, dalle ore 7:00 alle ore 19:00, da domani e fino %s;", street, withDate("al", at.AddDate(0, 0, 12))),
			"l’apposizione della segnaletica a cura dell’impresa esecutrice, almeno quarantotto ore prima;",
			"che sia garantito in ogni momento il passaggio dei mezzi di soccorso e dei residenti con disabilità.",
		},
	}
	return d.unit("ORD", "ordinanza", at, a.number, a.subject,
		file(fmt.Sprintf("Ordinanza n. %d – viabilità in città (più allegati).pdf", a.number), roleMain, formatPDF, a.pdf(d.body)))
}

func (d *desk) permit() Unit {
	at := d.ago(7)
	a := act{
		kind: "PERMESSO DI COSTRUIRE", register: "PDC", number: at.YearDay()/10 + 1, at: at,
		office:  "Sportello unico per l’edilizia",
		subject: "Ampliamento di edificio residenziale unifamiliare in contrada Poggio, foglio 7, particella 312.",
		role:    "IL RESPONSABILE DELLO SPORTELLO UNICO",
		considered: []string{
			"Vista la domanda presentata dall’avente titolo, corredata dagli elaborati di progetto;",
			"Accertata la conformità dell’intervento agli strumenti urbanistici e al regolamento edilizio;",
		},
		seen: []string{"Visto il d.P.R. 6 giugno 2001, n. 380, artt. 10, 12, 13 e 20;", "Acquisito il parere favorevole della commissione per la qualità architettonica;"},
		verb: "RILASCIA IL PERMESSO",
		decided: []string{
			"per l’esecuzione delle opere rappresentate negli elaborati allegati (prospetto e pianta), che formano parte integrante del presente titolo;",
			"con inizio dei lavori entro un anno e ultimazione entro tre anni dall’inizio, a pena di decadenza;",
			"con contributo di costruzione determinato in € " + euro(int64(300_000+d.chance("permit").IntN(400_000))) + ".",
		},
	}
	return d.unit("PDC", "permesso-di-costruire", at, a.number, a.subject,
		file("permesso.pdf", roleMain, formatPDF, a.pdf(d.body)),
		file("Tav. 1 – prospetto sud.png", roleAnnex, formatPNG, d.elevation()),
		file("Tav. 2 – pianta piano terra.png", roleAnnex, formatPNG, d.floorPlan()))
}

// inspection is the one reserved unit.
func (d *desk) inspection() Unit {
	at := d.ago(5)
	a := act{
		kind: "VERBALE DI SOPRALLUOGO", register: "VERB", number: at.YearDay()/4 + 1, at: at,
		office: "Servizi sociali associati", subject: "Sopralluogo presso alloggio di edilizia residenziale pubblica.",
		role:       "L’ASSISTENTE SOCIALE INCARICATA",
		considered: []string{"L’anno e il giorno sopra indicati, alle ore 10:15, gli incaricati si sono recati presso l’alloggio assegnato al nucleo identificato con il codice 0417, alla presenza degli interessati;"},
		seen:       []string{"Trattamento dei dati ai sensi del regolamento (UE) 2016/679: atto sottratto alla pubblicazione e all’accesso civico;"},
		verb:       "SI DÀ ATTO",
		decided: []string{
			"che l’alloggio è in buono stato di conservazione, salvo infiltrazioni d’umidità sulla parete nord;",
			"che il nucleo chiede l’installazione di un corrimano, intervento che si propone di eseguire con priorità.",
		},
	}
	u := d.unit("VERB", "verbale", at, a.number, a.subject,
		file("verbale di sopralluogo.pdf", roleMain, formatPDF, a.pdf(d.body)))
	u.Reserved = true
	return u
}

func (d *desk) minutesWithRecording() Unit {
	at := d.ago(6)
	a := act{
		kind: "VERBALE DELLA SEDUTA", register: "VERB", number: at.YearDay()/8 + 1, at: at,
		office: d.body.council, subject: "Verbale della seduta " + withDate("del", at) + " con registrazione audio.",
		role:       "IL SEGRETARIO COMUNALE",
		considered: []string{"Alle ore 20:30, nella sala consiliare, constatato il numero legale, il Presidente dichiara aperta la seduta. La registrazione integrale degli interventi è allegata in formato audio WAV e costituisce parte del presente verbale;"},
		verb:       "ORDINE DEL GIORNO",
		decided: []string{
			"Comunicazioni del Sindaco.",
			"Variante parziale al piano regolatore, zona «La Còsta». Adozione. (approvata)",
			"Interrogazione sul servizio di trasporto scolastico. (discussa)",
			"Varie ed eventuali. La seduta è tolta alle ore 22:05.",
		},
	}
	return d.unit("VERB", "verbale", at, a.number, a.subject,
		file("verbale.pdf", roleMain, formatPDF, a.pdf(d.body)),
		d.recording("Registrazione della seduta.wav"))
}
