package signing_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/signing/signingtest"
)

func timestamper(t *testing.T, trust *signing.Trust, tsas ...signing.TSA) signing.Timestamper {
	t.Helper()
	ts, err := signing.NewTimestamper(tsas, trust, signing.TimestamperOptions{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func serve(t *testing.T, h http.Handler) signing.TSA {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return signing.TSA{URL: server.URL, Policy: signing.LocalPolicy(), Timeout: 5 * time.Second}
}

// hang serves an authority that never answers, and counts who asks.
func hang(t *testing.T, asked *atomic.Int32) signing.TSA {
	t.Helper()
	stop := make(chan struct{})
	tsa := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1); <-stop }))
	t.Cleanup(func() { close(stop) })
	return tsa
}

func TestTimestamperRefusesEveryLie(t *testing.T) {
	kit := signingtest.New(t)
	digest := sha256.Sum256([]byte("root"))
	for _, kind := range []signingtest.KeyKind{signingtest.ECDSA, signingtest.RSA} {
		t.Run(kind.String(), func(t *testing.T) {
			honest := timestamper(t, kit.Trust, serve(t, kit.Honest(t, kind)))
			for range 2 {
				if _, err := honest.Timestamp(t.Context(), digest); err != nil {
					t.Fatalf("control: the honest authority is refused: %v", err)
				}
			}
			lies := kit.Lies(t, kind)
			if len(lies) < 24 {
				t.Fatalf("got %d lies, want at least 24", len(lies))
			}
			for _, lie := range lies {
				t.Run(lie.Name, func(t *testing.T) {
					ts := timestamper(t, kit.Trust, serve(t, lie.Handler))
					if lie.Second {
						if _, err := ts.Timestamp(t.Context(), digest); err != nil {
							t.Fatalf("first answer: got %v, want a token", err)
						}
					}
					token, err := ts.Timestamp(t.Context(), digest)
					if !errors.Is(err, signing.ErrUnavailable) || token != nil {
						t.Fatalf("got token %x, error %v, want no token and ErrUnavailable", token, err)
					}
					if !strings.Contains(err.Error(), lie.Reason) {
						t.Errorf("refused for another reason: got %q, want %q in it", err, lie.Reason)
					}
				})
			}
		})
	}
}

func TestTimestamperPassesOverTheDeadAndTheLying(t *testing.T) {
	kit := signingtest.New(t)
	var lie signingtest.Lie
	for _, l := range kit.Lies(t, signingtest.ECDSA) {
		if l.Name == "wrong imprint" {
			lie = l
		}
	}
	hanging := hang(t, new(atomic.Int32))
	hanging.Timeout = 50 * time.Millisecond
	dead := signing.TSA{URL: "http://127.0.0.1:1/tsa?secret=hidden"}
	lying := serve(t, lie.Handler)

	ts := timestamper(t, kit.Trust, dead, hanging, lying, kit.TSA)
	digest := sha256.Sum256([]byte("root"))
	token, err := ts.Timestamp(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kit.Trust.CheckToken(token, digest); err != nil {
		t.Fatal(err)
	}

	_, err = timestamper(t, kit.Trust, dead, hanging, lying).Timestamp(t.Context(), digest)
	if !errors.Is(err, signing.ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	for _, want := range []string{"http://127.0.0.1:1/tsa: ", hanging.URL, lying.URL, "it stamps"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "hidden") {
		t.Errorf("error %q gives away the query of the URL", err)
	}
}

func TestTimestamperStopsWithItsContext(t *testing.T) {
	kit := signingtest.New(t)
	var asked atomic.Int32
	hanging := hang(t, &asked)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := timestamper(t, kit.Trust, hanging, hanging).Timestamp(ctx, [32]byte{})
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, signing.ErrUnavailable) {
		t.Errorf("got %v, want the context's error alone", err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want 1: no fail-over once the caller has left", n)
	}
}

func TestTimestamperWidensTheWindowByTheAccuracy(t *testing.T) {
	for _, c := range []struct {
		off time.Duration
		ok  bool
	}{{-58 * time.Second, true}, {-75 * time.Second, false}, {60 * time.Second, true}, {75 * time.Second, false}} {
		t.Run(fmt.Sprint(c.off), func(t *testing.T) {
			kit := signingtest.NewAt(t, func() time.Time { return time.Now().Add(c.off) })
			_, err := timestamper(t, kit.Trust, kit.TSA).Timestamp(t.Context(), [32]byte{})
			if (err == nil) != c.ok {
				t.Errorf("got %v, want accepted: %v", err, c.ok)
			}
		})
	}
}

func TestARefusalIsToldInTheAuthoritysWords(t *testing.T) {
	kit := signingtest.New(t)
	tsa := kit.TSA
	tsa.Policy = asn1.ObjectIdentifier{1, 2, 3}
	_, err := timestamper(t, kit.Trust, tsa).Timestamp(t.Context(), [32]byte{})
	if err == nil || !strings.Contains(err.Error(), "refused with status 2 \"policy is 1.3.6.1.4.1.32473.3161.1\" unacceptedPolicy") {
		t.Errorf("got %v, want status, words and failure of the refusal", err)
	}
}

func TestTimestampsAreTakenConcurrently(t *testing.T) {
	kit := signingtest.New(t)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			digest := sha256.Sum256([]byte{byte(i)})
			token, err := kit.Timestamper.Timestamp(t.Context(), digest)
			if err == nil {
				_, err = kit.Trust.CheckToken(token, digest)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestNewTimestamperRefusesBadConfiguration(t *testing.T) {
	kit := signingtest.New(t)
	now := signing.TimestamperOptions{Now: time.Now}
	for name, c := range map[string]struct {
		tsas  []signing.TSA
		trust *signing.Trust
		o     signing.TimestamperOptions
	}{
		"no authority":      {nil, kit.Trust, now},
		"no clock":          {[]signing.TSA{kit.TSA}, kit.Trust, signing.TimestamperOptions{}},
		"no anchors":        {[]signing.TSA{kit.TSA}, signing.NewTrust([]*x509.Certificate{kit.SealCA}, nil), now},
		"no trust":          {[]signing.TSA{kit.TSA}, nil, now},
		"no URL":            {[]signing.TSA{{}}, kit.Trust, now},
		"other scheme":      {[]signing.TSA{{URL: "ftp://tsa.example/"}}, kit.Trust, now},
		"password in URL":   {[]signing.TSA{{URL: "https://u:p@tsa.example/"}}, kit.Trust, now},
		"password in clear": {[]signing.TSA{{URL: "http://tsa.example/", User: "u", Password: "p"}}, kit.Trust, now},
		"negative time-out": {[]signing.TSA{{URL: "https://tsa.example/", Timeout: -1}}, kit.Trust, now},
	} {
		if _, err := signing.NewTimestamper(c.tsas, c.trust, c.o); err == nil {
			t.Errorf("%s: got a timestamper, want an error", name)
		} else if strings.Contains(err.Error(), "u:p@") {
			t.Errorf("%s: error %q gives away the password", name, err)
		}
	}
}
