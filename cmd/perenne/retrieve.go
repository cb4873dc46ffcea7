package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
)

func retrieveCommand() *cli.Command {
	return command(&cli.Command{
		Name: "retrieve", Usage: "get a package with its proofs (distribution package)", ArgsUsage: "ID or KEY",
		Flags: []cli.Flag{
			dirFlag(), langFlag(), producerFlag(),
			&cli.StringFlag{Name: "out", Usage: "FILE to write; default <id>.zip"},
			&cli.StringFlag{Name: "purpose", Usage: "why it is asked for; stands in the distribution package", Value: "consultazione"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("want one identifier, or a key such as \"DETE 2026/12\"")
			}
			s, err := connect(c)
			if err != nil {
				return err
			}
			id, err := s.packageID(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			out := firstOf(c.String("out"), id+".zip")
			if err := s.retrieveTo(c, id, out); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, lang(c).T("pacchetto di distribuzione %s  (unzip -l %s; perenne verify --trust %s %s)\n",
				"distribution package %s  (unzip -l %s; perenne verify --trust %s %s)\n"), out, out, s.in.path("trust"), out)
			return nil
		},
	}, `perenne retrieve --dir p DETE/2026/12 --out copy.zip
perenne retrieve --dir p k3fqk7o2v5… --purpose "accesso agli atti" --out copy.zip`)
}

// retrieveTo writes beside the file and renames, so that out is whole or not there.
func (s *session) retrieveTo(c *cli.Context, id, out string) error {
	f, err := os.CreateTemp(filepath.Dir(out), ".perenne-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	bar := newProgress(c.App.ErrWriter, lang(c).T("ricezione", "receiving"))
	err = s.Retrieve(c.Context, s.producer, id, c.String("purpose"), f, bar.bytes)
	bar.end()
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}

func receiptCommand() *cli.Command {
	return command(&cli.Command{
		Name: "receipt", Usage: "get the receipt of a package, or a refusal, again", ArgsUsage: "ID or KEY",
		Flags: []cli.Flag{
			dirFlag(), langFlag(), producerFlag(),
			&cli.StringFlag{Name: "out", Usage: "FILE to write; default rdv-<register>-<year>-<number>.json here"},
			&cli.BoolFlag{Name: "xml", Usage: "the XML rapporto di versamento"},
			&cli.BoolFlag{Name: "evidence", Usage: "the RFC 4998 evidence record (.ers)"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("want one identifier, or a key such as \"DETE 2026/12\"")
			}
			s, err := connect(c)
			if err != nil {
				return err
			}
			id, err := s.packageID(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			r, err := s.Receipt(c.Context, s.producer, id)
			if err != nil {
				return err
			}
			text, out, err := receiptForm(c, s, r, id)
			if err != nil {
				return err
			}
			if err := writeFile(out, text, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "%s  %s\n", out, sealWord(r, lang(c)))
			return nil
		},
	}, `perenne receipt --dir p DETE/2026/12
perenne receipt --dir p DETE/2026/12 --xml --out rapporto-di-versamento.xml
perenne receipt --dir p DETE/2026/12 --evidence --out evidence.ers`)
}

func receiptForm(c *cli.Context, s *session, r *paper.Receipt, id string) ([]byte, string, error) {
	out := c.String("out")
	switch {
	case c.Bool("xml"):
		text, err := r.Body.XML()
		return text, firstOf(out, "rapporto-di-versamento.xml"), err
	case c.Bool("evidence"):
		der, err := s.Evidence(c.Context, s.producer, id)
		return der, firstOf(out, "evidence.ers"), err
	default:
		text, err := r.Marshal()
		return text, firstOf(out, receiptName(r)), err
	}
}
