package samples

import (
	"bytes"
	"fmt"
	"time"

	"codeberg.org/go-pdf/fpdf"
)

// sheet is an A4 document of a body: crest and name at the head of each page, reference and page number at
// its foot. Text is given in UTF-8 and written in Windows-1252, which the standard fonts of PDF cover.
type sheet struct {
	*fpdf.Fpdf
	latin func(string) string
}

// Lengths in millimetres, sizes in points.
const (
	margin   = 22.0
	textLine = 5.6
	textSize = 10.5
)

// newSheet begins a document. Dates are fixed and dictionaries sorted so that the bytes can be repeated.
func newSheet(b body, title, reference string, at time.Time) *sheet {
	p := fpdf.New("P", "mm", "A4", "")
	s := &sheet{Fpdf: p, latin: p.UnicodeTranslatorFromDescriptor("cp1252")}
	p.SetCatalogSort(true)
	p.SetCreationDate(at)
	p.SetModificationDate(at)
	p.SetTitle(title, true)
	p.SetAuthor(b.name, true)
	p.SetCreator("Perenne, documento dimostrativo", true)
	p.SetLang("it-IT")
	p.SetMargins(margin, 42, margin)
	p.SetAutoPageBreak(true, 26)
	p.AliasNbPages("{nb}")
	p.SetHeaderFunc(func() { s.head(b) })
	p.SetFooterFunc(func() { s.foot(b, reference) })
	p.AddPage()
	return s
}

// head draws the crest, a shield with three hills under a sun, and the body's name and address.
func (s *sheet) head(b body) {
	x, y := margin, 12.0
	s.SetFillColor(b.colour[0], b.colour[1], b.colour[2])
	s.SetDrawColor(60, 60, 60)
	s.SetLineWidth(0.3)
	s.Polygon([]fpdf.PointType{
		{X: x, Y: y},
		{X: x + 15, Y: y},
		{X: x + 15, Y: y + 12},
		{X: x + 7.5, Y: y + 19},
		{X: x, Y: y + 12},
	}, "FD")
	s.SetFillColor(250, 205, 70)
	s.Circle(x+7.5, y+5.2, 2.6, "F")
	s.SetFillColor(245, 245, 240)
	for i := range 3 {
		l := x + 1.8 + 3.8*float64(i)
		s.Polygon([]fpdf.PointType{{X: l, Y: y + 12.5}, {X: l + 1.9, Y: y + 8.6}, {X: l + 3.8, Y: y + 12.5}}, "F")
	}
	s.SetXY(x+20, y+2)
	s.SetFont("Times", "B", 17)
	s.CellFormat(0, 8, s.latin(b.name), "", 2, "L", false, 0, "")
	s.SetFont("Helvetica", "", 8)
	s.SetTextColor(90, 90, 90)
	s.CellFormat(0, 4, s.latin(b.address+"  ·  C.F. "+taxCode+"  ·  "+b.post), "", 1, "L", false, 0, "")
	s.SetTextColor(0, 0, 0)
	s.Line(margin, y+22, 210-margin, y+22)
	s.SetXY(margin, 42)
}

func (s *sheet) foot(b body, reference string) {
	s.SetY(-18)
	s.SetFont("Helvetica", "", 7.5)
	s.SetTextColor(110, 110, 110)
	s.CellFormat(0, 4, s.latin(b.name+" è un ente di fantasia: documento dimostrativo, privo di effetti."), "T", 1, "C", false, 0, "")
	s.CellFormat(0, 4, s.latin(fmt.Sprintf("%s  –  pagina %d di {nb}", reference, s.PageNo())), "", 0, "C", false, 0, "")
	s.SetTextColor(0, 0, 0)
}

func (s *sheet) text(style string, size, line float64, align, text string) {
	s.SetFont("Times", style, size)
	s.MultiCell(0, line, s.latin(text), "", align, false)
}

// title writes the kind of act, its number and its subject in a frame.
func (s *sheet) title(kind, number, subject string) {
	s.text("B", 14, 7, "C", kind)
	s.text("", 11.5, 6.5, "C", number)
	s.Ln(3)
	s.SetFont("Times", "B", 11)
	s.SetFillColor(244, 242, 236)
	s.MultiCell(0, 6.5, s.latin("OGGETTO: "+subject), "1", "L", true)
	s.Ln(4)
}

func (s *sheet) heading(text string) {
	s.Ln(2)
	s.text("B", 11, 7, "C", text)
	s.Ln(1)
}

func (s *sheet) paragraphs(texts ...string) {
	for _, t := range texts {
		s.text("", textSize, textLine, "J", t)
		s.Ln(1.6)
	}
}

// points writes a numbered list with the numbers hanging.
func (s *sheet) points(texts ...string) {
	for i, t := range texts {
		s.SetFont("Times", "", textSize)
		s.CellFormat(8, textLine, fmt.Sprintf("%d.", i+1), "", 0, "L", false, 0, "")
		s.SetLeftMargin(margin + 8)
		s.MultiCell(0, textLine, s.latin(t), "", "J", false)
		s.SetLeftMargin(margin)
		s.SetX(margin)
		s.Ln(1.6)
	}
}

// table writes rows under a shaded head, which a page break repeats.
func (s *sheet) table(widths []float64, head []string, rows [][]string) {
	cells := func(row []string, fill bool) {
		for i, c := range row {
			s.CellFormat(widths[i], 6, s.latin(c), "1", 0, "L", fill, 0, "")
		}
		s.Ln(6)
	}
	top := func() {
		s.SetFont("Helvetica", "B", 8.5)
		s.SetFillColor(228, 226, 218)
		cells(head, true)
		s.SetFont("Helvetica", "", 8)
	}
	top()
	for _, r := range rows {
		if s.GetY()+6 > 297-26 {
			s.AddPage()
			top()
		}
		cells(r, false)
	}
	s.Ln(3)
}

// signature closes an act. The role signs: no person is named.
func (s *sheet) signature(place string, at time.Time, role string) {
	s.Ln(5)
	s.text("", textSize, textLine, "L", place+", "+longDate(at))
	s.text("B", textSize, textLine, "R", role)
	s.text("I", 9, 5, "R", "sottoscritto con firma digitale ai sensi del d.lgs. 82/2005")
}

func (s *sheet) bytes() []byte {
	var b bytes.Buffer
	must(0, s.Output(&b))
	return b.Bytes()
}
