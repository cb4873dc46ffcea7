package pack

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestContainerGivesBackWhatWasPutIn(t *testing.T) {
	b := build(t, smallFiles)
	c, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Members()
	if len(got) != len(smallFiles)+3 {
		t.Fatalf("got %d members, want %d", len(got), len(smallFiles)+3)
	}
	for i, f := range append([]file{{mimetypeName, mimetype}}, smallFiles...) {
		m := got[i]
		want := Member{f.name, int64(len(f.data)), sha256.Sum256([]byte(f.data)), crc32.ChecksumIEEE([]byte(f.data)), m.Offset}
		if m != want {
			t.Errorf("got member %+v, want %+v", m, want)
		}
		if lies := string(b[m.Offset:m.end()]); lies != f.data {
			t.Errorf("%s: got %q in the container, want %q", f.name, lies, f.data)
		}
		section, err := c.Section(f.name)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(section); err != nil || string(data) != f.data {
			t.Errorf("%s: got section %q, %v, want %q", f.name, data, err, f.data)
		}
		if data, err := c.ReadFile(f.name, 100); err != nil || string(data) != f.data {
			t.Errorf("%s: got file %q, %v, want %q", f.name, data, err, f.data)
		}
	}
	if err := check(c.Manifest(), c.Signature()); err != nil {
		t.Errorf("manifest and signature: %v", err)
	}
	if _, err := c.Section("content/absent"); err == nil {
		t.Error("got a section of a file that is not there")
	}
	if _, err := c.ReadFile("PIndex.xml", 1); !errors.Is(err, ErrForm) {
		t.Errorf("file over its limit: got %v, want ErrForm", err)
	}
	if err := verify(b); err != nil {
		t.Errorf("verify: %v", err)
	}
}

func TestBuilderRefusesNames(t *testing.T) {
	for _, name := range []string{
		"", "/", "content/", "content//a", "/etc/passwd", "../a", "content/../a", "content/./a", "content/.a", "content/a.",
		"content/-a", `content\a`, "content/a\x00b", "content/à", "content/a b", "C:/a", "content/con", "content/NUL.txt",
		"content/lpt1.pdf", "mimetype", "Mimetype", manifestName, signatureName, "META-INF/x", "meta-inf/manifest.xml",
		"content/" + strings.Repeat("a", 101), strings.Repeat("a/", 8) + "a", strings.Repeat(strings.Repeat("a", 90)+"/", 3) + "a",
		"content/twice", "content/TWICE", "content/twice/below", "CONTENT/x", "metadata", "content",
	} {
		b := NewBuilder(&memory{})
		for _, n := range []string{"content/twice", "metadata/x"} {
			if err := b.Add(n, nil); err != nil {
				t.Fatal(err)
			}
		}
		if name == "CONTENT/x" { // another folder to the eye of the format, but not for every file system
			continue
		}
		if err := b.Add(name, nil); !errors.Is(err, ErrForm) {
			t.Errorf("Add(%.40q): got %v, want ErrForm", name, err)
		}
		if _, err := b.Create(name, 0); !errors.Is(err, ErrForm) {
			t.Errorf("Create(%.40q): got %v, want ErrForm", name, err)
		}
		if err := b.Add("PIndex.xml", nil); err != nil {
			t.Errorf("after a refused name: got %v, want a builder that goes on", err)
		}
	}
}

func TestBuilderKeepsTheOrder(t *testing.T) {
	order := []string{"content/a", "metadata/a", "PIndex.xml", "report.json"}
	for i, first := range order {
		for j, second := range order {
			b := NewBuilder(&memory{})
			if err := b.Add(first, nil); err != nil {
				t.Fatal(err)
			}
			if err := b.Add(second, nil); (err == nil) != (j > i) {
				t.Errorf("%s after %s: got %v", second, first, err)
			}
		}
	}
}

