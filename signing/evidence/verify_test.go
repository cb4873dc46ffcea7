package evidence

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	encasn1 "encoding/asn1"
	"errors"
	"slices"
	"testing"
	"time"
)

// told is a check that believes every token, takes its time from the table and keeps the order of calls.
type told struct {
	times map[string]time.Time
	calls [][]byte
}

func (c *told) check(token, _ []byte, _ encasn1.ObjectIdentifier) (time.Time, error) {
	c.calls = append(c.calls, token)
	t, ok := c.times[string(token)]
	if !ok {
		return time.Time{}, errToken
	}
	return t, nil
}

// renewal builds renewed records by hand from the text of RFC 4998 section 5.2.
type renewal struct {
	t      *testing.T
	record Record
	told   told
	serial int64
}

func newRenewal(t *testing.T) *renewal {
	return &renewal{t: t, told: told{times: map[string]time.Time{}}, serial: 1}
}

// stamp appends an archive timestamp over member, in a new chain or the last one.
func (b *renewal) stamp(fresh bool, a *algorithm, member []byte, others ...[]byte) {
	id := identifier{a, true}
	list := append([][]byte{member}, others...)
	sorted := slices.SortedFunc(slices.Values(list), bytes.Compare)
	root := member
	s := stamp{own: &id}
	if len(others) > 0 {
		root = a.sum(sorted...)
		s.groups = [][][]byte{list}
	}
	s.token = plainToken(b.t, a, root, b.serial)
	b.told.times[string(s.token)] = stampTime(b.serial)
	b.serial++
	if fresh {
		b.record.chains = append(b.record.chains, chain{})
		if !slices.ContainsFunc(b.record.algorithms, func(i identifier) bool { return i.algorithm == a }) {
			b.record.algorithms = append(b.record.algorithms, id)
		}
	}
	last := &b.record.chains[len(b.record.chains)-1]
	last.stamps = append(last.stamps, s)
}

// before is the DER of all chains so far, written without the package's encoder.
func (b *renewal) before() []byte {
	var chains [][]byte
	for _, c := range b.record.chains {
		var stamps [][]byte
		for _, s := range c.stamps {
			oid := slices.Replace(bytes.Clone(sha256WithNull), 10, 11, byte(s.own.oid[8]))
			parts := [][]byte{wire(0xa0, oid)}
			if s.groups != nil {
				parts = append(parts, wire(0xa2, group(s.groups[0]...)))
			}
			stamps = append(stamps, wire(0x30, append(parts, s.token)...))
		}
		chains = append(chains, wire(0x30, stamps...))
	}
	return wire(0x30, chains...)
}

func (b *renewal) lastToken() []byte {
	c := b.record.chains[len(b.record.chains)-1]
	return c.stamps[len(c.stamps)-1].token
}

