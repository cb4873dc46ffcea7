package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
)

// BenchmarkPut is what the spool costs: puts of 10 and 100 KB by 32 writers to a store that does nothing.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{10 << 10, 100 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s, err := Open(b.Context(), nothing{}, Options{
				Dir: filepath.Join(b.TempDir(), "spool"), ReadBack: time.Hour, Quota: 1 << 40, Reserve: 1, Ballast: -1, Now: time.Now, Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			data := bytes.Repeat([]byte{1}, size)
			o := storage.PutOptions{Size: int64(size), SHA256: sha256.Sum256(data)}
			var n atomic.Int64
			b.SetBytes(int64(size))
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := s.Put(b.Context(), fmt.Sprintf("c_x901/packages/%d", n.Add(1)), bytes.NewReader(data), o); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// nothing is a store that says yes.
type nothing struct{ inner }

func (nothing) Put(context.Context, string, io.ReaderAt, storage.PutOptions) error { return nil }
