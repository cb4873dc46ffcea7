//go:build !crashpoints

package main

import (
	"net/http"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/storage"
)

// Only a build with the tag crashpoints, which the harnesses make, can be told to die at a labelled step, or given a
// store with a planted bug.

func harnessCommands() []*cli.Command { return nil }

func crashPoint() func(label string) { return nil }

func crashPointOf() func(label, key string) { return nil }

func crashTransport() http.RoundTripper { return nil }

func planted(s storage.Store) storage.Store { return s }
