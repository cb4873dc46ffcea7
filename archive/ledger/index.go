package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// errIndex means that the local files do not say what the ledger says. They are then made again.
var errIndex = errors.New("local index is damaged")

// recordSize is the length of a commit's record: the ledger's size after it (8 bytes, big endian) and the
// digest of its bytes.
const recordSize = 8 + 32

// index is the local, derived part of a ledger: the hashes tlog stores, in tlog's order, in the file
// "hashes", and a record per commit in the file "commits". Both are read by position, so memory does not
// grow with the ledger. They are not fsynced: whatever is read from them is checked against a signed root
// by whoever reads.
type index struct {
	dir string

	mu      sync.RWMutex
	hashes  *os.File
	commits *os.File
	count   int64 // commits with a record
}

// openIndex opens the files in dir, making them when they are missing.
func openIndex(dir string) (*index, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	x := &index{dir: dir}
	if err := x.open(); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	return x, nil
}

func (x *index) open() error {
	var err error
	if x.hashes, err = os.OpenFile(filepath.Join(x.dir, "hashes"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if x.commits, err = os.OpenFile(filepath.Join(x.dir, "commits"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return errors.Join(err, x.hashes.Close())
	}
	st, err := x.commits.Stat()
	if err != nil {
		return errors.Join(err, x.hashes.Close(), x.commits.Close())
	}
	x.count = st.Size() / recordSize
	return nil
}

func (x *index) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return errors.Join(x.hashes.Close(), x.commits.Close())
}

// add adds what one commit adds; stored are the hashes of its entries. A void number before it has a record too, with
// the size that the ledger had already.
func (x *index) add(c *Commit, stored []tlog.Hash) error {
	if err := x.writeHashes(c.First, stored); err != nil {
		return err
	}
	for _, e := range c.Entries[:c.voids()] {
		if err := x.writeRecord(*e.Commit, c.First, c.voided(e).SHA256); err != nil {
			return err
		}
	}
	return x.writeRecord(c.Number, c.Size, c.SHA256)
}

// grow adds entries to the tree, and their hashes to the index.
func (x *index) grow(t *tree, lines [][]byte) error {
	first := t.size
	var stored []tlog.Hash
	for _, line := range lines {
		stored = t.add(Leaf(line), stored)
	}
	return x.writeHashes(first, stored)
}

// writeHashes writes the hashes stored for the entries from first on.
func (x *index) writeHashes(first int64, stored []tlog.Hash) error {
	b := make([]byte, 0, len(stored)*tlog.HashSize)
	for i := range stored {
		b = append(b, stored[i][:]...)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, err := x.hashes.WriteAt(b, tlog.StoredHashCount(first)*tlog.HashSize); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// writeRecord writes the record of the next commit.
func (x *index) writeRecord(n, size int64, digest [32]byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n != x.count {
		return fmt.Errorf("%w: record of commit %d after %d records", errIndex, n, x.count)
	}
	r := binary.BigEndian.AppendUint64(make([]byte, 0, recordSize), uint64(size))
	if _, err := x.commits.WriteAt(append(r, digest[:]...), n*recordSize); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	x.count++
	return nil
}

// truncate forgets all commits from number n on.
func (x *index) truncate(n int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.count = min(x.count, n)
	return x.commits.Truncate(x.count * recordSize)
}

// length returns the number of commits with a record.
func (x *index) length() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.count
}

// record returns the ledger's size after commit n and the digest of the commit's bytes.
func (x *index) record(n int64) (size int64, digest [32]byte, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.recordLocked(n)
}

func (x *index) recordLocked(n int64) (size int64, digest [32]byte, err error) {
	if n < 0 || n >= x.count {
		return 0, digest, fmt.Errorf("%w: no record of commit %d", errIndex, n)
	}
	var r [recordSize]byte
	if _, err := x.commits.ReadAt(r[:], n*recordSize); err != nil {
		return 0, digest, fmt.Errorf("%w: %w", errIndex, err)
	}
	return int64(binary.BigEndian.Uint64(r[:8])), [32]byte(r[8:]), nil
}

// find returns the number of the commit that holds the entry.
func (x *index) find(entry int64) (int64, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var failed error
	n := sort.Search(int(x.count), func(i int) bool {
		size, _, err := x.recordLocked(int64(i))
		if err != nil {
			failed = err
		}
		return size > entry
	})
	if failed != nil {
		return 0, failed
	}
	return int64(n), nil
}

// ReadHashes is tlog's reading interface. Indexes that lie near each other, as those of a tile do, are
// read at once.
func (x *index) ReadHashes(at []int64) ([]tlog.Hash, error) {
	if len(at) == 0 {
		return nil, nil
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	hashes := make([]tlog.Hash, len(at))
	low, high := slices.Min(at), slices.Max(at)
	if len(at) > 8 && high-low < 1024 {
		b := make([]byte, (high-low+1)*tlog.HashSize)
		if _, err := x.hashes.ReadAt(b, low*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("%w: %w", errIndex, err)
		}
		for i, n := range at {
			copy(hashes[i][:], b[(n-low)*tlog.HashSize:])
		}
		return hashes, nil
	}
	for i, n := range at {
		if _, err := x.hashes.ReadAt(hashes[i][:], n*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("%w: %w", errIndex, err)
		}
	}
	return hashes, nil
}

// replace makes x the index that fill writes into an empty one. The old files serve readers until then,
// and stay when fill fails.
func (x *index) replace(fill func(*index) error) error {
	dir := filepath.Join(x.dir, "new")
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("rebuild index: %w", err)
	}
	fresh, err := openIndex(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(fresh), fresh.close()); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	err = errors.Join(x.hashes.Close(), x.commits.Close())
	for _, name := range []string{"hashes", "commits"} {
		err = errors.Join(err, os.Rename(filepath.Join(dir, name), filepath.Join(x.dir, name)))
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rebuild index: %w", err)
	}
	if err := errors.Join(err, x.open()); err != nil {
		return fmt.Errorf("rebuild index: %w", err)
	}
	return nil
}
