package archive_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/storagetest"
)

// voidsTold counts the notices of void numbers in a report.
func voidsTold(r *paper.Report) (n int) {
	for _, f := range r.Findings {
		if f.Kind == "void" && f.Gravity == paper.Notice {
			n++
		}
	}
	return n
}

// sealsGoOn plants what is no seal under the next two numbers of the seals, the first one twice, and has them go on
// behind it: audited, given in evidence, and read again by a machine that knows nothing.
func sealsGoOn(t *testing.T, m backdoor, b *archivetest.Bench) {
	t.Helper()
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	mustAudit(t, a, mine, paper.VerdictGood)
	rest(t, a)
	n := a.Status(ctx).Seal + 1
	if err := a.VoidSeal(ctx, n); archive.KindOf(err) != archive.Invalid || !strings.Contains(err.Error(), "nothing lies") {
		t.Fatalf("nothing there: got %v, want invalid", err)
	}
	for i := range int64(2) {
		m.Plant(seal.Key(n+i), fmt.Appendf(nil, "altro %d", i))
	}
	m.Plant(seal.Key(n), []byte("ancora altro"))
	r := mustAccept(t, a, mine, "2")
	if r.Evidence.Seal != paper.Pending || a.Status(ctx).SealError == "" {
		t.Fatalf("got %s and %q, want pending and why", r.Evidence.Seal, a.Status(ctx).SealError)
	}
	for _, other := range []int64{n - 1, n + 1, 0} {
		if err := a.VoidSeal(ctx, other); archive.KindOf(err) != archive.Invalid {
			t.Errorf("number %d: got %v, want invalid", other, err)
		}
	}
	if err := a.VoidSeal(ctx, n); err != nil {
		t.Fatal(err)
	}
	if err := a.VoidSeal(ctx, n); archive.KindOf(err) != archive.Invalid {
		t.Errorf("again: got %v, want invalid", err)
	}
	rest(t, a)
	mustBe(t, b, a, mine, r.Body.Package, paper.Sealed)
	later := mustSubmit(t, b, a, mine, archivetest.Determina("3", "testo"))
	m.Plant(seal.Key(n+1), []byte("e poi altro"))
	out := mustAudit(t, a, mine, paper.VerdictGood)
	if told := voidsTold(out.Report); told != 2 {
		t.Errorf("the report tells of %d void numbers, want 2: %+v", told, out.Report.Findings)
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
	for _, again := range []bool{false, true} { // from the mark, and from the bucket alone
		b.Vary = func(c *archive.Config) {
			if again {
				c.State, c.TrustBucketHead = c.State+"-again", true
			}
		}
		if err := os.RemoveAll(b.State + "/catalog"); err != nil {
			t.Fatal(err)
		}
		a = b.MustOpen()
		if got := a.Status(ctx).SealError; got != "" {
			t.Errorf("again %v: seals stand still: %s", again, got)
		}
		mustBe(t, b, a, mine, r.Body.Package, paper.Sealed)
		mustBe(t, b, a, mine, later.Body.Package, paper.Sealed)
		mustAudit(t, a, mine, paper.VerdictGood)
		rest(t, a)
		b.Close(a)
	}
}

func TestTheSealsGoOnBehindForeignObjects(t *testing.T) {
	m := storagetest.NewMem(t)
	sealsGoOn(t, m, archivetest.New(t, m))
}

func TestTheSealsGoOnBehindForeignObjectsOnServers(t *testing.T) {
	onServers(t, s3.Compliance, func(t *testing.T, m *administrator, b *archivetest.Bench) { sealsGoOn(t, m, b) })
}

// TestAVoidSealWhoseObjectIsGoneIsDamage replaces what was called void.
func TestAVoidSealWhoseObjectIsGoneIsDamage(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	rest(t, a)
	n := a.Status(ctx).Seal + 1
	m.Plant(seal.Key(n), []byte("altro"))
	mustAccept(t, a, mine, "2")
	if err := a.VoidSeal(ctx, n); err != nil {
		t.Fatal(err)
	}
	m.Overwrite(seal.Key(n), []byte("diverso"))
	out := mustAudit(t, a, mine, paper.VerdictDamaged)
	if f := out.Report.Findings; len(f) != 1 || f[0].Object != seal.Key(n) || f[0].Kind != "void" {
		t.Errorf("got %+v, want the void number named", f)
	}
	b.Close(a)
}

// TestNothingIsLockedWhereNothingWaitsForASeal has what lies under the next number called void in an archive where all is
// sealed.
func TestNothingIsLockedWhereNothingWaitsForASeal(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	a := b.MustOpen()
	mustSubmit(t, b, a, mine, archivetest.Determina("1", "testo"))
	rest(t, a)
	key := seal.Key(a.Status(ctx).Seal + 1)
	m.Plant(key, []byte("altro"))
	if err := a.VoidSeal(ctx, a.Status(ctx).Seal+1); archive.KindOf(err) != archive.Invalid || !strings.Contains(err.Error(), "nothing waits") {
		t.Errorf("got %v, want invalid", err)
	}
	if until := lockOf(t, m, key); !until.IsZero() {
		t.Errorf("the object is locked until %v", until)
	}
	b.Close(a)
}

// TestASealOfOursIsNotVoid has another machine's seal, that follows nothing this one knows, lie where the next one goes.
func TestASealOfOursIsNotVoid(t *testing.T) {
	m := storagetest.NewMem(t)
	b := archivetest.New(t, m)
	n := severalSeals(t, b, m)
	last, err := seal.Parse(m.Bytes(seal.Key(n - 1)))
	if err != nil {
		t.Fatal(err)
	}
	last.Number, last.Previous = n, sha256.Sum256(nil)
	m.Plant(seal.Key(n), last.Marshal())
	b.Vary = func(c *archive.Config) { c.SealEvery = time.Hour }
	a := b.MustOpen()
	mustAccept(t, a, mine, "2")
	if err := a.VoidSeal(ctx, n); archive.KindOf(err) != archive.Invalid || !strings.Contains(err.Error(), "over ledgers of this archive") {
		t.Errorf("got %v, want invalid", err)
	}
	b.Close(a)
}

// halted is an archive that makes no seal by itself and has something to seal. n is the number of the next seal, theirs one
// as another machine may have made it, which follows nothing that this one knows.
type halted struct {
	*storagetest.Mem
	b        *archivetest.Bench
	a        *archive.Archive
	n        int64
	theirs   *seal.Seal
	put, get atomic.Pointer[func(key string) (bool, error)] // as OnPut and OnGet of the store, to be set while it is used
}

// severalSeals submits until there is more than one seal, and tells how many there are: one may cover all that came before
// it, and under another number the first has other leaves than those it was made over.
func severalSeals(t *testing.T, b *archivetest.Bench, m *storagetest.Mem) int64 {
	t.Helper()
	for i := 0; ; i++ {
		a := b.MustOpen()
		mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(1+100*i), "testo"))
		b.Close(a)
		if n := len(inRoom(m.Keys(), "evidence/")); n > 1 {
			return int64(n)
		}
	}
}

