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

// ErrCheckpoint means that a signed note is not a checkpoint of ours, or not signed by a key that is known.
var ErrCheckpoint = errors.New("invalid checkpoint")

// Checkpoint is the signed head of a ledger (C2SP tlog-checkpoint), without extension lines.
type Checkpoint struct {
	Origin string // <installation>/<producer>
	Size   int64  // number of entries
	Root   tlog.Hash
}

// text is the part of a checkpoint that is signed.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// sign returns the signed note.
func (c Checkpoint) sign(s note.Signer) ([]byte, error) {
	msg, err := note.Sign(&note.Note{Text: c.text()}, s)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint of %s: %w", c.Origin, err)
	}
	return msg, nil
}

// ParseCheckpoint reads a signed note that carries exactly one signature, by a key in v whose name is the
// checkpoint's origin. It accepts only the bytes that signing would give: no spelling of base64 but one.
func ParseCheckpoint(msg []byte, v note.Verifiers) (Checkpoint, error) {
	n, err := note.Open(msg, v)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	if len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
		return Checkpoint{}, fmt.Errorf("%w: %d signatures, want one", ErrCheckpoint, len(n.Sigs)+len(n.UnverifiedSigs))
	}
	var c Checkpoint
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 {
		return Checkpoint{}, fmt.Errorf("%w: want three lines of text", ErrCheckpoint)
	}
	c.Origin = lines[0]
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.Size < 0 {
		return Checkpoint{}, fmt.Errorf("%w: size %q", ErrCheckpoint, lines[1])
	}
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: root %q", ErrCheckpoint, lines[2])
	}
	if c.Origin != n.Sigs[0].Name {
		return Checkpoint{}, fmt.Errorf("%w: of %q but signed by %q", ErrCheckpoint, c.Origin, n.Sigs[0].Name)
	}
	sig, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	again := fmt.Appendf(nil, "%s\n— %s %s\n", c.text(), c.Origin, base64.StdEncoding.EncodeToString(sig))
	if !bytes.Equal(again, msg) {
		return Checkpoint{}, fmt.Errorf("%w: not in its one spelling", ErrCheckpoint)
	}
	return c, nil
}

// ParseVerifiers reads a file of note verifier keys, one a line; lines that are empty or begin with # are
// skipped. Several lines may carry one name: keys are rotated, and old checkpoints stay valid.
func ParseVerifiers(text []byte) (note.Verifiers, error) {
	var list []note.Verifier
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || seen[line] {
			continue
		}
		seen[line] = true
		v, err := note.NewVerifier(line)
		if err != nil {
			return nil, fmt.Errorf("verifier key on line %d: %w", number, err)
		}
		list = append(list, v)
	}
	return note.VerifierList(list...), nil
}
