package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// onLiar makes an installation whose bucket is a Liar's.
func onLiar(t *testing.T, flaws s3test.Flaws) *installation {
	t.Helper()
	o := s3test.StartLiar(t, flaws).Options()
	in := testInstallation(t, func(c *Config) {
		c.Store = StoreConfig{S3: &S3Config{URL: "http://" + o.Endpoint, Bucket: o.Bucket, AccessKey: o.AccessKey, SecretKeyFile: "keys/s3.secret"}}
	})
	if err := os.WriteFile(in.path("keys", "s3.secret"), []byte(o.SecretKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return in
}

// TestServeRefusesBadStores starts the daemon on buckets that each lack one property: it names the promise that is
// not kept, and never listens.
func TestServeRefusesBadStores(t *testing.T) {
	for _, c := range []struct {
		name, refused string
		flaws         s3test.Flaws
		code          int
	}{
		{"two writers win", "slow-against-fast: una scrittura lenta non sostituisce", s3test.Flaws{CreateNotAtomic: true}, exitWrong},
		{"locks are ignored", "lock-delete: una versione bloccata non si cancella", s3test.Flaws{LockIgnored: true}, exitWrong},
		{"digests are ignored", "digest: byte diversi dall'impronta", s3test.Flaws{ChecksumIgnored: true}, exitWrong},
		{"versioning can be suspended", "versioning: le versioni del bucket", s3test.Flaws{VersioningSuspendable: true}, exitWrong},
		{"no Object Lock", "has no Object Lock", s3test.Flaws{NoObjectLock: true}, exitWrong},
		{"no versions", "versioning is off", s3test.Flaws{NoVersioning: true}, exitWrong},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := onLiar(t, c.flaws)
			err := in.serve(t.Context(), openOptions{Log: slog.New(slog.DiscardHandler)})
			if err == nil || exitCode(err) != c.code || !strings.Contains(textIn(paper.Italian, err), c.refused) {
				t.Errorf("got code %d, %v, want %s", exitCode(err), err, c.refused)
			}
			for _, name := range []string{"address", fitnessFile, "heads"} {
				if _, err := os.Stat(in.path("state", name)); err == nil {
					t.Errorf("state/%s was made", name)
				}
			}
		})
	}
}

// TestServeAcceptsAGoodBucket is what the refusals are held against: the same bucket without a flaw is served from.
func TestServeAcceptsAGoodBucket(t *testing.T) {
	in := onLiar(t, s3test.Flaws{})
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- in.serve(ctx, openOptions{Log: slog.New(slog.NewTextHandler(&log, nil))}) }()
	for range 300 {
		if _, err := os.Stat(in.path("state", "address")); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "promise=durability") {
		t.Errorf("what the store cannot do is not told:\n%s", log.String())
	}
	if !readFitness(in.path("state")).known {
		t.Error("it is not remembered that the store is fit")
	}
}
