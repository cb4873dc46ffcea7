package main

import (
	"bytes"
	"fmt"
	"strings"
)

// chart draws the ratios of ingest as bars, one group for each store, with a mark at each target.
func chart(results map[string]result) []byte {
	const width, height, left, top, bottom = 760, 360, 60, 40, 60
	high := float64(height - top - bottom)
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n"+`<text x="%d" y="22" font-size="14" fill="#222">Ingest, as a fraction of a handler that only hashes and puts</text>`+"\n", width, height, left)
	for tick := range 6 {
		y := float64(top) + high - high*float64(tick)/5
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#444">%.1f</text>`+"\n", left, y, width-20, y, left-8, y+4, float64(tick)/5)
	}
	var bars []row
	var stores []string
	for _, part := range order {
		for _, w := range results[part].Rows {
			if strings.HasPrefix(w.What, "ingest ") {
				bars, stores = append(bars, w), append(stores, titles[part][0])
			}
		}
	}
	step := float64(width-left-20) / float64(max(len(bars), 1))
	for i, w := range bars {
		x, h := float64(left)+step*float64(i)+step*0.15, high*min(w.Value, 1)
		fill := "#b5523b"
		if w.Met != nil && *w.Met {
			fill = "#3b7a57"
		}
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, float64(top)+high-h, step*0.7, h, fill)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#222">%.2f</text>`+"\n", x+step*0.35, float64(top)+high-h-6, w.Value)
		if w.Target > 0 {
			y := float64(top) + high*(1-w.Target)
			fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222" stroke-width="2"/>`+"\n", x-3, y, x+step*0.7+3, y)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#222">%s</text><text x="%.1f" y="%d" text-anchor="middle" fill="#444">%s</text>`+"\n",
			x+step*0.35, height-bottom+18, strings.TrimPrefix(w.What, "ingest "), x+step*0.35, height-bottom+34, stores[i])
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#444">size of a document, store; black line: target; green: met, red: missed</text>`+"\n</svg>\n", left, height-8)
	return b.Bytes()
}