func TestBuilderSaysWhenAFileHasAnotherLength(t *testing.T) {
	b := NewBuilder(&memory{})
	w, err := b.Create("content/a", 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Add("content/b", nil); err == nil {
		t.Error("got no error for a file begun before the last was closed")
	}
	if _, err := w.Write([]byte("four")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "content/a: 4 bytes of the 5") {
		t.Errorf("file too short: got %v", err)
	}
	if _, err := b.Finish(context.Background(), sign); err == nil {
		t.Error("file too short: got a container")
	}

	b = NewBuilder(&memory{})
	if w, err = b.Create("content/a", 5); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("sixsix")); err == nil || !strings.Contains(err.Error(), "content/a: more than") {
		t.Errorf("file too long: got %v", err)
	}
	if err := w.Close(); err == nil {
		t.Error("file too long: got no error from Close")
	}
	if _, err := b.Create("content/b", -1); err == nil {
		t.Error("got a file of negative size")
	}
}

// fragile fails every write after the first n.
type fragile struct {
	memory
	n int
}

var errDisk = errors.New("no space left")

func (f *fragile) WriteAt(p []byte, at int64) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errDisk
	}
	return f.memory.WriteAt(p, at)
}

func TestBuilderReportsEveryFailedWrite(t *testing.T) {
	for n := 0; ; n++ {
		f := &fragile{n: n}
		b := NewBuilder(f)
		_ = b.Add("content/a", []byte("a"))
		if w, err := b.Create("content/b", 1); err == nil {
			_, _ = w.Write([]byte("b"))
			_ = w.Close()
		}
		_, err := b.Finish(context.Background(), sign)
		if err == nil {
			if n < 10 {
				t.Fatalf("got no error with %d writes allowed", n)
			}
			return
		}
		if !errors.Is(err, errDisk) {
			t.Fatalf("with %d writes allowed: got %v, want the error of the file", n, err)
		}
	}
}

