package archive

import (
	"crypto/rand"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func TestARememberedSignatureIsGoodForItsVeryMessageAlone(t *testing.T) {
	signKey, verifyKey, err := note.GenerateKey(rand.Reader, "prova/c_x901")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(signKey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(verifyKey)
	if err != nil {
		t.Fatal(err)
	}
	r := &remembering{Verifiers: note.VerifierList(verifier)}
	v, err := r.Verifier(verifier.Name(), verifier.KeyHash())
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("un checkpoint\n")
	sig, err := signer.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !v.Verify(msg, sig) {
			t.Fatal("a good signature is refused")
		}
		for i := range sig {
			forged := append([]byte(nil), sig...)
			forged[i] ^= 1
			if v.Verify(msg, forged) {
				t.Fatalf("a signature with byte %d changed is accepted", i)
			}
		}
		if v.Verify(append(msg, ' '), sig) || v.Verify(msg[:len(msg)-1], append([]byte{msg[len(msg)-1]}, sig...)) {
			t.Fatal("another message is accepted")
		}
	}
	if len(r.good) != 1 {
		t.Errorf("%d signatures remembered, want 1", len(r.good))
	}
}
