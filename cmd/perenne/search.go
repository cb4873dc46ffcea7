package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/web"
)

func searchCommand() *cli.Command {
	return command(&cli.Command{
		Name: "search", Usage: "find packages by key, date, type or words of the subject", ArgsUsage: "[WORD …]",
		Flags: []cli.Flag{
			dirFlag(), langFlag(), producerFlag(),
			&cli.StringFlag{Name: "structure", Usage: "AOO or structure, exactly"},
			&cli.StringFlag{Name: "register", Usage: "register type, exactly"},
			&cli.StringFlag{Name: "year", Usage: "year of the register"},
			&cli.StringFlag{Name: "number", Usage: "number in the register, also without leading zeros"},
			&cli.StringFlag{Name: "from", Usage: "first date of the documents, YYYY-MM-DD"},
			&cli.StringFlag{Name: "to", Usage: "last date of the documents, YYYY-MM-DD"},
			&cli.StringFlag{Name: "type", Usage: "document type, exactly"},
			&cli.IntFlag{Name: "limit", Value: 50, Usage: "lines of a page, at most 1000"},
			&cli.StringFlag{Name: "after", Usage: "cursor that the page before ended with"},
			&cli.BoolFlag{Name: "json", Usage: "print the page as the API gives it"},
		},
		Action: searchPackages,
	}, `perenne search --dir p affidamento
perenne search --dir p --register DETE --year 2026 --number 12
perenne search --dir p --type fattura --from 2026-01-01 --to 2026-03-31`)
}

func searchPackages(c *cli.Context) error {
	s, err := prepare(c)
	if err != nil {
		return err
	}
	q, err := queryOf(c)
	if err != nil {
		return err
	}
	if err := s.find(c.Context); err != nil {
		return err
	}
	q.Producer = s.producer
	page, err := s.Search(c.Context, q)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(page)
	}
	return printPage(c, page)
}

// queryOf is what the command line looks for.
func queryOf(c *cli.Context) (web.SearchQuery, error) {
	q := web.SearchQuery{
		Structure: c.String("structure"), Register: c.String("register"), Number: c.String("number"), From: c.String("from"), To: c.String("to"),
		Type: c.String("type"), Words: strings.Join(c.Args().Slice(), " "), Limit: c.Int("limit"), After: c.String("after"),
	}
	for flag, date := range map[string]string{"from": q.From, "to": q.To} {
		if _, err := time.Parse(time.DateOnly, date); date != "" && err != nil {
			return q, usageIn("--%s %s: la data va scritta AAAA-MM-GG", "--%s %s: write the date as YYYY-MM-DD", flag, date)
		}
	}
	if q.Limit < 1 || q.Limit > 1000 {
		return q, usageIn("--limit %d: da 1 a 1000", "--limit %d: from 1 to 1000", q.Limit)
	}
	var err error
	q.Year, err = yearOf(c)
	return q, err
}

func printPage(c *cli.Context, page *web.SearchPage) error {
	l := lang(c)
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for _, r := range page.Packages {
		fmt.Fprintf(w, "%s\t%s %d/%s\t%s\t%s\t%s\n", r.ID, r.Register, r.Year, r.Number, r.Date, r.Type, r.Subject)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(page.Packages) == 0 {
		fmt.Fprintln(c.App.Writer, l.T("nessun documento trovato", "no document found"))
	}
	if page.Behind > 0 {
		fmt.Fprintf(c.App.ErrWriter, l.T("%d documenti non sono ancora nell'indice delle parole\n", "%d documents are not in the words index yet\n"), page.Behind)
	}
	if page.Next != "" {
		fmt.Fprintf(c.App.Writer, l.T("altri: --after %s\n", "more: --after %s\n"), quote(page.Next))
	}
	return nil
}
