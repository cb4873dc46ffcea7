package evidence

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden records again (only when a new version of the derivation is added)")

// plainRoot is the derivation once more, as its text reads, without the package's tree.
func plainRoot(leaves [][32]byte) []byte {
	set := map[string]bool{}
	for _, l := range leaves {
		set[string(l[:])] = true
	}
	var level []string
	for l := range set {
		level = append(level, l)
	}
	slices.Sort(level)
	for len(level) > 1 {
		var up []string
		for i := 0; i < len(level); i += 2 {
			if i+1 == len(level) {
				up = append(up, level[i])
				continue
			}
			h := sha256.Sum256([]byte(min(level[i], level[i+1]) + max(level[i], level[i+1])))
			up = append(up, string(h[:]))
		}
		level = up
	}
	return []byte(level[0])
}

func TestRootFollowsTheText(t *testing.T) {
	for n := 1; n <= 70; n++ {
		leaves := numbered(n)
		got, err := Root(leaves)
		if want := plainRoot(leaves); err != nil || !bytes.Equal(got[:], want) {
			t.Errorf("%d leaves: got %x, %v, want %x", n, got, err, want)
		}
	}
}

func TestRootIgnoresOrderAndRepetition(t *testing.T) {
	leaves := numbered(9)
	want, _ := Root(leaves)
	again := append(slices.Clone(leaves), leaves[3], leaves[3], leaves[8])
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
	before := slices.Clone(again)
	if got, err := Root(again); err != nil || got != want {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	if !slices.Equal(again, before) {
		t.Error("Root changed the slice it was given")
	}
}

func TestRootOfOneLeafIsTheLeaf(t *testing.T) {
	leaf := numbered(1)[0]
	if got, err := Root([][32]byte{leaf, leaf}); err != nil || got != leaf {
		t.Errorf("got %x, %v, want %x", got, err, leaf)
	}
}

func TestEmptyTreeHasNothing(t *testing.T) {
	if _, err := Root(nil); !errors.Is(err, ErrLeaves) {
		t.Errorf("Root: got %v, want ErrLeaves", err)
	}
	if _, err := Derive(nil, [32]byte{}, nil); !errors.Is(err, ErrLeaves) {
		t.Errorf("Derive: got %v, want ErrLeaves", err)
	}
}

func TestDeriveRefuses(t *testing.T) {
	s := newSeal(t, numbered(5), 1)
	other := newSeal(t, numbered(6), 2)
	sha512 := plainToken(t, &algorithms[2], make([]byte, 64), 1)
	for _, c := range []struct {
		name  string
		leaf  [32]byte
		token []byte
		want  error
	}{
		{"a digest that is no leaf", sha256.Sum256(nil), s.token, ErrLeaves},
		{"the token of another seal", s.leaves[0], other.token, ErrProof},
		{"a token under another algorithm", s.leaves[0], sha512, ErrProof},
		{"no token", s.leaves[0], nil, ErrForm},
		{"a token with bytes behind it", s.leaves[0], append(slices.Clone(s.token), 0), ErrForm},
		{"something else than a token", s.leaves[0], []byte{0x30, 0x03, 0x02, 0x01, 0x01}, ErrForm},
	} {
		if der, err := s.tree.Derive(c.leaf, c.token); !errors.Is(err, c.want) || der != nil {
			t.Errorf("%s: got %d bytes, %v, want %v", c.name, len(der), err, c.want)
		}
	}
}

// Golden records pin version 1 of the derivation, byte for byte. See testdata/README.md.
func TestDerivationIsFrozen(t *testing.T) {
	for _, n := range []int{1, 2, 3, 6, 11} {
		s := newSeal(t, numbered(n), 1)
		for _, i := range []int{0, n - 1} {
			name := filepath.Join("testdata", fmt.Sprintf("v1-leaf-%d-of-%d.ers", i, n))
			got := s.derive(t, s.leaves[i])
			if *update {
				if err := os.WriteFile(name, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: the derivation has changed: got %x, want %x", name, got, want)
			}
			if _, err := accept(want, s.leaves[i], s.check); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestEveryLeafHasItsRecordAndNoOther(t *testing.T) {
	for n := 1; n <= 40; n++ {
		s := newSeal(t, numbered(n), 1)
		for i, leaf := range s.leaves {
			der := s.derive(t, leaf)
			p, err := accept(der, leaf, s.check)
			if err != nil {
				t.Fatalf("leaf %d of %d: %v", i, n, err)
			}
			if p.Root != s.root || !bytes.Equal(p.Token, s.token) || p.Renewals != 0 ||
				!p.Time.Equal(stampTime(1)) || !p.Renewed.Equal(p.Time) {
				t.Fatalf("leaf %d of %d: got proof %+v", i, n, p)
			}
			r, _ := Parse(der)
			for j, other := range s.leaves {
				if i == j {
					continue
				}
				// A sibling in the first list is covered by the same root: true, but not our form for it
				// unless it is the very record of that sibling.
				_, err := r.Verify(other, s.check)
				if err == nil && !bytes.Equal(der, s.derive(t, other)) {
					t.Fatalf("%d leaves: the record of %d proves %d", n, i, j)
				}
			}
		}
	}
}

func TestRandomTreesProveTheirLeavesOnly(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(rt, "leaves")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		leaves := make([][32]byte, n)
		for i := range leaves {
			for j := range leaves[i] {
				leaves[i][j] = byte(rng.Uint32())
			}
		}
		s := newSeal(t, leaves, 1)
		for range 8 {
			leaf := leaves[rng.IntN(n)]
			der := s.derive(t, leaf)
			if _, err := accept(der, leaf, s.check); err != nil {
				rt.Fatalf("%x: %v", leaf, err)
			}
			stranger := leaf
			stranger[rng.IntN(32)] ^= 1 << rng.IntN(8)
			if _, err := accept(der, stranger, s.check); !errors.Is(err, ErrProof) {
				rt.Fatalf("%x: got %v, want ErrProof", stranger, err)
			}
		}
	})
}

func BenchmarkNewTree10000(b *testing.B) {
	leaves := numbered(10_000)
	for b.Loop() {
		NewTree(leaves)
	}
}

func BenchmarkDeriveOneOf10000(b *testing.B) {
	s := newSeal(b, numbered(10_000), 1)
	for b.Loop() {
		s.derive(b, s.leaves[4_711])
	}
}

func BenchmarkVerifyOneOf10000(b *testing.B) {
	s := newSeal(b, numbered(10_000), 1)
	leaf := s.leaves[4_711]
	der := s.derive(b, leaf)
	for b.Loop() {
		if _, err := accept(der, leaf, s.check); err != nil {
			b.Fatal(err)
		}
	}
}
