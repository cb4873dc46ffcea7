package evidence

import (
	"bytes"
	encasn1 "encoding/asn1"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// Verify checks that the record proves the SHA-256 digest. A record whose hash trees were renewed under
// another algorithm cannot be checked from a SHA-256 digest alone: [ErrDigest]; see [Record.VerifyData].
//
// The error is [ErrProof] when the record does not hold, or wraps what check returned.
func (r *Record) Verify(digest [32]byte, check CheckToken) (Proof, error) {
	return r.VerifyData(func(oid encasn1.ObjectIdentifier) ([]byte, error) {
		if !oid.Equal(sha256Algorithm().oid) {
			return nil, ErrDigest
		}
		return digest[:], nil
	}, check)
}

// VerifyData checks that the record proves the data object that digests speaks for, through all renewals.
// digests is asked once for each chain, oldest first.
func (r *Record) VerifyData(digests Digests, check CheckToken) (Proof, error) {
	if err := r.checkTrees(digests); err != nil {
		return Proof{}, err
	}
	return r.checkTimes(check)
}

// Hashes gives the digests of the size bytes of data, reading them once for each algorithm asked for.
func Hashes(data io.ReaderAt, size int64) Digests {
	return func(oid encasn1.ObjectIdentifier) ([]byte, error) {
		a, err := findAlgorithm(oid)
		if err != nil {
			return nil, err
		}
		h := a.new()
		n, err := io.Copy(h, io.NewSectionReader(data, 0, size))
		if err == nil && n != size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("hash data object: %w", err)
		}
		return h.Sum(nil), nil
	}
}

// checkTrees follows the hashes from the data object to the imprint of every timestamp (RFC 4998 sections 4.3
// and 5.3, without the validity of the timestamps).
func (r *Record) checkTrees(digests Digests) error {
	for n, c := range r.chains {
		a := c.stamps[0].covers.algorithm
		member, err := r.member(n, a, digests)
		if err != nil {
			return fmt.Errorf("chain %d, %s: %w", n+1, a.name, err)
		}
		for m, s := range c.stamps {
			if m > 0 {
				member = a.sum(c.stamps[m-1].token)
			}
			if err := s.fold(member); err != nil {
				return fmt.Errorf("chain %d, timestamp %d: %w", n+1, m+1, err)
			}
		}
	}
	return nil
}

// member is the value due in the first list of chain n: the digest of the data object, in later chains
// bound to all chains before. RFC 4998 section 5.2 concatenates the two unsorted.
func (r *Record) member(n int, a *algorithm, digests Digests) ([]byte, error) {
	d, err := digests(slices.Clone(a.oid))
	if err != nil {
		return nil, err
	}
	if len(d) != a.size {
		return nil, fmt.Errorf("%w: %d bytes offered, %d needed", ErrDigest, len(d), a.size)
	}
	if n == 0 {
		return d, nil
	}
	var b cryptobyte.Builder
	addSequence(&b, r.chains[:n])
	before, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("write the chains before: %w", err)
	}
	return a.sum(d, a.sum(before)), nil
}

// fold climbs the reduced hash tree from member and compares the root with the imprint of the token.
func (s stamp) fold(member []byte) error {
	root := member
	for i, g := range s.groups {
		list := slices.Clone(g)
		if i > 0 {
			list = append(list, root)
		}
		slices.SortFunc(list, bytes.Compare)
		at, found := slices.BinarySearchFunc(list, root, bytes.Compare)
		if !found {
			return fmt.Errorf("%w: %x is not in the first list", ErrProof, member)
		}
		if at+1 < len(list) && bytes.Equal(list[at+1], root) {
			return fmt.Errorf("%w: list %d holds its own result", ErrProof, i+1)
		}
		if len(list) > 1 {
			root = s.covers.sum(list...)
		}
	}
	if !bytes.Equal(root, s.covers.value) {
		return fmt.Errorf("%w: the root is %x, the timestamp covers %x", ErrProof, root, s.covers.value)
	}
	return nil
}

// checkTimes has every token judged, newest first, and holds their times to their order.
func (r *Record) checkTimes(check CheckToken) (Proof, error) {
	p := Proof{Renewals: -1}
	for n := len(r.chains) - 1; n >= 0; n-- {
		stamps := r.chains[n].stamps
		for m := len(stamps) - 1; m >= 0; m-- {
			s := stamps[m]
			t, err := check(bytes.Clone(s.token), bytes.Clone(s.covers.value), slices.Clone(s.covers.oid))
			if err != nil {
				return Proof{}, fmt.Errorf("chain %d, timestamp %d: %w", n+1, m+1, err)
			}
			if p.Renewals < 0 {
				p.Renewed = t
			} else if t.After(p.Time) {
				return Proof{}, fmt.Errorf("%w: chain %d, timestamp %d of %s is younger than its renewal of %s",
					ErrProof, n+1, m+1, t.Format(time.RFC3339), p.Time.Format(time.RFC3339))
			}
			p.Time = t
			p.Renewals++
		}
	}
	first := r.chains[0].stamps[0]
	p.Token = bytes.Clone(first.token)
	if first.covers.algorithm == sha256Algorithm() {
		p.Root = [32]byte(first.covers.value)
	}
	return p, nil
}