func halt(t *testing.T) *halted {
	t.Helper()
	h := &halted{Mem: storagetest.NewMem(t)}
	ask := func(hook *atomic.Pointer[func(string) (bool, error)], key string) (bool, error) {
		if f := hook.Load(); f != nil {
			return (*f)(key)
		}
		return true, nil
	}
	h.OnPut = func(key string) (bool, error) { return ask(&h.put, key) }
	h.OnGet = func(key string) (bool, error) { return ask(&h.get, key) }
	h.b = archivetest.New(t, h.Mem)
	h.n = severalSeals(t, h.b, h.Mem)
	var err error
	if h.theirs, err = seal.Parse(h.Bytes(seal.Key(h.n - 1))); err != nil {
		t.Fatal(err)
	}
	h.theirs.Number, h.theirs.Previous = h.n, sha256.Sum256(h.theirs.Marshal())
	h.b.Vary = func(c *archive.Config) { c.SealEvery = time.Hour }
	var asked atomic.Int64
	h.on(&h.get, func(key string) (bool, error) {
		if key == seal.Key(h.n) {
			asked.Add(1)
		}
		return true, nil
	})
	h.a = h.b.MustOpen()
	eventually(t, "the attempt at the start to find nothing to seal", func() bool { return asked.Load() > 1 })
	mustAccept(t, h.a, mine, "2")
	h.get.Store(nil)
	return h
}

func (h *halted) on(hook *atomic.Pointer[func(string) (bool, error)], f func(key string) (bool, error)) {
	hook.Store(&f)
}

