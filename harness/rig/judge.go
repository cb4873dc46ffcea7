package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

// What the verdict has found is wrapped by one of these: a planted bug counts as seen when what it must cause is found,
// and nothing else does. An error without them, such as an answer that did not come in time, says nothing of what is kept.
var (
	// ErrLost: something was acknowledged, and the daemon says that it has it not, or not whole.
	ErrLost = errors.New("LOST")
	// ErrChanged: what was acknowledged is given otherwise.
	ErrChanged = errors.New("CHANGED")
	// ErrDoubled: something was acknowledged twice, by papers that differ, or one key is there twice.
	ErrDoubled = errors.New("DOUBLED")
	// ErrDamage: an audit found damage.
	ErrDamage = errors.New("DAMAGED")
	// ErrRolledBack: an audit found less in the bucket than was acknowledged.
	ErrRolledBack = errors.New("ROLLED BACK")
)

// errLater is how an attempt says that it may be made again.
var errLater = errors.New("not yet")

// patiently repeats try while it says errLater, or the daemon gives no whole answer.
func (b *Book) patiently(ctx context.Context, d *Daemon, try func() error) error {
	end := time.Now().Add(b.Patience)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		err := try()
		if !errors.Is(err, errLater) || time.Now().After(end) || ctx.Err() != nil || d.Ended() {
			return err
		}
		sleep(ctx, pause)
	}
}

// same wants two papers to be equal in what never changes: body and proof.
func same(a, b *paper.Receipt) error {
	bodyA, errA := canon.Marshal(a.Body)
	bodyB, errB := canon.Marshal(b.Body)
	switch {
	case errA != nil || errB != nil:
		return errors.Join(errA, errB)
	case !bytes.Equal(bodyA, bodyB):
		return fmt.Errorf("another body: %s, was %s", bodyB, bodyA)
	case a.Proof != b.Proof:
		return errors.New("another proof")
	}
	return nil
}

// Acknowledged are those of list that have a receipt.
func Acknowledged(list []*Sent) []*Sent {
	var out []*Sent
	for _, s := range list {
		if s.Receipt() != nil {
			out = append(out, s)
		}
	}
	return out
}

// each runs check on all of list, several at once, until a few errors are there, which it joins.
func each(list []*Sent, check func(*Sent) error) error {
	const workers, most = 8, 5
	var mu sync.Mutex
	var errs []error
	var work sync.WaitGroup
	queue := make(chan *Sent)
	for range workers {
		work.Go(func() {
			for s := range queue {
				mu.Lock()
				enough := len(errs) >= most
				mu.Unlock()
				if enough {
					continue
				}
				if err := check(s); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("submission %s of %s: %w", s.Number, s.Producer, err))
					mu.Unlock()
				}
			}
		})
	}
	for _, s := range list {
		queue <- s
	}
	close(queue)
	work.Wait()
	return errors.Join(errs...)
}

// Again wants the receipt of everything acknowledged to be given again, equal, and to verify offline, sealed.
func (b *Book) Again(ctx context.Context, d *Daemon, list []*Sent) error {
	return each(Acknowledged(list), func(s *Sent) error {
		var r *paper.Receipt
		err := b.patiently(ctx, d, func() (err error) {
			if r, err = d.Client(b.In.token(s.Producer)).Receipt(ctx, s.Producer, s.ID()); err != nil {
				return later(err)
			}
			if err := same(s.Receipt(), r); err != nil {
				return fmt.Errorf("%w: %w", ErrChanged, err)
			}
			if r.Evidence.Seal != paper.Sealed {
				return fmt.Errorf("%w: the seal is pending", errLater)
			}
			return nil
		})
		if k := archive.KindOf(err); err != nil && (k == archive.NotFound || k == archive.Damaged) {
			return fmt.Errorf("%w: acknowledged, and now: %w", ErrLost, err)
		}
		if err != nil {
			return fmt.Errorf("acknowledged, and not given again: %w", err)
		}
		return b.In.Verify(ctx, r)
	})
}

// later marks an error after which an attempt may be repeated: no whole answer, 503, 429.
func later(err error) error {
	var p *web.Problem
	if errors.As(err, &p) && p.Status != 503 && p.Status != 429 {
		return err
	}
	return fmt.Errorf("%w: %w", errLater, err)
}

// Verify checks a receipt as a stranger would: offline, from its bytes.
func (in *Installation) Verify(ctx context.Context, r *paper.Receipt) error {
	text, err := r.Marshal()
	if err != nil {
		return err
	}
	for _, res := range paper.Verify(ctx, in.Trust, paper.English, []paper.File{{Name: "receipt.json", Size: int64(len(text)), ReaderAt: bytes.NewReader(text)}}) {
		if res.Verdict() != paper.Good {
			return fmt.Errorf("the receipt is %s: %+v", res.Verdict(), res.Lines)
		}
	}
	return nil
}

