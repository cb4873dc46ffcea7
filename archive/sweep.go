package archive

import (
	"context"
	"log/slog"
	"time"

	"github.com/marchesud/perenne/storage"
)

// sweepDaily has the store remove, at the start and once a day, what crashes have left half made: until ctx ends.
func (a *Archive) sweepDaily(ctx context.Context, s storage.Sweeper) {
	t := time.NewTicker(24 * time.Hour)
	defer t.Stop()
	for {
		n, err := s.Sweep(ctx)
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("remains of interrupted uploads not removed: tomorrow again", slog.Any("err", err))
		}
		if n > 0 {
			a.cfg.Log.Info("remains of interrupted uploads removed", slog.Int("uploads", n))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
