package archive_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/storagetest"
)

const mine = archivetest.Montesole

// reportOf is the report as it lies in the bucket.
func reportOf(t testing.TB, out *archive.Audited) []byte {
	t.Helper()
	text, err := io.ReadAll(out.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// flaky is a store whose reads fail when asked to.
type flaky struct {
	*dir.Store
	fail atomic.Pointer[func(key string) bool]
}

var errLine = errors.New("connection reset")

func (s *flaky) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	if fail := s.fail.Load(); fail != nil && (*fail)(key) {
		return nil, errLine
	}
	return s.Store.Get(ctx, key, version, offset, n)
}

func (s *flaky) failing(fail func(key string) bool) { s.fail.Store(&fail) }

func newFlaky(t testing.TB) (*archivetest.Bench, *flaky, string) {
	t.Helper()
	b, root := newBench(t)
	f := newFlakyOn(t, root)
	b.Store = f
	return b, f, root
}

func newFlakyOn(t testing.TB, root string) *flaky {
	t.Helper()
	s, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	return &flaky{Store: s}
}

// other is another daemon on the same bucket.
func other(t testing.TB, b *archivetest.Bench, root string) *archivetest.Bench {
	t.Helper()
	s, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	o := archivetest.Attach(t, s, t.TempDir(), b.Keys())
	o.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
	return o
}

// TestNothingWrittenDuringAnAuditIsAFinding audits while eight writers submit, here or in another daemon that the
// auditing one hears of only through the bucket.
func TestNothingWrittenDuringAnAuditIsAFinding(t *testing.T) {
	rounds := 24
	if testing.Short() {
		rounds = 6
	}
	for _, where := range []string{"here", "elsewhere"} {
		t.Run(where, func(t *testing.T) {
			b, root := newBench(t)
			a := b.MustOpen()
			mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			writer := a
			if where == "elsewhere" {
				writer = other(t, b, root).MustOpen()
			}
			stop := make(chan struct{})
			var writers sync.WaitGroup
			for g := range 8 {
				writers.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						if _, err := writer.Submit(ctx, archivetest.Determina(fmt.Sprintf("%d-%d", g, i), "testo").Submission(mine)); err != nil {
							t.Errorf("submit: %v", err)
							return
						}
					}
				})
			}
			for range rounds {
				out := audited(t, a, mine, paper.VerdictGood)
				if out.Report.Ledger.Rollback != "none" {
					t.Errorf("rollback: got %s, want none", out.Report.Ledger.Rollback)
				}
			}
			close(stop)
			writers.Wait()
		})
	}
}

// signed is a bench whose recovery key is known, and that key.
func signed(t testing.TB) (*archivetest.Bench, ed25519.PrivateKey) {
	t.Helper()
	b, _ := newBench(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b.Vary = func(c *archive.Config) { c.Recovery = hex.EncodeToString(public) }
	return b, private
}

// anotherKey is a ledger key that the archive trusts from now on.
func anotherKey(t testing.TB, b *archivetest.Bench) (note.Signer, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, archivetest.Installation+"/"+mine)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for _, code := range []string{mine, archivetest.Colli} {
		v, err := b.Config().VerifierKey(code)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, v+"\n"...)
	}
	if b.Trust.Ledgers, err = ledger.ParseVerifiers(append(text, vkey...)); err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

