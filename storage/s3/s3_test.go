package s3_test

import (
	"testing"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
	"github.com/marchesud/perenne/storage/storagetest"
)

// opened opens a new bucket of a server.
func opened(t *testing.T, server *s3test.Server, change ...func(*s3.Options)) *s3.Store {
	t.Helper()
	bucket, err := server.NewBucket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := server.Options()
	o.Bucket = bucket
	for _, c := range change {
		c(&o)
	}
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStoreOnRealServers(t *testing.T) {
	for _, kind := range s3test.Kinds {
		t.Run(kind, func(t *testing.T) {
			server := s3test.Start(t, kind)
			storagetest.Test(t, func(t *testing.T) storage.Store { return opened(t, server) })
		})
	}
}
