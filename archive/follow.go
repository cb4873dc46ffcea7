package archive

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/marchesud/perenne/archive/ledger"
)

// A ledger is looked at for what other daemons have written followFirst after something was found there, then at
// intervals that double up to followLast. Where nothing moves that is one read a minute for each producer.
const (
	followFirst = 2 * time.Second
	followLast  = time.Minute
)

// follow reads what other daemons have written, so that search, status and seals here know of it. Nothing that must
// be right hangs on it: a commit is decided by what stands under its number, and whoever asks for what is not
// known here has the ledger read on first.
func (a *Archive) follow(ctx context.Context) {
	type pace struct {
		at    time.Time
		pause time.Duration
		met   int64
		doubt doubt
	}
	paces := map[string]pace{}
	for _, code := range a.Producers() {
		// Not all at once: several daemons are often started together.
		paces[code] = pace{at: a.cfg.Now().Add(followFirst + a.random(followFirst)), pause: followFirst}
	}
	t := time.NewTicker(followFirst / 4)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for code, p := range paces {
			p.doubt = a.unsettled(a.producers[code], p.doubt)
			paces[code] = p
			now := a.cfg.Now()
			if now.Before(p.at) && p.at.Sub(now) <= followLast { // further off: the clock was set back
				continue
			}
			p.pause = min(2*p.pause, followLast)
			a.readOn(ctx, a.producers[code])
			if met := a.producers[code].followed(); met != p.met {
				p.pause, p.met = followFirst, met
			}
			p.at = a.cfg.Now().Add(p.pause)
			paces[code] = p
		}
	}
}

// doubt is what was said of a ledger that waits for a commit whose outcome is not known.
type doubt struct {
	since time.Time // zero: it does not wait
	alarm bool      // that it does not pass by itself was said
}

// outage is how long a store may be away before somebody is called.
const outage = 2 * time.Minute

// unsettled says that a ledger waits for a commit whose outcome is not known, that this lasts, and that it is over.
func (a *Archive) unsettled(p *producer, said doubt) doubt {
	log, why := p.state()
	if log == nil {
		return doubt{}
	}
	waits, now := log.Unsettled(), a.cfg.Now()
	switch {
	case waits == nil:
		if !said.since.IsZero() && why == nil {
			a.cfg.Log.Info("producer goes on", slog.String("producer", p.Code))
		}
		return doubt{}
	case said.since.IsZero():
		a.cfg.Log.Warn("no document of this producer gets in", slog.String("producer", p.Code), slog.Any("err", waits))
		return doubt{since: now}
	case !said.alarm && now.Sub(said.since) >= outage:
		a.metrics.alarms.Inc()
		a.cfg.Log.Error("still nothing gets in: the store is away or, where it answers and never gives that commit, a repair by the machine that wrote it puts it back",
			slog.String("producer", p.Code), slog.Any("err", waits))
		said.alarm = true
	}
	return said
}

// readOn reads a ledger on. What it cannot read now it leaves to the next time, and to those who must have it.
func (a *Archive) readOn(ctx context.Context, p *producer) {
	log, why := p.state()
	if log != nil && log.Suspended() {
		a.hold(ctx, p, log)
		return
	}
	if log == nil || why != nil {
		return // revive's
	}
	var damage *ledger.Damage
	err := log.Refresh(ctx)
	told := errors.As(err, &damage) || log.Unsettled() != nil // of damage by the next submission, or the audit; else by follow
	if err != nil && ctx.Err() == nil && !told {
		a.cfg.Log.Warn("ledger not read on", slog.String("producer", p.Code), slog.Any("err", err))
	}
}

// followed counts the commits of others that were met in the ledger, by reading on or by losing a number to them.
func (p *producer) followed() int64 {
	if log := p.ledger(); log != nil {
		return log.Followed()
	}
	return 0
}