// TestASealThatComesWhileItsNumberIsCalledVoidIsAFork has another machine's seal come to lie under the number just
// before the seal that calls it void is made: that one is there then, and nobody may say that nothing was changed.
func TestASealThatComesWhileItsNumberIsCalledVoidIsAFork(t *testing.T) {
	h := halt(t)
	h.Plant(seal.Key(h.n), []byte("altro"))
	h.on(&h.put, func(key string) (bool, error) {
		if key == seal.Key(h.n+1) {
			h.Plant(seal.Key(h.n), h.theirs.Marshal())
		}
		return true, nil
	})
	err := h.a.VoidSeal(ctx, h.n)
	if archive.KindOf(err) != archive.Damaged || !strings.Contains(err.Error(), seal.Key(h.n)) || !strings.Contains(err.Error(), "fork") {
		t.Errorf("got %v, want damage, with the key of seal %d", err, h.n)
	}
	if text := fmt.Sprint(err); strings.Contains(text, "not void") || strings.Contains(text, "%!") {
		t.Errorf("got %q", text)
	}
	if h.Bytes(seal.Key(h.n+1)) == nil {
		t.Error("the seal that calls the number void is not there: the test proves nothing")
	}
	h.b.Close(h.a)
}

// TestAMarkerThatComesWhileANumberIsCalledVoidIsNoFork lays a delete marker over what is being called void.
func TestAMarkerThatComesWhileANumberIsCalledVoidIsNoFork(t *testing.T) {
	h := halt(t)
	h.Plant(seal.Key(h.n), []byte("altro"))
	h.on(&h.put, func(key string) (bool, error) {
		if key == seal.Key(h.n+1) {
			h.Delete(seal.Key(h.n))
			h.Marker(seal.Key(h.n))
		}
		return true, nil
	})
	if err := h.a.VoidSeal(ctx, h.n); err != nil {
		t.Error(err)
	}
	h.b.Close(h.a)
}

// TestWhatCannotBeLookedAtAgainIsNotSaidToBeUnchanged has the store give nothing after the seal was made.
func TestWhatCannotBeLookedAtAgainIsNotSaidToBeUnchanged(t *testing.T) {
	h := halt(t)
	h.Plant(seal.Key(h.n), []byte("altro"))
	h.on(&h.get, func(key string) (bool, error) {
		if key == seal.Key(h.n) && h.Bytes(seal.Key(h.n+1)) != nil {
			return true, errors.New("503")
		}
		return true, nil
	})
	if err := h.a.VoidSeal(ctx, h.n); archive.KindOf(err) != archive.Unavailable || !strings.Contains(err.Error(), "is void now") {
		t.Errorf("got %v, want unavailable, with the number void", err)
	}
	h.b.Close(h.a)
}

// TestNothingIsCalledVoidWhereNothingLies has the store fail once when it is asked for the next seal, which is not there.
func TestNothingIsCalledVoidWhereNothingLies(t *testing.T) {
	h := halt(t)
	failed := false
	h.on(&h.get, func(key string) (bool, error) {
		if key == seal.Key(h.n) && !failed {
			failed = true
			return true, errors.New("503")
		}
		return true, nil
	})
	if err := h.a.VoidSeal(ctx, h.n); archive.KindOf(err) != archive.Invalid || !failed {
		t.Errorf("got %v, want invalid", err)
	}
	if h.Bytes(seal.Key(h.n)) != nil {
		t.Error("an ordinary seal was made")
	}
	h.b.Close(h.a)
}

