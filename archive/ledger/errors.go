package ledger

import (
	"errors"
	"fmt"

	"github.com/marchesud/perenne/storage"
)

// Errors of opening and writing a ledger.
var (
	// ErrNoMark: the bucket holds objects of this producer, and this machine has no mark to hold them
	// against. Ask a witness, or open once with TrustBucketHead.
	ErrNoMark = errors.New("the bucket is not empty and there is no mark to hold it against")
	// ErrClock: the clock is more than five seconds behind the last entry. Nothing is written until it
	// is right again.
	ErrClock = errors.New("clock is behind the last entry of the ledger")
	// ErrClosed: the ledger was closed before the entry was taken.
	ErrClosed = errors.New("ledger is closed")
	// ErrBusy: the outcome of a commit is not known yet, or reading on takes long, and nothing else moves the ledger's end
	// meanwhile. It passes.
	ErrBusy = errors.New("the ledger waits for a commit whose outcome is not known yet, or is being read on")
	// ErrReadOnly: the ledger was opened without a signer.
	ErrReadOnly = errors.New("ledger is open for reading only")
	// ErrRange: there is no such entry, commit or tile in the ledger.
	ErrRange = errors.New("beyond the end of the ledger")
	// ErrAhead: Config.AppliedTo lies beyond the ledger, so whatever was applied came from elsewhere.
	ErrAhead = errors.New("more commits were applied than the ledger has")
)

// Rollback says that a bucket is behind the mark of this machine. Nothing is written to it.
type Rollback struct {
	Producer string
	Mark     int64 // number of the commit this machine acknowledged
	Found    int64 // number of the last commit the bucket has; -1 for none
}

func (r *Rollback) Error() string {
	return fmt.Sprintf("ledger of %s was rolled back: commit %d was acknowledged, the bucket ends at %d", r.Producer, r.Mark, r.Found)
}

// Fork says that two histories of one ledger exist. Nothing more is written to it.
type Fork struct {
	Producer string
	Number   int64    // of the commit where they part
	Reason   string   // what was seen
	Evidence [][]byte // the bytes of the commits that contradict each other, as far as they were read
}

func (f *Fork) Error() string {
	return fmt.Sprintf("ledger of %s forks at commit %d: %s", f.Producer, f.Number, f.Reason)
}

// Damage says that an object of the ledger is not there, or is not what the ledger says.
type Damage struct {
	Key    string
	Reason string
	// Unchecked: the entries of this object could not be read, so that the roots of later commits were
	// not recomputed ([Walk] only).
	Unchecked bool
	// Unread: the store did not give the object, so that nobody knows whether it is damaged ([Walk] only).
	Unread bool
	// Void: there is no commit of this number, and the ledger says so; Version, of the Versions and delete markers
	// there are, is what it calls void ([Walk] only).
	Void bool
	// Beside: the commit of this key is sound, and is Version of the Versions there are, some of which are not
	// it ([Walk] only).
	Beside   bool
	Version  string
	Versions []storage.Version

	cause error
}

func (d *Damage) Error() string {
	s := d.Key + ": " + d.Reason
	if d.Unchecked {
		s += "; roots of later commits not recomputed"
	}
	return s
}

func (d *Damage) Unwrap() error { return d.cause }

// judged reports whether an error says something of what the bucket holds, and not that the store did not answer.
func judged(err error) bool {
	var damage *Damage
	var fork *Fork
	var rollback *Rollback
	return errors.As(err, &damage) || errors.As(err, &fork) || errors.As(err, &rollback)
}
