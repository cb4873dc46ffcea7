package spool

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/marchesud/perenne/storage"
)

// item is an object held. What can change is guarded by Spool.mu.
type item struct {
	key    string
	size   int64
	sum    [32]byte
	retain time.Time // zero: no lock is asked for

	at        time.Time     // its time to be read back counts from here: the store answered, or was asked, not later
	filed     time.Time     // what the file's name says of at; behind it where a renaming failed
	users     int           // Puts under way and the one that looks at it; nothing is dropped under them
	looked    chan struct{} // closed when the one that looks at it is done; nil when none does
	former    bool          // of an earlier process: what the store said of it is not known
	leaving   bool          // its file is being removed
	gone      bool          // dropped
	put       bool          // the store acknowledged it, or gave it back equal
	doubt     bool          // an answer was unknown, in this process
	read      bool          // read back equal when its time had come
	conflict  bool          // the store has other bytes
	contested bool          // it is to be found out whether it was ever promised; not put meanwhile
	accused   bool          // they were said to be wrong
	rotten    bool          // the copy itself is damaged; said once
	missing   bool          // perhaps: the store has failed since it was last asked for it
	next      time.Time     // not looked at before
	pause     time.Duration // after the last failure to look at it
	ask       time.Time     // whether it was promised is not asked before
	wait      time.Duration // before it is asked once more; longer each time
}

// room is what stands before the first slash of the key: a producer, or evidence, keys.
func (it *item) room() string {
	room, _, _ := strings.Cut(it.key, "/")
	return room
}

func (it *item) options() storage.PutOptions {
	return storage.PutOptions{Size: it.size, SHA256: it.sum, RetainUntil: it.retain}
}

// name is the key of the copy in held/.
func (it *item) name() string {
	lock := int64(0)
	if !it.retain.IsZero() {
		lock = it.retain.Unix()
	}
	return fmt.Sprintf("%s.%x.%d.%d", spell(it.key), it.sum, lock, it.filed.UnixNano())
}

var (
	speller   = strings.NewReplacer("-", "-_", "/", "--")
	unspeller = strings.NewReplacer("--", "/", "-_", "-")
)

func spell(key string) string { return speller.Replace(key) }

var errName = errors.New("not the name of a copy")

// parseName reads exactly what name writes.
func parseName(name string) (*item, error) {
	f := strings.Split(name, ".")
	n := len(f)
	if n < 4 {
		return nil, errName
	}
	it := &item{key: unspeller.Replace(strings.Join(f[:n-3], "."))}
	sum, err := hex.DecodeString(f[n-3])
	lock, err1 := strconv.ParseInt(f[n-2], 10, 64)
	at, err2 := strconv.ParseInt(f[n-1], 10, 64)
	if errors.Join(err, err1, err2) != nil || len(sum) != 32 || lock < 0 {
		return nil, errName
	}
	it.sum, it.at, it.filed = [32]byte(sum), time.Unix(0, at), time.Unix(0, at)
	if lock > 0 {
		it.retain = time.Unix(lock, 0)
	}
	if it.name() != name || storage.ValidKey(it.key) != nil || storage.Replaceable(it.key) {
		return nil, errName
	}
	return it, nil
}
