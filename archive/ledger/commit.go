package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxCommit bounds the bytes of a commit that is read.
const MaxCommit = 16 << 20

const commitMagic = "perenne commit v1\n"

// ErrCommit means that bytes are not a commit of this producer signed by a key that is known.
var ErrCommit = errors.New("invalid commit")

// Commit is a numbered batch of entries with the signed checkpoint after them. It is immutable.
type Commit struct {
	Producer   string
	Number     int64    // from 0
	First      int64    // index of the first entry
	Previous   [32]byte // digest of the bytes of commit Number-1; zeros for 0
	Lines      [][]byte // the entries' lines, without newline
	Entries    []Entry
	Checkpoint []byte // the signed note, exactly as it stands in the commit
	Origin     string // of the checkpoint
	Size       int64  // number of entries of the ledger up to and with this commit
	Root       tlog.Hash
	Bytes      []byte
	SHA256     [32]byte // of Bytes
	// Void: this stands for a number that a later commit calls void; it has no entries, no checkpoint, no Bytes,
	// and the digest of what lay there.
	Void bool
}

// Key returns where commit n lies in the bucket: the twenty digits of n, cut before the last four.
func Key(producer string, n int64) string {
	d := fmt.Sprintf("%020d", n)
	return producer + "/ledger/" + d[:16] + "/" + d[16:]
}

// ParseKey is the inverse of Key.
func ParseKey(producer, key string) (int64, bool) {
	d, ok := strings.CutPrefix(key, producer+"/ledger/")
	if !ok || len(d) != 21 || d[16] != '/' {
		return 0, false
	}
	n, err := strconv.ParseInt(d[:16]+d[17:], 10, 64)
	if err != nil || n < 0 || Key(producer, n) != key {
		return 0, false
	}
	return n, true
}

// header returns the lines of a commit before its entries.
func header(producer string, n, first int64, count int, previous [32]byte) []byte {
	return fmt.Appendf(nil, "%s%s %d %d %d\n%x\n", commitMagic, producer, n, first, count, previous)
}

// encode returns the bytes of a commit.
func (c *Commit) encode() []byte {
	size := 256 + len(c.Checkpoint)
	for _, line := range c.Lines {
		size += len(line) + 1
	}
	b := make([]byte, 0, size)
	b = append(b, header(c.Producer, c.Number, c.First, len(c.Lines), c.Previous)...)
	for _, line := range c.Lines {
		b = append(b, line...)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	return append(b, c.Checkpoint...)
}

// ParseCommit reads a commit of producer and checks everything that can be checked of it alone: its form,
// its entries, that their times do not go back, and that a key in v signed the checkpoint, whose origin
// ends in the producer. The signature covers the root, not these bytes: the entries are authentic only once
// the root was recomputed from them and all before, which is the chain's business ([Walk], [Open]). The
// commit keeps b.
func ParseCommit(b []byte, producer string, v note.Verifiers) (*Commit, error) {
	c, err := splitCommit(b, producer)
	if err != nil {
		return nil, err
	}
	cp, err := ParseCheckpoint(c.Checkpoint, v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCommit, err)
	}
	c.Origin, c.Size, c.Root = cp.Origin, cp.Size, cp.Root
	if !strings.HasSuffix(c.Origin, "/"+producer) {
		return nil, fmt.Errorf("%w: origin %q is not of %s", ErrCommit, c.Origin, producer)
	}
	if c.Size-int64(len(c.Lines)) != c.First {
		return nil, fmt.Errorf("%w: %d entries from %d do not make %d", ErrCommit, len(c.Lines), c.First, c.Size)
	}
	c.Entries = make([]Entry, len(c.Lines))
	for i, line := range c.Lines {
		if c.Entries[i], err = ParseEntry(line); err != nil {
			return nil, fmt.Errorf("%w: entry %d: %w", ErrCommit, c.First+int64(i), err)
		}
		if i > 0 && c.Entries[i].Time < c.Entries[i-1].Time {
			return nil, fmt.Errorf("%w: entry %d: time goes back", ErrCommit, c.First+int64(i))
		}
	}
	if err := c.checkVoids(); err != nil {
		return nil, err
	}
	c.SHA256 = sha256.Sum256(b)
	return c, nil
}

// splitCommit cuts a commit into its parts without looking into entries and checkpoint.
func splitCommit(b []byte, producer string) (*Commit, error) {
	if len(b) > MaxCommit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrCommit, len(b), MaxCommit)
	}
	c, count, rest, err := parseHeader(b, producer)
	if err != nil {
		return nil, err
	}
	if count > len(rest)/2 {
		return nil, fmt.Errorf("%w: %d entries in %d bytes", ErrCommit, count, len(rest))
	}
	c.Lines = make([][]byte, count)
	var ok bool
	for i := range c.Lines {
		if c.Lines[i], rest, ok = bytes.Cut(rest, []byte("\n")); !ok {
			return nil, fmt.Errorf("%w: ends within entry %d", ErrCommit, i)
		}
	}
	if c.Checkpoint, ok = bytes.CutPrefix(rest, []byte("\n")); !ok {
		return nil, fmt.Errorf("%w: no empty line after %d entries", ErrCommit, count)
	}
	c.Bytes = b
	return c, nil
}

