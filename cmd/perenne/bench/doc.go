// Package bench measures an archive against a yardstick: a handler that takes the same requests of the same client,
// hashes each body with SHA-256, puts it into the same store, and does nothing else. What the archive does beyond
// that (checks, package, signature, ledger, catalog, seal, receipt) is what the ratio of the two costs.
//
// The two take turns round by round in one run, so that the ratio stands also on a machine whose speed drifts. An
// archive's round ends when everything that it took in charge lies under a seal.
package bench
