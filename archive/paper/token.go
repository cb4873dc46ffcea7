package paper

import (
	"encoding/asn1"
	"time"
)

var oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}

// checkToken is the check of the timestamps inside our evidence records: SHA-256 only, every rule of
// signing.Trust.CheckToken.
func (t Trust) checkToken(token, imprint []byte, algorithm asn1.ObjectIdentifier) (time.Time, error) {
	if !algorithm.Equal(oidSHA256) || len(imprint) != 32 {
		return time.Time{}, errOtherAlgorithm
	}
	tok, err := t.Certificates.CheckToken(token, [32]byte(imprint))
	if err != nil {
		return time.Time{}, err
	}
	return tok.Time, nil
}
