// Package catalog is the searchable index of what an archive holds: which package has this identifier, this
// key, this date, type, or these words in its subject. It is a cache. The ledger and the search records
// beside it can fill it again at any time, so that its promise is not to keep anything but never to answer
// wrong: what it cannot vouch for it throws away, and says so ([Catalog.Rebuilt]).
//
// # How it is used
//
// The caller opens it, asks for each producer's [State], and applies the commits of the ledger behind
// State.Commit, in order ([Catalog.Apply]). That is the same after a first start, a crash, a lost disk and an
// ordinary stop. A caller who finds that a State contradicts its ledger (Root, Count, Digest) calls
// [Catalog.Reset] and applies from the start.
//
// # Layout
//
// The directory holds data/ (a Badger database), words/ (a full-text index of bleve, kind scorch), mark (see
// below), and the locks lock and check. Numbers in keys are big-endian; every value but those marked * ends
// with a CRC-32C of the rest. Badger's keys, T being the number (4 bytes) of the producer:
//
//	m                               version, last T given (4), number of the last feed entry (8)
//	p <producer>                    T, state, records, sum of all keys and values of T
//	r T <position>                  the record
//	i T <tag of id>              *  position
//	k T <tag of key HMAC> <generation> <entry> (8 each)  *  position
//	t T <tag of type> <position> *  nothing
//	f <number> (8)                  positions changed and not yet followed by the words index
//	x T                          *  a dropped T, whose keys are being deleted
//
// A position is ^YYYYMMDD (4 bytes; date 0 when unknown) and ^entry (8): ascending keys are the newest first,
// the order of all answers, and a page's cursor is a position in base64url. A tag is the first 16 bytes (of a
// type: 8) of SHA-256; the record decides whether it is the one. So a package costs four keys, some 700 bytes
// altogether with its words.
//
// # Why it can be trusted
//
// Badger is not trusted. It loses keys to a flipped bit without an error, and damaged files or a full disk
// end the process. So each transaction carries, with the records it writes, the account of its producer: how
// many records there are, and a sum of SHA-256 over all keys and values, independent of order. A close writes
// the SHA-256 of every file to mark. Open opens files with a matching mark at once, and any others only after
// [Check], in a child process, has read all of them and found each account exact; otherwise it begins anew.
// Therefore Badger need not sync its writes: a power cut leaves an earlier state, which is caught up from the
// ledger, or one that does not add up, which is not used.
//
// # Words
//
// Words are found in subject, type, register, number and year, all of those asked for having to occur. Text is
// cut into words by Unicode's rules and lower-cased; an elided article before the apostrophe, accents and
// Italian stop words are dropped; a light Italian stemmer joins singular and plural, masculine and feminine;
// leading zeros of numbers are dropped. Nobody asks in order of relevance: an archive is read newest first.
//
// The words index is filled behind, from the feed, and holds no text and no record, only which positions a
// term has. A hit is given out only if the record, read from Badger under the producer's own number, has all
// that was asked for: an index that is behind, or wrong, can hide a record for a while but show no wrong one,
// and none of another producer. What the index has not followed is searched directly, up to 1000 changes;
// beyond that Page.Behind says how much was left out.
package catalog
