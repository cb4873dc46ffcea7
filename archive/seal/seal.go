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
//	void <number> <hex SHA-256 of what lies there>
//	… one such line for each void number before this seal, mostly none …
//	<producer> <first> <end> <first commit> <last commit> <hex SHA-256 of the signed checkpoint>
//	… one such line for each producer whose ledger moved, in ascending order of producers …
//	(empty line)
//	<base64 of the DER of the TimeStampToken>
//
// first and end are ledger entries, end excluded; the range is exactly that of the commits named. Ranges of
// one producer follow each other without a gap from seal to seal.
//
// Something that is no seal may lie under number n, at least 1, and a lock keep it there. The seal behind it and the k-1
// numbers after it then has number n+k, follows seal n-1, and says of each of n … n+k-1, in order and at most 512, that it
// is void, with the digest of what lay there.
//
// # The leaves
//
// Version 1, frozen: the SHA-256 of the exact bytes of every object that a package.sealed, report.issued or
// copy.issued entry of the ranges names (as the entry states it); of each producer's signed checkpoint as it
// stands in its last commit of the range; of the DER of the previous seal's token. Duplicates removed, sorted,
// hashed as signing/evidence says. The token covers the root. Of a seal behind void numbers the SHA-256 of each of its
// void lines, without the newline, is a leaf too.
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
	"slices"
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
	Voids         []Void  // the numbers just before it that no seal has, ascending
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

// Void is a number that no seal has, since something else lies there.
type Void struct {
	Number int64
	SHA256 [32]byte // of what lies there
}

// MaxVoids bounds the void numbers before one seal.
const MaxVoids = 512

func (v Void) line() string { return fmt.Sprintf("void %d %x", v.Number, v.SHA256) }

// After is the number of the seal that s follows; -1 for the first.
func (s *Seal) After() int64 { return s.Number - int64(len(s.Voids)) - 1 }

// Key is the key of seal number n in the bucket.
func Key(n int64) string {
	d := fmt.Sprintf("%020d", n)
	return "evidence/" + d[:16] + "/" + d[16:]
}

// ParseKey is the inverse of Key.
func ParseKey(key string) (int64, bool) {
	n, err := strconv.ParseInt(strings.Replace(strings.TrimPrefix(key, "evidence/"), "/", "", 1), 10, 64)
	return n, err == nil && n >= 0 && Key(n) == key
}

