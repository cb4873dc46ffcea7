package signing

import (
	"crypto/x509"
	"fmt"
	"time"
)

// Trust is what its user believes without proof: the certificates that seals, and those that timestamps, must
// lead to. It is immutable and may be used concurrently.
type Trust struct {
	seal, tsa anchors
}

type anchors struct {
	pool *x509.CertPool
	n    int
}

// NewTrust makes a Trust of two lists of anchors. With an empty list nothing of that kind can be judged
// (ErrNoTrust). An anchor is a root, an intermediate authority or, pinned, a signer's own certificate. A nil Trust has none.
func NewTrust(sealAnchors, tsaAnchors []*x509.Certificate) *Trust {
	return &Trust{seal: newAnchors(sealAnchors), tsa: newAnchors(tsaAnchors)}
}

func newAnchors(certs []*x509.Certificate) anchors {
	a := anchors{pool: x509.NewCertPool()}
	for _, c := range certs {
		a.pool.AddCert(c)
		a.n++
	}
	return a
}

// sealAnchors and tsaAnchors work on a nil Trust, which trusts nobody.
func (t *Trust) sealAnchors() anchors {
	if t == nil {
		return anchors{}
	}
	return t.seal
}

func (t *Trust) tsaAnchors() anchors {
	if t == nil {
		return anchors{}
	}
	return t.tsa
}

// check builds the chain of every certificate to an anchor at a time: the first one's for the usage given, the
// others' so that no byte of a message stands there without somebody's signature over it.
func (a anchors) check(certs []*x509.Certificate, usage x509.ExtKeyUsage, at time.Time) error {
	if a.n == 0 {
		return ErrNoTrust
	}
	for _, c := range certs {
		if err := checkKey(c.PublicKey); err != nil {
			return invalid("certificate of %q: %w", c.Subject, err)
		}
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	for i, c := range certs {
		o := x509.VerifyOptions{Roots: a.pool, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
		if i == 0 {
			o.KeyUsages[0] = usage
		}
		chains, err := c.Verify(o)
		if err != nil {
			return fmt.Errorf("%w: certificate of %q at %s: %w", ErrUntrusted, c.Subject, at.UTC().Format(time.RFC3339), err)
		}
		if err := checkAnyChain(chains); err != nil {
			return fmt.Errorf("%w: chain of %q: %w", ErrUntrusted, c.Subject, err)
		}
	}
	return nil
}

// checkAnyChain wants one chain whose keys are all strong enough.
func checkAnyChain(chains [][]*x509.Certificate) error {
	var weak error
	for _, chain := range chains {
		weak = nil
		for _, c := range chain {
			if err := checkKey(c.PublicKey); err != nil {
				weak = fmt.Errorf("%q: %w", c.Subject, err)
			}
		}
		if weak == nil {
			return nil
		}
	}
	return weak
}
