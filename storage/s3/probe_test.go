package s3_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/doctor"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

func examined(t *testing.T, s *s3.Store) doctor.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	began := time.Now()
	report := doctor.Examine(ctx, s, doctor.Options{Now: time.Now})
	t.Logf("examined in %v: %s", time.Since(began).Round(time.Millisecond), report.Verdict())
	for _, r := range report.Results {
		if r.Seen != nil {
			t.Logf("%-8s %s: %v", r.Verdict, r.Name, r.Seen)
		}
	}
	return report
}

func verdictOf(r doctor.Report, name string) storage.Outcome {
	for _, one := range r.Results {
		if one.Name == name {
			return one.Outcome
		}
	}
	return storage.Outcome{}
}

// TestDoctorOnRealServers examines the two servers: both are fit, and what each cannot do is named.
func TestDoctorOnRealServers(t *testing.T) {
	for _, kind := range s3test.Kinds {
		t.Run(kind, func(t *testing.T) {
			s := opened(t, s3test.Start(t, kind))
			report := examined(t, s)
			if !report.Good() {
				t.Errorf("got %s, want it to be fit", report.Verdict())
			}
			for name, seen := range map[string]map[string]string{
				"versitygw": {
					"durability": "never syncs", "read-checks": "does not check", "default-lock": "goes when the default goes",
					"version-listing": "listed twice", "create-over-marker": "refused (412)",
				},
				"minio": {"durability": "not its folders", "read-checks": "finds flipped bits", "create-over-marker": "told yes"},
			}[kind] {
				if got := verdictOf(report, name); got.Verdict != storage.Noted || !strings.Contains(got.Seen.Error(), seen) {
					t.Errorf("%s: got %v, want a note that it %s", name, got, seen)
				}
			}
			if got := verdictOf(report, "older-versions"); got.Verdict != storage.Held {
				t.Errorf("older-versions: got %v, want it held", got)
			}
			leftOnlyLocked(t, s)
		})
	}
}

// TestDoctorRefusesAnUnsafeServer asks the one that was measured to lose acknowledged objects, twenty times. What finds
// it every time is the slow create; that many at once win together is a matter of chance.
func TestDoctorRefusesAnUnsafeServer(t *testing.T) {
	server := s3test.Start(t, s3test.Unsafe)
	const times = 20
	slow, together := 0, 0
	for range times {
		report := examined(t, opened(t, server))
		if verdictOf(report, "slow-against-fast").Verdict == storage.Broken {
			slow++
		}
		if verdictOf(report, "one-winner").Verdict == storage.Broken {
			together++
		}
	}
	t.Logf("of %d examinations slow-against-fast found it in %d, one-winner in %d", times, slow, together)
	if slow != times || together == 0 {
		t.Errorf("got %d and %d of %d, want all, and some", slow, together, times)
	}
}

// leftOnlyLocked wants an examination to have left nothing but what is locked for a minute or two.
func leftOnlyLocked(t *testing.T, s *s3.Store) {
	t.Helper()
	for v, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		o, err := s.Stat(t.Context(), v.Key)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(v.Key, "/older-versions/") {
			continue // its older version is locked; versitygw does not tell
		}
		locked := slices.ContainsFunc(o.Versions, func(v storage.Version) bool { return !v.RetainUntil.IsZero() })
		if !locked || !storage.ProbeKey(v.Key) {
			t.Errorf("%s was left", v.Key)
		}
		for _, v := range o.Versions {
			if v.RetainUntil.After(time.Now().Add(3 * time.Minute)) {
				t.Errorf("%s is locked until %s", v.Key, v.RetainUntil)
			}
		}
	}
}

