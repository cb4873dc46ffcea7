package signing_test

import (
	"bytes"
	"crypto"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"

	"github.com/marchesud/perenne/signing"
)

func post(t testing.TB, h http.Handler, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/timestamp-query")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func responder(t *testing.T) *signing.Responder {
	t.Helper()
	b := grow(t, newKey(t), 0, asTSA)
	r, err := signing.NewResponder(b.key, b.chain, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func query(t *testing.T, q timestamp.Request) []byte {
	t.Helper()
	body, err := q.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestResponderAnswersAnyQueryItShould(t *testing.T) {
	r := responder(t)
	sum := sha512.Sum512(content)
	for name, q := range map[string]timestamp.Request{
		"SHA-256":        {HashAlgorithm: crypto.SHA256, HashedMessage: sum[:32], Certificates: true, Nonce: big.NewInt(1)},
		"SHA-384":        {HashAlgorithm: crypto.SHA384, HashedMessage: sum[:48], Certificates: true},
		"SHA-512":        {HashAlgorithm: crypto.SHA512, HashedMessage: sum[:], Certificates: true, Nonce: big.NewInt(-5)},
		"long nonce":     {HashAlgorithm: crypto.SHA256, HashedMessage: sum[:32], Certificates: true, Nonce: new(big.Int).Lsh(big.NewInt(1), 127)},
		"policy":         {HashAlgorithm: crypto.SHA256, HashedMessage: sum[:32], Certificates: true, TSAPolicyOID: signing.LocalPolicy()},
		"no certificate": {HashAlgorithm: crypto.SHA256, HashedMessage: sum[:32]},
	} {
		resp := post(t, r, query(t, q))
		if resp.Code != http.StatusOK || resp.Header().Get("Content-Type") != "application/timestamp-reply" {
			t.Errorf("%s: got status %d, type %s", name, resp.Code, resp.Header().Get("Content-Type"))
		}
		got, err := timestamp.ParseResponse(resp.Body.Bytes())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.HashAlgorithm != q.HashAlgorithm || !bytes.Equal(got.HashedMessage, q.HashedMessage) || !got.Time.Equal(noon) ||
			got.Accuracy != time.Second || got.SerialNumber.BitLen() > 128 {
			t.Errorf("%s: got %+v", name, got)
		}
		if (got.Nonce == nil) != (q.Nonce == nil) || got.Nonce != nil && got.Nonce.Cmp(q.Nonce) != 0 {
			t.Errorf("%s: nonce: got %v, want %v", name, got.Nonce, q.Nonce)
		}
		p7, err := pkcs7.Parse(got.RawToken)
		if err != nil || (len(p7.Certificates) > 0) != q.Certificates {
			t.Errorf("%s: got %d certificates, want some: %v", name, len(p7.Certificates), q.Certificates)
		}
	}
}

func TestResponderRefusesWithAReason(t *testing.T) {
	r := responder(t)
	sum := make([]byte, 64)
	good := query(t, timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:32]})
	version2 := bytes.Clone(good)
	version2[4] = 2
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"SHA-1":        {query(t, timestamp.Request{HashAlgorithm: crypto.SHA1, HashedMessage: sum[:20]}), "Algorithm Identifier"},
		"short digest": {query(t, timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:20]}), "wrong format"},
		"other policy": {query(t, timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:32], TSAPolicyOID: asn1.ObjectIdentifier{1, 2, 3}}), "policy is not supported"},
		"extension": {query(t, timestamp.Request{
			HashAlgorithm: crypto.SHA256, HashedMessage: sum[:32],
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}},
		}), "extension is not supported"},
		"huge nonce": {query(t, timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:32], Nonce: new(big.Int).Lsh(big.NewInt(1), 5000)}), "wrong format"},
		"version 2":  {version2, "not permitted"},
		"nothing":    {nil, "wrong format"},
		"text":       {[]byte("hello"), "wrong format"},
		"BER":        {[]byte{0x30, 0x80, 0, 0}, "wrong format"},
		"cut off":    {good[:len(good)-1], "wrong format"},
		"trailing":   {append(bytes.Clone(good), 0), "wrong format"},
	} {
		resp := post(t, r, c.body)
		if resp.Code != http.StatusOK {
			t.Errorf("%s: got HTTP %d, want a TimeStampResp", name, resp.Code)
		}
		_, err := timestamp.ParseResponse(resp.Body.Bytes())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}

