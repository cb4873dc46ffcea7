package main

import (
	"os/exec"
	"testing"
)

// TestAShellReadsWhatWasQuoted asks a real one.
func TestAShellReadsWhatWasQuoted(t *testing.T) {
	for _, path := range []string{
		"p", "/srv/archivio", "Comune di Montesole", "l'archivio", "a$HOME", "`id`", "a\"b", "a\\b", "~", "a~b", "è", "*", "a;b", "a\nb", "",
	} {
		out, err := exec.Command("sh", "-c", "printf %s "+quote(path)).Output()
		if err != nil || string(out) != path {
			t.Errorf("quote(%q) = %s, which a shell reads as %q, %v", path, quote(path), out, err)
		}
	}
	if got, want := quote("plain/path-1.json"), "plain/path-1.json"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := quote("--fresh"), "./--fresh"; got != want {
		t.Errorf("got %s, want %s: no flag", got, want)
	}
}