func TestFinishReportsTheSigner(t *testing.T) {
	errKey := errors.New("no key")
	for name, sign := range map[string]func(context.Context, []byte) ([]byte, error){
		"error": func(context.Context, []byte) ([]byte, error) { return nil, errKey },
		"empty": func(context.Context, []byte) ([]byte, error) { return nil, nil },
		"large": func(context.Context, []byte) ([]byte, error) { return make([]byte, maxSignature+1), nil },
	} {
		if _, err := NewBuilder(&memory{}).Finish(context.Background(), sign); err == nil {
			t.Errorf("%s: got a container", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewBuilder(&memory{}).Finish(ctx, sign); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestAnyFilesComeBackTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var files []file
		seen := map[string]bool{}
		for _, folder := range []string{"content/", "metadata/", "proofs/"} {
			for _, n := range rapid.SliceOfN(rapid.StringMatching(`[a-z0-9_][a-z0-9._-]{0,20}[a-z0-9]`), 0, 6).Draw(t, "names") {
				if name := folder + n; !seen[name] && checkName(name) == nil {
					seen[name] = true
					files = append(files, file{name, string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"))})
				}
			}
		}
		var m memory
		b := NewBuilder(&m)
		for _, f := range files {
			if err := b.Add(f.name, []byte(f.data)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Finish(context.Background(), sign); err != nil {
			t.Fatal(err)
		}
		if err := verify(m.b); err != nil {
			t.Fatal(err)
		}
		c, err := Open(bytes.NewReader(m.b), int64(len(m.b)))
		if err != nil {
			t.Fatal(err)
		}
		var again memory
		b = NewBuilder(&again)
		for _, f := range files {
			data, err := c.ReadFile(f.name, 1000)
			if err != nil || string(data) != f.data {
				t.Fatalf("%s: got %q, %v, want %q", f.name, data, err, f.data)
			}
			w, err := b.Create(f.name, int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(data)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Finish(context.Background(), sign); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.b, m.b) {
			t.Fatal("streamed files give other bytes than added ones")
		}
	})
}

const pythonCheck = `
import sys, zipfile, hashlib
z = zipfile.ZipFile(sys.argv[1])
assert z.testzip() is None
assert z.comment == b''
for i in z.infolist():
    assert i.compress_type == zipfile.ZIP_STORED and i.flag_bits == 0, i
    assert i.date_time == (1980, 1, 1, 0, 0, 0) and i.external_attr == 0o100644 << 16, i
    print(i.filename, i.file_size, hashlib.sha256(z.read(i)).hexdigest() if i.file_size < 1 << 20 else '-')
`

func TestOtherProgramsReadTheContainer(t *testing.T) {
	var many []file
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		data := make([]byte, rnd.IntN(2000))
		for j := range data {
			data[j] = byte(rnd.Uint32())
		}
		many = append(many, file{SafeName(i, fmt.Sprintf("Allegato n. %d àèì.pdf", i)), string(data)})
	}
	for name, files := range map[string][]file{"small": smallFiles, "many": many, "empty": nil} {
		path := filepath.Join(t.TempDir(), name+".asice")
		b := build(t, files)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(name+"/unzip", func(t *testing.T) {
			if out := run(t, tool(t, "unzip"), "-t", path); !strings.Contains(out, "No errors detected") {
				t.Errorf("got %s", out)
			}
		})
		t.Run(name+"/zipinfo", func(t *testing.T) {
			if out := run(t, tool(t, "zipinfo"), path); !strings.Contains(out, "-rw-r--r--") {
				t.Errorf("got %s", out)
			}
		})
		t.Run(name+"/python", func(t *testing.T) {
			var want strings.Builder
			c, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range c.Members() {
				fmt.Fprintf(&want, "%s %d %x\n", m.Name, m.Size, m.SHA256)
			}
			if got := run(t, tool(t, "python3"), "-c", pythonCheck, path); got != want.String() {
				t.Errorf("got %s, want %s", got, want.String())
			}
		})
	}
}

func TestMoreMembersThanThirtyTwoBitZIPHolds(t *testing.T) {
	const n = 70_000
	var m memory
	b := NewBuilder(&m)
	for i := range n {
		if err := b.Add(fmt.Sprintf("content/%d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Finish(context.Background(), sign); err != nil {
		t.Fatal(err)
	}
	if err := verify(m.b); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(m.b), int64(len(m.b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(z.File) != n+3 {
		t.Errorf("archive/zip: got %d files, want %d", len(z.File), n+3)
	}
}

func TestZIP64AppearsExactlyWhenNeeded(t *testing.T) {
	for _, tt := range []struct {
		members int64
		size    int64
		offset  int64
		want    int
	}{
		{65534, 1 << 22, 1 << 30, lenEnd},
		{65535, 1 << 22, 1 << 30, lenEnd + lenEnd64 + lenLocator},
		{10, 1000, mark32 - 1, lenEnd},
		{10, 1000, mark32, lenEnd + lenEnd64 + lenLocator},
	} {
		d := directory{tt.members, tt.size, tt.offset}
		b := appendEnd(nil, d)
		if len(b) != tt.want {
			t.Errorf("%+v: got end records of %d bytes, want %d", d, len(b), tt.want)
		}
		if got, err := parseEnd(b, tt.offset+tt.size+int64(len(b))); err != nil || got != d {
			t.Errorf("%+v: got %+v, %v back", d, got, err)
		}
	}
	for _, tt := range []struct{ size, head, local, central int64 }{
		{mark32 - 1, mark32 - 1, 31, 47},
		{mark32, 0, 31 + 20, 47 + 20},
		{0, mark32, 31, 47 + 12},
		{mark32, mark32, 31 + 20, 47 + 28},
	} {
		m := Member{Name: "a", Size: tt.size, Offset: tt.head + int64(lenHead("a", tt.size))}
		local, central := appendLocal(nil, m), appendCentral(nil, m)
		if int64(len(local)) != tt.local || int64(len(central)) != tt.central {
			t.Errorf("%+v: got headers of %d and %d bytes", tt, len(local), len(central))
		}
		rest := func(b []byte) func(int) ([]byte, error) {
			return func(n int) ([]byte, error) { return b[:n], nil }
		}
		if got, err := parseLocal(local[:lenLocal], tt.head, rest(local[lenLocal:])); err != nil || got != m {
			t.Errorf("%+v: got %+v, %v from the local header", tt, got, err)
		}
		if got, err := parseCentral(central[:lenCentral], rest(central[lenCentral:])); err != nil || got != m {
			t.Errorf("%+v: got %+v, %v from the central header", tt, got, err)
		}
	}
}
