package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/marchesud/perenne/policies"
)

// office is a kind of document as a town hall makes it: its register, its type in the policy, and what its subject begins
// with.
type office struct {
	register, typ string
	openings      []string
}

var offices = []office{
	{"PG", "comunicazione", []string{"richiesta", "comunicazione", "segnalazione", "trasmissione", "sollecito", "riscontro alla nota", "istanza di accesso agli atti", "convocazione"}},
	{"PG", "comunicazione", []string{"certificato di destinazione urbanistica", "comunicazione di inizio lavori", "richiesta di occupazione del suolo pubblico", "denuncia di infortunio"}},
	{"FATT", "fattura", []string{"fattura per", "nota di credito per", "fattura elettronica relativa a"}},
	{"DETE", "determina", []string{"affidamento diretto", "impegno di spesa", "liquidazione", "aggiudicazione definitiva", "approvazione dello stato di avanzamento", "accertamento di entrata"}},
	{"DELI", "delibera", []string{"approvazione", "variazione al bilancio di previsione", "atto di indirizzo", "presa d'atto", "adozione della variante"}},
	{"ORD", "ordinanza", []string{"ordinanza di chiusura al traffico", "ordinanza contingibile e urgente", "istituzione del senso unico", "divieto di sosta temporaneo"}},
	{"CONTR", "contratto", []string{"contratto d'appalto", "convenzione", "comodato d'uso", "concessione cimiteriale"}},
}

// matters are what documents are about, the commonest first.
var matters = strings.Split("manutenzione ordinaria,manutenzione straordinaria,servizio mensa,trasporto scolastico,illuminazione pubblica,raccolta rifiuti,"+
	"assistenza domiciliare,edilizia residenziale,verde pubblico,rete fognaria,impianto sportivo,biblioteca comunale,asilo nido,polizia locale,"+
	"tributi locali,imposta municipale,canone unico,contributo economico,patrocinio gratuito,manifestazione culturale,mercato settimanale,"+
	"permesso di costruire,segnalazione certificata,piano urbanistico,catasto terreni,anagrafe e stato civile,liste elettorali,protezione civile,"+
	"sgombero neve,segnaletica stradale,parcheggi,ponte pedonale,acquedotto,cimitero,palestra,scuola primaria,scuola dell'infanzia,casa di riposo,"+
	"centro anziani,alloggi popolari,borse di studio,tirocinio formativo,concorso pubblico,assunzione a tempo determinato,formazione del personale,"+
	"buoni pasto,assicurazione automezzi,noleggio fotocopiatrici,licenze informatiche,cancelleria,carburante,energia elettrica,gas naturale,"+
	"telefonia mobile,spese postali,pubblicazione bando,incarico professionale,progetto esecutivo,direzione lavori,collaudo statico,perizia di variante,"+
	"somma urgenza,dissesto idrogeologico,argine del torrente,strada vicinale,pista ciclabile,arredo urbano,fontana monumentale,restauro del campanile,"+
	"archivio storico,museo civico,teatro comunale,gemellaggio,consulta giovanile,commissione mensa,nucleo di valutazione,revisore dei conti,"+
	"riaccertamento dei residui,rendiconto di gestione,debito fuori bilancio,mutuo a tasso fisso,alienazione di immobili,usi civici,taglio del bosco,"+
	"fida pascolo,caccia e pesca,randagismo,canile intercomunale,derattizzazione,bonifica amianto,inquinamento acustico,antenna telefonica", ",")

// places makes some thousand names of streets, hamlets and firms that exist nowhere.
func places() []string {
	heads := strings.Split("mon,cast,vil,bor,san,tor,pie,val,col,roc,ser,mar,cam,gua,pra,fos,pon,ron,lug,ber,fer,gal,cor,tre,ori,ulm,ner,bel,cal,sel", ",")
	middles := strings.Split("te,el,la,go,ti,re,ve,ni,do,ma,cu,ra,le,so,bi", ",")
	tails := strings.Split("verde,fiore,nuovo,secco,lungo,rossa,chiaro,maggiore,alto,sole,petra,grano", ",")
	var all []string
	for _, h := range heads {
		for _, m := range middles {
			for _, t := range tails {
				all = append(all, h+m+t)
			}
		}
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

var ways = []string{"via", "strada comunale", "piazza", "località", "frazione", "viale", "vicolo", "rione"}

const firstYear, years = 2006, 20

// author writes the documents of one body, each other than the one before, the same for the same seed.
type author struct {
	random  *rand.Rand
	places  []string
	matter  *rand.Zipf
	place   *rand.Zipf
	numbers map[string]int // given so far, by register and year
}

func newAuthor(seed, stream uint64) *author {
	a := &author{random: rand.New(rand.NewPCG(seed, stream)), places: places(), numbers: map[string]int{}}
	a.matter = rand.NewZipf(a.random, 1.2, 4, uint64(len(matters)-1))
	a.place = rand.NewZipf(a.random, 1.1, 20, uint64(len(a.places)-1))
	return a
}

// next is the next document: its key, date, type and subject. share from 0 to 1 says how far along the years it is.
func (a *author) next(share float64) policies.Description {
	o := offices[min(a.random.IntN(2*len(offices)), a.random.IntN(2*len(offices)))%len(offices)]
	// Documents come mostly in the order of their dates, as they do.
	day := min(max(int(share*years*365)+a.random.IntN(61)-30, 0), years*365-1)
	year := firstYear + day/365
	in := fmt.Sprint(o.register, year)
	a.numbers[in]++
	return policies.Description{
		Register: o.register, Year: year, Number: fmt.Sprintf("%07d", a.numbers[in]),
		Date: fmt.Sprintf("%d-%02d-%02d", year, 1+day%365/31, 1+day%365%28), Type: o.typ, Subject: a.subject(o),
	}
}

func (a *author) subject(o office) string {
	s := pick(a.random, o.openings) + " " + matters[a.matter.Uint64()] + " " + pick(a.random, ways) + " " + a.places[a.place.Uint64()]
	switch a.random.IntN(6) {
	case 0:
		s += " - CIG Z" + strings.ToUpper(strconv.FormatUint(a.random.Uint64()%0xFFFFFFFFF, 16))
	case 1:
		s += fmt.Sprintf(" anno %d/%d", firstYear+a.random.IntN(years), 1+a.random.IntN(12))
	case 2:
		s += " ditta " + a.places[a.place.Uint64()] + " srl"
	case 3:
		s += " e " + matters[a.matter.Uint64()]
	}
	return s
}

func pick(r *rand.Rand, list []string) string { return list[r.IntN(len(list))] }
