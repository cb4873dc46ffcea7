package archivetest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/signing"
)

// Keys are the secrets and anchors of one installation, in a form that JSON carries to a child process.
type Keys struct {
	Seal     []byte // PKCS #8
	SealCert []byte // DER, as the two below
	SealCA   []byte
	TSACA    []byte
	Ledger   ed25519.PrivateKey
	Recovery string // public half, hex
	TSA      string // address of the timestamp authority
}

// authority is the timestamp authority, which can be away.
type authority struct {
	server *httptest.Server
	away   atomic.Bool
}

// newKeys makes an installation's keys and starts its timestamp authority.
func newKeys() (Keys, *authority, error) {
	now := time.Now().Add(-time.Hour)
	var k Keys
	seals, err := signing.NewLocalCA("prova", signing.SealCA, now, rand.Reader)
	if err != nil {
		return k, nil, err
	}
	times, err := signing.NewLocalCA("prova", signing.TSACA, now, rand.Reader)
	if err != nil {
		return k, nil, err
	}
	key, cert, err := seals.Issue("Sigillo di prova", now)
	if err != nil {
		return k, nil, err
	}
	if k.Seal, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return k, nil, err
	}
	k.SealCert, k.SealCA, k.TSACA = cert.Raw, seals.Certificate().Raw, times.Certificate().Raw
	if _, k.Ledger, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return k, nil, err
	}
	recovery, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return k, nil, err
	}
	k.Recovery = hex.EncodeToString(recovery)
	tsa, err := startTSA(times, now)
	if err != nil {
		return k, nil, err
	}
	k.TSA = tsa.server.URL
	return k, tsa, nil
}

func startTSA(ca *signing.Authority, at time.Time) (*authority, error) {
	key, cert, err := ca.Issue("Marca di prova", at)
	if err != nil {
		return nil, err
	}
	responder, err := signing.NewResponder(key, []*x509.Certificate{cert}, time.Now)
	if err != nil {
		return nil, err
	}
	tsa := &authority{}
	tsa.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tsa.away.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		responder.ServeHTTP(w, r)
	}))
	return tsa, nil
}

// use makes the bench work with keys.
func (b *Bench) use(k Keys) error {
	key, err := x509.ParsePKCS8PrivateKey(k.Seal)
	if err != nil {
		return err
	}
	var certs [3]*x509.Certificate
	for i, der := range [][]byte{k.SealCert, k.SealCA, k.TSACA} {
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return err
		}
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return errors.New("the key cannot sign")
	}
	if b.signer, err = signing.NewSigner(signer, certs[:1]); err != nil {
		return err
	}
	var text []byte
	for _, code := range []string{Montesole, Colli} {
		v, err := note.NewEd25519VerifierKey(Installation+"/"+code, k.Ledger.Public().(ed25519.PublicKey))
		if err != nil {
			return err
		}
		b.vkeys[code] = v
		text = append(text, v+"\n"...)
		b.publish = append(b.publish, []byte(v))
		name := sha256.Sum256([]byte(code))
		b.names[code] = name[:]
	}
	b.publish = append(b.publish, k.SealCert, k.SealCA, k.TSACA)
	b.Trust.Certificates = signing.NewTrust(certs[1:2], certs[2:3])
	b.Trust.Ledgers, err = ledger.ParseVerifiers(text)
	return err
}

// signerKey is the last part of a signer key as golang.org/x/mod/sumdb/note spells it.
func signerKey(k ed25519.PrivateKey) string {
	return base64.StdEncoding.EncodeToString(append([]byte{1}, k.Seed()...))
}

func mkdir(dir string) error { return os.MkdirAll(dir, 0o755) }