// Marshal writes the seal.
func (s *Seal) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%d\n%x\n%x\n%x %d\n", firstLine, s.Number, s.Previous, s.PreviousToken, s.Root, s.Leaves)
	for _, v := range s.Voids {
		b.WriteString(v.line() + "\n")
	}
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
	ranges := 5
	for ; ranges < end && strings.Count(lines[ranges], " ") == 2; ranges++ {
		v, err := parseVoid(lines[ranges])
		if err != nil {
			return nil, err
		}
		s.Voids = append(s.Voids, v)
	}
	if err := s.checkVoids(); err != nil {
		return nil, err
	}
	for i, line := range lines[ranges:end] {
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

func parseVoid(line string) (Void, error) {
	f := strings.Split(line, " ") // of three
	n, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil || f[0] != "void" {
		return Void{}, fmt.Errorf("%w: void number", ErrForm)
	}
	v := Void{Number: n}
	return v, unhex(f[2], &v.SHA256)
}

// checkVoids wants exactly the numbers before the seal to be void, and never number 0.
func (s *Seal) checkVoids() error {
	if len(s.Voids) > MaxVoids || len(s.Voids) > 0 && s.After() < 0 {
		return fmt.Errorf("%w: %d void numbers before seal %d", ErrForm, len(s.Voids), s.Number)
	}
	for i, v := range s.Voids {
		if v.Number != s.After()+1+int64(i) {
			return fmt.Errorf("%w: void number %d before seal %d", ErrForm, v.Number, s.Number)
		}
	}
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

// ErrUnread means that a commit could not be read, so that the leaves of a seal cannot be computed: damage of a
// ledger, which says nothing against the seal.
var ErrUnread = errors.New("a commit cannot be read")

// Collect reads commits first to last of one ledger, the first of which begins at entry at, and returns the range
// they make and the leaves it gives to a seal. On an error both are what the commits before it give, an empty range
// and no leaves when there is none. ErrUnread: a commit of the ledger could not be read. Any other error, such as
// ledger.ErrRange, means that there are no such commits.
func Collect(ctx context.Context, producer string, at, first, last int64, commits Commits) (Range, [][32]byte, error) {
	r := Range{Producer: producer, First: at, End: at, FirstCommit: first, LastCommit: first - 1}
	var leaves [][32]byte
	var err error
	end := r.LastCommit
	for r.LastCommit < last {
		var c *ledger.Commit
		if c, err = commits(ctx, producer, r.LastCommit+1); err != nil {
			if !errors.Is(err, ledger.ErrRange) && ctx.Err() == nil {
				err = fmt.Errorf("%w: commit %d of %s: %w", ErrUnread, r.LastCommit+1, producer, err)
			}
			break
		}
		if c.First != r.End {
			err = fmt.Errorf("commit %d of %s begins at entry %d, not %d", c.Number, producer, c.First, r.End)
			break
		}
		var own [][32]byte
		if own, err = commitLeaves(c); err != nil {
			err = fmt.Errorf("commit %d of %s: %w", c.Number, producer, err)
			break
		}
		leaves = append(leaves, own...)
		r.LastCommit = c.Number
		if !c.Void {
			r.End, end, r.Checkpoint = r.End+int64(len(c.Entries)), c.Number, sha256.Sum256(c.Checkpoint)
		}
	}
	r.LastCommit = end // void numbers go with the commit behind them
	if r.End > r.First {
		leaves = append(leaves, r.Checkpoint)
	}
	return r, leaves, err
}

// commitLeaves are the leaves of the entries of one commit.
func commitLeaves(c *ledger.Commit) ([][32]byte, error) {
	var leaves [][32]byte
	for _, e := range c.Entries {
		sum, ok, err := Leaf(e)
		if err != nil {
			return nil, err
		}
		if ok {
			leaves = append(leaves, sum)
		}
	}
	return leaves, nil
}

// Digests computes the leaves, sorted and each once. It fails when the commits do not make the ranges, and with
// ErrUnread when they do as far as they can be read.
func (s *Seal) Digests(ctx context.Context, commits Commits) ([][32]byte, error) {
	var leaves [][32]byte
	var unread error
	if s.Number > 0 {
		leaves = append(leaves, s.PreviousToken)
	}
	leaves = append(leaves, s.VoidLeaves()...)
	for _, r := range s.Ranges {
		got, own, err := Collect(ctx, r.Producer, r.First, r.FirstCommit, r.LastCommit, commits)
		switch {
		case errors.Is(err, ErrUnread):
			unread = errors.Join(unread, err)
		case err != nil:
			return nil, fmt.Errorf("seal %d: %w", s.Number, err)
		case got != r:
			return nil, fmt.Errorf("seal %d: commits %d to %d of %s end at entry %d, not %d, or have another checkpoint", s.Number, r.FirstCommit, r.LastCommit, r.Producer, got.End, r.End)
		}
		leaves = append(leaves, own...)
	}
	if unread != nil {
		return nil, fmt.Errorf("seal %d: %w", s.Number, unread)
	}
	return Sorted(leaves), nil
}

// VoidLeaves are the leaves that the void numbers before the seal give.
func (s *Seal) VoidLeaves() [][32]byte {
	var leaves [][32]byte
	for _, v := range s.Voids {
		leaves = append(leaves, sha256.Sum256([]byte(v.line())))
	}
	return leaves
}

// Sorted puts leaves in the order of the tree, each once.
func Sorted(leaves [][32]byte) [][32]byte {
	slices.SortFunc(leaves, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(leaves)
}

// Tree is the tree over Digests; what the caller makes of a root that differs from the seal's is his.
func (s *Seal) Tree(ctx context.Context, commits Commits) (*evidence.Tree, error) {
	leaves, err := s.Digests(ctx, commits)
	if err != nil {
		return nil, err
	}
	return evidence.NewTree(leaves), nil
}

// Over makes the tree of leaves, and an error when it is not the seal's.
func (s *Seal) Over(leaves [][32]byte) (*evidence.Tree, error) {
	tree := evidence.NewTree(leaves)
	root, err := tree.Root()
	if err != nil || root != s.Root || int64(tree.Len()) != s.Leaves {
		return nil, errors.Join(err, fmt.Errorf("seal %d: the root is not that of its leaves", s.Number))
	}
	return tree, nil
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
