package samples

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"time"

	"codeberg.org/go-pdf/fpdf"
)

// plot is a white sheet of 1400 by 900 pixels drawn upon with rectangles and strokes.
type plot struct{ *image.Paletted }

// The inks of a plot, by their place in its palette.
const (
	white = iota
	black
	grey
	brick
	glass
	grass
)

func newPlot() plot {
	return plot{image.NewPaletted(image.Rect(0, 0, 1400, 900), color.Palette{
		color.White, color.Black,
		color.Gray{Y: 150},
		color.RGBA{R: 190, G: 110, B: 80, A: 255},
		color.RGBA{R: 170, G: 205, B: 225, A: 255},
		color.RGBA{R: 130, G: 165, B: 100, A: 255},
	})}
}

func (p plot) fill(x0, y0, x1, y1 int, ink uint8) {
	for y := y0; y < y1; y++ {
		for x := x0; x < x1; x++ {
			p.SetColorIndex(x, y, ink)
		}
	}
}

// stroke draws a line as a row of square dots, width pixels wide.
func (p plot) stroke(x0, y0, x1, y1, width int, ink uint8) {
	steps := max(abs(x1-x0), abs(y1-y0), 1)
	for i := 0; i <= steps; i++ {
		x, y := x0+(x1-x0)*i/steps, y0+(y1-y0)*i/steps
		p.fill(x-width/2, y-width/2, x-width/2+width, y-width/2+width, ink)
	}
}

func (p plot) box(x0, y0, x1, y1, width int, ink uint8) {
	p.stroke(x0, y0, x1, y0, width, ink)
	p.stroke(x1, y0, x1, y1, width, ink)
	p.stroke(x1, y1, x0, y1, width, ink)
	p.stroke(x0, y1, x0, y0, width, ink)
}

// measure draws a dimension line with its ticks, every step pixels.
func (p plot) measure(x0, x1, y, step int) {
	p.stroke(x0, y, x1, y, 1, black)
	for x := x0; x <= x1; x += step {
		p.stroke(x-6, y+6, x+6, y-6, 2, black)
	}
}

// frame draws the border and the empty title block that every drawing has.
func (p plot) frame() {
	p.box(20, 20, 1380, 880, 3, black)
	p.box(1080, 800, 1380, 880, 2, black)
	p.stroke(1080, 840, 1380, 840, 1, black)
	p.stroke(1230, 800, 1230, 880, 1, black)
}

func (p plot) bytes() []byte {
	var b bytes.Buffer
	must(0, png.Encode(&b, p))
	return b.Bytes()
}

// elevation draws the front of a house; the windows of each floor vary with the seed.
func (d *desk) elevation() []byte {
	r := d.chance("elevation")
	p := newPlot()
	p.frame()
	p.fill(60, 700, 1340, 730, grass)
	p.fill(350, 360, 1050, 700, brick)
	p.box(350, 360, 1050, 700, 4, black)
	for y := range 130 { // the roof, course by course
		p.stroke(700-y*400/130, 230+y, 700+y*400/130, 230+y, 1, grey)
	}
	p.stroke(300, 360, 700, 230, 4, black)
	p.stroke(700, 230, 1100, 360, 4, black)
	for floor := range 2 {
		windows := 3 + r.IntN(3)
		for i := range windows {
			x, y := 350+700*(i+1)/(windows+1)-35, 400+160*floor
			p.fill(x, y, x+70, y+90, glass)
			p.box(x, y, x+70, y+90, 3, black)
			p.stroke(x+35, y, x+35, y+90, 2, black)
		}
	}
	p.measure(350, 1050, 780, 140)
	return p.bytes()
}

// floorPlan draws the ground floor: outer walls, two partitions placed by the seed, doors, dimensions.
func (d *desk) floorPlan() []byte {
	r := d.chance("floor plan")
	p := newPlot()
	p.frame()
	p.box(200, 150, 1200, 700, 14, black)
	cross, along := 500+r.IntN(300), 350+r.IntN(120)
	p.stroke(cross, 150, cross, 700, 8, black)
	p.stroke(200, along, cross, along, 8, black)
	doors := [...][2]int{{cross, 560}, {cross, 220}, {320, along}, {900, 700}}
	for _, at := range doors {
		p.fill(at[0]-8, at[1]-8, at[0]+60, at[1]+60, white)
		p.swing(at[0], at[1], 60)
	}
	p.measure(200, 1200, 760, 200)
	return p.bytes()
}

