package main

import (
	"strings"
	"testing"
)

// TestACodeFitsIntoTheNameOfACopy: with a longer one no package could be held by the spool, nor submitted.
func TestACodeFitsIntoTheNameOfACopy(t *testing.T) {
	for code, fits := range map[string]bool{
		"c_x901":                  true,
		strings.Repeat("a", 40):   true,
		strings.Repeat("a", 41):   false,
		strings.Repeat("a-", 13):  true,
		strings.Repeat("a-", 14):  false,
		strings.Repeat("ab-", 21): false,
	} {
		p := Producer{Code: code}
		err := p.check(code+".yaml", false)
		if err == nil {
			t.Fatalf("%s: a producer with nothing but a code was taken", code)
		}
		if refused := strings.Contains(err.Error(), ": code: "); refused == fits {
			t.Errorf("%s: got %v", code, err)
		}
	}
}
