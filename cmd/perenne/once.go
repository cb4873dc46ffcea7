//go:build crashpoints

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/policies"
)

// harnessCommands are what only the build of the harnesses has.
func harnessCommands() []*cli.Command { return []*cli.Command{onceCommand()} }

// onceCommand takes one submission in charge, in a process that does nothing else: opened, submitted, answered, closed.
// The receipt on the standard output is the acknowledgement, whatever comes after it.
func onceCommand() *cli.Command {
	return &cli.Command{
		Name: "once", Hidden: true, ArgsUsage: "PRODUCER METADATA FILE", Flags: []cli.Flag{dirFlag()},
		Action: func(c *cli.Context) (err error) {
			in, err := here(c)
			if err != nil {
				return err
			}
			metadata, err := os.ReadFile(c.Args().Get(1))
			if err != nil {
				return err
			}
			data, err := os.ReadFile(c.Args().Get(2))
			if err != nil {
				return err
			}
			var d policies.Description
			if err := json.Unmarshal(metadata, &d); err != nil || len(d.Files) != 1 {
				return errors.New("want metadata of one file")
			}
			o, err := in.open(c.Context, openOptions{Log: slog.New(slog.NewTextHandler(c.App.ErrWriter, nil))})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, o.Close()) }()
			given := false
			r, err := o.Archive.Submit(c.Context, archive.Submission{Producer: c.Args().Get(0), Metadata: metadata, Next: func() (archive.Part, error) {
				if given {
					return archive.Part{}, io.EOF
				}
				given = true
				return archive.Part{Name: d.Files[0].Name, Body: bytes.NewReader(data)}, nil
			}})
			if err != nil {
				return err
			}
			text, err := r.Marshal()
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(text)
			return err
		},
	}
}
