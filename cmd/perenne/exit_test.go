package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

func TestErrorsBecomeExitCodes(t *testing.T) {
	problem := func(word string, status int) error {
		return &web.Problem{Type: "urn:perenne:problem:" + word, Status: status, Title: word}
	}
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"nothing", nil, exitFine},
		{"printed already", &codeError{exitUnknown}, exitUnknown},
		{"usage", usagef("no"), exitUsage},
		{"usage within", fmt.Errorf("open: %w", usageIn("no", "no")), exitUsage},
		{"usage beside another", errors.Join(usagef("no"), fs.ErrClosed), exitUsage},
		{"help for what does not exist", cli.Exit("no help", 3), exitUsage},
		{"later", laterf("port taken"), exitLater},
		{"absent", absentIn("non c'è", "not there"), exitWrong},
		{"conflict", problem("conflict", http.StatusConflict), exitConflict},
		{"refused", problem("refused", http.StatusUnprocessableEntity), exitWrong},
		{"malformed", problem("invalid", http.StatusBadRequest), exitWrong},
		{"not found", problem("not-found", http.StatusNotFound), exitWrong},
		{"damaged", problem("damaged", http.StatusInternalServerError), exitWrong},
		{"not now", problem("unavailable", http.StatusServiceUnavailable), exitLater},
		{"too many", problem("too-many", http.StatusTooManyRequests), exitLater},
		{"a gateway's answer", &web.Problem{Status: http.StatusBadGateway, Title: "Bad Gateway"}, exitLater},
		{"the archive's own", &archive.Error{Kind: archive.Unavailable, Op: "submit", Err: fs.ErrClosed}, exitLater},
		{"the archive's conflict", &archive.Error{Kind: archive.Conflict, Op: "submit"}, exitConflict},
		{"connection refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, exitLater},
		{"a request without answer", &url.Error{Op: "Get", URL: "http://127.0.0.1", Err: syscall.ECONNRESET}, exitLater},
		{"Ctrl-C", fmt.Errorf("audit: %w", context.Canceled), exitLater},
		{"disk full", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, exitWrong},
		{"a bare errno, which is a net.Error too", syscall.EACCES, exitWrong},
		{"anything else", errors.New("fault"), exitWrong},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := exitCode(c.err); got != c.want {
				t.Errorf("exitCode(%v) = %d, want %d", c.err, got, c.want)
			}
		})
	}
}

func TestVerdictsBecomeExitCodes(t *testing.T) {
	for verdict, want := range map[paper.Verdict]int{paper.Good: 0, paper.Wrong: 1, paper.CannotTell: 2} {
		if got := verdictCode(verdict); got != want {
			t.Errorf("verdictCode(%v) = %d, want %d", verdict, got, want)
		}
	}
	for verdict, want := range map[string]int{paper.VerdictGood: 0, paper.VerdictDamaged: 1, paper.VerdictIncomplete: 2, "what nobody knows": 1} {
		if got := reportCode(verdict); got != want {
			t.Errorf("reportCode(%s) = %d, want %d", verdict, got, want)
		}
	}
}

func TestErrorsSpeakTheLanguageOfTheUser(t *testing.T) {
	for _, c := range []struct {
		err  error
		l    paper.Lang
		want string
	}{
		{usageIn("manca %s", "missing %s", "--dir"), paper.Italian, "perenne: manca --dir\n"},
		{usageIn("manca %s", "missing %s", "--dir"), paper.English, "perenne: missing --dir\n"},
		{fmt.Errorf("submit: %w", laterIn("più tardi", "later")), paper.Italian, "perenne: submit: più tardi\n"},
		{usagef("only English"), paper.Italian, "perenne: only English\n"},
		{fmt.Errorf("audit: %w", context.Canceled), paper.Italian, "perenne: interrotto\n"},
		{laterIn("interrotto: versare di nuovo è sicuro", "interrupted"), paper.Italian, "perenne: interrotto: versare di nuovo è sicuro\n"},
		{&codeError{exitWrong}, paper.Italian, ""},
	} {
		var b strings.Builder
		explain(&b, c.l, c.err)
		if b.String() != c.want {
			t.Errorf("explain(%s, %v) = %q, want %q", c.l, c.err, b.String(), c.want)
		}
	}
}
