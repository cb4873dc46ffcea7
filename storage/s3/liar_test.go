package s3_test

import (
	"testing"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
	"github.com/marchesud/perenne/storage/storagetest"
)

func openedLiar(t *testing.T, l *s3test.Liar, change ...func(*s3.Options)) *s3.Store {
	t.Helper()
	o := l.Options()
	for _, c := range change {
		c(&o)
	}
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStoreOnLiar holds the store to the suite on servers that behave each in their own way, none of them wrongly, and
// the Liar to what the suite asks of a server.
func TestStoreOnLiar(t *testing.T) {
	for name, flaws := range map[string]s3test.Flaws{
		"as AWS":       {},
		"as versitygw": {ListRepeats: true, MarkerRefuses: true, DefaultNotKept: true, LockNotInGet: true},
		"as MinIO":     {WritersWait: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storagetest.Test(t, func(t *testing.T) storage.Store {
				l := s3test.StartLiar(t, flaws)
				l.Page = 7
				return openedLiar(t, l)
			})
		})
	}
}
