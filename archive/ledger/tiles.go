package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/marchesud/perenne/storage"
)

// C2SP tlog-tiles fixes tiles of height 8: 256 hashes, or 256 entries in a bundle.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// errTile means that a bundle's bytes are not what the tree says they are.
var errTile = errors.New("invalid entry bundle")

// BundleLevel is the level [ParseTilePath] gives an entry bundle.
const BundleLevel = -1

// tilePath returns the C2SP path of a tile or, for [BundleLevel], of an entry bundle.
func tilePath(t tlog.Tile) string {
	t.H = tileHeight
	p := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", tileHeight))
	if rest, ok := strings.CutPrefix(p, "data/"); ok {
		p = "entries/" + rest
	}
	return "tile/" + p
}

// TileKey returns where a full tile, or a full bundle of entries, lies in the bucket.
func TileKey(producer string, t tlog.Tile) string { return producer + "/tiles/" + tilePath(t) }

// bundle returns the coordinates of bundle n.
func bundle(n int64, width int) tlog.Tile {
	return tlog.Tile{H: tileHeight, L: BundleLevel, N: n, W: width}
}

// ParseTilePath reads a path as C2SP tlog-tiles clients ask for it, such as "tile/0/x001/067" or
// "tile/entries/000.p/12"; of a bundle it gives the level [BundleLevel].
func ParseTilePath(path string) (tlog.Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return tlog.Tile{}, fmt.Errorf("tile path %q: does not begin with tile/", path)
	}
	if strings.HasPrefix(rest, "data/") {
		return tlog.Tile{}, fmt.Errorf("tile path %q: unknown level", path)
	}
	if n, ok := strings.CutPrefix(rest, "entries/"); ok {
		rest = "data/" + n
	}
	t, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", tileHeight, rest))
	if err != nil || tilePath(t) != path {
		return tlog.Tile{}, fmt.Errorf("tile path %q: malformed", path)
	}
	return t, nil
}

// FullTiles lists the tiles and bundles that a ledger of size entries fills: those that lie in the bucket.
func FullTiles(size int64) []tlog.Tile {
	var tiles []tlog.Tile
	for n := range size / tileWidth {
		tiles = append(tiles, bundle(n, tileWidth))
	}
	for level, full := 0, size/tileWidth; full > 0; level, full = level+1, full/tileWidth {
		for n := range full {
			tiles = append(tiles, tlog.Tile{H: tileHeight, L: level, N: n, W: tileWidth})
		}
	}
	return tiles
}

// formatBundle writes entries one after the other, each with its length in two bytes, big endian.
func formatBundle(lines [][]byte) []byte {
	var b []byte
	for _, line := range lines {
		b = binary.BigEndian.AppendUint16(b, uint16(len(line)))
		b = append(b, line...)
	}
	return b
}

// parseBundle returns the entries of a bundle of the given width.
func parseBundle(b []byte, width int) ([][]byte, error) {
	lines := make([][]byte, 0, width)
	for len(b) > 0 {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return nil, fmt.Errorf("%w: ends within entry %d", errTile, len(lines))
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		lines = append(lines, b[2:n:n])
		b = b[n:]
	}
	if len(lines) != width {
		return nil, fmt.Errorf("%w: %d entries, want %d", errTile, len(lines), width)
	}
	return lines, nil
}

// readTile reads a tile from the hashes of a ledger of the given head and checks that it belongs there.
func readTile(t tlog.Tile, size int64, root tlog.Hash, r tlog.HashReader) ([]byte, error) {
	data, err := tlog.ReadTileData(t, r)
	if err != nil {
		return nil, err
	}
	hashes := make([]tlog.Hash, t.W)
	for i := range hashes {
		copy(hashes[i][:], data[i*tlog.HashSize:])
	}
	if err := checkNodes(hashes, t.L*tileHeight, t.N*tileWidth, size, root, r); err != nil {
		return nil, err
	}
	return data, nil
}

