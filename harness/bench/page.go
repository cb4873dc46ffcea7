package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// byHand is the line of the page below which the next run changes nothing.
const byHand = "\n<!-- What follows is written by hand; scripts/bench keeps it. -->\n"

// titles are those of the parts, and what their tables are.
var titles = map[string][2]string{
	"dir":       {"embedded", ""},
	"minio":     {"MinIO", ""},
	"versitygw": {"versitygw", ""},
	"pipeline":  {"A shell pipeline", "The same documents of 100 KB with `sha256sum`, `openssl cms -sign`, `openssl ts`, `cp` and `sync`, each document for itself."},
	"fleet": {"Two daemons, far from the store", "Daemons of their own on one bucket of versitygw, each behind a wire that adds 10 ms to every byte in each direction; every daemon has\n" +
		"clients of its own, and the clock stops when the last seal is stored. One daemon and two take turns."},
	"large": {"Uploads of 1 GiB at once", "The real daemon on the embedded store."},
}

func (m *campaign) page(results map[string]result) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Benchmarks\n\nWritten by `scripts/bench`; the table of each store is one run of `perenne bench`, whose yardstick takes turns with the archive:\n"+
		"the same client, over HTTP, to a handler that hashes each body with SHA-256 and puts it into the same store. 32 clients,\n"+
		"one producer, ECDSA P-256 seal key; the clock stops when the last seal is stored. Ratios hold within a run; absolute\n"+
		"figures belong to the machine. The figures themselves: `docs/evidence/bench-*.json`.\n\n![ratio to the yardstick](%s)\n", filepath.Base(strings.TrimSuffix(m.out, ".md"))+".svg")
	for _, part := range order {
		r, ok := results[part]
		if !ok {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", titles[part][0])
		if text := titles[part][1]; text != "" {
			fmt.Fprintf(&b, "%s\n\n", text)
		}
		fmt.Fprintf(&b, "%s, %d processors. Commit %s; `%s`.\n\n| what | value | target | | |\n|---|---|---|---|---|\n", r.Machine, r.Processors, r.Commit, r.Command)
		for _, w := range r.Rows {
			target, verdict := "", ""
			if w.Met != nil {
				target, verdict = fmt.Sprintf("%g", w.Target), "met"
				if !*w.Met {
					verdict = "**missed**"
				}
			}
			fmt.Fprintf(&b, "| %s | %.4g %s | %s | %s | %s |\n", w.What, w.Value, w.Unit, target, verdict, w.Note)
		}
	}
	b.WriteString(byHand)
	if old, err := os.ReadFile(m.out); err == nil {
		_, rest, _ := bytes.Cut(old, []byte(byHand))
		b.Write(rest)
	}
	return b.Bytes()
}
