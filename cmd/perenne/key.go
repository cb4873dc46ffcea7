package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

// idForm is the form of the identifier of a package or a refusal.
var idForm = regexp.MustCompile(`^[a-z2-7]{32}$`)

// yearForm is the year of a key with what stands around it.
var yearForm = regexp.MustCompile(`^[ /]([0-9]{4})[ /]`)

// keysIn are the keys that a text can mean: REGISTER YEAR/NUMBER or REGISTER/YEAR/NUMBER. Registers have blanks in
// them and numbers have slashes, so that now and then there is more than one.
func keysIn(text string) (keys []paper.BodyKey) {
	for i := range len(text) {
		m := yearForm.FindStringSubmatch(text[i:])
		if m == nil {
			continue
		}
		register, number := strings.TrimSpace(text[:i]), strings.TrimSpace(text[i+len(m[0]):])
		year, err := strconv.Atoi(m[1])
		if register != "" && number != "" && err == nil {
			keys = append(keys, paper.BodyKey{Register: register, Year: year, Number: number})
		}
	}
	return keys
}

// checkName refuses what can be neither an identifier nor a key.
func checkName(text string) error {
	if idForm.MatchString(text) || len(keysIn(text)) > 0 {
		return nil
	}
	return usageIn("%q non è né un identificativo (32 caratteri) né una chiave come \"DETE 2026/12\"",
		"%q is neither an identifier (32 characters) nor a key such as \"DETE 2026/12\"", text)
}

// packageID finds the package that an identifier or a key names. A structure, when it is not empty, tells apart
// documents of the same register, year and number.
func (s *session) packageID(ctx context.Context, text, structure string) (string, error) {
	if idForm.MatchString(text) {
		return text, nil
	}
	var exact, loose []web.Record
	var behind int64
	for _, key := range keysIn(text) {
		page, err := s.Search(ctx, web.SearchQuery{Producer: s.producer, Structure: structure, Register: key.Register, Year: key.Year, Number: key.Number})
		if err != nil {
			return "", err
		}
		behind = max(behind, page.Behind)
		for _, r := range page.Packages {
			if norm.NFC.String(r.Number) == norm.NFC.String(key.Number) {
				exact = append(exact, r)
			} else {
				loose = append(loose, r) // the same but for leading zeros
			}
		}
	}
	return s.onlyOne(text, firstFull(exact, loose), behind)
}

func firstFull(lists ...[]web.Record) []web.Record {
	for _, l := range lists {
		if len(l) > 0 {
			return l
		}
	}
	return nil
}

// onlyOne takes the package that was found, if it is one.
func (s *session) onlyOne(text string, found []web.Record, behind int64) (string, error) {
	switch {
	case len(found) == 1:
		return found[0].ID, nil
	case len(found) > 1:
		var b strings.Builder
		for _, r := range found {
			fmt.Fprintf(&b, "\n  %s  %s  %s %d/%s", r.ID, r.Structure, r.Register, r.Year, r.Number)
		}
		return "", usageIn("%s: più documenti corrispondono; indicare l'identificativo, o --structure:%s", "%s: more than one document; give the identifier, or --structure:%s", text, b.String())
	case behind > 0:
		return "", laterIn("%s: non trovato, ma l'indice è indietro di %d documenti: riprovare fra poco", "%s: not found, but the index is %d documents behind: try again soon", text, behind)
	}
	return "", absentIn("%s: nessun documento di %s ha questa chiave", "%s: no document of %s has this key", text, s.producer)
}
