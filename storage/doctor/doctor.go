// Package doctor examines a [storage.Store]: it puts to the test, on the store itself, each promise that the order
// of effects rests on, and tells which the store does not keep.
//
// There are stores that let two conditional writers win, ignore a lock, or take other bytes than were announced, and
// that answer 200 to all of it. What they promise cannot be believed, and what they do cannot be seen from their
// documentation; so they are asked. [Examine] runs the probes that any store can be asked through its interface
// (general.go) and those that the store knows of itself ([storage.Prober]). words.go says each promise to a person.
//
// # Traces
//
// Probes work under "doctor/", which is nobody's room ([storage.ProbeRoom]): each run in a folder of its own, named
// by its time, each probe in a folder of that. What they leave is erased at once, but for objects that a lock keeps
// for a minute or two: the first examination that finds their run older than ten minutes erases those. [storage.ProbeKey]
// tells such a key from anything else that somebody may put there.
//
// # What a good examination says
//
// That the promises held when they were tried. A store can still lose what it acknowledged, or give back other
// bytes: nothing here shows that, and the spool and the audits are there for it.
package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/marchesud/perenne/storage"
)

// Options vary an examination.
type Options struct {
	// Now is the clock; it names the run, and locks are reckoned from it.
	Now func() time.Time
	// Quick runs only the probes that take a few requests: for a store that was examined in full lately.
	Quick bool
	// Unheld: no spool keeps the bytes of what the store acknowledged.
	Unheld bool
	// Progress, when not nil, is told how many of the probes are done.
	Progress func(done, total int)
}

// Result is what one probe found.
type Result struct {
	Name string
	storage.Outcome
}

// Report is an examination.
type Report struct {
	// Protection is what the store says keeps objects from being changed; "" when it does not say.
	Protection string
	// Results are in the order of the probes.
	Results []Result
	// Skipped is how many probes were not run, since nothing can be written.
	Skipped int
}

// Verdict is the worst of the results. Held and Noted mean that the store can be used.
func (r Report) Verdict() storage.Verdict {
	worst := storage.Held
	for _, one := range r.Results {
		if rank(one.Verdict) > rank(worst) {
			worst = one.Verdict
		}
	}
	if len(r.Results) == 0 || r.Skipped > 0 && rank(worst) < rank(storage.Untold) {
		return storage.Untold
	}
	return worst
}

// Good reports whether the store kept every promise that was tried.
func (r Report) Good() bool { return rank(r.Verdict()) <= rank(storage.Noted) }

// Of returns the results with a verdict.
func (r Report) Of(v storage.Verdict) []Result {
	var of []Result
	for _, one := range r.Results {
		if one.Verdict == v {
			of = append(of, one)
		}
	}
	return of
}

func rank(v storage.Verdict) int {
	return slices.Index([]storage.Verdict{storage.Held, storage.Noted, storage.Untold, storage.Broken}, v)
}

// abreast is how many probes run at once: they wait for the store most of their time.
const abreast = 32

// Examine puts a store to the test. What goes wrong is in the report; the caller bounds the time by ctx: probes
// that it cuts short are [storage.Untold].
func Examine(ctx context.Context, store storage.Store, o Options) Report {
	var report Report
	if p, ok := store.(storage.Protector); ok {
		report.Protection = p.Protection()
	}
	e := &examination{store: store, options: o, run: runName(o.Now())}
	first := storage.Probe{Name: "writable", Run: e.writable}
	probes := e.probes()
	e.total = len(probes) + 1
	report.Results = append(report.Results, e.perform(ctx, first))
	if report.Results[0].Verdict == storage.Held {
		e.sweep(ctx)
	} else {
		all := len(probes)
		probes = slices.DeleteFunc(probes, func(p storage.Probe) bool { return !p.Passive })
		report.Skipped = all - len(probes)
	}
	report.Results = append(report.Results, e.performAll(ctx, probes)...)
	return report
}

// examination is one run.
type examination struct {
	store   storage.Store
	options Options
	run     string // its folder's name
	total   int

	took time.Duration // of the first create

	mu   sync.Mutex
	done int
}

