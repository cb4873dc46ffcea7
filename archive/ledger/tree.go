package ledger

import (
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is an RFC 6962 tree of which only the right edge is kept: the roots of its complete subtrees, the
// largest first, one for each bit set in size. It grows without reading anything.
type tree struct {
	size int64
	edge []tlog.Hash
}

// add appends a leaf to the tree and to stored the hashes that tlog stores for it, in tlog's order.
func (t *tree) add(leaf tlog.Hash, stored []tlog.Hash) []tlog.Hash {
	stored = append(stored, leaf)
	for range bits.TrailingZeros64(uint64(t.size) + 1) {
		last := len(t.edge) - 1
		leaf = tlog.NodeHash(t.edge[last], leaf)
		t.edge = t.edge[:last]
		stored = append(stored, leaf)
	}
	t.edge = append(t.edge, leaf)
	t.size++
	return stored
}

// root returns the root; that of the empty tree is the hash of nothing.
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		return emptyRoot
	}
	last := len(t.edge) - 1
	h := t.edge[last]
	for i := last - 1; i >= 0; i-- {
		h = tlog.NodeHash(t.edge[i], h)
	}
	return h
}

// clone returns a tree that grows apart from t.
func (t *tree) clone() tree {
	return tree{t.size, append(make([]tlog.Hash, 0, len(t.edge)+2), t.edge...)}
}

// readTree reads the right edge of the tree of the given size.
func readTree(size int64, r tlog.HashReader) (tree, error) {
	var at []int64
	for level := 62; level >= 0; level-- {
		if size>>level&1 != 0 {
			at = append(at, tlog.StoredHashIndex(level, size>>level-1))
		}
	}
	edge, err := r.ReadHashes(at)
	return tree{size, edge}, err
}

// emptyRoot is SHA-256 of the empty string (RFC 6962 §2.1).
var emptyRoot = tlog.Hash{
	0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
	0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
}