// plantSigned is plant with another signer.
func plantSigned(t testing.TB, b *archivetest.Bench, signer note.Signer, entries ...ledger.Entry) {
	t.Helper()
	heads, err := ledger.OpenHeads(filepath.Join(b.State, "heads"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(ctx, ledger.Config{
		Producer: mine, Origin: archivetest.Installation + "/" + mine, Signer: signer, Verifiers: b.Trust.Ledgers,
		Store: b.Store, Dir: filepath.Join(t.TempDir(), "index"), Heads: heads, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := l.Append(ctx, ledger.Pending{Entry: e}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestALedgerKeyCountsOnlyOnceTheLedgerTookItIntoUse goes on with keys taken into use in every way.
func TestALedgerKeyCountsOnlyOnceTheLedgerTookItIntoUse(t *testing.T) {
	for name, c := range map[string]struct {
		entries func(vkey string, recovery ed25519.PrivateKey) []ledger.Entry
		good    bool
	}{
		"adopted": {func(vkey string, recovery ed25519.PrivateKey) []ledger.Entry {
			text := archive.AdoptionText(archivetest.Installation+"/"+mine, vkey, "")
			return []ledger.Entry{{Type: ledger.KeyAdded, VKey: vkey, Signature: base64.StdEncoding.EncodeToString(ed25519.Sign(recovery, text))}, holds(1)[0]}
		}, true},
		"never named": {func(string, ed25519.PrivateKey) []ledger.Entry { return holds(1) }, false},
		"unsigned": {func(vkey string, _ ed25519.PrivateKey) []ledger.Entry {
			return []ledger.Entry{{Type: ledger.KeyAdded, VKey: vkey}}
		}, false},
		"signed by a recovery key that it names itself": {func(vkey string, _ ed25519.PrivateKey) []ledger.Entry {
			public, own, _ := ed25519.GenerateKey(rand.Reader)
			text := archive.AdoptionText(archivetest.Installation+"/"+mine, vkey, "")
			return []ledger.Entry{{Type: ledger.KeyAdded, VKey: vkey, Recovery: hex.EncodeToString(public), Signature: base64.StdEncoding.EncodeToString(ed25519.Sign(own, text))}}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, recovery := signed(t)
			a := b.MustOpen()
			mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			b.Close(a)
			signer, vkey := anotherKey(t, b)
			plantSigned(t, b, signer, c.entries(vkey, recovery)...)
			vary := b.Vary
			b.Vary = func(cfg *archive.Config) {
				vary(cfg)
				cfg.Published = append(slices.Clone(cfg.Published), []byte(vkey))
				cfg.LedgerSigner = nil
			}
			// Read-only, so that nothing is written with the old key; the new one is published as its daemon would.
			sum := sha256.Sum256([]byte(vkey))
			putObject(t, b, fmt.Sprintf("keys/%x", sum), []byte(vkey))
			out, err := b.MustOpen().Audit(ctx, archive.Scope{Producer: mine})
			if err != nil {
				t.Fatal(err)
			}
			if good := out.Report.Verdict == paper.VerdictGood; good != c.good || !good && !hasKind(out, "key") {
				t.Errorf("got %s: %+v, want good %v", out.Report.Verdict, out.Report.Findings, c.good)
			}
		})
	}
}

func putObject(t testing.TB, b *archivetest.Bench, key string, data []byte) {
	t.Helper()
	o := storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)}
	if err := b.Store.Put(ctx, key, bytes.NewReader(data), o); err != nil {
		t.Fatal(err)
	}
}

func TestARecoveryKeyCountsInTheFirstEntryOnly(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	b.Close(a)
	v, err := b.Config().VerifierKey(mine)
	if err != nil {
		t.Fatal(err)
	}
	plant(t, b, mine, ledger.Entry{Type: ledger.KeyAdded, VKey: v, Recovery: strings.Repeat("a", 64)})
	if out := audited(t, b.MustOpen(), mine, paper.VerdictDamaged); !hasKind(out, "key") {
		t.Errorf("got %+v, want a finding about the key", out.Report.Findings)
	}
}

// TestTwoPackagesUnderOneClearKeyAreFound changes the name key between two submissions of one document unit: their
// HMACs differ, their keys do not.
func TestTwoPackagesUnderOneClearKeyAreFound(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	first := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	alone := mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
	b.Close(a)
	b.Vary = func(c *archive.Config) { c.Producers[0].NameKey = make([]byte, 32) }
	a = b.MustOpen()
	r := mustSubmit(t, b, a, mine, archivetest.Determina("1", "altro testo"))
	out := audited(t, a, mine, paper.VerdictDamaged)
	if n := len(out.Report.Findings); n != 1 || out.Report.Findings[0].Kind != "duplicate" || out.Report.Findings[0].ID != r.Body.Package {
		t.Errorf("got %+v, want one duplicate: %s", out.Report.Findings, r.Body.Package)
	}

	// A part asks the catalog, which has both under one key once it was made again with the key of today.
	b.Close(a)
	if err := os.RemoveAll(filepath.Join(b.State, "catalog")); err != nil {
		t.Fatal(err)
	}
	a = b.MustOpen()
	for id, verdict := range map[string]string{first.Body.Package: paper.VerdictIncomplete, r.Body.Package: paper.VerdictIncomplete, alone.Body.Package: paper.VerdictGood} {
		out, err := a.Audit(ctx, archive.Scope{Producer: mine, IDs: []string{id}})
		if err != nil || out.Report.Verdict != verdict || len(out.Report.Findings) > 0 {
			t.Errorf("package alone: got %v %+v, want %s", err, out.Report, verdict)
		}
	}
}

// undelayed is randomness, but for the four bytes that say how long a daemon waits before others: none.
type undelayed struct{}

func (undelayed) Read(b []byte) (int, error) {
	if len(b) == 4 {
		clear(b)
		return len(b), nil
	}
	return rand.Read(b)
}

// TestAStretchThatCannotBeReadIsTriedOncePerTick damages the only commit of a stretch.
func TestAStretchThatCannotBeReadIsTriedOncePerTick(t *testing.T) {
	c := &clock{}
	tick := time.Duration(0)
	b, root := newBench(t)
	b.Vary = func(cfg *archive.Config) { cfg.AuditTick, cfg.Now, cfg.Rand = tick, c.now, undelayed{} }
	a := b.MustOpen()
	if _, err := a.Audit(ctx, archive.Scope{Producer: mine, First: 0, End: 1}); err != nil {
		t.Fatal(err)
	}
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	b.Close(a)
	overwrite(t, root, ledger.Key(mine, 0), []byte("x"))
	c.advance(31 * 24 * time.Hour)
	tick = time.Hour
	a = b.MustOpen()
	count := func() int { return len(inRoom(keysIn(t, root), mine+"/reports/")) }
	eventually(t, "a report", func() bool { return count() > 1 })
	time.Sleep(500 * time.Millisecond)
	if n := count(); n > 3 {
		t.Errorf("got %d reports within one tick, want no more than there are stretches", n)
	}
	eventually(t, "the conclusion in the status", func() bool {
		h := a.Status(ctx).Producers[0]
		return h.LastVerdict == paper.VerdictDamaged && h.LastDamage > 0 && h.LastAudit != ""
	})
	b.Close(a)
	if h := b.MustOpen().Status(ctx).Producers[0]; h.LastVerdict == "" {
		t.Errorf("got no verdict after a restart, want the last one")
	}
}

// held checks a receipt as CheckAgainst does.
func held(t testing.TB, b *archivetest.Bench, r *paper.Receipt) paper.Checked {
	t.Helper()
	_, checked := r.Check(b.Trust, paper.Italian)
	if checked == nil {
		t.Fatal("the receipt does not check")
	}
	return *checked
}

func TestAReceiptOfAnotherBodyIsNotHeldAgainstALedger(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	r := mustSubmit(t, b, a, archivetest.Colli, archivetest.Determina("1", "testo"))
	_, err := a.Audit(ctx, archive.Scope{Producer: mine, Against: []paper.Checked{held(t, b, r)}})
	if archive.KindOf(err) != archive.Invalid {
		t.Errorf("got %v, want an invalid request", err)
	}
}

// TestAReceiptIsProvedWhateverTheAuditLooksAt holds receipts from all over a ledger against parts of it.
func TestAReceiptIsProvedWhateverTheAuditLooksAt(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	var papers []paper.Checked
	var ids []string
	for i := range 5 {
		r := mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(i), "testo"))
		papers, ids = append(papers, held(t, b, r)), append(ids, r.Body.Package)
	}
	second := other(t, b, root)
	s := second.MustOpen()
	papers = append(papers, held(t, second, mustSubmit(t, second, s, mine, archivetest.Determina("9", "testo"))))
	for name, scope := range map[string]archive.Scope{
		"everything": {}, "range": {First: 2, End: 4}, "budget": {End: 5, Budget: 1}, "packages": {IDs: ids[:1]},
	} {
		scope.Producer, scope.Against = mine, papers
		out, err := a.Audit(ctx, scope)
		if err != nil {
			t.Fatal(err)
		}
		if out.Report.Verdict != paper.VerdictGood {
			t.Errorf("%s: got %s: %+v %q", name, out.Report.Verdict, out.Report.Findings, out.Report.NotChecked)
		}
		wrong := papers[1]
		wrong.Root[0] ^= 1
		beyond := papers[0]
		beyond.Size = 1 << 20
		for _, c := range []paper.Checked{wrong, beyond} {
			scope.Against = []paper.Checked{c}
			if out, err = a.Audit(ctx, scope); err != nil || !hasKind(out, "rollback") {
				t.Errorf("%s: size %d: got %v %+v, want a rollback", name, c.Size, err, out.Report.Findings)
			}
		}
	}
}

// TestAStoreThatDoesNotAnswerIsNoDamage lets the reads of each room fail, once and for good.
func TestAStoreThatDoesNotAnswerIsNoDamage(t *testing.T) {
	for _, room := range []string{mine + "/packages/", mine + "/reports/", mine + "/catalog/", "evidence/", "keys/"} {
		t.Run(room, func(t *testing.T) {
			t.Parallel()
			b, store, root := newFlaky(t)
			a := b.MustOpen()
			r := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			orphan := reportOf(t, audited(t, a, mine, paper.VerdictGood))
			overwrite(t, root, mine+"/reports/2020/"+r.Body.Package+".asice", orphan) // to be judged by its content
			overwrite(t, root, mine+"/packages/aa/"+strings.Repeat("a", 32)+".asice", orphan)
			store.failing(func(key string) bool { return strings.HasPrefix(key, room) })
			out, err := a.Audit(ctx, archive.Scope{Producer: mine})
			store.failing(func(string) bool { return false })
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range out.Report.Findings {
				if strings.HasPrefix(f.Object, room) {
					t.Errorf("accused: %+v", f)
				}
			}
			if !slices.ContainsFunc(out.Report.NotChecked, func(s string) bool { return strings.Contains(s, room) }) {
				t.Errorf("got not checked %q, want what lies under %s", out.Report.NotChecked, room)
			}
		})
	}
}

func TestAReadThatFailsOnceIsDoneAgain(t *testing.T) {
	b, store, _ := newFlaky(t)
	a := b.MustOpen()
	for i := range 3 {
		mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(i), "testo"))
	}
	var seen sync.Map
	store.failing(func(key string) bool {
		_, before := seen.LoadOrStore(key, true)
		return !before && !strings.Contains(key, "/ledger/")
	})
	audited(t, a, mine, paper.VerdictGood)
}