// probes are those to run after the first.
func (e *examination) probes() []storage.Probe {
	probes := e.general()
	if p, ok := e.store.(storage.Prober); ok {
		probes = append(probes, p.Probes()...)
	}
	if e.options.Quick {
		probes = slices.DeleteFunc(probes, func(p storage.Probe) bool { return !p.Passive && !quick[p.Name] })
	}
	return probes
}

// quick are the probes of a quick examination, beside those that write nothing: a store put in the place of another
// would most likely fail them.
var quick = map[string]bool{"create-once": true, "digest": true}

// performAll runs several probes at once and behind them, one by one, those that must be alone.
func (e *examination) performAll(ctx context.Context, probes []storage.Probe) []Result {
	results := make([]Result, len(probes))
	var done sync.WaitGroup
	places := make(chan struct{}, abreast)
	for i, p := range probes {
		if p.Alone {
			continue
		}
		places <- struct{}{}
		done.Go(func() {
			results[i] = e.perform(ctx, p)
			<-places
		})
	}
	done.Wait()
	for i, p := range probes {
		if p.Alone {
			results[i] = e.perform(ctx, p)
		}
	}
	return results
}

// perform runs one probe and erases what it left.
func (e *examination) perform(ctx context.Context, p storage.Probe) Result {
	room := strings.Join([]string{storage.ProbeRoom, e.run, p.Name}, "/")
	found := p.Run(ctx, room)
	switch {
	case rank(found.Verdict) < 0:
		found.Verdict = storage.Untold
	case errors.Is(found.Seen, context.DeadlineExceeded), errors.Is(found.Seen, context.Canceled):
		found = storage.Untellable("no answer in time: %w", found.Seen)
	}
	if !p.Passive {
		e.clear(ctx, room+"/")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done++
	if e.options.Progress != nil {
		e.options.Progress(e.done, e.total)
	}
	if p.Name == "durability" && e.options.Unheld {
		return Result{"durability-unheld", found} // which has other words
	}
	return Result{p.Name, found}
}

// clear erases what lies under a prefix of the probes' room, as far as it is not locked. That a store does not erase
// is found by the probe whose business it is.
func (e *examination) clear(ctx context.Context, prefix string) {
	eraser, ok := e.store.(storage.Eraser)
	if !ok {
		return
	}
	var keys []string
	for v, err := range e.store.List(ctx, prefix, "") {
		if err != nil {
			break
		}
		if storage.ProbeKey(v.Key) && !slices.Contains(keys, v.Key) {
			keys = append(keys, v.Key)
		}
	}
	for _, key := range keys {
		_ = eraser.Erase(ctx, key, "", "probe of the store")
	}
}

// sweepAfter is how old a run must be to be over, and its locks ended.
const sweepAfter = 10 * time.Minute

// sweep erases what earlier runs had to leave.
func (e *examination) sweep(ctx context.Context) {
	limit := runName(e.options.Now().Add(-sweepAfter))
	over := map[string]bool{}
	for v, err := range e.store.List(ctx, storage.ProbeRoom+"/", "") {
		if err != nil {
			return
		}
		run, _, _ := strings.Cut(strings.TrimPrefix(v.Key, storage.ProbeRoom+"/"), "/")
		if run > limit {
			break
		}
		over[run] = true
	}
	for run := range over {
		e.clear(ctx, storage.ProbeRoom+"/"+run+"/")
	}
}

// runName names a run by its time, to the second, and by chance.
func runName(now time.Time) string {
	return now.UTC().Format("20060102t150405z-") + strings.ToLower(rand.Text()[:8])
}

// writable makes one object and reads it back: where that fails, nothing else needs to be tried.
func (e *examination) writable(ctx context.Context, room string) storage.Outcome {
	data := sample("writable", 100)
	key := room + "/a"
	began := e.options.Now()
	err := put(ctx, e.store, key, data)
	e.took = e.options.Now().Sub(began)
	switch {
	case errors.Is(err, storage.ErrFull):
		return storage.Breaks("the store is full: %w", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return storage.Breaks("the store may not be written to: %w", err)
	case err != nil:
		return failed(fmt.Errorf("create: %w", err))
	}
	switch got, err := e.read(ctx, key, 0, -1); {
	case err != nil:
		return failed(fmt.Errorf("read back: %w", err))
	case !bytes.Equal(got, data):
		return storage.Breaks("read back: %d bytes, not the %d that were written", len(got), len(data))
	default:
		return storage.Holds()
	}
}
