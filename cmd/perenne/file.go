package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// writeFile writes a file of the installation: whole or not at all, durable, with exactly this mode.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

// removeUnfinished removes what writeFile left in a folder where it was killed. Nobody may be writing there.
func removeUnfinished(folder string) error {
	list, err := os.ReadDir(folder)
	for _, f := range list {
		if strings.HasPrefix(f.Name(), ".new-") {
			err = errors.Join(err, os.Remove(filepath.Join(folder, f.Name())))
		}
	}
	return err
}

// outFile is a file that the user asked for, on its way: whole under its name at Commit, or not there. It has the
// mode that the user's umask gives. A name that is no regular file (a pipe, a terminal, a device) is written to
// as it is, never replaced.
type outFile struct {
	*os.File
	path   string
	direct bool
}

func createOut(path string) (*outFile, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, usagef("%s is a folder", path)
	case err == nil && !info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, usagef("%v", err)
		}
		return &outFile{f, path, true}, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, usagef("%v", err)
	}
	for n := range 1000 {
		name := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d.new", filepath.Base(path), n))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, usagef("%v", err)
		}
		return &outFile{f, path, false}, nil
	}
	return nil, usagef("%s: too many unfinished files beside it", path)
}

// Commit makes the file durable and gives it its name.
func (o *outFile) Commit() error {
	if o.direct {
		return o.Close()
	}
	if err := errors.Join(o.Sync(), o.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", o.path, err), os.Remove(o.Name()))
	}
	return os.Rename(o.Name(), o.path)
}

// Discard leaves nothing.
func (o *outFile) Discard() error {
	err := o.Close()
	if o.direct {
		return err
	}
	return errors.Join(err, os.Remove(o.Name()))
}
