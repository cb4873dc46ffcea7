package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

func auditCommand() *cli.Command {
	return command(&cli.Command{
		Name: "audit", Usage: "read everything again and get a sealed integrity report", ArgsUsage: "[ID or KEY …]",
		Flags: []cli.Flag{
			dirFlag(), langFlag(), producerFlag(), structureFlag(),
			&cli.StringFlag{Name: "out", Usage: "FILE for the report", Value: "report.asice"},
			&cli.GenericFlag{Name: "against", Usage: "receipt FILE to hold the ledger against; may be repeated", Value: &fileList{}},
			&cli.BoolFlag{Name: "json", Usage: "print the report"},
		},
		Action: audit,
	}, `perenne audit --dir p --out report.asice
perenne audit --dir p --against rdv-DETE-2026-12.json
perenne audit --dir p DETE/2026/12 k3fqk7o2v5…`)
}

func audit(c *cli.Context) error {
	s, request, err := auditRequest(c)
	if err != nil {
		return err
	}
	if err := s.find(c.Context); err != nil {
		return err
	}
	for _, name := range c.Args().Slice() {
		id, err := s.packageID(c.Context, name, c.String("structure"))
		if err != nil {
			return err
		}
		request.IDs = append(request.IDs, id)
	}
	l, out := lang(c), c.String("out")
	bar := newProgress(c.App.ErrWriter, l.T("verifica", "audit"))
	answer, object, err := s.Audit(c.Context, request, func(p web.AuditProgress) { bar.objects(p.Done, p.Total) })
	bar.end()
	if err != nil {
		return err
	}
	if err := writeTo(out, object); err != nil {
		return err
	}
	if c.Bool("json") {
		if err := json.NewEncoder(aside(c, out)).Encode(answer.Report); err != nil {
			return err
		}
	} else {
		printReport(aside(c, out), l, answer, quote(out), s.keys(c.Context, answer.Report.Findings))
	}
	return exitWith(reportCode(answer.Report.Verdict))
}

// auditRequest reads the command line, as far as no daemon is needed for it.
func auditRequest(c *cli.Context) (*session, web.AuditRequest, error) {
	var request web.AuditRequest
	for _, name := range c.Args().Slice() {
		if err := checkName(name); err != nil {
			return nil, request, err
		}
	}
	s, err := prepare(c)
	if err != nil {
		return nil, request, err
	}
	request.Producer = s.producer
	if list, ok := c.Generic("against").(*fileList); ok {
		for _, name := range list.names {
			text, err := readInput(name)
			if err != nil {
				return nil, request, err
			}
			r, err := paper.ParseReceipt(text)
			if err != nil {
				return nil, request, usageIn("--against %s: non è una ricevuta: %v", "--against %s: no receipt: %v", name, err)
			}
			request.Against = append(request.Against, r)
		}
	}
	return s, request, s.in.checkOut(c.String("out"))
}

// keys are the keys of the documents that findings are about: a person knows a document by its key. The catalog may
// not have them; then the identifier has to do.
func (s *session) keys(ctx context.Context, findings []paper.ReportFinding) map[string]string {
	const most = 200 // a store that is lost as a whole is no list to look up
	keys := map[string]string{}
	for _, f := range findings {
		if f.ID == "" || keys[f.ID] != "" || len(keys) == most {
			continue
		}
		if r, err := s.Record(ctx, s.producer, f.ID); err == nil && r.Register != "" {
			keys[f.ID] = fmt.Sprintf("%s %d/%s", r.Register, r.Year, r.Number)
		}
	}
	return keys
}

