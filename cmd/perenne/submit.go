package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/policies"
)

func submitCommand() *cli.Command {
	return command(&cli.Command{
		Name: "submit", Usage: "submit a document unit and keep its receipt", ArgsUsage: "MAIN-FILE",
		Flags: []cli.Flag{
			dirFlag(), langFlag(), producerFlag(),
			&cli.StringFlag{Name: "metadata", Usage: "description in a JSON FILE, instead of the flags below"},
			&cli.StringFlag{Name: "structure", Usage: "AOO or structure; default unica"},
			&cli.StringFlag{Name: "register", Usage: "register type, such as DETE"},
			&cli.IntFlag{Name: "year", Usage: "year of the register"},
			&cli.StringFlag{Name: "number", Usage: "number in the register"},
			&cli.StringFlag{Name: "date", Usage: "date of registration, YYYY-MM-DD"},
			&cli.StringFlag{Name: "type", Usage: "document type, one of the policy's"},
			&cli.StringFlag{Name: "subject", Usage: "oggetto"},
			&cli.BoolFlag{Name: "reserved", Usage: "riservato"},
			&cli.StringFlag{Name: "class", Usage: "retention class; none: never disposed of"},
			// Repeatable by hand: a slice flag of urfave/cli would cut names at their commas.
			&cli.GenericFlag{Name: "attachment", Usage: "FILE, once for each attachment", Value: &fileList{}},
			&cli.GenericFlag{Name: "annex", Usage: "FILE, once for each annex", Value: &fileList{}},
			&cli.StringFlag{Name: "receipt", Usage: "FILE for the receipt; default rdv-<register>-<year>-<number>.json here"},
			&cli.BoolFlag{Name: "json", Usage: "print the receipt instead of a line"},
		},
		Action: submit,
	}, `perenne submit --dir p --type determina --register DETE --year 2026 --number 12 --date 2026-03-09 \
    --subject "Affidamento lavori" determina.pdf --attachment computo.xml
perenne submit --dir p --metadata unita.json determina.pdf computo.xml`)
}

// fileList is a flag that may be given more than once, its values taken as they are.
type fileList struct{ names []string }

func (f *fileList) Set(v string) error { f.names = append(f.names, v); return nil }
func (f *fileList) String() string     { return strings.Join(f.names, " ") }

// local is a file to be sent.
type local struct{ path, role string }

func submit(c *cli.Context) error {
	s, err := connect(c)
	if err != nil {
		return err
	}
	metadata, files, err := describe(c)
	if err != nil {
		return err
	}
	bar := newProgress(c.App.ErrWriter, lang(c).T("invio", "sending"))
	r, err := s.Submit(c.Context, s.producer, metadata, uploads(files), bar.bytes)
	bar.end()
	if err != nil {
		return err
	}
	text, err := r.Marshal()
	if err != nil {
		return err
	}
	out := c.String("receipt")
	if out == "" {
		out = receiptName(r)
	}
	if err := writeFile(out, text, 0o644); err != nil {
		return err
	}
	if c.Bool("json") {
		fmt.Fprintln(c.App.Writer, string(text))
	} else {
		printReceipt(c.App.Writer, lang(c), r, out)
	}
	if r.Refused() {
		return exitWith(exitWrong)
	}
	return nil
}

// printReceipt is the line a person reads.
func printReceipt(w io.Writer, l paper.Lang, r *paper.Receipt, file string) {
	if !strings.ContainsRune(file, filepath.Separator) {
		file = "./" + file
	}
	if r.Refused() {
		fmt.Fprintf(w, l.T("rifiutato  %s %s  comunicazione %s\n", "refused  %s %s  refusal %s\n"), r.Body.Producer.Code, r.Body.Key, file)
	} else {
		fmt.Fprintf(w, l.T("accettato  %s %s  id %s  ricevuta %s  %s\n", "accepted  %s %s  id %s  receipt %s  %s\n"), r.Body.Producer.Code, r.Body.Key, r.Body.Package, file, sealWord(r, l))
	}
	for _, f := range r.Body.Checks {
		if f.Level == policies.Info && !r.Refused() {
			continue // it stands in the receipt
		}
		message, remedy := f.In(string(l))
		fmt.Fprintf(w, "  %s  %s: %s", f.Level, f.Field, message)
		if remedy != "" {
			fmt.Fprintf(w, " → %s", remedy)
		}
		fmt.Fprintf(w, "  [%s]\n", f.Rule)
	}
}

// receiptName is rdv-DETE-2026-12.json, with nothing in it that a shell or a file system minds.
func receiptName(r *paper.Receipt) string {
	word := "rdv"
	if r.Refused() {
		word = "rifiuto"
	}
	return fmt.Sprintf("%s-%s-%d-%s.json", word, plainName(r.Body.Key.Register), r.Body.Key.Year, plainName(r.Body.Key.Number))
}

func plainName(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			return c
		default:
			return '_'
		}
	}, s)
}

// describe makes the description, from a file or from flags, and lists the files to send in its order.
func describe(c *cli.Context) ([]byte, []local, error) {
	if name := c.String("metadata"); name != "" {
		return describeFromFile(name, c.Args().Slice())
	}
	if c.NArg() != 1 {
		return nil, nil, usagef("want one main file, got %d; attachments go with --attachment", c.NArg())
	}
	files := []local{{c.Args().First(), policies.RoleMain}}
	for _, group := range []struct{ flag, role string }{{"attachment", policies.RoleAttachment}, {"annex", policies.RoleAnnex}} {
		if list, ok := c.Generic(group.flag).(*fileList); ok {
			for _, f := range list.names {
				files = append(files, local{f, group.role})
			}
		}
	}
	reserved := c.Bool("reserved")
	d := policies.Description{
		Structure: c.String("structure"), Register: c.String("register"), Year: c.Int("year"), Number: c.String("number"),
		Date: c.String("date"), Type: c.String("type"), Subject: c.String("subject"), Reserved: &reserved, Class: c.String("class"),
	}
	for _, f := range files {
		info, err := os.Stat(f.path)
		if err != nil {
			return nil, nil, usagef("%v", err)
		}
		d.Files = append(d.Files, policies.FileDescription{Name: filepath.Base(f.path), Role: f.role, Size: info.Size()})
	}
	text, err := json.Marshal(d)
	return text, files, err
}

// describeFromFile takes a description as it is, and finds its files: those given, in order, or else those it
// names, beside it.
func describeFromFile(name string, given []string) ([]byte, []local, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, usagef("--metadata: %v", err)
	}
	d, findings := policies.ParseDescription(text)
	if len(given) == 0 {
		for _, f := range d.Files {
			given = append(given, filepath.Join(filepath.Dir(name), filepath.Base(f.Name)))
		}
	}
	if len(given) == 0 && policies.Refused(findings) {
		f := findings[0]
		return nil, nil, usagef("--metadata %s: %s: %s", name, f.Field, f.Message)
	}
	var files []local
	for _, g := range given {
		files = append(files, local{path: g})
	}
	return text, files, nil
}

func uploads(files []local) []web.Upload {
	var all []web.Upload
	for _, f := range files {
		u := web.Upload{Name: filepath.Base(f.path), Open: func() (io.ReadCloser, error) { return os.Open(f.path) }}
		if info, err := os.Stat(f.path); err == nil {
			u.Size = info.Size()
		}
		all = append(all, u)
	}
	return all
}
