package doctor_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/doctor"
	"github.com/marchesud/perenne/storage/storagetest"
)

// bad is a Mem with one method gone wrong.
type bad struct {
	*storagetest.Mem
	put    func(context.Context, string, io.ReaderAt, storage.PutOptions) error
	get    func(context.Context, string, string, int64, int64) (io.ReadCloser, error)
	stat   func(context.Context, string) (storage.Object, error)
	list   func(context.Context, string, string) iter.Seq2[storage.Version, error]
	erase  func(context.Context, string, string, string) error
	extend func(context.Context, string, string, time.Time) error
	hold   func(context.Context, string, string, bool) error
	probes []storage.Probe
}

func (b *bad) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if b.put != nil {
		return b.put(ctx, key, r, o)
	}
	return b.Mem.Put(ctx, key, r, o)
}

func (b *bad) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	if b.get != nil {
		return b.get(ctx, key, version, offset, n)
	}
	return b.Mem.Get(ctx, key, version, offset, n)
}

func (b *bad) Stat(ctx context.Context, key string) (storage.Object, error) {
	if b.stat != nil {
		return b.stat(ctx, key)
	}
	return b.Mem.Stat(ctx, key)
}

func (b *bad) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
	if b.list != nil {
		return b.list(ctx, prefix, after)
	}
	return b.Mem.List(ctx, prefix, after)
}

func (b *bad) Erase(ctx context.Context, key, version, why string) error {
	if b.erase != nil {
		return b.erase(ctx, key, version, why)
	}
	return b.Mem.Erase(ctx, key, version, why)
}

func (b *bad) Extend(ctx context.Context, key, version string, until time.Time) error {
	if b.extend != nil {
		return b.extend(ctx, key, version, until)
	}
	return b.Mem.Extend(ctx, key, version, until)
}

func (b *bad) Hold(ctx context.Context, key, version string, on bool) error {
	if b.hold != nil {
		return b.hold(ctx, key, version, on)
	}
	return b.Mem.Hold(ctx, key, version, on)
}

func (b *bad) Probes() []storage.Probe { return b.probes }

// force makes an object of whatever bytes, over whatever is there.
func (b *bad) force(key string, r io.ReaderAt, o storage.PutOptions) error {
	data, err := io.ReadAll(io.NewSectionReader(r, 0, o.Size))
	if err == nil {
		b.Plant(key, data)
	}
	return err
}

