package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"
)

func TestOnlyStrongAndSaneKeysAreAccepted(t *testing.T) {
	modulus := func(bits uint) *big.Int {
		return new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), bits), big.NewInt(1))
	}
	for _, c := range []struct {
		name string
		key  crypto.PublicKey
		ok   bool
	}{
		{"RSA 2047", &rsa.PublicKey{N: modulus(2047), E: 65537}, false},
		{"RSA 2048", &rsa.PublicKey{N: modulus(2048), E: 65537}, true},
		{"RSA 8192", &rsa.PublicKey{N: modulus(8192), E: 3}, true},
		{"RSA 8193", &rsa.PublicKey{N: modulus(8193), E: 65537}, false},
		{"exponent 1", &rsa.PublicKey{N: modulus(2048), E: 1}, false},
		{"exponent even", &rsa.PublicKey{N: modulus(2048), E: 65536}, false},
		{"exponent negative", &rsa.PublicKey{N: modulus(2048), E: -3}, false},
		{"exponent huge", &rsa.PublicKey{N: modulus(2048), E: 1<<31 + 1}, false},
		{"P-224", &ecdsa.PublicKey{Curve: elliptic.P224()}, false},
		{"P-256", &ecdsa.PublicKey{Curve: elliptic.P256()}, true},
		{"P-521", &ecdsa.PublicKey{Curve: elliptic.P521()}, true},
		{"unknown curve", &ecdsa.PublicKey{Curve: &elliptic.CurveParams{Name: "mine"}}, false},
		{"Ed25519", ed25519.PublicKey{}, false},
		{"nothing", nil, false},
	} {
		if err := checkKey(c.key); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want accepted: %v", c.name, err, c.ok)
		}
	}
}

func TestLowSKeepsASignatureValid(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		changed := 0
		for range 20 {
			sum := make([]byte, 32)
			value, err := ecdsa.SignASN1(rand.Reader, key, sum)
			if err != nil {
				t.Fatal(err)
			}
			low, err := lowS(&key.PublicKey, value)
			if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, sum, low) {
				t.Fatalf("%s: got %x, %v, want a valid signature", curve.Params().Name, low, err)
			}
			if string(low) != string(value) {
				changed++
			}
		}
		if changed == 0 || changed == 20 {
			t.Errorf("%s: %d of 20 signatures changed, want about half", curve.Params().Name, changed)
		}
	}
	if _, err := lowS(&ecdsa.PublicKey{Curve: elliptic.P256()}, []byte{0x30, 0}); err == nil {
		t.Error("no numbers: got a signature, want an error")
	}
}
