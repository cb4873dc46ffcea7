package archive

import (
	"testing"

	"github.com/marchesud/perenne/archive/seal"
)

func TestTheTreeCacheIsBoundedByCountAndLeaves(t *testing.T) {
	var c treeCache
	for n := range int64(3 * cachedTrees) {
		c.keep(n, &sealTree{seal: &seal.Seal{Leaves: 10}})
		c.keep(n, &sealTree{seal: &seal.Seal{Leaves: 10}})
	}
	if len(c.trees) != cachedTrees || len(c.order) != cachedTrees || c.leaves != 10*cachedTrees {
		t.Errorf("small ones: got %d trees of %d leaves", len(c.trees), c.leaves)
	}
	c.keep(1000, &sealTree{seal: &seal.Seal{Leaves: cachedLeaves - 5}})
	if len(c.trees) != 1 || c.get(1000) == nil {
		t.Errorf("a large one: got %d trees, want it alone", len(c.trees))
	}
	c.keep(1001, &sealTree{seal: &seal.Seal{Leaves: 2 * cachedLeaves}})
	if len(c.trees) != 1 || c.get(1001) == nil || c.leaves != 2*cachedLeaves {
		t.Errorf("one beyond the bound: got %d trees of %d leaves, want it alone", len(c.trees), c.leaves)
	}
}
