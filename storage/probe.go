package storage

import (
	"context"
	"fmt"
	"regexp"
)

// ProbeRoom is the first component of every key under which a store is put to the test: no object of an archive
// lies there, and anybody may remove what does.
const ProbeRoom = "doctor"

var probeKey = regexp.MustCompile(`^` + ProbeRoom + `/[0-9]{8}t[0-9]{6}z-[a-z2-7]{8}(/[a-z0-9-]+){1,4}$`)

// ProbeKey reports whether a key is one that an examination may have left: in the probes' room, below the time and
// the chance name of a run. What else lies in that room is as foreign as anywhere.
func ProbeKey(key string) bool { return probeKey.MatchString(key) }

// Prober is a store that has promises of its own kind, beside those of [Store], to put to the test.
type Prober interface {
	// Probes returns them, in the order in which they are told.
	Probes() []Probe
}

// Probe puts one promise of a store to the test, on the store itself.
type Probe struct {
	// Name is short, stable, in lower case; storage/doctor has the words for it.
	Name string
	// Alone: it changes for a moment what holds for the whole store, so that no other probe may run beside it.
	Alone bool
	// Passive: it tells something also where nothing can be written. Should it write, it erases that itself.
	Passive bool
	// Run tries the promise with objects under room + "/", which is a part of ProbeRoom and the probe's own: what
	// lies there afterwards is erased by who ran it. Locks that it sets end within minutes. It ends with ctx.
	Run func(ctx context.Context, room string) Outcome
}

// Verdict is what a probe found. The zero Verdict is no verdict, and never good.
type Verdict string

// The verdicts, from the best to the worst.
const (
	Held   Verdict = "held"   // the promise was tried and kept
	Noted  Verdict = "noted"  // nothing that Perenne relies on is missing; what the store cannot do is to be known
	Untold Verdict = "untold" // it could not be tried: nothing is known
	Broken Verdict = "broken" // the store does not keep the promise
)

// Outcome is a verdict and, unless the promise was held, what was seen: in English, for whoever mends it.
type Outcome struct {
	Verdict Verdict
	Seen    error
}

// Holds is the outcome of a promise that was kept.
func Holds() Outcome { return Outcome{Verdict: Held} }

// Notes is the outcome of what is to be known, and no fault. The arguments are those of [fmt.Errorf].
func Notes(format string, args ...any) Outcome {
	return Outcome{Noted, fmt.Errorf(format, args...)}
}

// Untellable is the outcome of a promise that could not be tried.
func Untellable(format string, args ...any) Outcome {
	return Outcome{Untold, fmt.Errorf(format, args...)}
}

// Breaks is the outcome of a promise that was not kept.
func Breaks(format string, args ...any) Outcome {
	return Outcome{Broken, fmt.Errorf(format, args...)}
}
