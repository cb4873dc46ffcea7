package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

func auditCommand() *cli.Command {
	return command(&cli.Command{
		Name: "audit", Usage: "read everything again and get a sealed integrity report", ArgsUsage: "[ID …]",
		Flags: []cli.Flag{
			dirFlag(), langFlag(), producerFlag(),
			&cli.StringFlag{Name: "out", Usage: "FILE for the report; default report.asice", Value: "report.asice"},
			&cli.GenericFlag{Name: "against", Usage: "receipt FILE to hold the ledger against; may be repeated", Value: &fileList{}},
			&cli.BoolFlag{Name: "json", Usage: "print the report"},
		},
		Action: audit,
	}, `perenne audit --dir p --out report.asice
perenne audit --dir p --against rdv-DETE-2026-12.json
perenne audit --dir p k3fqk7o2v5…`)
}

func audit(c *cli.Context) error {
	s, err := connect(c)
	if err != nil {
		return err
	}
	request := web.AuditRequest{Producer: s.producer, IDs: c.Args().Slice()}
	if list, ok := c.Generic("against").(*fileList); ok {
		for _, name := range list.names {
			text, err := os.ReadFile(name)
			if err != nil {
				return usagef("--against: %v", err)
			}
			r, err := paper.ParseReceipt(text)
			if err != nil {
				return usagef("--against %s: %v", name, err)
			}
			request.Against = append(request.Against, r)
		}
	}
	l := lang(c)
	bar := newProgress(c.App.ErrWriter, l.T("verifica", "audit"))
	answer, object, err := s.Audit(c.Context, request, func(p web.AuditProgress) { bar.objects(p.Done, p.Total) })
	bar.end()
	if err != nil {
		return err
	}
	if err := writeFile(c.String("out"), object, 0o644); err != nil {
		return err
	}
	if c.Bool("json") {
		if err := json.NewEncoder(c.App.Writer).Encode(answer.Report); err != nil {
			return err
		}
	} else {
		printReport(c.App.Writer, l, answer.Report, c.String("out"), answer.Recorded)
	}
	return exitWith(reportCode(answer.Report.Verdict))
}

// printReport tells the outcome in a few lines.
func printReport(w io.Writer, l paper.Lang, r *paper.Report, out string, recorded bool) {
	word := map[string]string{
		paper.VerdictGood:       l.T("integro", "good"),
		paper.VerdictDamaged:    l.T("DANNEGGIATO", "DAMAGED"),
		paper.VerdictIncomplete: l.T("incompleto", "incomplete"),
	}[r.Verdict]
	fmt.Fprintf(w, l.T("%s  %s  %d oggetti letti (%s) di %d, %d sigilli  rapporto %s\n", "%s  %s  %d objects read (%s) of %d, %d seals  report %s\n"),
		word, r.Producer.Code, r.Objects.Read, size(r.Objects.Bytes), r.Objects.Expected, r.Seals.Checked, out)
	for _, f := range r.Findings {
		fmt.Fprintf(w, "  %s  %s  %s  %s\n", f.Gravity, f.Object, f.Kind, f.Text)
	}
	for _, n := range r.NotChecked {
		fmt.Fprintf(w, l.T("  non verificato: %s\n", "  not checked: %s\n"), n)
	}
	if r.Ledger.Rollback == "not checked" {
		fmt.Fprintln(w, "  rollback: not checked"+l.T(" (manca il segno di questa macchina: usare --against con una ricevuta)", " (this machine has no mark: use --against with a receipt)"))
	}
	if !recorded {
		fmt.Fprintln(w, l.T("  il rapporto non è stato iscritto nel giornale", "  the report was not entered in the ledger"))
	}
}

func statusCommand() *cli.Command {
	return command(&cli.Command{
		Name: "status", Usage: "how the archive is: producers, seals, audits overdue",
		Flags: []cli.Flag{dirFlag(), langFlag(), &cli.BoolFlag{Name: "json"}},
		Action: func(c *cli.Context) error {
			in, err := findInstallation(c.String("dir"))
			if err != nil {
				return err
			}
			token, err := os.ReadFile(in.path("keys", "cli.token"))
			if err != nil {
				return usagef("%v", err)
			}
			s := &session{in: in, Client: &web.Client{Token: strings.TrimSpace(string(token)), Lang: string(lang(c))}}
			if err := s.find(c.Context); err != nil {
				return err
			}
			h, err := s.Status(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = json.NewEncoder(c.App.Writer).Encode(h)
			} else {
				printStatus(c.App.Writer, lang(c), h)
			}
			if err == nil && !healthy(h) {
				err = exitWith(exitWrong)
			}
			return err
		},
	}, `perenne status --dir p`)
}

// healthy reports whether nothing needs a person.
func healthy(h *archive.Health) bool {
	for _, p := range h.Producers {
		if p.Stopped != "" || p.Overdue > 0 {
			return false
		}
	}
	return h.SealError == ""
}

func printStatus(w io.Writer, l paper.Lang, h *archive.Health) {
	fmt.Fprintf(w, l.T("%s  %s  sigillo n. %d (%s)  protezione: %s\n", "%s  %s  seal no. %d (%s)  protection: %s\n"), h.Installation, h.Program, h.Seal, h.Qualification, h.Protection)
	if h.UnsealedSince != "" {
		fmt.Fprintf(w, l.T("  senza sigillo dal %s  %s\n", "  unsealed since %s  %s\n"), h.UnsealedSince, h.SealError)
	}
	for _, p := range h.Producers {
		if p.Stopped != "" {
			fmt.Fprintf(w, l.T("  %s  FERMO: %s\n", "  %s  STANDS STILL: %s\n"), p.Code, p.Stopped)
			continue
		}
		fmt.Fprintf(w, l.T("  %s  %d pacchetti, %d righe di giornale, %d da sigillare, %d da rileggere in ritardo\n", "  %s  %d packages, %d ledger entries, %d unsealed, %d overdue for re-reading\n"),
			p.Code, p.Packages, p.Entries, p.Unsealed, p.Overdue)
	}
}
