package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/web"
)

func searchCommand() *cli.Command {
	return command(&cli.Command{
		Name: "search", Usage: "find packages by key, date, type or words of the subject", ArgsUsage: "[WORD …]",
		Flags: []cli.Flag{
			dirFlag(), langFlag(), producerFlag(),
			&cli.StringFlag{Name: "structure"},
			&cli.StringFlag{Name: "register"},
			&cli.IntFlag{Name: "year"},
			&cli.StringFlag{Name: "number", Usage: "also without leading zeros"},
			&cli.StringFlag{Name: "from", Usage: "YYYY-MM-DD"},
			&cli.StringFlag{Name: "to", Usage: "YYYY-MM-DD"},
			&cli.StringFlag{Name: "type"},
			&cli.IntFlag{Name: "limit", Value: 50},
			&cli.StringFlag{Name: "after", Usage: "cursor that the page before ended with"},
			&cli.BoolFlag{Name: "json"},
		},
		Action: func(c *cli.Context) error {
			s, err := connect(c)
			if err != nil {
				return err
			}
			page, err := s.Search(c.Context, web.SearchQuery{
				Producer: s.producer, Structure: c.String("structure"), Register: c.String("register"), Year: c.Int("year"), Number: c.String("number"),
				From: c.String("from"), To: c.String("to"), Type: c.String("type"), Words: strings.Join(c.Args().Slice(), " "), Limit: c.Int("limit"), After: c.String("after"),
			})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return json.NewEncoder(c.App.Writer).Encode(page)
			}
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
				fmt.Fprintf(c.App.Writer, l.T("altri: --after %s\n", "more: --after %s\n"), page.Next)
			}
			return nil
		},
	}, `perenne search --dir p affidamento
perenne search --dir p --register DETE --year 2026 --number 12
perenne search --dir p --type fattura --from 2026-01-01 --to 2026-03-31`)
}
