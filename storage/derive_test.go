package storage_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
)

// replacing counts what is replaced.
type replacing struct {
	*dir.Store
	times int
}

func (r *replacing) Replace(ctx context.Context, key string, b io.ReaderAt, o storage.PutOptions) error {
	r.times++
	return r.Store.Replace(ctx, key, b, o)
}

func TestDeriveReplacesOnlyWhatDiffers(t *testing.T) {
	ctx := t.Context()
	d, err := dir.Open(t.TempDir(), dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	s := &replacing{Store: d}
	const key = "c_x901/tiles/tile/0/000"
	for _, c := range []struct {
		data  string
		times int
	}{{"one", 0}, {"one", 0}, {"two", 1}, {"two and more", 2}, {"two", 3}, {"two", 3}} {
		if err := storage.Derive(ctx, s, key, []byte(c.data)); err != nil {
			t.Fatal(err)
		}
		r, err := s.Get(ctx, key, "", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != c.data || s.times != c.times {
			t.Errorf("got %q after %d replacements, %v, want %q after %d", got, s.times, err, c.data, c.times)
		}
		_ = r.Close()
	}
	if err := storage.Derive(ctx, s, "c_x901/packages/aa/x.asice", nil); !errors.Is(err, storage.ErrKey) {
		t.Errorf("an object that is not derived: got %v, want ErrKey", err)
	}
}
