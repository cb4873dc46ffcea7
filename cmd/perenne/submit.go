package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
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
			&cli.StringFlag{Name: "year", Usage: "year of the register"},
			&cli.StringFlag{Name: "number", Usage: "number in the register"},
			&cli.StringFlag{Name: "date", Usage: "date of registration, YYYY-MM-DD"},
			&cli.StringFlag{Name: "type", Usage: "document type, one of the policy's"},
			&cli.StringFlag{Name: "subject", Usage: "oggetto"},
			&cli.BoolFlag{Name: "reserved", Usage: "riservato"},
			&cli.StringFlag{Name: "class", Usage: "retention class; none: never disposed of"},
			// Repeatable by hand: a slice flag of urfave/cli would cut names at their commas.
			&cli.GenericFlag{Name: "attachment", Usage: "FILE, once for each attachment", Value: &fileList{}},
			&cli.GenericFlag{Name: "annex", Usage: "FILE, once for each annex", Value: &fileList{}},
			&cli.StringFlag{Name: "receipt", Usage: "FILE for the receipt; default rdv-<register>-<year>-<number>.json here; no other receipt is overwritten"},
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
	s, err := prepare(c)
	if err != nil {
		return err
	}
	metadata, files, err := describe(c)
	if err != nil {
		return err
	}
	all, err := uploads(files)
	if err != nil {
		return err
	}
	if err := s.checkReceipt(c.String("receipt"), metadata); err != nil {
		return err
	}
	if err := s.find(c.Context); err != nil {
		return err
	}
	l := lang(c)
	bar := newProgress(c.App.ErrWriter, l.T("invio", "sending"))
	r, err := s.Submit(c.Context, s.producer, metadata, all, bar.bytes)
	bar.end()
	if err != nil {
		return submitFault(err)
	}
	return s.deliver(c, r)
}

// checkReceipt looks, before anything is sent, whether the receipt will find a place: in a file of its own, or in
// that of an earlier receipt for the same submission.
func (s *session) checkReceipt(path string, metadata []byte) error {
	if path == "" {
		return s.in.checkOut("rdv.json") // its name is not known yet; the folder is
	}
	if err := s.in.checkOut(path); err != nil {
		return err
	}
	there, free, err := receiptAt(path)
	if err != nil || free {
		return err
	}
	sum := sha256.Sum256(metadata)
	if there == nil || there.Body.Producer.Code != s.producer || there.Body.Metadata != hex.EncodeToString(sum[:]) {
		return usageIn("--receipt %s: il file esiste e non è la ricevuta di questo versamento: sceglierne un altro", "--receipt %s: the file exists and is not the receipt of this submission: choose another", path)
	}
	return nil
}

// submitFault says what a submission that got no answer means for who made it.
func submitFault(err error) error {
	var path *fs.PathError
	switch {
	case errors.Is(err, context.Canceled):
		return laterIn("interrotto: nessuna presa in carico è stata confermata; versare di nuovo è sicuro", "interrupted: nothing was acknowledged, submitting again is safe")
	case errors.As(err, &path):
		return unreadable(path.Path, path)
	}
	return err
}

// deliver writes the receipt and tells. A document that was taken in charge stays so when its receipt cannot be
// written: then the line says how to get the receipt again.
func (s *session) deliver(c *cli.Context, r *paper.Receipt) error {
	l := lang(c)
	want := firstOf(c.String("receipt"), receiptName(r))
	file, err := writeReceipt(want, r)
	where := shown(file)
	if err != nil {
		where = l.T("NON SCRITTA", "NOT WRITTEN")
	}
	if c.Bool("json") {
		text, err := r.Marshal()
		if err != nil {
			return err
		}
		fmt.Fprintln(c.App.Writer, string(text))
	} else {
		printReceipt(aside(c, file), l, r, where)
	}
	if err != nil {
		return usageIn("la ricevuta non è stata scritta: %[1]s\n  riaverla: perenne receipt --dir %[2]s --producer %[3]s %[4]s --out FILE",
			"the receipt was not written: %[1]s\n  to get it again: perenne receipt --dir %[2]s --producer %[3]s %[4]s --out FILE",
			textIn(l, err), quote(s.in.root), s.producer, receiptID(r))
	}
	if file != want {
		fmt.Fprintf(c.App.ErrWriter, l.T("  %s contiene un'altra ricevuta e non è stato toccato\n", "  %s holds another receipt and was left alone\n"), quote(want))
	}
	if r.Refused() {
		return exitWith(exitWrong)
	}
	return nil
}

