package archive

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/storage/storagetest"
)

// TestRepairsAreLookedForWithinBounds reads a ledger of a few bundles in small steps: from its middle on, then before.
func TestRepairsAreLookedForWithinBounds(t *testing.T) {
	ctx := context.Background()
	const origin, producer = "prova.perenne/c_x901", "c_x901"
	secret, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	heads, err := ledger.OpenHeads(filepath.Join(t.TempDir(), "heads"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := ledger.Open(ctx, ledger.Config{
		Producer: producer, Origin: origin, Signer: signer, Verifiers: note.VerifierList(verifier), Store: storagetest.NewMem(t),
		Dir: filepath.Join(t.TempDir(), "index"), Heads: heads, Now: time.Now, AppliedTo: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	digest := strings.Repeat("5", 64)
	add := func(n int, e ledger.Entry) {
		t.Helper()
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if _, err := log.Append(ctx, ledger.Pending{Entry: e}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	hold := ledger.Entry{Type: ledger.HoldPlaced, Cause: digest}
	mended := func(key string) ledger.Entry {
		return ledger.Entry{Type: ledger.Repaired, Object: key, Size: 1, SHA256: digest}
	}
	add(300, hold)
	add(1, mended("early")) // entry 300
	add(2000, hold)
	add(1, mended("late")) // entry 2301
	add(500, hold)
	add(1, mended("tail")) // entry 2802

	var r repairs
	steps := func(from int64) (n int) {
		t.Helper()
		for err := errLedgerLong; err != nil; n++ {
			if err = r.read(ctx, log, from, 1000); err != nil && err != errLedgerLong || n > 10 {
				t.Fatal(err)
			}
		}
		return n
	}
	if n := steps(1900); n != 2 || !r.has("late") || !r.has("tail") || r.has("early") {
		t.Errorf("from 1900 in %d steps: %v %v %v", n, r.has("early"), r.has("late"), r.has("tail"))
	}
	add(1, mended("new"))
	if n := steps(1900); n != 1 || !r.has("new") {
		t.Errorf("what has come since, in %d steps: %v", n, r.has("new"))
	}
	if n := steps(310); n != 2 || !r.has("early") || !r.has("late") {
		t.Errorf("from 310, in %d steps: %v %v", n, r.has("early"), r.has("late"))
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}
