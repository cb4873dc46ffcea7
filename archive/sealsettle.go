package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage"
)

// errBehind means that there are seals behind a number under which nothing lies.
var errBehind = errors.New("seals are missing")

// settle reads the seals on before the next one is made. The first time it also makes sure that none lies further on: where
// what lies under a void number is gone, or seals are, a second chain would be made of numbers that were used. Seals made
// later lie one behind the other, so it costs one listing at the start, and none a seal. making is held, or nobody makes
// seals yet.
func (s *sealer) settle(ctx context.Context) error {
	if err := errors.Join(s.a.sealsFork(), s.seenAlone(ctx)); err != nil {
		return err
	}
	if err := s.a.seals.Settle(ctx); err != nil || s.alone {
		return err
	}
	behind, err := s.listed(ctx, s.a.seals.Head().Number)
	if err != nil {
		return err
	}
	for len(behind) > 0 {
		if err := s.a.seals.Settle(ctx); err != nil { // another daemon may be making them
			return err
		}
		head := s.a.seals.Head().Number
		behind = slices.DeleteFunc(behind, func(n int64) bool { return n <= head })
		if len(behind) == 0 {
			break
		}
		more, err := s.a.seals.LookOn(ctx)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		if err := s.noneOf(ctx, head, behind); err != nil {
			return err
		}
		break
	}
	s.alone = true
	return nil
}

// noneBehind makes sure that no seal lies behind number n.
func (s *sealer) noneBehind(ctx context.Context, n int64) error {
	behind, err := s.listed(ctx, n)
	if err == nil {
		err = s.noneOf(ctx, n, behind)
	}
	if errors.Is(err, errBehind) {
		return fmt.Errorf("%w: %w", errNotVoid, err)
	}
	return err
}

// listed are the numbers behind n under which something lies, delete markers too.
func (s *sealer) listed(ctx context.Context, n int64) ([]int64, error) {
	after := ""
	if n >= 0 {
		after = seal.Key(n)
	}
	var behind []int64
	for v, err := range s.a.cfg.Store.List(ctx, "evidence/", after) {
		if err != nil {
			return nil, fmt.Errorf("list evidence/: %w", err)
		}
		number, is := seal.ParseKey(v.Key)
		if !is || len(behind) > 0 && behind[len(behind)-1] == number {
			continue
		}
		if behind = append(behind, number); len(behind) > seal.MaxVoids {
			return nil, fmt.Errorf("%w, it may be: objects lie under more than %d numbers behind seal %d: move away what is no seal; run perenne audit", errBehind, seal.MaxVoids, n)
		}
	}
	return behind, nil
}

// noneOf makes sure that under none of some numbers behind n lies a seal, or a delete marker alone. What is no seal holds
// nothing up before its number comes: a lock may keep it there, and no chain goes on from it.
func (s *sealer) noneOf(ctx context.Context, n int64, behind []int64) error {
	for _, at := range behind {
		there, err := s.under(ctx, at)
		switch {
		case errors.Is(err, errLarge), err == nil && there.nothing: // no seal; gone meanwhile
		case err != nil && !errors.Is(err, storage.ErrNotFound):
			return err
		case err != nil:
			return fmt.Errorf("%s is listed, and the store does not give it: run perenne audit", seal.Key(at))
		case there.ours != nil:
			return fmt.Errorf("%w: %s is a seal of this archive, and the one behind seal %d is not there: look for it with perenne repair, in copies of the bucket too, and on the other machines; state/seals of one of them has what was read there", errBehind, seal.Key(at), n)
		case len(there.foreign) == 0:
			return fmt.Errorf("%w, it may be: only a delete marker lies under %s, behind seal %d: a repair of that key removes it", errBehind, seal.Key(at), n)
		}
	}
	return nil
}
