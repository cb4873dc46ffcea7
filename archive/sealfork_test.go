package archive_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/storage/storagetest"
)

// slowTSA answers, once it is armed, when it is told to.
type slowTSA struct {
	signing.Timestamper
	armed       atomic.Bool
	asked, give chan struct{}
}

func (s *slowTSA) Timestamp(ctx context.Context, digest [32]byte) ([]byte, error) {
	if s.armed.CompareAndSwap(true, false) {
		close(s.asked)
		<-s.give
	}
	return s.Timestamper.Timestamp(ctx, digest)
}

// TestASealThatIsNotAloneIsNotNoted has another daemon make seal n while this one waits for its timestamp, and somebody lay
// a delete marker over it, or has the store let both writers win: this one's seal is put, and whose goes on only a person
// can say.
func TestASealThatIsNotAloneIsNotNoted(t *testing.T) {
	m := storagetest.NewMem(t)
	m.Lenient = true // two seals are acknowledged under one key
	b := archivetest.New(t, m)
	tsa := &slowTSA{asked: make(chan struct{}), give: make(chan struct{})}
	b.Vary = func(c *archive.Config) {
		tsa.Timestamper, c.Timestamper = c.Timestamper, tsa
		c.SealWait = time.Millisecond
	}
	a := b.MustOpen()
	mustAccept(t, a, mine, "1")
	rest(t, a)
	n := a.Status(ctx).Seal + 1
	key := seal.Key(n)
	tsa.armed.Store(true)
	r := mustAccept(t, a, mine, "2")
	<-tsa.asked

	other := archivetest.Attach(t, m, t.TempDir(), b.Keys())
	other.Vary = func(c *archive.Config) { c.TrustBucketHead = true }
	second := other.MustOpen()
	rest(t, second)
	if second.Status(ctx).Seal != n {
		t.Fatalf("the other daemon's seal is %d, want %d", second.Status(ctx).Seal, n)
	}
	other.Close(second)
	m.Marker(key)
	close(tsa.give)

	eventually(t, "the fork to be told", func() bool {
		why := a.Status(ctx).SealError
		return strings.Contains(why, "fork") && strings.Contains(why, key) && strings.Contains(why, "perenne repair")
	})
	if o, err := m.Stat(ctx, key); err != nil || len(o.Versions) != 3 {
		t.Fatalf("%d versions of the seal, %v: the test proves nothing", len(o.Versions), err)
	}
	stands := func(when string) {
		t.Helper()
		mustBe(t, b, a, mine, r.Body.Package, paper.Pending)
		if err := a.VoidSeal(ctx, n); archive.KindOf(err) != archive.Invalid || !strings.Contains(err.Error(), "fork") {
			t.Errorf("%s: void: got %v, want invalid", when, err)
		}
		if got := a.Status(ctx); got.Seal != n-1 || !strings.Contains(got.SealError, "fork") {
			t.Errorf("%s: the seals go on: %d, %q", when, got.Seal, got.SealError)
		}
	}
	mustAccept(t, a, mine, "3")
	stands("at once")
	b.Close(a)
	a = b.MustOpen()
	stands("after a restart")
	out := mustAudit(t, a, mine, paper.VerdictDamaged)
	named := false
	for _, f := range out.Report.Findings {
		named = named || f.Object == key && f.Kind == "fork"
	}
	if !named {
		t.Errorf("the audit does not name the fork: %+v", out.Report.Findings)
	}
	stands("after an audit")
	if m.Bytes(seal.Key(n+1)) != nil {
		t.Error("the next seal was made")
	}

	// The other one's is what goes on.
	second = other.MustOpen()
	if got := repaired(t, second, copies{}, key)[key]; got.What != archive.Restored {
		t.Fatalf("got %+v, want the other daemon's seal in front", got)
	}
	other.Close(second)
	if err := os.Remove(filepath.Join(b.State, "seals.forked")); err != nil {
		t.Fatal(err)
	}
	mustAccept(t, a, mine, "4")
	rest(t, a)
	mustBe(t, b, a, mine, r.Body.Package, paper.Sealed)
	b.Close(a)
}

// TestASealIsNotedOnceItIsKnownToBeAlone has the store not tell at first what lies under the number of a seal.
func TestASealIsNotedOnceItIsKnownToBeAlone(t *testing.T) {
	m := storagetest.NewMem(t)
	var deny atomic.Pointer[string]
	m.OnStat = func(key string) error {
		if k := deny.Load(); k != nil && *k == key && m.Bytes(key) != nil {
			return context.DeadlineExceeded
		}
		return nil
	}
	b := archivetest.New(t, m)
	b.Vary = func(c *archive.Config) { c.SealWait = time.Millisecond }
	a := b.MustOpen()
	mustAccept(t, a, mine, "1")
	rest(t, a)
	n := a.Status(ctx).Seal + 1
	key := seal.Key(n)
	deny.Store(&key)
	r := mustAccept(t, a, mine, "2")
	eventually(t, "the seal to wait", func() bool { return strings.Contains(a.Status(ctx).SealError, "alone") })
	if got := a.Status(ctx).Seal; m.Bytes(key) == nil || got != n-1 {
		t.Errorf("the seals end at %d, want the next one put, and not noted", got)
	}
	deny.Store(nil)
	rest(t, a)
	mustBe(t, b, a, mine, r.Body.Package, paper.Sealed)
	mustAudit(t, a, mine, paper.VerdictGood)
	b.Close(a)
}
