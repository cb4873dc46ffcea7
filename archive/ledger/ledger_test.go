package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	producer = "c_x901"
	origin   = "prova.example/c_x901"
)

// keys returns a signer of the ledger and its verifier. Each seed gives another pair.
func keys(t testing.TB, seed uint64) (note.Signer, note.Verifier) {
	t.Helper()
	var s [32]byte
	rand.NewChaCha8([32]byte{byte(seed)}).Read(s[:])
	skey, vkey, err := note.GenerateKey(fixed(s), origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

// noteKey returns a key pair of another name, in text.
func noteKey(name string) (skey, vkey string, err error) {
	return note.GenerateKey(fixed{1, 2, 3}, name)
}

// fixed is a source of randomness that is none.
type fixed [32]byte

func (f fixed) Read(p []byte) (int, error) { return copy(p, f[:]), nil }

// daemon is a machine with a ledger: its state directory survives reopening.
type daemon struct {
	t      testing.TB
	store  *bucket
	state  string
	signer note.Signer
	known  note.Verifiers
	change func(*Config)

	mu      sync.Mutex
	applied []*Commit
}

func newDaemon(t testing.TB, store *bucket) *daemon {
	signer, verifier := keys(t, 1)
	return &daemon{t: t, store: store, state: t.TempDir(), signer: signer, known: note.VerifierList(verifier)}
}

// last is the number of the last commit applied.
func (d *daemon) last() int64 {
	if len(d.applied) == 0 {
		return -1
	}
	return d.applied[len(d.applied)-1].Number
}

func (d *daemon) config() Config {
	d.t.Helper()
	heads, err := OpenHeads(filepath.Join(d.state, "heads"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	cfg := Config{
		Producer: producer, Origin: origin, Signer: d.signer, Verifiers: d.known, Store: d.store,
		Dir: filepath.Join(d.state, "index"), Heads: heads, Now: time.Now, AppliedTo: d.last(),
		Applied: func(_ context.Context, c *Commit) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if c.Void || c.Number-c.voids() != d.last()+1 {
				d.t.Errorf("commit %d applied after commit %d", c.Number, d.last())
			}
			d.applied = append(d.applied, c)
			return nil
		},
	}
	if d.change != nil {
		d.change(&cfg)
	}
	return cfg
}

func (d *daemon) open() (*Log, error) {
	l, err := Open(context.Background(), d.config())
	if err == nil {
		d.t.Cleanup(func() { l.Close() })
	}
	return l, err
}

func (d *daemon) mustOpen() *Log {
	d.t.Helper()
	l, err := d.open()
	if err != nil {
		d.t.Fatal(err)
	}
	return l
}

// forget removes the local index.
func (d *daemon) forget() {
	if err := os.RemoveAll(filepath.Join(d.state, "index")); err != nil {
		d.t.Fatal(err)
	}
}

// ids returns the identifiers of all entries applied.
func (d *daemon) ids() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []string
	for _, c := range d.applied {
		for _, e := range c.Entries {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// digest returns the hex SHA-256 of what is printed.
func digest(args ...any) string {
	s := sha256.Sum256([]byte(fmt.Sprint(args...)))
	return hex.EncodeToString(s[:])
}

// sealed returns the entry of a made-up package.
func sealed(name string) Entry {
	return Entry{
		Type: PackageSealed, ID: name, Key: digest("key", name), Object: producer + "/packages/aa/" + name + ".asice",
		Size: 4711, SHA256: digest("object", name), Record: digest("record", name), Receipt: digest("receipt", name),
	}
}

// mustAppend appends the entries one after the other, each in a commit of its own.
func mustAppend(t testing.TB, l *Log, names ...string) []Committed {
	t.Helper()
	var done []Committed
	for _, name := range names {
		c, err := l.Append(context.Background(), Pending{Entry: sealed(name)})
		if err != nil {
			t.Fatalf("append %s: %v", name, err)
		}
		done = append(done, c)
	}
	return done
}

// together appends the entries at once and waits for all.
func together(t testing.TB, l *Log, names ...string) []Committed {
	t.Helper()
	done := make([]Committed, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			var err error
			if done[i], err = l.Append(context.Background(), Pending{Entry: sealed(name)}); err != nil {
				t.Errorf("append %s: %v", name, err)
			}
		})
	}
	wg.Wait()
	return done
}

// names returns n different names.
func names(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return list
}
