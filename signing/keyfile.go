package signing

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"software.sslmate.com/src/go-pkcs12"
)

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 1 << 20

// pemBegin starts every block; the decoder passes silently over blocks that it cannot read.
var pemBegin = []byte("-----BEGIN ")

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// LoadKey reads a key and its certificates from a file: PEM (one unencrypted PKCS #8 key and the certificates, in
// any order; the password is not looked at) or PKCS #12, told apart by content. It returns the chain in order, the
// key's certificate first, the root left out.
//
// It refuses a file that group or others may read or write (mode & 077), a key that is too weak or belongs to none
// of the certificates. It has no clock: [ValidAt] tells whether the certificates have expired, and a Signer or
// Responder does no work with one that has.
func LoadKey(path string, password string) (crypto.Signer, []*x509.Certificate, error) {
	data, err := readKeyFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("key file %s: %w", path, err)
	}
	read := readPEM
	if len(data) > 0 && data[0] == tagSequence {
		read = func(data []byte) (any, []*x509.Certificate, error) { return readPKCS12(data, password) }
	}
	private, certs, err := read(data)
	if err != nil {
		return nil, nil, fmt.Errorf("key file %s: %w", path, err)
	}
	key, ok := private.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("key file %s: a key of type %T does not sign", path, private)
	}
	chain, err := chainOf(key, ownFirst(key, certs))
	if err != nil {
		return nil, nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, chain, nil
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unwrapPath(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, unwrapPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("mode %04o lets others at the key; use chmod 600", info.Mode().Perm())
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%d bytes, more than %d", info.Size(), maxKeyFile)
	}
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}

// unwrapPath takes off the path, which the caller names.
func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func readPKCS12(data []byte, password string) (any, []*x509.Certificate, error) {
	key, cert, others, err := pkcs12.DecodeChain(data, password)
	if err != nil {
		return nil, nil, err
	}
	return key, append([]*x509.Certificate{cert}, others...), nil
}

func readPEM(data []byte) (any, []*x509.Certificate, error) {
	var key any
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case pemCertificate:
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			certs = append(certs, cert)
		case pemKey:
			if key != nil {
				return nil, nil, errors.New("more than one private key")
			}
			var err error
			if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
				return nil, nil, err
			}
		default:
			return nil, nil, fmt.Errorf("PEM block %q: only unencrypted PKCS #8 keys and certificates are read; PKCS #12 takes a password", block.Type)
		}
	}
	if n := bytes.Count(data, pemBegin); key != nil && n != len(certs)+1 {
		return nil, nil, fmt.Errorf("%d of %d PEM blocks are broken", n-len(certs)-1, n)
	}
	if key == nil || len(certs) == 0 {
		return nil, nil, errors.New("neither PKCS #12 nor PEM with a private key and its certificate")
	}
	return key, certs, nil
}

// ownFirst moves the key's certificate to the front.
func ownFirst(key crypto.Signer, certs []*x509.Certificate) []*x509.Certificate {
	var own, others []*x509.Certificate
	for _, c := range certs {
		if own == nil && samePublicKey(key.Public(), c.PublicKey) {
			own = append(own, c)
			continue
		}
		others = append(others, c)
	}
	return append(own, others...)
}

// MarshalPEM writes what LoadKey reads: the key as unencrypted PKCS #8, then the certificates. The file it goes to
// needs mode 0600.
func MarshalPEM(key crypto.Signer, chain []*x509.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	var b bytes.Buffer
	b.Write(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
	b.Write(MarshalCertificates(chain))
	return b.Bytes(), nil
}

// MarshalCertificates writes certificates as PEM, in the order given.
func MarshalCertificates(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw}))
	}
	return b.Bytes()
}

// ParseCertificates reads a PEM file of certificates, at least one and nothing else but comments between them.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	rest := text
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != pemCertificate {
			return nil, fmt.Errorf("certificates: PEM block %q", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("certificates: no PEM certificate found")
	}
	if n := bytes.Count(text, pemBegin); n != len(certs) {
		return nil, fmt.Errorf("certificates: %d of %d PEM blocks are broken", n-len(certs), n)
	}
	return certs, nil
}
