package pack

import (
	"archive/zip"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const page = 1 << 16

// sparse is a File that keeps only pages that are not all zeros.
type sparse struct {
	pages map[int64]*[page]byte
	size  int64
}

var zeros [1 << 18]byte

func allZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeros))
		if string(p[:n]) != string(zeros[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

func (s *sparse) WriteAt(p []byte, at int64) (int, error) {
	n := len(p)
	s.size = max(s.size, at+int64(n))
	for len(p) > 0 {
		no, off := at/page, int(at%page)
		k := min(page-off, len(p))
		if s.pages[no] != nil || !allZero(p[:k]) {
			if s.pages[no] == nil {
				s.pages[no] = new([page]byte)
			}
			copy(s.pages[no][off:], p[:k])
		}
		p, at = p[k:], at+int64(k)
	}
	return n, nil
}

func (s *sparse) ReadAt(p []byte, at int64) (int, error) {
	n := int(min(int64(len(p)), max(0, s.size-at)))
	for done := 0; done < n; {
		no, off := (at+int64(done))/page, int((at+int64(done))%page)
		k := min(page-off, n-done)
		if pg := s.pages[no]; pg != nil {
			copy(p[done:done+k], pg[off:])
		} else {
			clear(p[done : done+k])
		}
		done += k
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// zeroReader gives n zero bytes.
type zeroReader struct{ n int64 }

func (z *zeroReader) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	k := int(min(int64(len(p)), z.n))
	clear(p[:k])
	z.n -= int64(k)
	return k, nil
}

func buildSparse(t *testing.T, size int64) *sparse {
	t.Helper()
	s := &sparse{pages: map[int64]*[page]byte{}}
	b := NewBuilder(s)
	w, err := b.Create("content/001-video.mp4", size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, &zeroReader{size}, make([]byte, 1<<18)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range smallFiles[2:] {
		if err := b.Add(f.name, []byte(f.data)); err != nil {
			t.Fatal(err)
		}
	}
	n, err := b.Finish(context.Background(), sign)
	if err != nil || n != s.size {
		t.Fatalf("Finish: got size %d, %v, want %d", n, err, s.size)
	}
	return s
}

func TestFileOfFourGigabytesPasses(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes 4 GiB three times over; left out by -short")
	}
	const size = 4 << 30
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := buildSparse(t, size)
	c, err := Open(s, s.size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Verify(context.Background(), check); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("got %d MiB allocated in all, want under 64", got>>20)
	}
	z, err := zip.NewReader(s, s.size)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range c.Members() {
		at, err := z.File[i].DataOffset()
		if f := z.File[i]; err != nil || at != m.Offset || f.UncompressedSize64 != uint64(m.Size) || f.CRC32 != m.CRC32 {
			t.Errorf("archive/zip: got %+v at %d, %v, want %+v", f.FileHeader, at, err, m)
		}
	}
	path := onDisk(t, s)
	t.Run("unzip", func(t *testing.T) {
		if out := run(t, tool(t, "unzip"), "-t", path, "metadata/*", "PIndex.xml"); !strings.Contains(out, "No errors detected") {
			t.Errorf("got %s", out)
		}
	})
	t.Run("zipinfo", func(t *testing.T) {
		if out := run(t, tool(t, "zipinfo"), "-v", path); strings.Contains(out, "warning") {
			t.Errorf("got %s", out)
		}
	})
	t.Run("python", func(t *testing.T) { run(t, tool(t, "python3"), "-c", pythonLarge, path) })
}

const pythonLarge = `
import sys, zipfile
z = zipfile.ZipFile(sys.argv[1])
assert z.getinfo('content/001-video.mp4').file_size == 4 << 30
assert z.read('PIndex.xml') == b'<PIndex/>'
`

// onDisk writes s as a file with holes.
func onDisk(t *testing.T, s *sparse) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse.asice"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(s.size); err != nil {
		t.Fatal(err)
	}
	for no, p := range s.pages {
		if _, err := f.WriteAt(p[:min(page, s.size-no*page)], no*page); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}
