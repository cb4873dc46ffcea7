package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

// patience is how long a command waits for a daemon that is just being started.
const patience = 15 * time.Second

// session is a command's way to the daemon.
type session struct {
	*web.Client
	in       *installation
	producer string
}

// connect finds the daemon of an installation and waits for it to be ready.
func connect(c *cli.Context) (*session, error) {
	in, err := findInstallation(c.String("dir"))
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(in.path("keys", "cli.token"))
	if err != nil {
		return nil, usagef("%s: the token of the command line is missing: %v", in.path("keys", "cli.token"), err)
	}
	s := &session{in: in, Client: &web.Client{Token: strings.TrimSpace(string(token)), Lang: string(lang(c)), HTTP: &http.Client{}}}
	if s.producer, err = in.pickProducer(c.String("producer")); err != nil {
		return nil, err
	}
	return s, s.find(c.Context)
}

// find reads the daemon's address and waits until it answers.
func (s *session) find(ctx context.Context) error {
	deadline := time.Now().Add(patience)
	for {
		address, err := os.ReadFile(s.in.path("state", "address"))
		if err == nil {
			s.Base = strings.TrimSpace(string(address))
			if err = s.Ready(ctx); err == nil {
				return nil
			}
		}
		var p *web.Problem
		if errors.As(err, &p) {
			return nil // it answers; what stands still, the command's own request will say
		}
		if time.Now().After(deadline) {
			if errors.Is(err, fs.ErrNotExist) {
				err = errors.New("no daemon runs on this installation")
			}
			fmt.Fprintf(os.Stderr, "perenne: %v; start it with: perenne serve --dir %s\n", err, s.in.root)
			return &codeError{exitLater}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// pickProducer takes the one named, or the only one there is.
func (in *installation) pickProducer(code string) (string, error) {
	all, err := in.loadProducers()
	if err != nil {
		return "", err
	}
	if code == "" && len(all) == 1 {
		return all[0].Code, nil
	}
	var codes []string
	for _, p := range all {
		if p.Code == code {
			return code, nil
		}
		codes = append(codes, p.Code)
	}
	if code == "" {
		return "", usagef("--producer is needed, one of: %s", strings.Join(codes, ", "))
	}
	return "", usagef("--producer %s is not here; there are: %s", code, strings.Join(codes, ", "))
}

// packageID takes an identifier, or a key written REGISTER YEAR/NUMBER or REGISTER/YEAR/NUMBER.
func (s *session) packageID(ctx context.Context, text string) (string, error) {
	register, year, number, ok := splitKey(text)
	if !ok {
		return text, nil
	}
	page, err := s.Search(ctx, web.SearchQuery{Producer: s.producer, Register: register, Year: year, Number: number, Limit: 2})
	if err != nil {
		return "", err
	}
	for _, r := range page.Packages {
		if r.Number == number || len(page.Packages) == 1 {
			return r.ID, nil
		}
	}
	return "", fmt.Errorf("%s: no such document of %s", text, s.producer)
}

func splitKey(text string) (register string, year int, number string, ok bool) {
	parts := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '/' })
	if len(parts) < 3 {
		return "", 0, "", false
	}
	if _, err := fmt.Sscanf(parts[1], "%4d", &year); err != nil {
		return "", 0, "", false
	}
	return parts[0], year, strings.Join(parts[2:], "/"), true
}

// sealWord tells in a word how far the evidence of a receipt is.
func sealWord(r *paper.Receipt, l paper.Lang) string {
	if r.Evidence.Seal == paper.Sealed {
		return l.T("sigillato", "sealed")
	}
	return l.T("sigillo in attesa", "seal pending")
}