// Settle sends again what was sent and not answered, until it is, and returns how much that was.
func (b *Book) Settle(ctx context.Context, d *Daemon) (int64, error) {
	var open []*Sent
	for _, s := range b.All() {
		if s.Receipt() == nil {
			open = append(open, s)
		}
	}
	err := each(open, func(s *Sent) error {
		return b.patiently(ctx, d, func() error {
			if !b.Hand(ctx, d, s) {
				return fmt.Errorf("%w: no receipt", errLater)
			}
			return nil
		})
	})
	return int64(len(open)), errors.Join(err, b.Unexpected())
}

// Retry hands over again what was acknowledged and wants the same receipt.
func (b *Book) Retry(ctx context.Context, d *Daemon, list []*Sent) error {
	err := each(Acknowledged(list), func(s *Sent) error {
		return b.patiently(ctx, d, func() error {
			r, err := b.submit(ctx, d, s)
			if err != nil {
				return later(err)
			}
			if err := same(s.Receipt(), r); err != nil {
				return fmt.Errorf("%w: a retry: %w", ErrDoubled, err)
			}
			return nil
		})
	})
	return errors.Join(err, b.Unexpected())
}

// Listing is everything that the catalog of a daemon has of a producer, as JSON lines in the order of a search.
func (in *Installation) Listing(ctx context.Context, d *Daemon, producer string) ([]web.Record, error) {
	q := web.SearchQuery{Producer: producer, Limit: 1000}
	var all []web.Record
	for {
		page, err := d.Client(in.Admin).Search(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Packages...)
		if page.Next == "" {
			return all, nil
		}
		q.After = page.Next
	}
}

// Once wants every key that was sent to be there once, under the identifier that its receipt names, and nothing else.
// Everything must have been settled.
func (b *Book) Once(ctx context.Context, d *Daemon) error {
	var errs []error
	for _, p := range b.In.Bodies {
		want := map[string]string{}
		for _, s := range b.All() {
			if s.Producer == p.Code && !s.Refused {
				want[s.Number] = s.ID()
			}
		}
		list, err := b.In.Listing(ctx, d, p.Code)
		if err != nil {
			return err
		}
		for _, r := range list {
			switch id, ok := want[r.Number]; {
			case !ok:
				errs = append(errs, fmt.Errorf("%w: %s DETE/%s is there twice, or was never sent", ErrDoubled, p.Code, r.Number))
			case id != r.ID || r.Annulled:
				errs = append(errs, fmt.Errorf("%w: %s DETE/%s is package %s, the receipt says %s", ErrChanged, p.Code, r.Number, r.ID, id))
			}
			delete(want, r.Number)
		}
		if len(want) > 0 {
			errs = append(errs, fmt.Errorf("%w: %s: %d packages are not in the catalog: %.200v", ErrLost, p.Code, len(want), want))
		}
	}
	return errors.Join(errs...)
}

// Audit has every producer audited whole and wants the verdict good, and no findings but notices. It returns how many
// notices there were: orphans that deaths have left, and notices of the kinds expected.
func (in *Installation) Audit(ctx context.Context, d *Daemon, expected ...string) (notices int64, err error) {
	if in.spooled() {
		// A death between the copy in the spool and the store's own is told like a loss: the text leaves both open.
		expected = append(expected, "lost")
	}
	for _, p := range in.Bodies {
		answer, _, auditErr := d.Client(in.Admin).Audit(ctx, web.AuditRequest{Producer: p.Code}, nil)
		if auditErr != nil {
			return notices, errors.Join(err, fmt.Errorf("audit of %s: %w", p.Code, auditErr))
		}
		r := answer.Report
		for _, f := range r.Findings {
			if f.Gravity == paper.Notice && (f.Kind == "orphan" || slices.Contains(expected, f.Kind)) {
				notices++
				continue
			}
			err = errors.Join(err, found(p.Code, f))
		}
		if r.Verdict != paper.VerdictGood || !answer.Recorded || len(r.NotChecked) > 0 {
			err = errors.Join(err, fmt.Errorf("audit of %s: %s, recorded %v, not checked %v", p.Code, r.Verdict, answer.Recorded, r.NotChecked))
		}
	}
	return notices, err
}

