package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// Derive makes a [Replaceable] key of s hold data: it creates the object, and replaces one that is there only when
// it holds something else. Several daemons derive the same from the same; each Replace would leave a version more.
// ErrKey when s cannot replace.
func Derive(ctx context.Context, s Store, key string, data []byte) error {
	r, ok := s.(Replacer)
	if !ok || !Replaceable(key) {
		return fmt.Errorf("derive %s: %w", key, ErrKey)
	}
	o := PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)}
	err := s.Put(ctx, key, bytes.NewReader(data), o)
	if !errors.Is(err, ErrExists) {
		return err
	}
	if there, err := whole(ctx, s, key, o.Size); err == nil && bytes.Equal(there, data) {
		return nil
	}
	return r.Replace(ctx, key, bytes.NewReader(data), o)
}

// whole reads an object, and at most a byte more than size of it.
func whole(ctx context.Context, s Store, key string, size int64) ([]byte, error) {
	r, err := s.Get(ctx, key, "", 0, size+1)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}
