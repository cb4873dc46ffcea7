package ledger

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const proofMagic = "c2sp.org/tlog-proof@v1\n"

// ErrProof means that a proof does not prove what it says.
var ErrProof = errors.New("invalid proof")

// Proof is the checked content of a stand-alone proof of one entry.
type Proof struct {
	Index      int64  // of the entry in its ledger
	Line       []byte // the entry, as hashed
	Entry      Entry
	Origin     string // <installation>/<producer>
	Size       int64  // of the ledger in the checkpoint
	Root       tlog.Hash
	Checkpoint []byte // the signed note
}

// formatProof writes a tlog-proof@v1 whose extra is the entry's line.
func formatProof(index int64, line []byte, path tlog.RecordProof, checkpoint []byte) []byte {
	var b bytes.Buffer
	b.Grow(256 + len(line)*4/3 + 45*len(path) + len(checkpoint))
	fmt.Fprintf(&b, "%sextra %s\nindex %d\n", proofMagic, base64.StdEncoding.EncodeToString(line), index)
	for _, h := range path {
		b.WriteString(h.String())
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.Write(checkpoint)
	return b.Bytes()
}

// ParseProof reads a proof and checks it offline: the entry is valid, its hash leads to the root, a key in
// v signed the root. It accepts only the bytes that [Log.Proof] writes, so a proof with any bit changed is
// ErrProof.
func ParseProof(text []byte, v note.Verifiers) (*Proof, error) {
	head, checkpoint, ok := bytes.Cut(text, []byte("\n\n"))
	if !ok || len(head) > 2*MaxLine {
		return nil, fmt.Errorf("%w: no checkpoint", ErrProof)
	}
	lines := strings.Split(string(head), "\n")
	if len(lines) < 3 || len(lines) > 3+63 || lines[0]+"\n" != proofMagic {
		return nil, fmt.Errorf("%w: not a tlog-proof@v1", ErrProof)
	}
	extra, ok1 := strings.CutPrefix(lines[1], "extra ")
	index, ok2 := strings.CutPrefix(lines[2], "index ")
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("%w: without extra or index", ErrProof)
	}
	p := &Proof{Checkpoint: checkpoint}
	var err error
	if p.Line, err = base64.StdEncoding.DecodeString(extra); err != nil {
		return nil, fmt.Errorf("%w: extra: %w", ErrProof, err)
	}
	if p.Index, err = strconv.ParseInt(index, 10, 64); err != nil {
		return nil, fmt.Errorf("%w: index: %w", ErrProof, err)
	}
	path := make(tlog.RecordProof, len(lines)-3)
	for i, s := range lines[3:] {
		if path[i], err = tlog.ParseHash(s); err != nil {
			return nil, fmt.Errorf("%w: hash %d: %w", ErrProof, i, err)
		}
	}
	if !bytes.Equal(formatProof(p.Index, p.Line, path, checkpoint), text) {
		return nil, fmt.Errorf("%w: not in its one spelling", ErrProof)
	}
	return p.check(path, v)
}

// check is the second half of ParseProof: what the parts say, not how they are written.
func (p *Proof) check(path tlog.RecordProof, v note.Verifiers) (*Proof, error) {
	var err error
	if p.Entry, err = ParseEntry(p.Line); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	cp, err := ParseCheckpoint(p.Checkpoint, v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	p.Origin, p.Size, p.Root = cp.Origin, cp.Size, cp.Root
	if err := tlog.CheckRecord(path, p.Size, p.Root, p.Index, Leaf(p.Line)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	return p, nil
}
