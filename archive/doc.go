// Package archive is what Perenne is: three verbs, three papers, one seal.
//
//	Submit     a producer hands over a document unit     → receipt: an accepted submission, proved
//	Retrieve   somebody entitled asks for a package      → distribution package, with its proofs
//	Audit      somebody wants to know that all is there  → integrity report, every finding named
//
// # The life of a document
//
// A producer (ente produttore, the tenant) submits a document unit: one main document with attachments, known by
// its key (structure, register, year, number). The policy admits or refuses it. An admitted submission becomes a
// package: an ASiC-E container with the files as submitted, their metadata, a SInCRO index and the
// conservatore's signature. It is stored under an identifier derived from what was submitted, so that a retry
// meets itself.
//
// The package exists when, and only when, its entry is in a commit of the producer's ledger (giornale delle
// prove): an append-only Merkle log, one numbered object per commit, created conditionally. Nothing else
// decides that; the catalog is a cache of it and can be deleted.
//
// A seal covers what all ledgers gained since the last one: one hash tree, one timestamp. From it, at any time,
// the evidence record of any package is derived. The ledgers name the seals, and the seals the ledgers.
//
// Receipt, distribution package and report are checked offline (archive/paper) by somebody who trusts neither
// the operator nor this program.
//
// # The order of effects
//
// submit.go is the spine: receive, look up, admit, pack, store, commit, index, seal, answer. Behind each step
// stands what a crash there leaves. There is no other recovery: Open reads the ledgers on from their marks and
// runs the same code.
//
// # What an answer rests on
//
// Behind a store that may not keep its word stands a spool (storage/spool). There a first answer is given when this
// machine holds, synced, the exact bytes of the package or refusal, of its commit, and of its seal if it made that:
// also of what it met as the orphan of another daemon.
//
// For what another daemon committed, this one rests on that one's spool: for commits that it chains its own to, for
// seals, and for a receipt that it gives again. It has then read the package whole and found it right, which proves
// that it is there, not that it is durable. To hold all of that everywhere would cost every machine the writes of all.
// So what only one machine holds is gone when that machine's disk and the store's last unsynced writes are lost
// at once; nobody takes that for whole, since each daemon that had read the commit has its mark.
//
// # Rooms
//
//	pack     the container and the SInCRO index: format only
//	ledger   entries, commits, checkpoints, proofs, tiles
//	seal     what a seal covers, its form and its index
//	paper    the papers and their offline check
//	canon    the one JSON form that is hashed
//	web      HTTP, both ends
package archive
