package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
)

// injury is one way in which the demo hurts a copy of the store.
type injury struct {
	it, en string
	keys   []string // what the audit must accuse, and nothing else
	hurt   func(store string) error
}

// damage hurts copies of the store in five ways and shows that the audit finds and names each, and accuses nothing
// else. A rewritten entry accuses its commit, which is one object: the package that the entry named is what it was.
// A seal that is gone accuses itself alone: the seals after it still prove what they name.
func (d *tour) damage(ctx context.Context) error {
	code := d.first.Body.Producer.Code
	ids := d.ids[code]
	one, two, three := d.objects[ids[0]], d.objects[ids[1]], d.objects[ids[2]]
	commit, last := ledger.Key(code, 2), seal.Key(1)
	injuries := []injury{
		{"un bit cambiato in un pacchetto", "one bit of a package changed", []string{one}, func(store string) error {
			return rewrite(filepath.Join(store, one), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}},
		{"un pacchetto cancellato", "a package deleted", []string{two}, func(store string) error { return os.Remove(filepath.Join(store, two)) }},
		{"due pacchetti scambiati", "two packages swapped", []string{one, three}, func(store string) error { return swap(filepath.Join(store, one), filepath.Join(store, three)) }},
		{"una riga del giornale riscritta", "a ledger entry rewritten", []string{commit}, func(store string) error {
			return rewrite(filepath.Join(store, commit), func(b []byte) []byte { return bytes.Replace(b, []byte(`"size":`), []byte(`"size":9`), 1) })
		}},
		{"un sigillo tolto", "a seal taken away", []string{last}, func(store string) error { return os.Remove(filepath.Join(store, last)) }},
	}
	d.say(d.lang.T("danni", "damage"), d.lang.T("cinque danni, ciascuno su una copia dello store:", "five injuries, each to a copy of the store:"))
	for _, j := range injuries {
		named, err := d.injure(ctx, code, j)
		if err != nil {
			return fmt.Errorf("%s: %w", j.en, err)
		}
		d.also(fmt.Sprintf(d.lang.T("trovato  %-32s %s", "found  %-32s %s"), d.lang.T(j.it, j.en), named[0]))
		for _, object := range named[1:] {
			d.also(fmt.Sprintf("%*s %s", len(d.lang.T("trovato", "found"))+2+32, "", object))
		}
	}
	return nil
}

// injure audits a hurt copy and returns the objects that the report names.
func (d *tour) injure(ctx context.Context, code string, j injury) ([]string, error) {
	tmp, err := os.MkdirTemp(d.in.root, ".damage-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	store, state := filepath.Join(tmp, "store"), filepath.Join(tmp, "state")
	// The marks first: the daemon goes on sealing, and a mark must not know of a seal that the copy lacks.
	if err := copyMarks(d.in.path("state"), state); err != nil {
		return nil, err
	}
	if err := linkTree(d.in.path("store"), store); err != nil {
		return nil, err
	}
	if err := j.hurt(store); err != nil {
		return nil, err
	}
	o, err := d.in.open(ctx, openOptions{Log: slog.New(slog.DiscardHandler), ReadOnly: true, StoreDir: store, StateDir: state})
	if err != nil {
		return nil, err
	}
	out, err := o.Archive.Audit(ctx, archive.Scope{Producer: code})
	if closeErr := o.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	return accused(out.Report, j.keys)
}

// accused are the objects that a report accuses: it must be all that were hurt, and no other.
func accused(r *paper.Report, hurt []string) ([]string, error) {
	var objects []string
	for _, f := range r.Findings {
		if f.Gravity == paper.Damage && !slices.Contains(objects, f.Object) {
			objects = append(objects, f.Object)
		}
	}
	slices.Sort(objects)
	want := slices.Sorted(slices.Values(hurt))
	if r.Verdict != paper.VerdictDamaged || !slices.Equal(objects, want) {
		return nil, fmt.Errorf("the audit says %s and names %v, want %v: %+v", r.Verdict, objects, want, r.Findings)
	}
	return objects, nil
}

// linkTree copies a tree by hard links: rewrite and swap put new files in place of linked ones.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return os.Link(name, filepath.Join(to, rel))
	})
}

// copyMarks copies what the state remembers of ledgers and seals: the catalog is made again.
func copyMarks(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"heads", "seals"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func rewrite(name string, change func([]byte) []byte) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return writeFile(name, change(b), 0o444)
}

func swap(one, two string) error {
	a, err := os.ReadFile(one)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(two)
	if err != nil {
		return err
	}
	if err := writeFile(one, b, 0o444); err != nil {
		return err
	}
	return writeFile(two, a, 0o444)
}
