package evidence

import (
	"bytes"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"encoding/base64"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// public is where the records of the EU DSS and TR-ESOR projects lie, outside the repository.
const public = "../../../shared/data/italy/evidence-records/asn1"

func readPublic(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(public, name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no public vectors at %s", public)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tstInfo is RFC 3161's TSTInfo as far as the standard library is asked to read it here: a second reader of
// what this package reads by hand.
type tstInfo struct {
	Version int
	Policy  encasn1.ObjectIdentifier
	Imprint struct {
		Algorithm pkix.AlgorithmIdentifier
		Value     []byte
	}
	Serial *big.Int
	Time   time.Time `asn1:"generalized"`
}

// unsigned believes what a token says of itself, its imprint and time. Whether these old tokens are genuine
// is not this package's question.
func unsigned(token, imprint []byte, oid encasn1.ObjectIdentifier) (time.Time, error) {
	der, err := readTSTInfo(token)
	if err != nil {
		return time.Time{}, err
	}
	var info tstInfo
	if _, err := encasn1.Unmarshal(der, &info); err != nil {
		return time.Time{}, err
	}
	if !bytes.Equal(info.Imprint.Value, imprint) || !info.Imprint.Algorithm.Algorithm.Equal(oid) {
		return time.Time{}, errToken
	}
	return info.Time, nil
}

// fixed gives one digest, under the algorithm of its length.
func fixed(digest []byte) Digests {
	return func(oid encasn1.ObjectIdentifier) ([]byte, error) {
		a, err := findAlgorithm(oid)
		if err != nil {
			return nil, err
		}
		if a.size != len(digest) {
			return nil, ErrDigest
		}
		return digest, nil
	}
}

func TestPublicVectors(t *testing.T) {
	object := func(b []byte) Digests { return Hashes(bytes.NewReader(b), int64(len(b))) }
	file := func(name string) Digests { return object(readPublic(t, name)) }
	digest := func(base string) Digests {
		b, err := base64.StdEncoding.DecodeString(base)
		if err != nil {
			t.Fatal(err)
		}
		return fixed(b)
	}
	for _, c := range []struct {
		record   string
		data     Digests
		renewals int
		want     error
	}{
		{"BIN-1_ER.ers", file("BIN-1.bin"), 0, nil},
		{"BIN-1_ER.ers", file("Signature-C-LT.p7m"), 0, ErrProof},
		{"BIN-1_ER_malformed.ers", file("BIN-1.bin"), 0, ErrForm},
		{"BIN-2_ER.ers", file("BIN-2.bin"), 1, nil},
		{"BIN-2_ER.ers", object([]byte("0")), 1, ErrProof},
		{"er-asn1-simple.ers", object([]byte("1")), 0, nil},
		{"er-asn1-simple.ers", object([]byte("0")), 0, ErrProof},
		{"er-asn1-one-level-hashtree.ers", object([]byte{2}), 2, nil},
		{"er-asn1-full-renewal.ers", object([]byte{3}), 2, nil},
		{"er-asn1-full-renewal.ers", object([]byte{1}), 2, nil},
		{"er-asn1-full-renewal.ers", object([]byte{2}), 2, ErrProof},
		{"er-asn1-tst-renewal.ers", digest("nOLX01D5QYQHQ58MoR3MEquffNsV+ezF7Kk1SCYCuHI="), 1, nil},
		{"er-asn1-tst-renewal.ers", digest("7sxNM1LA6WX9iHle39GmDFrAmzwRAMBS67auC9NDKyY="), 1, nil},
		{"er-asn1-simple-invalid.ers", digest("nOPX01D5QYQHQ58MoR3MEquffNsV+ezF7Kk1SCYCuHI="), 0, ErrProof},
		// Its object is not among the files: a digest of its first list stands for it.
		{"er-asn1-on-tst.ers", digest("DLLukWGg7dR+f1zWWIEsba9tngUHnk+GHqfsMs7uvl0="), 0, nil},
		{"er-asn1-on-tst.ers", file("BIN-1.bin"), 0, ErrProof},
		{"1_0_Initial.er", object([]byte("123456")), 0, nil},
		{"1_0_Initial.er", object([]byte("123457")), 0, ErrProof},
		{"1_1_Renew_Unsorted.er", object([]byte("123456")), 1, nil},
		{"1_1_Renew_Unsorted.er", object([]byte("123457")), 1, ErrProof},
	} {
		r, err := Parse(readPublic(t, c.record))
		if err == nil {
			var p Proof
			p, err = r.VerifyData(c.data, unsigned)
			if err == nil && p.Time.IsZero() {
				t.Errorf("%s: got no time", c.record)
			}
			if err == nil && p.Renewals != c.renewals {
				t.Errorf("%s: got %d renewals, want %d", c.record, p.Renewals, c.renewals)
			}
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.record, err, c.want)
		}
	}
}
