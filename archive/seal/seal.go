// Package seal is what proves when the contents of all ledgers existed: one RFC 3161 timestamp per seal,
// whatever the number of documents.
//
// # The object
//
// Seal number n lies under evidence/<first 16 digits>/<last 4> of the 20-digit number, created conditionally,
// and is this text, every line ended by one newline (0x0A):
//
//	perenne seal v1
//	<number>
//	<hex SHA-256 of the previous seal object; 64 zeros for number 0>
//	<hex SHA-256 of the DER of the previous seal's token; 64 zeros for number 0>
//	<hex root> <number of leaves>
//	<producer> <first> <end> <first commit> <last commit> <hex SHA-256 of the signed checkpoint>
//	… one such line for each producer whose ledger moved, in ascending order of producers …
//	(empty line)
//	<base64 of the DER of the TimeStampToken>
//
// first and end are ledger entries, end excluded; the range is exactly that of the commits named. Ranges of
// one producer follow each other without a gap from seal to seal.
//
// # The leaves
//
// Version 1, frozen: the SHA-256 of the exact bytes of every object that a package.sealed, report.issued or
// copy.issued entry of the ranges names (as the entry states it); of each producer's signed checkpoint as it
// stands in its last commit of the range; of the DER of the previous seal's token. Duplicates removed, sorted,
// hashed as signing/evidence says. The token covers the root.
//
// So a seal and the ledgers are enough to derive the RFC 4998 evidence record of any of those objects.
package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/signing/evidence"
)

// ErrForm means that bytes are not a seal.
var ErrForm = errors.New("not a seal in its one form")

const firstLine = "perenne seal v1"

// Seal is one seal.
type Seal struct {
	Number        int64
	Previous      [32]byte // SHA-256 of the previous seal object
	PreviousToken [32]byte // SHA-256 of the previous token's DER
	Root          [32]byte
	Leaves        int64
	Ranges        []Range // ascending by producer
	Token         []byte  // DER
}

// Range is the part of one ledger that a seal covers.
type Range struct {
	Producer                string
	First, End              int64 // entries, End excluded
	FirstCommit, LastCommit int64
	Checkpoint              [32]byte // SHA-256 of the signed checkpoint in LastCommit
}

// Key is the key of seal number n in the bucket.
func Key(n int64) string {
	d := fmt.Sprintf("%020d", n)
	return "evidence/" + d[:16] + "/" + d[16:]
}

// Marshal writes the seal.
func (s *Seal) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%d\n%x\n%x\n%x %d\n", firstLine, s.Number, s.Previous, s.PreviousToken, s.Root, s.Leaves)
	for _, r := range s.Ranges {
		fmt.Fprintf(&b, "%s %d %d %d %d %x\n", r.Producer, r.First, r.End, r.FirstCommit, r.LastCommit, r.Checkpoint)
	}
	fmt.Fprintf(&b, "\n%s\n", base64.StdEncoding.EncodeToString(s.Token))
	return b.Bytes()
}

// maxSeal bounds a seal object: 4 MiB hold some thirty thousand ranges.
const maxSeal = 4 << 20

// Parse reads a seal and refuses every byte string that Marshal would not write.
func Parse(data []byte) (*Seal, error) {
	if len(data) > maxSeal {
		return nil, fmt.Errorf("%w: %d bytes", ErrForm, len(data))
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) < 8 || lines[0] != firstLine {
		return nil, fmt.Errorf("%w: first line", ErrForm)
	}
	s := &Seal{}
	var err error
	if s.Number, err = strconv.ParseInt(lines[1], 10, 64); err != nil || s.Number < 0 {
		return nil, fmt.Errorf("%w: number", ErrForm)
	}
	root, leaves, _ := strings.Cut(lines[4], " ")
	for _, h := range []struct {
		text string
		to   *[32]byte
	}{{lines[2], &s.Previous}, {lines[3], &s.PreviousToken}, {root, &s.Root}} {
		if err := unhex(h.text, h.to); err != nil {
			return nil, err
		}
	}
	if s.Leaves, err = strconv.ParseInt(leaves, 10, 64); err != nil {
		return nil, fmt.Errorf("%w: number of leaves", ErrForm)
	}
	end := len(lines) - 3
	for i, line := range lines[5:end] {
		r, err := parseRange(line)
		if err != nil {
			return nil, err
		}
		if i > 0 && s.Ranges[i-1].Producer >= r.Producer {
			return nil, fmt.Errorf("%w: producers out of order", ErrForm)
		}
		s.Ranges = append(s.Ranges, r)
	}
	if s.Token, err = base64.StdEncoding.Strict().DecodeString(lines[end+1]); err != nil {
		return nil, fmt.Errorf("%w: token", ErrForm)
	}
	if len(s.Ranges) == 0 || s.Leaves < 1 || !bytes.Equal(s.Marshal(), data) {
		return nil, ErrForm
	}
	if s.Number == 0 && (s.Previous != [32]byte{} || s.PreviousToken != [32]byte{}) {
		return nil, fmt.Errorf("%w: the first seal names one before it", ErrForm)
	}
	return s, nil
}