// printReceipt is the line a person reads.
func printReceipt(w io.Writer, l paper.Lang, r *paper.Receipt, file string) {
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
		fmt.Fprintf(w, "  %s  %s: %s", levelWord(f.Level, l), f.Field, message)
		if remedy != "" {
			fmt.Fprintf(w, " → %s", remedy)
		}
		fmt.Fprintf(w, "  [%s]\n", f.Rule)
	}
}

// shown is a file's name as it can be pasted, with the folder it is in.
func shown(file string) string {
	if !strings.ContainsRune(file, filepath.Separator) {
		file = "./" + file
	}
	return quote(file)
}

func levelWord(level policies.Level, l paper.Lang) string {
	switch level {
	case policies.Error:
		return l.T("errore", "error")
	case policies.Warning:
		return l.T("avviso", "warning")
	default:
		return l.T("nota", "note")
	}
}

// describing are the flags that make a description, which --metadata does otherwise.
var describing = []string{"structure", "register", "year", "number", "date", "type", "subject", "reserved", "class", "attachment", "annex"}

// describe makes the description, from a file or from flags, and lists the files to send in its order.
func describe(c *cli.Context) ([]byte, []local, error) {
	if name := c.String("metadata"); name != "" {
		for _, flag := range describing {
			if c.IsSet(flag) {
				return nil, nil, usageIn("--%s non si usa con --metadata: la descrizione è in quel file", "--%s does not go with --metadata: the description is in that file", flag)
			}
		}
		return describeFromFile(lang(c), name, c.Args().Slice())
	}
	if c.NArg() != 1 {
		return nil, nil, usageIn("serve un file principale, e sono %d; gli allegati con --attachment", "want one main file, got %d; attachments go with --attachment", c.NArg())
	}
	if missing := missingKey(c); len(missing) > 0 {
		return nil, nil, missingFlags(c, missing)
	}
	year, err := yearOf(c)
	if err != nil {
		return nil, nil, err
	}
	reserved := c.Bool("reserved")
	d := policies.Description{
		Structure: c.String("structure"), Register: c.String("register"), Year: year, Number: c.String("number"),
		Date: c.String("date"), Type: c.String("type"), Subject: c.String("subject"), Reserved: &reserved, Class: c.String("class"),
	}
	files := givenFiles(c)
	for _, f := range files {
		info, err := readable(f.path)
		if err != nil {
			return nil, nil, err
		}
		d.Files = append(d.Files, policies.FileDescription{Name: filepath.Base(f.path), Role: f.role, Size: info.Size()})
	}
	text, err := json.Marshal(d)
	return text, files, err
}

// missingKey are the flags of the key that were left out: without a key there is not even a refusal.
func missingKey(c *cli.Context) (missing []string) {
	for _, flag := range []string{"register", "year", "number"} {
		if c.String(flag) == "" {
			missing = append(missing, "--"+flag)
		}
	}
	return missing
}

// yearOf reads --year; 0 where it was left out.
func yearOf(c *cli.Context) (int, error) {
	text := c.String("year")
	if text == "" {
		return 0, nil
	}
	year, err := strconv.Atoi(text)
	if err != nil || year < 1 || year > 9999 {
		return 0, usageIn("--year %s: non è un anno", "--year %s: no year", text)
	}
	return year, nil
}

func givenFiles(c *cli.Context) []local {
	files := []local{{c.Args().First(), policies.RoleMain}}
	for _, group := range []struct{ flag, role string }{{"attachment", policies.RoleAttachment}, {"annex", policies.RoleAnnex}} {
		if list, ok := c.Generic(group.flag).(*fileList); ok {
			for _, f := range list.names {
				files = append(files, local{f, group.role})
			}
		}
	}
	return files
}

// describeFromFile takes a description as it is, and finds its files: those given, in order, or else those it
// names, beside it.
func describeFromFile(l paper.Lang, name string, given []string) ([]byte, []local, error) {
	text, err := readInput(name)
	if err != nil {
		return nil, nil, err
	}
	d, findings := policies.ParseDescription(text)
	if len(given) == 0 {
		for _, f := range d.Files {
			given = append(given, filepath.Join(filepath.Dir(name), filepath.Base(f.Name)))
		}
	}
	if len(given) == 0 && policies.Refused(findings) {
		message, _ := findings[0].In(string(l))
		return nil, nil, usagef("--metadata %s: %s: %s", name, findings[0].Field, message)
	}
	var files []local
	for _, g := range given {
		files = append(files, local{path: g})
	}
	return text, files, nil
}

// uploads makes sure that every file can be read, and tells its size.
func uploads(files []local) (all []web.Upload, err error) {
	for _, f := range files {
		info, err := readable(f.path)
		if err != nil {
			return nil, err
		}
		all = append(all, web.Upload{Name: filepath.Base(f.path), Size: info.Size(), Open: func() (io.ReadCloser, error) { return os.Open(f.path) }})
	}
	return all, nil
}
