package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
)

func structureFlag() cli.Flag {
	return &cli.StringFlag{Name: "structure", Usage: "AOO or structure, where several have a document of the same key"}
}

func retrieveCommand() *cli.Command {
	return command(&cli.Command{
		Name: "retrieve", Usage: "get a package with its proofs (distribution package)", ArgsUsage: "ID or KEY",
		Flags: []cli.Flag{
			dirFlag(), langFlag(), producerFlag(), structureFlag(),
			&cli.StringFlag{Name: "out", Usage: "FILE to write; default <id>.zip"},
			&cli.StringFlag{Name: "purpose", Usage: "why it is asked for; stands in the distribution package", Value: "consultazione"},
		},
		Action: retrieve,
	}, `perenne retrieve --dir p DETE/2026/12 --out copy.zip
perenne retrieve --dir p k3fqk7o2v5… --purpose "accesso agli atti" --out copy.zip`)
}

func retrieve(c *cli.Context) error {
	s, id, err := named(c, func(s *session) error { return s.in.checkOut(firstOf(c.String("out"), "copy.zip")) })
	if err != nil {
		return err
	}
	out := firstOf(c.String("out"), id+".zip")
	if err := s.retrieveTo(c, id, out); err != nil {
		return s.about(c.Args().First(), err)
	}
	fmt.Fprintf(aside(c, out), lang(c).T("pacchetto di distribuzione %[1]s  (unzip -l %[1]s; perenne verify --trust %[2]s %[1]s)\n",
		"distribution package %[1]s  (unzip -l %[1]s; perenne verify --trust %[2]s %[1]s)\n"), quote(out), quote(s.in.path("trust")))
	return nil
}

// named finds the daemon and the package that the only argument names. What can be checked before is checked before.
func named(c *cli.Context, check func(*session) error) (*session, string, error) {
	if c.NArg() != 1 {
		return nil, "", usageIn("serve un identificativo, o una chiave come \"DETE 2026/12\"", "want one identifier, or a key such as \"DETE 2026/12\"")
	}
	name := c.Args().First()
	if err := checkName(name); err != nil {
		return nil, "", err
	}
	s, err := prepare(c)
	if err != nil {
		return nil, "", err
	}
	if err := check(s); err != nil {
		return nil, "", err
	}
	if err := s.find(c.Context); err != nil {
		return nil, "", err
	}
	id, err := s.packageID(c.Context, name, c.String("structure"))
	return s, id, err
}

// about says what was not found; the daemon does not.
func (s *session) about(name string, err error) error {
	if archive.KindOf(err) != archive.NotFound {
		return err
	}
	return absentIn("%s: non c'è fra i pacchetti di %s", "%s: not among the packages of %s", name, s.producer)
}

// retrieveTo writes out whole, or leaves nothing of it.
func (s *session) retrieveTo(c *cli.Context, id, out string) error {
	f, err := openOut(out)
	if err != nil {
		return err
	}
	bar := newProgress(c.App.ErrWriter, lang(c).T("ricezione", "receiving"))
	err = s.Retrieve(c.Context, s.producer, id, c.String("purpose"), f, bar.bytes)
	bar.end()
	if err != nil {
		return errors.Join(err, f.Discard())
	}
	return f.Commit()
}

func receiptCommand() *cli.Command {
	return command(&cli.Command{
		Name: "receipt", Usage: "get the receipt of a package, or a refusal, again", ArgsUsage: "ID or KEY",
		Flags: []cli.Flag{
			dirFlag(), langFlag(), producerFlag(), structureFlag(),
			&cli.StringFlag{Name: "out", Usage: "FILE to write; default rdv-<register>-<year>-<number>.json here"},
			&cli.BoolFlag{Name: "xml", Usage: "the XML rapporto di versamento"},
			&cli.BoolFlag{Name: "evidence", Usage: "the RFC 4998 evidence record (.ers)"},
		},
		Action: receipt,
	}, `perenne receipt --dir p DETE/2026/12
perenne receipt --dir p DETE/2026/12 --xml --out rapporto-di-versamento.xml
perenne receipt --dir p DETE/2026/12 --evidence --out evidence.ers`)
}

func receipt(c *cli.Context) error {
	if c.Bool("xml") && c.Bool("evidence") {
		return usageIn("--xml oppure --evidence, non entrambi", "--xml or --evidence, not both")
	}
	s, id, err := named(c, func(s *session) error { return s.in.checkOut(firstOf(c.String("out"), "rdv.json")) })
	if err != nil {
		return err
	}
	r, err := s.Receipt(c.Context, s.producer, id)
	if err != nil {
		return s.about(c.Args().First(), err)
	}
	out, err := s.writeForm(c, r, id)
	if err != nil {
		return err
	}
	fmt.Fprintf(aside(c, out), "%s  %s\n", quote(out), sealWord(r, lang(c)))
	return nil
}

// writeForm writes the form of the receipt that was asked for, and returns where.
func (s *session) writeForm(c *cli.Context, r *paper.Receipt, id string) (string, error) {
	out := c.String("out")
	switch {
	case c.Bool("xml"):
		text, err := r.Body.XML()
		if err != nil {
			return "", err
		}
		out = firstOf(out, "rapporto-di-versamento.xml")
		return out, writeTo(out, text)
	case c.Bool("evidence"):
		der, err := s.Evidence(c.Context, s.producer, id)
		if err != nil {
			return "", err
		}
		out = firstOf(out, "evidence.ers")
		return out, writeTo(out, der)
	case out == "":
		return writeReceipt(receiptName(r), r)
	}
	there, free, err := receiptAt(out)
	if err != nil {
		return "", err
	}
	if !free && (there == nil || !sameReceipt(there, r)) {
		return "", usageIn("--out %s: il file esiste e non è questa ricevuta: sceglierne un altro", "--out %s: the file exists and is not this receipt: choose another", out)
	}
	return writeReceipt(out, r)
}
