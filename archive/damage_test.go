package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/storagetest"
)

// settled is a closed archive on the embedded store with an object of every class: packages of two producers, a
// refusal, reports, a copy given out, seals, keys, and enough entries in one ledger for tiles.
type settled struct {
	keys        archivetest.Keys
	root, state string
	objects     []string // every key, in order
	packages    []string // IDs of Montesole's, in order of acceptance
	docs        []archivetest.Doc
}

// settle builds one. Two of them with different keys hold the same documents under the same identifiers.
func settle(t testing.TB) *settled {
	t.Helper()
	b, root := newBench(t)
	s := &settled{keys: b.Keys(), root: root, state: b.State}
	a := b.MustOpen()
	for i := range 6 {
		s.accept(t, b, a, archivetest.Determina(fmt.Sprint(i+1), "testo"))
		mustSubmit(t, b, a, archivetest.Colli, archivetest.Determina(fmt.Sprint(i+1), "testo"))
	}
	refused, err := a.Submit(ctx, faulty("90").Submission(archivetest.Montesole))
	if err != nil || !refused.Refused() {
		t.Fatalf("got %v, want a refusal", err)
	}
	c, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: s.packages[0], Purpose: "prova", By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
	mustAudit(t, a, archivetest.Colli, paper.VerdictGood)
	b.Close(a)
	plant(t, b, archivetest.Montesole, holds(270)...)
	a = b.MustOpen()
	s.accept(t, b, a, archivetest.Determina("20", "testo"))
	waitTiled(t, a)
	mustAudit(t, a, archivetest.Montesole, paper.VerdictGood)
	s.accept(t, b, a, archivetest.Determina("21", "testo"))
	b.Close(a)
	s.objects = keysIn(t, root)
	return s
}

func (s *settled) accept(t testing.TB, b *archivetest.Bench, a *archive.Archive, d archivetest.Doc) {
	t.Helper()
	s.packages = append(s.packages, mustSubmit(t, b, a, archivetest.Montesole, d).Body.Package)
	s.docs = append(s.docs, d)
}

// faulty is a document that the policy refuses: its type is none.
func faulty(number string) archivetest.Doc {
	d := archivetest.Determina(number, "testo")
	d.Type = "inesistente"
	return d
}

// holds are entries without objects, which fill a ledger at no cost.
func holds(n int) []ledger.Entry {
	list := make([]ledger.Entry, n)
	for i := range list {
		list[i] = ledger.Entry{Type: ledger.HoldPlaced, Cause: strings.Repeat("5", 64)}
	}
	return list
}

