package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

// The exit codes, the same for every command. Errors become codes here and nowhere else.
const (
	exitFine     = 0  // done, and what was checked is good
	exitWrong    = 1  // something was found wrong, or was refused
	exitUnknown  = 2  // cannot tell: something needed for the answer is missing
	exitConflict = 3  // the key is taken by another document
	exitUsage    = 64 // the command line or the configuration
	exitLater    = 75 // not now: try again later; nothing was acknowledged
)

const exitHelp = `EXIT CODES
   0  fine   1  found wrong or refused   2  cannot tell   3  conflict   64  usage   75  try again later`

// said is what an error says, in both languages; it is empty where only English is known.
type said struct{ it, en string }

func (s said) Error() string { return s.en }

// in is the text in a language.
func (s said) in(l paper.Lang) string {
	if s.it == "" {
		return s.en
	}
	return l.T(s.it, s.en)
}

// usageError is a fault of the command line or the configuration.
type usageError struct{ said }

// laterError says that something is not to be had now: a port, a lock, the daemon. Nothing was acknowledged.
type laterError struct{ said }

// absentError says that what was asked for is not there.
type absentError struct{ said }

func usagef(format string, args ...any) error {
	return &usageError{said{en: fmt.Sprintf(format, args...)}}
}

func laterf(format string, args ...any) error {
	return &laterError{said{en: fmt.Sprintf(format, args...)}}
}

// usageIn and its like say it in both languages; both formats take the same arguments in the same order.
func usageIn(it, en string, args ...any) error { return &usageError{both(it, en, args)} }

func laterIn(it, en string, args ...any) error { return &laterError{both(it, en, args)} }

func absentIn(it, en string, args ...any) error { return &absentError{both(it, en, args)} }

func both(it, en string, args []any) said {
	return said{fmt.Sprintf(it, args...), fmt.Sprintf(en, args...)}
}

// codeError carries an exit code whose message was printed already.
type codeError struct{ code int }

func (e *codeError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// exitCode is the code of an error.
func exitCode(err error) int {
	var code *codeError
	var usage *usageError
	var later *laterError
	var problem *web.Problem
	var ours *archive.Error
	var library cli.ExitCoder // of urfave/cli: help was asked for a command that does not exist
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage), errors.As(err, &library):
		return exitUsage
	case errors.As(err, &later):
		return exitLater
	case errors.As(err, &problem):
		return kindCode(problem.Kind())
	case errors.As(err, &ours):
		return kindCode(ours.Kind)
	case unreached(err):
		return exitLater
	default:
		return exitWrong
	}
}

// unreached reports whether a network or the user's patience ended it. net.Error would not do: every errno is one.
func unreached(err error) bool {
	var network *net.OpError
	var request *url.Error
	return errors.As(err, &network) || errors.As(err, &request) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

func kindCode(k archive.Kind) int {
	switch k {
	case archive.Conflict:
		return exitConflict
	case archive.Unavailable:
		return exitLater
	default:
		return exitWrong
	}
}

// verdictCode is the code of a check.
func verdictCode(v paper.Verdict) int {
	return map[paper.Verdict]int{paper.Good: exitFine, paper.CannotTell: exitUnknown, paper.Wrong: exitWrong}[v]
}

// reportCode is the code of an audit.
func reportCode(verdict string) int {
	switch verdict {
	case paper.VerdictGood:
		return exitFine
	case paper.VerdictIncomplete:
		return exitUnknown
	default:
		return exitWrong
	}
}

// exitWith is the error that ends a command with a code, nil for 0.
func exitWith(code int) error {
	if code == exitFine {
		return nil
	}
	return &codeError{code}
}