func TestResponderRefusesWhatIsNoQuery(t *testing.T) {
	r := responder(t)
	for _, c := range []struct {
		name, method, kind string
		body               int
		want               int
	}{
		{"GET", http.MethodGet, "application/timestamp-query", 0, http.StatusMethodNotAllowed},
		{"form", http.MethodPost, "application/x-www-form-urlencoded", 10, http.StatusUnsupportedMediaType},
		{"no type", http.MethodPost, "", 10, http.StatusUnsupportedMediaType},
		{"too long", http.MethodPost, "application/timestamp-query", 1 << 20, http.StatusRequestEntityTooLarge},
	} {
		req := httptest.NewRequest(c.method, "/", bytes.NewReader(make([]byte, c.body)))
		req.Header.Set("Content-Type", c.kind)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code != c.want {
			t.Errorf("%s: got %d, want %d", c.name, w.Code, c.want)
		}
	}
}

func TestResponderStopsWhenItsCertificateHasExpired(t *testing.T) {
	b := grow(t, newKey(t), 0, asTSA)
	now := noon
	r, err := signing.NewResponder(b.key, b.chain, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	body := query(t, timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: make([]byte, 32), Certificates: true})
	if _, err := timestamp.ParseResponse(post(t, r, body).Body.Bytes()); err != nil {
		t.Fatalf("control: %v", err)
	}
	now = noon.AddDate(41, 0, 0)
	if _, err := timestamp.ParseResponse(post(t, r, body).Body.Bytes()); err == nil || !strings.Contains(err.Error(), "system failure") {
		t.Errorf("got %v, want a system failure", err)
	}
}

func TestNewResponderRefusesWhatCannotStamp(t *testing.T) {
	good := grow(t, newKey(t), 0, asTSA)
	clock := func() time.Time { return noon }
	for name, c := range map[string]struct {
		b   branch
		now func() time.Time
	}{
		"no clock":       {good, nil},
		"no certificate": {branch{key: good.key}, clock},
		"another key":    {branch{key: newKey(t), chain: good.chain}, clock},
		"a seal":         {grow(t, newKey(t), 0, nothing), clock},
		"not critical":   {grow(t, newKey(t), 0, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping} }), clock},
		"a CA":           {grow(t, newKey(t), 0, func(c *x509.Certificate) { asTSA(c); c.IsCA = true }), clock},
	} {
		if _, err := signing.NewResponder(c.b.key, c.b.chain, c.now); err == nil {
			t.Errorf("%s: got a responder, want an error", name)
		}
	}
}

func FuzzResponder(f *testing.F) {
	b := grow(f, newKey(f), 0, asTSA)
	r, err := signing.NewResponder(b.key, b.chain, func() time.Time { return noon })
	if err != nil {
		f.Fatal(err)
	}
	q := timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: make([]byte, 32), Certificates: true, Nonce: big.NewInt(9)}
	body, err := q.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		resp := post(t, r, body)
		got, err := timestamp.ParseResponse(resp.Body.Bytes())
		if err == nil && !got.Time.Equal(noon) {
			t.Errorf("got time %v, want %v", got.Time, noon)
		}
		if resp.Code != http.StatusOK && resp.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("got HTTP %d", resp.Code)
		}
	})
}

func TestResponderAnswersInTheSameProcessAsOverHTTP(t *testing.T) {
	r := responder(t)
	body := query(t, timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: make([]byte, 32), Certificates: true, Nonce: big.NewInt(7)})
	resp, err := (&http.Client{Transport: r}).Post("http://localhost/", "application/timestamp-query", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/timestamp-reply" {
		t.Fatalf("HTTP %d, %v, %v", resp.StatusCode, resp.Header, err)
	}
	if _, err := timestamp.ParseResponse(text); err != nil {
		t.Error(err)
	}
	resp, err = (&http.Client{Transport: r}).Get("http://localhost/")
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %v, %v", resp, err)
	}
}
