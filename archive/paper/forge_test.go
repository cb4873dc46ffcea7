package paper_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/signing/evidence"
	"github.com/marchesud/perenne/signing/signingtest"
	"github.com/marchesud/perenne/storage/storagetest"
)

var ctx = context.Background()

// noon is when everything happens that is not moved on purpose.
var noon = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)

func hexSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// exampleBody is a body that agrees with itself.
func exampleBody(t testing.TB) paper.Body {
	t.Helper()
	b := paper.Body{
		Kind: paper.KindReceipt, Statement: paper.StatementReceipt, Time: noon.Format(paper.TimeFormat),
		Installation: "prova.perenne", Producer: paper.BodyProducer{Code: "c_x901", Name: "Comune di Montesole", TaxCode: "00000000901"},
		Key:  paper.BodyKey{Structure: "unica", Register: "DETE", Year: 2026, Number: "12"},
		Type: "determina", Date: "2026-03-09", Package: "k3fexample", Generation: 1,
		Metadata: hexSum("metadata"), Files: []paper.BodyFile{
			{Path: "content/01_determina.pdf", Name: "Determina <n. 12> & allegati.pdf", Role: "main", Size: 1234, SHA256: hexSum("a"), Format: "application/pdf"},
			{Path: "content/02_perche.txt", Name: "perché.txt", Role: "attachment", Size: 0, SHA256: hexSum(""), Format: "text/plain"},
		},
		Checks:        []policies.Finding{{Field: "files[0]", Rule: "signature", Level: policies.Warning, Message: "non verificata", Remedy: "nessuno", Args: map[string]string{"n": "1"}}},
		Policy:        paper.BodyPolicy{Name: "comune", Digest: hexSum("policy")},
		Qualification: paper.Unqualified, Salt: hexSum("salt"),
	}
	b.Identifier = paper.ReceiptURN(b.Installation, b.Producer.Code, b.Package)
	var err error
	if b.Submission, err = paper.SubmissionDigest(b.Metadata, b.Files); err != nil {
		t.Fatal(err)
	}
	return b
}

// forge makes a receipt with real keys, whatever its body says: entered in a ledger at one time, stamped at another.
func forge(t testing.TB, body paper.Body, entered, stamped time.Time) (*paper.Receipt, paper.Trust) {
	t.Helper()
	kit := signingtest.NewAt(t, func() time.Time { return stamped })
	skey, vkey, err := note.GenerateKey(strings.NewReader(strings.Repeat("k", 64)), body.Installation+"/"+body.Producer.Code)
	must(t, err)
	signer, err := note.NewSigner(skey)
	must(t, err)
	verifier, err := note.NewVerifier(vkey)
	must(t, err)
	trust := paper.Trust{Certificates: kit.Trust, Ledgers: note.VerifierList(verifier)}

	dir := t.TempDir()
	heads, err := ledger.OpenHeads(filepath.Join(dir, "heads"))
	must(t, err)
	log, err := ledger.Open(ctx, ledger.Config{
		Producer: body.Producer.Code, Origin: signer.Name(), Signer: signer, Verifiers: trust.Ledgers, Store: storagetest.NewMem(t),
		Dir: filepath.Join(dir, "index"), Heads: heads, Now: func() time.Time { return entered },
		Applied: func(context.Context, *ledger.Commit) error { return nil }, AppliedTo: -1,
	})
	must(t, err)
	defer func() { must(t, log.Close()) }()
	digest, err := body.Digest()
	must(t, err)
	at, err := log.Append(ctx, ledger.Pending{Entry: ledger.Entry{
		Type: ledger.PackageSealed, ID: body.Package, Key: hexSum("key"), Generation: body.Generation,
		Object: "c_x901/packages/k3/k3fexample.asice", Size: 10, SHA256: hexSum("object"), Record: hexSum("record"), Receipt: digest,
	}})
	must(t, err)
	proof, err := log.Proof(ctx, at.Index)
	must(t, err)

	leaf := sha256.Sum256([]byte("object"))
	tree := evidence.NewTree([][32]byte{leaf, sha256.Sum256([]byte("another"))})
	root, err := tree.Root()
	must(t, err)
	token, err := kit.Timestamper.Timestamp(ctx, root)
	must(t, err)
	record, err := tree.Derive(leaf, token)
	must(t, err)
	return &paper.Receipt{Body: body, Proof: string(proof), Evidence: paper.Evidence{
		Seal: paper.Sealed, Record: base64.StdEncoding.EncodeToString(record),
		Root: hex.EncodeToString(root[:]), Time: stamped.UTC().Truncate(time.Second).Format(paper.TimeFormat),
	}}, trust
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
