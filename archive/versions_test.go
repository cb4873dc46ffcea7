package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/storagetest"
)

// overlays are what whoever may write to a versioned bucket can lay over an object that a lock keeps.
func overlays() map[string]func(backdoor, string) {
	return map[string]func(backdoor, string){
		"delete marker":   func(m backdoor, key string) { m.Marker(key) },
		"foreign version": func(m backdoor, key string) { m.Plant(key, []byte("altro")) },
		"same size": func(m backdoor, key string) {
			m.Plant(key, bytes.Repeat([]byte("x"), len(m.Bytes(key))))
		},
		"several": func(m backdoor, key string) {
			b := m.Bytes(key)
			b[len(b)/2] ^= 1
			m.Plant(key, b)
			m.Marker(key)
			m.Plant(key, nil)
		},
	}
}

// TestAKeyMeansItsMatchingVersion lays something over an object of each kind. Papers are given all the same, a machine
// that has nothing but its marks reads the ledger through, and the audit names what was laid there, and that the
// object is intact.
func TestAKeyMeansItsMatchingVersion(t *testing.T) {
	for _, room := range []string{"/packages/", "/ledger/", "/reports/", "/refusals/", "evidence/", "keys/"} {
		over := overlays()
		over["not given"] = func(m backdoor, key string) {
			m.Plant(key, m.Bytes(key))
			m.(*storagetest.Mem).Rot(key)
		}
		over["not given, and others"] = func(m backdoor, key string) {
			m.Marker(key)
			m.Plant(key, []byte("altro"))
			m.(*storagetest.Mem).Rot(key)
		}
		for name, lay := range over {
			t.Run(room+name, func(t *testing.T) {
				t.Parallel()
				m := storagetest.NewMem(t)
				b := archivetest.New(t, m)
				a := b.MustOpen()
				first := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
				if _, err := a.Submit(ctx, faulty("90").Submission(mine)); err != nil {
					t.Fatal(err)
				}
				mustAudit(t, a, mine, paper.VerdictGood)
				mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
				var covered []string
				for _, key := range m.Keys() {
					if strings.Contains(key, room) && !strings.HasPrefix(key, archivetest.Colli) {
						lay(m, key)
						covered = append(covered, key)
					}
				}
				if len(covered) == 0 {
					t.Fatal("nothing of this kind")
				}
				readable(t, b, a, first)
				b.Close(a)
				b.Vary = func(c *archive.Config) { c.State += "-again"; c.TrustBucketHead = true }
				a = b.MustOpen() // no local index, no marks
				readable(t, b, a, first)
				b.Close(a)
				b.Vary = nil
				a = b.MustOpen()
				out := audited(t, a, mine, paper.VerdictDamaged)
				names(t, out, covered)
				accusesOnly(t, out, covered)
				for _, f := range out.Report.Findings {
					if f.Gravity == paper.Damage && !strings.Contains(f.Text, "integro") {
						t.Errorf("%s: %q does not say that the object is intact", f.Object, f.Text)
					}
				}
				b.Close(a)
			})
		}
	}
}

// mute is a store that tells which versions a key has, and nothing of one that it does not give: a server that has not the
// key of an object answers HEAD as it answers GET.
type mute struct {
	*storagetest.Mem
	over sync.Map // keys whose newest version is one
}

func (s *mute) History(ctx context.Context, key string) ([]storage.Version, error) {
	o, err := s.Mem.Stat(ctx, key)
	return o.Versions, err
}

func (s *mute) Stat(ctx context.Context, key string) (storage.Object, error) {
	if _, ok := s.over.Load(key); ok {
		return storage.Object{}, errors.New("400, encrypted with a key of the client's")
	}
	return s.Mem.Stat(ctx, key)
}

// TestAVersionOfWhichNothingIsToldHidesNothing lays one over a package.
func TestAVersionOfWhichNothingIsToldHidesNothing(t *testing.T) {
	m := storagetest.NewMem(t)
	s := &mute{Mem: m}
	b := archivetest.New(t, s)
	a := b.MustOpen()
	first := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	if _, err := a.Submit(ctx, faulty("90").Submission(mine)); err != nil {
		t.Fatal(err)
	}
	key := inRoom(m.Keys(), mine+"/packages/")[0]
	m.Plant(key, []byte("altro"))
	m.Rot(key)
	s.over.Store(key, true)
	readable(t, b, a, first)
	names(t, audited(t, a, mine, paper.VerdictDamaged), []string{key})
}

