package evidence

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
)

// Tree is the hash tree of one seal, for many records without building it again. It is immutable and may be
// used concurrently; it holds about 64 bytes a leaf.
type Tree struct {
	levels [][][32]byte // levels[0] are the leaves; the last level has one node; empty when there are no leaves
}

// Root returns what the timestamp of a seal with these leaves covers; order and repetition do not matter.
// Without leaves it returns [ErrLeaves].
func Root(leaves [][32]byte) ([32]byte, error) {
	return NewTree(leaves).Root()
}

// Derive returns the evidence record (DER) of leaf; see [Tree.Derive].
func Derive(leaves [][32]byte, leaf [32]byte, token []byte) ([]byte, error) {
	return NewTree(leaves).Derive(leaf, token)
}

// NewTree builds the tree over leaves, which it does not keep or change.
func NewTree(leaves [][32]byte) *Tree {
	level := slices.Clone(leaves)
	slices.SortFunc(level, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	level = slices.Compact(level)
	if len(level) == 0 {
		return &Tree{}
	}
	t := &Tree{levels: [][][32]byte{level}}
	for len(level) > 1 {
		up := make([][32]byte, 0, (len(level)+1)/2)
		for pair := range slices.Chunk(level, 2) {
			if len(pair) == 2 {
				up = append(up, parent(pair[0], pair[1]))
			} else {
				up = append(up, pair[0])
			}
		}
		t.levels = append(t.levels, up)
		level = up
	}
	return t
}

// Len is the number of distinct leaves.
func (t *Tree) Len() int {
	if len(t.levels) == 0 {
		return 0
	}
	return len(t.levels[0])
}

// Root returns the root of the tree, or [ErrLeaves] when it has no leaves.
func (t *Tree) Root() ([32]byte, error) {
	if len(t.levels) == 0 {
		return [32]byte{}, fmt.Errorf("root of an empty tree: %w", ErrLeaves)
	}
	return t.levels[len(t.levels)-1][0], nil
}

// Derive returns the evidence record (DER) of leaf under token, the DER of the RFC 3161 token over the root of
// the tree. The same arguments give the same bytes in every version of this program. It returns
// [ErrLeaves] when leaf is not a leaf of the tree, [ErrProof] when the token covers something else, and [ErrForm]
// when it is no token. It does not judge whether the token is genuine.
func (t *Tree) Derive(leaf [32]byte, token []byte) ([]byte, error) {
	root, err := t.Root()
	if err != nil {
		return nil, err
	}
	i, ok := slices.BinarySearchFunc(t.levels[0], leaf, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	if !ok {
		return nil, fmt.Errorf("evidence record of %x: %w", leaf, ErrLeaves)
	}
	if err := covers(token, root); err != nil {
		return nil, fmt.Errorf("evidence record of %x: %w", leaf, err)
	}
	var path [][32]byte
	for _, level := range t.levels[:len(t.levels)-1] {
		if i^1 < len(level) {
			path = append(path, level[i^1])
		}
		i /= 2
	}
	return derive(leaf, path, token)
}

// covers checks that token names root as its imprint: a record that cannot hold is not written.
func covers(token []byte, root [32]byte) error {
	if err := scan(token); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	got, err := readImprint(token)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if got.algorithm != sha256Algorithm() || !bytes.Equal(got.value, root[:]) {
		return fmt.Errorf("%w: the token covers %s %x, the root is %x", ErrProof, got.name, got.value, root)
	}
	return nil
}

// derive writes the record of leaf with its siblings from the leaf upwards.
func derive(leaf [32]byte, path [][32]byte, token []byte) ([]byte, error) {
	id := identifier{sha256Algorithm(), true}
	s := stamp{own: &id, token: token}
	for i, sibling := range path {
		group := [][]byte{sibling[:]}
		if i == 0 {
			group = append(group, leaf[:])
			slices.SortFunc(group, bytes.Compare)
		}
		s.groups = append(s.groups, group)
	}
	r := Record{algorithms: []identifier{id}, chains: []chain{{stamps: []stamp{s}}}}
	der, err := r.encode()
	if err != nil {
		return nil, fmt.Errorf("evidence record of %x: %w", leaf, err)
	}
	return der, nil
}

func parent(a, b [32]byte) [32]byte {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	var pair [64]byte
	copy(pair[:32], a[:])
	copy(pair[32:], b[:])
	return sha256.Sum256(pair[:])
}
