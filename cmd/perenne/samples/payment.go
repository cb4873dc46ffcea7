package samples

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// line is a row of an invoice, a bill of quantities or a payment order.
type line struct {
	Number, Text, Unit, Quantity, Price, Total, Payee string
	cents                                             int64
}

// The texts of an invoice keep to Latin-1, its units of measure to ASCII: the schema wants it so.
var supplies = [...]struct{ text, unit string }{
	{"Conglomerato bituminoso per strato d'usura", "mq"},
	{"Cordoli in pietra arenaria, posa compresa", "m"},
	{"Pozzetti con griglia in ghisa sferoidale", "cad"},
	{"Trasporto e conferimento a discarica", "t"},
	{"Segnaletica orizzontale rifrangente", "m"},
	{"Manodopera specializzata, opere «in economia»", "h"},
}

// lines gives n supplies with quantities and prices that differ by seed, and their sum in cents.
func (d *desk) lines(name string, n int) ([]line, int64) {
	r := d.chance(name)
	var all []line
	var sum int64
	for i := range n {
		s := supplies[i%len(supplies)]
		quantity, price := int64(2+r.IntN(180)), int64(450+r.IntN(9_000))
		all = append(all, line{
			Number: strconv.Itoa(i + 1), Text: s.text, Unit: s.unit, Payee: supplier,
			Quantity: decimal(quantity * 100), Price: decimal(price), Total: decimal(quantity * price), cents: quantity * price,
		})
		sum += quantity * price
	}
	return all, sum
}

// table writes rows as CSV with semicolons and a byte order mark, as the spreadsheets of town halls do.
func table(rows [][]string) []byte {
	var b strings.Builder
	b.WriteString("\uFEFF")
	w := csv.NewWriter(&b)
	w.Comma, w.UseCRLF = ';', true
	must(0, w.WriteAll(rows))
	return []byte(b.String())
}

func (d *desk) billOfQuantities() []byte {
	lines, sum := d.lines("computo", 18)
	rows := [][]string{{"n.", "descrizione", "unità", "quantità", "prezzo unitario €", "importo €"}}
	for _, l := range lines {
		rows = append(rows, []string{
			l.Number, l.Text, l.Unit, strings.Replace(l.Quantity, ".", ",", 1),
			strings.Replace(l.Price, ".", ",", 1), euro(l.cents),
		})
	}
	return table(append(rows, []string{"", "Totale", "", "", "", euro(sum)}))
}

// invoice is one in the form of FatturaPA 1.2.2, with split payment of VAT.
func (d *desk) invoice() Unit {
	at := d.ago(2)
	r := d.chance("invoice")
	lines, net := d.lines("invoice lines", 4)
	vat := (net*22 + 50) / 100
	progressive := fmt.Sprintf("%05d", r.IntN(100_000))
	number := fmt.Sprintf("%d/PA", 20+r.IntN(200))
	content := form("fattura.xml", map[string]any{
		"TaxCode": taxCode, "Supplier": supplier, "Customer": d.body.name, "Place": d.body.place,
		"Address": strings.Split(d.body.address, ",")[0], "Progressive": progressive,
		"Date": at.Format(time.DateOnly), "Due": at.AddDate(0, 0, 30).Format(time.DateOnly), "Number": number,
		"Reason": "Lavori di manutenzione stradale, stato d'avanzamento n. 1", "Order": "ODA-" + progressive,
		"CIG": "X9010" + progressive, "Lines": lines, "Net": decimal(net), "VAT": decimal(vat), "Total": decimal(net + vat),
	})
	return d.unit("FATT", "fattura", at, at.YearDay()*2,
		fmt.Sprintf("Fattura %s di %s: lavori di manutenzione stradale, € %s.", number, supplier, euro(net+vat)),
		file("IT"+taxCode+"_"+progressive+".xml", roleMain, formatXML, content))
}

// paymentOrder is a flow to the treasurer in the manner of the OPI standard.
func (d *desk) paymentOrder() Unit {
	at := d.ago(1)
	lines, sum := d.lines("mandato", 3)
	number := at.YearDay() * 3
	flow := fmt.Sprintf("MAN-%d-%06d", at.Year(), number)
	content := form("mandato.xml", map[string]any{
		"Flow": flow, "Created": at.Format("2006-01-02T15:04:05"), "Body": d.body.name, "TaxCode": taxCode,
		"Year": strconv.Itoa(at.Year()), "Number": strconv.Itoa(number), "Date": at.Format(time.DateOnly),
		"Lines": lines, "Total": decimal(sum),
	})
	return d.unit("MAND", "mandato", at, number,
		fmt.Sprintf("Mandato di pagamento a favore di %s, € %s.", supplier, euro(sum)),
		file(flow+".xml", roleMain, formatXML, content))
}
