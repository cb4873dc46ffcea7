package main

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// TestTokensAddedAtOnceAreAllThere runs many commands, each a process as in life, on one file.
func TestTokensAddedAtOnceAreAllThere(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in := testInstallation(t, nil)
	const n = 12
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			cmd := &exec.Cmd{Path: self, Args: []string{"perenne", "token", "add", "--dir", in.root, "--name", fmt.Sprint("system ", i)}}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("token add: %v: %s", err, out)
			}
		})
	}
	all.Wait()
	producers, err := in.loadProducers()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, token := range producers[0].Tokens {
		names[token.Name] = true
	}
	for i := range n {
		if name := fmt.Sprint("system ", i); !names[name] {
			t.Errorf("token %q is lost", name)
		}
	}
}
