package catalog

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/blevesearch/bleve/v2/analysis"
	"github.com/blevesearch/bleve/v2/analysis/lang/it"
	"github.com/blevesearch/bleve/v2/analysis/token/elision"
	"github.com/blevesearch/bleve/v2/analysis/token/lowercase"
	"github.com/blevesearch/bleve/v2/analysis/token/stop"
	segments "github.com/blevesearch/bleve/v2/analysis/tokenizer/unicode"
	"golang.org/x/text/unicode/norm"
)

// italian turns text into the terms it is found by: words (Unicode segmentation) in lower case, without
// the article elided before them, accents folded, Italian stop words dropped, singular and plural, masculine
// and feminine made one (the light stemmer of J. Savoy, UniNE), numbers without leading zeros. Folding comes before the stop words and the stemmer, so that "citta", "CITTA'" and
// "città" are one term.
type italian struct{ analysis.DefaultAnalyzer }

func newItalian() (*italian, error) {
	articles, stops := analysis.NewTokenMap(), analysis.NewTokenMap()
	if err := articles.LoadBytes(it.ItalianArticles); err != nil {
		return nil, err
	}
	if err := stops.LoadBytes([]byte(fold(string(it.ItalianStopWords)))); err != nil {
		return nil, err
	}
	return &italian{analysis.DefaultAnalyzer{
		Tokenizer: segments.NewUnicodeTokenizer(),
		TokenFilters: []analysis.TokenFilter{
			lowercase.NewLowerCaseFilter(),
			elision.NewElisionFilter(articles),
			folding{},
			stop.NewStopTokensFilter(stops),
			stemming{it.NewItalianLightStemmerFilterFilter()},
		},
	}}, nil
}

// terms returns the distinct terms of text.
func (a *italian) terms(text string) map[string]bool {
	out := make(map[string]bool)
	for _, token := range a.Analyze([]byte(text)) {
		out[string(token.Term)] = true
	}
	return out
}

// folding takes the accents off every term and the leading zeros off those that are numbers.
type folding struct{}

func (folding) Filter(in analysis.TokenStream) analysis.TokenStream {
	for _, token := range in {
		token.Term = []byte(trimZeros(fold(string(token.Term))))
	}
	return in
}

// stemming lets the light stemmer, which leaves words of less than six letters alone, stem those of four
// and five too: gara and gare, bando and bandi, ente and enti are what an archive is asked for. The stemmer
// looks at the end of a word only, so that for a while a short one is given a longer beginning.
type stemming struct{ light *it.ItalianLightStemmerFilter }

func (s stemming) Filter(in analysis.TokenStream) analysis.TokenStream {
	const beginning = "xx"
	short := make([]bool, len(in))
	for i, token := range in {
		if n := utf8.RuneCount(token.Term); n == 4 || n == 5 {
			short[i] = true
			token.Term = append([]byte(beginning), token.Term...)
		}
	}
	in = s.light.Filter(in)
	for i, token := range in {
		if short[i] {
			token.Term = token.Term[len(beginning):]
		}
	}
	return in
}

// fold takes the combining marks off s.
func fold(s string) string {
	if isASCII(s) {
		return s
	}
	return norm.NFC.String(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, norm.NFD.String(s)))
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// trimZeros takes the leading zeros off s where a digit follows: 0000123 and 123 are searched for as one,
// and so are 0012/A and 12/A.
func trimZeros(s string) string {
	for len(s) > 1 && s[0] == '0' && s[1] >= '0' && s[1] <= '9' {
		s = s[1:]
	}
	return s
}

// searchable is the text of a record that a search by words looks at.
func searchable(r *Record) string {
	return strings.Join([]string{r.Subject, r.Type, r.Register, r.Number, strconv.Itoa(r.Year)}, " \n")
}
