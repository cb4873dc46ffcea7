// Package signingtest gives tests a whole small world of trust in one process: a certification authority and a signer
// for seals, another authority and a real RFC 3161 responder on loopback for timestamps, and a timestamping
// authority that lies in every way we have heard of.
package signingtest

import (
	"crypto"
	"crypto/x509"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/marchesud/perenne/signing"
)

// Kit is one installation's signing world. Everything in it is real; nothing is qualified.
type Kit struct {
	Signer      signing.Signer
	Timestamper signing.Timestamper
	Trust       *signing.Trust // of SealCA and TSACA

	SealCA, TSACA *x509.Certificate
	SealKey       crypto.Signer // the Signer's
	TSA           signing.TSA   // the honest responder behind Timestamper

	now    func() time.Time
	tsaKey crypto.Signer // TSACA's
}

// New makes a Kit on the machine's clock. Its certificates are a year old. The responder stops with the test.
func New(t testing.TB) *Kit {
	t.Helper()
	return NewAt(t, time.Now) //nolint:forbidigo // a test kit hands the clock down, as cmd does
}

// NewAt makes a Kit on another clock.
func NewAt(t testing.TB, now func() time.Time) *Kit {
	t.Helper()
	from := now().AddDate(-1, 0, 0)
	k := &Kit{now: now}

	seals, err := signing.NewLocalCA("Prova", signing.SealCA, from, nil)
	check(t, err)
	key, cert, err := seals.Issue("Sigillo di prova", from)
	check(t, err)
	k.SealCA, k.SealKey = seals.Certificate(), key
	k.Signer, err = signing.NewSigner(key, []*x509.Certificate{cert})
	check(t, err)

	stamps, err := signing.NewLocalCA("Prova", signing.TSACA, from, nil)
	check(t, err)
	key, cert, err = stamps.Issue("Marche di prova", from)
	check(t, err)
	k.TSACA, k.tsaKey = stamps.Certificate(), stamps.Key()
	responder, err := signing.NewResponder(key, []*x509.Certificate{cert}, now)
	check(t, err)
	server := httptest.NewServer(responder)
	t.Cleanup(server.Close)

	k.Trust = signing.NewTrust([]*x509.Certificate{k.SealCA}, []*x509.Certificate{k.TSACA})
	k.TSA = signing.TSA{URL: server.URL, Policy: signing.LocalPolicy(), Timeout: 10 * time.Second}
	k.Timestamper, err = signing.NewTimestamper([]signing.TSA{k.TSA}, k.Trust, signing.TimestamperOptions{Now: now})
	check(t, err)
	return k
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("signing kit: %v", err)
	}
}