// TestOnlyExactKeysAreOurs puts sound objects under keys that the design does not know.
func TestOnlyExactKeysAreOurs(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	r := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	refused, err := a.Submit(ctx, faulty("2").Submission(mine))
	if err != nil || !refused.Refused() {
		t.Fatalf("got %v, want a refusal", err)
	}
	rep := reportOf(t, audited(t, a, mine, paper.VerdictGood))
	id := r.Body.Package
	refusal := inRoom(keysIn(t, root), mine+"/refusals/")[0]
	whole := bytesOf(t, root, keyAt(id, ""))
	tile := mine + "/tiles/tile/0/000.p/1"
	want := map[string][]byte{
		keyAt(id, "-anything"): whole, keyAt(id, ".4"): whole, mine + "/packages/zz/" + id + ".asice": whole,
		mine + "/reports/1999/whatever/x": rep, mine + "/reports/1999/" + id + ".asice": rep,
		mine + "/refusals/1999/" + filepath.Base(refusal): bytesOf(t, root, refusal),
		mine + "/records/malware.exe":                     []byte("MZ"), mine + "/records/2026/x": {}, tile: make([]byte, 32),
		mine + "/catalog/0000000000000000/0001.1": {},
	}
	var keys []string
	for key, data := range want {
		overwrite(t, root, key, data)
		keys = append(keys, key)
	}
	names(t, audited(t, a, mine, paper.VerdictDamaged), keys)
}

