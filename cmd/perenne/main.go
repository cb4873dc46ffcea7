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
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

// version is set when a release is linked.
var version = "0.1.0"

func main() { os.Exit(run(os.Args)) }

// run runs one command and returns its exit code.
func run(args []string) int {
	ctx, stop := untilTold()
	defer stop()
	app := newApp()
	sorted, err := flagsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, sorted)
	}
	if err == nil {
		return exitFine
	}
	explain(app.ErrWriter, languageOf(args), err)
	return exitCode(err)
}

// untilTold gives a context that ends when the program is told to stop. After that the signals do again what they
// do to any program: who presses Ctrl-C twice does not want to wait. What was ignored when the program began, as
// nohup does with SIGHUP, stays ignored.
//
// The same signal may come several times at once: the kernel tells a child of the end of the thread that started it and,
// should that process die thread by thread, of the next one to which the child was handed. Those are not a second
// thought: they are heard for half a second.
func untilTold() (context.Context, context.CancelFunc) {
	signals := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, func() { time.AfterFunc(echo, stop) })
	return ctx, stop
}

// echo is how long after the first signal others belong to it.
const echo = 500 * time.Millisecond

func newApp() *cli.App {
	return &cli.App{
		Name:      "perenne",
		Usage:     "conserva documenti digitali e lo prova · keeps digital documents and proves it",
		Version:   version,
		ErrWriter: os.Stderr,
		Writer:    os.Stdout,
		Flags:     []cli.Flag{langFlag()},
		Commands: append(harnessCommands(),
			auditCommand(), benchCommand(), catalogCheckCommand(), demoCommand(), doctorCommand(), initCommand(), keysCommand(), ledgerCommand(), producerCommand(), rebuildCommand(), repairCommand(), sealsCommand(),
			receiptCommand(), retrieveCommand(), searchCommand(), serveCommand(), statusCommand(), submitCommand(),
			tokenCommand(), verifyCommand(),
		),
		// Errors are printed by explain and turned into codes by exitCode.
		ExitErrHandler:        func(*cli.Context, error) {},
		OnUsageError:          onUsageError,
		CustomAppHelpTemplate: cli.AppHelpTemplate + "\n" + exitHelp + "\n",
	}
}

// command completes a command with what all have in common.
func command(c *cli.Command, examples string) *cli.Command {
	c.OnUsageError = onUsageError
	c.CustomHelpTemplate = cli.CommandHelpTemplate
	if len(c.Subcommands) > 0 {
		c.CustomHelpTemplate = cli.SubcommandHelpTemplate
		c.Flags = append(c.Flags, langFlag())
	} else {
		c.HideHelpCommand = true // else an argument "help" would be one
		c.Action = checked(required(c.Flags), c.Action)
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
	return &cli.StringFlag{Name: "lang", Usage: "it or en; else as LC_ALL, LC_MESSAGES or LANG says", EnvVars: []string{"PERENNE_LANG"}}
}

func producerFlag() cli.Flag {
	return &cli.StringFlag{Name: "producer", Usage: "IPA code of the body; may be left out where there is only one"}
}

// explain prints an error for a person: what went wrong, which field, what to do.
func explain(w io.Writer, l paper.Lang, err error) {
	var code *codeError
	if errors.As(err, &code) {
		return
	}
	text := textIn(l, err)
	var later *laterError
	if errors.Is(err, context.Canceled) && !errors.As(err, &later) {
		text = l.T("interrotto", "interrupted")
	}
	fmt.Fprintf(w, "perenne: %s\n", text)
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
		if p.Existing != "" {
			fmt.Fprintf(w, l.T("  pacchetto che ha già la chiave: %s\n", "  package that has the key: %s\n"), p.Existing)
		}
	}
}
