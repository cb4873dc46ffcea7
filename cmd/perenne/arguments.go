package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves flags that stand behind arguments, or before the command, to where urfave/cli v2 looks for
// them: it would take them for arguments, or miss them, without a word. Behind "--" everything is an argument.
func flagsFirst(app *cli.App, args []string) ([]string, error) {
	l := &line{path: args[:1:1], rest: args[1:], commands: app.Commands, flags: app.Flags}
	if err := l.findCommand(); err != nil {
		return nil, err
	}
	for len(l.rest) > 0 {
		a := l.rest[0]
		switch {
		case a == "--":
			l.arguments, l.rest = append(l.arguments, l.rest[1:]...), nil
		case !isFlag(a):
			l.arguments, l.rest = append(l.arguments, a), l.rest[1:]
		default:
			if err := l.takeFlag(); err != nil {
				return nil, err
			}
		}
	}
	out := append(l.path, l.front...)
	if len(l.arguments) > 0 {
		out = append(append(out, "--"), l.arguments...)
	}
	return out, nil
}

// line is a command line being sorted.
type line struct {
	path, front, arguments []string
	rest                   []string // not looked at yet
	commands               []*cli.Command
	flags                  []cli.Flag
}

// findCommand goes down to the command; flags that stand before it are its own.
func (l *line) findCommand() error {
	for len(l.rest) > 0 && len(l.commands) > 0 && l.rest[0] != "--" {
		a := l.rest[0]
		if isFlag(a) {
			if err := l.takeFlag(); err != nil {
				return err
			}
			continue
		}
		i := slices.IndexFunc(l.commands, func(c *cli.Command) bool { return c.HasName(a) })
		if i < 0 && (a == "help" || a == "h") {
			return nil
		}
		if i < 0 {
			group := strings.Join(l.path[1:], " ")
			return usageIn("il comando %[1]q non esiste; perenne %[2]s--help li elenca", "there is no command %[1]q; perenne %[2]s--help lists them", a, spaced(group))
		}
		l.path, l.rest = append(l.path, a), l.rest[1:]
		l.commands, l.flags = l.commands[i].Subcommands, l.commands[i].Flags
	}
	return nil
}

func spaced(word string) string {
	if word == "" {
		return ""
	}
	return word + " "
}

func isFlag(a string) bool { return strings.HasPrefix(a, "-") && a != "-" }

// takeFlag takes a flag with its value.
func (l *line) takeFlag() error {
	a := l.rest[0]
	l.front, l.rest = append(l.front, a), l.rest[1:]
	if name, _, inline := strings.Cut(strings.TrimLeft(a, "-"), "="); inline || !l.takesValue(name) {
		return nil
	}
	if len(l.rest) == 0 {
		return usageIn("%s vuole un valore", "%s needs a value", a)
	}
	l.front, l.rest = append(l.front, l.rest[0]), l.rest[1:]
	return nil
}

// takesValue reports whether a flag, of the command or of one that is still to come, is followed by its value.
func (l *line) takesValue(name string) bool {
	flags := l.flags
	for _, c := range l.commands {
		flags = append(flags[:len(flags):len(flags)], c.Flags...)
	}
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			_, boolean := f.(*cli.BoolFlag)
			return !boolean
		}
	}
	return false
}

// required takes the mark off the flags that must be given: urfave/cli would answer with a page of help and an
// error that is no usage error. checked looks for them instead.
func required(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		if text, ok := f.(*cli.StringFlag); ok && text.Required {
			text.Required = false
			names = append(names, text.Name)
		}
	}
	return names
}

// checked refuses a command line that names no language of ours, lacks a flag that must be given, or has arguments
// where there is no place for any.
func checked(names []string, action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		if tag := c.String("lang"); tag != "" {
			if _, ok := spoken(tag); !ok {
				return usageIn("--lang %s: it oppure en", "--lang %s: it or en", tag)
			}
		}
		var missing []string
		for _, n := range names {
			if strings.TrimSpace(c.String(n)) == "" {
				missing = append(missing, "--"+n)
			}
		}
		if len(missing) > 0 {
			return missingFlags(c, missing)
		}
		if c.Command.ArgsUsage == "" && c.NArg() > 0 {
			return usageIn("%q è di troppo%s", "%q is too much%s", c.Args().First(), seeHelp(c))
		}
		return action(c)
	}
}

func missingFlags(c *cli.Context, names []string) error {
	return usageIn("manca: %s%s", "missing: %s%s", strings.Join(names, " "), seeHelp(c))
}
