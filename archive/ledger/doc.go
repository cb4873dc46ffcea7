// Package ledger keeps the ledger of a producer (giornale delle prove): an append-only Merkle log whose
// commits are numbered objects in a bucket, each created once. A stranger can read one with this comment.
//
// # Entries
//
// An entry is one line of RFC 8785 JSON of at most 60 KiB: an object whose members have text or integers
// from 0 to 2^53-1 as values. Text is never empty and consists of printable ASCII without quotation mark and
// backslash, so no value has an escape; counts that are 0 and members that do not apply are left out.
// Every line has
//
//	type   one of the types below
//	time   when its commit was made, UTC, as 2006-01-02T15:04:05.000Z; never before the entry before it
//
// and of the following those its type needs (may have, in brackets). size and sha256 of an object go with
// object wherever it stands; a digest is 64 lower-case hexadecimal digits.
//
//	package.sealed      id key object size sha256 record receipt [generation]
//	package.annulled    id key cause [generation record]
//	submission.refused  key receipt [id generation object size sha256 record cause]
//	report.issued       object size sha256 [id receipt record cause]
//	copy.issued         id [key generation object size sha256 record receipt cause]
//	seal                seal root token object size sha256
//	hold.placed         cause [id key generation]
//	hold.lifted         cause [id key generation]
//	package.disposed    id key cause [generation]
//	evidence.renewed    root token object size sha256 [seal cause]
//	repaired            object size sha256 [id cause]
//	key.added           vkey [certificate recovery signature cause]
//	policy.adopted      sha256 [object size id cause]
//	node.joined         [id vkey certificate cause]
//	head.trusted        commit previous [cause]
//	commit.void         commit sha256
//
// The members are explained at [Entry]. None holds personal data: what must stay erasable lies outside
// the ledger and is named by a salted digest.
//
// # Tree
//
// Entry number i, counted from 0, is leaf i of an RFC 6962 tree with SHA-256: the hash of a leaf is that of
// the byte 0x00 and the line without its newline. A checkpoint is a C2SP tlog-checkpoint without extension
// lines: origin <installation>/<producer>, number of entries, root in base64; as a signed note it carries
// exactly one Ed25519 signature, by a key whose name is the origin. Of every base64 text only the spelling
// that encoding gives is valid, so no bit of a checkpoint can change unnoticed.
//
// # Commits
//
// Commit n, from 0, lies under <producer>/ledger/<first 16 digits>/<last 4> of n in twenty digits:
//
//	perenne commit v1\n
//	<producer> <n> <index of its first entry> <number of entries>\n
//	<hex SHA-256 of the bytes of commit n-1; 64 zeros for 0>\n
//	<entry>\n                         once or more
//	\n
//	<checkpoint after these entries, a signed note, to the end of the object>
//
// A reader accepts only what writing would give. Commit n extends commit n-1 when it names its digest, begins
// at its size, its times do not go back, and its root is that of all entries so far; only with the last
// does the signature vouch for the entries. Of several versions of a key the one that extends the commit
// before counts. Two that do, with different bytes, are a fork, and so is a signed commit of the next number
// that names another commit before it and whose root is not that of our entries with its own; anything else
// under the key is damage.
//
// Something that nobody signed may lie under number n, at least 1, and a lock keep it there. The commit behind it and the
// k-1 numbers after it then has number n+k, extends commit n-1, and begins with exactly k entries commit.void, at most
// 512, for n … n+k-1 in order, each with the digest of what lay there; anywhere else such an entry is invalid.
//
// A commit is created with a conditional write, so of several daemons one wins a number and the others read
// what it wrote, decide anew and take the next. That write is the only moment at which an entry comes to be: before
// it there is nothing, after it everything else can be finished by whoever opens the ledger next.
//
// # Proofs
//
// The proof of an entry is a C2SP tlog-proof@v1 in the checkpoint of the entry's own commit, with one
// signature, whose extra is the base64 of the entry's line:
//
//	c2sp.org/tlog-proof@v1\n
//	extra <base64 of the line>\n
//	index <i>\n
//	<base64 hash>\n                   the path from the leaf to the root (RFC 6962 §2.1.1), none for one leaf
//	\n
//	<checkpoint>
//
// # Tiles
//
// Full tiles of height 8 lie under <producer>/tiles/tile/<level>/<N>, full bundles of 256 entries under
// <producer>/tiles/tile/entries/<N>, both as C2SP tlog-tiles has them, N spelled x001/x234/067. A bundle is
// written after the tiles it completes. They can be derived from the commits; partial ones are not stored.
//
// # On this machine
//
// The mark ([Heads]) is the head this machine has acknowledged. It is durable before anyone is told yes, and a
// bucket that does not have it was rolled back. The index in Config.Dir holds hashes and commit records for quick
// reading; it may be deleted, and is made again when anything read from it does not lead to a signed root.
package ledger