// changed plants a listing that a bug has passed through.
func (b *bad) changed(change func([]storage.Version) []storage.Version) {
	b.list = func(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
		var vs []storage.Version
		for v := range b.Mem.List(ctx, prefix, after) {
			vs = append(vs, v)
		}
		return func(yield func(storage.Version, error) bool) {
			for _, v := range change(vs) {
				if !yield(v, nil) {
					return
				}
			}
		}
	}
}

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func examine(t *testing.T, plant func(*bad)) (doctor.Report, *bad) {
	t.Helper()
	b := &bad{Mem: storagetest.NewMem(t)}
	b.Lenient = true
	b.Now = func() time.Time { return noon }
	if plant != nil {
		plant(b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return doctor.Examine(ctx, b, doctor.Options{Now: func() time.Time { return noon }}), b
}

func named(rs []doctor.Result) []string {
	var names []string
	for _, r := range rs {
		names = append(names, r.Name)
	}
	return names
}

func TestGoodStoreIsAccepted(t *testing.T) {
	report, mem := examine(t, nil)
	if !report.Good() || report.Verdict() != storage.Held {
		t.Errorf("got %+v, want every promise held", report)
	}
	if want := []string{
		"writable", "create-once", "one-winner", "slow-against-fast", "digest", "read-back", "listing", "erase", "lock", "hold",
	}; !slices.Equal(named(report.Results), want) {
		t.Errorf("got %v, want %v", named(report.Results), want)
	}
	for _, key := range mem.Keys() {
		if !strings.Contains(key, "/lock/") || !storage.ProbeKey(key) {
			t.Errorf("%s was left behind, and no lock holds it", key)
		}
	}
}

// TestEachBrokenPromiseIsNamed plants one fault at a time. The promise it breaks must be among those named; a fault
// may break others with it.
func TestEachBrokenPromiseIsNamed(t *testing.T) {
	for _, c := range []struct {
		fault, name string
		plant       func(*bad)
	}{
		{"nothing is written", "writable", func(b *bad) {
			b.OnPut = func(string) (bool, error) { return false, nil }
		}},
		{"full", "writable", func(b *bad) {
			b.OnPut = func(string) (bool, error) { return false, storage.ErrFull }
		}},
		{"condition ignored", "create-once", func(b *bad) {
			b.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
				if b.Bytes(key) != nil {
					return b.force(key, r, o)
				}
				return b.Mem.Put(ctx, key, r, o)
			}
		}},
		{"condition ignored for the same bytes", "create-once", func(b *bad) {
			b.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
				if had := b.Bytes(key); had != nil && sha256.Sum256(had) == o.SHA256 {
					return nil
				}
				return b.Mem.Put(ctx, key, r, o)
			}
		}},
		{"condition looked at before the bytes", "slow-against-fast", lateWriter},
		{"condition looked at before the bytes", "one-winner", lateWriter},
		{"digest not compared", "digest", func(b *bad) {
			b.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
				data, err := io.ReadAll(io.NewSectionReader(r, 0, o.Size))
				if err != nil {
					return err
				}
				o.SHA256 = sha256.Sum256(data)
				return b.Mem.Put(ctx, key, bytes.NewReader(data), o)
			}
		}},
		{"refused bytes are stored", "digest", func(b *bad) {
			b.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
				err := b.Mem.Put(ctx, key, r, o)
				if errors.Is(err, storage.ErrDigest) {
					return errors.Join(err, b.force(key, r, o))
				}
				return err
			}
		}},
		{"ranges ignored", "read-back", func(b *bad) {
			b.get = func(ctx context.Context, key, version string, _, _ int64) (io.ReadCloser, error) {
				return b.Mem.Get(ctx, key, version, 0, -1)
			}
		}},
		{"absent objects are empty", "read-back", func(b *bad) {
			b.get = func(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
				r, err := b.Mem.Get(ctx, key, version, offset, n)
				if errors.Is(err, storage.ErrNotFound) {
					return io.NopCloser(strings.NewReader("")), nil
				}
				return r, err
			}
		}},
		{"last key is not listed", "listing", func(b *bad) {
			b.changed(func(vs []storage.Version) []storage.Version { return vs[:max(0, len(vs)-1)] })
		}},
		{"keys are listed twice", "listing", func(b *bad) {
			b.changed(func(vs []storage.Version) []storage.Version {
				return append(vs[:len(vs):len(vs)], vs[max(0, len(vs)-1):]...)
			})
		}},
		{"listing is out of order", "listing", func(b *bad) {
			b.changed(func(vs []storage.Version) []storage.Version { slices.Reverse(vs); return vs })
		}},
		{"listing ignores where to go on", "listing", func(b *bad) {
			b.list = func(ctx context.Context, prefix, _ string) iter.Seq2[storage.Version, error] {
				return b.Mem.List(ctx, prefix, "")
			}
		}},
		{"everything is locked", "erase", func(b *bad) {
			b.erase = func(context.Context, string, string, string) error { return storage.ErrLocked }
		}},
		{"erased objects stay", "erase", func(b *bad) {
			b.erase = func(context.Context, string, string, string) error { return nil }
		}},
		{"locks do not hold", "lock", func(b *bad) {
			b.erase = func(ctx context.Context, key, version, why string) error {
				b.Unlock(key)
				return b.Mem.Erase(ctx, key, version, why)
			}
		}},
		{"lock is shortened", "lock", func(b *bad) {
			b.extend = func(ctx context.Context, key, version string, until time.Time) error {
				b.Unlock(key)
				return b.Mem.Extend(ctx, key, version, until)
			}
		}},
		{"lock is not extended", "lock", func(b *bad) {
			b.extend = func(context.Context, string, string, time.Time) error { return nil }
		}},
		{"no lock is set", "lock", func(b *bad) {
			b.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
				o.RetainUntil = time.Time{}
				return b.Mem.Put(ctx, key, r, o)
			}
		}},
		{"hold is not set", "hold", func(b *bad) {
			b.hold = func(context.Context, string, string, bool) error { return nil }
		}},
		{"a promise of its own", "space", func(b *bad) {
			b.probes = []storage.Probe{{Name: "space", Run: func(context.Context, string) storage.Outcome { return storage.Breaks("none") }}}
		}},
	} {
		t.Run(c.fault, func(t *testing.T) {
			report, _ := examine(t, c.plant)
			if got := named(report.Of(storage.Broken)); report.Good() || !slices.Contains(got, c.name) {
				t.Fatalf("got %v, want %s among them", got, c.name)
			}
			for _, r := range report.Of(storage.Broken) {
				t.Logf("%s: %v", r.Name, r.Seen)
			}
		})
	}
}

