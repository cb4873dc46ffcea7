package web

import (
	"errors"
	"net/http"
	"strings"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
)

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"

// problemPrefix stands before the word in Problem.Type.
const problemPrefix = "urn:perenne:problem:"

// Problem is an error over HTTP: problem details (RFC 9457) with what an archive has to say beside.
type Problem struct {
	// Type is urn:perenne:problem:<word>: a word of archive.Kind, or one of HTTP alone: unauthorized,
	// forbidden, method-not-allowed, too-slow, too-large, unsupported-media-type, too-many.
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Instance is urn:perenne:request:<identifier of the request>; absent in a 404.
	Instance string `json:"instance,omitempty"`
	// Findings name what is wrong with the request: field, rule, level, message, remedy.
	Findings []policies.Finding `json:"findings,omitempty"`
	// Existing is, in a conflict, the identifier of the package that has the key.
	Existing string `json:"existing,omitempty"`
	// RetryAfter is the number of seconds after which trying again may help; 0: it does not.
	RetryAfter int `json:"retry_after,omitempty"`
}

// Error gives title and detail. The findings are for the caller to show, in the language it speaks.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Title + ": " + p.Detail
}

// Unwrap gives the error as the archive would have returned it, so that archive.KindOf sorts it.
func (p *Problem) Unwrap() error {
	return &archive.Error{Kind: p.Kind(), Op: "request", Findings: p.Findings, Existing: p.Existing, Err: errors.New(p.Title)}
}

// Kind is the archive's kind of the error: what the caller can do about it.
func (p *Problem) Kind() archive.Kind {
	word := strings.TrimPrefix(p.Type, problemPrefix)
	for k := archive.Internal; k <= archive.ReadOnly; k++ {
		if k.String() == word {
			return k
		}
	}
	switch p.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity:
		return archive.Refused
	case http.StatusNotFound:
		return archive.NotFound
	case http.StatusConflict:
		return archive.Conflict
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return archive.Unavailable
	}
	if p.Status >= 400 && p.Status < 500 {
		return archive.Invalid
	}
	return archive.Internal
}

// statusOf is the one place where kinds become statuses.
func statusOf(k archive.Kind) int {
	switch k {
	case archive.Invalid:
		return http.StatusBadRequest
	case archive.Refused:
		return http.StatusUnprocessableEntity
	case archive.Conflict:
		return http.StatusConflict
	case archive.NotFound:
		return http.StatusNotFound
	case archive.Unavailable, archive.ReadOnly:
		return http.StatusServiceUnavailable
	default: // Internal, Damaged
		return http.StatusInternalServerError
	}
}

// tooLargeRules are the rules whose breach is a 413: nothing but less would help.
var tooLargeRules = map[string]bool{"metadata.size": true, "files.count": true, "file.size": true, "submission.size": true}

// transportError is what is wrong with a request below the archive: its framing, its pace, its rights.
type transportError struct {
	status     int
	finding    policies.Finding // zero: none
	retryAfter int
}

func (e *transportError) Error() string {
	if e.finding.Rule == "" {
		return http.StatusText(e.status)
	}
	return e.finding.Rule
}

// httpOnly are the problems that archive.Kind has no word for.
var httpOnly = map[int]string{
	http.StatusUnauthorized: "unauthorized", http.StatusForbidden: "forbidden", http.StatusMethodNotAllowed: "method-not-allowed",
	http.StatusRequestTimeout: "too-slow", http.StatusRequestEntityTooLarge: "too-large",
	http.StatusUnsupportedMediaType: "unsupported-media-type", http.StatusTooManyRequests: "too-many",
}

// problemOf makes the problem of an error.
func problemOf(err error, l paper.Lang) *Problem {
	var t *transportError
	if errors.As(err, &t) {
		return t.problem(l)
	}
	p := &Problem{}
	kind := archive.KindOf(err)
	p.Status = statusOf(kind)
	word := kind.String()
	var e *archive.Error
	if errors.As(err, &e) {
		p.Existing = e.Existing
		p.Findings = speak(e.Findings, l)
		for _, f := range e.Findings {
			if kind == archive.Invalid && tooLargeRules[f.Rule] {
				p.Status, word = http.StatusRequestEntityTooLarge, httpOnly[http.StatusRequestEntityTooLarge]
			}
		}
	}
	if kind == archive.NotFound {
		p.Existing, p.Findings = "", nil // the same bytes whatever was not found
	}
	if kind == archive.Unavailable {
		p.RetryAfter = retrySeconds
	}
	p.Type = problemPrefix + word
	p.Title, p.Detail = phrase(word, l)
	return p
}

// retrySeconds is what Retry-After says when nothing better is known.
const retrySeconds = 10

func (e *transportError) problem(l paper.Lang) *Problem {
	word, ok := httpOnly[e.status]
	if !ok {
		word = map[int]string{http.StatusNotFound: archive.NotFound.String(), http.StatusServiceUnavailable: archive.Unavailable.String()}[e.status]
	}
	if word == "" {
		word = archive.Invalid.String()
	}
	p := &Problem{Type: problemPrefix + word, Status: e.status, RetryAfter: e.retryAfter}
	p.Title, p.Detail = phrase(word, l)
	if e.finding.Rule != "" {
		p.Findings = speak([]policies.Finding{e.finding}, l)
	}
	return p
}

// refusalProblem renders a refusal for who prefers problem details.
func refusalProblem(r *paper.Receipt, l paper.Lang) *Problem {
	word := archive.Refused.String()
	p := &Problem{Type: problemPrefix + word, Status: statusOf(archive.Refused), Findings: speak(r.Body.Checks, l)}
	p.Title, p.Detail = phrase(word, l)
	return p
}
