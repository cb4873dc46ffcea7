package catalog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	bolt "go.etcd.io/bbolt"
)

// Check reads everything in the catalog in dir, which nobody may have open, and compares it with what the
// catalog says of itself; then it leaves a mark, so that Open knows exactly the files that were checked. It
// lets the libraries finish what a crash interrupted, and writes nothing else. An error names the first doubt; after
// one about the words index alone the mark stands for the records without it.
//
// Damaged files can end the process: production runs Check in a child (Options.Check). What such an end
// leaves undone is unmarked and so not trusted.
func Check(dir string) error {
	lock, err := lockFile(filepath.Join(dir, checkName), true)
	if err != nil {
		return fmt.Errorf("check catalog %s: %w", dir, err)
	}
	defer func() { _ = lock.Close() }()
	if err := check(dir); err != nil {
		return fmt.Errorf("check catalog %s: %w", dir, err)
	}
	return nil
}

func check(dir string) error {
	var s *scan
	err := guard(func() (err error) {
		s, err = scanData(dir)
		return err
	})
	if err != nil {
		return fmt.Errorf("records: %w", err)
	}
	if err := writeMark(dir, false); err != nil {
		return err
	}
	err = guard(func() error { return s.checkWords(filepath.Join(dir, wordsName)) })
	if err != nil {
		return fmt.Errorf("words: %w", err)
	}
	return writeMark(dir, true)
}

// scan is what was found in the records, to hold the accounts and the words index against.
type scan struct {
	meta     meta
	hasMeta  bool
	tenants  map[tenant]*tally
	accounts map[tenant]account
	dropped  map[tenant]bool
	touched  map[string]bool // documents that the feed names: the index may hold them or not
	position sum             // over the documents that the index must hold, once it has scanned
	records  int64           // how many these are
}

type tally struct {
	records, live int64
	digest, total sum
}

func scanData(dir string) (*scan, error) {
	if empty(filepath.Join(dir, dataName)) {
		return nil, errors.New("there are none")
	}
	o := badgerOptions(filepath.Join(dir, dataName), 64<<20).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		WithVerifyValueChecksum(true)
	db, err := badger.Open(o)
	if err != nil {
		return nil, err
	}
	if err := removeMark(dir); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &scan{
		tenants: make(map[tenant]*tally), accounts: make(map[tenant]account),
		dropped: make(map[tenant]bool), touched: make(map[string]bool),
	}
	err = db.VerifyChecksum()
	if err == nil {
		err = db.View(func(txn *badger.Txn) error {
			// The feed comes first, since the records' positions depend on it; the dropped tenants likewise.
			for _, kind := range []byte{kindFeed, kindDropped} {
				if err := each(txn, []byte{kind}, true, s.take); err != nil {
					return err
				}
			}
			return each(txn, nil, true, func(key, value []byte) error {
				if len(key) > 0 && (key[0] == kindFeed || key[0] == kindDropped) {
					return nil
				}
				return s.take(key, value)
			})
		})
	}
	if err == nil {
		err = s.compare()
	}
	return s, errors.Join(err, db.Close())
}

// take looks at one key.
func (s *scan) take(key, value []byte) (err error) {
	if len(key) == 0 {
		return errAccount
	}
	switch key[0] {
	case kindMeta:
		s.meta, err = parseMeta(value)
		s.hasMeta = true
	case kindProducer:
		var a account
		a, err = parseAccount(value)
		if _, twice := s.accounts[a.tenant]; twice && err == nil {
			err = fmt.Errorf("two producers have number %d", a.tenant)
		}
		s.accounts[a.tenant] = a
	case kindDropped:
		var t tenant
		t, err = parseDroppedKey(key)
		s.dropped[t] = true
	case kindFeed:
		var ops []op
		ops, err = parseOps(value)
		for _, o := range ops {
			s.touched[documentID(o.tenant, o.at)] = true
		}
	case kindRecord, kindIdentity, kindKey, kindType:
		err = s.takeOfTenant(key, value)
	default:
		err = errors.New("a key of no known kind")
	}
	return err
}