// TestASealHiddenByAForeignObjectIsNotVoid lays foreign objects under the next two numbers, the second over a seal of
// another machine: one that goes on behind the first, and one that goes on from a seal that is gone.
func TestASealHiddenByAForeignObjectIsNotVoid(t *testing.T) {
	t.Run("behind a void number", func(t *testing.T) {
		h := halt(t)
		h.Plant(seal.Key(h.n), []byte("altro"))
		other := archivetest.Attach(t, h.Mem, t.TempDir(), h.b.Keys())
		other.Vary = func(c *archive.Config) { c.SealEvery, c.TrustBucketHead = time.Hour, true }
		second := other.MustOpen()
		if err := second.VoidSeal(ctx, h.n); err != nil {
			t.Fatal(err)
		}
		h.Plant(seal.Key(h.n+1), []byte("davanti"))
		var mu sync.Mutex
		asked := map[string]int{}
		h.on(&h.get, func(key string) (bool, error) { // until every version was asked for; else what is there is read at once
			mu.Lock()
			defer mu.Unlock()
			if asked[key]++; strings.HasPrefix(key, "evidence/") && key >= seal.Key(h.n) && asked[key] <= 3 {
				return true, errors.New("503")
			}
			return true, nil
		})
		if err := h.a.VoidSeal(ctx, h.n); err != nil || h.a.Status(ctx).Seal != h.n+1 {
			t.Errorf("got %v and seal %d, want that of the other machine", err, h.a.Status(ctx).Seal)
		}
		if h.Bytes(seal.Key(h.n+2)) != nil {
			t.Error("the number of a seal was called void")
		}
		h.b.Close(h.a)
		other.Close(second)
	})
	t.Run("behind a seal that is gone", func(t *testing.T) {
		h := halt(t)
		h.Plant(seal.Key(h.n), []byte("altro"))
		h.theirs.Number = h.n + 1
		h.Plant(seal.Key(h.n+1), h.theirs.Marshal())
		h.Plant(seal.Key(h.n+1), []byte("davanti"))
		if err := h.a.VoidSeal(ctx, h.n); archive.KindOf(err) != archive.Invalid || !strings.Contains(err.Error(), "goes on from") {
			t.Errorf("got %v, want invalid", err)
		}
		if h.Bytes(seal.Key(h.n+2)) != nil {
			t.Error("the number of a seal was called void")
		}
		h.b.Close(h.a)
	})
}

// TestASealUnderAVoidNumberIsAFork has another machine make seal n, the store lose it, and a foreign object come to lie
// there, behind which the seals go on. That machine's seal comes back, in front or behind: papers may rest on it.
func TestASealUnderAVoidNumberIsAFork(t *testing.T) {
	h := halt(t)
	other := archivetest.Attach(t, h.Mem, t.TempDir(), h.b.Keys())
	other.Vary = func(c *archive.Config) { c.SealEvery, c.TrustBucketHead = time.Hour, true }
	second := other.MustOpen()
	other.Close(second)
	theirs := h.Bytes(seal.Key(h.n))
	if theirs == nil || h.Bytes(seal.Key(h.n+1)) != nil {
		t.Fatal("the other machine has not made the next seal, and that alone")
	}
	h.Delete(seal.Key(h.n))
	h.Plant(seal.Key(h.n), []byte("altro"))
	if err := h.a.VoidSeal(ctx, h.n); err != nil {
		t.Fatal(err)
	}
	mustAudit(t, h.a, mine, paper.VerdictGood)
	isFork := func(a *archive.Archive) {
		t.Helper()
		out := mustAudit(t, a, mine, paper.VerdictDamaged)
		for _, f := range out.Report.Findings {
			if f.Object == seal.Key(h.n) && f.Kind == "fork" {
				return
			}
		}
		t.Errorf("no fork of seal %d: %+v", h.n, out.Report.Findings)
	}
	other.Vary = func(c *archive.Config) { c.SealEvery = time.Hour }
	second = other.MustOpen()
	isFork(second) // it knows of its own seal, whatever lies there
	other.Close(second)
	h.Plant(seal.Key(h.n), theirs)
	isFork(h.a)
	h.Plant(seal.Key(h.n), []byte("davanti"))
	isFork(h.a)
	h.b.Close(h.a)
}

// TestAForgedSealCalledVoidIsNoFork has a seal with a good token, over entries that no ledger has, called void.
func TestAForgedSealCalledVoidIsNoFork(t *testing.T) {
	h := halt(t)
	forged := *h.theirs
	forged.Ranges = []seal.Range{{Producer: mine, End: 1 << 40, LastCommit: 1 << 40}}
	h.Plant(seal.Key(h.n), forged.Marshal())
	if err := h.a.VoidSeal(ctx, h.n); err != nil {
		t.Fatal(err)
	}
	if told := voidsTold(mustAudit(t, h.a, mine, paper.VerdictGood).Report); told != 1 {
		t.Errorf("the report tells of %d void numbers, want one", told)
	}
	h.b.Close(h.a)
}

