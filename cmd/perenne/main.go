// Perenne is a digital document conservation and archival appliance: one program, which is the daemon, its
// command line, and the offline verifier of what it hands out.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

// version is set when a release is linked.
var version = "0.1.0"

func main() { os.Exit(run(os.Args)) }

// run runs one command and returns its exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := newApp()
	args, err := flagsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if err == nil {
		return exitFine
	}
	explain(app.ErrWriter, language(args), err)
	return exitCode(err)
}

func newApp() *cli.App {
	return &cli.App{
		Name:      "perenne",
		Usage:     "conserva documenti digitali e lo prova · keeps digital documents and proves it",
		Version:   version,
		HideHelp:  false,
		ErrWriter: os.Stderr,
		Writer:    os.Stdout,
		Commands: []*cli.Command{
			auditCommand(), catalogCheckCommand(), demoCommand(), initCommand(), keysCommand(), producerCommand(), rebuildCommand(),
			receiptCommand(), retrieveCommand(), searchCommand(), serveCommand(), statusCommand(), submitCommand(),
			tokenCommand(), verifyCommand(),
		},
		// Errors are printed by explain and turned into codes by exitCode.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   onUsageError,
		CommandNotFound: func(_ *cli.Context, name string) {
			fmt.Fprintf(os.Stderr, "perenne: no command %q; see perenne --help\n", name)
			os.Exit(exitUsage)
		},
		CustomAppHelpTemplate: cli.AppHelpTemplate + "\n" + exitHelp + "\n",
	}
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return &usageError{err.Error()} }

// command completes a command with what all have in common.
func command(c *cli.Command, examples string) *cli.Command {
	c.OnUsageError = onUsageError
	c.CustomHelpTemplate = cli.CommandHelpTemplate
	if len(c.Subcommands) > 0 {
		c.CustomHelpTemplate = cli.SubcommandHelpTemplate
	}
	c.CustomHelpTemplate += "\nEXAMPLES\n" + indent(examples) + "\n\n" + exitHelp + "\n"
	return c
}

func indent(text string) string {
	return "   " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n   ")
}

func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Value: ".", Usage: "folder of the installation", EnvVars: []string{"PERENNE_DIR"}}
}

func langFlag() cli.Flag {
	return &cli.StringFlag{Name: "lang", Usage: "it or en; else as LANG says", EnvVars: []string{"PERENNE_LANG"}}
}

func producerFlag() cli.Flag {
	return &cli.StringFlag{Name: "producer", Usage: "IPA code of the body; may be left out where there is only one"}
}

// lang is the language to speak to this user.
func lang(c *cli.Context) paper.Lang { return pickLanguage(c.String("lang"), os.Getenv("LANG")) }

func pickLanguage(flag, env string) paper.Lang {
	want := flag
	if want == "" {
		want = env
	}
	if strings.HasPrefix(want, "it") {
		return paper.Italian
	}
	if flag == "" && (env == "" || env == "C" || env == "POSIX" || strings.HasPrefix(env, "C.")) {
		return paper.Italian
	}
	return paper.English
}

// language finds the language when there is no context yet.
func language(args []string) paper.Lang {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--lang="); ok {
			return pickLanguage(v, "")
		}
		if a == "--lang" && i+1 < len(args) {
			return pickLanguage(args[i+1], "")
		}
	}
	return pickLanguage(os.Getenv("PERENNE_LANG"), os.Getenv("LANG"))
}

// explain prints an error for a person: what went wrong, which field, what to do.
func explain(w io.Writer, l paper.Lang, err error) {
	var code *codeError
	if errors.As(err, &code) {
		return
	}
	fmt.Fprintf(w, "perenne: %v\n", err)
	var p *web.Problem
	if errors.As(err, &p) {
		for _, f := range p.Findings {
			message, remedy := f.In(string(l))
			fmt.Fprintf(w, "  %s: %s", f.Field, message)
			if remedy != "" {
				fmt.Fprintf(w, " → %s", remedy)
			}
			fmt.Fprintf(w, "  [%s]\n", f.Rule)
		}
	}
}

// flagsFirst moves flags that stand behind arguments in front of them: urfave/cli v2 would take them for
// arguments, without a word. Behind "--" everything is an argument.
func flagsFirst(app *cli.App, args []string) ([]string, error) {
	path, rest := []string{args[0]}, args[1:]
	commands, flags := app.Commands, app.Flags
	for len(rest) > 0 {
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(rest[0]) })
		if i < 0 {
			break
		}
		path, rest = append(path, rest[0]), rest[1:]
		commands, flags = commands[i].Subcommands, commands[i].Flags
	}
	var front, back []string
	for len(rest) > 0 {
		a := rest[0]
		rest = rest[1:]
		switch {
		case a == "--":
			back, rest = append(back, rest...), nil
		case a == "-" || !strings.HasPrefix(a, "-"):
			back = append(back, a)
		default:
			front = append(front, a)
			if name, _, inline := strings.Cut(strings.TrimLeft(a, "-"), "="); !inline && takesValue(flags, name) {
				if len(rest) == 0 {
					return nil, usagef("%s needs a value", a)
				}
				front, rest = append(front, rest[0]), rest[1:]
			}
		}
	}
	out := append(path, front...)
	if len(back) > 0 {
		out = append(append(out, "--"), back...)
	}
	return out, nil
}

// takesValue reports whether a flag is followed by its value.
func takesValue(flags []cli.Flag, name string) bool {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			_, boolean := f.(*cli.BoolFlag)
			return !boolean
		}
	}
	return false
}
