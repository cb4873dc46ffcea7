package main

import (
	"github.com/rogpeppe/go-internal/testscript"
)

// takeOver does to a read-only installation what somebody would who has the bucket and not the recovery key:
// makes keys, believes them himself, and goes on writing.
func takeOver(ts *testscript.TestScript, _ bool, args []string) {
	in, err := findInstallation(ts.MkAbs(args[0]))
	ts.Check(err)
	producers, err := in.loadProducers()
	ts.Check(err)
	for _, p := range producers {
		ts.Check(in.newNameKey(p.Code))
		_, vkey, err := in.ledgerKeys(p.Code)
		ts.Check(err)
		ts.Check(appendFile(in.path("trust", "ledger.vkey"), []byte(vkey+"\n")))
	}
	in.config.ReadOnly, in.config.Listen = false, "127.0.0.1:0"
	ts.Check(writeYAML(in.path("perenne.yaml"), in.config))
}
