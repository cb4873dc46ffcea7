package signing

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"net/http"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxQuery bounds a request; a real one has some 70 bytes.
const maxQuery = 4 << 10

// Responder is a timestamping authority over HTTP (RFC 3161): POST of application/timestamp-query. It stamps SHA-256,
// SHA-384 and SHA-512 imprints, echoes the nonce, gives certificates when asked, claims an accuracy of 1 s, and
// signs with SHA-256. Serial numbers are random, 128 bits. What it cannot do it refuses with PKIFailureInfo, as
// the RFC wants; only what is no timestamp query gets an HTTP error. It may be used concurrently.
//
// It is not qualified, and its time is this machine's.
type Responder struct {
	key   crypto.Signer
	chain []*x509.Certificate
	now   func() time.Time
}

// LocalPolicy returns the policy of a Responder's tokens. It lies in the arc that RFC 5612 reserves for examples,
// so that nobody takes it for a declared one.
func LocalPolicy() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 3161, 1}
}

// NewResponder makes a Responder of a key whose certificate may sign timestamps (critical, sole timeStamping), the
// certificates above it (a root is left out) and a clock.
func NewResponder(key crypto.Signer, chain []*x509.Certificate, now func() time.Time) (*Responder, error) {
	if now == nil {
		return nil, errors.New("responder: no clock given")
	}
	ordered, err := chainOf(key, chain)
	if err != nil {
		return nil, fmt.Errorf("responder: %w", err)
	}
	if err := checkTSACertificate(ordered[0]); err != nil {
		return nil, fmt.Errorf("responder %q: %w", ordered[0].Subject, err)
	}
	return &Responder{key: key, chain: ordered, now: now}, nil
}

func (r *Responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "a timestamp query is a POST", http.StatusMethodNotAllowed)
		return
	}
	if kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || kind != queryType {
		http.Error(w, "content type must be "+queryType, http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxQuery))
	if err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			http.Error(w, fmt.Sprintf("a timestamp query has at most %d bytes", maxQuery), http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, "the query could not be read", http.StatusBadRequest)
		return
	}
	reply, err := r.answer(body)
	if err != nil {
		http.Error(w, "the answer could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", replyType)
	_, _ = w.Write(reply) // a client that left does not want to know
}

// RoundTrip answers as ServeHTTP does, for a client in the same process.
func (r *Responder) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer func() { _ = req.Body.Close() }()
	}
	a := &inMemory{status: http.StatusOK, header: http.Header{}}
	r.ServeHTTP(a, req)
	return &http.Response{
		Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: a.header,
		Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()), Request: req,
	}, nil
}

// inMemory is an answer that goes nowhere.
type inMemory struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (a *inMemory) Header() http.Header         { return a.header }
func (a *inMemory) WriteHeader(status int)      { a.status = status }
func (a *inMemory) Write(b []byte) (int, error) { return a.body.Write(b) }

// answer makes the TimeStampResp for a TimeStampReq.
func (r *Responder) answer(body []byte) ([]byte, error) {
	q, refused := parseQuery(body)
	if refused == nil {
		refused = r.refuse(q)
	}
	if refused != nil {
		return marshalReply(nil, refused)
	}
	now := r.now().UTC()
	if err := ValidAt(r.chain, now); err != nil {
		return marshalReply(nil, &refusal{systemFailure, err.Error()})
	}
	token, err := r.stamp(q, now)
	if err != nil {
		return marshalReply(nil, &refusal{systemFailure, "the key does not sign"})
	}
	return marshalReply(token, nil)
}

func (r *Responder) refuse(q query) *refusal {
	d, err := q.imprint.digest()
	switch {
	case err != nil:
		return &refusal{badAlg, "SHA-256, SHA-384 or SHA-512 imprints only"}
	case len(q.hashed) != d.hash.Size():
		return &refusal{badDataFormat, "imprint has not the length of its algorithm"}
	case q.policy != nil && !q.policy.Equal(LocalPolicy()):
		return &refusal{unacceptedPolicy, "policy is " + LocalPolicy().String()}
	case q.extensions:
		return &refusal{unacceptedExtension, "no extensions"}
	}
	return nil
}

// stamp signs a token and, since a device may err, verifies it before it leaves.
func (r *Responder) stamp(q query, now time.Time) ([]byte, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	info, err := marshalTSTInfo(q, new(big.Int).SetBytes(serial), now, r.chain[0])
	if err != nil {
		return nil, err
	}
	attrs, err := signedAttributes(oidTSTInfo, sha256.Sum256(info), now, r.chain[0])
	if err != nil {
		return nil, err
	}
	value, err := signAttributes(r.key, attrs)
	if err != nil {
		return nil, err
	}
	f := form{version: 3, contentType: oidTSTInfo, content: info, signer: r.chain[0], attrs: attrs, signature: value}
	if q.certs {
		f.certs = r.chain
	}
	set, err := setOf(attrs)
	if err != nil {
		return nil, err
	}
	oid, params := signatureAlgorithm(r.key.Public())
	if err := checkSignatureValue(r.chain[0], algorithm{oid, params}, digestAlgorithms[0], set, value); err != nil {
		return nil, err
	}
	return f.marshal()
}

// marshalTSTInfo writes what is signed: whole seconds, an accuracy of one, and the imprint as it was asked.
func marshalTSTInfo(q query, serial *big.Int, now time.Time, signer *x509.Certificate) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1ObjectIdentifier(LocalPolicy())
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addAlgorithm(b, q.imprint.oid, q.imprint.params)
			b.AddASN1OctetString(q.hashed)
		})
		b.AddASN1BigInt(serial)
		b.AddASN1(cbasn1.GeneralizedTime, func(b *cryptobyte.Builder) { b.AddBytes([]byte(now.Format(generalizedTime))) })
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(1) })
		if q.nonce != nil {
			b.AddASN1BigInt(q.nonce)
		}
		b.AddASN1(tagContext0, func(b *cryptobyte.Builder) {
			b.AddASN1(tagDirectoryName, func(b *cryptobyte.Builder) { b.AddBytes(signer.RawSubject) })
		})
	})
	return b.Bytes()
}
