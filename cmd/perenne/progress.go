package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress is a bar for work that takes longer than two seconds. It is drawn on terminals only: elsewhere a
// line every ten seconds tells that the work goes on.
type progress struct {
	w        io.Writer
	what     string
	terminal bool
	started  time.Time
	last     time.Time
	drawn    bool
}

func newProgress(w io.Writer, what string) *progress {
	p := &progress{w: w, what: what, started: time.Now()}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			p.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

const (
	barWidth = 30
	barAfter = 2 * time.Second
)

// bytes reports progress in bytes.
func (p *progress) bytes(done, total int64) { p.show(done, total, size(done)+" / "+size(total)) }

// objects reports progress in objects.
func (p *progress) objects(done, total int64) {
	p.show(done, total, fmt.Sprintf("%d / %d", done, total))
}

func (p *progress) show(done, total int64, text string) {
	now := time.Now()
	every := 10 * time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	}
	if total <= 0 || now.Sub(p.started) < barAfter || now.Sub(p.last) < every {
		return
	}
	p.last = now
	part := float64(min(done, total)) / float64(total)
	if !p.terminal {
		fmt.Fprintf(p.w, "%s %3.0f %%  %s\n", p.what, 100*part, text)
		return
	}
	n := int(part * barWidth)
	fmt.Fprintf(p.w, "\r%s %s%s %3.0f %%  %s\x1b[K", p.what, strings.Repeat("█", n), strings.Repeat("░", barWidth-n), 100*part, text)
	p.drawn = true
}

// end wipes the bar.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// size writes bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := int64(unit), 0
	for m := n / unit; m >= unit; m /= unit {
		div *= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}
