package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
)

// bodies are the producers of the archive that is damaged: these two, or those of the program's installation.
var bodies = []string{archivetest.Montesole, archivetest.Colli}

// scene is the testing.TB that archivetest wants, outside of a test: what fails there ends the run.
type scene struct {
	testing.TB
	folder string

	mu    sync.Mutex
	rooms int
	ends  []func()
}

type fault struct{ text string }

func (s *scene) Helper() {}

func (s *scene) Fatal(args ...any) { panic(fault{fmt.Sprint(args...)}) }

func (s *scene) Fatalf(format string, args ...any) { panic(fault{fmt.Sprintf(format, args...)}) }

func (s *scene) Errorf(format string, args ...any) { panic(fault{fmt.Sprintf(format, args...)}) }

func (s *scene) Context() context.Context { return context.Background() }

func (s *scene) TempDir() string {
	s.mu.Lock()
	s.rooms++
	path := filepath.Join(s.folder, fmt.Sprintf("t%d", s.rooms))
	s.mu.Unlock()
	if err := os.MkdirAll(path, 0o755); err != nil {
		s.Fatal(err)
	}
	return path
}

func (s *scene) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, f)
}

// end runs what was to be done at the end, last first.
func (s *scene) end() {
	for _, f := range slices.Backward(s.ends) {
		f()
	}
	s.ends = nil
}

// caught turns the end of a scene into an error.
func caught(err *error) {
	switch p := recover().(type) {
	case nil:
	case fault:
		*err = errors.Join(*err, errors.New(p.text))
	default:
		panic(p)
	}
}

// settle fills an empty archive with objects of every kind, of each body: packages, refusals, reports, copies given
// out, and in the first ledger enough entries for full tiles. The archive is closed again.
func settle(ctx context.Context, b *archivetest.Bench, packages int) error {
	a, err := b.Open()
	if err != nil {
		return err
	}
	var first string
	for i := range packages {
		for _, p := range bodies {
			r, err := a.Submit(ctx, archivetest.Determina(fmt.Sprint(i+1), strings.Repeat("testo ", 1+i*7)).Submission(p))
			if err != nil {
				return err
			}
			first = r.Body.Package
			if i%4 != 1 {
				continue
			}
			d := archivetest.Determina(fmt.Sprint(9000+i), "testo")
			d.Type = "inesistente"
			if r, err := a.Submit(ctx, d.Submission(p)); err != nil || !r.Refused() {
				return fmt.Errorf("got %w, want a refusal", err)
			}
			c, err := a.Retrieve(ctx, archive.Request{Producer: p, ID: first, Purpose: "prova", By: "prova"})
			if err == nil {
				err = c.Close()
			}
			if err != nil {
				return err
			}
		}
	}
	for _, p := range bodies {
		for range 3 {
			out, err := a.Audit(ctx, archive.Scope{Producer: p})
			if err != nil {
				return err
			}
			_ = out.Close()
			if out.Report.Verdict != paper.VerdictGood {
				return fmt.Errorf("before any damage: %+v %q", out.Report.Findings, out.Report.NotChecked)
			}
		}
	}
	b.Close(a)
	if err := fill(ctx, b, bodies[0], 600); err != nil {
		return err
	}
	a, err = b.Open()
	if err != nil {
		return err
	}
	for _, p := range bodies {
		if _, err := a.Submit(ctx, archivetest.Determina("8000", "testo").Submission(p)); err != nil {
			return err
		}
	}
	if err := tiled(a, 2); err != nil {
		return err
	}
	b.Close(a)
	time.Sleep(1100 * time.Millisecond) // papers state whole seconds: what an audit meets must be older than it
	return nil
}

// tiled waits until so many full tiles of the first ledger lie in the bucket.
func tiled(a *archive.Archive, n int64) error {
	log, err := a.Ledger(bodies[0])
	if archive.KindOf(err) == archive.Unavailable {
		return nil // it stands still, and makes none
	}
	if err != nil {
		return err
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if full, _ := log.Tiled(); full >= n {
			return nil
		}
	}
	return errors.New("no full tile came")
}

// fill appends n entries without objects to the ledger of an archive that is closed, as another daemon would.
func fill(ctx context.Context, b *archivetest.Bench, producer string, n int) error {
	cfg := b.Config()
	signer, err := cfg.LedgerSigner(producer)
	if err != nil {
		return err
	}
	heads, err := ledger.OpenHeads(filepath.Join(b.State, "heads"))
	if err != nil {
		return err
	}
	l, err := ledger.Open(ctx, ledger.Config{
		Producer: producer, Origin: archivetest.Installation + "/" + producer, Signer: signer, Verifiers: b.Trust.Ledgers,
		Store: b.Store, Dir: filepath.Join(b.T.TempDir(), "index"), Heads: heads, Now: time.Now,
		RetainUntil: func(at time.Time) time.Time { return at.Add(cfg.LockHorizon) },
	})
	if err != nil {
		return err
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, errs[i] = l.Append(ctx, ledger.Pending{Entry: ledger.Entry{Type: ledger.HoldPlaced, Cause: strings.Repeat("5", 64)}})
		})
	}
	wg.Wait()
	return errors.Join(append(errs, l.Close())...)
}

// kinds are the kinds of objects there are, as results name them.
var kinds = []string{"package", "commit", "seal", "refusal", "report", "key", "tile", "entry bundle", "search bundle", "record"}

// kindOf tells the kind of an object of ours by its key.
func kindOf(key string) string {
	room, rest, _ := strings.Cut(key, "/")
	switch room {
	case "evidence":
		return "seal"
	case "keys":
		return "key"
	}
	switch part, rest, _ := strings.Cut(rest, "/"); part {
	case "packages":
		return "package"
	case "ledger":
		return "commit"
	case "reports":
		return "report"
	case "refusals":
		return "refusal"
	case "records":
		return "record"
	case "catalog":
		return "search bundle"
	case "tiles":
		if strings.HasPrefix(rest, "tile/entries/") {
			return "entry bundle"
		}
		return "tile"
	}
	return "foreign"
}

// owner is the body in whose room a key lies; "" for what all share.
func owner(key string) string {
	room, _, _ := strings.Cut(key, "/")
	if slices.Contains(bodies, room) {
		return room
	}
	return ""
}

// census is the objects of an archive.
type census struct {
	keys []string // in order
	of   map[string][]string
	seen map[string]bool
}

func take(ctx context.Context, s storage.Store) (*census, error) {
	c := &census{of: map[string][]string{}, seen: map[string]bool{}}
	for v, err := range s.List(ctx, "", "") {
		if err != nil {
			return nil, err
		}
		if !c.seen[v.Key] {
			c.keys = append(c.keys, v.Key)
			c.of[kindOf(v.Key)] = append(c.of[kindOf(v.Key)], v.Key)
		}
		c.seen[v.Key] = true
	}
	if n := len(c.of["foreign"]); n > 0 {
		return nil, fmt.Errorf("the archive has %d objects of no kind: %q", n, c.of["foreign"])
	}
	return c, nil
}

// whole wants an object of every kind.
func (c *census) whole() error {
	for _, k := range kinds {
		if len(c.of[k]) == 0 {
			return fmt.Errorf("the archive has no %s", k)
		}
	}
	return nil
}

// text is a value as JSON, for what is told of a failure.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