// swing draws a door leaf and the quarter circle it describes.
func (p plot) swing(x, y, radius int) {
	for i := range 90 {
		sin, cos := math.Sincos(float64(i) * math.Pi / 180)
		dx, dy := x+int(float64(radius)*cos), y+int(float64(radius)*sin)
		p.fill(dx, dy, dx+2, dy+2, grey)
	}
	p.stroke(x, y, x, y+radius, 3, black)
}

func abs(n int) int { return max(n, -n) }

// parcel is a piece of ground on the zoning map.
type parcel struct {
	number  int
	use     string
	area    int // m²
	corners []fpdf.PointType
}

var zones = [...]struct {
	use    string
	colour [3]int
}{
	{"verde pubblico", [3]int{190, 220, 165}},
	{"residenziale di completamento", [3]int{240, 205, 170}},
	{"attrezzature e servizi", [3]int{185, 205, 230}},
	{"viabilità", [3]int{225, 225, 225}},
}

// parcels divides a rectangle into 6 by 5 pieces whose inner corners are shifted by the seed.
func (d *desk) parcels() []parcel {
	const columns, rows, width, height = 6, 5, 27.0, 25.0
	r := d.chance("parcels")
	var corners [rows + 1][columns + 1]fpdf.PointType
	for y := range corners {
		for x := range corners[y] {
			corners[y][x] = fpdf.PointType{X: margin + width*float64(x) + shift(r, x, columns), Y: 82 + height*float64(y) + shift(r, y, rows)}
		}
	}
	var all []parcel
	for y := range rows {
		for x := range columns {
			p := parcel{number: 300 + 7*len(all), use: zones[r.IntN(len(zones))].use}
			p.corners = []fpdf.PointType{corners[y][x], corners[y][x+1], corners[y+1][x+1], corners[y+1][x]}
			p.area = int(area(p.corners) * 4) // 1 mm² of paper at 1:2000 is 4 m²
			all = append(all, p)
		}
	}
	return all
}

// shift moves a corner along one axis, unless it lies on the edge.
func shift(r *rand.Rand, i, n int) float64 {
	v := float64(r.IntN(90))/10 - 4.5
	if i == 0 || i == n {
		return 0
	}
	return v
}

// area is that of a polygon, by the shoelace formula.
func area(points []fpdf.PointType) float64 {
	sum := 0.0
	for i, p := range points {
		q := points[(i+1)%len(points)]
		sum += p.X*q.Y - q.X*p.Y
	}
	return math.Abs(sum) / 2
}

func parcelList(parcels []parcel) []byte {
	rows := [][]string{{"foglio", "particella", "destinazione", "superficie m²"}}
	for _, p := range parcels {
		rows = append(rows, []string{"7", fmt.Sprint(p.number), p.use, fmt.Sprint(p.area)})
	}
	return table(rows)
}

// zoningMap draws the parcels in vector graphics at 1:2000, with legend, north and scale.
func (d *desk) zoningMap(at time.Time, parcels []parcel) []byte {
	s := newSheet(d.body, "Planimetria zona La Còsta", "Tavola unica – scala 1:2000", at)
	s.title("PLANIMETRIA DI VARIANTE", "foglio catastale 7, scala 1:2000", "Zona «La Còsta», destinazioni d’uso")
	colours := map[string][3]int{}
	for _, z := range zones {
		colours[z.use] = z.colour
	}
	s.SetLineWidth(0.25)
	s.SetFont("Helvetica", "", 7)
	for _, p := range parcels {
		c := colours[p.use]
		s.SetFillColor(c[0], c[1], c[2])
		s.Polygon(p.corners, "FD")
		x, y := (p.corners[0].X+p.corners[2].X)/2, (p.corners[0].Y+p.corners[2].Y)/2
		s.Text(x-3, y+1, fmt.Sprint(p.number))
	}
	s.SetFont("Helvetica", "", 9)
	for i, z := range zones {
		y := 218 + 7*float64(i)
		s.SetFillColor(z.colour[0], z.colour[1], z.colour[2])
		s.Rect(margin, y, 8, 5, "FD")
		s.Text(margin+11, y+4, s.latin(z.use))
	}
	s.SetFillColor(30, 30, 30)
	s.Polygon([]fpdf.PointType{{X: 178, Y: 216}, {X: 182, Y: 232}, {X: 178, Y: 228}, {X: 174, Y: 232}}, "F")
	s.Text(176.6, 214, "N")
	for i := range 4 { // four segments of 20 m: 10 mm each
		s.Rect(120+10*float64(i), 240, 10, 2, map[bool]string{true: "FD", false: "D"}[i%2 == 0])
	}
	s.Text(120, 246.5, "0")
	s.Text(156, 246.5, "80 m")
	return s.bytes()
}