func keyAt(id, suffix string) string {
	return mine + "/packages/" + id[:2] + "/" + id + suffix + ".asice"
}

func TestASecondPlaceOfAPackageIsAnOrphan(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	r := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	time.Sleep(1100 * time.Millisecond) // bodies state whole seconds
	overwrite(t, root, keyAt(r.Body.Package, ".2"), bytesOf(t, root, keyAt(r.Body.Package, "")))
	out := audited(t, a, mine, paper.VerdictGood)
	if len(out.Report.Findings) != 1 || out.Report.Findings[0].Kind != "orphan" {
		t.Errorf("got %+v, want one orphan", out.Report.Findings)
	}
}

func TestARoomOfNobodyIsNamedOnce(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	for i := range 50 {
		overwrite(t, root, fmt.Sprintf("c_z999/packages/aa/%d", i), []byte("x"))
	}
	if out := audited(t, a, mine, paper.VerdictDamaged); len(out.Report.Findings) != 1 {
		t.Errorf("got %d findings, want one", len(out.Report.Findings))
	}
}

// TestWhatExaminationsOfTheStoreLeaveIsNoFinding, and what hides among it is one.
func TestWhatExaminationsOfTheStoreLeaveIsNoFinding(t *testing.T) {
	m := storagetest.NewMem(t)
	m.Lenient = true
	b := archivetest.New(t, m)
	a := b.MustOpen()
	m.Plant("doctor/20261125t120000z-aaaaaaaa/lock/a", []byte("x"))
	m.Plant("doctor/20261125t120000z-aaaaaaaa/lock/a", []byte("y"))
	m.Marker("doctor/20261125t120000z-aaaaaaaa/marker-read/a")
	audited(t, a, mine, paper.VerdictGood)
	for _, key := range []string{"doctor/20261125t120000z-aaaaaaaa/Letter.pdf", "doctor/letters/a", "doctor"} {
		m.Plant(key, []byte("x"))
	}
	out := audited(t, a, mine, paper.VerdictDamaged)
	if len(out.Report.Findings) != 3 {
		t.Errorf("got %+v, want the three that no examination makes", out.Report.Findings)
	}
}

