package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/storagetest"
)

const horizon = 400 * 24 * time.Hour

func lockOf(t testing.TB, m *storagetest.Mem, key string) time.Time {
	t.Helper()
	o, err := m.Stat(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return o.RetainUntil
}

// TestLocksAreHeldOverTheYears runs a round a day for three years, with restarts, lost notes and a daemon that is away
// for a month; then, at longer steps, until a retention date has passed.
func TestLocksAreHeldOverTheYears(t *testing.T) {
	c := &clock{}
	began := c.now()
	m := storagetest.NewMem(t)
	m.Now = c.now
	b := archivetest.New(t, m)
	b.Vary = func(cfg *archive.Config) { cfg.Now, cfg.AuditTick = c.now, 0 }
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	r, err := a.Submit(ctx, described(t, "2", archivetest.PDF("posta"), func(d *policies.Description) { d.Class = "spese-postali" }))
	if err != nil || r.Refused() {
		t.Fatalf("got %+v, %v", r, err)
	}
	dated := keyWith(m, r.Body.Package)
	if _, err := a.Submit(ctx, faulty("90").Submission(mine)); err != nil {
		t.Fatal(err)
	}
	mustAudit(t, a, mine, paper.VerdictGood)
	b.Close(a)
	orphan := mine + "/packages/aa/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.asice"
	data := []byte("orfano")
	o := storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data), RetainUntil: began.Add(horizon)}
	if err := m.Put(ctx, orphan, bytes.NewReader(data), o); err != nil {
		t.Fatal(err)
	}
	a = b.MustOpen()
	var kept []string
	for _, key := range m.Keys() {
		if key != orphan && !storage.Replaceable(key) && !strings.Contains(key, "/records/") {
			kept = append(kept, key)
		}
	}
	end := began.AddDate(10, 0, 0)
	extended := int64(0)
	for day := 0; c.now().Before(end.AddDate(0, 3, 0)); day++ {
		step := 24 * time.Hour
		switch {
		case day > 3*365:
			step = 20 * 24 * time.Hour
		case day%97 == 50: // restarted
			b.Close(a)
			a = b.MustOpen()
		case day == 500: // away
			step = 20 * 24 * time.Hour
		}
		c.advance(step)
		round, err := a.ExtendLocks(ctx)
		if err != nil || round.Short > 0 {
			t.Fatalf("day %d: got %+v, %v", day, round, err)
		}
		extended += round.Extended
		for _, key := range kept {
			until := lockOf(t, m, key)
			if until.After(c.now().Add(horizon)) {
				t.Fatalf("day %d: %s is locked until %v, beyond the horizon", day, key, until)
			}
			if key == dated && until.After(end.Add(time.Minute)) {
				t.Fatalf("day %d: %s is locked until %v, beyond its retention date %v", day, key, until, end)
			}
			if least := c.now().Add(horizon / 3); until.Before(least) && (key != dated || until.Before(end.Add(-time.Minute))) {
				t.Fatalf("day %d (%v): %s is locked only until %v", day, c.now(), key, until)
			}
		}
	}
	if got := lockOf(t, m, orphan); !got.Equal(o.RetainUntil) {
		t.Errorf("the orphan is locked until %v, want as it was put, %v", got, o.RetainUntil)
	}
	if most := int64(len(kept)) * 25; extended == 0 || extended > most {
		t.Errorf("%d extensions of %d objects in ten years, want at most %d", extended, len(kept), most)
	}
	b.Close(a)
}

func keyWith(m *storagetest.Mem, part string) string {
	for _, key := range m.Keys() {
		if strings.Contains(key, part) {
			return key
		}
	}
	return ""
}

// TestWhatIsPutBackIsLockedNoLongerThanItIsKept loses a package that has a retention date, near it and behind it.
func TestWhatIsPutBackIsLockedNoLongerThanItIsKept(t *testing.T) {
	c := &clock{}
	end := c.now().AddDate(10, 0, 0)
	m := storagetest.NewMem(t)
	m.Now = c.now
	b := archivetest.New(t, m)
	b.Vary = func(cfg *archive.Config) { cfg.Now, cfg.AuditTick = c.now, 0 }
	a := b.MustOpen()
	r, err := a.Submit(ctx, described(t, "1", archivetest.PDF("posta"), func(d *policies.Description) { d.Class = "spese-postali" }))
	if err != nil || r.Refused() {
		t.Fatalf("got %+v, %v", r, err)
	}
	key, from := keyWith(m, r.Body.Package), copyAll(m)
	for _, near := range []struct {
		to   time.Time
		lock time.Time
	}{{end.AddDate(-5, 0, 0), end.AddDate(-5, 0, 0).Add(horizon)}, {end.AddDate(0, -3, 0), end}, {end.AddDate(0, 1, 0), time.Time{}}} {
		c.advance(near.to.Sub(c.now()))
		m.Delete(key)
		if got := repaired(t, a, from, key)[key]; got.What != archive.Restored {
			t.Fatalf("at %v: got %+v, want it put back", near.to, got)
		}
		if got := lockOf(t, m, key); got.Sub(near.lock).Abs() > time.Hour {
			t.Errorf("put back at %v: locked until %v, want %v", near.to, got, near.lock)
		}
	}
	b.Close(a)
}

