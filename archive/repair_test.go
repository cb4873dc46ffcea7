package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/storagetest"
)

// copies keeps what a bucket had.
type copies map[string][]byte

func (c copies) Recall(_ context.Context, key string, _ [32]byte) (io.ReadCloser, error) {
	b, ok := c[key]
	if !ok {
		return nil, fmt.Errorf("recall %s: %w", key, storage.ErrNotFound)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func copyAll(m backdoor) copies {
	c := copies{}
	for _, key := range m.Keys() {
		c[key] = m.Bytes(key)
	}
	return c
}

func repaired(t testing.TB, a *archive.Archive, from copies, keys ...string) map[string]archive.Repaired {
	t.Helper()
	got := map[string]archive.Repaired{}
	err := a.Repair(ctx, archive.RepairRequest{Producer: mine, Keys: keys, From: []storage.Keeper{from}}, func(r archive.Repaired) { got[r.Key] = r })
	if err != nil {
		t.Fatalf("repair: %v", err)
	}
	return got
}

// entriesBeside are the entries of a ledger, whatever lies beside its commits.
func entriesBeside(t testing.TB, b *archivetest.Bench) (list []ledger.Entry) {
	t.Helper()
	for c, err := range ledger.Walk(ctx, b.Store, mine, b.Trust.Ledgers, 0, -1) {
		var d *ledger.Damage
		if errors.As(err, &d) && d.Beside {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c.Entries...)
	}
	return list
}

// harms are overlays and what whoever may bypass a lock, or reach the disk, can do besides.
func harms() map[string]func(backdoor, string) {
	harm := overlays()
	harm["deleted"] = func(m backdoor, key string) { m.Delete(key) }
	harm["flipped"] = func(m backdoor, key string) { m.Flip(key, 8*len(m.Bytes(key))/2) }
	harm["emptied"] = func(m backdoor, key string) { m.Overwrite(key, nil) }
	return harm
}

// TestEveryDamageIsRepaired does to each object of each kind what a storage administrator can, repairs it out of a
// copy of the bucket, and wants a good audit, one entry, and a second repair that changes nothing.
func TestEveryDamageIsRepaired(t *testing.T) {
	for _, room := range []string{"/packages/", "/ledger/", "/reports/", "/refusals/", "evidence/", "keys/"} {
		harm := harms()
		harm["not given"] = func(m backdoor, key string) { m.(*storagetest.Mem).Rot(key) }
		for name, hurt := range harm {
			t.Run(room+name, func(t *testing.T) {
				t.Parallel()
				m := storagetest.NewMem(t)
				b := archivetest.New(t, m)
				a := b.MustOpen()
				mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
				if _, err := a.Submit(ctx, faulty("90").Submission(mine)); err != nil {
					t.Fatal(err)
				}
				mustAudit(t, a, mine, paper.VerdictGood)
				mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
				b.Close(a)
				from := copyAll(m)
				keys := inRoom(m.Keys(), mine+room)
				if strings.HasSuffix(room, "/") && !strings.HasPrefix(room, "/") {
					keys = inRoom(m.Keys(), room)
				}
				if room == "keys/" {
					keys = keys[:1]
				}
				for _, key := range keys {
					hurt(m, key)
				}
				a = b.MustOpen()
				got := repaired(t, a, from)
				for _, key := range keys {
					if r := got[key]; r.What != archive.Restored && r.What != archive.Uncover {
						t.Errorf("%s: got %+v, want it mended", key, r)
					}
				}
				mustAudit(t, a, mine, paper.VerdictGood)
				before := ofType(entriesBeside(t, b), ledger.Repaired)
				for key, r := range repaired(t, a, from) {
					if r.What != archive.Intact {
						t.Errorf("again: %s: got %+v, want it intact", key, r)
					}
				}
				if after := ofType(entriesBeside(t, b), ledger.Repaired); after != before || name != "delete marker" && before < len(keys) {
					t.Errorf("%d objects, %d entries, %d after a second repair", len(keys), before, after)
				}
				mustSubmit(t, b, a, mine, archivetest.Determina("3", "testo"))
				mustAudit(t, a, mine, paper.VerdictGood)
				b.Close(a)
			})
		}
	}
}

// TestACommitThatIsNotGivenLeavesTheAuditIncomplete takes each commit in turn as a server does that finds its own file
// damaged: under a running archive, and before it opens. The audit names it, says nothing worse, and a repair mends it.
func TestACommitThatIsNotGivenLeavesTheAuditIncomplete(t *testing.T) {
	for _, opens := range []bool{false, true} {
		m := storagetest.NewMem(t)
		b := archivetest.New(t, m)
		a := b.MustOpen()
		for _, n := range []string{"1", "2", "3"} {
			mustSubmit(t, b, a, mine, archivetest.Determina(n, "testo"))
		}
		from := copyAll(m)
		for _, key := range inRoom(m.Keys(), mine+"/ledger/") {
			m.Rot(key)
			if opens {
				b.Close(a)
				a = b.MustOpen()
			}
			out := audited(t, a, mine, paper.VerdictIncomplete)
			named := slices.ContainsFunc(out.Report.NotChecked, func(s string) bool { return strings.HasPrefix(s, key+": ") })
			worse := slices.ContainsFunc(out.Report.Findings, func(f paper.ReportFinding) bool { return f.Gravity != paper.Notice })
			if !named || worse {
				t.Errorf("opened after it %v: %s: findings %+v, unchecked %v", opens, key, out.Report.Findings, out.Report.NotChecked)
			}
			if r := repaired(t, a, from, key)[key]; r.What != archive.Restored {
				t.Errorf("opened after it %v: %s: got %+v, want it restored", opens, key, r)
			}
			mustAudit(t, a, mine, paper.VerdictGood)
			for _, key := range m.Keys() {
				from[key] = m.Bytes(key)
			}
		}
		b.Close(a)
	}
}

// TestAPartWithARepairedCommitIsWhole repairs each commit, whose hurt version stays behind it, and looks at the parts of
// the ledger that hold it: the entry that explains what lies there stands later, in the last commits first, behind a few
// full bundles of entries then.
func TestAPartWithARepairedCommitIsWhole(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	var ids []string
	for _, n := range []string{"1", "2", "3"} {
		ids = append(ids, mustSubmit(t, b, a, mine, archivetest.Determina(n, "testo")).Body.Package)
	}
	from := copyAll(m)
	keys := inRoom(m.Keys(), mine+"/ledger/")
	for _, key := range keys {
		m.Overwrite(key, []byte("altro"))
	}
	for key, r := range repaired(t, a, from, keys...) {
		if r.What != archive.Restored {
			t.Fatalf("%s: got %+v, want it restored", key, r)
		}
	}
	var parts []archive.Scope
	for c, err := range ledger.Walk(ctx, m, mine, b.Trust.Ledgers, 0, int64(len(keys)-1)) {
		var d *ledger.Damage
		if err != nil && (!errors.As(err, &d) || !d.Beside) {
			t.Fatal(err)
		}
		if err == nil {
			parts = append(parts, archive.Scope{First: c.First, End: c.Size})
		}
	}
	for _, id := range ids {
		parts = append(parts, archive.Scope{IDs: []string{id}})
	}
	parts = append(parts, archive.Scope{IDs: []string{ids[0], ids[2]}}, archive.Scope{End: parts[1].End, Budget: 1})
	look := func(when, verdict string, parts ...archive.Scope) {
		t.Helper()
		for _, s := range parts {
			s.Producer = mine
			out, err := a.Audit(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			if r := out.Report; r.Verdict != verdict || len(r.Findings) == 0 && verdict != paper.VerdictIncomplete {
				t.Errorf("%s: %+v: got %s, %+v, not checked %q; want %s, and what lies behind named", when, s, r.Verdict, r.Findings, r.NotChecked, verdict)
			}
		}
	}
	if len(parts) < 8 {
		t.Fatalf("got %d parts", len(parts))
	}
	look("at once", paper.VerdictGood, parts...)
	mustAudit(t, a, mine, paper.VerdictGood)

	// Where the entry cannot be read nobody is accused, and nothing is called good.
	for i := range 20 { // so that it is not at hand
		mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(4+i), "testo"))
	}
	b.Close(a)
	for _, key := range m.Keys() {
		from[key] = m.Bytes(key)
	}
	var holding []string
	for c, err := range ledger.Walk(ctx, m, mine, b.Trust.Ledgers, int64(len(keys)), -1) {
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(c.Entries, func(e ledger.Entry) bool { return e.Type == ledger.Repaired }) {
			holding = append(holding, ledger.Key(mine, c.Number))
			m.Rot(ledger.Key(mine, c.Number))
		}
	}
	a = b.MustOpen()
	look("unread", paper.VerdictIncomplete, parts...)
	repaired(t, a, from, holding...)
	look("read", paper.VerdictGood, parts...)

	b.Close(a)
	plant(t, b, mine, holds(600)...)
	a = b.MustOpen()
	waitTiled(t, a)
	look("far behind", paper.VerdictGood, parts...)

	// What no repair has left there is damage.
	other, _ := ledger.ParseKey(mine, holding[len(holding)-1])
	other += 5
	key := ledger.Key(mine, other)
	c, err := ledger.Read(ctx, m, mine, other, b.Trust.Ledgers)
	if err != nil {
		t.Fatal(err)
	}
	m.Overwrite(key, []byte("altro"))
	m.Plant(key, c.Bytes)
	look("nobody's", paper.VerdictDamaged, archive.Scope{First: c.First, End: c.Size})
	b.Close(a)
}

// TestOtherBytesAreNeverPutBack offers what is nearly right.
func TestOtherBytesAreNeverPutBack(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	b.Close(a)
	from := copyAll(m)
	var keys []string
	for key := range from {
		if strings.Contains(key, "/packages/") || strings.HasPrefix(key, "evidence/") || key == ledger.Key(mine, 1) {
			keys = append(keys, key)
			from[key] = bytes.Clone(from[key])
			from[key][len(from[key])/2] ^= 1
			m.Delete(key)
		}
	}
	a = b.MustOpen()
	before := m.Keys()
	err := a.Repair(ctx, archive.RepairRequest{Producer: mine, From: []storage.Keeper{from}}, func(r archive.Repaired) {
		if r.What == archive.Restored {
			t.Errorf("put back: %+v", r)
		}
	})
	if err == nil {
		t.Error("the ledger runs without its commit")
	}
	for _, key := range keys {
		if m.Bytes(key) != nil {
			t.Errorf("%s holds something", key)
		}
	}
	if got := m.Keys(); len(got) != len(before) {
		t.Errorf("something was written: %q, before %q", got, before)
	}
	b.Close(a)
}

// TestARepairThatDiesIsFinishedByTheNext dies behind the note, and behind the object.
func TestARepairThatDiesIsFinishedByTheNext(t *testing.T) {
	for _, label := range []string{"repair.noted", "repair.restored"} {
		t.Run(label, func(t *testing.T) {
			b, root := newBench(t)
			a := b.MustOpen()
			r := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			b.Close(a)
			key := inRoom(keysIn(t, root), mine+"/packages/")[0]
			from := copies{key: bytesOf(t, root, key)}
			overwrite(t, root, key, nil)
			b.Vary = func(c *archive.Config) {
				c.Crash = func(at string) {
					if at == label {
						panic(at)
					}
				}
			}
			a = b.MustOpen()
			func() {
				defer func() { _ = recover() }()
				_ = a.Repair(ctx, archive.RepairRequest{Producer: mine, Keys: []string{key}, From: []storage.Keeper{from}}, func(archive.Repaired) {})
				t.Error("it did not die")
			}()
			b.Close(a)
			b.Vary = nil
			a = b.MustOpen()
			for range 2 {
				repaired(t, a, from, key)
			}
			list := entriesBeside(t, b)
			if got := ofType(list, ledger.Repaired); got != 1 {
				t.Errorf("got %d entries, want one", got)
			}
			sum := sha256.Sum256(from[key])
			for _, e := range list {
				if e.Type == ledger.Repaired && (e.Object != key || e.SHA256 != fmt.Sprintf("%x", sum) || e.ID != r.Body.Package) {
					t.Errorf("got entry %+v", e)
				}
			}
			mustAudit(t, a, mine, paper.VerdictGood)
			b.Close(a)
		})
	}
}

// TestALedgerThatStandsBeforeAForeignObjectGoesOn has the archive go on behind it, sealed, audited, and made again
// from the bucket alone.
func TestALedgerThatStandsBeforeAForeignObjectGoesOn(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	r := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	mustAudit(t, a, mine, paper.VerdictGood)
	b.Close(a)
	n := int64(len(inRoom(m.Keys(), mine+"/ledger/")))
	for i := range int64(2) {
		m.Plant(ledger.Key(mine, n+i), fmt.Appendf(nil, "altro %d", i))
	}
	m.Plant(ledger.Key(mine, n), []byte("ancora altro")) // of two versions one is named by digest, none can be removed
	a = b.MustOpen()
	if _, err := a.Submit(ctx, archivetest.Determina("2", "testo").Submission(mine)); archive.KindOf(err) != archive.Unavailable {
		t.Fatalf("got %v, want unavailable", err)
	}
	if err := a.VoidCommit(ctx, mine, n+1); archive.KindOf(err) != archive.Invalid {
		t.Errorf("another number: got %v, want invalid", err)
	}
	if err := a.VoidCommit(ctx, mine, n); err != nil {
		t.Fatal(err)
	}
	if err := a.VoidCommit(ctx, mine, n); archive.KindOf(err) != archive.Invalid {
		t.Errorf("again: got %v, want invalid", err)
	}
	later := mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
	m.Plant(ledger.Key(mine, n+1), []byte("e poi altro"))
	out := mustAudit(t, a, mine, paper.VerdictGood)
	if voids := voidsTold(out.Report); voids != 2 {
		t.Errorf("the report tells of %d void numbers, want 2: %+v", voids, out.Report.Findings)
	}
	if round, err := a.ExtendLocks(ctx); err != nil || round.Short > 0 {
		t.Errorf("locks: got %+v, %v", round, err)
	}
	for _, r := range repaired(t, a, copies{}) {
		if r.What != archive.Intact {
			t.Errorf("repair: %+v", r)
		}
	}
	b.Close(a)
	b.Vary = func(c *archive.Config) { c.State += "-again"; c.TrustBucketHead = true }
	if err := os.RemoveAll(filepath.Join(b.State, "catalog")); err != nil {
		t.Fatal(err)
	}
	a = b.MustOpen()
	for _, id := range []string{r.Body.Package, later.Body.Package} {
		again, err := a.Receipt(ctx, mine, id)
		if err != nil {
			t.Fatal(err)
		}
		mustVerify(t, b, again)
	}
	mustAudit(t, a, mine, paper.VerdictGood)
	b.Close(a)
}

// TestARewrittenCommitNamesNothingToPutBack empties a commit, so that nobody recomputes the root of the next one, and
// has that name the key of a later package with other bytes, which a copy and another version of the key offer.
func TestARewrittenCommitNamesNothingToPutBack(t *testing.T) {
	for _, offer := range []string{"copy", "version"} {
		t.Run(offer, func(t *testing.T) {
			m := storagetest.NewMem(t)
			b := archivetest.New(t, m)
			a := b.MustOpen()
			var sealed []ledger.Entry
			var commits []int64
			for i := range 3 {
				mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(i), "testo"))
			}
			for c, err := range ledger.Walk(ctx, m, mine, b.Trust.Ledgers, 0, -1) {
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range c.Entries {
					if e.Type == ledger.PackageSealed {
						sealed, commits = append(sealed, e), append(commits, c.Number)
					}
				}
			}
			victim := sealed[2].Object
			good, evil := m.Bytes(victim), bytes.Repeat([]byte("x"), int(sealed[1].Size))
			sum := fmt.Sprintf("%x", sha256.Sum256(evil))
			b.Close(a)
			forged := m.Bytes(ledger.Key(mine, commits[1]))
			for old, other := range map[string]string{sealed[1].Object: victim, sealed[1].ID: sealed[2].ID, sealed[1].SHA256: sum} {
				forged = bytes.ReplaceAll(forged, []byte(old), []byte(other))
			}
			if _, err := ledger.ParseCommit(forged, mine, b.Trust.Ledgers); err != nil {
				t.Fatalf("the forgery is none: %v", err)
			}
			m.Overwrite(ledger.Key(mine, commits[1]-1), nil)
			m.Overwrite(ledger.Key(mine, commits[1]), forged)
			from := copies{victim: evil}
			if offer == "version" {
				m.Overwrite(victim, evil)
				m.Plant(victim, good)
				from = copies{}
			}
			a = b.MustOpen()
			got := repaired(t, a, from)
			if r := got[victim]; r.What != archive.Intact {
				t.Errorf("got %+v, want it intact", r)
			}
			if !bytes.Equal(m.Bytes(victim), good) {
				t.Error("a sound package was replaced")
			}
			for _, n := range []int64{commits[1] - 1, commits[1]} {
				if r := got[ledger.Key(mine, n)]; r.What != archive.Lost {
					t.Errorf("commit %d: got %+v, want it lost", n, r)
				}
			}
			for c, err := range ledger.Walk(ctx, m, mine, b.Trust.Ledgers, commits[2]+1, -1) {
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range c.Entries {
					if e.SHA256 == sum {
						t.Errorf("the ledger names the other bytes: %+v", e)
					}
				}
			}
			b.Close(a)
		})
	}
}

