package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/archive/ledger"
)

// repairs knows which objects the entries "repaired" of a ledger name, as far as it was read for them. What a repair could
// not remove lies behind the object for as long as its lock holds, and the entry that explains it stands anywhere later in
// the ledger, years maybe: an audit of everything meets it, one of a part has to look for it. Nothing but the entries of
// the ledger counts, each proved to be in its tree; a process reads each of them once.
//
// Cost: a request for 256 entries where their bundle lies in the bucket, one for each commit otherwise; none as long
// as no audit of a part meets such leftovers.
type repairs struct {
	mu       sync.Mutex
	log      *ledger.Log // that was read; another one, opened after it, is read from the beginning
	from, to int64       // the entries that were read
	keys     map[[16]byte]struct{}
}

const (
	// mostRepairs is how many entries one audit reads for repairs at most. It leaves unchecked what those behind them
	// might explain, and the next audit goes on from there.
	mostRepairs  = 1 << 18
	bundlesAhead = 4 // bundles read at a time
)

var errLedgerLong = errors.New("il giornale è lungo: la prossima verifica legge oltre")

// read reads the entries of a ledger from one on, to its end. Without an error, and with one as far as it came, what they
// say is known.
func (r *repairs) read(ctx context.Context, log *ledger.Log, from, most int64) error {
	if log == nil {
		return errors.New("il giornale non è aperto")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	from -= from % tileEntries
	if r.log != log {
		r.log, r.from, r.to, r.keys = log, from, from, map[[16]byte]struct{}{}
	}
	for size := log.Head().Size; r.to < size; {
		at, first := r.to, r.to/tileEntries
		if most <= 0 {
			return errLedgerLong
		}
		end := min(first+bundlesAhead, size/tileEntries)
		var err error
		if first < end {
			if err = r.bundles(ctx, log, first, end); err == nil {
				r.to = end * tileEntries
			}
		} else {
			err = r.commit(ctx, log)
		}
		if err != nil {
			return err
		}
		most -= r.to - at
	}
	for r.from > from {
		if most <= 0 {
			return errLedgerLong
		}
		end := r.from / tileEntries
		first := max(end-bundlesAhead, from/tileEntries)
		if err := r.bundles(ctx, log, first, end); err != nil {
			return err
		}
		most -= r.from - first*tileEntries
		r.from = first * tileEntries
	}
	return nil
}

// has reports whether an entry that was read names an object.
func (r *repairs) has(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.keys[short(key)]
	return ok
}

// bundles reads full bundles of entries.
func (r *repairs) bundles(ctx context.Context, log *ledger.Log, first, end int64) error {
	texts := make([][]byte, end-first)
	group, ctx := errgroup.WithContext(ctx)
	for i := range texts {
		group.Go(func() (err error) {
			texts[i], err = log.EntryBundle(ctx, first+int64(i), tileEntries)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, text := range texts {
		for len(text) > 2 { // the form was checked
			end := 2 + int(binary.BigEndian.Uint16(text))
			if err := r.note(text[2:end]); err != nil {
				return err
			}
			text = text[end:]
		}
	}
	return nil
}

// commit reads the commit that holds the next entry: those that fill no bundle yet.
func (r *repairs) commit(ctx context.Context, log *ledger.Log) error {
	n, err := log.CommitOf(r.to)
	if err != nil {
		return err
	}
	c, err := log.Commit(ctx, n)
	if err != nil {
		return err
	}
	if c.Size <= r.to {
		return fmt.Errorf("commit %d does not hold entry %d", n, r.to)
	}
	for _, line := range c.Lines {
		if err := r.note(line); err != nil {
			return err
		}
	}
	r.to = c.Size
	return nil
}

func (r *repairs) note(line []byte) error {
	if !bytes.Contains(line, []byte(ledger.Repaired)) { // spares the reading of a million others
		return nil
	}
	e, err := ledger.ParseEntry(line)
	if err == nil && e.Type == ledger.Repaired {
		r.keys[short(e.Object)] = struct{}{}
	}
	return err
}
