package archive

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive/ledger"
)

// signers are the keys that a ledger has taken into use, from its first entry on. That a key is in our trust
// is not enough: a ledger that was never told of it was not written by us.
type signers struct {
	asked     bool // the walk began at the first entry
	begun     bool // the first entry was read, and is a key
	told      bool // that it was not
	known     map[string]bool
	list      []note.Verifier
	recovery  string // of the first entry: hex, "" when it names none
	verifiers note.Verifiers
}

// checkSigner wants the checkpoint of a commit signed by a key that the ledger took into use before, or by
// one it adopts in this very commit.
func (w *audit) checkSigner(c *ledger.Commit) {
	s := &w.signers
	if !s.asked {
		return
	}
	key := ledger.Key(w.p.Code, c.Number)
	for i, e := range c.Entries {
		if e.Type == ledger.KeyAdded {
			w.takeKey(key, c.First+int64(i), e)
		}
	}
	switch {
	case s.begun:
		if _, err := ledger.ParseCheckpoint(c.Checkpoint, s.verifiers); err != nil {
			w.damageOrDoubt(key, "key", "", "firmato con una chiave che il giornale non ha mai preso in uso")
		}
	case s.told:
	case c.Number == 0:
		s.told = true
		w.damage(key, "key", "", "il giornale non comincia con la chiave che lo firma")
	default:
		s.told = true
		w.unchecked("con quali chiavi il giornale fu firmato: il primo commit non si legge")
	}
}

// takeKey takes a key into use: that of the first entry; a later one that the recovery key of the first entry
// signed; or one already known, when only the seal certificate changes. A recovery key counts in the first entry
// only: else whoever has stolen a ledger key could name a recovery key of his own.
func (w *audit) takeKey(commit string, index int64, e ledger.Entry) {
	s := &w.signers
	if index == 0 {
		s.begun, s.recovery, s.known = true, e.Recovery, map[string]bool{}
		s.add(e.VKey)
		return
	}
	if !s.begun {
		return
	}
	if e.Recovery != "" && e.Recovery != s.recovery {
		w.damage(commit, "key", "", "nomina una chiave di recupero che non è quella della prima riga")
	}
	if s.known[e.VKey] {
		return
	}
	if !adopted(s.recovery, w.a.cfg.Installation+"/"+w.p.Code, e) {
		w.damage(commit, "key", "", "una chiave è stata aggiunta senza la firma della chiave di recupero: "+e.VKey)
		return
	}
	s.add(e.VKey)
}

func (s *signers) add(vkey string) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return // the ledger's parser refuses such an entry
	}
	s.known[vkey] = true
	s.list = append(s.list, v)
	s.verifiers = note.VerifierList(s.list...)
}

// adopted reports whether the recovery key signed the entry's keys.
func adopted(recovery, origin string, e ledger.Entry) bool {
	key, err := hex.DecodeString(recovery)
	signature, err2 := base64.StdEncoding.DecodeString(e.Signature)
	if err != nil || err2 != nil || len(key) != ed25519.PublicKeySize {
		return false
	}
	return ed25519.Verify(key, AdoptionText(origin, e.VKey, e.Certificate), signature)
}

// AdoptionText is what the recovery key signs when new keys take over a ledger.
func AdoptionText(origin, vkey, certificate string) []byte {
	return fmt.Appendf(nil, "perenne adoption v1\n%s\n%s\n%s\n", origin, vkey, certificate)
}