// printReport tells the outcome in a few lines.
func printReport(w io.Writer, l paper.Lang, answer *web.AuditAnswer, out string, keys map[string]string) {
	r := answer.Report
	fmt.Fprintf(w, l.T("%s  %s  %d oggetti letti (%s) di %d, %d sigilli  rapporto %s\n", "%s  %s  %d objects read (%s) of %d, %d seals  report %s\n"),
		verdictWord(r.Verdict, l), r.Producer.Code, r.Objects.Read, size(r.Objects.Bytes), r.Objects.Expected, r.Seals.Checked, out)
	for _, f := range r.Findings {
		document := ""
		if key := keys[f.ID]; key != "" {
			document = " (" + key + ")"
		}
		fmt.Fprintf(w, "  %s  %s%s  %s  %s\n", paper.InWords(l, f.Gravity), f.Object, document, f.Kind, f.Text)
	}
	for _, n := range r.NotChecked {
		fmt.Fprintf(w, l.T("  non verificato: %s\n", "  not checked: %s\n"), n)
	}
	if r.Ledger.Rollback == "not checked" {
		fmt.Fprintln(w, l.T("  rollback: non verificato (manca il segno di questa macchina: usare --against con una ricevuta)", "  rollback: not checked (this machine has no mark: use --against with a receipt)"))
	}
	if !answer.Recorded {
		fmt.Fprintln(w, l.T("  il rapporto non è stato iscritto nel giornale", "  the report was not entered in the ledger"))
	}
}

func verdictWord(verdict string, l paper.Lang) string {
	switch verdict {
	case paper.VerdictGood:
		return l.T("integro", "good")
	case paper.VerdictIncomplete:
		return l.T("incompleto", "incomplete")
	default:
		return l.T("DANNEGGIATO", "DAMAGED")
	}
}

func statusCommand() *cli.Command {
	return command(&cli.Command{
		Name: "status", Usage: "how the archive is: producers, seals, audits overdue",
		Flags: []cli.Flag{dirFlag(), langFlag(), &cli.BoolFlag{Name: "json", Usage: "print it as the API gives it"}},
		Action: func(c *cli.Context) error {
			in, err := here(c)
			if err != nil {
				return err
			}
			s, err := in.session(c)
			if err != nil {
				return err
			}
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
		if p.Stopped != "" || p.Overdue > 0 || p.LastVerdict == paper.VerdictDamaged {
			return false
		}
	}
	return h.SealError == ""
}

func printStatus(w io.Writer, l paper.Lang, h *archive.Health) {
	fmt.Fprintf(w, l.T("%s  %s  sigillo n. %d (%s)  protezione: %s\n", "%s  %s  seal no. %d (%s)  protection: %s\n"), h.Installation, h.Program, h.Seal, paper.InWords(l, h.Qualification), paper.InWords(l, h.Protection))
	if h.UnsealedSince != "" {
		fmt.Fprintf(w, l.T("  senza sigillo dal %s  %s\n", "  unsealed since %s  %s\n"), h.UnsealedSince, h.SealError)
	}
	if s := h.Spool; s != nil {
		fmt.Fprintf(w, l.T("  in attesa di rilettura: %d oggetti, %d byte di %d; scritti di nuovo perché mancavano: %d\n", "  held until read back: %d objects, %d bytes of %d; put again because they were missing: %d\n"), s.Objects, s.Bytes, s.Quota, s.PutAgain)
	}
	for _, p := range h.Producers {
		if p.Stopped != "" {
			fmt.Fprintf(w, l.T("  %s  FERMO: %s\n", "  %s  STANDS STILL: %s\n"), p.Code, p.Stopped)
			printLastAudit(w, l, p)
			continue
		}
		fmt.Fprintf(w, l.T("  %s  %d pacchetti, %d righe di giornale, %d da sigillare, %d da rileggere in ritardo\n", "  %s  %d packages, %d ledger entries, %d unsealed, %d overdue for re-reading\n"),
			p.Code, p.Packages, p.Entries, p.Unsealed, p.Overdue)
		printLastAudit(w, l, p)
	}
}

// printLastAudit tells what the last audit found, until another one finds otherwise.
func printLastAudit(w io.Writer, l paper.Lang, p archive.ProducerHealth) {
	if p.LastAudit == "" {
		return
	}
	fmt.Fprintf(w, l.T("    ultima verifica %s: %s", "    last audit %s: %s"), p.LastAudit, verdictWord(p.LastVerdict, l))
	if p.LastDamage > 0 {
		fmt.Fprintf(w, l.T(", rilievi di danno: %d; perenne audit li nomina", ", findings of damage: %d; perenne audit names them"), p.LastDamage)
	}
	fmt.Fprintln(w)
}
