package web

import (
	"context"
	"errors"
	"net/http"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/ledger"
)

// maxLedgerReaders bounds readings of tiles at once: they need no token, and one may read 256 commits.
const maxLedgerReaders = 16

// How long an answer may be kept. Tiles never change; a partial one is soon of no use.
const (
	keepForever = "public, max-age=31536000, immutable"
	keepBriefly = "public, max-age=300"
)

// openLedger finds the ledger of the path. A producer that stands still is not told from one that is not there.
func (x *exchange) openLedger() (*ledger.Log, error) {
	log, err := x.s.cfg.Archive.Ledger(x.r.PathValue("producer"))
	if err != nil {
		if archive.KindOf(err) == archive.NotFound || x.token == nil {
			return nil, notFound()
		}
		return nil, err
	}
	return log, nil
}

// checkpoint sends the signed head.
func (x *exchange) checkpoint() error {
	log, err := x.openLedger()
	if err != nil {
		return err
	}
	text := log.Checkpoint()
	if len(text) == 0 {
		return notFound()
	}
	x.send(http.StatusOK, "text/plain; charset=utf-8", text)
	return nil
}

// tile sends a tile or an entry bundle (C2SP tlog-tiles), full or partial.
func (x *exchange) tile() error {
	t, err := ledger.ParseTilePath("tile/" + x.r.PathValue("path"))
	if err != nil {
		return notFound()
	}
	log, err := x.openLedger()
	if err != nil {
		return err
	}
	if !x.mayReadLedger() {
		return &transportError{status: http.StatusServiceUnavailable, retryAfter: retrySeconds}
	}
	defer func() { <-x.s.readers }()
	data, err := readTile(x.r.Context(), log, t)
	if errors.Is(err, ledger.ErrRange) {
		return notFound()
	}
	if err != nil {
		return &archive.Error{Kind: archive.Unavailable, Op: "tile", Object: x.r.PathValue("producer"), Err: err}
	}
	keep := keepBriefly
	if t.W == 256 {
		keep = keepForever
	}
	x.Header().Set("Cache-Control", keep)
	x.send(http.StatusOK, "application/octet-stream", data)
	return nil
}

// mayReadLedger waits for a turn as long as a submission would.
func (x *exchange) mayReadLedger() bool {
	ctx, cancel := context.WithTimeout(x.r.Context(), x.s.patience)
	defer cancel()
	select {
	case x.s.readers <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func readTile(ctx context.Context, log *ledger.Log, t tlog.Tile) ([]byte, error) {
	if t.L == ledger.BundleLevel {
		return log.EntryBundle(ctx, t.N, t.W)
	}
	return log.Tile(ctx, t)
}
