package s3_test

import (
	"context"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
	"github.com/marchesud/perenne/storage/storagetest"
)

// TestSuiteFindsFlaws holds the suite, and the Liar's switches, to account: each flaw that a store's caller can
// notice breaks the check that is there for it. Flaws that only the account's key shows are the doctor's.
func TestSuiteFindsFlaws(t *testing.T) {
	checks := map[string]storagetest.Check{}
	for _, c := range storagetest.Checks() {
		checks[c.Name] = c
	}
	for _, c := range []struct {
		name  string
		flaws s3test.Flaws
		parts bool // objects go in parts
		check string
	}{
		{"create not atomic", s3test.Flaws{CreateNotAtomic: true}, false, "slow-put-is-invisible-and-loses-to-a-fast-one"},
		{"create unconditional", s3test.Flaws{CreateUnconditional: true}, false, "second-put-is-refused"},
		{"complete not atomic", s3test.Flaws{CompleteNotAtomic: true}, true, "of-concurrent-puts-one-wins"},
		{"complete unconditional", s3test.Flaws{CompleteUnconditional: true}, true, "second-put-is-refused"},
		{"lock not stored", s3test.Flaws{LockNotStored: true}, false, "locks-hold-and-never-shorten"},
		{"extension ignored", s3test.Flaws{ExtensionIgnored: true}, false, "locks-hold-and-never-shorten"},
		{"checksum ignored", s3test.Flaws{ChecksumIgnored: true}, false, "other-bytes-than-announced-are-refused"},
		{"last key not listed", s3test.Flaws{ListOmitsLast: true}, false, "created-object-reads-back"},
		{"versions not listed", s3test.Flaws{ListOmitsVersions: true}, false, "versions-stay-what-they-were"},
		{"deletion ignored", s3test.Flaws{DeleteIgnored: true}, false, "erase-says-why-and-leaves-nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openedLiar(t, s3test.StartLiar(t, c.flaws), func(o *s3.Options) {
				if c.parts {
					o.Single, o.Part = 1000, 1000
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := checks[c.check].Run(ctx, s); err == nil {
				t.Errorf("check %s does not see it", c.check)
			} else {
				t.Log(err)
			}
		})
	}
}