// TestDoctorNamesEachFlaw examines a server that lacks one property at a time.
func TestDoctorNamesEachFlaw(t *testing.T) {
	for _, c := range []struct {
		flaw, name string
		flaws      s3test.Flaws
	}{
		{"condition looked at before the bytes", "slow-against-fast", s3test.Flaws{CreateNotAtomic: true}},
		{"no condition", "create-once", s3test.Flaws{CreateUnconditional: true}},
		{"completion's condition not atomic", "multipart-one-winner", s3test.Flaws{CompleteNotAtomic: true}},
		{"completion without condition", "multipart-one-winner", s3test.Flaws{CompleteUnconditional: true}},
		{"versioning suspendable", "versioning", s3test.Flaws{VersioningSuspendable: true}},
		{"locks not stored", "lock-set", s3test.Flaws{LockNotStored: true}},
		{"locks not stored", "multipart-lock", s3test.Flaws{LockNotStored: true}},
		{"locks that have ended", "lock-past", s3test.Flaws{LockInPast: true}},
		{"locks ignored", "lock-delete", s3test.Flaws{LockIgnored: true}},
		{"locks ignored in a batch", "lock-delete", s3test.Flaws{BatchIgnoresLocks: true}},
		{"compliance bypassed", "lock-delete", s3test.Flaws{ComplianceBypassed: true}},
		{"holds ignored", "hold-delete", s3test.Flaws{HoldIgnored: true}},
		{"locks shortened", "lock-shorten", s3test.Flaws{Shortenable: true}},
		{"locks downgraded", "lock-downgrade", s3test.Flaws{Downgradable: true}},
		{"locks not extended", "lock", s3test.Flaws{ExtensionIgnored: true}},
		{"checksum ignored", "digest", s3test.Flaws{ChecksumIgnored: true}},
		{"checksum of parts ignored", "multipart-digest", s3test.Flaws{ChecksumIgnored: true}},
		{"last key not listed", "version-listing", s3test.Flaws{ListOmitsLast: true}},
		{"last key not listed", "listing", s3test.Flaws{ListOmitsLast: true}},
		{"older versions not listed", "version-listing", s3test.Flaws{ListOmitsVersions: true}},
		{"marker hides versions", "delete-marker", s3test.Flaws{MarkerHides: true}},
		{"nothing is deleted", "erase", s3test.Flaws{DeleteIgnored: true}},
	} {
		t.Run(c.flaw+" "+c.name, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			report := examined(t, liar(t, c.flaws))
			if got := verdictOf(report, c.name); report.Good() || got.Verdict != storage.Broken {
				t.Errorf("%s: got %v, want it broken", c.name, got)
			}
		})
	}
}

func liar(t *testing.T, flaws s3test.Flaws, change ...func(*s3.Options)) *s3.Store {
	t.Helper()
	o := s3test.StartLiar(t, flaws).Options()
	for _, c := range change {
		c(&o)
	}
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDoctorAcceptsWhatProductsDo: what is no fault is named and accepted.
func TestDoctorAcceptsWhatProductsDo(t *testing.T) {
	for _, c := range []struct {
		what, noted string
		flaws       s3test.Flaws
	}{
		{"honest", "durability", s3test.Flaws{}},
		{"repeats entries", "version-listing", s3test.Flaws{ListRepeats: true}},
		{"refuses over a marker", "create-over-marker", s3test.Flaws{MarkerRefuses: true}},
		{"default not kept", "default-lock", s3test.Flaws{DefaultNotKept: true}},
		{"no lock in the answer to GET", "durability", s3test.Flaws{LockNotInGet: true}},
		{"writers wait", "create-over-marker", s3test.Flaws{WritersWait: true}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			s := liar(t, c.flaws)
			report := examined(t, s)
			if got := verdictOf(report, c.noted); !report.Good() || got.Verdict != storage.Noted {
				t.Errorf("%s: got %v, want a note; all: %s", c.noted, got, report.Verdict())
			}
			if got := verdictOf(report, "older-versions"); got.Verdict != storage.Held {
				t.Errorf("older-versions: got %v, want it held", got)
			}
			leftOnlyLocked(t, s)
		})
	}
}

