package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage"
)

// errNotVoid means that the number of a seal may not be called void.
var errNotVoid = errors.New("not void")

// VoidSeal lets the seals go on, when under number n, where the next one goes, lies something that is no seal of this
// archive, and under the numbers behind it: it makes the seal behind them, which names what lies there by digest. It
// is for a person to know that no other machine holds seal n: a repair comes first. Invalid, with nothing changed:
// the seals stand elsewhere; what lies there is a seal of ours, or only a delete marker; nothing waits for a seal.
// Damaged: the number was called void, and a seal of ours came to lie there meanwhile.
//
// What lies under the void numbers is locked like a seal first, as far as the store has locks, so that the numbers stay
// taken.
func (a *Archive) VoidSeal(ctx context.Context, n int64) error {
	if !a.writable() {
		return fail(ReadOnly, "void", seal.Key(n), errReadOnly)
	}
	err := a.sealer.void(ctx, n)
	if errors.Is(err, errNotVoid) {
		return fail(Invalid, "void", seal.Key(n), err)
	}
	if err != nil {
		return storeError("void", seal.Key(n), err)
	}
	a.sealer.retry() // what came meanwhile
	return nil
}

func (s *sealer) void(ctx context.Context, n int64) error {
	s.making.Lock()
	defer s.making.Unlock()
	s.alone = false
	cause := s.settle(ctx)
	head := s.a.seals.Head().Number
	switch {
	case errors.Is(cause, errSealsFork):
		return fmt.Errorf("%w: %w", errNotVoid, cause)
	case n == 0:
		return fmt.Errorf("%w: the seals cannot begin behind a void number; use an empty bucket", errNotVoid)
	case cause == nil && head >= n:
		return fmt.Errorf("%w: the seals read through number %d", errNotVoid, head)
	case cause == nil:
		return fmt.Errorf("%w: nothing lies under number %d", errNotVoid, n)
	case head != n-1:
		return fmt.Errorf("%w: the seals do not stand still at %d, but at %d: %w", errNotVoid, n, head+1, cause)
	}
	voids, lie, err := s.foreign(ctx, n)
	if err != nil {
		return err
	}
	if len(voids) == 0 {
		return fmt.Errorf("%w: nothing lies under number %d; the seals stand still for another reason: %w", errNotVoid, n, cause)
	}
	next, leaves, tree, err := s.next(ctx, voids)
	if err != nil {
		return err
	}
	if len(next.Ranges) == 0 {
		return fmt.Errorf("%w: nothing waits for a seal; an audit, or the next submission, does", errNotVoid)
	}
	for _, v := range lie {
		if err := s.lock(ctx, v); err != nil {
			return err
		}
	}
	if err := s.make(ctx, s.a.cfg.Now(), next, leaves, tree); err != nil {
		return err
	}
	if !s.a.seals.Void(n) { // the number behind was lost, and seal n read
		return fmt.Errorf("%w: seal %d came meanwhile", errNotVoid, n)
	}
	return s.again(ctx, n)
}

// again looks once more under numbers that are void now. A writer of seal n looks whether something lies there before it
// writes; of this and that one at least one meets the other. From here on something was changed.
func (s *sealer) again(ctx context.Context, n int64) error {
	for ; s.a.seals.Void(n); n++ {
		there, err := s.under(ctx, n)
		switch {
		case err != nil:
			return fmt.Errorf("number %d is void now; whether a seal of ours came to lie there meanwhile is not known, an audit looks again: %w", n, err)
		case there.ours != nil:
			return fail(Damaged, "void", seal.Key(n),
				fmt.Errorf("the seals fork: number %d is void now, and a seal of ours came to lie there meanwhile (version %q): stop every daemon of this bucket, keep both, ask", n, there.ours.ID))
		}
	}
	return nil
}

