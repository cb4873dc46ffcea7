package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/marchesud/perenne/signing"
)

// rsaKey makes an RSA-2048 key, its certificate and their root, as a person does.
const rsaKey = `set -e
openssl req -new -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -subj "/O=Prova/CN=Radice di prova" -days 30 2>/dev/null
openssl req -new -newkey rsa:2048 -nodes -keyout seal.key -out seal.csr -subj "/O=Prova/CN=Sigillo di prova" 2>/dev/null
printf 'basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature,nonRepudiation\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' >ext
openssl x509 -req -in seal.csr -CA root.pem -CAkey root.key -CAcreateserial -days 20 -extfile ext -out seal.crt 2>/dev/null
cat seal.key seal.crt >seal.pem`

// away is how long an answer of the timestamp authority takes beyond its work.
const away = 50 * time.Millisecond

// otherSigners makes the flags of perenne bench for an RSA seal key, four of them, and those for a timestamp authority
// that is far away, until stop.
func otherSigners(ctx context.Context, work string) (flags []string, stop func(), err error) {
	folder := filepath.Join(work, "signers")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, nil, err
	}
	if err := bash(folder, rsaKey); err != nil {
		return nil, nil, fmt.Errorf("make an RSA key: %w", err)
	}
	now := time.Now()
	ca, err := signing.NewLocalCA("prova", signing.TSACA, now, rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	key, cert, err := ca.Issue("Marca di prova", now)
	if err != nil {
		return nil, nil, err
	}
	responder, err := signing.NewResponder(key, []*x509.Certificate{cert}, time.Now)
	if err != nil {
		return nil, nil, err
	}
	root := filepath.Join(folder, "tsa.pem")
	if err := os.WriteFile(root, signing.MarshalCertificates([]*x509.Certificate{ca.Certificate()}), 0o644); err != nil {
		return nil, nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(away)
		responder.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }() // ends with stop
	return []string{
		"--seal-key", filepath.Join(folder, "seal.pem"), "--seal-ca", filepath.Join(folder, "root.pem"),
		"--tsa", "http://" + l.Addr().String(), "--tsa-ca", root,
	}, func() { _ = server.Close() }, nil
}
