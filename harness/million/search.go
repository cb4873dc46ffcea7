package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/policies"
)

// known is what the daemon must have.
type known struct {
	in     *rig.Installation
	bodies []*body
}

// one is a package that was made.
type one struct {
	policies.Description
	code, id string
}

// counted wants each body to have every package.
func (k *known) counted(ctx context.Context, d *rig.Daemon) error {
	h, err := d.Client(k.in.Admin).Status(ctx)
	if err != nil {
		return err
	}
	have := map[string]int64{}
	for _, p := range h.Producers {
		if p.Stopped != "" {
			return fmt.Errorf("%s stands still: %s", p.Code, p.Stopped)
		}
		have[p.Code] = p.Packages
	}
	for _, b := range k.bodies {
		if have[b.code] != int64(b.want) {
			return fmt.Errorf("%s has %d packages of %d", b.code, have[b.code], b.want)
		}
	}
	return nil
}

// some is a package at random; a body with more is met more often.
func (k *known) some(r *rand.Rand) one {
	n := 0
	for _, b := range k.bodies {
		n += len(b.sample)
	}
	n = r.IntN(n)
	for _, b := range k.bodies {
		if n < len(b.sample) {
			return b.sample[n]
		}
		n -= len(b.sample)
	}
	panic("unreachable")
}

var errMissing = errors.New("a package is missing")

// there wants a page to have a package.
func there(page *web.SearchPage, o one) error {
	for _, r := range page.Packages {
		if r.ID == o.id {
			return nil
		}
	}
	if page.Next != "" {
		return nil // it may be on a later page
	}
	return fmt.Errorf("%w: %s %s %d/%s", errMissing, o.code, o.Register, o.Year, o.Number)
}

func byKey(o one) web.SearchQuery {
	return web.SearchQuery{Producer: o.code, Register: o.Register, Year: o.Year, Number: o.Number}
}

// planted asks for a package that was never made and wants to see that it is missing.
func (k *known) planted(ctx context.Context, d *rig.Daemon) error {
	o := k.some(rand.New(rand.NewPCG(1, 1)))
	o.Number, o.id = "99999999", strings.Repeat("a", 32)
	page, err := d.Client(k.in.Admin).Search(ctx, byKey(o))
	if err == nil && !errors.Is(there(page, o), errMissing) {
		err = errors.New("a package that was never made is not missed")
	}
	return err
}

// kinds are the searches that people make.
var kinds = []string{"exact key", "one word", "two words", "three words and a year", "dates of a month", "type and dates", "newest", "deep page", "deep page of a word"}

// ask is a search of a kind for a package.
func (k *known) ask(kind string, o one, deep map[string]string, r *rand.Rand) web.SearchQuery {
	words := slices.DeleteFunc(strings.Fields(o.Subject), func(w string) bool { return len(w) < 6 }) // no articles and prepositions
	r.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	first := func(n int) string { return strings.Join(words[:min(n, len(words))], " ") }
	q := web.SearchQuery{Producer: o.code}
	switch kind {
	case "exact key":
		return byKey(o)
	case "one word":
		q.Words = first(1)
	case "two words":
		q.Words = first(2)
	case "three words and a year":
		q.Words, q.Year = first(3), o.Year
	case "dates of a month":
		q.From, q.To = o.Date[:8]+"01", o.Date[:8]+"28"
	case "type and dates":
		q.Type, q.From, q.To = o.Type, o.Date[:8]+"01", o.Date[:8]+"28"
	case "newest":
	case "deep page":
		q.After = deep[o.code]
	case "deep page of a word":
		q.Words, q.After = deepWord, deep[deepWord+o.code]
	}
	return q
}

const (
	deepWord  = "manutenzione"
	deepPages = 10 // of 1000
)

// deep turns pages in each body, alone and under a word, and returns where the last ones began.
func (k *known) deep(ctx context.Context, d *rig.Daemon) (map[string]string, error) {
	cursors := map[string]string{}
	for _, b := range k.bodies {
		for _, w := range []string{"", deepWord} {
			q := web.SearchQuery{Producer: b.code, Words: w, Limit: 1000}
			for range deepPages {
				page, err := d.Client(k.in.Admin).Search(ctx, q)
				if err != nil {
					return nil, err
				}
				if page.Next == "" {
					break
				}
				q.After = page.Next
			}
			cursors[w+b.code] = q.After
		}
	}
	return cursors, nil
}

// search has four clients search, each kind in turn, and notes how long they wait.
func (p *plan) search(ctx context.Context, l *life, k *known) error {
	const clients = 4
	deep, err := k.deep(ctx, l.Daemon)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	times := map[string][]time.Duration{}
	var errs []error
	end := time.Now().Add(2 * p.duration)
	before := l.processor()
	var work sync.WaitGroup
	for c := range clients {
		work.Go(func() {
			client, r := l.Client(k.in.Admin), rand.New(rand.NewPCG(p.seed, uint64(1000+c)))
			for n := c; time.Now().Before(end) && ctx.Err() == nil; n++ {
				kind, o := kinds[n%len(kinds)], k.some(r)
				start := time.Now()
				page, err := client.Search(ctx, k.ask(kind, o, deep, r))
				took := time.Since(start)
				if err == nil && !strings.HasPrefix(kind, "deep") && kind != "newest" {
					err = there(page, o)
				}
				mu.Lock()
				times[kind] = append(times[kind], took)
				if err != nil && len(errs) < 5 {
					errs = append(errs, fmt.Errorf("search by %s: %w", kind, err))
				}
				mu.Unlock()
			}
		})
	}
	work.Wait()
	var all []time.Duration
	for _, kind := range slices.Sorted(maps.Keys(times)) {
		all = append(all, times[kind]...)
		p.quantiles("search by "+kind, times[kind])
	}
	p.quantiles("search", all)
	p.note("search: made", int64(len(all)))
	p.note("search: µs of processor each", (l.processor()-before).Microseconds()/max(int64(len(all)), 1))
	return errors.Join(errs...)
}

func (p *plan) quantiles(name string, times []time.Duration) {
	slices.Sort(times)
	for _, q := range []int{50, 99} {
		p.note(fmt.Sprintf("%s: p%d, µs", name, q), times[(len(times)-1)*q/100].Microseconds())
	}
}