// TestARepairDoesNotChooseABranch has two commits go on from the last one that this machine knows, under a foreign
// version of their key.
func TestARepairDoesNotChooseABranch(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	b.Close(a)
	key := ledger.Key(mine, int64(len(inRoom(m.Keys(), mine+"/ledger/"))))
	heads := filepath.Join(b.State, "heads")
	mark, err := os.ReadFile(heads)
	if err != nil {
		t.Fatal(err)
	}
	var branches [2][]byte
	for i := range branches {
		other := storagetest.NewMem(t)
		for _, key := range m.Keys() {
			other.Plant(key, m.Bytes(key))
		}
		b.Store = other
		plant(t, b, mine, ledger.Entry{Type: ledger.HoldPlaced, Cause: strings.Repeat(fmt.Sprint(i), 64)})
		branches[i] = other.Bytes(key)
		if err := os.WriteFile(heads, mark, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.Store = m
	m.Plant(key, branches[0])
	m.Plant(key, branches[1])
	m.Plant(key, []byte("altro"))
	a = b.MustOpen()
	told := false
	var fork *ledger.Fork
	err = a.Repair(ctx, archive.RepairRequest{Producer: mine}, func(r archive.Repaired) {
		if told = told || r.Key == key; r.Key == key && (r.What != archive.Lost || !errors.As(r.Err, &fork)) {
			t.Errorf("got %+v, want a fork", r)
		}
	})
	if !told || !errors.As(err, &fork) {
		t.Errorf("got %v, told %v; want a fork", err, told)
	}
	if after, err := m.Stat(ctx, key); err != nil || len(after.Versions) != 3 {
		t.Errorf("%d versions of the commit, %v; before 3", len(after.Versions), err)
	}
	if _, err := a.Submit(ctx, archivetest.Determina("2", "testo").Submission(mine)); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("submit: got %v, want unavailable", err)
	}
	b.Close(a)
}

// TestARepairDestroysNoRivalCommit has what another daemon signed lie in the place of the last commit that this machine
// acknowledged, on a store that keeps no versions; a commit that was only hurt where it lies is put back there.
func TestARepairDestroysNoRivalCommit(t *testing.T) {
	for name, lies := range map[string]func(theirs, ours []byte) []byte{
		"signed": func(theirs, _ []byte) []byte { return theirs },
		"hurt": func(_, ours []byte) []byte {
			return bytes.Replace(ours, []byte(strings.Repeat("1", 64)), []byte(strings.Repeat("2", 64)), 1)
		},
		"torn": func(_, ours []byte) []byte { return ours[:len(ours)/2] },
	} {
		t.Run(name, func(t *testing.T) {
			b, root := newBench(t)
			a := b.MustOpen()
			mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			b.Close(a)
			n := int64(len(commitsOf(t, root, mine)))
			key, on, heads := ledger.Key(mine, n), b.Store, filepath.Join(b.State, "heads")
			mark, err := os.ReadFile(heads)
			if err != nil {
				t.Fatal(err)
			}
			var branches [2][]byte
			for i := range branches {
				other := storagetest.NewMem(t)
				for _, key := range keysIn(t, root) {
					other.Plant(key, bytesOf(t, root, key))
				}
				b.Store = other
				if err := os.WriteFile(heads, mark, 0o644); err != nil {
					t.Fatal(err)
				}
				plant(t, b, mine, ledger.Entry{Type: ledger.HoldPlaced, Cause: strings.Repeat(fmt.Sprint(i), 64)})
				branches[i] = other.Bytes(key)
			}
			b.Store = on
			theirs, ours := branches[0], branches[1] // which the mark names
			overwrite(t, root, key, lies(theirs, ours))
			a = b.MustOpen()
			var got archive.Repaired
			err = a.Repair(ctx, archive.RepairRequest{Producer: mine, From: []storage.Keeper{copies{key: ours}}}, func(r archive.Repaired) {
				if r.Key == key {
					got = r
				}
			})
			there := bytesOf(t, root, key)
			var fork *ledger.Fork
			switch {
			case name != "signed":
				if err != nil || got.What != archive.Restored || !bytes.Equal(there, ours) {
					t.Errorf("got %+v, %v, want it put back", got, err)
				}
			case err == nil || got.What != archive.Lost || !errors.As(got.Err, &fork) || fork.Number != n:
				t.Errorf("got %+v, %v, want it lost, for a fork", got, err)
			case !bytes.Equal(there, theirs):
				t.Error("what another daemon signed was replaced")
			}
			b.Close(a)
		})
	}
}

// waiting is a copy that gives nothing before it is told to.
type waiting struct {
	copies
	asked, give chan struct{}
}

func (w *waiting) Recall(ctx context.Context, key string, sum [32]byte) (io.ReadCloser, error) {
	select {
	case w.asked <- struct{}{}:
	default:
	}
	<-w.give
	return w.copies.Recall(ctx, key, sum)
}

// openLedgers counts the ledgers that are open for writing in this process.
func openLedgers() int {
	stacks := make([]byte, 16<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "ledger.(*Log).sequence(")
}

// TestALedgerThatIsMendedIsNotOpenedBesides has a copy take its time over the commit for which a ledger stands still, which
// the store gives again meanwhile: while it is mended nobody else opens it, and afterwards one is open.
func TestALedgerThatIsMendedIsNotOpenedBesides(t *testing.T) {
	before := openLedgers()
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	b.Close(a)
	commits := inRoom(m.Keys(), mine+"/ledger/")
	last := commits[len(commits)-1]
	from := &waiting{copyAll(m), make(chan struct{}, 1), make(chan struct{})}
	m.Rot(last)
	a = b.MustOpen()
	done := make(chan error, 1)
	go func() {
		done <- a.Repair(ctx, archive.RepairRequest{Producer: mine, From: []storage.Keeper{from}}, func(archive.Repaired) {})
	}()
	<-from.asked
	m.Unrot(last)
	const tick = 5 * time.Second
	for end := time.Now().Add(tick + tick/5); time.Now().Before(end); time.Sleep(tick / 50) {
		if strings.Contains(b.Logs.String(), "producer goes on") {
			t.Error("the ledger was opened while it was being mended")
			break
		}
	}
	close(from.give)
	if err := <-done; err != nil {
		t.Error(err)
	}
	mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
	mustAudit(t, a, mine, paper.VerdictGood)
	b.Close(a)
	if after := openLedgers(); after > before { // those of earlier tests may still end
		t.Errorf("%d ledgers are open after the archive was closed, %d before it was opened", after, before)
	}
}

// TestWhoMeetsALedgerThatWasClosedIsAnswered begins a submission, has the ledger stop for a disk that takes no mark, and a
// repair find it so, before the submission comes to its commit.
func TestWhoMeetsALedgerThatWasClosedIsAnswered(t *testing.T) {
	b, _ := newBench(t)
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	arrives, goesOn := make(chan struct{}), make(chan struct{})
	slow := archivetest.Determina("2", "testo").Submission(mine)
	next := slow.Next
	slow.Next = func() (archive.Part, error) {
		part, err := next()
		if errors.Is(err, io.EOF) {
			close(arrives)
			<-goesOn
		}
		return part, err
	}
	answered := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				answered <- fmt.Errorf("panic: %v", r)
			}
		}()
		_, err := a.Submit(ctx, slow)
		answered <- err
	}()
	<-arrives
	obstacle := filepath.Join(b.State, "heads.new")
	if err := os.Mkdir(obstacle, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Submit(ctx, archivetest.Determina("3", "testo").Submission(mine)); archive.KindOf(err) != archive.Unavailable {
		t.Fatalf("with a mark that cannot be written: got %v, want unavailable", err)
	}
	if err := a.Repair(ctx, archive.RepairRequest{Producer: mine}, func(archive.Repaired) {}); err == nil {
		t.Fatal("the ledger runs without its mark")
	}
	close(goesOn)
	if err := <-answered; archive.KindOf(err) != archive.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := a.Repair(ctx, archive.RepairRequest{Producer: mine}, func(archive.Repaired) {}); err != nil {
		t.Fatal(err)
	}
	mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
	mustAudit(t, a, mine, paper.VerdictGood)
	b.Close(a)
}

