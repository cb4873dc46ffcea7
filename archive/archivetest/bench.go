// Package archivetest gives tests a whole archive of real parts: a store, a catalog on disk, local authorities,
// a timestamp authority over HTTP. Nothing in it is a mock.
package archivetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
)

// The two fictitious bodies of every test.
const (
	Installation = "prova.perenne"
	Montesole    = "c_x901"
	Colli        = "ucolli_x902"
)

// Bench is what outlives an archive: keys, folders, store. Open opens an archive on it, any number of times in
// turn.
type Bench struct {
	T     testing.TB
	Store storage.Store
	State string
	Trust paper.Trust
	// Vary changes the configuration before the archive is opened.
	Vary func(*archive.Config)
	Logs *SafeBuffer

	keys    Keys
	tsa     *authority
	signer  signing.Signer
	names   map[string][]byte
	vkeys   map[string]string
	publish [][]byte
}

// SafeBuffer is a bytes.Buffer for several goroutines.
type SafeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (s *SafeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// String is what was written so far.
func (s *SafeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// New makes keys and folders for an archive on store.
func New(t testing.TB, store storage.Store) *Bench {
	t.Helper()
	keys, tsa, err := newKeys()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tsa.server.Close)
	b := Attach(t, store, filepath.Join(t.TempDir(), "state"), keys)
	b.tsa = tsa
	return b
}

// Attach is a bench with the keys of another, on a store and a state folder of its own; the timestamp authority
// is the other's.
func Attach(t testing.TB, store storage.Store, state string, keys Keys) *Bench {
	t.Helper()
	b := &Bench{T: t, Store: store, State: state, Logs: &SafeBuffer{}, keys: keys, names: map[string][]byte{}, vkeys: map[string]string{}}
	b.must(b.use(keys))
	return b
}

func (b *Bench) must(err error) {
	b.T.Helper()
	if err != nil {
		b.T.Fatal(err)
	}
}

// Keys are what Attach needs to go on in another bench, also of another process.
func (b *Bench) Keys() Keys { return b.keys }

// StopTSA takes the timestamp authority away for good.
func (b *Bench) StopTSA() { b.tsa.server.Close() }

// TSAAway makes the timestamp authority answer nothing but errors, or brings it back.
func (b *Bench) TSAAway(away bool) { b.tsa.away.Store(away) }

// Config is the configuration Open uses, the catalog left out.
func (b *Bench) Config() archive.Config {
	tsa, err := signing.NewTimestamper([]signing.TSA{{URL: b.keys.TSA, Timeout: 5 * time.Second}}, b.Trust.Certificates, signing.TimestamperOptions{Now: time.Now})
	b.must(err)
	cfg := archive.Config{
		Installation: Installation, Program: pack.Application{Name: "Perenne", Version: "prova", Producer: "Perenne"},
		Store: b.Store, State: b.State, Signer: b.signer, Timestamper: tsa, Trust: b.Trust, Recovery: b.keys.Recovery, Published: b.publish,
		LedgerSigner: func(code string) (note.Signer, error) {
			v := bytes.Split([]byte(b.vkeys[code]), []byte("+"))
			return note.NewSigner("PRIVATE+KEY+" + string(v[0]) + "+" + string(v[1]) + "+" + signerKey(b.keys.Ledger))
		},
		VerifierKey: func(code string) (string, error) { return b.vkeys[code], nil },
		SealWait:    2 * time.Second, LockHorizon: 400 * 24 * time.Hour,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.NewTextHandler(b.Logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, p := range []struct{ code, name, tax string }{{Montesole, "Comune di Montesole", "00000000901"}, {Colli, "Unione dei Colli", "00000000902"}} {
		policy, err := policies.Builtin("comune")
		b.must(err)
		deed := []pack.RelevantDocument{{Text: "Atto di prova n. 1"}}
		body := pack.Agent{Kind: pack.Legal, TaxCode: p.tax, IPACode: p.code, FormalName: p.name, Deeds: deed}
		holder, signer := body, body
		holder.Role, signer.Role = pack.HolderProducer, "conservatore"
		cfg.Producers = append(cfg.Producers, archive.Producer{
			Code: p.code, Name: p.name, TaxCode: p.tax, Policy: policy, NameKey: b.names[p.code],
			Submitter: body, Holders: []pack.Agent{holder}, Signers: []pack.Agent{signer},
		})
	}
	return cfg
}

// Open opens an archive; Close it, or Crash it.
func (b *Bench) Open() (*archive.Archive, error) {
	b.T.Helper()
	cfg := b.Config()
	b.must(mkdir(b.State))
	cat, err := catalog.Open(context.Background(), catalog.Options{Dir: filepath.Join(b.State, "catalog"), Now: time.Now})
	b.must(err)
	cfg.Catalog = cat
	if b.Vary != nil {
		b.Vary(&cfg)
	}
	a, err := archive.Open(context.Background(), cfg)
	if err != nil {
		b.must(cat.Close())
		return nil, err
	}
	b.T.Cleanup(func() { _ = a.Close(); _ = cat.Close() })
	b.closers(a, cat)
	return a, nil
}

// MustOpen is Open for tests that expect no error.
func (b *Bench) MustOpen() *archive.Archive {
	b.T.Helper()
	a, err := b.Open()
	b.must(err)
	return a
}

var closing sync.Map // *archive.Archive → *catalog.Catalog

func (b *Bench) closers(a *archive.Archive, c *catalog.Catalog) { closing.Store(a, c) }

// Close closes an archive that MustOpen gave, and its catalog.
func (b *Bench) Close(a *archive.Archive) {
	b.T.Helper()
	b.must(a.Close())
	if c, ok := closing.LoadAndDelete(a); ok {
		b.must(c.(*catalog.Catalog).Close())
	}
}

// Doc is a document for tests.
type Doc struct {
	Register, Number, Subject, Type string
	Files                           []File
}

// File is one file of a Doc; Role is main for the first and attachment for the others when empty.
type File struct {
	Name, Role string
	Data       []byte
}

// PDF is a tiny document that the format rules take for a PDF.
func PDF(text string) []byte {
	return []byte("%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n% " + text + "\ntrailer<</Root 1 0 R>>\n%%EOF\n")
}

// Determina is an ordinary document.
func Determina(number, text string) Doc {
	return Doc{Register: "DETE", Number: number, Subject: "Affidamento lavori " + number, Type: "determina", Files: []File{{Name: "determina.pdf", Data: PDF(text)}}}
}

// Description is the document's metadata as JSON.
func (d Doc) Description() []byte {
	reserved := false
	desc := policies.Description{Register: d.Register, Year: 2026, Number: d.Number, Date: "2026-03-09", Type: d.Type, Subject: d.Subject, Reserved: &reserved}
	for i, f := range d.Files {
		role := f.Role
		if role == "" && i == 0 {
			role = policies.RoleMain
		} else if role == "" {
			role = policies.RoleAttachment
		}
		desc.Files = append(desc.Files, policies.FileDescription{Name: f.Name, Role: role, Size: int64(len(f.Data))})
	}
	text, err := json.Marshal(desc)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	return text
}

// Submission is the document on its way.
func (d Doc) Submission(producer string) archive.Submission {
	i := 0
	return archive.Submission{Producer: producer, Metadata: d.Description(), Next: func() (archive.Part, error) {
		if i == len(d.Files) {
			return archive.Part{}, io.EOF
		}
		i++
		return archive.Part{Name: d.Files[i-1].Name, Body: bytes.NewReader(d.Files[i-1].Data)}, nil
	}}
}
