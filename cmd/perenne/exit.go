package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

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

// usageError is a fault of the command line or the configuration.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// codeError carries an exit code whose message was printed already.
type codeError struct{ code int }

func (e *codeError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// exitCode is the code of an error.
func exitCode(err error) int {
	var code *codeError
	var usage *usageError
	var problem *web.Problem
	var ours *archive.Error
	var network net.Error
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &problem):
		return kindCode(problem.Kind())
	case errors.As(err, &ours):
		return kindCode(ours.Kind)
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, io.ErrUnexpectedEOF):
		return exitLater
	default:
		return exitWrong
	}
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
