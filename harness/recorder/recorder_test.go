package recorder_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/marchesud/perenne/harness/recorder"
)

// A file that was synced is on every image since; one that was not is missing from some.
func TestWhatWasSyncedStays(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it takes root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	ctx := t.Context()
	r, err := recorder.Open(ctx, t.TempDir(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := r.Begin(ctx); err != nil {
		t.Fatal(err)
	}
	// Another process writes: this one must not wait for itself.
	write := func(name string, sync bool) {
		script := fmt.Sprintf("dd if=/dev/urandom of=%s bs=4k count=4 status=none", filepath.Join(r.Mount, name))
		if sync {
			script += fmt.Sprintf(" conv=fsync && sync %s", r.Mount)
		}
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	write("synced", true)
	from := r.Pos()
	write("not", false)
	write("other", true) // the journal's order may bring the one before along, or not its bytes
	if writes, flushes := r.Counts(); writes == 0 || flushes == 0 {
		t.Fatalf("got %d writes and %d flushes", writes, flushes)
	}
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 12 {
		k, kind := from+random.IntN(r.Pos()-from+1), recorder.Kinds[i%3]
		im, err := r.Image(ctx, t.TempDir(), k, kind, random)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(im.Mount, "synced")); err != nil || info.Size() != 16<<10 {
			t.Errorf("%s at %d: %v", kind, k, err)
		}
		if err := im.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