// TestDoctorLooksAtTheEncryption configures what servers do and do not do.
func TestDoctorLooksAtTheEncryption(t *testing.T) {
	for _, c := range []struct {
		what, sse, key string
		flaws          s3test.Flaws
		want           storage.Verdict
	}{
		{"none", "", "", s3test.Flaws{NotEncrypted: true}, ""},
		{"s3", "s3", "", s3test.Flaws{}, storage.Held},
		{"kms", "kms", "chiave", s3test.Flaws{}, storage.Held},
		{"kms alias", "kms", "alias/perenne", s3test.Flaws{}, storage.Noted},
		{"s3 ignored", "s3", "", s3test.Flaws{NotEncrypted: true}, storage.Broken},
		{"kms ignored", "kms", "chiave", s3test.Flaws{NotEncrypted: true}, storage.Broken},
		{"another key", "kms", "chiave", s3test.Flaws{OtherKey: true}, storage.Broken},
		{"refused", "s3", "", s3test.Flaws{EncryptionRefused: true}, storage.Broken},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			s := liar(t, c.flaws, func(o *s3.Options) { o.SSE, o.KMSKey = c.sse, c.key })
			report := examined(t, s)
			if got := verdictOf(report, "encryption"); got.Verdict != c.want || report.Good() != (c.want != storage.Broken) {
				t.Errorf("got %v, want %q; all: %s", got, c.want, report.Verdict())
			}
			leftOnlyLocked(t, s)
		})
	}
	for _, kind := range s3test.Kinds { // the one heeds nothing, the other has no KMS
		t.Run(kind, func(t *testing.T) {
			o := s3test.Start(t, kind).Options()
			o.SSE = "s3"
			s, err := s3.Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if got := verdictOf(examined(t, s), "encryption"); got.Verdict != storage.Broken {
				t.Errorf("got %v, want it broken", got)
			}
		})
	}
}

// TestAFullBucketIsFoundFullWithEncryptionToo: the encryption is no second fault, for whoever asks whether room is all
// that is wanting.
func TestAFullBucketIsFoundFullWithEncryptionToo(t *testing.T) {
	l := s3test.StartLiar(t, s3test.Flaws{})
	s := openedLiar(t, l, func(o *s3.Options) { o.SSE = "s3" })
	l.Telling(func(call s3test.Call) s3test.Lie {
		if call.Kind == s3test.PutObject {
			return s3test.Lie{What: s3test.StorageFull}
		}
		return s3test.Lie{}
	})
	report := examined(t, s)
	if got := verdictOf(report, "encryption"); got.Verdict != storage.Broken || !errors.Is(got.Seen, storage.ErrFull) {
		t.Errorf("got %v, want it full", got)
	}
	if untold := report.Of(storage.Untold); len(untold) > 0 {
		t.Errorf("left untold: %v", untold)
	}
}

func TestDoctorLooksAtTheClock(t *testing.T) {
	for _, c := range []struct {
		off  time.Duration
		want storage.Verdict
	}{{0, storage.Held}, {20 * time.Second, storage.Noted}, {-20 * time.Second, storage.Noted}, {time.Hour, storage.Broken}, {-time.Hour, storage.Broken}} {
		s := liar(t, s3test.Flaws{}, func(o *s3.Options) { o.Now = func() time.Time { return time.Now().Add(c.off) } })
		if got := verdictOf(examined(t, s), "clock"); got.Verdict != c.want {
			t.Errorf("%v off: got %v, want %s", c.off, got, c.want)
		}
	}
}

// TestDoctorLetsABucketInUseBe: the default of a bucket is changed only where nobody can be hurt by it.
func TestDoctorLetsABucketInUseBe(t *testing.T) {
	l := s3test.StartLiar(t, s3test.Flaws{})
	l.Plant("c_x901/ledger/0000000000000000/0000", []byte("x"))
	s, err := s3.Open(t.Context(), l.Options())
	if err != nil {
		t.Fatal(err)
	}
	report := examined(t, s)
	if got := verdictOf(report, "default-lock"); !report.Good() || got.Verdict != storage.Noted || !strings.Contains(got.Seen.Error(), "in use") {
		t.Errorf("got %v, want it not to be tried", got)
	}
}

// TestGovernanceIsNamed: who chose it is told what it does not do.
func TestGovernanceIsNamed(t *testing.T) {
	s := liar(t, s3test.Flaws{}, func(o *s3.Options) { o.Lock = s3.Governance })
	report := examined(t, s)
	if got := verdictOf(report, "lock-delete"); !report.Good() || got.Verdict != storage.Noted {
		t.Errorf("got %v, %s", got, report.Verdict())
	}
}
