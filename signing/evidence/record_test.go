package evidence

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func TestEverySingleBitFlipIsRefused(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 64} {
		s := newSeal(t, numbered(n), 1)
		leaf := s.leaves[n/2]
		der := s.derive(t, leaf)
		for i := range der {
			for bit := range 8 {
				bad := bytes.Clone(der)
				bad[i] ^= 1 << bit
				r, err := Parse(bad)
				if err != nil {
					continue
				}
				// Verify alone must refuse, without the help of Minimal.
				if _, err := r.Verify(leaf, s.check); err == nil {
					t.Errorf("%d leaves: byte %d bit %d: the record still verifies", n, i, bit)
				}
			}
		}
	}
}

func TestEveryTruncationAndExtensionIsRefused(t *testing.T) {
	s := newSeal(t, numbered(5), 1)
	der := s.derive(t, s.leaves[2])
	for n := range der {
		if _, err := Parse(der[:n]); !errors.Is(err, ErrForm) {
			t.Errorf("first %d bytes: got %v, want ErrForm", n, err)
		}
	}
	for _, tail := range [][]byte{{0}, {0, 0}, {5, 0}, der} {
		if _, err := Parse(append(bytes.Clone(der), tail...)); !errors.Is(err, ErrForm) {
			t.Errorf("with %d bytes behind: got %v, want ErrForm", len(tail), err)
		}
	}
}

// parts are the elements of a record, for building others from them.
type parts struct {
	version, algorithms, own, token []byte
	groups                          [][]byte
}

var sha256WithNull = []byte{0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00}

func partsOf(r *Record) parts {
	p := parts{
		version:    []byte{0x02, 0x01, 0x01},
		algorithms: wire(0x30, wire(0x30, sha256WithNull)),
		own:        wire(0xa0, sha256WithNull),
		token:      r.chains[0].stamps[0].token,
	}
	for _, g := range r.chains[0].stamps[0].groups {
		p.groups = append(p.groups, group(g...))
	}
	return p
}

func group(values ...[]byte) []byte {
	var list [][]byte
	for _, v := range values {
		list = append(list, wire(0x04, v))
	}
	return wire(0x30, list...)
}

func (p parts) record() []byte {
	tree := wire(0xa2, p.groups...)
	return wire(0x30, p.version, p.algorithms, wire(0x30, wire(0x30, wire(0x30, p.own, tree, p.token))))
}

