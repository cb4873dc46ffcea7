package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Options says where a catalog lies and what it may take.
type Options struct {
	// Dir is the catalog's own directory; it is created when missing (its parent must exist).
	Dir string
	// Quota is the most bytes that the catalog's files may take together; 0 means no quota. A catalog takes
	// some 0.7 KB a package, for a while twice that.
	Quota int64
	// Watermark is the number of bytes that must stay free on the file system, since a full disk ends a
	// process that uses Badger; 0 means 64 MiB. With 4 MiB the process does end.
	Watermark int64
	// Memory bounds the cache of Badger's table indexes, in bytes; 0 means 64 MiB, enough for some five
	// million packages.
	Memory int64
	// Check is run before a directory that was not closed cleanly, or whose files changed since, is opened.
	// It calls the function Check in a child process: damaged Badger files can kill a process, not only a
	// call. Any error or end of the child counts as doubt. Nil calls it in this process.
	Check func(dir string) error
	// Now is the clock by which the filling of the words index makes way for Apply; nil lets it run at full
	// speed.
	Now func() time.Time
}

// The few errors a caller acts upon.
var (
	// ErrFull: the quota is reached, or the file system has less free than the watermark; nothing was written.
	ErrFull = errors.New("catalog is full")
	// ErrInUse: another process has the directory open.
	ErrInUse = errors.New("catalog is in use by another process")
	// ErrQuery: a field of the query is not what it must be: a date, a cursor that some Search gave, words of
	// reasonable length.
	ErrQuery = errors.New("invalid query")
	// ErrClosed: the catalog was closed.
	ErrClosed = errors.New("catalog is closed")
	// ErrDamaged: what was read is not what was written. Closing and opening again heals it.
	ErrDamaged = errors.New("catalog is damaged")
	// ErrRecord: a record cannot be kept: it is of another producer or too large.
	ErrRecord = errors.New("record cannot be catalogued")
)

// State says up to where a producer's ledger is in the catalog.
type State struct {
	Commit int64    // number of the last commit applied; -1 when none
	Size   int64    // ledger entries up to and including that commit
	Root   [32]byte // root of the ledger at Size
	Count  int64    // live identities: records neither annulled nor forgotten
	Digest [32]byte // sum modulo 2^256, big-endian, of SHA-256 of each live record's Identity
}

// Names inside Options.Dir.
const (
	lockName  = "lock"  // held while the catalog is open
	checkName = "check" // held while it is checked
	markName  = "mark"  // sums of a closed catalog's files
	dataName  = "data"  // Badger
	wordsName = "words" // full text
)

// Catalog is an open catalog. All methods may be called concurrently.
type Catalog struct {
	o       Options
	lock    *os.File
	db      *badger.DB
	italian *italian
	rebuilt string // why the catalog was begun anew, "" if it was not

	using  sync.RWMutex // read-held by every call, write-held by Close
	closed bool
	doubt  atomic.Bool // something read was wrong: close without a mark
	fill   *filler

	writing  sync.Mutex   // one change at a time
	sizes    fileSizes    // under writing
	mu       sync.RWMutex // guards accounts and meta
	accounts map[string]*account
	meta     meta
}

// Open opens the catalog in o.Dir for this process alone. What was not closed cleanly is checked first; what
// does not pass is thrown away, and the catalog begins anew, empty (see Rebuilt). So damage is never an
// error; no room, no rights, or another process with the same directory are.
func Open(ctx context.Context, o Options) (*Catalog, error) {
	o = o.withDefaults()
	c, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", o.Dir, err)
	}
	return c, nil
}

func (o Options) withDefaults() Options {
	if o.Watermark <= 0 {
		o.Watermark = defaultWatermark
	}
	if o.Memory <= 0 {
		o.Memory = 64 << 20
	}
	if o.Check == nil {
		o.Check = Check
	}
	return o
}

