package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/storage"
)

// A seal that was put and does not lie alone under its number may be one of two: the store let two writers win, or a delete
// marker over the first one had opened the number. Papers may rest on either, so only a person can say which one goes on.

// errSealsFork means that a person has to judge two seals of one number. Until then none is read on from, and none is made.
var errSealsFork = errors.New("the seals fork")

// forkFile says that the seals fork. It outlives a restart, which would else go on from whichever seal is the newer one.
func (a *Archive) forkFile() string { return filepath.Join(a.cfg.State, "seals.forked") }

// sealsFork is an error while the seals fork.
func (a *Archive) sealsFork() error {
	text, err := os.ReadFile(a.forkFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("whether the seals fork: %w", err)
	}
	return fmt.Errorf("%w: %s", errSealsFork, text)
}

// seenAlone wants no second version under the number of the seal that was put last, before anything rests on it. A delete
// marker is none: a lock keeps what it hides, and the audit names it. It costs a request for each seal.
func (s *sealer) seenAlone(ctx context.Context) error {
	put := s.put.Load()
	if put == nil {
		return nil
	}
	n := *put
	there, err := storage.History(ctx, s.a.cfg.Store, seal.Key(n))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("whether %s is alone under its number: %w", seal.Key(n), err)
	}
	there = slices.DeleteFunc(there, func(v storage.Version) bool { return v.Marker })
	if len(there) > 1 {
		if err := s.fork(n, len(there)); err != nil {
			return err
		}
		s.put.Store(nil)
		return s.a.sealsFork()
	}
	s.put.Store(nil)
	return nil
}

// fork has the seals stand still.
func (s *sealer) fork(n int64, versions int) error {
	text := fmt.Sprintf("%s was put, and %d versions lie under its number: another daemon may have made a seal of this number. "+
		"Stop every daemon of this bucket, keep all versions, and compare them with state/seals of the other machines: "+
		"the one noted there goes on, perenne repair there puts it in front; where none is, this one does. Then move %s away", seal.Key(n), versions, s.a.forkFile())
	s.alarm("the seals fork, it may be: none is made", slog.Int64("seal", n), slog.Int("versions", versions))
	f, err := os.Create(s.a.forkFile())
	if err != nil {
		return fmt.Errorf("note that the seals fork: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("note that the seals fork: %w", err)
	}
	return nil
}
