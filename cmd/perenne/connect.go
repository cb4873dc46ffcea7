package main

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

// session is a command's way to the daemon.
type session struct {
	*web.Client
	in       *installation
	producer string
}

// prepare does everything that needs no daemon; find looks for that. Between the two a command checks its arguments
// and files, so that nobody waits only to be told of a typing error.
func prepare(c *cli.Context) (*session, error) {
	in, err := here(c)
	if err != nil {
		return nil, err
	}
	s, err := in.session(c)
	if err != nil {
		return nil, err
	}
	s.producer, err = in.pickProducer(c.String("producer"))
	return s, err
}

// here is the installation that the command line names.
func here(c *cli.Context) (*installation, error) {
	dir := c.String("dir")
	if _, err := os.Stat(filepath.Join(dir, "perenne.yaml")); errors.Is(err, fs.ErrNotExist) {
		return nil, usageIn("%[1]s non è un'installazione: vi manca perenne.yaml; indicarla con --dir, o crearla con perenne init --dir %[2]s",
			"%[1]s is no installation: there is no perenne.yaml in it; name it with --dir, or make it with perenne init --dir %[2]s", dir, quote(dir))
	}
	return findInstallation(dir)
}

// session prepares the way to the daemon of this installation.
func (in *installation) session(c *cli.Context) (*session, error) {
	return in.sessionFor(string(lang(c)))
}

func (in *installation) sessionFor(lang string) (*session, error) {
	token, err := os.ReadFile(in.path("keys", "cli.token"))
	if err != nil {
		return nil, usageIn("il token della riga di comando non si può leggere: %v", "the token of the command line cannot be read: %v", err)
	}
	s := &session{in: in, Client: &web.Client{Token: strings.TrimSpace(string(token)), Lang: lang, HTTP: &http.Client{}}}
	if in.config.TLS.Cert == "" {
		return s, nil
	}
	if s.HTTP.Transport, err = in.ownCertificate(); err != nil {
		return nil, err
	}
	return s, nil
}

// ownCertificate accepts the certificate that the installation's daemon is configured with, and no other: it is
// issued for the name that others use, while commands on the same machine go by the loopback address.
func (in *installation) ownCertificate() (*http.Transport, error) {
	file := in.within(in.config.TLS.Cert)
	if _, err := os.Stat(file); err != nil {
		return nil, usagef("perenne.yaml: tls.cert: %v", err)
	}
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("no transport to start from")
	}
	t = t.Clone()
	t.TLSClientConfig = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection judges instead: the very certificate, by its bytes
		VerifyConnection: func(state tls.ConnectionState) error {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			own, _ := pem.Decode(text)
			if own == nil || len(state.PeerCertificates) == 0 || !bytes.Equal(own.Bytes, state.PeerCertificates[0].Raw) {
				return errors.New("the daemon does not show the certificate of perenne.yaml")
			}
			return nil
		},
	}
	return t, nil
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
		return "", usageIn("serve --producer, uno fra: %s", "--producer is needed, one of: %s", strings.Join(codes, ", "))
	}
	return "", usageIn("--producer %s non è qui; ci sono: %s", "--producer %s is not here; there are: %s", code, strings.Join(codes, ", "))
}

// sealWord tells in a word how far the evidence of a receipt is.
func sealWord(r *paper.Receipt, l paper.Lang) string {
	if r.Evidence.Seal == paper.Sealed {
		return l.T("sigillato", "sealed")
	}
	return l.T("sigillo in attesa", "seal pending")
}
