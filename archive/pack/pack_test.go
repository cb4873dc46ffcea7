package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"testing"
)

// memory is a File in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if end := int(at) + len(p); end > len(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	}
	return copy(m.b[at:], p), nil
}

func (m *memory) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(m.b).ReadAt(p, at) }

// sign and check are a signature without keys: the digest of the manifest.
func sign(_ context.Context, manifest []byte) ([]byte, error) {
	sum := sha256.Sum256(manifest)
	return []byte("signed " + hex.EncodeToString(sum[:])), nil
}

var errSignature = errors.New("wrong signature")

func check(manifest, signature []byte) error {
	if want, _ := sign(context.Background(), manifest); !bytes.Equal(want, signature) {
		return errSignature
	}
	return nil
}

// file is a file of a container under test.
type file struct {
	name string
	data string
}

var smallFiles = []file{
	{"content/001-determina.pdf", "%PDF-1.7 una determina"},
	{"content/002-allegato.p7m", ""},
	{"metadata/submission.json", `{"register":"DETE"}`},
	{"metadata/profile.xml", "<DocumentoInformatico/>"},
	{"PIndex.xml", "<PIndex/>"},
}

// build makes a container; every second file is streamed.
func build(t testing.TB, files []file) []byte {
	t.Helper()
	var m memory
	b := NewBuilder(&m)
	for i, f := range files {
		if i%2 == 0 {
			if err := b.Add(f.name, []byte(f.data)); err != nil {
				t.Fatalf("Add(%s): %v", f.name, err)
			}
			continue
		}
		w, err := b.Create(f.name, int64(len(f.data)))
		if err != nil {
			t.Fatalf("Create(%s): %v", f.name, err)
		}
		for _, part := range []string{f.data[:len(f.data)/3], f.data[len(f.data)/3:]} {
			if _, err := io.WriteString(w, part); err != nil {
				t.Fatalf("write %s: %v", f.name, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatalf("close %s: %v", f.name, err)
		}
	}
	size, err := b.Finish(context.Background(), sign)
	if err != nil {
		t.Fatalf("Finish: %v", err)
	}
	if size != int64(len(m.b)) {
		t.Fatalf("Finish: got size %d, want %d", size, len(m.b))
	}
	return m.b
}

// verify opens and verifies, and demands that VerifyStream is of the same opinion.
func verify(b []byte) error {
	c, err := Open(bytes.NewReader(b), int64(len(b)))
	if err == nil {
		var sum [32]byte
		if sum, err = c.Verify(context.Background(), check); err == nil && sum != sha256.Sum256(b) {
			return fmt.Errorf("got sum %x of the container, want %x", sum, sha256.Sum256(b))
		}
	}
	_, _, streamed := VerifyStream(context.Background(), bytes.NewReader(b), check)
	if (err == nil) != (streamed == nil) {
		return fmt.Errorf("Open and Verify say %w, VerifyStream says %w", err, streamed)
	}
	return err
}

// tool finds a program of somebody else, or skips the test saying that it is missing.
func tool(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed here", name)
	}
	return p
}

// run runs a program and returns what it said.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}
