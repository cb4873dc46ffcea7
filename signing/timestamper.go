package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/digitorus/timestamp"
)

const (
	// clockSkew is how far a token's time may lie outside the time between request and answer.
	clockSkew = 60 * time.Second
	// defaultTimeout is for one authority, the whole exchange.
	defaultTimeout = 15 * time.Second
	// serialsKept is how many serial numbers are remembered, of all authorities together.
	serialsKept = 1 << 16
)

// TSA is a timestamping authority reached over HTTP (RFC 3161 section 3.4).
type TSA struct {
	URL      string
	Policy   asn1.ObjectIdentifier // asked for and expected; nil takes what the authority gives
	User     string                // HTTP basic authentication, over https or to this machine only
	Password string
	Timeout  time.Duration // for one exchange; zero means 15 s
}

// TimestamperOptions is what a Timestamper takes from its surroundings.
type TimestamperOptions struct {
	Client *http.Client     // nil means a client of its own; redirects are never followed
	Now    func() time.Time // the clock that tokens are held against; needed
	Rand   io.Reader        // for nonces; nil means crypto/rand
}

type timestamper struct {
	tsas   []authority
	trust  *Trust
	client http.Client
	now    func() time.Time
	random io.Reader

	mu     sync.Mutex
	seen   map[string]struct{}
	recent []string // the same, oldest first
}

type authority struct {
	TSA
	name string // the URL without what could be secret
}

// NewTimestamper makes a Timestamper that asks the authorities in order until one gives a token that holds; one that
// lies is passed over like one that is dead. Without anchors for timestamps it is ErrNoTrust.
func NewTimestamper(tsas []TSA, trust *Trust, o TimestamperOptions) (Timestamper, error) {
	if len(tsas) == 0 {
		return nil, errors.New("timestamper: no timestamping authority given")
	}
	if o.Now == nil {
		return nil, errors.New("timestamper: no clock given")
	}
	if trust.tsaAnchors().n == 0 {
		return nil, fmt.Errorf("timestamper: %w", ErrNoTrust)
	}
	t := &timestamper{trust: trust, now: o.Now, random: o.Rand, seen: make(map[string]struct{})}
	if t.random == nil {
		t.random = rand.Reader
	}
	if o.Client != nil {
		t.client = *o.Client
	}
	t.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, tsa := range tsas {
		a, err := newAuthority(tsa)
		if err != nil {
			return nil, fmt.Errorf("timestamper: %w", err)
		}
		t.tsas = append(t.tsas, a)
	}
	return t, nil
}

func newAuthority(tsa TSA) (authority, error) {
	u, err := url.Parse(tsa.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return authority{}, errors.New("URL of a timestamping authority must be http or https, with a host and without a password")
	}
	a := authority{TSA: tsa, name: u.Scheme + "://" + u.Host + u.Path}
	if (tsa.User != "" || tsa.Password != "") && u.Scheme == "http" && !loopback(u.Hostname()) {
		return authority{}, fmt.Errorf("%s: a password would travel in clear; use https", a.name)
	}
	if tsa.Timeout < 0 {
		return authority{}, fmt.Errorf("%s: negative time-out", a.name)
	}
	if tsa.Timeout == 0 {
		a.Timeout = defaultTimeout
	}
	return a, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (t *timestamper) Timestamp(ctx context.Context, digest [32]byte) ([]byte, error) {
	var failures []error
	for _, a := range t.tsas {
		token, err := t.ask(ctx, a, digest)
		if err == nil {
			return token, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("timestamp: %w", ctx.Err())
		}
		failures = append(failures, fmt.Errorf("%s: %w", a.name, err))
	}
	return nil, fmt.Errorf("timestamp: %w: %w", ErrUnavailable, errors.Join(failures...))
}

// ask makes one exchange with one authority and believes nothing of the answer.
func (t *timestamper) ask(ctx context.Context, a authority, digest [32]byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	nonce, err := t.nonce()
	if err != nil {
		return nil, err
	}
	request := timestamp.Request{
		HashAlgorithm: crypto.SHA256,
		HashedMessage: digest[:],
		Certificates:  true,
		TSAPolicyOID:  a.Policy,
		Nonce:         nonce,
	}
	body, err := request.Marshal()
	if err != nil {
		return nil, err
	}
	sent := t.now()
	answer, err := t.post(ctx, a, body)
	if err != nil {
		return nil, err
	}
	received := t.now()
	der, err := parseReply(answer)
	if err != nil {
		return nil, err
	}
	token, err := t.trust.CheckToken(der, digest)
	if err != nil {
		return nil, err
	}
	if err := token.checkFresh(a.Policy, nonce, sent, received); err != nil {
		return nil, err
	}
	if !t.first(token) {
		return nil, invalid("serial number %x was given before", token.Serial)
	}
	return slices.Clone(der), nil
}

func (t *timestamper) nonce() (*big.Int, error) {
	b := make([]byte, 16)
	t.mu.Lock() // a Reader need not be safe for concurrent use
	defer t.mu.Unlock()
	if _, err := io.ReadFull(t.random, b); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	return new(big.Int).SetBytes(b), nil
}

// post sends a request and returns the body of an answer that is a timestamp reply by its outside.
func (t *timestamper) post(ctx context.Context, a authority, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", queryType)
	req.Header.Set("Accept", replyType)
	if a.User != "" || a.Password != "" {
		req.SetBasicAuth(a.User, a.Password)
	}
	resp, err := t.client.Do(req)
	if err != nil {
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err // the outer one repeats the URL, with its query
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d", resp.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || !strings.EqualFold(kind, replyType) {
		return nil, invalid("answer has content type %.80q, not %s", resp.Header.Get("Content-Type"), replyType)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(answer) > maxSize {
		return nil, invalid("answer longer than %d bytes", maxSize)
	}
	return answer, nil
}

// checkFresh checks what only the one who asked can: policy, nonce and time.
func (t Token) checkFresh(policy asn1.ObjectIdentifier, nonce *big.Int, sent, received time.Time) error {
	if policy != nil && !t.Policy.Equal(policy) {
		return invalid("policy %v, not %v as asked for", t.Policy, policy)
	}
	if t.Nonce == nil || t.Nonce.Cmp(nonce) != 0 {
		return invalid("the nonce is not the one sent: answer to another request")
	}
	slack := clockSkew + t.Accuracy
	if t.Time.Before(sent.Add(-slack)) || t.Time.After(received.Add(slack)) {
		return invalid("time %s is not between %s and %s", t.Time.Format(time.RFC3339),
			sent.Add(-slack).UTC().Format(time.RFC3339), received.Add(slack).UTC().Format(time.RFC3339))
	}
	return nil
}

// first remembers a token's serial number and tells whether its signer gave it for the first time.
func (t *timestamper) first(token Token) bool {
	id := Fingerprint(token.Signer) + token.Serial.Text(16)
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, again := t.seen[id]; again {
		return false
	}
	if len(t.recent) == serialsKept {
		delete(t.seen, t.recent[0])
		t.recent = t.recent[1:]
	}
	t.seen[id] = struct{}{}
	t.recent = append(t.recent, id)
	return true
}