func (s *scan) takeOfTenant(key, value []byte) error {
	if len(key) < 5 {
		return errAccount
	}
	t := tenant(binary.BigEndian.Uint32(key[1:]))
	if s.dropped[t] {
		return nil
	}
	y := s.tenants[t]
	if y == nil {
		y = new(tally)
		s.tenants[t] = y
	}
	y.total.add(pair{key, value}.digest())
	if key[0] != kindRecord {
		return nil
	}
	_, at, err := parseRecordKey(key)
	if err != nil {
		return err
	}
	r, err := recordAt("", at, value)
	if err != nil {
		return err
	}
	y.records++
	if !r.Annulled {
		y.live++
		y.digest.add(sha256.Sum256(r.Identity()))
	}
	if id := documentID(t, at); !s.touched[id] {
		s.records++
		s.position.add(sha256.Sum256([]byte(id)))
	}
	return nil
}

// compare holds what the accounts say against what there is.
func (s *scan) compare() error {
	if !s.hasMeta {
		return errors.New("the first key is missing")
	}
	for t, a := range s.accounts {
		y := s.tenants[t]
		if y == nil {
			y = new(tally)
		}
		delete(s.tenants, t)
		if y.records != a.records || y.live != a.state.Count || y.digest != sum(a.state.Digest) || y.total != a.total {
			return fmt.Errorf("%d records (%d live) where the state after commit %d says %d (%d), or others",
				y.records, y.live, a.state.Commit, a.records, a.state.Count)
		}
		if t > s.meta.tenant {
			return fmt.Errorf("number %d was never given", t)
		}
	}
	if len(s.tenants) > 0 {
		return errors.New("records of no producer")
	}
	return nil
}

// checkWords holds the words index against the records: its own database is sound, each of its files has
// the sum it ends with, it has followed what the feed no longer names, and holds exactly those documents.
func (s *scan) checkWords(dir string) error {
	if empty(dir) {
		return errors.New("there is no index")
	}
	if err := checkBolt(filepath.Join(dir, "root.bolt")); err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.zap"))
	if err != nil {
		return err
	}
	for _, path := range segments {
		if checkSegment(path) == nil {
			continue
		}
		// A crash leaves unfinished files that the index does not know. If it knows this one, it will miss it.
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return s.compareWords(dir)
}

func (s *scan) compareWords(dir string) error {
	a, err := newItalian()
	if err != nil {
		return err
	}
	w, p, err := openWords(dir, a, true)
	if err != nil {
		return err
	}
	err = s.compareDocuments(w, p)
	return errors.Join(err, w.close())
}

func (s *scan) compareDocuments(w *words, p progress) error {
	if !p.scanned {
		return errors.New("it was not filled yet")
	}
	if p.seq > s.meta.seq {
		return errors.New("it is ahead of the records")
	}
	var n int64
	var have sum
	err := w.eachDocument(func(id string, t tenant) {
		if _, live := s.accounts[t]; !live || s.touched[id] {
			return // the former is still to be dropped, the latter to be followed
		}
		n++
		have.add(sha256.Sum256([]byte(id)))
	})
	if err == nil && (n != s.records || have != s.position) {
		err = fmt.Errorf("%d documents where %d are due, or others", n, s.records)
	}
	return err
}

// checkSegment recomputes the CRC-32 that a segment file ends with.
func checkSegment(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := crc32.NewIEEE()
	if _, err := io.CopyN(h, f, max(info.Size()-4, 0)); err != nil {
		return err
	}
	var want [4]byte
	if _, err := io.ReadFull(f, want[:]); err != nil {
		return err
	}
	if h.Sum32() != binary.BigEndian.Uint32(want[:]) {
		return fmt.Errorf("%s does not have the sum it ends with", filepath.Base(path))
	}
	return nil
}

func checkBolt(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: 2 * time.Second})
	if err != nil {
		return err
	}
	err = db.View(func(tx *bolt.Tx) error {
		var all []error
		for err := range tx.Check() {
			all = append(all, err)
		}
		return errors.Join(all...)
	})
	return errors.Join(err, db.Close())
}