// TestAShortLockIsFoundAndMended takes the lock of one object of each kind away.
func TestAShortLockIsFoundAndMended(t *testing.T) {
	for _, room := range []string{mine + "/packages/", mine + "/ledger/", mine + "/reports/", "evidence/", "keys/"} {
		t.Run(room, func(t *testing.T) {
			m := storagetest.NewMem(t)
			b := archivetest.New(t, m)
			a := b.MustOpen()
			mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			mustAudit(t, a, mine, paper.VerdictGood)
			if _, err := a.ExtendLocks(ctx); err != nil { // noted as locked for long
				t.Fatal(err)
			}
			key := inRoom(m.Keys(), room)[0]
			m.Unlock(key)
			out := audited(t, a, mine, paper.VerdictGood)
			found := false
			for _, f := range out.Report.Findings {
				found = found || f.Object == key && f.Kind == "lock" && f.Gravity == paper.Warning
			}
			if !found {
				t.Errorf("the audit does not name it: %+v", out.Report.Findings)
			}
			round, err := a.ExtendLocks(ctx)
			if err != nil || round.Short != 1 || round.Extended != 1 {
				t.Errorf("got %+v, %v, want one short and extended", round, err)
			}
			if until := lockOf(t, m, key); until.Before(time.Now().Add(horizon - time.Hour)) {
				t.Errorf("it is locked until %v", until)
			}
			if got := a.Status(ctx); got.LocksAt == "" || got.LocksShort != 1 {
				t.Errorf("status: got %q, %d", got.LocksAt, got.LocksShort)
			}
			b.Close(a)
		})
	}
}

// slowLocks takes its time over each lock.
type slowLocks struct {
	*storagetest.Mem
	begun, end chan struct{}
}

func (s *slowLocks) Extend(ctx context.Context, key, id string, until time.Time) error {
	select {
	case s.begun <- struct{}{}:
	default:
	}
	<-s.end
	return s.Mem.Extend(ctx, key, id, until)
}

// TestAnAuditDoesNotWaitForARoundOverTheLocks audits a short lock while a round hangs; the next round sees to it.
func TestAnAuditDoesNotWaitForARoundOverTheLocks(t *testing.T) {
	m := storagetest.NewMem(t)
	s := &slowLocks{m, make(chan struct{}, 1), make(chan struct{})}
	b := archivetest.New(t, s)
	b.Vary = func(cfg *archive.Config) { cfg.AuditTick = 0 }
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	if _, err := a.ExtendLocks(ctx); err != nil {
		t.Fatal(err)
	}
	r := mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo"))
	first, second := inRoom(m.Keys(), mine+"/packages/")[0], inRoom(m.Keys(), mine+"/packages/")[1]
	if strings.Contains(first, r.Body.Package) {
		first, second = second, first
	}
	m.Unlock(second) // which the round meets, and hangs
	round := make(chan error, 1)
	go func() {
		_, err := a.ExtendLocks(ctx)
		round <- err
	}()
	<-s.begun
	m.Unlock(first) // noted as locked
	audited := make(chan error, 1)
	go func() {
		_, err := a.Audit(ctx, archive.Scope{Producer: mine})
		audited <- err
	}()
	select {
	case err := <-audited:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the audit waits for the round")
	}
	close(s.end)
	if err := <-round; err != nil {
		t.Error(err)
	}
	if got, err := a.ExtendLocks(ctx); err != nil || got.Extended != 1 || lockOf(t, m, first).IsZero() {
		t.Errorf("got %+v, %v, want one extended", got, err)
	}
	b.Close(a)
}

// TestAShortLockIsRememberedAcrossARestart stops the daemon between the audit that found it and the round that mends it.
func TestAShortLockIsRememberedAcrossARestart(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	r := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	if _, err := a.ExtendLocks(ctx); err != nil { // noted as locked for long
		t.Fatal(err)
	}
	key := keyWith(m, r.Body.Package)
	m.Unlock(key)
	if _, err := a.Audit(ctx, archive.Scope{Producer: mine}); err != nil {
		t.Fatal(err)
	}
	b.Close(a)
	a = b.MustOpen()
	if _, err := a.ExtendLocks(ctx); err != nil || lockOf(t, m, key).IsZero() {
		t.Errorf("no lock after a restart and a round: %v", err)
	}
	b.Close(a)
}

