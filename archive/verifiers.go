package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"golang.org/x/mod/sumdb/note"
)

// remembering are verifiers that remember the last signatures they found good, since all receipts of a commit carry the
// same signed checkpoint.
type remembering struct {
	note.Verifiers

	mu   sync.Mutex
	good map[[32]byte]struct{}
}

// rememberedSignatures bounds the memory; past it everything is forgotten.
const rememberedSignatures = 1024

func (r *remembering) Verifier(name string, hash uint32) (note.Verifier, error) {
	v, err := r.Verifiers.Verifier(name, hash)
	if err != nil {
		return nil, err
	}
	return &rememberingOne{v, r}, nil
}

type rememberingOne struct {
	note.Verifier
	all *remembering
}

// Verify verifies, unless the very same key, message and signature were found good before.
func (v *rememberingOne) Verify(msg, sig []byte) bool {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(v.Name()), binary.BigEndian.AppendUint32(nil, v.KeyHash()), msg, sig} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	id := [32]byte(h.Sum(nil))
	v.all.mu.Lock()
	_, known := v.all.good[id]
	v.all.mu.Unlock()
	if known {
		return true
	}
	if !v.Verifier.Verify(msg, sig) {
		return false
	}
	v.all.mu.Lock()
	defer v.all.mu.Unlock()
	if v.all.good == nil || len(v.all.good) >= rememberedSignatures {
		v.all.good = map[[32]byte]struct{}{}
	}
	v.all.good[id] = struct{}{}
	return true
}