// plant appends entries to a ledger whose archive is closed, as another daemon would.
func plant(t testing.TB, b *archivetest.Bench, producer string, entries ...ledger.Entry) {
	t.Helper()
	cfg := b.Config()
	signer, err := cfg.LedgerSigner(producer)
	if err != nil {
		t.Fatal(err)
	}
	heads, err := ledger.OpenHeads(filepath.Join(b.State, "heads"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(ctx, ledger.Config{
		Producer: producer, Origin: archivetest.Installation + "/" + producer, Signer: signer, Verifiers: b.Trust.Ledgers,
		Store: b.Store, Dir: filepath.Join(t.TempDir(), "index"), Heads: heads, Now: time.Now,
		RetainUntil: func(at time.Time) time.Time { return at.Add(24 * time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, e := range entries {
		wg.Go(func() {
			if _, err := l.Append(ctx, ledger.Pending{Entry: e}); err != nil {
				t.Errorf("plant: %v", err)
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// waitTiled waits until the first full tile lies in the bucket.
func waitTiled(t testing.TB, a *archive.Archive) {
	t.Helper()
	log, err := a.Ledger(archivetest.Montesole)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a full tile", func() bool { full, _ := log.Tiled(); return full > 0 })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// keysIn lists the objects of a store's folder.
func keysIn(t testing.TB, root string) []string {
	t.Helper()
	s, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var keys []string
	for v, err := range s.List(ctx, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, v.Key)
	}
	return keys
}

// copyOf is a bench on a copy of everything, whose objects are hard links until somebody writes to one.
func (s *settled) copyOf(t testing.TB) (*archivetest.Bench, string) {
	t.Helper()
	folder := t.TempDir()
	root, state := filepath.Join(folder, "store"), filepath.Join(folder, "state")
	copyTree(t, s.root, root, os.Link)
	copyTree(t, s.state, state, copyFile)
	store, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	return archivetest.Attach(t, store, state, s.keys), root
}

func copyTree(t testing.TB, from, to string, file func(from, to string) error) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return file(path, filepath.Join(to, rel))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// overwrite gives key other bytes behind the store's back; nil bytes delete it.
func overwrite(t testing.TB, root, key string, data []byte) {
	t.Helper()
	path := filepath.Join(root, key)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if data == nil {
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o444); err != nil {
		t.Fatal(err)
	}
}

func bytesOf(t testing.TB, root, key string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, key))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hurt is one way to damage an object. It returns what it touched.
type hurt struct {
	name string
	do   func(t testing.TB, root, key, sibling string, twin []byte) []string
}

func flipped(at func(size int) int, bit int) func(testing.TB, string, string, string, []byte) []string {
	return func(t testing.TB, root, key, _ string, _ []byte) []string {
		b := bytesOf(t, root, key)
		b[at(len(b))] ^= 1 << bit
		overwrite(t, root, key, b)
		return []string{key}
	}
}

func changed(change func(b, twin []byte) []byte) func(testing.TB, string, string, string, []byte) []string {
	return func(t testing.TB, root, key, _ string, twin []byte) []string {
		overwrite(t, root, key, change(bytesOf(t, root, key), twin))
		return []string{key}
	}
}

func hurts() []hurt {
	return []hurt{
		{"flip first", flipped(func(int) int { return 0 }, 0)},
		{"flip quarter", flipped(func(n int) int { return n / 4 }, 3)},
		{"flip middle", flipped(func(n int) int { return n / 2 }, 5)},
		{"flip last", flipped(func(n int) int { return n - 1 }, 1)},
		{"truncate", changed(func(b, _ []byte) []byte { return b[:len(b)/2] })},
		{"empty", changed(func([]byte, []byte) []byte { return []byte{} })},
		{"append", changed(func(b, _ []byte) []byte { return append(b, '\n') })},
		{"delete", changed(func([]byte, []byte) []byte { return nil })},
		{"replace", changed(func([]byte, []byte) []byte { return []byte("tutt'altro\n") })},
		{"re-sign", changed(func(_, twin []byte) []byte { return twin })},
		{"swap", func(t testing.TB, root, key, sibling string, _ []byte) []string {
			a, b := bytesOf(t, root, key), bytesOf(t, root, sibling)
			overwrite(t, root, key, b)
			overwrite(t, root, sibling, a)
			return []string{key, sibling}
		}},
		{"add", func(t testing.TB, root, key, _ string, twin []byte) []string {
			foreign := key + "x"
			overwrite(t, root, foreign, twin)
			return []string{foreign}
		}},
	}
}

// victims are keys of every class: the key, a sibling to swap it with, the same object of another installation.
type victim struct {
	class, key, sibling string
	twin                []byte
	derived             bool // an open ledger may make it again before anybody looks
}

func victims(t testing.TB, s, twin *settled) []victim {
	t.Helper()
	var list []victim
	add := func(class, room string, derived bool, pick ...int) {
		mine, theirs := inRoom(s.objects, room), inRoom(twin.objects, room)
		if len(mine) == 0 || len(theirs) == 0 {
			t.Fatalf("no object of class %s", class)
		}
		for _, i := range pick {
			i = (i + len(mine)) % len(mine)
			v := victim{class: fmt.Sprintf("%s %d", class, i), key: mine[i], sibling: mine[(i+1)%len(mine)], derived: derived}
			v.twin = bytesOf(t, twin.root, theirs[i%len(theirs)])
			if slices.Contains(twin.objects, v.key) && class != "key" {
				v.twin = bytesOf(t, twin.root, v.key)
			}
			if len(mine) == 1 {
				v.sibling = ""
			}
			list = append(list, v)
		}
	}
	m := archivetest.Montesole
	add("package", m+"/packages/", false, 0, -1)
	add("commit", m+"/ledger/", false, 0, 5, -1)
	add("tile", m+"/tiles/tile/0/", true, 0)
	add("entry bundle", m+"/tiles/tile/entries/", true, 0)
	add("search bundle", m+"/catalog/", false, 0)
	add("report", m+"/reports/", false, 0)
	add("refusal", m+"/refusals/", false, 0)
	add("seal", "evidence/", false, 0, 4, -1)
	add("key", "keys/", false, 0)
	return list
}

func inRoom(keys []string, prefix string) []string {
	var list []string
	for _, k := range keys {
		if strings.HasPrefix(k, prefix) {
			list = append(list, k)
		}
	}
	return list
}

func TestEveryDamageIsFoundAndNamedExactly(t *testing.T) {
	s, twin := settle(t), settle(t)
	for _, v := range victims(t, s, twin) {
		for i, h := range hurts() {
			if h.name == "swap" && v.sibling == "" || testing.Short() && i%4 != 0 && i < 8 {
				continue
			}
			t.Run(v.class+"/"+h.name, func(t *testing.T) {
				t.Parallel()
				b, root := s.copyOf(t)
				var a *archive.Archive
				if v.derived { // an opening ledger makes them again: the daemon runs when they are hurt
					a = b.MustOpen()
					waitTiled(t, a)
				}
				touched := h.do(t, root, v.key, v.sibling, v.twin)
				if a == nil {
					a = b.MustOpen()
				}
				out := audited(t, a, archivetest.Montesole, paper.VerdictDamaged)
				names(t, out, touched)
				if !strings.HasPrefix(v.key, archivetest.Montesole) || strings.HasPrefix(v.class, "commit") {
					out, err := a.Audit(ctx, archive.Scope{Producer: archivetest.Colli})
					if err != nil {
						t.Fatal(err)
					}
					accusesOnly(t, out, touched)
				}
				b.Close(a)
			})
		}
	}
}

// audited is mustAudit, with the findings in the message.
func audited(t testing.TB, a *archive.Archive, producer, verdict string) *archive.Audited {
	t.Helper()
	out, err := a.Audit(ctx, archive.Scope{Producer: producer})
	if err != nil {
		t.Fatal(err)
	}
	if out.Report.Verdict != verdict {
		t.Errorf("verdict: got %s, want %s; findings %+v; not checked %q", out.Report.Verdict, verdict, out.Report.Findings, out.Report.NotChecked)
	}
	return out
}

// names wants a finding of damage for each key touched, and none for another.
func names(t testing.TB, out *archive.Audited, touched []string) {
	t.Helper()
	for _, key := range touched {
		if !slices.ContainsFunc(out.Report.Findings, func(f paper.ReportFinding) bool { return f.Gravity == paper.Damage && f.Object == key }) {
			t.Errorf("%s was hurt and is not named: %+v", key, out.Report.Findings)
		}
	}
	accusesOnly(t, out, touched)
}

// accusesOnly wants no damage found in what was not touched. A ledger as a whole is touched with its commits.
func accusesOnly(t testing.TB, out *archive.Audited, touched []string) {
	t.Helper()
	for _, f := range out.Report.Findings {
		hit := slices.ContainsFunc(touched, func(key string) bool {
			return key == f.Object || f.Kind == "rollback" && strings.HasPrefix(key, f.Object+"/")
		})
		if f.Gravity == paper.Damage && !hit {
			t.Errorf("accused, but not touched: %+v", f)
		}
	}
}

func TestWithoutDamageNothingIsAccused(t *testing.T) {
	s := settle(t)
	b, _ := s.copyOf(t)
	a := b.MustOpen()
	for _, p := range []string{archivetest.Montesole, archivetest.Colli} {
		out := audited(t, a, p, paper.VerdictGood)
		if len(out.Report.Findings) > 0 {
			t.Errorf("%s: got findings %+v, want none", p, out.Report.Findings)
		}
	}
}

// TestForeignObjectsAreNamedWhereverTheyLie plants objects that nobody asked for.
func TestForeignObjectsAreNamedWhereverTheyLie(t *testing.T) {
	s := settle(t)
	m := archivetest.Montesole
	for _, key := range []string{
		"letto", "altro/cosa", "zeta/ledger/0000000000000000/0000", m + "0/packages/aa/b", m + "/letto", m + "/note/a", m + "/packages/aa/letto.asice",
		m + "/ledger/letto", m + "/ledger/0000000000000000/0999", m + "/tiles/tile/0/001", m + "/tiles/letto", m + "/catalog/0000000000000000/0999.0",
		m + "/reports/2026/letto.asice", m + "/refusals/2026/letto", "evidence/letto", "evidence/0000000000000000/0099",
		"evidence/" + nextSeal(s), "keys/letto", "keys/" + strings.Repeat("a", 64),
	} {
		t.Run(strings.ReplaceAll(key, "/", "_"), func(t *testing.T) {
			t.Parallel()
			b, root := s.copyOf(t)
			a := b.MustOpen() // planted under an open archive: some would be met, and the producer stopped, by an opening one
			overwrite(t, root, key, []byte("non richiesto\n"))
			names(t, audited(t, a, m, paper.VerdictDamaged), []string{key})
		})
	}
}

// TestAnEntryThatIsNoObjectIsNamed plants what a listing shows and no read opens, and names that no store reads.
func TestAnEntryThatIsNoObjectIsNamed(t *testing.T) {
	s := settle(t)
	m := archivetest.Montesole
	valid := strings.Repeat("a", 32)
	link := func(path string) error { return os.Symlink("/nonexistent", path) }
	pipe := func(path string) error { return syscall.Mkfifo(path, 0o644) }
	write := func(path string) error { return os.WriteFile(path, []byte("x"), 0o444) }
	for name, c := range map[string]struct {
		key  string
		make func(path string) error
	}{
		"link in a tile's place":          {m + "/tiles/tile/0/000", link},
		"pipe in an entry bundle's place": {m + "/tiles/tile/entries/000", pipe},
		"link under a package's name":     {m + "/packages/aa/" + valid + ".asice", link},
		"link among the reports":          {m + "/reports/2026/" + valid + ".asice", link},
		"pipe among the refusals":         {m + "/refusals/2026/" + valid, pipe},
		"link among the keys":             {"keys/" + strings.Repeat("a", 64), link},
		"space in a report's name":        {m + "/reports/2026/copia di un rapporto", write},
		"dot before a refusal's name":     {m + "/refusals/2026/.x", write},
		"dot before a key's name":         {"keys/." + valid, write},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, root := s.copyOf(t)
			a := b.MustOpen()
			waitTiled(t, a)
			overwrite(t, root, c.key, nil)
			path := filepath.Join(root, c.key)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), c.make(path)); err != nil {
				t.Fatal(err)
			}
			names(t, audited(t, a, m, paper.VerdictDamaged), []string{c.key})
		})
	}
}

// TestAForeignObjectFarBehindTheLastCommitIsNoGap opens an archive on a ledger behind whose end something lies: its
// producer stands still, and the commits between were never there.
func TestAForeignObjectFarBehindTheLastCommitIsNoGap(t *testing.T) {
	s := settle(t)
	b, root := s.copyOf(t)
	key := ledger.Key(archivetest.Montesole, 999)
	overwrite(t, root, key, bytesOf(t, root, ledger.Key(archivetest.Montesole, 3)))
	names(t, audited(t, b.MustOpen(), archivetest.Montesole, paper.VerdictDamaged), []string{key})
}

// nextSeal is what follows evidence/ in the key of the first seal there is not.
func nextSeal(s *settled) string {
	return fmt.Sprintf("0000000000000000/%04d", len(inRoom(s.objects, "evidence/")))
}

func TestABucketFullOfForeignObjectsIsNoReasonToStopAnAudit(t *testing.T) {
	s := settle(t)
	b, root := s.copyOf(t)
	var touched []string
	for i := range 20 {
		touched = append(touched, fmt.Sprintf("estranei%d", i), fmt.Sprintf("e%d/f", i))
	}
	touched = append(touched, "keys/grande")
	for _, key := range touched {
		overwrite(t, root, key, bytes.Repeat([]byte("x"), 2<<20))
	}
	names(t, audited(t, b.MustOpen(), archivetest.Montesole, paper.VerdictDamaged), touched)
}

// TestVersionsAndDeleteMarkersAreNamed damages as only a store with versions lets itself be damaged.
func TestVersionsAndDeleteMarkersAreNamed(t *testing.T) {
	for _, room := range []string{archivetest.Montesole + "/packages/", archivetest.Montesole + "/ledger/", archivetest.Montesole + "/catalog/", "evidence/", "keys/"} {
		for name, do := range map[string]func(*storagetest.Mem, string){
			"delete marker": func(m *storagetest.Mem, key string) { m.Marker(key) },
			"version":       func(m *storagetest.Mem, key string) { m.Plant(key, []byte("altro")) },
			"flip":          func(m *storagetest.Mem, key string) { m.Flip(key, 77) },
		} {
			t.Run(room+"/"+name, func(t *testing.T) {
				t.Parallel()
				m := storagetest.NewMem(t)
				m.Lenient = true // what was damaged is made again under the same key
				b := archivetest.New(t, m)
				a := b.MustOpen()
				for i := range 3 {
					mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina(fmt.Sprint(i), "testo"))
				}
				key := inRoom(m.Keys(), room)[0]
				do(m, key)
				names(t, audited(t, a, archivetest.Montesole, paper.VerdictDamaged), []string{key})
				b.Close(a)
			})
		}
	}
}

// TestAFormerVersionOfADerivedObjectIsNoFinding: a store with versions keeps the one before after each Replace.
func TestAFormerVersionOfADerivedObjectIsNoFinding(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
	names(t, audited(t, a, archivetest.Montesole, paper.VerdictGood), nil)
	key := inRoom(m.Keys(), archivetest.Montesole+"/catalog/")[0]
	r, err := m.Get(ctx, key, "", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	m.Plant(key, []byte("la metà"))
	m.Plant(key, whole)
	names(t, audited(t, a, archivetest.Montesole, paper.VerdictGood), nil)
}

// TestWhatACrashLeavesIsListedAndNotAccused leaves an object of each kind without its entry.
func TestWhatACrashLeavesIsListedAndNotAccused(t *testing.T) {
	for _, c := range []struct {
		label, room string
		do          func(*archive.Archive) error
	}{
		{"stored", "/packages/", func(a *archive.Archive) error {
			_, err := a.Submit(ctx, archivetest.Determina("70", "testo").Submission(archivetest.Montesole))
			return err
		}},
		{"refusal.stored", "/refusals/", func(a *archive.Archive) error {
			_, err := a.Submit(ctx, faulty("71").Submission(archivetest.Montesole))
			return err
		}},
		{"report.stored", "/reports/", func(a *archive.Archive) error {
			_, err := a.Audit(ctx, archive.Scope{Producer: archivetest.Montesole})
			return err
		}},
	} {
		t.Run(c.label, func(t *testing.T) {
			b, root := newBench(t)
			d := &death{label: c.label}
			b.Vary = d.arrange
			a := b.MustOpen()
			mustSubmit(t, b, a, archivetest.Montesole, archivetest.Determina("1", "testo"))
			d.armed.Store(true)
			died := make(chan struct{})
			go func() {
				defer close(died)
				if err := c.do(a); err != nil {
					t.Errorf("got %v, want a death at %s", err, c.label)
				}
			}()
			<-died
			b.Close(a)
			b.Vary = nil
			a = b.MustOpen()
			out := audited(t, a, archivetest.Montesole, paper.VerdictGood)
			orphans := inRoom(keysIn(t, root), archivetest.Montesole+c.room)
			if len(out.Report.Findings) != 1 || out.Report.Findings[0].Gravity != paper.Notice || !slices.Contains(orphans, out.Report.Findings[0].Object) {
				t.Errorf("got findings %+v, want one notice about one of %q", out.Report.Findings, orphans)
			}
			if err := c.do(a); err != nil { // what was interrupted is done again, and meets what was left
				t.Fatal(err)
			}
			audited(t, a, archivetest.Montesole, paper.VerdictGood)
			b.Close(a)
		})
	}
}

// TestADamagedCatalogHealsItself damages the cache and wants nobody to notice.
func TestADamagedCatalogHealsItself(t *testing.T) {
	s := settle(t)
	for name, do := range map[string]func(t *testing.T, dir string){
		"deleted": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		},
		"flipped": func(t *testing.T, dir string) { everyFile(t, dir, func(b []byte) { b[len(b)/3] ^= 8 }) },
		"zeroed":  func(t *testing.T, dir string) { everyFile(t, dir, func(b []byte) { clear(b) }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := s.copyOf(t)
			do(t, filepath.Join(b.State, "catalog"))
			a := b.MustOpen()
			eventually(t, "words to be filled", func() bool {
				page, err := a.Search(ctx, catalog.Query{Producer: archivetest.Montesole, Words: "affidamento"})
				return err == nil && len(page.Records) == len(s.packages)
			})
			if out := audited(t, a, archivetest.Montesole, paper.VerdictGood); len(out.Report.Findings) > 0 {
				t.Errorf("got findings %+v, want none", out.Report.Findings)
			}
			again := mustSubmit(t, b, a, archivetest.Montesole, s.docs[2])
			if again.Body.Package != s.packages[2] {
				t.Errorf("a retry made another package")
			}
			b.Close(a)
		})
	}
}

// everyFile changes the files of a folder in place, other than locks.
func everyFile(t *testing.T, dir string, change func([]byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return err
		}
		change(b)
		return os.WriteFile(path, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNoPaperComesFromADamagedPackage asks for every paper of packages damaged in every way.
func TestNoPaperComesFromADamagedPackage(t *testing.T) {
	s, twin := settle(t), settle(t)
	key := keyOf(s, s.packages[1])
	for _, h := range hurts() {
		if h.name == "add" {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			b, root := s.copyOf(t)
			a := b.MustOpen()
			before := size(t, a)
			h.do(t, root, key, keyOf(s, s.packages[2]), bytesOf(t, twin.root, keyOf(twin, twin.packages[1])))
			id := s.packages[1]
			if c, err := a.Retrieve(ctx, archive.Request{Producer: archivetest.Montesole, ID: id, Purpose: "prova", By: "test"}); archive.KindOf(err) != archive.Damaged {
				t.Errorf("retrieve: got %v, %v, want damaged", c, err)
			}
			if r, _, err := a.Package(ctx, archivetest.Montesole, id); archive.KindOf(err) != archive.Damaged {
				t.Errorf("package: got %v, %v, want damaged", r, err)
			}
			wantDamaged(t, "receipt", func() (*paper.Receipt, error) { return a.Receipt(ctx, archivetest.Montesole, id) })
			wantDamaged(t, "submit again", func() (*paper.Receipt, error) { return a.Submit(ctx, s.docs[1].Submission(archivetest.Montesole)) })
			if after := size(t, a); after != before {
				t.Errorf("ledger: got %d entries, want %d as before", after, before)
			}
			b.Close(a)
		})
	}
}

func wantDamaged(t *testing.T, what string, ask func() (*paper.Receipt, error)) {
	t.Helper()
	if r, err := ask(); archive.KindOf(err) != archive.Damaged {
		t.Errorf("%s: got %v, %v, want damaged", what, r, err)
	}
}

func keyOf(s *settled, id string) string {
	return archivetest.Montesole + "/packages/" + id[:2] + "/" + id + ".asice"
}

func size(t testing.TB, a *archive.Archive) int64 {
	t.Helper()
	log, err := a.Ledger(archivetest.Montesole)
	if err != nil {
		t.Fatal(err)
	}
	return log.Head().Size
}

// TestEveryPartOfAnObjectCounts flips bits all over a few objects, one after the other, under an archive that only
// reads and so does not change anything itself.
func TestEveryPartOfAnObjectCounts(t *testing.T) {
	s := settle(t)
	b, root := s.copyOf(t)
	b.Vary = func(c *archive.Config) { c.LedgerSigner = nil }
	a := b.MustOpen()
	audited(t, a, archivetest.Montesole, paper.VerdictGood)
	m := archivetest.Montesole
	flips := 25
	if testing.Short() {
		flips = 10
	}
	for _, room := range []string{"evidence/", m + "/ledger/", m + "/tiles/tile/entries/", m + "/catalog/", m + "/packages/"} {
		keys := inRoom(s.objects, room)
		for _, key := range []string{keys[0], keys[len(keys)-1]} {
			whole := bytesOf(t, root, key)
			for i := range flips {
				b := bytes.Clone(whole)
				at := i * len(b) / flips
				b[at] ^= 1 << (i % 8)
				overwrite(t, root, key, b)
				names(t, audited(t, a, m, paper.VerdictDamaged), []string{key})
				if t.Failed() {
					t.Fatalf("%s: byte %d of %d", key, at, len(b))
				}
			}
			overwrite(t, root, key, whole)
		}
	}
	audited(t, a, m, paper.VerdictGood)
}

// TestAuditsBesideWorkAccuseNobody audits with two daemons while both take in documents, refuse, give out and
// report: whatever is half done at any moment is no damage.
func TestAuditsBesideWorkAccuseNobody(t *testing.T) {
	b, root := newBench(t)
	b.Close(b.MustOpen())
	plant(t, b, archivetest.Montesole, holds(200)...) // so that tiles fill up meanwhile
	first := b.MustOpen()
	store, err := dir.Open(root, dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	other := archivetest.Attach(t, store, t.TempDir(), b.Keys())
	other.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
	second := other.MustOpen()
	done := make(chan struct{})
	var workers sync.WaitGroup
	for i, a := range []*archive.Archive{first, second, first, second} {
		workers.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-done:
					return
				default:
				}
				doc := archivetest.Determina(fmt.Sprintf("%d/%d", i, j), "testo")
				if j%5 == 4 {
					doc = faulty(doc.Number)
				}
				producer := []string{archivetest.Montesole, archivetest.Colli}[j%2]
				r, err := a.Submit(ctx, doc.Submission(producer))
				if err != nil {
					t.Errorf("submit: %v", err)
					return
				}
				if j%7 == 3 && !r.Refused() {
					c, err := a.Retrieve(ctx, archive.Request{Producer: producer, ID: r.Body.Package, Purpose: "prova", By: "test"})
					if err != nil {
						t.Errorf("retrieve: %v", err)
						return
					}
					_ = c.Close()
				}
			}
		})
	}
	rounds := 8
	if testing.Short() {
		rounds = 4
	}
	for i := range rounds {
		for _, p := range []string{archivetest.Montesole, archivetest.Colli} {
			out := audited(t, []*archive.Archive{first, second}[i%2], p, paper.VerdictGood)
			for _, f := range out.Report.Findings {
				if f.Gravity != paper.Notice {
					t.Errorf("round %d: %+v", i, f)
				}
			}
		}
	}
	close(done)
	workers.Wait()
	for _, a := range []*archive.Archive{first, second} {
		if out := audited(t, a, archivetest.Montesole, paper.VerdictGood); len(out.Report.Findings) > 0 {
			t.Errorf("at rest: %+v", out.Report.Findings)
		}
	}
}

// TestDerivedObjectsThatWereHurtWhileNobodyWatchedAreNamedOrMadeAgain hurts tiles of a closed archive. An opening
// ledger looks at its bundles and makes wrong ones again before an audit can name them.
func TestDerivedObjectsThatWereHurtWhileNobodyWatchedAreNamedOrMadeAgain(t *testing.T) {
	s, m := settle(t), archivetest.Montesole
	for _, key := range append(inRoom(s.objects, m+"/tiles/"), inRoom(s.objects, m+"/catalog/")[0]) {
		for name, data := range map[string][]byte{"deleted": nil, "replaced": []byte("altro")} {
			t.Run(name+strings.ReplaceAll(key, "/", "_"), func(t *testing.T) {
				b, root := s.copyOf(t)
				whole := bytesOf(t, root, key)
				overwrite(t, root, key, data)
				a := b.MustOpen()
				waitTiled(t, a)
				out, err := a.Audit(ctx, archive.Scope{Producer: m})
				if err != nil {
					t.Fatal(err)
				}
				accusesOnly(t, out, []string{key})
				if !bytes.Equal(bytesOf(t, root, key), whole) { // by the ledger, or by the audit that named it
					t.Errorf("%s was not made again; verdict %s", key, out.Report.Verdict)
				}
				audited(t, a, m, paper.VerdictGood)
				b.Close(a)
			})
		}
	}
}

// TestMissingTilesAreNamedWhereNoneArePut deletes each tile of an archive that is opened without keys.
func TestMissingTilesAreNamedWhereNoneArePut(t *testing.T) {
	b, root := newBench(t)
	a := b.MustOpen()
	b.Close(a)
	plant(t, b, mine, holds(300)...)
	a = b.MustOpen()
	waitTiled(t, a)
	b.Close(a)
	tiles := inRoom(keysIn(t, root), mine+"/tiles/")
	if len(tiles) < 2 {
		t.Fatalf("got tiles %q", tiles)
	}
	for _, key := range tiles {
		whole := bytesOf(t, root, key)
		overwrite(t, root, key, nil)
		for late, verdict := range map[time.Duration]string{0: paper.VerdictGood, time.Hour: paper.VerdictDamaged} {
			b.Vary = func(c *archive.Config) {
				c.LedgerSigner = nil
				c.Now = func() time.Time { return time.Now().Add(late) }
			}
			a = b.MustOpen()
			out, err := a.Audit(ctx, archive.Scope{Producer: mine})
			if err != nil {
				t.Fatal(err)
			}
			if out.Report.Verdict != verdict {
				t.Errorf("%s, missing since %v: got %s, %+v, not checked %q; want %s", key, late, out.Report.Verdict, out.Report.Findings, out.Report.NotChecked, verdict)
			}
			if f := damages(out); late > 0 && (len(f) != 1 || f[0].Object != key || f[0].Kind != "missing") {
				t.Errorf("%s: got %+v, want it named", key, f)
			}
			b.Close(a)
		}
		overwrite(t, root, key, whole)
	}
}

// TestMissingTilesAreNamedWhileOthersCannotBePut has the store take no tiles any more, and lose one that it took.
func TestMissingTilesAreNamedWhileOthersCannotBePut(t *testing.T) {
	m := storagetest.NewMem(t)
	var full atomic.Bool
	m.OnPut = func(key string) (bool, error) {
		if full.Load() && strings.HasPrefix(key, mine+"/tiles/") {
			return false, storage.ErrFull
		}
		return true, nil
	}
	b := archivetest.New(t, m)
	a := b.MustOpen()
	b.Close(a)
	plant(t, b, mine, holds(300)...)
	a = b.MustOpen()
	waitTiled(t, a)
	b.Close(a)
	full.Store(true)
	plant(t, b, mine, holds(300)...)
	a = b.MustOpen()
	waitTiled(t, a)
	key := ledger.TileKey(mine, tlog.Tile{H: 8, N: 0, W: 256})
	m.Delete(key)
	out := mustAudit(t, a, mine, paper.VerdictDamaged)
	if f := damages(out); len(f) != 1 || f[0].Object != key || f[0].Kind != "missing" {
		t.Errorf("got %+v, want %s named, and none that is still to be put", f, key)
	}
	b.Close(a)
}
