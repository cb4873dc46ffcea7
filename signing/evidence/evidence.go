// Package evidence writes and checks evidence records (RFC 4998): the proof that the digest of a data object
// existed when a timestamp was given, although the timestamp covers many objects at once.
//
// # The derivation, version 1 (frozen)
//
// A seal has leaves, which are SHA-256 digests, and one RFC 3161 token over their root:
//
//  1. Leaves given twice count once. Leaves are sorted ascending, bytewise. They are level 0 of a tree.
//  2. The nodes of a level are paired from the left. The parent of a and b is
//     SHA-256(min(a, b) || max(a, b)), min and max bytewise. Parents keep the order of their pairs; a last
//     node without a partner is carried up unchanged. Levels are not sorted again.
//  3. The one node of the last level is the root. The root of a single leaf is that leaf.
//
// The record of a leaf is the DER of
//
//	EvidenceRecord {
//	  version                  1
//	  digestAlgorithms         { SHA-256, parameters NULL }
//	  archiveTimeStampSequence { { ArchiveTimeStamp {
//	    digestAlgorithm [0]    SHA-256, parameters NULL
//	    reducedHashtree [2]    one partial hash tree for each sibling on the way from the leaf to the root
//	    timeStamp              the token, a ContentInfo, byte for byte } } } }
//
// whose first partial hash tree holds the leaf and its sibling, ascending, and whose others hold one sibling
// each. A node that is carried up has no sibling there and adds nothing. The record of a single leaf has no
// reducedHashtree at all: RFC 4998 section 4.2 allows "only a timestamp with no hash value lists", and a list
// of one value would be ambiguous, since section 4.3 read to the letter hashes it once more. In our form
// every list that is folded has exactly two members, so that all readings of the RFC agree.
// [Tree.Derive] writes this form, [Record.Minimal] accepts no other.
//
// # Reading
//
// [Parse] takes any RFC 4998 record, renewed ones included, and refuses what it could not vouch for:
//
//   - bytes that are not DER in lengths, tags and structure, at most 16 MiB, 32 levels, 4,096 partial hash
//     trees in an archive timestamp, 256 timestamps and 32 chains ([ErrForm]). The inside of a
//     token is held to DER only as far as its lengths and tags go: the rest is the token check's;
//   - cryptoInfos, encryptionInfo and attributes: we could not check what they claim ([ErrUnsupported]);
//   - digest algorithms other than SHA-256, SHA-384, SHA-512 and, in what others made, SHA-224. SHA-1 is
//     refused by name ([ErrUnsupported]);
//   - a list of digestAlgorithms that is not exactly the algorithms in use, a chain with two algorithms, a
//     token whose imprint has another algorithm than its tree, hash values of another length than their
//     algorithm's, empty lists and a value twice in one list ([ErrForm]).
//
// [Record.Verify] and [Record.VerifyData] follow RFC 4998 sections 4.3 and 5.3. For every archive timestamp
// a member is due in the first list: the data object's digest; in a later archive timestamp of a
// chain the digest of the timeStamp field before it; in the first of a later chain
// H(H(data) || H(DER of the ArchiveTimeStampSequence of all chains before)), concatenated in that order. The
// lists are folded (members and the result so far sorted ascending, concatenated, hashed; a first list of
// one value stands for itself) and must end in the imprint of the token. The token itself is judged
// by a [CheckToken], since this package knows nothing of certificates.
//
// # What a record says
//
// That its digest existed at the time, and no more. Two leaves that are siblings have the same record, byte for
// byte, as RFC 4998 section 4.2 has it; and inner nodes of a tree are digests too, of 64 bytes that anybody may
// compute. Whether a digest is a package's is a question for the ledger.
package evidence

import (
	"encoding/asn1"
	"errors"
	"time"
)

// Limits of what is read, in bytes, levels and members.
const (
	maxSize   = 16 << 20
	maxDepth  = 32
	maxGroups = 4096
	maxStamps = 256
	maxChains = 32
)

// What a record can be found to be.
var (
	// ErrForm: the bytes are not a strict RFC 4998 evidence record. Nobody's proof.
	ErrForm = errors.New("not a strict evidence record")
	// ErrUnsupported: the record uses something that is not checked here; it is neither good nor bad.
	ErrUnsupported = errors.New("evidence record not checkable")
	// ErrProof: the record does not prove what it is held against.
	ErrProof = errors.New("evidence does not hold")
	// ErrDigest: the digest of the data object is needed under an algorithm that was not offered; only
	// [Record.VerifyData] with the object, or with digests kept from when it was whole, can tell.
	ErrDigest = errors.New("no digest of the data object under this algorithm")
	// ErrLeaves: a tree needs at least one leaf, and only its leaves have records.
	ErrLeaves = errors.New("no such leaf")
)

// CheckToken judges one timestamp token (the DER of an RFC 3161 TimeStampToken, a CMS ContentInfo) and
// returns its time. It must return an error unless the token is genuine and its message imprint is exactly
// imprint under algorithm.
//
// It is called once for each token of a record, newest first. A check may rely on that order: the newest
// token is to be valid now, and each other one at the time of the token checked just before it (RFC 4998
// section 5.3).
type CheckToken func(token, imprint []byte, algorithm asn1.ObjectIdentifier) (time.Time, error)

// Digests gives the digest of one data object under an algorithm, or an error ([ErrDigest] when it has none).
type Digests func(algorithm asn1.ObjectIdentifier) ([]byte, error)

// Proof is what a record has been found to prove.
type Proof struct {
	// Time is that of the first timestamp: the data object existed then.
	Time time.Time
	// Root is what the first timestamp covers; zero when its algorithm is not SHA-256.
	Root [32]byte
	// Token is the first timestamp, the DER of a ContentInfo.
	Token []byte
	// Renewals counts the timestamps after the first.
	Renewals int
	// Renewed is the time of the newest timestamp; without renewals it equals Time.
	Renewed time.Time
}