func TestParseRefuses(t *testing.T) {
	s := newSeal(t, numbered(5), 1)
	good, err := Parse(s.derive(t, s.leaves[0]))
	if err != nil {
		t.Fatal(err)
	}
	a, b := s.leaves[0][:], s.leaves[1][:]
	sha1 := wire(0x30, []byte{0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a})
	sha512 := wire(0x30, slices.Replace(bytes.Clone(sha256WithNull), 10, 11, 3))
	attributes := wire(0xa1, wire(0x30, []byte{0x06, 0x01, 0x2a}, wire(0x31, []byte{0x05, 0x00})))
	for _, c := range []struct {
		name   string
		change func(*parts)
		want   error
	}{
		{"version 2", func(p *parts) { p.version = []byte{0x02, 0x01, 0x02} }, ErrUnsupported},
		{"a version in too many bytes", func(p *parts) { p.version = []byte{0x02, 0x02, 0x00, 0x01} }, ErrForm},
		{"no algorithms", func(p *parts) { p.algorithms = wire(0x30) }, ErrForm},
		{"an algorithm twice", func(p *parts) {
			p.algorithms = wire(0x30, wire(0x30, sha256WithNull), wire(0x30, sha256WithNull))
		}, ErrForm},
		{"many algorithms", func(p *parts) {
			p.algorithms = wire(0x30, bytes.Repeat(wire(0x30, sha256WithNull), 1000))
		}, ErrForm},
		{"an algorithm without use", func(p *parts) {
			p.algorithms = wire(0x30, wire(0x30, sha256WithNull), sha512)
		}, ErrForm},
		{"an algorithm not listed", func(p *parts) { p.algorithms = wire(0x30, sha512) }, ErrForm},
		{"SHA-1", func(p *parts) { p.algorithms = wire(0x30, sha1) }, ErrUnsupported},
		{"algorithm parameters", func(p *parts) {
			p.algorithms = wire(0x30, wire(0x30, sha256WithNull[:11], []byte{0x02, 0x01, 0x00}))
		}, ErrForm},
		{"cryptoInfos", func(p *parts) { p.algorithms = append(p.algorithms, wire(0xa0, attributes[2:])...) }, ErrUnsupported},
		{"encryptionInfo", func(p *parts) { p.algorithms = append(p.algorithms, wire(0xa1, attributes[2:])...) }, ErrUnsupported},
		{"attributes", func(p *parts) { p.own = append(p.own, attributes...) }, ErrUnsupported},
		{"a tree under another algorithm", func(p *parts) { p.own = wire(0xa0, sha512[2:]) }, ErrForm},
		{"an empty tree", func(p *parts) { p.groups = nil }, ErrForm},
		{"an empty list", func(p *parts) { p.groups[0] = group() }, ErrForm},
		{"a value of 31 bytes", func(p *parts) { p.groups[0] = group(a, b[:31]) }, ErrForm},
		{"a value of 64 bytes", func(p *parts) { p.groups[0] = group(append(bytes.Clone(a), b...)) }, ErrForm},
		{"a value twice", func(p *parts) { p.groups[0] = group(a, b, a) }, ErrForm},
		{"4,097 lists", func(p *parts) { p.groups = slices.Repeat([][]byte{group(a)}, maxGroups+1) }, ErrForm},
		{"a list of integers", func(p *parts) { p.groups[0] = wire(0x30, []byte{0x02, 0x01, 0x01}) }, ErrForm},
		{"no token", func(p *parts) { p.token = nil }, ErrForm},
		{"two tokens", func(p *parts) { p.token = append(bytes.Clone(p.token), p.token...) }, ErrForm},
		{"a token of another type", func(p *parts) {
			p.token = wire(0x30, []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01})
		}, ErrUnsupported},
		{"a token over 31 bytes", func(p *parts) { p.token = plainToken(t, sha256Algorithm(), a[:31], 1) }, ErrForm},
		{"a token in indefinite form", func(p *parts) {
			p.token = append(append([]byte{0x30, 0x80}, p.token[4:]...), 0, 0)
		}, ErrForm},
	} {
		p := partsOf(good)
		if !bytes.Equal(p.record(), good.der) {
			t.Fatalf("the record taken apart and put together: got %x, want %x", p.record(), good.der)
		}
		c.change(&p)
		if r, err := Parse(p.record()); !errors.Is(err, c.want) || r != nil {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestParseRefusesLargeAndDeep(t *testing.T) {
	nest := func(depth int) []byte {
		der := []byte{0x05, 0x00}
		for range depth {
			der = wire(0x30, der)
		}
		return der
	}
	if err := scan(nest(maxDepth)); err != nil {
		t.Errorf("%d levels: got %v, want none", maxDepth, err)
	}
	for _, c := range []struct {
		name string
		der  []byte
	}{
		{"nothing", nil},
		{"33 levels", nest(maxDepth + 1)},
		{"5,000 levels", nest(5_000)},
		{"more than 16 MiB", make([]byte, maxSize+1)},
		{"an element longer than the rest", []byte{0x30, 0x02, 0x05}},
		{"an element longer than its parent", []byte{0x30, 0x02, 0x04, 0x01, 0x00}},
		{"a length in too many bytes", []byte{0x30, 0x81, 0x02, 0x05, 0x00}},
		{"a length with a leading zero", append([]byte{0x04, 0x82, 0x00, 0x80}, make([]byte, 128)...)},
		{"a length of four bytes", append([]byte{0x04, 0x84, 0x01, 0x00, 0x00, 0x00}, make([]byte, 64)...)},
		{"indefinite length", []byte{0x30, 0x80, 0x00, 0x00}},
		{"a tag over several bytes", []byte{0x3f, 0x01, 0x00}},
		{"a constructed string", []byte{0x24, 0x03, 0x04, 0x01, 0x00}},
		{"a primitive sequence", []byte{0x10, 0x00}},
		{"a tag without a length", []byte{0x30}},
	} {
		if _, err := Parse(c.der); !errors.Is(err, ErrForm) {
			t.Errorf("%s: got %v, want ErrForm", c.name, err)
		}
	}
}

func TestMinimalRefusesOtherSpellingsOfATrueRecord(t *testing.T) {
	s := newSeal(t, numbered(5), 1)
	leaf := s.leaves[2]
	good, err := Parse(s.derive(t, leaf))
	if err != nil {
		t.Fatal(err)
	}
	if err := good.Minimal(leaf); err != nil {
		t.Fatalf("our own form: %v", err)
	}
	first := good.chains[0].stamps[0].groups[0]
	for _, c := range []struct {
		name   string
		change func(*parts)
	}{
		{"the first list descending", func(p *parts) { p.groups[0] = group(first[1], first[0]) }},
		{"algorithm without NULL", func(p *parts) { p.algorithms = wire(0x30, wire(0x30, sha256WithNull[:11])) }},
		{"tree algorithm without NULL", func(p *parts) { p.own = wire(0xa0, sha256WithNull[:11]) }},
		{"tree algorithm absent", func(p *parts) { p.own = nil }},
		{"a first list of one", func(p *parts) {
			sibling := first[0]
			if bytes.Equal(sibling, leaf[:]) {
				sibling = first[1]
			}
			p.groups = append([][]byte{group(leaf[:]), group(sibling)}, p.groups[1:]...)
		}},
	} {
		p := partsOf(good)
		c.change(&p)
		r, err := Parse(p.record())
		if err != nil {
			t.Errorf("%s: Parse: %v", c.name, err)
			continue
		}
		if _, err := r.Verify(leaf, s.check); err != nil {
			t.Errorf("%s: Verify: got %v, want none", c.name, err)
		}
		if err := r.Minimal(leaf); !errors.Is(err, ErrForm) {
			t.Errorf("%s: Minimal: got %v, want ErrForm", c.name, err)
		}
	}
	if err := good.Minimal(numbered(9)[8]); !errors.Is(err, ErrForm) {
		t.Errorf("Minimal for another digest: got %v, want ErrForm", err)
	}
}

func TestRecordKeepsNoHoldOnItsBytes(t *testing.T) {
	s := newSeal(t, numbered(4), 1)
	der := s.derive(t, s.leaves[0])
	r, err := Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	clear(der)
	clear(r.Tokens()[0])
	p, err := r.Verify(s.leaves[0], s.check)
	if err != nil {
		t.Fatal(err)
	}
	clear(p.Token)
	if _, err := r.Verify(s.leaves[0], s.check); err != nil {
		t.Errorf("after clearing what it gave out: %v", err)
	}
}

func TestImprintIsReadWithAndWithoutParameters(t *testing.T) {
	value := make([]byte, 32)
	token := plainToken(t, sha256Algorithm(), value, 1)
	at := bytes.LastIndex(token, sha256WithNull)
	if at < 0 {
		t.Fatal("no imprint algorithm in the token")
	}
	if got, err := readImprint(token); err != nil || got.algorithm != sha256Algorithm() || !bytes.Equal(got.value, value) {
		t.Errorf("got %+v, %v", got, err)
	}
	id, err := readIdentifier(sha256WithNull[:11])
	if err != nil || id.null || id.algorithm != sha256Algorithm() {
		t.Errorf("without parameters: got %+v, %v", id, err)
	}
}

func TestParseBoundsTimestampsAndChains(t *testing.T) {
	s := newSeal(t, numbered(1), 1)
	one := wire(0x30, wire(0xa0, sha256WithNull), s.token)
	build := func(chains, stamps int) []byte {
		return wire(0x30, []byte{0x02, 0x01, 0x01}, wire(0x30, wire(0x30, sha256WithNull)),
			wire(0x30, bytes.Repeat(wire(0x30, bytes.Repeat(one, stamps)), chains)))
	}
	for _, c := range []struct {
		chains, stamps int
		want           error
	}{
		{1, maxStamps, nil},
		{1, maxStamps + 1, ErrForm},
		{maxChains, 1, nil},
		{maxChains + 1, 1, ErrForm},
		{0, 0, ErrForm},
		{1, 0, ErrForm},
	} {
		if _, err := Parse(build(c.chains, c.stamps)); !errors.Is(err, c.want) {
			t.Errorf("%d chains of %d: got %v, want %v", c.chains, c.stamps, err, c.want)
		}
	}
}

func TestParseRefusesTwoAlgorithmsInOneChain(t *testing.T) {
	s := newSeal(t, numbered(1), 1)
	sha512 := slices.Replace(bytes.Clone(sha256WithNull), 10, 11, 3)
	der := wire(0x30, []byte{0x02, 0x01, 0x01},
		wire(0x30, wire(0x30, sha256WithNull), wire(0x30, sha512)),
		wire(0x30, wire(0x30,
			wire(0x30, s.token),
			wire(0x30, plainToken(t, &algorithms[2], make([]byte, 64), 2)))))
	if _, err := Parse(der); !errors.Is(err, ErrForm) {
		t.Errorf("got %v, want ErrForm", err)
	}
}
