package archive

import (
	"fmt"

	"github.com/marchesud/perenne/archive/paper"
)

// maxFindings bounds the findings, and what was not checked, that a report lists one by one: a store that lost
// everything must not cost the memory of everything. What is beyond is counted in the last line.
const maxFindings = 10_000

// findings is what an audit has to say.
type findings struct {
	list   []paper.ReportFinding
	beyond int64 // findings that are only counted
	damage bool  // one of those beyond is damage

	missed  []string // what was not checked
	skipped int64    // of these, those only counted
}

func (f *findings) add(x paper.ReportFinding) {
	if len(f.list) < maxFindings {
		f.list = append(f.list, x)
		return
	}
	f.beyond++
	f.damage = f.damage || x.Gravity == paper.Damage
}

// unchecked says that something could not be looked at: then no report says good.
func (f *findings) unchecked(what string) {
	if len(f.missed) < maxFindings {
		f.missed = append(f.missed, what)
		return
	}
	f.skipped++
}

// all are the findings as a report lists them; object is what the count of the others speaks of.
func (f *findings) all(object string) []paper.ReportFinding {
	list := append([]paper.ReportFinding{}, f.list...)
	if f.beyond == 0 {
		return list
	}
	last := paper.ReportFinding{Gravity: paper.Warning, Object: object, Kind: "more", Text: fmt.Sprintf("altri %d rilievi, non elencati", f.beyond)}
	if f.damage {
		last.Gravity = paper.Damage
	}
	return append(list, last)
}

// allMissed is what was not checked as a report lists it.
func (f *findings) allMissed() []string {
	list := append([]string{}, f.missed...)
	if f.skipped > 0 {
		list = append(list, fmt.Sprintf("altre %d cose, non elencate", f.skipped))
	}
	return list
}

func (w *audit) damage(object, kind, id, text string) {
	w.add(paper.ReportFinding{Gravity: paper.Damage, Object: object, Kind: kind, ID: id, Text: text})
	w.a.metrics.damage.WithLabelValues(w.p.Code).Inc()
}

func (w *audit) warn(object, kind, id, text string) {
	w.add(paper.ReportFinding{Gravity: paper.Warning, Object: object, Kind: kind, ID: id, Text: text})
}

func (w *audit) notice(object, kind, text string) {
	w.add(paper.ReportFinding{Gravity: paper.Notice, Object: object, Kind: kind, Text: text})
}

// damageOrDoubt is damage, unless a commit that cannot be read may hold the entry that explains it.
func (w *audit) damageOrDoubt(object, kind, id, text string) {
	if len(w.lost) > 0 {
		w.unchecked(object + ": " + text + ", se non lo spiega un commit danneggiato")
		return
	}
	w.damage(object, kind, id, text)
}