// found is a finding of an audit as an error.
func found(producer string, f paper.ReportFinding) error {
	err := fmt.Errorf("audit of %s: %+v", producer, f)
	if f.Gravity == paper.Damage {
		err = fmt.Errorf("%w: %w", ErrDamage, err)
	}
	if f.Kind == "rollback" {
		err = fmt.Errorf("%w: %w", ErrRolledBack, err)
	}
	return err
}

// Seen wants what the judge said of a planted bug to be of a kind that the bug must cause. Anything else shows nothing.
func Seen(said error, want ...error) error {
	for _, w := range want {
		if errors.Is(said, w) {
			return nil
		}
	}
	if said == nil {
		return errors.New("a planted bug was taken for sound: this harness proves nothing")
	}
	return fmt.Errorf("a planted bug was not seen for what it does, which is %q: this harness proves nothing: %w", errors.Join(want...).Error(), said)
}

// spooled reports whether the installation has a spool.
func (in *Installation) spooled() bool {
	hold, set := in.Config["store.spool.read_back"]
	return set && hold != "0s" || !set && in.Store.Kind != "dir"
}

// Rebuilt makes the catalog from scratch, out of the bucket alone, in a second installation under scratch, and wants
// it to tell the same as the daemon's.
func (b *Book) Rebuilt(ctx context.Context, d *Daemon, scratch string) (err error) {
	in := b.In
	second, err := in.Copy(ctx, filepath.Join(scratch, "second"), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(second.Root)) }()
	keys := map[string]any{"read_only": true}
	if in.Store.Kind == "dir" {
		keys["store.dir"] = in.Path("store")
	}
	if err := second.Set(keys); err != nil {
		return err
	}
	if out, err := second.Command(ctx, "rebuild", "--trust-bucket-head"); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	other, err := second.Start(ctx, nil, []string{"--trust-bucket-head"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.Kill()) }()
	for _, p := range in.Bodies {
		one, err := in.Listing(ctx, d, p.Code)
		if err != nil {
			return err
		}
		two, err := in.Listing(ctx, other, p.Code)
		if err != nil {
			return err
		}
		textOne, _ := json.Marshal(one) // strings and numbers
		textTwo, _ := json.Marshal(two)
		if !bytes.Equal(textOne, textTwo) {
			return fmt.Errorf("catalog of %s: %d records, made from scratch %d, and they differ", p.Code, len(one), len(two))
		}
	}
	return nil
}

// Leftovers wants the local state and the embedded store to hold nothing half-done. The daemon must run.
func (in *Installation) Leftovers() error {
	var errs []error
	for _, pattern := range []string{"state/*.new", "state/.new-*", "state/ledger/*/*.new"} {
		found, _ := filepath.Glob(in.Path(pattern)) // the pattern is well-formed
		for _, f := range found {
			errs = append(errs, fmt.Errorf("left half-done: %s", f))
		}
	}
	rooms, _ := filepath.Glob(in.Path("store", ".tmp-*"))
	if len(rooms) > 1 { // the running daemon may have one
		errs = append(errs, fmt.Errorf("rooms of dead processes: %s", strings.Join(rooms, " ")))
	}
	return errors.Join(errs...)
}

// Healthy wants no producer to stand still, and the seals to work.
func (in *Installation) Healthy(ctx context.Context, d *Daemon) error {
	h, err := d.Client(in.Admin).Status(ctx)
	if err != nil {
		return err
	}
	for _, p := range h.Producers {
		if p.Stopped != "" {
			err = errors.Join(err, fmt.Errorf("%s stands still: %s", p.Code, p.Stopped))
		}
	}
	if h.SealError != "" {
		err = errors.Join(err, fmt.Errorf("seals: %s", h.SealError))
	}
	return err
}

// Judge judges after a death. With whole false only what is new since from (an index into Book.All) is looked at, and
// neither audit nor rebuild is made. It returns how many orphans the audit listed.
func (b *Book) Judge(ctx context.Context, d *Daemon, from int, whole bool, scratch string) (orphans int64, err error) {
	list := b.All()[from:]
	if whole {
		list = b.All()
	}
	// First, before anything is sent again: a retry must not be what brings back an acknowledged document.
	err = errors.Join(b.Unexpected(), b.In.Healthy(ctx, d), b.Again(ctx, d, list))
	_, settleErr := b.Settle(ctx, d)
	sample := Acknowledged(list)
	most := 5
	if whole {
		most = 50
	}
	err = errors.Join(err, settleErr, b.Retry(ctx, d, sample[max(0, len(sample)-most):]))
	if err != nil || !whole {
		return 0, err
	}
	orphans, err = b.In.Audit(ctx, d)
	return orphans, errors.Join(err, b.Once(ctx, d), b.Rebuilt(ctx, d, scratch), b.In.Leftovers())
}