func unhex(text string, to *[32]byte) error {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		return fmt.Errorf("%w: digest", ErrForm)
	}
	*to = [32]byte(b)
	return nil
}

func parseRange(line string) (Range, error) {
	f := strings.Split(line, " ")
	if len(f) != 6 {
		return Range{}, fmt.Errorf("%w: range", ErrForm)
	}
	r := Range{Producer: f[0]}
	for i, to := range []*int64{&r.First, &r.End, &r.FirstCommit, &r.LastCommit} {
		n, err := strconv.ParseInt(f[i+1], 10, 64)
		if err != nil || n < 0 {
			return Range{}, fmt.Errorf("%w: range", ErrForm)
		}
		*to = n
	}
	if r.End <= r.First || r.LastCommit < r.FirstCommit {
		return Range{}, fmt.Errorf("%w: empty range", ErrForm)
	}
	return r, unhex(f[5], &r.Checkpoint)
}

// Range returns the range of a producer, if the seal has one.
func (s *Seal) Range(producer string) (Range, bool) {
	for _, r := range s.Ranges {
		if r.Producer == producer {
			return r, true
		}
	}
	return Range{}, false
}

// Commits reads commit n of a producer's ledger, verified by its own signature.
type Commits func(ctx context.Context, producer string, n int64) (*ledger.Commit, error)

// Tree computes the leaves of the ranges and their tree. It fails when a commit does not fit its range; what
// the caller makes of a Root that differs from the seal's is his.
func (s *Seal) Tree(ctx context.Context, commits Commits) (*evidence.Tree, error) {
	var leaves [][32]byte
	if s.Number > 0 {
		leaves = append(leaves, s.PreviousToken)
	}
	for _, r := range s.Ranges {
		at := r.First
		for n := r.FirstCommit; n <= r.LastCommit; n++ {
			c, err := commits(ctx, r.Producer, n)
			if err != nil {
				return nil, err
			}
			if c.First != at {
				return nil, fmt.Errorf("seal %d: commit %d of %s begins at entry %d, not %d", s.Number, n, r.Producer, c.First, at)
			}
			at += int64(len(c.Entries))
			for _, e := range c.Entries {
				sum, ok, err := Leaf(e)
				if err != nil {
					return nil, fmt.Errorf("seal %d: commit %d of %s: %w", s.Number, n, r.Producer, err)
				}
				if ok {
					leaves = append(leaves, sum)
				}
			}
			if n == r.LastCommit && sha256.Sum256(c.Checkpoint) != r.Checkpoint {
				return nil, fmt.Errorf("seal %d: the checkpoint of commit %d of %s is another one", s.Number, n, r.Producer)
			}
		}
		if at != r.End {
			return nil, fmt.Errorf("seal %d: the commits of %s end at entry %d, not %d", s.Number, r.Producer, at, r.End)
		}
		leaves = append(leaves, r.Checkpoint)
	}
	return evidence.NewTree(leaves), nil
}

// Leaf is the digest that an entry gives to a seal; false for an entry that names no object of the kinds sealed.
func Leaf(e ledger.Entry) ([32]byte, bool, error) {
	switch e.Type {
	case ledger.PackageSealed, ledger.ReportIssued, ledger.CopyIssued:
		var sum [32]byte
		if err := unhex(e.SHA256, &sum); err != nil {
			return sum, false, err
		}
		return sum, true, nil
	default:
		return [32]byte{}, false, nil
	}
}
