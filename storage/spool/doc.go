// Package spool is a [storage.Store] in front of another one that may not keep its word: it holds the exact bytes
// of every object on a disk of this machine, synced, from before the other store is asked to take them until they
// were read back from it.
//
// # Why
//
// Some servers acknowledge what a power cut then takes away: what was never synced is gone, though the answer was
// 200. So nobody is told yes because of an answer alone. While an object is held here, a store that has lost it
// is given the same bytes under the same key again.
//
// # On disk
//
// Options.Dir, which one process has at a time (flock on its file "lock"; a second [Open] fails), holds
//
//	held/     one file for each object held: exactly its bytes, mode 0444, named
//	          <key>.<hex SHA-256>.<lock>.<put>, where the key is spelled with "--" for a slash and "-_" for a hyphen,
//	          lock is the Unix second until which the store is asked to lock it (0: not) and put the Unix
//	          nanosecond from which its time to be read back counts
//	ballast   a file of zeros that is given up when the disk is full, see below
//	lock
//
// held/ is a [dir.Store]: a file gets its name when its bytes are synced, and the folder is synced before the
// other store is asked. An object that is staged is written here once and given its name in the same way.
// Keys that do not fit into such a name (about 100 characters; all of Perenne's are shorter, a producer's code having at
// most 40) are an ErrKey.
// Objects that are [storage.Replaceable] can be derived again, or must be erasable: they pass straight through.
//
// # What becomes of an object
//
//	the store says              the copy held here is
//	yes                         kept until read back
//	exists, equal bytes         kept until read back: the answer to an earlier try was lost, or somebody put the same
//	exists, other bytes         dropped, if this process never had an unknown answer for it: its caller decides; else
//	                            kept, but not put again until who runs the spool knows whether it was promised
//	full, digest, key           dropped on the same condition: nothing was stored
//	anything else               kept, and put again by [Spool.Run], or by whoever meets the object missing
//
// and what is kept is looked at by Run: at its start, after any failure of the store, and when its time has come.
//
//	it finds                    and then
//	equal bytes, sealed         the copy is dropped
//	equal bytes, not sealed     kept until a seal covers it
//	nothing, or a delete mark   alarm; the same bytes are put again, and the time begins anew
//	other bytes                 kept, with an alarm, and nothing is overwritten: to restore is repair's business; but
//	                            dropped when who runs it knows that nobody was promised these bytes and others count
//	the store does not answer   kept; later
//
// Its time begins after every answer but a refusal, and anew when the same bytes are put, restored or adopted again,
// though they were read back before: what the store wrote just now it may have only in its memory.
//
// Reads speak of the store and never of the spool. But who meets an object missing that is held here has it put
// again first: [Spool.Get], [Spool.Stat] and [Spool.List] ask the store once more afterwards. So a ledger that is
// opened on a store that lost its last commits finds them, in the order in which it reads them; and the alarm, the
// count in [Stats] and the log say that the store lost something, which an audit then does not find any more.
//
// # What a crash leaves
//
//	while the bytes are written         nothing: a file without a name goes with its process
//	after the copy has its name         the copy; the store may have the object or not. The next process cannot
//	                                    tell, and treats it as acknowledged: absent, it is put (again)
//	after the store took it             the same
//	after it was dropped for a refusal  nothing: that removal is synced
//	after it was dropped, read back     nothing, or the copy, which is read back once more
//	while it is put again               the copy, under its old or its new time
//
// A copy whose Put lost its key to other bytes, and whose process died before it was dropped, is for the spool the
// same as one whose object was changed in the store. Whoever keeps the books knows which it is: [Spool.Sift] asks
// before anything is read, [Spool.Run] later. The same holds of several copies of one key. While nobody can tell, none
// is put but the only one that the store acknowledged: whatever takes the key of an object that was lost is locked
// there.
//
// # Room
//
// From four fifths of the quota on, in bytes or objects, and once something was refused for want of room, copies are
// read back early, oldest first, until three fifths are left, but none that
// is unsealed or younger than a minute: within that time an ordinary server has not written back its own cache, and
// reading from it would prove nothing. At the quota, and when the file system is down to the reserve, objects are
// neither staged nor put ([storage.ErrFull]), so that there is room for what this machine must go on writing: the
// marks of the ledgers, the catalog. Commits and seals may use an eighth of the quota more, and three quarters of
// the reserve: commits and seals are what frees the rest. When even that is gone the ballast is removed, which
// leaves room to stop in order and to look around; it is made again when there is room. Everything resumes by
// itself.
package spool