// TestMarkersOverVoidNumbersAreNamed lays a delete marker over a void seal and a void commit, and versions, which are no
// finding there.
func TestMarkersOverVoidNumbersAreNamed(t *testing.T) {
	h := halt(t)
	h.Plant(seal.Key(h.n), []byte("altro"))
	if err := h.a.VoidSeal(ctx, h.n); err != nil {
		t.Fatal(err)
	}
	h.b.Close(h.a)
	commits := inRoom(h.Keys(), mine+"/ledger/")
	number := int64(len(commits))
	commit := ledger.Key(mine, number)
	h.Plant(commit, []byte("altro"))
	h.b.Vary = nil
	a := h.b.MustOpen()
	if err := a.VoidCommit(ctx, mine, number); err != nil {
		t.Fatal(err)
	}
	mustSubmit(t, h.b, a, mine, archivetest.Determina("3", "testo"))
	for _, key := range []string{seal.Key(h.n), commit} {
		h.Plant(key, []byte("e poi altro"))
	}
	mustAudit(t, a, mine, paper.VerdictGood)
	for _, key := range []string{seal.Key(h.n), commit} {
		h.Marker(key)
		h.Plant(key, []byte("sopra"))
		out := mustAudit(t, a, mine, paper.VerdictDamaged)
		if f := damages(out); len(f) != 1 || f[0].Object != key || f[0].Kind != "delete marker" {
			t.Errorf("%s: got %+v, want the delete marker named, and nothing else", key, f)
		}
		for _, r := range repaired(t, a, copies{}) {
			if want := r.Key == key; want != (r.What == archive.Uncover) {
				t.Errorf("repair of %s: %s", r.Key, r.What)
			}
		}
		mustAudit(t, a, mine, paper.VerdictGood)
	}
	h.Marker(commit)
	part, err := a.Audit(ctx, archive.Scope{Producer: mine, First: 0, End: a.Status(ctx).Producers[0].Entries})
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	if f := damages(part); len(f) != 1 || f[0].Object != commit || f[0].Kind != "delete marker" {
		t.Errorf("a range: got %+v, want the delete marker named", f)
	}
	h.b.Close(a)
}

func damages(out *archive.Audited) (list []paper.ReportFinding) {
	for _, f := range out.Report.Findings {
		if f.Gravity == paper.Damage {
			list = append(list, f)
		}
	}
	return list
}

// fresh is a machine that knows of no seal yet but those in the bucket, and seals at once.
func (h *halted) fresh(t *testing.T) (*archivetest.Bench, *archive.Archive) {
	t.Helper()
	b := archivetest.Attach(t, h.Mem, t.TempDir(), h.b.Keys())
	b.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
	return b, b.MustOpen()
}