func open(ctx context.Context, o Options) (_ *Catalog, err error) {
	if err := os.Mkdir(o.Dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(o.Dir, lockName), false)
	if err != nil {
		return nil, err
	}
	c := &Catalog{o: o, lock: lock}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	if c.italian, err = newItalian(); err != nil {
		return nil, err
	}
	if err := c.room(); err != nil {
		return nil, err
	}
	wordsReason, err := c.settle(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.openData(); err != nil {
		return nil, err
	}
	if c.fill, err = startFiller(c, wordsReason); err != nil {
		return nil, errors.Join(err, c.db.Close())
	}
	return c, nil
}

// settle leaves in the directory only files whose sums a clean close or a check has just written down, and
// takes the mark away, since from here on they change.
func (c *Catalog) settle(ctx context.Context) (wordsReason string, err error) {
	dir := c.o.Dir
	if empty(filepath.Join(dir, dataName)) {
		c.rebuilt = "there was no catalog"
	} else if data, words := verifyMark(dir); data == nil {
		wordsReason = reasonOf(words)
	} else {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		checkErr := c.o.Check(dir)
		data, words = verifyMark(dir)
		if data != nil {
			c.rebuilt = "not trusted: " + reasonOf(errors.Join(checkErr, data))
		}
		wordsReason = reasonOf(words)
	}
	if err := removeMark(dir); err != nil {
		return "", err
	}
	if c.rebuilt != "" {
		if err := os.RemoveAll(filepath.Join(dir, dataName)); err != nil {
			return "", err
		}
	}
	if c.rebuilt != "" || wordsReason != "" {
		if err := os.RemoveAll(filepath.Join(dir, wordsName)); err != nil {
			return "", err
		}
	}
	return wordsReason, nil
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// openData opens Badger; if the settled files are refused all the same, once more on nothing.
func (c *Catalog) openData() error {
	err := guard(c.openOnce)
	if err == nil {
		return nil
	}
	if c.db != nil {
		_ = c.db.Close()
		c.db = nil
	}
	c.rebuilt = "not readable: " + err.Error()
	for _, name := range []string{dataName, wordsName} {
		if err := os.RemoveAll(filepath.Join(c.o.Dir, name)); err != nil {
			return err
		}
	}
	return guard(c.openOnce)
}

func (c *Catalog) openOnce() (err error) {
	c.db, err = badger.Open(badgerOptions(filepath.Join(c.o.Dir, dataName), c.o.Memory))
	if err != nil {
		c.db = nil
		return err
	}
	c.accounts = make(map[string]*account)
	if c.rebuilt != "" { // from now on a catalog without this key is one that lost it
		err = c.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte{kindMeta}, meta{}.encode()) })
		if err != nil {
			return err
		}
	}
	return c.db.View(func(txn *badger.Txn) error {
		m, err := txn.Get([]byte{kindMeta})
		if err == nil {
			err = m.Value(func(v []byte) (err error) { c.meta, err = parseMeta(v); return err })
		}
		if err != nil {
			return err
		}
		return each(txn, []byte{kindProducer}, true, func(key, value []byte) error {
			a, err := parseAccount(value)
			c.accounts[string(key[1:])] = &a
			return err
		})
	})
}

// badgerOptions keep memory small and every value in the tree. SyncWrites is off: what a power cut takes
// away is replayed from the ledger, after a check has found either a state with all its records or doubt.
func badgerOptions(dir string, memory int64) badger.Options {
	o := badger.DefaultOptions(dir)
	o.TableSizeMultiplier = 1 // larger tables further down cost a compaction hundreds of MiB
	return o.
		WithLogger(nil).
		WithMetricsEnabled(false).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithMemTableSize(memtable).
		WithNumMemtables(2).
		WithBaseTableSize(4 << 20).
		WithNumLevelZeroTables(4).
		WithNumLevelZeroTablesStall(10).
		WithNumCompactors(2).
		WithNumGoroutines(1).
		WithValueThreshold(1 << 20).
		WithValueLogFileSize(1 << 20).
		WithCompression(options.None). // it would take twice the memory while filling, to save a third of the disk
		WithBlockCacheSize(0).         // uncompressed blocks are read where they are mapped
		WithIndexCacheSize(memory).
		WithSyncWrites(false)
}

// memtable is the size of Badger's memory tables; a transaction takes at most 15 % of it.
const memtable = 8 << 20

// Rebuilt tells whether Open found nothing it could trust and began anew, and why. Every producer's State
// then is that of an unknown one.
func (c *Catalog) Rebuilt() (bool, string) { return c.rebuilt != "", c.rebuilt }

// Close stops the filling of the words index, and leaves a mark by which the next Open knows these files.
func (c *Catalog) Close() error {
	c.using.Lock()
	defer c.using.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	defer func() { _ = c.lock.Close() }()
	clean := c.fill.stop()
	if err := guard(c.db.Close); err != nil {
		return fmt.Errorf("close catalog %s: %w", c.o.Dir, err)
	}
	if c.doubt.Load() {
		return nil
	}
	if err := writeMark(c.o.Dir, clean); err != nil {
		return fmt.Errorf("close catalog %s: %w", c.o.Dir, err)
	}
	return nil
}

// State tells what is applied of a producer's ledger.
func (c *Catalog) State(producer string) State {
	if a, ok := c.account(producer); ok {
		return a.state
	}
	return State{Commit: -1}
}

// Count tells the number of live records of a producer.
func (c *Catalog) Count(producer string) int64 { return c.State(producer).Count }

// Size tells the bytes that the catalog's files take on the disk.
func (c *Catalog) Size() int64 { return diskUse(c.o.Dir) }

func (c *Catalog) account(producer string) (account, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	a, ok := c.accounts[producer]
	if !ok {
		return account{state: State{Commit: -1}}, false
	}
	return *a, true
}

// do runs a call against an open catalog, guarded; what it finds damaged is remembered until Close.
func (c *Catalog) do(f func() error) error {
	c.using.RLock()
	defer c.using.RUnlock()
	if c.closed {
		return ErrClosed
	}
	err := guard(f)
	if errors.Is(err, ErrDamaged) {
		c.doubt.Store(true)
	}
	return err
}

// guard runs f and turns what damaged files do to this goroutine (a panic of a library, a fault in mapped
// memory) into ErrDamaged. It cannot help a library's own goroutines.
func guard(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return f()
}

// each calls f with every key under prefix, in order, and its value if wanted; both are only lent.
func each(txn *badger.Txn, prefix []byte, values bool, f func(key, value []byte) error) error {
	o := badger.DefaultIteratorOptions
	o.Prefix, o.PrefetchValues = prefix, false
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		if !values {
			if err := f(item.Key(), nil); err != nil {
				return err
			}
			continue
		}
		if err := item.Value(func(v []byte) error { return f(item.Key(), v) }); err != nil {
			return err
		}
	}
	return nil
}
