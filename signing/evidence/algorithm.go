package evidence

import (
	"crypto/sha256"
	"crypto/sha512"
	encasn1 "encoding/asn1"
	"fmt"
	"hash"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// algorithm is a digest algorithm that may carry a proof.
type algorithm struct {
	name string
	oid  encasn1.ObjectIdentifier
	size int
	new  func() hash.Hash
}

// SHA-224 is met in renewed records of others, where a stronger algorithm follows it. We never write it.
var algorithms = [...]algorithm{
	{"SHA-256", encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, sha256.Size, sha256.New},
	{"SHA-384", encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, sha512.Size384, sha512.New384},
	{"SHA-512", encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, sha512.Size, sha512.New},
	{"SHA-224", encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 4}, sha256.Size224, sha256.New224},
}

// minHash is the size in bytes of the shortest digest above.
const minHash = sha256.Size224

var oidSHA1 = encasn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}

// sha256Algorithm is the one our own records use.
func sha256Algorithm() *algorithm { return &algorithms[0] }

func findAlgorithm(oid encasn1.ObjectIdentifier) (*algorithm, error) {
	for i := range algorithms {
		if algorithms[i].oid.Equal(oid) {
			return &algorithms[i], nil
		}
	}
	if oid.Equal(oidSHA1) {
		return nil, fmt.Errorf("%w: SHA-1 proves nothing any more", ErrUnsupported)
	}
	return nil, fmt.Errorf("%w: digest algorithm %v", ErrUnsupported, oid)
}

// sum hashes the concatenation of parts.
func (a *algorithm) sum(parts ...[]byte) []byte {
	h := a.new()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// identifier is an AlgorithmIdentifier of a digest: parameters are NULL or absent, both are in use (RFC 5754).
type identifier struct {
	*algorithm
	null bool
}

// readIdentifier reads the inside of an AlgorithmIdentifier, which must be all of s.
func readIdentifier(s cryptobyte.String) (identifier, error) {
	var oid encasn1.ObjectIdentifier
	if !s.ReadASN1ObjectIdentifier(&oid) {
		return identifier{}, fmt.Errorf("%w: digest algorithm without an identifier", ErrForm)
	}
	null := !s.Empty()
	if null {
		var v cryptobyte.String
		if !s.ReadASN1(&v, asn1.NULL) || !v.Empty() || !s.Empty() {
			return identifier{}, fmt.Errorf("%w: digest algorithm with parameters", ErrForm)
		}
	}
	a, err := findAlgorithm(oid)
	if err != nil {
		return identifier{}, err
	}
	return identifier{a, null}, nil
}

// add writes an AlgorithmIdentifier under tag.
func (id identifier) add(b *cryptobyte.Builder, tag asn1.Tag) {
	b.AddASN1(tag, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id.oid)
		if id.null {
			b.AddASN1NULL()
		}
	})
}
