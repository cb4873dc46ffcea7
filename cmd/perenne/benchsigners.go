package main

import (
	"os"

	"github.com/urfave/cli/v2"
)

// benchSigners are the seal and the timestamp authority to measure with, where they are not those of a new
// installation.
type benchSigners struct {
	sealKey, sealCA []byte
	tsa             string
	tsaCA           []byte
}

func signersFromFlags(c *cli.Context) (s benchSigners, err error) {
	if c.IsSet("seal-key") != c.IsSet("seal-ca") || c.IsSet("tsa") != c.IsSet("tsa-ca") {
		return s, usageIn("--seal-key va con --seal-ca, --tsa con --tsa-ca: la radice a cui credere", "--seal-key goes with --seal-ca, --tsa with --tsa-ca: the root to believe")
	}
	s.tsa = c.String("tsa")
	for _, f := range []struct {
		flag string
		to   *[]byte
	}{{"seal-key", &s.sealKey}, {"seal-ca", &s.sealCA}, {"tsa-ca", &s.tsaCA}} {
		if c.IsSet(f.flag) {
			if *f.to, err = os.ReadFile(c.String(f.flag)); err != nil {
				return s, usageIn("--%s: %v", "--%s: %v", f.flag, err)
			}
		}
	}
	return s, nil
}

// lay puts them into an installation that was never opened. With a TSA too seals are made at once: what is measured is
// the way to the seal, not its interval.
func (s benchSigners) lay(in *installation) error {
	if s.sealKey != nil {
		if err := writeFile(in.path("keys", "seal.pem"), s.sealKey, 0o600); err != nil {
			return err
		}
		if err := appendFile(in.path("trust", "seal-ca.pem"), s.sealCA); err != nil {
			return err
		}
	}
	if s.tsa == "" {
		return nil
	}
	at := Duration(0)
	in.config.Seal.Every, in.config.TSA = &at, TSAConfig{Authorities: []TSAEntry{{URL: s.tsa}}}
	if err := in.config.check(); err != nil {
		return err
	}
	return appendFile(in.path("trust", "tsa-ca.pem"), s.tsaCA)
}
