package archive

import (
	"errors"
	"fmt"

	"github.com/marchesud/perenne/policies"
)

// Kind sorts errors by what the caller can do about them. Exit codes and HTTP statuses follow from it, in one
// place each.
type Kind int

// The kinds.
const (
	// Internal: a fault of ours or of the machine; nothing was acknowledged.
	Internal Kind = iota
	// Invalid: the request is malformed; the findings name fields and remedies; nothing was recorded.
	Invalid
	// Refused: the policy does not admit it, and the refusal could not be recorded as a paper.
	Refused
	// Conflict: the key is taken by a document with other content.
	Conflict
	// NotFound: there is no such package, producer or entry.
	NotFound
	// Damaged: what is kept is not what was kept; run an audit.
	Damaged
	// Unavailable: not now (store, clock, quota, a producer that stands still); nothing was acknowledged.
	Unavailable
	// ReadOnly: this archive has no keys to write with.
	ReadOnly
)

// Error is what the methods of Archive return to callers.
type Error struct {
	Kind     Kind
	Op       string // submit, retrieve, audit …
	Object   string // what it was about, never personal data
	Findings []policies.Finding
	Existing string // Conflict: ID of the package that has the key
	Err      error
}

// Error says the operation and the object once, then the cause.
func (e *Error) Error() string {
	s := e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	for _, f := range e.Findings {
		s += fmt.Sprintf("; %s: %s", f.Field, f.Message)
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf tells the kind of any error; Internal for one that is not ours.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

func fail(kind Kind, op, object string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Kind: kind, Op: op, Object: object, Err: err}
}

var errReadOnly = errors.New("this archive is read-only: its keys are not here (perenne keys import, or keys adopt)")

// String is the word used in metrics and problem details.
func (k Kind) String() string {
	return [...]string{"internal", "invalid", "refused", "conflict", "not-found", "damaged", "unavailable", "read-only"}[k]
}
