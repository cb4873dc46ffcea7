package samples

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// body is one of the invented public bodies.
type body struct {
	code    string // IPA code
	name    string
	place   string
	address string
	post    string // certified e-mail address, in a domain that cannot exist
	council string // the assembly that deliberates
	colour  [3]int // of its crest
}

var (
	montesole = body{
		code: "c_x901", name: "Comune di Montesole", place: "Montesole",
		address: "Piazza della Libertà 1, 00000 Montesole (XX)", post: "protocollo@pec.comune.montesole.invalid",
		council: "Consiglio comunale", colour: [3]int{150, 40, 30},
	}
	colli = body{
		code: "ucolli_x902", name: "Unione dei Colli", place: "Colle Alto",
		address: "Via dei Cipressi 20, 00000 Colle Alto (XX)", post: "protocollo@pec.unionedeicolli.invalid",
		council: "Consiglio dell’Unione", colour: [3]int{35, 85, 60},
	}
)

// taxCode stands wherever a tax code or VAT number is wanted: nobody has it.
const taxCode = "00000000000"

// supplier is the one firm that works for both bodies.
const supplier = "Edilcolli Esempio S.r.l."

// desk writes the documents of one body on one day.
type desk struct {
	seed int64
	body body
	day  time.Time
}

func newDesk(seed int64, b body, day time.Time) *desk {
	y, m, d := day.Date()
	return &desk{seed: seed, body: b, day: time.Date(y, m, d, 9, 30, 0, 0, time.UTC)}
}

// chance gives the source of whatever differs from seed to seed in the document called name. Each document
// has its own, so that changing one leaves the others as they were.
func (d *desk) chance(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(d.body.code + "/" + name + "/" + d.day.Format(time.DateOnly)))
	return rand.New(rand.NewPCG(uint64(d.seed), h.Sum64()))
}

// ago gives the working morning n days before the desk's day.
func (d *desk) ago(n int) time.Time { return d.day.AddDate(0, 0, -n) }

// unit fills in what all units of the desk have in common. Numbers grow with the day of the year, as those
// of a real register would.
func (d *desk) unit(register, kind string, at time.Time, number int, subject string, files ...File) Unit {
	return Unit{
		Producer: d.body.code, Structure: "unica", Register: register, Year: at.Year(),
		Number: strconv.Itoa(number), Date: at.Format(time.DateOnly), Type: kind, Subject: subject,
		Class: classes[kind], Files: files,
	}
}

// classes are the retention classes of the builtin policy, by document type. What has none here is never
// disposed of.
var classes = map[string]string{
	"contratto":             "contratti",
	"delibera":              "deliberazioni-consiglio",
	"fattura":               "fatture",
	"mandato":               "mandati-di-pagamento",
	"ordinanza":             "ordinanze-circolari",
	"permesso-di-costruire": "titoli-edilizi",
}

var months = [...]string{
	"gennaio", "febbraio", "marzo", "aprile", "maggio", "giugno",
	"luglio", "agosto", "settembre", "ottobre", "novembre", "dicembre",
}

// longDate writes a date as Italian acts do: 9 marzo 2026, 1° marzo 2026.
func longDate(t time.Time) string {
	day := strconv.Itoa(t.Day())
	if t.Day() == 1 {
		day = "1°"
	}
	return fmt.Sprintf("%s %s %d", day, months[t.Month()-1], t.Year())
}

// withDate puts il, del or al before a date, with the elision that l’8 and l’11 want.
func withDate(article string, t time.Time) string {
	if t.Day() != 8 && t.Day() != 11 {
		return article + " " + longDate(t)
	}
	elided := map[string]string{"il": "l’", "del": "dell’", "al": "all’"}
	return elided[article] + longDate(t)
}

// euro writes an amount in cents as 12.345,67.
func euro(cents int64) string {
	whole := strconv.FormatInt(cents/100, 10)
	var b strings.Builder
	for i, c := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte('.')
		}
		b.WriteRune(c)
	}
	return fmt.Sprintf("%s,%02d", b.String(), cents%100)
}

// decimal writes an amount in cents as XML wants it: 12345.67.
func decimal(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

// must passes v on. Documents are made in memory from constants, so an error is a mistake in this package.
func must[T any](v T, err error) T {
	if err != nil {
		panic("samples: " + err.Error())
	}
	return v
}