// TestNoSecondChainIsMadeWhereTheObjectOfAVoidNumberIsGone takes away what lay under void numbers, all of it or but for a
// delete marker.
func TestNoSecondChainIsMadeWhereTheObjectOfAVoidNumberIsGone(t *testing.T) {
	for name, gone := range map[string]func(h *halted){
		"all":    func(h *halted) { h.Delete(seal.Key(h.n)); h.Delete(seal.Key(h.n + 1)) },
		"first":  func(h *halted) { h.Delete(seal.Key(h.n)) },
		"second": func(h *halted) { h.Delete(seal.Key(h.n + 1)) },
		"marker": func(h *halted) { h.Delete(seal.Key(h.n)); h.Marker(seal.Key(h.n)); h.Delete(seal.Key(h.n + 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := halt(t)
			h.Plant(seal.Key(h.n), []byte("altro"))
			h.Plant(seal.Key(h.n+1), []byte("e altro"))
			if err := h.a.VoidSeal(ctx, h.n); err != nil {
				t.Fatal(err)
			}
			h.b.Close(h.a)
			gone(h)
			there := h.Bytes(seal.Key(h.n)) != nil
			b, a := h.fresh(t)
			rest(t, a)
			if got := a.Status(ctx).Seal; got < h.n+2 {
				t.Errorf("the seals end at %d, want %d or later", got, h.n+2)
			}
			if h.Bytes(seal.Key(h.n)) != nil != there {
				t.Error("a second chain was begun")
			}
			out := mustAudit(t, a, mine, paper.VerdictDamaged)
			for _, f := range damages(out) {
				if f.Object != seal.Key(h.n) && f.Object != seal.Key(h.n+1) {
					t.Errorf("accused: %+v", f)
				}
			}
			b.Close(a)
		})
	}
}

// TestNoSealIsMadeWhereOneIsMissing has a seal, and all that this machine knows of seals, lost while later ones are there.
func TestNoSealIsMadeWhereOneIsMissing(t *testing.T) {
	h := halt(t)
	h.b.Close(h.a) // makes seal n
	lost := h.Bytes(seal.Key(h.n - 1))
	h.Delete(seal.Key(h.n - 1))
	b, a := h.fresh(t)
	eventually(t, "the missing seal to be told", func() bool { return strings.Contains(a.Status(ctx).SealError, seal.Key(h.n)) })
	if got := a.Status(ctx).SealError; !strings.Contains(got, "perenne repair") {
		t.Errorf("got %q, want what to do", got)
	}
	if h.Bytes(seal.Key(h.n-1)) != nil {
		t.Error("a second chain was begun")
	}
	if err := a.VoidSeal(ctx, h.n-1); archive.KindOf(err) != archive.Invalid {
		t.Errorf("void: got %v, want invalid", err)
	}
	h.Plant(seal.Key(h.n-1), lost)
	mustAccept(t, a, mine, "3")
	rest(t, a)
	mustAudit(t, a, mine, paper.VerdictGood)
	b.Close(a)
}

// TestWhatIsNoSealHoldsNothingUpBeforeItsNumberComes lays foreign objects and a delete marker further on.
func TestWhatIsNoSealHoldsNothingUpBeforeItsNumberComes(t *testing.T) {
	h := halt(t)
	h.b.Close(h.a)
	h.Plant(seal.Key(h.n+90), []byte("altro"))
	h.Plant("evidence/letto", []byte("altro"))
	h.b.Vary = nil
	a := h.b.MustOpen()
	mustSubmit(t, h.b, a, mine, archivetest.Determina("3", "testo"))
	h.b.Close(a)
	h.Marker(seal.Key(h.n + 80))
	a = h.b.MustOpen()
	mustAccept(t, a, mine, "4")
	if got := a.Status(ctx).SealError; !strings.Contains(got, seal.Key(h.n+80)) || !strings.Contains(got, "repair") {
		t.Errorf("got %q, want the delete marker named, and what to do", got)
	}
	for _, r := range repaired(t, a, copies{}, seal.Key(h.n+80)) {
		if r.What != archive.Uncover {
			t.Errorf("repair: %+v", r)
		}
	}
	mustAccept(t, a, mine, "5")
	rest(t, a)
	h.b.Close(a)
}

// TestNoNumberIsCalledVoidBeforeASealFurtherOn has a foreign object under n, nothing behind it, and then a seal that goes on
// from one that is gone.
func TestNoNumberIsCalledVoidBeforeASealFurtherOn(t *testing.T) {
	h := halt(t)
	h.Plant(seal.Key(h.n), []byte("altro"))
	h.theirs.Number = h.n + 2
	h.Plant(seal.Key(h.n+2), h.theirs.Marshal())
	if err := h.a.VoidSeal(ctx, h.n); archive.KindOf(err) != archive.Invalid || !strings.Contains(err.Error(), seal.Key(h.n+2)) {
		t.Errorf("got %v, want invalid, with the seal named", err)
	}
	if h.Bytes(seal.Key(h.n+1)) != nil {
		t.Error("a seal was made")
	}
	h.b.Close(h.a)
}

// TestSealsAreListedOnceAndNotForEachOfThem counts the listings of a machine that makes seals.
func TestSealsAreListedOnceAndNotForEachOfThem(t *testing.T) {
	m := storagetest.NewMem(t)
	var listed atomic.Int64
	m.OnList = func(prefix string) error {
		if strings.HasPrefix(prefix, "evidence/") {
			listed.Add(1)
		}
		return nil
	}
	b := archivetest.New(t, m)
	a := b.MustOpen()
	for i := range 4 {
		mustSubmit(t, b, a, mine, archivetest.Determina(fmt.Sprint(i), "testo"))
	}
	if seals, got := a.Status(ctx).Seal, listed.Load(); got != 1 || seals < 3 {
		t.Errorf("%d seals, %d listings, want one", seals+1, got)
	}
	b.Close(a)
}
