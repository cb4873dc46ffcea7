package rig

import (
	"context"
	"fmt"
	"os"
	"time"
)

// overdue is how long after its limit a harness may take to put away what it holds.
const overdue = 3 * time.Minute

// Within ends ctx, with a cause that says so, when limit is over; 0 is no limit. A program that has not ended some minutes
// later is ended: nothing that hangs holds up who waits for a verdict.
func Within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	last := time.AfterFunc(limit+overdue, func() {
		fmt.Fprintf(os.Stderr, "stopped early: not over %v after its limit of %v\n", overdue, limit)
		os.Exit(1)
	})
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("its limit of %v is over", limit))
	return ctx, func() { stop(); last.Stop() }
}

// Early is an error when ctx has ended: a run that was stopped early proves nothing, whatever it found. err is what the
// run says itself.
func Early(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if err == nil {
		return fmt.Errorf("stopped early: %w", context.Cause(ctx))
	}
	return fmt.Errorf("stopped early: %w: %w", context.Cause(ctx), err)
}
