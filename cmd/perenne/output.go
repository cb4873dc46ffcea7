package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/paper"
)

// checkOut refuses, before anything is asked of the daemon, a file that could not be written afterwards, or that
// lies where only the archive writes.
func (in *installation) checkOut(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return usageIn("%s è una cartella: indicare un file", "%s is a folder: name a file", path)
	}
	if err == nil && (!info.Mode().IsRegular() || isStdout(path)) {
		return nil // a device or a pipe, written to as it is
	}
	folder := filepath.Dir(path)
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return usageIn("%s: la cartella %s non esiste", "%s: there is no folder %s", path, folder)
	}
	if err := unix.Access(folder, unix.W_OK|unix.X_OK); err != nil {
		return usageIn("%s: nella cartella %s non si può scrivere", "%s: the folder %s cannot be written to", path, folder)
	}
	rooms := []string{in.path("state"), in.path("keys")}
	if in.config.Store.Dir != "" {
		rooms = append(rooms, in.within(in.config.Store.Dir))
	}
	for _, own := range rooms {
		if lies(folder, own) {
			return usageIn("%s è dentro %s, dove scrive solo l'archivio", "%s is inside %s, where only the archive writes", path, own)
		}
	}
	return nil
}

// lies reports whether a folder is another one or is in it, whatever links lead there.
func lies(folder, in string) bool {
	for _, p := range []*string{&folder, &in} {
		straight, err := filepath.EvalSymlinks(*p)
		if err != nil {
			return false
		}
		if *p, err = filepath.Abs(straight); err != nil {
			return false
		}
	}
	rel, err := filepath.Rel(in, folder)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// openOut is createOut for a name that may be a link. The link itself is never replaced, it may be /dev/stdout: where
// standard output goes is written to as it stands, and what any other link leads to is replaced as a whole.
func openOut(path string) (*outFile, error) {
	if isStdout(path) {
		fd, err := unix.FcntlInt(os.Stdout.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		return &outFile{File: os.NewFile(uintptr(fd), path), path: path, direct: true}, nil
	}
	if link, err := os.Lstat(path); err != nil || link.Mode()&fs.ModeSymlink == 0 {
		return createOut(path)
	}
	there, err := os.Stat(path)
	if err != nil {
		return nil, usageIn("%s è un collegamento che non porta da nessuna parte", "%s is a link that leads nowhere", path)
	}
	if there.Mode().IsRegular() {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, usagef("%v", err)
		}
	}
	return createOut(path)
}

// writeTo writes a paper where the user wants it.
func writeTo(path string, data []byte) error {
	out, err := openOut(path)
	if err != nil {
		return err
	}
	if _, err := out.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), out.Discard())
	}
	return out.Commit()
}

// isStdout reports whether a name leads to where standard output goes.
func isStdout(path string) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	here, err := os.Stdout.Stat()
	return err == nil && os.SameFile(here, there)
}

// aside is where to tell the user what happened: not among the bytes that go to standard output.
func aside(c *cli.Context, out string) io.Writer {
	if isStdout(out) {
		return c.App.ErrWriter
	}
	return c.App.Writer
}

// readable makes sure that a file of the user's can be read: what cannot is said before anything is sent.
func readable(path string) (os.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, usageIn("%s non è un file", "%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	return info, f.Close()
}

// unreadable is the usage error of a file that the command line names and that cannot be read.
func unreadable(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return usageIn("%s non esiste", "%s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return usageIn("%s: manca il permesso di leggerlo", "%s: no permission to read it", path)
	default:
		return usagef("%v", err)
	}
}

// readInput reads a file that the command line names.
func readInput(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	return text, nil
}

// receiptAt is the receipt in a file. There is none, and free is true, where nothing is or nothing would be lost:
// an empty file, a device.
func receiptAt(path string) (r *paper.Receipt, free bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Size() == 0 || isStdout(path)) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, unreadable(path, err)
	}
	text, err := readInput(path)
	if err != nil {
		return nil, false, err
	}
	if r, err = paper.ParseReceipt(text); err != nil {
		return nil, false, nil //nolint:nilerr // what is no receipt is somebody's file
	}
	return r, false, nil
}

// sameReceipt reports whether two receipts state the same with the same proof; the evidence may have come since.
func sameReceipt(a, b *paper.Receipt) bool {
	one, err := canon.Marshal(a.Body)
	if err != nil {
		return false
	}
	two, err := canon.Marshal(b.Body)
	return err == nil && string(one) == string(two) && a.Proof == b.Proof
}

// writeReceipt writes a receipt and returns where. No other receipt, and nobody's file, is ever written over: the
// new one gets a longer name, with its identifier, beside it.
func writeReceipt(path string, r *paper.Receipt) (string, error) {
	text, err := r.Marshal()
	if err != nil {
		return "", err
	}
	id := receiptID(r)
	base, ext := strings.TrimSuffix(path, filepath.Ext(path)), filepath.Ext(path)
	for _, name := range []string{path, base + "-" + id[:min(8, len(id))] + ext, base + "-" + id + ext} {
		there, free, err := receiptAt(name)
		if err != nil {
			return "", err
		}
		if free || there != nil && sameReceipt(there, r) {
			return name, writeTo(name, text)
		}
	}
	return "", usageIn("%s è occupato da un altro file", "%s is taken by another file", path)
}

// receiptID is the identifier of the package or, for a refusal, of the refusal: the last part of the URN.
func receiptID(r *paper.Receipt) string {
	return r.Body.Identifier[strings.LastIndexByte(r.Body.Identifier, ':')+1:]
}

// receiptName is rdv-DETE-2026-12.json, with nothing in it that a shell or a file system minds. Two keys can have
// the same: writeReceipt sees to that.
func receiptName(r *paper.Receipt) string {
	word := "rdv"
	if r.Refused() {
		word = "rifiuto"
	}
	return fmt.Sprintf("%s-%s-%d-%s.json", word, plainName(r.Body.Key.Register), r.Body.Key.Year, plainName(r.Body.Key.Number))
}

// plainName keeps letters and digits, and no more of them than a file name can do with.
func plainName(s string) string {
	const most = 60
	plain := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			return c
		default:
			return '_'
		}
	}, s)
	return plain[:min(most, len(plain))]
}
