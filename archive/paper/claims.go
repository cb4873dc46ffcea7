package paper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/signing"
)

const (
	// clockSkew is how far apart the clocks of honest machines may be. A timestamp that lies further from the clock
	// of who asked for it is refused when it is made (signing.Timestamper), so no honest paper needs more.
	clockSkew = 60 * time.Second
	// maxDelay is how long before its entry in the ledger a body may say that the document was taken in charge.
	// Milliseconds are usual; hours come of a crash between the two and a submission that is sent again.
	maxDelay = 48 * time.Hour
)

// errDelayed is how a time that nothing contradicts and nothing proves is told: it cannot be judged.
var errDelayed = errors.New("nothing proves a time stated so long before the entry in the ledger")

// Timely holds the time that the body states against that of its entry in the ledger. A body stands in its entry
// by its digest and is older, so a time later than the entry's, by more than clocks may differ, is false. A time
// more than 48 hours before the entry is told apart: an interrupted submission that was sent again days later
// states one honestly, and so does whoever dates a document back. [Receipt.Check] then cannot tell. An archive
// that takes over what an interrupted submission has left should ask first.
func (b *Body) Timely(entered time.Time) error {
	at, err := time.Parse(TimeFormat, b.Time)
	switch {
	case err != nil:
		return errors.New("the time is not in the form of the format")
	case at.After(entered.Add(clockSkew)):
		return fmt.Errorf("it states %s, after its entry in the ledger of %s", b.Time, entered.UTC().Format(TimeFormat))
	case at.Before(entered.Add(-maxDelay)):
		return fmt.Errorf("it states %s, its entry was written on %s: %w", b.Time, entered.UTC().Format(TimeFormat), errDelayed)
	}
	return nil
}

// holdsToken holds what a body and its entry claim against the timestamp that proves them: what was entered before
// it was stamped cannot be younger than the stamp.
func (b *Body) holdsToken(e ledger.Entry, token []byte) error {
	tok, _, err := signing.ParseToken(token)
	if err != nil {
		return err
	}
	entered, err := time.Parse(ledger.TimeLayout, e.Time)
	if err != nil {
		return fmt.Errorf("time of the entry: %w", err)
	}
	if tok.Time.Before(entered.Add(-clockSkew - tok.Accuracy)) {
		return fmt.Errorf("the timestamp of %s is older than the entry of %s that it covers", tok.Time.UTC().Format(TimeFormat), e.Time)
	}
	return claim(b.Qualification, tok.Qualified)
}

// claim holds the word of a paper for its seals against what the certificate, or the token, says of itself. To say
// less than could be said is no fault.
func claim(word string, qualified bool) error {
	switch {
	case word != Qualified && word != Unqualified:
		return fmt.Errorf("%.40q says nothing about qualification", word)
	case word == Qualified && !qualified:
		return fmt.Errorf("the paper says %q, its seal or timestamp does not", Qualified)
	}
	return nil
}

// unqualified is what is told beside a seal or timestamp that the paper itself calls not qualified.
func unqualified(l Lang, word string) string {
	if word == Unqualified {
		return l.T(" (non qualificata)", " (not qualified)")
	}
	return ""
}

// verifySealed reads every byte of a container once and verifies it under the seal of the conservatore, at the time
// the paper states; word is what the paper says that seal is worth.
func verifySealed(ctx context.Context, c *pack.Container, t Trust, at time.Time, word string) ([32]byte, error) {
	return c.Verify(ctx, func(manifest, signature []byte) error {
		s, err := t.Certificates.CheckSignature(manifest, signature, at)
		if err != nil {
			return err
		}
		return claim(word, s.Qualified)
	})
}

// goOn tells whether the parts of a container are worth comparing after its verification ended with err: nothing is
// wrong with its bytes, at most nobody can judge their signature.
func goOn(ctx context.Context, err error) bool {
	return err == nil || ctx.Err() == nil && undecided(err)
}