// TestAReportNamesNothingOfAnotherBody damages a commit of one body that a seal shared with another covers. With the
// leaves of the seal at hand the other loses nothing by it.
func TestAReportNamesNothingOfAnotherBody(t *testing.T) {
	for _, c := range []struct {
		leaves bool
		want   string
	}{{true, paper.VerdictGood}, {false, paper.VerdictIncomplete}} {
		t.Run(fmt.Sprintf("leaves kept %v", c.leaves), func(t *testing.T) {
			b, root := newBench(t)
			b.Vary = func(c *archive.Config) { c.SealEvery = time.Hour }
			a := b.MustOpen()
			for _, p := range []string{mine, archivetest.Colli} {
				if _, err := a.Submit(ctx, archivetest.Determina("1", "testo").Submission(p)); err != nil {
					t.Fatal(err)
				}
			}
			b.Close(a) // seals both
			overwrite(t, root, ledger.Key(archivetest.Colli, 1), []byte("x"))
			if !c.leaves {
				if err := os.RemoveAll(filepath.Join(b.State, "leaves")); err != nil {
					t.Fatal(err)
				}
			}
			out := audited(t, b.MustOpen(), mine, c.want)
			if text := string(out.Report.Text(paper.Italian)); strings.Contains(text, archivetest.Colli) {
				t.Errorf("the other body is named:\n%s", text)
			}
		})
	}
}

func TestAPackageAskedForTwiceIsAskedForOnce(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	id := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo")).Body.Package
	out, err := a.Audit(ctx, archive.Scope{Producer: mine, IDs: []string{id, id}})
	if err != nil || out.Report.Verdict != paper.VerdictGood || len(out.Report.Selection.IDs) != 1 {
		t.Errorf("got %v %+v, want good", err, out.Report)
	}
	out, err = a.Audit(ctx, archive.Scope{Producer: mine, IDs: []string{id, strings.Repeat("a", 32)}})
	if err != nil || out.Report.Verdict != paper.VerdictIncomplete {
		t.Errorf("got %v %+v, want incomplete", err, out.Report)
	}
}