// checkNodes checks that nodes are those of the tree, at the level given, from node number first on, a
// multiple of 256. They are joined to as few complete subtrees as possible, and each is led to the root:
// cut into blocks of 2^l leaves, an RFC 6962 tree has the shape of a tree whose leaves are the blocks.
func checkNodes(nodes []tlog.Hash, level int, first, size int64, root tlog.Hash, r tlog.HashReader) error {
	for len(nodes) > 0 {
		height := bits.Len(uint(len(nodes))) - 1
		subtree := tree{}
		for _, h := range nodes[:1<<height] {
			subtree.add(h, nil)
		}
		l := level + height
		path, err := tlog.ProveRecord(size, first<<level, r)
		if err != nil {
			return err
		}
		blocks := (size-1)>>l + 1
		if len(path) < l || tlog.CheckRecord(path[l:], blocks, root, first>>height, subtree.root()) != nil {
			return fmt.Errorf("%w: hashes of level %d from %d", errIndex, level, first)
		}
		nodes, first = nodes[1<<height:], first+1<<height
	}
	return nil
}

// sameLeaves reports whether the entries have these leaf hashes.
func sameLeaves(lines [][]byte, leaves []byte) bool {
	for i, line := range lines {
		h := Leaf(line)
		if !bytes.Equal(h[:], leaves[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
			return false
		}
	}
	return len(lines)*tlog.HashSize == len(leaves)
}

// tiler writes full tiles and bundles to the bucket, behind the commits.
type tiler struct {
	wake chan struct{} // nil when nothing is written

	mu     sync.Mutex
	full   int64 // bundles known to be there
	failed error // why the next one is not
}

func (t *tiler) poke() {
	if t.wake == nil {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Tiled returns how many full bundles of entries, with the tiles over them, the bucket is known to have,
// and the error that keeps it from having more. Full ones are ⌊Head().Size/256⌋.
func (l *Log) Tiled() (full int64, err error) {
	l.tiler.mu.Lock()
	defer l.tiler.mu.Unlock()
	return l.tiler.full, l.tiler.failed
}

func (t *tiler) note(full int64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.full, t.failed = full, err
}

// tile is the goroutine that writes tiles. What it fails to write it tries again; what is missing when the
// process ends is written after the next Open.
func (l *Log) tile(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-l.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	full := l.tiled(ctx)
	l.tiler.note(full, nil)
	for {
		select {
		case <-l.tiler.wake:
		case <-ctx.Done():
			return
		}
		for full < l.Head().Size/tileWidth {
			err := l.healing(ctx, func() error { return l.putTiles(ctx, full) })
			if err == nil {
				full++
			}
			l.tiler.note(full, err)
			if err != nil && l.pause(ctx, time.Second) != nil {
				return
			}
		}
	}
}

// tiled returns how many bundles there are, looking from the end: bundles are written in order.
func (l *Log) tiled(ctx context.Context) int64 {
	head := l.Head()
	full := head.Size / tileWidth
	for ; full > 0; full-- {
		t := bundle(full-1, tileWidth)
		b, err := readObject(ctx, l.cfg.Store, TileKey(l.cfg.Producer, t), "", tileWidth*(MaxLine+2))
		if err != nil {
			continue
		}
		lines, err := parseBundle(b, tileWidth)
		if err != nil {
			continue
		}
		t.L = 0
		if leaves, err := readTile(t, head.Size, head.Root, l.index); err == nil && sameLeaves(lines, leaves) {
			break
		}
	}
	return full
}

// putTiles writes the tiles that bundle n completes, and last the bundle, so that it stands for them all.
func (l *Log) putTiles(ctx context.Context, n int64) error {
	head := l.Head()
	lines, err := l.lines(ctx, n*tileWidth, tileWidth)
	if err != nil {
		return err
	}
	l.crash("tiles.due")
	for level, done := 0, n+1; ; level, done = level+1, done/tileWidth {
		t := tlog.Tile{H: tileHeight, L: level, N: done - 1, W: tileWidth}
		data, err := readTile(t, head.Size, head.Root, l.index)
		if err != nil {
			return err
		}
		if level == 0 && !sameLeaves(lines, data) {
			return fmt.Errorf("%w: leaves of bundle %d", errIndex, n)
		}
		if err := l.putTile(ctx, t, data); err != nil {
			return err
		}
		if done%tileWidth != 0 {
			break
		}
	}
	l.crash("tiles.stored") // without their bundle: all of them are put again
	return l.putTile(ctx, bundle(n, tileWidth), formatBundle(lines))
}

func (l *Log) putTile(ctx context.Context, t tlog.Tile, data []byte) error {
	key := TileKey(l.cfg.Producer, t)
	if err := storage.Derive(ctx, l.cfg.Store, key, data); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}