// lateWriter is how versitygw 1.7 and others answer two conditional writers.
func lateWriter(b *bad) {
	b.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
		if b.Bytes(key) != nil {
			return fmt.Errorf("put %s: %w", key, storage.ErrExists)
		}
		time.Sleep(time.Millisecond)
		return b.force(key, r, o)
	}
}

// TestWhatCannotBeToldIsNotGood lets the store be away, or never answer.
func TestWhatCannotBeToldIsNotGood(t *testing.T) {
	away := errors.New("connection refused")
	report, _ := examine(t, func(b *bad) {
		b.OnPut = func(string) (bool, error) { return false, away }
		b.probes = []storage.Probe{
			{Name: "space", Run: func(context.Context, string) storage.Outcome {
				t.Error("run although nothing can be written")
				return storage.Holds()
			}},
			{Name: "local-file-system", Passive: true, Run: func(context.Context, string) storage.Outcome { return storage.Holds() }},
		}
	})
	if report.Verdict() != storage.Untold || report.Good() || report.Skipped == 0 {
		t.Errorf("store away: got %+v", report)
	}
	if got := named(report.Results); !slices.Equal(got, []string{"writable", "local-file-system"}) {
		t.Errorf("got %v, want what can be asked without writing", got)
	}

	report, _ = examine(t, func(b *bad) {
		b.probes = []storage.Probe{
			{Name: "space", Run: func(context.Context, string) storage.Outcome { return storage.Outcome{} }},
			{Name: "folder-sync", Run: func(ctx context.Context, _ string) storage.Outcome {
				ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
				<-ctx.Done()
				return storage.Breaks("cut short: %w", ctx.Err())
			}},
		}
	})
	if got := named(report.Of(storage.Untold)); report.Good() || !slices.Equal(got, []string{"space", "folder-sync"}) {
		t.Errorf("got %v, want the probes that said nothing", got)
	}
	if (doctor.Report{}).Good() {
		t.Error("an examination of nothing is good")
	}
}

// TestRunsThatAreOverAreSweptAway: what a lock kept is erased by a later examination, and a run of now is let be.
func TestRunsThatAreOverAreSweptAway(t *testing.T) {
	const over, now, strange = "doctor/20261125t110000z-aaaaaaaa/lock/a", "doctor/20261125t115900z-aaaaaaaa/lock/a", "doctor/20261125t110000z-aaaaaaaa/Letter.pdf"
	_, mem := examine(t, func(b *bad) {
		for _, key := range []string{over, now, strange} {
			b.Plant(key, []byte("x"))
		}
	})
	keys := mem.Keys()
	if slices.Contains(keys, over) || !slices.Contains(keys, now) || !slices.Contains(keys, strange) {
		t.Errorf("got %v, want %s swept and the others there", keys, over)
	}
}

func TestProbesThatMustBeAloneAre(t *testing.T) {
	running := make(chan string, 10)
	probe := func(name string, alone bool) storage.Probe {
		return storage.Probe{Name: name, Alone: alone, Run: func(context.Context, string) storage.Outcome {
			running <- name
			if alone && len(running) != 3 {
				return storage.Breaks("%d ran before", len(running)-1)
			}
			return storage.Holds()
		}}
	}
	report, _ := examine(t, func(b *bad) {
		b.probes = []storage.Probe{probe("space", true), probe("folder-sync", false), probe("unnamed-files", false)}
	})
	if !report.Good() {
		t.Errorf("got %+v", report.Of(storage.Broken))
	}
}

func TestQuickExamination(t *testing.T) {
	b := &bad{Mem: storagetest.NewMem(t)}
	b.Lenient = true
	report := doctor.Examine(t.Context(), b, doctor.Options{Now: func() time.Time { return noon }, Quick: true})
	if got := named(report.Results); !report.Good() || !slices.Equal(got, []string{"writable", "create-once", "digest"}) {
		t.Errorf("got %v", got)
	}
	if len(b.Keys()) > 0 {
		t.Errorf("it left %v", b.Keys())
	}
}