// TestWhatADamagedCommitNamesIsLookedAtTheDayItIsMended takes the lock of what it names meanwhile.
func TestWhatADamagedCommitNamesIsLookedAtTheDayItIsMended(t *testing.T) {
	c := &clock{}
	m := storagetest.NewMem(t)
	m.Now = c.now
	b := archivetest.New(t, m)
	b.Vary = func(cfg *archive.Config) { cfg.Now, cfg.AuditTick = c.now, 0 }
	a := b.MustOpen()
	r := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	for i := range 3 {
		mustSubmit(t, b, a, mine, archivetest.Determina(string(rune('2'+i)), "testo"))
	}
	b.Close(a)
	key := keyWith(m, r.Body.Package)
	at := ""
	for _, k := range inRoom(m.Keys(), mine+"/ledger/") {
		if at == "" && bytes.Contains(m.Bytes(k), []byte(key)) {
			at = k
		}
	}
	if at == "" || at == ledger.Key(mine, 0) {
		t.Fatalf("the package is named in %q", at)
	}
	good := m.Bytes(at)
	m.Overwrite(at, nil)
	m.Unlock(key)
	for _, name := range []string{"locks-" + mine} {
		if err := os.RemoveAll(filepath.Join(b.State, name)); err != nil {
			t.Fatal(err)
		}
	}
	a = b.MustOpen()
	if _, err := a.ExtendLocks(ctx); err != nil {
		t.Fatal(err)
	}
	if !lockOf(t, m, key).IsZero() {
		t.Fatal("it was looked at through a damaged commit")
	}
	m.Overwrite(at, good)
	c.advance(25 * time.Hour)
	if _, err := a.ExtendLocks(ctx); err != nil || lockOf(t, m, key).IsZero() {
		t.Errorf("no lock a day later: %v", err)
	}
	b.Close(a)
}

// TestWhatIsNotGivenHoldsUpNoOtherLock has the store not give a commit, not say anything of an object, or not give the one
// of two versions that is meant, in the first batch of commits, and runs a round a day for a year. What is given is not looked
// at again each day on that account.
func TestWhatIsNotGivenHoldsUpNoOtherLock(t *testing.T) {
	const batch = 256
	for name, hurt := range map[string]func(m *storagetest.Mem, commit, object string, deny *atomic.Pointer[string]) (told string){
		"commit not given": func(m *storagetest.Mem, commit, _ string, _ *atomic.Pointer[string]) string {
			m.Rot(commit)
			return commit
		},
		"object not looked at": func(_ *storagetest.Mem, _, object string, deny *atomic.Pointer[string]) string {
			deny.Store(&object)
			return object
		},
		"version not given": func(m *storagetest.Mem, _, object string, _ *atomic.Pointer[string]) string {
			other := make([]byte, len(m.Bytes(object)))
			m.Rot(object)
			m.Plant(object, other)
			return object
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clock{}
			m := storagetest.NewMem(t)
			m.Now = c.now
			var deny atomic.Pointer[string]
			m.OnStat = func(key string) error {
				if k := deny.Load(); k != nil && *k == key {
					return errors.New("503")
				}
				return nil
			}
			b := archivetest.New(t, m)
			b.Vary = func(cfg *archive.Config) { cfg.Now, cfg.AuditTick = c.now, 0 }
			a := b.MustOpen()
			first := mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
			log, err := a.Ledger(mine)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range holds(batch + 10) {
				if _, err := log.Append(ctx, ledger.Pending{Entry: e}); err != nil {
					t.Fatal(err)
				}
			}
			last := keyWith(m, mustSubmit(t, b, a, mine, archivetest.Determina("2", "testo")).Body.Package)
			commits := inRoom(m.Keys(), mine+"/ledger/")
			if len(commits) <= batch {
				t.Fatalf("got %d commits, want more than a batch", len(commits))
			}
			told := hurt(m, commits[3], keyWith(m, first.Body.Package), &deny)
			for day := range 365 {
				round, err := a.ExtendLocks(ctx)
				if err == nil || !strings.Contains(err.Error(), told) {
					t.Fatalf("day %d: got %v, want %s named", day, err, told)
				}
				if most := round.Extended + 10; round.Looked > most && day > 0 {
					t.Fatalf("day %d: %d were looked at, want at most %d", day, round.Looked, most)
				}
				if until := lockOf(t, m, last); until.Before(c.now().Add(horizon / 3)) {
					t.Fatalf("day %d: the last package is locked only until %v", day, until.Sub(c.now()))
				}
				c.advance(24 * time.Hour)
			}
			b.Close(a)
		})
	}
}
