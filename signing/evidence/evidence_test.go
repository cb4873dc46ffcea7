package evidence

import (
	"bytes"
	"crypto/sha256"
	encasn1 "encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// plainToken is an unsigned RFC 3161 token over value: real in its structure, so that this package reads its
// imprint, and the same bytes on every run. strict below stands for the judgement of its signature.
func plainToken(t testing.TB, a *algorithm, value []byte, serial int64) []byte {
	t.Helper()
	id := identifier{a, true}
	var info cryptobyte.Builder
	info.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1ObjectIdentifier(encasn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 13762, 3})
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			id.add(b, asn1.SEQUENCE)
			b.AddASN1OctetString(value)
		})
		b.AddASN1Int64(serial)
		b.AddASN1GeneralizedTime(stampTime(serial))
	})
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(3)
				b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { id.add(b, asn1.SEQUENCE) })
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidTSTInfo)
					b.AddASN1(explicit0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(info.BytesOrPanic()) })
				})
				b.AddASN1(asn1.SET, func(*cryptobyte.Builder) {})
			})
		})
	})
	return b.BytesOrPanic()
}

// stampTime is the time a plainToken with this serial tells: a later serial is a later day.
func stampTime(serial int64) time.Time {
	return time.Date(2026, 3, 9, 10, 0, 0, 0, time.UTC).AddDate(0, 0, int(serial))
}

var errToken = errors.New("token refused")

// strict accepts exactly the token given, for exactly the imprint given.
func strict(token, imprint []byte, serial int64) CheckToken {
	return func(gotToken, gotImprint []byte, oid encasn1.ObjectIdentifier) (time.Time, error) {
		if !bytes.Equal(gotToken, token) || !bytes.Equal(gotImprint, imprint) || !oid.Equal(sha256Algorithm().oid) {
			return time.Time{}, errToken
		}
		return stampTime(serial), nil
	}
}

// seal is a tree with its token and the check that accepts only that token.
type seal struct {
	leaves [][32]byte
	tree   *Tree
	root   [32]byte
	token  []byte
	check  CheckToken
}

func newSeal(t testing.TB, leaves [][32]byte, serial int64) seal {
	t.Helper()
	s := seal{leaves: leaves, tree: NewTree(leaves)}
	var err error
	if s.root, err = s.tree.Root(); err != nil {
		t.Fatal(err)
	}
	s.token = plainToken(t, sha256Algorithm(), s.root[:], serial)
	s.check = strict(s.token, s.root[:], serial)
	return s
}

func (s seal) derive(t testing.TB, leaf [32]byte) []byte {
	t.Helper()
	der, err := s.tree.Derive(leaf, s.token)
	if err != nil {
		t.Fatalf("Derive(%x): %v", leaf, err)
	}
	return der
}

// numbered gives n leaves: the digests of "leaf 0", "leaf 1", …
func numbered(n int) [][32]byte {
	leaves := make([][32]byte, n)
	for i := range leaves {
		leaves[i] = sha256.Sum256(fmt.Appendf(nil, "leaf %d", i))
	}
	return leaves
}

// accept parses, verifies and holds to our form, as a reader of our own records does.
func accept(der []byte, leaf [32]byte, check CheckToken) (Proof, error) {
	r, err := Parse(der)
	if err != nil {
		return Proof{}, err
	}
	p, err := r.Verify(leaf, check)
	if err != nil {
		return Proof{}, err
	}
	return p, r.Minimal(leaf)
}

// wire writes nested elements by hand, for records that the package itself would not write.
func wire(tag byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	switch n := len(body); {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, body...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, body...)
	case n < 0x10000:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, body...)
	default:
		head := binary.BigEndian.AppendUint32([]byte{tag, 0x84}, uint32(n))
		if head[2] == 0 {
			head = append([]byte{tag, 0x83}, head[3:]...)
		}
		return append(head, body...)
	}
}
