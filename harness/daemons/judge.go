package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/policies"
)

// judge judges what is left when the faults are over and every daemon runs.
func (f *fleet) judge(ctx context.Context, r *rig.Result) error {
	first := f.machines[0]
	err := f.eachServes(ctx)
	settled, settleErr := f.book.Settle(ctx, first.daemon)
	r.Add("handed again, unanswered before", settled)
	if err := errors.Join(err, settleErr, f.atOnce(ctx, 20, r)); err != nil {
		return err
	}
	if err := errors.Join(f.eachServes(ctx), f.book.Once(ctx, first.daemon)); err != nil {
		return err
	}
	r.Add("acknowledged", f.book.Acked())
	if err := f.oneKey(ctx, 20, r); err != nil {
		return err
	}
	for i, m := range f.machines {
		orphans, err := m.in.Audit(ctx, m.daemon)
		if err == nil {
			err = m.in.Healthy(ctx, m.daemon)
		}
		if err != nil {
			return fmt.Errorf("daemon %d: %w", i, err)
		}
		r.Add("audits", int64(len(m.in.Bodies)))
		if i == 0 {
			r.Add("orphans", orphans)
		}
	}
	return errors.Join(f.equalCatalogs(ctx), f.book.Rebuilt(ctx, first.daemon, filepath.Dir(first.in.Root)), f.histories(ctx, r))
}

// eachServes wants every daemon to give every acknowledged receipt, equal, sealed and good.
func (f *fleet) eachServes(ctx context.Context) error {
	var errs []error
	for i, d := range f.daemons() {
		if err := f.book.Again(ctx, d, f.book.All()); err != nil {
			errs = append(errs, fmt.Errorf("daemon %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// atOnce hands the same to all daemons at the same moment: the book wants equal receipts.
func (f *fleet) atOnce(ctx context.Context, times int, r *rig.Result) error {
	for range times {
		s := f.book.New(rig.Load{Size: 2000})
		var hands sync.WaitGroup
		taken := make([]bool, len(f.machines))
		for i, d := range f.daemons() {
			hands.Go(func() { taken[i] = f.book.Hand(ctx, d, s) })
		}
		hands.Wait()
		for i, ok := range taken {
			if !ok {
				return fmt.Errorf("handed to all at once, daemon %d gave no receipt: %w", i, f.book.Unexpected())
			}
		}
		r.Add("handed to all at once", 1)
	}
	return f.book.Unexpected()
}

// oneKey hands another content under the same key to each daemon at the same moment, and wants exactly one to be taken
// and the others to be told that the key is. r may be nil.
func (f *fleet) oneKey(ctx context.Context, times int, r *rig.Result) error {
	body := f.machines[0].in.Bodies[0]
	for range times {
		f.keys++
		n := f.keys
		var hands sync.WaitGroup
		errs := make([]error, len(f.machines))
		for i, d := range f.daemons() {
			data := fmt.Sprintf("%%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n%% contenuto %d\ntrailer<</Root 1 0 R>>\n%%%%EOF\n", i)
			metadata := description(strconv.Itoa(n), int64(len(data)))
			files := []web.Upload{{Name: "delibera.pdf", Size: int64(len(data)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte(data))), nil }}}
			hands.Go(func() { _, errs[i] = d.Client(body.Token).Submit(ctx, body.Code, metadata, files, nil) })
		}
		hands.Wait()
		taken := 0
		for i, err := range errs {
			var problem *web.Problem
			switch {
			case err == nil:
				taken++
			case !errors.As(err, &problem) || problem.Status != 409:
				return fmt.Errorf("key %d: daemon %d: got %w, want a receipt or a conflict", n, i, err)
			}
		}
		if taken != 1 {
			return fmt.Errorf("%w: key %d was taken %d times", rig.ErrDoubled, n, taken)
		}
		if r != nil {
			r.Add("keys with several contents at once", 1)
		}
	}
	return nil
}

func description(number string, size int64) []byte {
	reserved := false
	text, _ := json.Marshal(policies.Description{ // strings and numbers
		Register: "DELI", Year: 2026, Number: number, Date: "2026-03-09", Type: "delibera", Subject: "Una chiave, più contenuti", Reserved: &reserved,
		Files: []policies.FileDescription{{Name: "delibera.pdf", Role: policies.RoleMain, Size: size}},
	})
	return text
}

// equalCatalogs wants every daemon to list the same.
func (f *fleet) equalCatalogs(ctx context.Context) error {
	for _, body := range f.machines[0].in.Bodies {
		var want []byte
		for i, m := range f.machines {
			list, err := m.in.Listing(ctx, m.daemon, body.Code)
			if err != nil {
				return err
			}
			text, _ := json.Marshal(list) // strings and numbers
			if i == 0 {
				want = text
			} else if !bytes.Equal(text, want) {
				return fmt.Errorf("daemon %d lists %s otherwise than daemon 0 (%d records)", i, body.Code, len(list))
			}
		}
	}
	return nil
}

// histories walks each ledger from the bucket alone and holds it against the receipts: one version of each number, a
// chain that is whole, and every acknowledged document in it once.
func (f *fleet) histories(ctx context.Context, r *rig.Result) error {
	first := f.machines[0]
	for _, body := range first.in.Bodies {
		store, err := f.bucket(ctx)
		if err != nil {
			return err
		}
		times := map[string]int{}
		for c, err := range ledger.Walk(ctx, store, body.Code, first.in.Trust.Ledgers, 0, -1) {
			if err != nil {
				return fmt.Errorf("ledger of %s: %w", body.Code, err)
			}
			r.Add("commits", 1)
			for _, e := range c.Entries {
				if e.Type == ledger.PackageSealed || e.Type == ledger.SubmissionRefused {
					times[e.ID]++
				}
			}
		}
		for _, s := range rig.Acknowledged(f.book.All()) {
			if s.Producer != body.Code || times[s.ID()] == 1 {
				continue
			}
			kind := rig.ErrDoubled
			if times[s.ID()] == 0 {
				kind = rig.ErrLost
			}
			return fmt.Errorf("%w: submission %s of %s stands %d times in the ledger", kind, s.Number, s.Producer, times[s.ID()])
		}
	}
	return nil
}