// TestALookAtOnePackageReadsItsCommitAlone: damage elsewhere is another audit's. Where the catalog does not know a package the
// whole ledger is walked, and then it is found.
func TestALookAtOnePackageReadsItsCommitAlone(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	var ids []string
	for i := range 3 {
		ids = append(ids, mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(i), "testo")).Body.Package)
	}
	overwrite(t, root, ledger.Key(mine, 0), []byte("x"))
	for _, c := range []struct {
		ids     []string
		commits int64
		want    string
	}{
		{ids[2:], 1, paper.VerdictGood},
		{ids[1:], 2, paper.VerdictGood},
		{append([]string{strings.Repeat("a", 32)}, ids[2]), 0, paper.VerdictDamaged},
	} {
		out, err := a.Audit(ctx, archive.Scope{Producer: mine, IDs: c.ids})
		if err != nil {
			t.Fatal(err)
		}
		if out.Report.Verdict != c.want || c.commits > 0 && out.Report.Ledger.Commits != c.commits {
			t.Errorf("%d packages: got %s over %d commits, want %s over %d", len(c.ids), out.Report.Verdict, out.Report.Ledger.Commits, c.want, c.commits)
		}
	}
}

// TestEntriesThatContradictEachOtherAreFound plants entries that cannot be true beside those that are there.
func TestEntriesThatContradictEachOtherAreFound(t *testing.T) {
	digest := strings.Repeat("5", 64)
	for name, make := range map[string]func(named int64) ledger.Entry{
		"another seal under a number": func(named int64) ledger.Entry {
			return ledger.Entry{Type: ledger.SealEntry, Seal: &named, Root: digest, Token: digest, Object: seal.Key(named), Size: 1, SHA256: digest}
		},
		"an annulment of nothing": func(int64) ledger.Entry {
			return ledger.Entry{Type: ledger.PackageAnnulled, ID: strings.Repeat("a", 32), Key: digest, Cause: digest}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := newBench(t)
			a := b.MustOpen()
			for i := range 3 {
				mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(i), "testo"))
			}
			b.Close(a)
			named := int64(-1)
			for _, e := range entries(t, b, mine) {
				if e.Type == ledger.SealEntry {
					named = *e.Seal
				}
			}
			plant(t, b, mine, make(named))
			if out := audited(t, b.MustOpen(), mine, paper.VerdictDamaged); !hasKind(out, "contradiction") {
				t.Errorf("got %+v, want a contradiction", out.Report.Findings)
			}
		})
	}
}

// TestAKeyOfTheLedgerThatIsGoneIsMissed deletes the verifier key that the first entry names.
func TestAKeyOfTheLedgerThatIsGoneIsMissed(t *testing.T) {
	b, root := newBench(t)
	b.Close(b.MustOpen())
	v, err := b.Config().VerifierKey(mine)
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("keys/%x", sha256.Sum256([]byte(v)))
	overwrite(t, root, key, nil)
	b.Vary = func(c *archive.Config) { c.LedgerSigner = nil }
	names(t, audited(t, b.MustOpen(), mine, paper.VerdictDamaged), []string{key})
}

func TestVersionsUnderKeysAreNamedOnce(t *testing.T) {
	m := storagetest.NewMem(t)
	m.Lenient = true
	b := archivetest.New(t, m)
	a := b.MustOpen()
	key := inRoom(m.Keys(), "keys/")[0]
	m.Plant(key, []byte("altro"))
	out := audited(t, a, mine, paper.VerdictDamaged)
	if !hasKind(out, "versions") {
		t.Errorf("got %+v, want versions", out.Report.Findings)
	}
}

// TestWhatIsBeyondTheListOfFindingsIsCounted plants more than a report lists.
func TestWhatIsBeyondTheListOfFindingsIsCounted(t *testing.T) {
	if testing.Short() {
		t.Skip("works through ten thousand files; left out by -short")
	}
	b, root := newBench(t)
	a := b.MustOpen()
	if err := os.MkdirAll(filepath.Join(root, mine, "note"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 10_005 {
		if err := os.WriteFile(filepath.Join(root, mine, "note", fmt.Sprint(i)), nil, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	list := audited(t, a, mine, paper.VerdictDamaged).Report.Findings
	if last := list[len(list)-1]; len(list) != 10_001 || last.Kind != "more" || last.Gravity != paper.Damage || !strings.Contains(last.Text, " 5 ") {
		t.Errorf("got %d findings, the last %+v, want 10,000 and five more counted", len(list), last)
	}
}
