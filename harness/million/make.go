package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/signing/evidence"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
)

// installationName is what rig calls every installation.
const installationName = "prova.perenne"

// record is a line of a search bundle (docs/formats.md). The daemon believes none that is not what the entry names.
type record struct {
	Class      string `json:"class,omitempty"`
	Date       string `json:"date"`
	Files      int    `json:"files"`
	Generation int64  `json:"generation"`
	ID         string `json:"id"`
	Number     string `json:"number"`
	Register   string `json:"register"`
	Reserved   bool   `json:"reserved"`
	Salt       string `json:"salt"`
	Structure  string `json:"structure"`
	Subject    string `json:"subject"`
	Time       string `json:"time"`
	Type       string `json:"type"`
	Year       int    `json:"year"`
}

// shares cuts n packages among bodies of unequal size, the k-th a k-th as large as the first.
func shares(n, bodies int) []int {
	sum := 0.0
	for k := range bodies {
		sum += 1 / float64(k+1)
	}
	all, left := make([]int, bodies), n
	for k := bodies - 1; k > 0; k-- {
		all[k] = max(1, int(float64(n)/float64(k+1)/sum))
		left -= all[k]
	}
	all[0] = left
	return all
}

// maker writes into the bucket and the state of an installation that does not run what daemons of twenty years would
// have left there, but for the catalog and the packages themselves.
type maker struct {
	in     *rig.Installation
	store  storage.Store
	batch  int
	bodies []*body
	tsa    signing.Timestamper
	seals  *seal.Index
	rider  *ledger.Entry
}

// body is one producer in the making.
type body struct {
	code   string
	want   int
	made   int
	name   []byte // its name key
	log    *ledger.Log
	author *author
	sample []one // some of the packages, evenly

	mu      sync.Mutex
	records map[string][]byte // lines that wait for their commit, by package
}

// sealEvery is how many packages lie, about, under one seal.
const sealEvery = 20_000

