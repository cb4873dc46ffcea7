package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Role is what the holder of a token may do for its producer.
type Role string

// The roles.
const (
	Submit Role = "submit" // hand over documents, fetch their receipts
	Read   Role = "read"   // search, fetch packages and copies
	Audit  Role = "audit"  // have integrity verified
	Admin  Role = "admin"  // all of these
)

// AllProducers in Token.Producer makes the token good for every producer.
const AllProducers = "*"

// Token is a bearer token as the server knows it: by its digest.
type Token struct {
	Name     string // of the system that holds it; stands in access records, never in logs
	Producer string // IPA code, or AllProducers
	Roles    []Role
	SHA256   [32]byte  // of the token's text
	Expires  time.Time // zero: never
}

// may reports whether the token has one of the roles.
func (t *Token) may(roles []Role) bool {
	if len(roles) == 0 || slices.Contains(t.Roles, Admin) {
		return true
	}
	return slices.ContainsFunc(roles, func(r Role) bool { return slices.Contains(t.Roles, r) })
}

// sees reports whether the token is for the producer.
func (t *Token) sees(producer string) bool {
	return t.Producer == AllProducers || t.Producer == producer
}

// maxToken bounds the text of a token, so that hashing a header costs nothing.
const maxToken = 512

// bearer takes the token's text out of the request; given tells whether there was any Authorization at all.
func bearer(r *http.Request) (text string, given bool) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", false
	}
	scheme, text, ok := strings.Cut(values[0], " ")
	text = strings.TrimSpace(text)
	if !ok || len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || text == "" || len(text) > maxToken {
		return "", true
	}
	return text, true
}

// match finds the token with this text. Every token is compared, in constant time, so that the time taken
// tells nothing about which digests exist.
func match(tokens []Token, text string, now time.Time) *Token {
	sum := sha256.Sum256([]byte(text))
	found := -1
	for i := range tokens {
		if subtle.ConstantTimeCompare(tokens[i].SHA256[:], sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 || text == "" {
		return nil
	}
	t := tokens[found]
	if !t.Expires.IsZero() && !now.Before(t.Expires) {
		return nil
	}
	return &t
}
