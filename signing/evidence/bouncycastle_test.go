package evidence

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
)

// jars is where Debian's libbcpkix-java puts Bouncy Castle.
const jars = "/usr/share/java/bcpkix.jar:/usr/share/java/bcprov.jar:/usr/share/java/bcutil.jar"

// crossCheck runs testdata/CrossCheck.java, or skips the test where Java or Bouncy Castle are absent.
func crossCheck(t *testing.T, verb, dir string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Java")
	}
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("no java on this machine")
	}
	for _, jar := range strings.Split(jars, ":") {
		if _, err := os.Stat(jar); err != nil {
			t.Skipf("no Bouncy Castle on this machine (Debian: libbcpkix-java): %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", jars,
		filepath.Join("testdata", "CrossCheck.java"), verb, dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		// A runtime without a compiler cannot run a source file.
		if strings.Contains(stderr.String(), "jdk.compiler") {
			t.Skip("java without a compiler on this machine")
		}
		t.Fatalf("%s: %v\n%s%s", verb, err, out, stderr.Bytes())
	}
	return string(out)
}

// authority is a timestamping authority of one test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:    big.NewInt(1),
		Subject:         pkix.Name{CommonName: "Test TSA"},
		NotBefore:       time.Now().Add(-time.Hour),
		NotAfter:        time.Now().Add(time.Hour),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{timeStamping()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, cert}
}

// timeStamping is the extended key usage of a timestamping authority; RFC 3161 section 2.3 wants it critical.
func timeStamping() pkix.Extension {
	value := wire(0x30, []byte{0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08})
	return pkix.Extension{Id: []int{2, 5, 29, 37}, Critical: true, Value: value}
}

// stamp gives a real, signed token over root.
func (a authority) stamp(t testing.TB, root [32]byte) []byte {
	t.Helper()
	ts := timestamp.Timestamp{
		HashAlgorithm:     crypto.SHA256,
		HashedMessage:     root[:],
		Time:              time.Now().UTC().Truncate(time.Second),
		SerialNumber:      big.NewInt(7),
		Policy:            []int{1, 3, 6, 1, 4, 1, 13762, 3},
		AddTSACertificate: true,
	}
	response, err := ts.CreateResponseWithOpts(a.cert, a.key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := timestamp.ParseResponse(response)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.RawToken
}

func TestBouncyCastleAcceptsOurRecordsAndNoOthers(t *testing.T) {
	dir := t.TempDir()
	tsa := newAuthority(t)
	want := map[string]bool{}
	write := func(name string, der, data []byte, valid bool) {
		want[name] = valid
		for ext, b := range map[string][]byte{".ers": der, ".data": data} {
			if err := os.WriteFile(filepath.Join(dir, name+ext), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	object := func(i int) []byte { return fmt.Appendf(nil, "leaf %d", i) }
	for _, n := range []int{1, 2, 3, 5, 8, 21} {
		tree := NewTree(numbered(n))
		root, err := tree.Root()
		if err != nil {
			t.Fatal(err)
		}
		token := tsa.stamp(t, root)
		for i := range n {
			der, err := tree.Derive(sha256.Sum256(object(i)), token)
			if err != nil {
				t.Fatal(err)
			}
			write(fmt.Sprintf("leaf-%d-of-%d", i, n), der, object(i), true)
			if i == 0 {
				write(fmt.Sprintf("stranger-of-%d", n), der, object(n), false)
				if _, path, ok := bytes.Cut(der, []byte{0x04, 0x20}); ok && n > 1 {
					path[0] ^= 1 // in the first list, inside der
					write(fmt.Sprintf("damaged-of-%d", n), der, object(0), false)
				}
			}
		}
	}
	out := crossCheck(t, "verify", dir)
	for line := range strings.Lines(out) {
		name, verdict, _ := strings.Cut(strings.TrimSpace(line), " ")
		valid, known := want[name]
		if !known || valid != (verdict == "valid") {
			t.Errorf("%s: Bouncy Castle says %q, want valid: %v", name, verdict, valid)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("no verdict on %v", want)
	}
}

func TestWeAcceptBouncyCastleRecordsThroughAllRenewals(t *testing.T) {
	dir := t.TempDir()
	crossCheck(t, "make", dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.ers"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 30 {
		t.Fatalf("got %d records, want 30 and more", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".ers")
		der, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		object, err := os.ReadFile(strings.TrimSuffix(file, ".ers") + ".data")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse(der)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p, err := r.VerifyData(Hashes(bytes.NewReader(object), int64(len(object))), unsigned)
		want := 0
		switch {
		case strings.HasPrefix(name, "renewed"):
			want = 1
		case strings.HasPrefix(name, "rehashed-renewed"):
			want = 3
		case strings.HasPrefix(name, "rehashed"):
			want = 2
		}
		if err != nil || p.Renewals != want {
			t.Errorf("%s: got %d renewals, %v, want %d", name, p.Renewals, err, want)
		}
		other := bytes.NewReader([]byte("another object"))
		if _, err := r.VerifyData(Hashes(other, other.Size()), unsigned); !errors.Is(err, ErrProof) {
			t.Errorf("%s with another object: got %v, want ErrProof", name, err)
		}
	}
}
