package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Record is a parsed evidence record. It is immutable and may be used concurrently.
type Record struct {
	der        []byte
	algorithms []identifier
	chains     []chain
}

// chain is an ArchiveTimeStampChain: archive timestamps under one digest algorithm, each renewing the one before.
type chain struct {
	stamps []stamp
}

// stamp is an ArchiveTimeStamp.
type stamp struct {
	own    *identifier // digestAlgorithm as written, nil when absent
	groups [][][]byte  // reducedHashtree; nil when absent
	token  []byte      // timeStamp, the whole ContentInfo
	covers imprint     // what the token says it covers; its algorithm is that of the tree
}

// Parse reads the DER of an evidence record under the rules of the package comment. Its errors are [ErrForm] and
// [ErrUnsupported]. A record that parses proves nothing yet.
func Parse(der []byte) (*Record, error) {
	if err := scan(der); err != nil {
		return nil, err
	}
	r := &Record{der: bytes.Clone(der)}
	if err := r.read(); err != nil {
		return nil, err
	}
	if err := r.agree(); err != nil {
		return nil, err
	}
	again, err := r.encode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if !bytes.Equal(again, der) {
		return nil, fmt.Errorf("%w: written again it has other bytes", ErrForm)
	}
	return r, nil
}

// Tokens returns the timestamp tokens (DER of ContentInfo), oldest first.
func (r *Record) Tokens() [][]byte {
	var out [][]byte
	for _, c := range r.chains {
		for _, s := range c.stamps {
			out = append(out, bytes.Clone(s.token))
		}
	}
	return out
}

// Minimal returns nil when the record has byte for byte the form that [Tree.Derive] gives for digest, so that
// every byte of it outside the token is either fixed or part of the proof. It does not check the proof:
// [Record.Verify] does.
func (r *Record) Minimal(digest [32]byte) error {
	if len(r.chains) != 1 || len(r.chains[0].stamps) != 1 {
		return fmt.Errorf("%w: not our form: more than one timestamp", ErrForm)
	}
	s := r.chains[0].stamps[0]
	path, err := siblings(s.groups, digest)
	if err != nil {
		return err
	}
	want, err := derive(digest, path, s.token)
	if err != nil {
		return err
	}
	if !bytes.Equal(want, r.der) {
		return fmt.Errorf("%w: not our form: we would write other bytes", ErrForm)
	}
	return nil
}

// siblings takes the reduced hash tree of our form apart.
func siblings(groups [][][]byte, digest [32]byte) ([][32]byte, error) {
	var path [][32]byte
	for i, g := range groups {
		if i == 0 {
			at := slices.IndexFunc(g, func(v []byte) bool { return bytes.Equal(v, digest[:]) })
			if at < 0 || len(g) != 2 {
				return nil, fmt.Errorf("%w: not our form: the first list is not the digest and one sibling", ErrForm)
			}
			g = g[1-at : 2-at]
		}
		if len(g) != 1 || len(g[0]) != 32 {
			return nil, fmt.Errorf("%w: not our form: list %d is not one SHA-256 value", ErrForm, i+1)
		}
		path = append(path, [32]byte(g[0]))
	}
	return path, nil
}

// read parses r.der, which has passed scan.
func (r *Record) read() error {
	s := cryptobyte.String(r.der)
	var body, list, sequence cryptobyte.String
	var version int
	if !s.ReadASN1(&body, asn1.SEQUENCE) || !s.Empty() || !body.ReadASN1Integer(&version) {
		return fmt.Errorf("%w: no EvidenceRecord", ErrForm)
	}
	if version != 1 {
		return fmt.Errorf("%w: version %d", ErrUnsupported, version)
	}
	if !body.ReadASN1(&list, asn1.SEQUENCE) || list.Empty() {
		return fmt.Errorf("%w: no digestAlgorithms", ErrForm)
	}
	for !list.Empty() {
		var id cryptobyte.String
		if !list.ReadASN1(&id, asn1.SEQUENCE) {
			return fmt.Errorf("%w: digestAlgorithms", ErrForm)
		}
		a, err := readIdentifier(id)
		if err != nil {
			return fmt.Errorf("digestAlgorithms: %w", err)
		}
		if len(r.algorithms) == len(algorithms) {
			return fmt.Errorf("%w: digestAlgorithms names an algorithm twice", ErrForm)
		}
		r.algorithms = append(r.algorithms, a)
	}
	if body.PeekASN1Tag(explicit0) || body.PeekASN1Tag(implicit1) {
		return fmt.Errorf("%w: cryptoInfos or encryptionInfo present", ErrUnsupported)
	}
	if !body.ReadASN1(&sequence, asn1.SEQUENCE) || !body.Empty() || sequence.Empty() {
		return fmt.Errorf("%w: no archiveTimeStampSequence", ErrForm)
	}
	return r.readChains(sequence)
}

func (r *Record) readChains(sequence cryptobyte.String) error {
	stamps := 0
	for !sequence.Empty() {
		var inside cryptobyte.String
		if !sequence.ReadASN1(&inside, asn1.SEQUENCE) || inside.Empty() {
			return fmt.Errorf("%w: chain %d", ErrForm, len(r.chains)+1)
		}
		var c chain
		for !inside.Empty() {
			if stamps++; stamps > maxStamps {
				return fmt.Errorf("%w: more than %d timestamps", ErrForm, maxStamps)
			}
			var body cryptobyte.String
			if !inside.ReadASN1(&body, asn1.SEQUENCE) {
				return fmt.Errorf("%w: timestamp %d", ErrForm, stamps)
			}
			st, err := readStamp(body)
			if err != nil {
				return fmt.Errorf("timestamp %d: %w", stamps, err)
			}
			c.stamps = append(c.stamps, st)
		}
		if r.chains = append(r.chains, c); len(r.chains) > maxChains {
			return fmt.Errorf("%w: more than %d chains", ErrForm, maxChains)
		}
	}
	return nil
}