// TestAStoreThatGivesNoVersionLeavesOpenWhichIsMeant has the object not given either: nobody is accused of being the one
// that was laid over the other, and the audit comes to its end.
func TestAStoreThatGivesNoVersionLeavesOpenWhichIsMeant(t *testing.T) {
	for _, room := range []string{"/packages/", "keys/"} {
		t.Run(room, func(t *testing.T) {
			m := storagetest.NewMem(t)
			b := archivetest.New(t, m)
			a := b.MustOpen()
			mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			key := keyWith(m, room)
			m.Rot(key)
			m.Plant(key, m.Bytes(key))
			m.Rot(key)
			out := audited(t, a, mine, paper.VerdictDamaged)
			for _, f := range out.Report.Findings {
				if f.Object != key || strings.Contains(f.Text, "integro") {
					t.Errorf("got %+v", f)
				}
			}
			if !slices.ContainsFunc(out.Report.NotChecked, func(s string) bool { return strings.HasPrefix(s, key) }) {
				t.Errorf("not checked: got %q, want %s among it", out.Report.NotChecked, key)
			}
		})
	}
}

// TestRepairBelievesNoLocalFile zeroes what the local index of the ledger says of a commit.
func TestRepairBelievesNoLocalFile(t *testing.T) {
	const record = 40
	b := archivetest.New(t, storagetest.NewMem(t))
	a := b.MustOpen()
	for i := range 5 {
		mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(i), "testo"))
	}
	b.Close(a)
	path := filepath.Join(b.State, "ledger", mine, "commits")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(data[record : 2*record])
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	a = b.MustOpen()
	for key, r := range repaired(t, a, nil) {
		if r.What != archive.Intact {
			t.Errorf("%s: got %s, %v", key, r.What, r.Err)
		}
	}
	b.Close(a)
}

// readable wants the papers of a package.
func readable(t testing.TB, b *archivetest.Bench, a *archive.Archive, r *paper.Receipt) {
	t.Helper()
	again, err := a.Receipt(ctx, mine, r.Body.Package)
	if err != nil {
		t.Fatalf("receipt: %v", err)
	}
	if again.Evidence.Seal != paper.Sealed {
		t.Error("the evidence is pending")
	}
	mustVerify(t, b, again)
	c, err := a.Retrieve(ctx, archive.Request{Producer: mine, ID: r.Body.Package, Purpose: "prova", By: "test"})
	if err != nil {
		t.Fatalf("retrieve: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	r, err = a.Submit(ctx, faulty("90").Submission(mine))
	if err != nil || !r.Refused() {
		t.Errorf("the refusal again: got %v, %v", r, err)
	}
}

// TestTwoOfOneNumberAreAFork lays the commits and seals of another history over those of this one.
func TestTwoOfOneNumberAreAFork(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	mustAudit(t, a, mine, paper.VerdictGood)
	b.Close(a)
	before := m.Snapshot()
	state := t.TempDir()
	copyTree(t, b.State, state, copyFile)
	other := archivetest.Attach(t, m, state, b.Keys())
	a = b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "uno"))
	b.Close(a)
	one := map[string][]byte{}
	for _, key := range m.Keys() {
		one[key] = m.Bytes(key)
	}
	m.Lenient = true
	m.Rollback(before)
	a = other.MustOpen()
	mustSubmit(t, other, a, mine, archivetest.Determina("1", "due"))
	forked := 0
	for key, data := range one {
		if strings.Contains(key, "/ledger/") || strings.HasPrefix(key, "evidence/") {
			if now := m.Bytes(key); now != nil && !bytes.Equal(now, data) {
				m.Plant(key, data)
				forked++
			}
		}
	}
	out := audited(t, a, mine, paper.VerdictDamaged)
	var commits, seals bool
	for _, f := range out.Report.Findings {
		commits = commits || strings.HasPrefix(f.Object, mine+"/ledger/") && strings.Contains(f.Text, "fork")
		seals = seals || strings.HasPrefix(f.Object, "evidence/") && f.Kind == "fork"
	}
	if forked == 0 || !commits || !seals {
		t.Errorf("%d forked; fork of commits found: %v, of seals: %v; %+v", forked, commits, seals, out.Report.Findings)
	}
	other.Close(a)
}