// parseHeader reads the lines before the entries, and only in their one spelling.
func parseHeader(b []byte, producer string) (c *Commit, count int, rest []byte, err error) {
	end := 0
	for range 3 {
		i := bytes.IndexByte(b[end:min(len(b), end+512)], '\n')
		if i < 0 {
			return nil, 0, nil, fmt.Errorf("%w: no header", ErrCommit)
		}
		end += i + 1
	}
	lines := strings.Split(string(b[:end]), "\n")
	c = &Commit{Producer: producer}
	fields := strings.Split(lines[1], " ")
	if len(fields) != 4 {
		return nil, 0, nil, fmt.Errorf("%w: header %q", ErrCommit, lines[1])
	}
	var e1, e2, e3, e4 error
	c.Number, e1 = strconv.ParseInt(fields[1], 10, 64)
	c.First, e2 = strconv.ParseInt(fields[2], 10, 64)
	count, e3 = strconv.Atoi(fields[3])
	_, e4 = hex.Decode(c.Previous[:], fixed64(lines[2]))
	if err := errors.Join(e1, e2, e3, e4); err != nil {
		return nil, 0, nil, fmt.Errorf("%w: header: %w", ErrCommit, err)
	}
	if !bytes.Equal(header(producer, c.Number, c.First, count, c.Previous), b[:end]) {
		return nil, 0, nil, fmt.Errorf("%w: header is not one of %s", ErrCommit, producer)
	}
	genesis := c.Number == 0
	if c.Number < 0 || c.First < 0 || count < 1 || genesis != (c.First == 0) || genesis != (c.Previous == [32]byte{}) {
		return nil, 0, nil, fmt.Errorf("%w: header contradicts itself", ErrCommit)
	}
	return c, count, b[end:], nil
}

// fixed64 returns exactly 64 bytes of s, or nothing that would decode.
func fixed64(s string) []byte {
	if len(s) != 64 {
		return []byte{'!', '!'}
	}
	return []byte(s)
}

// chain is the head of a ledger that is being followed: what the next commit must extend.
type chain struct {
	number int64 // of the last commit; -1 before the first
	digest [32]byte
	tree   tree
	last   string // time of the last entry; "" when unknown
}

// start is the chain before commit 0.
func start() chain { return chain{number: -1} }

// extend returns the chain after c and the hashes tlog stores for its entries, or ErrCommit when c is not
// the commit that comes next.
func (ch chain) extend(c *Commit) (chain, []tlog.Hash, error) {
	if err := ch.link(c); err != nil {
		return ch, nil, err
	}
	next, stored := ch.grow(c)
	if root := next.tree.root(); root != c.Root {
		return ch, nil, fmt.Errorf("%w: entries of commit %d give root %s, signed is %s", ErrCommit, c.Number, root, c.Root)
	}
	return next, stored, nil
}

// link checks everything but the root.
func (ch chain) link(c *Commit) error {
	switch {
	case c.Number != ch.number+1+c.voids():
		return fmt.Errorf("%w: number %d after %d", ErrCommit, c.Number, ch.number)
	case c.Previous != ch.digest:
		return fmt.Errorf("%w: commit %d follows another commit %d", ErrCommit, c.Number, ch.number)
	case c.First != ch.tree.size:
		return fmt.Errorf("%w: commit %d begins at entry %d, want %d", ErrCommit, c.Number, c.First, ch.tree.size)
	case c.Entries[0].Time < ch.last:
		return fmt.Errorf("%w: time goes back in commit %d", ErrCommit, c.Number)
	}
	return nil
}

// apart reports whether c, which does not extend the chain, was made for another history: it follows another
// commit, and its entries do not lead from our tree to its root. The signature covers only the root, so
// that one of the two alone is a commit of ours whose bytes were changed.
func (ch chain) apart(c *Commit) bool {
	if c.Number != ch.number+1 || c.Previous == ch.digest {
		return false
	}
	next, _ := ch.grow(c)
	return next.tree.size != c.Size || next.tree.root() != c.Root
}

// grow adds the entries of c to a copy of the chain, unchecked.
func (ch chain) grow(c *Commit) (chain, []tlog.Hash) {
	next := chain{number: c.Number, digest: c.SHA256, tree: ch.tree.clone(), last: c.Entries[len(c.Entries)-1].Time}
	stored := make([]tlog.Hash, 0, 2*len(c.Lines)+64)
	for _, line := range c.Lines {
		stored = next.tree.add(Leaf(line), stored)
	}
	return next, stored
}