// make makes the packages; done is told how many there are.
func (m *maker) make(ctx context.Context, seed uint64, done func(int)) (err error) {
	if err := m.open(ctx, seed); err != nil {
		return errors.Join(err, m.close())
	}
	defer func() { err = errors.Join(err, m.close()) }()
	total := 0
	for _, b := range m.bodies {
		total += b.want
	}
	rounds := (total-1)/sealEvery + 1
	for r := range rounds {
		g, growing := errgroup.WithContext(ctx)
		for _, b := range m.bodies {
			g.Go(func() error { return b.grow(growing, b.want*(r+1)/rounds, m.batch) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if err := m.seal(ctx); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		done(total * (r + 1) / rounds)
	}
	return m.tiled(ctx)
}

func (m *maker) open(ctx context.Context, seed uint64) error {
	s, err := dir.Open(m.in.Path("store"), dir.Options{Immutable: dir.Off})
	if err != nil {
		return err
	}
	m.store = s
	heads, err := ledger.OpenHeads(m.in.Path("state", "heads"))
	if err != nil {
		return err
	}
	if m.tsa, err = localTSA(m.in); err != nil {
		return err
	}
	never := func(context.Context, *seal.Seal) error { return errors.New("a seal that was not made here") }
	if m.seals, err = seal.OpenIndex(s, m.in.Path("state", "seals"), never); err != nil {
		return err
	}
	for i, b := range m.bodies {
		b.records, b.author = map[string][]byte{}, newAuthor(seed, uint64(i))
		if b.name, err = secret(m.in.Path("keys", "names", b.code)); err != nil {
			return err
		}
		signer, err := ledgerSigner(m.in, b.code)
		if err != nil {
			return err
		}
		b.log, err = ledger.Open(ctx, ledger.Config{
			Producer: b.code, Origin: installationName + "/" + b.code, Signer: signer, Verifiers: m.in.Trust.Ledgers, Store: s,
			Dir: m.in.Path("state", "ledger", b.code), Heads: heads, Now: time.Now, MaxEntries: m.batch + 1, AppliedTo: 0,
			Applied: func(ctx context.Context, c *ledger.Commit) error { return b.bundle(ctx, s, c) },
			Rider:   func() *ledger.Entry { return m.rider },
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) close() error {
	var errs []error
	for _, b := range m.bodies {
		if b.log != nil {
			errs = append(errs, b.log.Close())
		}
	}
	if m.seals != nil {
		errs = append(errs, m.seals.Close())
	}
	return errors.Join(errs...)
}

// grow appends packages until there are so many. Two commits' worth wait at a time, so that each commit is full.
func (b *body) grow(ctx context.Context, to, batch int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * batch)
	for ; b.made < to && ctx.Err() == nil; b.made++ {
		e, err := b.next()
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			_, err := b.log.Append(ctx, ledger.Pending{Entry: e})
			return err
		})
	}
	return g.Wait()
}

// next makes the entry of the next package and keeps its search record.
func (b *body) next() (ledger.Entry, error) {
	d, random := b.author.next(float64(b.made)/float64(b.want)), b.author.random
	digest := func() string { return hex.EncodeToString(noise(random, 32)) }
	id := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding).EncodeToString(noise(random, 20))
	salt := noise(random, 32)
	line, err := canon.Marshal(record{
		Date: d.Date, Files: 1 + random.IntN(3), ID: id, Number: d.Number, Register: d.Register, Salt: hex.EncodeToString(salt),
		Structure: policies.DefaultStructure, Subject: d.Subject, Time: d.Date + "T10:00:00Z", Type: d.Type, Year: d.Year,
	})
	if err != nil {
		return ledger.Entry{}, err
	}
	h := hmac.New(sha256.New, b.name)
	h.Write(policies.Key{Structure: policies.DefaultStructure, Register: d.Register, Year: d.Year, Number: d.Number}.Canonical())
	if b.made%50 == 0 {
		b.sample = append(b.sample, one{d, b.code, id})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records[id] = line
	return ledger.Entry{
		Type: ledger.PackageSealed, ID: id, Key: hex.EncodeToString(h.Sum(nil)), Object: b.code + "/packages/" + id[:2] + "/" + id + ".asice",
		Size: 20_000 + random.Int64N(500_000), SHA256: digest(), Record: paper.Salted(salt, line), Receipt: digest(),
	}, nil
}

// bundle puts the search records of a commit beside it, as the daemon does.
func (b *body) bundle(ctx context.Context, s storage.Store, c *ledger.Commit) error {
	var text bytes.Buffer
	b.mu.Lock()
	for _, e := range c.Entries {
		if line, ok := b.records[e.ID]; ok {
			text.Write(line)
			text.WriteByte('\n')
			delete(b.records, e.ID)
		}
	}
	b.mu.Unlock()
	if text.Len() == 0 {
		return nil
	}
	n := fmt.Sprintf("%020d", c.Number)
	return storage.Derive(ctx, s, b.code+"/catalog/"+n[:16]+"/"+n[16:]+".0", text.Bytes())
}

// seal makes a seal over everything since the last one.
func (m *maker) seal(ctx context.Context) error {
	head := m.seals.Head()
	n := &seal.Seal{Number: head.Number + 1}
	var leaves [][32]byte
	for _, b := range m.bodies {
		from, h := m.seals.End(b.code), b.log.Head()
		if h.Size <= from {
			continue
		}
		first, err := b.log.CommitOf(from)
		if err != nil {
			return err
		}
		r, own, err := seal.Collect(ctx, b.code, from, first, h.Number, func(ctx context.Context, _ string, n int64) (*ledger.Commit, error) {
			return b.log.Commit(ctx, n)
		})
		if err != nil {
			return err
		}
		n.Ranges, leaves = append(n.Ranges, r), append(leaves, own...)
	}
	if head.Number >= 0 {
		n.Previous, n.PreviousToken = head.SHA256, head.Token
		leaves = append(leaves, head.Token)
	}
	leaves = seal.Sorted(leaves)
	n.Leaves = int64(len(leaves))
	var err error
	if n.Root, err = evidence.NewTree(leaves).Root(); err != nil {
		return err
	}
	if n.Token, err = m.tsa.Timestamp(ctx, n.Root); err != nil {
		return err
	}
	object := n.Marshal()
	sum := sha256.Sum256(object)
	err = m.store.Put(ctx, seal.Key(n.Number), bytes.NewReader(object), storage.PutOptions{Size: int64(len(object)), SHA256: sum})
	if err != nil {
		return err
	}
	if err := m.seals.Add(n, object); err != nil {
		return err
	}
	h := m.seals.Head()
	m.rider = &ledger.Entry{
		Type: ledger.SealEntry, Seal: &h.Number, Root: hex.EncodeToString(h.Root[:]), Token: hex.EncodeToString(h.Token[:]),
		Object: seal.Key(h.Number), Size: h.Size, SHA256: hex.EncodeToString(h.SHA256[:]),
	}
	return m.seals.Keep(n.Number, leaves)
}

// tiled waits until every full tile lies in the bucket.
func (m *maker) tiled(ctx context.Context) error {
	for _, b := range m.bodies {
		for {
			full, err := b.log.Tiled()
			if err != nil {
				return err
			}
			if full == b.log.Head().Size/256 {
				break
			}
			if !wait(ctx, 20*time.Millisecond) {
				return ctx.Err()
			}
		}
	}
	return nil
}

// localTSA is the installation's own timestamp authority.
func localTSA(in *rig.Installation) (signing.Timestamper, error) {
	key, chain, err := signing.LoadKey(in.Path("keys", "tsa.pem"), "")
	if err != nil {
		return nil, err
	}
	responder, err := signing.NewResponder(key, chain, time.Now)
	if err != nil {
		return nil, err
	}
	tsas := []signing.TSA{{URL: "http://localhost/", Policy: signing.LocalPolicy(), Timeout: 10 * time.Second}}
	return signing.NewTimestamper(tsas, in.Trust.Certificates, signing.TimestamperOptions{Client: &http.Client{Transport: responder}, Now: time.Now})
}

// ledgerSigner is the installation's ledger key under the origin of a body.
func ledgerSigner(in *rig.Installation, code string) (note.Signer, error) {
	seed, err := secret(in.Path("keys", "ledger.key"))
	if err != nil {
		return nil, err
	}
	name := installationName + "/" + code
	vkey, err := note.NewEd25519VerifierKey(name, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	const algorithm = 1 // Ed25519
	return note.NewSigner("PRIVATE+KEY+" + name + "+" + strings.Split(vkey, "+")[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{algorithm}, seed...)))
}

func secret(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return hex.DecodeString(strings.TrimSpace(string(text)))
}

// noise is n bytes of what stands for digests.
func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 4 {
		v := r.Uint32()
		b[i], b[i+1], b[i+2], b[i+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
	}
	return b
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