// TestALedgerThatGoesOnIsSealed commits what no seal covers, and has the ledger closed while the next attempt at a seal is
// made: it is sealed once the ledger goes on, though nobody submits anything.
func TestALedgerThatGoesOnIsSealed(t *testing.T) {
	t.Parallel()
	b, _ := newBench(t)
	b.Vary = func(c *archive.Config) { c.SealWait = time.Millisecond }
	a := b.MustOpen()
	b.TSAAway(true)
	r := mustAccept(t, a, mine, "1")
	eventually(t, "an attempt to fail", func() bool { return a.Status(ctx).SealError != "" })
	obstacle := filepath.Join(b.State, "heads.new")
	if err := os.Mkdir(obstacle, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Submit(ctx, archivetest.Determina("2", "testo").Submission(mine)); archive.KindOf(err) != archive.Unavailable {
		t.Fatalf("with a mark that cannot be written: got %v, want unavailable", err)
	}
	if err := a.Repair(ctx, archive.RepairRequest{Producer: mine}, func(archive.Repaired) {}); err == nil {
		t.Fatal("the ledger runs without its mark")
	}
	b.TSAAway(false)
	eventually(t, "an attempt to find nothing to seal", func() bool { return a.Status(ctx).SealError == "" })
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := a.Repair(ctx, archive.RepairRequest{Producer: mine}, func(archive.Repaired) {}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the seal", func() bool {
		sealed, err := a.Receipt(ctx, mine, r.Body.Package)
		return err == nil && sealed.Evidence.Seal == paper.Sealed
	})
	b.Close(a)
}

// TestARepairLeavesOtherProducersAlone asks for a key of another one, under which only a delete marker lies.
func TestARepairLeavesOtherProducersAlone(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	key := archivetest.Colli + "/packages/aa/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.asice"
	m.Marker(key)
	if got := repaired(t, a, copies{}, key)[key]; got.What != archive.Lost || got.Markers != 0 || got.Err == nil {
		t.Errorf("got %+v, want it left alone", got)
	}
	b.Close(a)
}