func (b *renewal) parse() *Record {
	b.t.Helper()
	der, err := b.record.encode()
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := Parse(der)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

var data = []byte("determina n. 12 del 9 marzo 2026")

// full is a record with everything: SHA-256 renewed by a timestamp, then SHA-512, renewed again.
func full(t *testing.T, concatenate func(d, before [64]byte) []byte) *renewal {
	b := newRenewal(t)
	d256, d512 := sha256.Sum256(data), sha512.Sum512(data)
	other := sha256.Sum256([]byte("other"))
	other512 := sha512.Sum512([]byte("other"))
	b.stamp(true, &algorithms[0], d256[:], other[:])
	token := sha256.Sum256(b.lastToken())
	b.stamp(false, &algorithms[0], token[:], other[:])
	member := sha512.Sum512(concatenate(d512, sha512.Sum512(b.before())))
	b.stamp(true, &algorithms[2], member[:], other512[:])
	token512 := sha512.Sum512(b.lastToken())
	b.stamp(false, &algorithms[2], token512[:])
	return b
}

func inOrder(d, before [64]byte) []byte { return append(d[:], before[:]...) }

func TestVerifyFollowsAllRenewals(t *testing.T) {
	b := full(t, inOrder)
	r := b.parse()
	p, err := r.VerifyData(Hashes(bytes.NewReader(data), int64(len(data))), b.told.check)
	if err != nil {
		t.Fatal(err)
	}
	first := b.record.chains[0].stamps[0]
	if !p.Time.Equal(stampTime(1)) || !p.Renewed.Equal(stampTime(4)) || p.Renewals != 3 ||
		!bytes.Equal(p.Token, first.token) || !bytes.Equal(p.Root[:], first.covers256(t)) {
		t.Errorf("got %+v", p)
	}
	want := r.Tokens()
	slices.Reverse(want)
	if len(want) != 4 || !slices.EqualFunc(b.told.calls, want, bytes.Equal) {
		t.Errorf("tokens were not checked newest first")
	}
	if err := r.Minimal(sha256.Sum256(data)); !errors.Is(err, ErrForm) {
		t.Errorf("Minimal: got %v, want ErrForm", err)
	}
}

func (s stamp) covers256(t *testing.T) []byte {
	t.Helper()
	i, err := readImprint(s.token)
	if err != nil {
		t.Fatal(err)
	}
	return i.value
}

func TestVerifyNeedsTheDataAfterAHashTreeRenewal(t *testing.T) {
	b := full(t, inOrder)
	if _, err := b.parse().Verify(sha256.Sum256(data), b.told.check); !errors.Is(err, ErrDigest) {
		t.Errorf("got %v, want ErrDigest", err)
	}
}

func TestVerifyRefusesFalseRenewals(t *testing.T) {
	d256 := sha256.Sum256(data)
	d512 := sha512.Sum512(data)
	other := sha256.Sum256([]byte("other"))
	for _, c := range []struct {
		name  string
		build func(*renewal)
		want  error
	}{
		{"a renewal that covers the data instead of the token", func(b *renewal) {
			b.stamp(true, &algorithms[0], d256[:])
			b.stamp(false, &algorithms[0], d256[:], other[:])
		}, ErrProof},
		{"a renewal of another token", func(b *renewal) {
			b.stamp(true, &algorithms[0], d256[:])
			wrong := sha256.Sum256(plainToken(b.t, &algorithms[0], d256[:], 99))
			b.stamp(false, &algorithms[0], wrong[:])
		}, ErrProof},
		{"a new chain over the data alone", func(b *renewal) {
			b.stamp(true, &algorithms[0], d256[:])
			b.stamp(true, &algorithms[2], d512[:])
		}, ErrProof},
		{"a new chain over the older chains alone", func(b *renewal) {
			b.stamp(true, &algorithms[0], d256[:])
			h := sha512.Sum512(b.before())
			b.stamp(true, &algorithms[2], h[:])
		}, ErrProof},
		{"a new chain of the same algorithm", func(b *renewal) {
			b.stamp(true, &algorithms[0], d256[:], other[:])
			h := sha256.Sum256(b.before())
			member := sha256.Sum256(append(d256[:], h[:]...))
			b.stamp(true, &algorithms[0], member[:])
		}, nil},
		{"a renewal younger than the token it renews", func(b *renewal) {
			b.stamp(true, &algorithms[0], d256[:])
			h := sha256.Sum256(b.lastToken())
			b.told.times[string(b.lastToken())] = stampTime(50)
			b.stamp(false, &algorithms[0], h[:])
		}, ErrProof},
		{"a renewal in the same second", func(b *renewal) {
			b.stamp(true, &algorithms[0], d256[:])
			h := sha256.Sum256(b.lastToken())
			b.told.times[string(b.lastToken())] = stampTime(2)
			b.stamp(false, &algorithms[0], h[:])
		}, nil},
		{"a first token that the check refuses", func(b *renewal) {
			b.stamp(true, &algorithms[0], d256[:])
			h := sha256.Sum256(b.lastToken())
			delete(b.told.times, string(b.lastToken()))
			b.stamp(false, &algorithms[0], h[:])
		}, errToken},
	} {
		b := newRenewal(t)
		c.build(b)
		_, err := b.parse().VerifyData(Hashes(bytes.NewReader(data), int64(len(data))), b.told.check)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestVerifyTakesDigestsInTheOrderOfTheStandard(t *testing.T) {
	d, before := sha512.Sum512(data), [64]byte{}
	swapped := full(t, func(d, before [64]byte) []byte { return append(before[:], d[:]...) })
	copy(before[:], algorithms[2].sum(swapped.before()))
	if bytes.Equal(inOrder(d, before), append(before[:], d[:]...)) {
		t.Fatal("the test cannot tell the orders apart")
	}
	_, err := swapped.parse().VerifyData(Hashes(bytes.NewReader(data), int64(len(data))), swapped.told.check)
	if !errors.Is(err, ErrProof) {
		t.Errorf("got %v, want ErrProof", err)
	}
}

func TestVerifyTellsBadDataFromMissing(t *testing.T) {
	b := full(t, inOrder)
	r := b.parse()
	lost := errors.New("lost")
	for _, c := range []struct {
		name    string
		digests Digests
		want    error
	}{
		{"another object", Hashes(bytes.NewReader(data[1:]), int64(len(data)-1)), ErrProof},
		{"an object shorter than said", Hashes(bytes.NewReader(data), int64(len(data)+1)), errAny},
		{"digests that fail", func(encasn1.ObjectIdentifier) ([]byte, error) { return nil, lost }, lost},
		{"a digest of the wrong length", func(encasn1.ObjectIdentifier) ([]byte, error) { return data[1:], nil }, ErrDigest},
	} {
		_, err := r.VerifyData(c.digests, b.told.check)
		if err == nil || c.want != errAny && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestHashesRefusesOtherAlgorithms(t *testing.T) {
	for _, oid := range []encasn1.ObjectIdentifier{oidSHA1, {1, 2, 3}} {
		if _, err := Hashes(bytes.NewReader(data), int64(len(data)))(oid); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%v: got %v, want ErrUnsupported", oid, err)
		}
	}
}

var errAny = errors.New("any error")

func TestVerifyAsksNobodyAboutTokensOfABrokenTree(t *testing.T) {
	s := newSeal(t, numbered(4), 1)
	r, err := Parse(s.derive(t, s.leaves[0]))
	if err != nil {
		t.Fatal(err)
	}
	asked := false
	_, err = r.Verify(numbered(5)[4], func([]byte, []byte, encasn1.ObjectIdentifier) (time.Time, error) {
		asked = true
		return time.Time{}, nil
	})
	if !errors.Is(err, ErrProof) || asked {
		t.Errorf("got %v, check called: %v; want ErrProof, false", err, asked)
	}
}

func TestVerifyRefusesAListWithItsOwnResult(t *testing.T) {
	a := sha256Algorithm()
	leaves := numbered(2)
	pair := parent(leaves[0], leaves[1])
	for _, second := range [][][]byte{{pair[:]}, {pair[:], leaves[0][:]}} {
		list := slices.SortedFunc(slices.Values(append([][]byte{pair[:]}, second...)), bytes.Compare)
		root := a.sum(list...)
		id := identifier{a, true}
		s := stamp{own: &id, token: plainToken(t, a, root, 1), groups: [][][]byte{{leaves[0][:], leaves[1][:]}, second}}
		der, err := (&Record{algorithms: []identifier{id}, chains: []chain{{[]stamp{s}}}}).encode()
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Verify(leaves[0], strict(s.token, root, 1)); !errors.Is(err, ErrProof) {
			t.Errorf("got %v, want ErrProof", err)
		}
	}
}
