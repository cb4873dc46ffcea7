package main

import (
	"errors"
	"os"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
)

// lang is the language to speak to this user.
func lang(c *cli.Context) paper.Lang { return pickLanguage(c.String("lang"), environmentLanguage()) }

// environmentLanguage is what the environment says of messages, in the order of POSIX.
func environmentLanguage() string {
	return firstOf(os.Getenv("LC_ALL"), os.Getenv("LC_MESSAGES"), os.Getenv("LANG"))
}

// pickLanguage takes the flag's word, else the environment's. Who says nothing at all is spoken to in Italian, and
// who speaks neither language in English.
func pickLanguage(flag, env string) paper.Lang {
	for _, said := range []string{flag, env} {
		if l, ok := spoken(said); ok {
			return l
		}
	}
	switch primary(env) {
	case "", "c", "posix":
		return paper.Italian
	}
	return paper.English
}

// spoken is the language of a tag such as it, en-GB or it_IT.UTF-8, where it is one of ours.
func spoken(tag string) (paper.Lang, bool) {
	l := paper.Lang(primary(tag))
	return l, l == paper.Italian || l == paper.English
}

func primary(tag string) string {
	if i := strings.IndexAny(tag, "_-.@"); i >= 0 {
		tag = tag[:i]
	}
	return strings.ToLower(tag)
}

// languageOf finds the language in a command line that may not be understood as a whole.
func languageOf(args []string) paper.Lang {
	flag := os.Getenv("PERENNE_LANG")
	for i, a := range args {
		if a == "--" {
			break
		}
		name, value, inline := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch {
		case !strings.HasPrefix(a, "-") || name != "lang":
		case inline:
			flag = value
		case i+1 < len(args):
			flag = args[i+1]
		}
	}
	return pickLanguage(flag, environmentLanguage())
}

// speaker is an error that knows both languages.
type speaker interface {
	error
	in(l paper.Lang) string
}

// textIn is the text of an error in a language, as far as what is in it knows it.
func textIn(l paper.Lang, err error) string {
	text := err.Error()
	var s speaker
	if errors.As(err, &s) {
		return strings.Replace(text, s.Error(), s.in(l), 1)
	}
	return text
}

// What urfave/cli and package flag say of flags, and the same in our words.
var flagFaults = []struct {
	text   *regexp.Regexp
	it, en string
}{
	{regexp.MustCompile(`^flag provided but not defined: -+(.*)$`), "opzione sconosciuta: --%s", "unknown flag: --%s"},
	{regexp.MustCompile(`^flag needs an argument: -+(.*)$`), "--%s vuole un valore", "--%s needs a value"},
	{regexp.MustCompile(`^invalid (?:boolean )?value "(.*)" for (?:flag )?-+([^:]*): .*$`), "%[1]q non è un valore per --%[2]s", "%[1]q is no value for --%[2]s"},
}

// onUsageError says what is wrong with a flag in the user's language.
func onUsageError(c *cli.Context, err error, _ bool) error {
	for _, f := range flagFaults {
		m := f.text.FindStringSubmatch(err.Error())
		if m == nil {
			continue
		}
		var args []any
		for _, part := range m[1:] {
			args = append(args, part)
		}
		text := both(f.it, f.en, args)
		return &usageError{said{text.it + seeHelp(c), text.en + seeHelp(c)}}
	}
	return usagef("%v", err)
}

// seeHelp names the command whose help tells more.
func seeHelp(c *cli.Context) string { return "; " + firstOf(c.Command.HelpName, "perenne") + " --help" }
