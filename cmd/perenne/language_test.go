package main

import (
	"strings"
	"testing"

	"github.com/marchesud/perenne/archive/paper"
)

func TestTheLanguageIsTheFlagsThenTheEnvironments(t *testing.T) {
	for _, c := range []struct {
		line, own, all, messages, lang string
		want                           paper.Lang
	}{
		{line: "perenne status", want: paper.Italian},
		{line: "perenne status", lang: "C.UTF-8", want: paper.Italian},
		{line: "perenne status", lang: "POSIX", want: paper.Italian},
		{line: "perenne status", lang: "it_IT.UTF-8", want: paper.Italian},
		{line: "perenne status", lang: "en_GB.UTF-8", want: paper.English},
		{line: "perenne status", lang: "de_DE", want: paper.English},
		{line: "perenne status", lang: "it_IT.UTF-8", messages: "en_US", want: paper.English},
		{line: "perenne status", lang: "en_US", messages: "en_US", all: "it_IT", want: paper.Italian},
		{line: "perenne status", lang: "it_IT.UTF-8", own: "en", want: paper.English},
		{line: "perenne --lang it status", own: "en", want: paper.Italian},
		{line: "perenne status --lang=en", lang: "it_IT", want: paper.English},
		{line: "perenne search -- --lang en", lang: "it_IT", want: paper.Italian},
	} {
		t.Run(c.line+" "+c.lang, func(t *testing.T) {
			for name, value := range map[string]string{"PERENNE_LANG": c.own, "LC_ALL": c.all, "LC_MESSAGES": c.messages, "LANG": c.lang} {
				t.Setenv(name, value)
			}
			if got := languageOf(strings.Fields(c.line)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
