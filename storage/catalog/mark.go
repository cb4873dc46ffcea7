package catalog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// The mark is a text file: a first line with the version, a line "<SHA-256> <size> <path>" for every file
// under data/ and, if the words index was closed well too, under words/, sorted by path, and a last line
// with the SHA-256 of all before it. Data is trusted when exactly the files named lie there with these sums.

const markHead = "perenne catalog 1\n"

var (
	errNoMark  = errors.New("not closed cleanly")
	errChanged = errors.New("files changed since they were closed")
)

// verifyMark compares the mark with the files, for data/ and for words/ apart; nil means trusted.
func verifyMark(dir string) (data, words error) {
	lines, err := readMark(dir)
	if err != nil {
		return err, err
	}
	var both sync.WaitGroup
	both.Go(func() { data = verifySums(dir, dataName, lines) })
	both.Go(func() { words = verifySums(dir, wordsName, lines) })
	both.Wait()
	return data, words
}

func readMark(dir string) (lines []string, err error) {
	b, err := os.ReadFile(filepath.Join(dir, markName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoMark
	}
	if err != nil {
		return nil, err
	}
	return parseMark(b)
}

func parseMark(b []byte) (lines []string, err error) {
	const last = 2*sha256.Size + 1
	if len(b) < len(markHead)+last {
		return nil, errNoMark
	}
	body, end := b[:len(b)-last], b[len(b)-last:]
	if !bytes.HasPrefix(body, []byte(markHead)) || fmt.Sprintf("%x\n", sha256.Sum256(body)) != string(end) {
		return nil, errNoMark
	}
	return strings.SplitAfter(string(body[len(markHead):]), "\n"), nil
}

func verifySums(dir, name string, lines []string) error {
	want := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.Contains(l, " "+name+"/") })
	if len(want) == 0 {
		return errNoMark
	}
	have, err := sums(dir, name)
	if err != nil {
		return err
	}
	if !slices.Equal(have, want) {
		return errChanged
	}
	return nil
}

// sums gives the mark's lines for the files under dir/name.
func sums(dir, name string) ([]string, error) {
	var lines []string
	err := filepath.WalkDir(filepath.Join(dir, name), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%w: %s is not a regular file", errChanged, path)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		h := sha256.New()
		n, err := io.Copy(h, f)
		lines = append(lines, fmt.Sprintf("%x %d %s\n", h.Sum(nil), n, filepath.ToSlash(rel)))
		return err
	})
	return lines, err
}

// writeMark writes down the files of a closed catalog; those of the words index only if words is set.
func writeMark(dir string, words bool) error {
	lines, err := sums(dir, dataName)
	if err != nil {
		return err
	}
	if words {
		more, err := sums(dir, wordsName)
		if err != nil {
			return err
		}
		lines = append(lines, more...)
	}
	body := markHead + strings.Join(lines, "")
	body += fmt.Sprintf("%x\n", sha256.Sum256([]byte(body)))
	f, err := os.CreateTemp(dir, markName+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(body)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, markName)); err != nil {
		return err
	}
	return syncDir(dir)
}

// removeMark takes the mark away, durably, and leftovers of marks that were never finished.
func removeMark(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, markName+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