// readStamp reads the inside of an ArchiveTimeStamp (RFC 4998 section 4.1).
func readStamp(body cryptobyte.String) (stamp, error) {
	var st stamp
	if body.PeekASN1Tag(explicit0) {
		var id cryptobyte.String
		if !body.ReadASN1(&id, explicit0) {
			return stamp{}, fmt.Errorf("%w: digestAlgorithm", ErrForm)
		}
		a, err := readIdentifier(id)
		if err != nil {
			return stamp{}, fmt.Errorf("digestAlgorithm: %w", err)
		}
		st.own = &a
	}
	if body.PeekASN1Tag(implicit1) {
		return stamp{}, fmt.Errorf("%w: attributes present", ErrUnsupported)
	}
	if body.PeekASN1Tag(implicit2) {
		var tree cryptobyte.String
		var err error
		if !body.ReadASN1(&tree, implicit2) {
			return stamp{}, fmt.Errorf("%w: reducedHashtree", ErrForm)
		}
		if st.groups, err = readGroups(tree); err != nil {
			return stamp{}, err
		}
	}
	var token cryptobyte.String
	if !body.ReadASN1Element(&token, asn1.SEQUENCE) || !body.Empty() {
		return stamp{}, fmt.Errorf("%w: no timeStamp", ErrForm)
	}
	st.token = token
	var err error
	st.covers, err = readImprint(token)
	return st, err
}

func readGroups(tree cryptobyte.String) ([][][]byte, error) {
	if tree.Empty() {
		return nil, fmt.Errorf("%w: empty reducedHashtree", ErrForm)
	}
	var groups [][][]byte
	for !tree.Empty() {
		if len(groups) == maxGroups {
			return nil, fmt.Errorf("%w: more than %d lists in a reducedHashtree", ErrForm, maxGroups)
		}
		var list cryptobyte.String
		if !tree.ReadASN1(&list, asn1.SEQUENCE) || list.Empty() {
			return nil, fmt.Errorf("%w: list %d of the reducedHashtree", ErrForm, len(groups)+1)
		}
		var group [][]byte
		for !list.Empty() {
			var value cryptobyte.String
			// Short values are refused here already, before millions of them fill memory.
			if !list.ReadASN1(&value, asn1.OCTET_STRING) || len(value) < minHash {
				return nil, fmt.Errorf("%w: list %d of the reducedHashtree", ErrForm, len(groups)+1)
			}
			group = append(group, value)
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// agree checks what the grammar leaves open: algorithms that agree with one another, hash values as long as
// theirs, none twice in a list (RFC 4998 does not say whether such a value counts once or twice).
func (r *Record) agree() error {
	used := map[*algorithm]bool{}
	for _, c := range r.chains {
		a := c.stamps[0].covers.algorithm
		used[a] = true
		for _, s := range c.stamps {
			if s.covers.algorithm != a {
				return fmt.Errorf("%w: two digest algorithms in one chain", ErrForm)
			}
			if s.own != nil && s.own.algorithm != a {
				return fmt.Errorf("%w: tree under %s, timestamp under %s", ErrForm, s.own.name, a.name)
			}
			for i, g := range s.groups {
				if err := distinct(g, a.size); err != nil {
					return fmt.Errorf("%w: list %d of the reducedHashtree: %w", ErrForm, i+1, err)
				}
			}
		}
	}
	for _, id := range r.algorithms {
		if !used[id.algorithm] {
			return fmt.Errorf("%w: digestAlgorithms names %s twice or without use", ErrForm, id.name)
		}
		delete(used, id.algorithm)
	}
	if len(used) > 0 {
		return fmt.Errorf("%w: digestAlgorithms does not name all algorithms in use", ErrForm)
	}
	return nil
}

func distinct(group [][]byte, size int) error {
	for _, v := range group {
		if len(v) != size {
			return fmt.Errorf("a hash value of %d bytes instead of %d", len(v), size)
		}
	}
	sorted := slices.SortedFunc(slices.Values(group), bytes.Compare)
	for i := 1; i < len(sorted); i++ {
		if bytes.Equal(sorted[i-1], sorted[i]) {
			return errors.New("a hash value twice")
		}
	}
	return nil
}

// encode writes the record.
func (r *Record) encode() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, id := range r.algorithms {
				id.add(b, asn1.SEQUENCE)
			}
		})
		addSequence(b, r.chains)
	})
	return b.Bytes()
}

// addSequence writes an ArchiveTimeStampSequence; its DER is also what a hash-tree renewal hashes.
func addSequence(b *cryptobyte.Builder, chains []chain) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, c := range chains {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, s := range c.stamps {
					b.AddASN1(asn1.SEQUENCE, s.add)
				}
			})
		}
	})
}

// add writes the inside of an ArchiveTimeStamp.
func (s stamp) add(b *cryptobyte.Builder) {
	if s.own != nil {
		s.own.add(b, explicit0)
	}
	if s.groups != nil {
		b.AddASN1(implicit2, func(b *cryptobyte.Builder) {
			for _, g := range s.groups {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					for _, v := range g {
						b.AddASN1OctetString(v)
					}
				})
			}
		})
	}
	b.AddBytes(s.token)
}
