// Package paper is what Perenne hands out and how a stranger checks it: the receipt, the distribution
// package and the integrity report, and the packages they speak of. It needs no archive, no store, no clock
// and no network: bytes and a [Trust] in, a [Result] out. The archive itself checks with the same functions
// what it is about to hand out.
//
// # One way of checking
//
// A check never guesses. It ends [Wrong] as soon as one thing does not hold; [CannotTell] when nothing is
// wrong but something needed was not there (no trust anchor, no seal yet); [Good] only when everything that
// the paper claims was checked. Every byte of a paper is covered: a file that differs from the one form its
// content has is wrong, whatever it says.
//
// What is proven wrong stays so whatever else is missing: bytes that differ from their digest are [Wrong] under
// no trust at all.
//
// # What a paper claims
//
// Times: the entry in the ledger may not be more than 60 s older than the body's time, nor more than 60 s and the
// accuracy of the token younger than the timestamp over it: [Wrong]. A body's time more than 48 h before the entry
// cannot be told ([Body.Timely]). The time of issue of a distribution package and the times of a report stand
// under the seal alone; a check says that they are stated.
//
// Qualification: "qualificato" or "non qualificato", and nothing else. "qualificato" is wrong where the signer's
// certificate (in containers) or the token (in a receipt's evidence) does not claim the same; whether their claim
// is true, trusted lists say. "non qualificato" is told beside every seal and timestamp of the paper.
//
// # Receipt
//
// A receipt file is the RFC 8785 form of {body, evidence, proof} (type [Receipt]). body says what was taken
// in charge; SHA-256(salt ‖ RFC 8785 form of body) stands in the ledger entry; proof is the C2SP tlog-proof
// of that entry in the checkpoint of its own commit, the entry's line in its extra field; evidence holds the
// RFC 4998 record of the package's digest (for a refusal: of the checkpoint's) and the root of its seal.
//
// # Distribution package
//
// An ASiC-E container (see archive/pack) with the package, byte for byte, its receipt and its evidence
// record, under the seal of the conservatore. See [Statement].
//
// # Report
//
// An ASiC-E container with content/report.json (type [Report], RFC 8785), content/objects.ndjson, one
// line for each object read, and content/verbale.txt and content/report.txt for people, which are derived from
// report.json.
package paper

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/signing"
)

// Trust is everything a verifier believes before it starts.
type Trust struct {
	// Certificates holds the anchors of seals and of timestamps.
	Certificates *signing.Trust
	// Ledgers holds the public keys of ledgers; nil when there is none.
	Ledgers note.Verifiers
}

// Verdict is the outcome of a check.
type Verdict int

// The verdicts, in ascending gravity: a whole is as bad as its worst part.
const (
	Good Verdict = iota
	CannotTell
	Wrong
)

// String gives the word used in reports and JSON.
func (v Verdict) String() string {
	switch v {
	case Good:
		return "good"
	case CannotTell:
		return "cannot tell"
	default:
		return "wrong"
	}
}

// Line is one thing that was checked.
type Line struct {
	Verdict Verdict
	Text    string
}

// Result is what came of checking one paper.
type Result struct {
	// Kind of the paper, as a person calls it; empty when the bytes are none of ours.
	Kind string
	// About names what the paper is about: a key, an identifier.
	About string
	Lines []Line
}

// Verdict is the worst of the lines; a result without lines is Wrong, since nothing was checked.
func (r *Result) Verdict() Verdict {
	if len(r.Lines) == 0 {
		return Wrong
	}
	v := Good
	for _, l := range r.Lines {
		v = max(v, l.Verdict)
	}
	return v
}

func (r *Result) add(v Verdict, text string) { r.Lines = append(r.Lines, Line{v, text}) }

func (r *Result) good(text string) { r.add(Good, text) }

func (r *Result) wrong(text string) *Result {
	r.add(Wrong, text)
	return r
}

// fail adds the verdict that an error of a check stands for. See undecided.
func (r *Result) fail(what string, err error) *Result {
	v := Wrong
	if undecided(err) {
		v = CannotTell
	}
	r.add(v, what+": "+err.Error())
	return r
}

// undecided tells whether err says no more than that a check could not be made: there was no anchor or key to make
// it with, the file could not be read, nothing proves what is stated, or the caller gave up. An error made of several, such as damage found
// beside a signature that nobody can judge, is undecided only if all of them are: what is proven stays proven.
func undecided(err error) bool {
	switch {
	case err == nil:
		return false
	case err == signing.ErrNoTrust, err == errNoLedgerKey, err == errDelayed, err == context.Canceled, err == context.DeadlineExceeded: //nolint:errorlint // the leaves of the tree walked here
		return true
	}
	switch e := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() []error }:
		parts := e.Unwrap()
		for _, part := range parts {
			if !undecided(part) {
				return false
			}
		}
		return len(parts) > 0
	case *fs.PathError:
		return true
	case interface{ Unwrap() error }:
		return undecided(e.Unwrap())
	}
	return false
}

var errNoLedgerKey = errors.New("no ledger key was given to check it with (trust/ledger.vkey)")

// Lang is the language people are spoken to in.
type Lang string

// The languages of papers and messages.
const (
	Italian Lang = "it"
	English Lang = "en"
)

// T picks the text in l's language.
func (l Lang) T(it, en string) string {
	if l == English {
		return en
	}
	return it
}
