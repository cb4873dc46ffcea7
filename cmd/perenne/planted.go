//go:build crashpoints

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/s3"
)

// planted gives a store one of the bugs that harnesses must see, when the environment says so:
//
//	PERENNE_PLANT=hasty ROOM     objects of that room are acknowledged half a second before they are stored
//	PERENNE_PLANT=deaf ROOM      a Put of that room that failed is taken for done
func planted(s storage.Store) storage.Store {
	what, room, _ := strings.Cut(os.Getenv("PERENNE_PLANT"), " ")
	h := &hasty{next: s, room: room, held: map[string][]byte{}}
	switch at := s.(type) {
	case *dir.Store:
		switch what {
		case "hasty":
			return &hastyDir{at, h}
		case "deaf":
			return &deaf{at, room}
		}
	case *s3.Store:
		if what == "hasty" {
			return &hastyS3{at, h}
		}
	}
	if what != "" {
		panic("this store cannot be given that bug: " + what)
	}
	return s
}

// The optional interfaces stay the store's own.
type hastyDir struct {
	*dir.Store
	h *hasty
}

func (s *hastyDir) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	return s.h.Put(ctx, key, r, o)
}

func (s *hastyDir) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	return s.h.Get(ctx, key, version, offset, n)
}

func (s *hastyDir) Stat(ctx context.Context, key string) (storage.Object, error) {
	return s.h.Stat(ctx, key)
}

type hastyS3 struct {
	*s3.Store
	h *hasty
}

func (s *hastyS3) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	return s.h.Put(ctx, key, r, o)
}

func (s *hastyS3) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	return s.h.Get(ctx, key, version, offset, n)
}

func (s *hastyS3) Stat(ctx context.Context, key string) (storage.Object, error) {
	return s.h.Stat(ctx, key)
}

func (s *hastyS3) History(ctx context.Context, key string) ([]storage.Version, error) {
	o, err := s.h.Stat(ctx, key)
	return o.Versions, err
}

// hasty keeps objects in memory for a while and says that they are stored.
type hasty struct {
	next storage.Store
	room string
	mu   sync.Mutex
	held map[string][]byte
}

func (h *hasty) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if roomOf(key) != h.room {
		return h.next.Put(ctx, key, r, o)
	}
	b := make([]byte, o.Size)
	if _, err := r.ReadAt(b, 0); err != nil && err != io.EOF {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[key] = b
	time.AfterFunc(500*time.Millisecond, func() { _ = h.next.Put(context.Background(), key, bytes.NewReader(b), o) })
	return nil
}

func (h *hasty) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.held[key]
	if !ok {
		return h.next.Get(ctx, key, version, offset, n)
	}
	if n < 0 {
		n = int64(len(b))
	}
	return io.NopCloser(io.NewSectionReader(bytes.NewReader(b), offset, n)), nil
}

func (h *hasty) Stat(ctx context.Context, key string) (storage.Object, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.held[key]
	if !ok {
		return h.next.Stat(ctx, key)
	}
	size := int64(len(b))
	return storage.Object{Key: key, Size: size, Versions: []storage.Version{{Key: key, Size: size, Latest: true}}}, nil
}

// deaf hears no error.
type deaf struct {
	*dir.Store
	room string
}

func (d *deaf) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	err := d.Store.Put(ctx, key, r, o)
	if roomOf(key) != d.room {
		return err
	}
	return nil
}
