package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
)

func verifyCommand() *cli.Command {
	return command(&cli.Command{
		Name: "verify", Usage: "check receipts, copies, reports and evidence, offline", ArgsUsage: "FILE …",
		Flags: []cli.Flag{
			langFlag(),
			&cli.StringFlag{Name: "trust", Usage: "folder with seal-ca.pem, tsa-ca.pem and ledger.vkey"},
			&cli.BoolFlag{Name: "quiet", Usage: "print nothing: the exit code tells"},
		},
		Action: verify,
	}, `perenne verify --trust p/trust rdv-DETE-2026-12.json copy.zip report.asice
perenne verify --trust trust papers/*`)
}

func verify(c *cli.Context) error {
	if c.String("trust") == "" {
		return usageIn("serve --trust, la cartella con seal-ca.pem, tsa-ca.pem e ledger.vkey; in un'installazione è trust/: perenne verify --trust p/trust rdv-DETE-2026-12.json",
			"--trust is needed, the folder with seal-ca.pem, tsa-ca.pem and ledger.vkey; in an installation it is trust/: perenne verify --trust p/trust rdv-DETE-2026-12.json")
	}
	if c.NArg() == 0 {
		return usageIn("serve almeno un file da verificare", "want at least one file to verify")
	}
	trust, err := trustOf(c.String("trust"))
	if err != nil {
		return err
	}
	l := lang(c)
	files, closeAll, err := openPapers(c.Args().Slice())
	if err != nil {
		return err
	}
	results := paper.Verify(c.Context, trust, l, files)
	if err := closeAll(); err != nil {
		return err
	}
	worst := paper.Good
	for i, r := range results {
		worst = max(worst, r.Verdict())
		if !c.Bool("quiet") {
			printResult(c, l, files[i].Name, r)
		}
	}
	return exitWith(verdictCode(worst))
}

// openPapers opens the files to check.
func openPapers(names []string) (files []paper.File, closeAll func() error, err error) {
	var open []*os.File
	closeAll = func() error {
		var err error
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
		return err
	}
	for _, name := range names {
		info, err := readable(name)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, errors.Join(unreadable(name, err), closeAll())
		}
		open = append(open, f)
		files = append(files, paper.File{Name: filepath.Base(name), Size: info.Size(), ReaderAt: f})
	}
	return files, closeAll, nil
}

func printResult(c *cli.Context, l paper.Lang, name string, r paper.Result) {
	word := map[paper.Verdict]string{
		paper.Good: l.T("valido", "valid"), paper.CannotTell: l.T("non si può dire", "cannot tell"), paper.Wrong: l.T("NON VALIDO", "NOT VALID"),
	}
	fmt.Fprintf(c.App.Writer, "%s  %s  %s\n", word[r.Verdict()], name, strings.TrimSpace(r.Kind+" "+r.About))
	mark := map[paper.Verdict]string{paper.Good: "+", paper.CannotTell: "?", paper.Wrong: "-"}
	for _, line := range r.Lines {
		fmt.Fprintf(c.App.Writer, "  %s %s\n", mark[line.Verdict], line.Text)
	}
}