// foreign tells what lies under n and the numbers behind it: the newest of each by its digest, and every version.
func (s *sealer) foreign(ctx context.Context, n int64) (voids []seal.Void, lie []storage.Version, err error) {
	for at := n; ; at++ {
		if at == n+seal.MaxVoids {
			return nil, nil, fmt.Errorf("%w: more than %d numbers are taken", errNotVoid, seal.MaxVoids)
		}
		key := seal.Key(at)
		there, err := s.under(ctx, at)
		if errors.Is(err, errLarge) || errors.Is(err, storage.ErrNotFound) { // then its digest is not known
			return nil, nil, fmt.Errorf("%w: %w", errNotVoid, err)
		}
		if err != nil {
			return nil, nil, err
		}
		if there.nothing {
			if err := s.noneBehind(ctx, at-1); err != nil {
				return nil, nil, err
			}
			break
		}
		if there.ours != nil && at > n && there.seal.After() < n { // the seal behind them: that of another machine
			break
		}
		switch {
		case there.ours != nil && at > n:
			return nil, nil, fmt.Errorf("%w: %s is a seal of this archive that goes on from seal %d: look for that one, a repair puts it back", errNotVoid, key, there.seal.After())
		case there.ours != nil:
			return nil, nil, fmt.Errorf("%w: %s is a seal over ledgers of this archive", errNotVoid, key)
		case len(there.foreign) == 0:
			return nil, nil, fmt.Errorf("%w: only a delete marker lies under %s: a repair of that key removes it", errNotVoid, key)
		}
		voids, lie = append(voids, seal.Void{Number: at, SHA256: there.newest}), append(lie, there.foreign...)
	}
	return voids, lie, nil
}

// lying is what lies under the number of a seal.
type lying struct {
	nothing bool             // not even a delete marker
	ours    *storage.Version // a seal of this archive, in whatever version: foreign is not complete then
	seal    *seal.Seal       // that one
	foreign []storage.Version
	newest  [32]byte // digest of the first of foreign
}

// under looks through all versions under a number. An error says that one of them could not be read.
func (s *sealer) under(ctx context.Context, n int64) (lying, error) {
	var there lying
	key := seal.Key(n)
	for v, err := range storage.Versions(ctx, s.a.cfg.Store, key) {
		if errors.Is(err, storage.ErrNotFound) {
			return lying{nothing: true}, nil
		}
		if err != nil {
			return there, err
		}
		b, err := readSmall(ctx, s.a.cfg.Store, key, v.ID, maxSeal)
		if err != nil {
			return there, err
		}
		is, err := s.ours(ctx, n, b)
		if err != nil {
			return there, err
		}
		if is != nil {
			there.ours, there.seal = &v, is
			return there, nil
		}
		if there.foreign = append(there.foreign, v); len(there.foreign) == 1 {
			there.newest = sha256.Sum256(b)
		}
	}
	return there, nil
}

// ours returns the seal that bytes are when it has a good token over what the ledgers hold or, as far as they cannot be
// read here, may hold: then somebody may rest on it, whatever it follows. Else nil.
func (s *sealer) ours(ctx context.Context, n int64, b []byte) (*seal.Seal, error) {
	is, err := seal.Parse(b)
	if err != nil || is.Number != n {
		return nil, nil //nolint:nilerr,nilnil // no seal of this number
	}
	if _, err := s.a.cfg.Trust.Certificates.CheckToken(is.Token, is.Root); err != nil {
		return nil, nil //nolint:nilerr,nilnil // nobody's seal
	}
	for _, r := range is.Ranges {
		log := s.a.logOf(r.Producer)
		if log == nil {
			return is, nil
		}
		if err := log.Refresh(ctx); err != nil { // else a commit of another daemon would be taken for none
			return nil, err
		}
	}
	if err := s.a.checkSeal(ctx, is); err != nil {
		return nil, ctx.Err()
	}
	return is, nil
}

// lock keeps what lies under a void number for as long as a seal would be.
func (s *sealer) lock(ctx context.Context, v storage.Version) error {
	locker, ok := s.a.cfg.Store.(storage.Locker)
	if !ok {
		return nil
	}
	if err := locker.Extend(ctx, v.Key, v.ID, s.a.lockUntil(s.a.cfg.Now())); err != nil {
		return fmt.Errorf("lock what lies under %s: %w", v.Key, err)
	}
	return nil
}
