package web

import (
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/storage/catalog"
)

// SearchQuery says what to look for in one producer's packages. Empty fields do not restrict.
type SearchQuery struct {
	Producer  string
	Structure string
	Register  string
	Number    string
	Year      int
	From, To  string // document dates, YYYY-MM-DD, both included
	Type      string
	Words     string // of the subject; all of them, in any order and Italian inflection
	Limit     int    // 0 means 50; at most 1000
	After     string // SearchPage.Next of the page before
}

// SearchPage is a part of what was found, newest document date first.
type SearchPage struct {
	Packages []Record `json:"packages"`
	Next     string   `json:"next,omitempty"` // where the next page begins; absent when there is none
	Total    int      `json:"total"`          // over all pages; -1 when unknown
	Behind   int64    `json:"behind"`         // packages that the words index does not know yet
}

// Record is what the catalog knows of a package, or of a refusal.
type Record struct {
	Producer   string `json:"producer"`
	ID         string `json:"id"`
	Generation int64  `json:"generation"`
	Structure  string `json:"structure,omitempty"`
	Register   string `json:"register,omitempty"`
	Year       int    `json:"year,omitempty"`
	Number     string `json:"number,omitempty"`
	Date       string `json:"date"`
	Type       string `json:"type"`
	Subject    string `json:"subject,omitempty"`
	Reserved   bool   `json:"reserved"`
	Class      string `json:"class,omitempty"`
	Files      int    `json:"files"`
	Size       int64  `json:"size"`   // of the package, bytes
	SHA256     string `json:"sha256"` // of the package, hex
	Time       string `json:"time"`   // accepted
	Entry      int64  `json:"entry"`  // of the ledger
	Annulled   bool   `json:"annulled"`
}

// values is the query string; values and parseQuery are each other's inverse.
func (q SearchQuery) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("structure", q.Structure)
	set("register", q.Register)
	set("number", q.Number)
	set("from", q.From)
	set("to", q.To)
	set("type", q.Type)
	set("q", q.Words)
	set("after", q.After)
	if q.Year != 0 {
		v.Set("year", strconv.Itoa(q.Year))
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// maxValue bounds a parameter.
const maxValue = 1024

// parseQuery reads a query string. An unknown or repeated parameter is an error: ignoring it would find too much.
func parseQuery(producer, raw string) (SearchQuery, error) {
	q := SearchQuery{Producer: producer}
	malformed := func(name string) error {
		return badRequest(name, "query.form", "il valore non è comprensibile", "date come AAAA-MM-GG, year e limit come numeri, after come l'ha dato la pagina precedente")
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, malformed("$")
	}
	texts := map[string]*string{
		"structure": &q.Structure, "register": &q.Register, "number": &q.Number, "from": &q.From, "to": &q.To,
		"type": &q.Type, "q": &q.Words, "after": &q.After,
	}
	numbers := map[string]*int{"year": &q.Year, "limit": &q.Limit}
	for name, all := range values {
		text, isText := texts[name]
		number, isNumber := numbers[name]
		switch {
		case !isText && !isNumber:
			return q, badRequest("query", "query.unknown", "parametro sconosciuto", "i parametri sono structure, register, number, year, from, to, type, q, limit, after")
		case len(all) > 1:
			return q, badRequest(name, "query.repeated", "parametro ripetuto", "indicarlo una volta sola")
		case len(all[0]) > maxValue || !utf8.ValidString(all[0]):
			return q, malformed(name)
		case isText:
			*text = all[0]
		default:
			n, err := strconv.Atoi(all[0])
			if err != nil || n < 0 || n > math.MaxInt32 {
				return q, malformed(name)
			}
			*number = n
		}
	}
	for name, date := range map[string]string{"from": q.From, "to": q.To} {
		if _, err := time.Parse(time.DateOnly, date); date != "" && err != nil {
			return q, malformed(name)
		}
	}
	return q, nil
}

// search answers a search.
func (x *exchange) search() error {
	q, err := parseQuery(x.producer, x.r.URL.RawQuery)
	if err != nil {
		return err
	}
	found, err := x.s.cfg.Archive.Search(x.r.Context(), catalog.Query{
		Producer: q.Producer, Structure: q.Structure, Register: q.Register, Number: q.Number, Year: q.Year,
		From: q.From, To: q.To, Type: q.Type, Words: q.Words, Limit: q.Limit, After: q.After,
	})
	if archive.KindOf(err) == archive.Invalid && err != nil {
		return badRequest("after", "query.form", "il valore non è comprensibile", "indicare in after ciò che la pagina precedente ha dato in next")
	}
	if err != nil {
		return err
	}
	page := SearchPage{Packages: make([]Record, 0, len(found.Records)), Next: found.Next, Total: found.Total, Behind: found.Behind}
	for _, r := range found.Records {
		page.Packages = append(page.Packages, recordOf(r))
	}
	x.json(http.StatusOK, "application/json", page)
	return nil
}

// record answers with what the catalog knows of one package.
func (x *exchange) record() error {
	r, err := x.s.cfg.Archive.Find(x.r.Context(), x.producer, x.r.PathValue("id"))
	if err != nil {
		return err
	}
	x.json(http.StatusOK, "application/json", recordOf(r))
	return nil
}

func recordOf(r catalog.Record) Record {
	return Record{
		Producer: r.Producer, ID: r.ID, Generation: r.Generation, Structure: r.Structure, Register: r.Register,
		Year: r.Year, Number: r.Number, Date: r.Date, Type: r.Type, Subject: r.Subject, Reserved: r.Reserved,
		Class: r.Class, Files: r.Files, Size: r.Size, SHA256: r.SHA256, Time: r.Time, Entry: r.Index, Annulled: r.Annulled,
	}
}
