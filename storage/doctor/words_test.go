package doctor

import (
	"context"
	"reflect"
	"testing"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
	"github.com/marchesud/perenne/storage/storagetest"
)

// TestEveryProbeHasWords holds words.go to the probes there are, in both languages.
func TestEveryProbeHasWords(t *testing.T) {
	e := &examination{store: storagetest.NewMem(t)}
	probes := append([]storage.Probe{{Name: "writable"}}, e.general()...)
	embedded, err := dir.Open(t.TempDir(), dir.Options{Immutable: dir.Off})
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	probes = append(probes, embedded.Probes()...)
	o := s3test.StartLiar(t, s3test.Flaws{}).Options()
	o.SSE = "s3" // has a probe of its own
	bucket, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	probes = append(probes, bucket.Probes()...)
	probes = append(probes, storage.Probe{Name: unheld(t)})
	known := map[string]bool{}
	for _, p := range probes {
		known[p.Name] = true
		w := Result{Name: p.Name}.Words()
		for _, text := range []Text{w.Promise, w.Meaning, w.Remedy} {
			if text.IT == "" || text.EN == "" {
				t.Errorf("%s: a text is missing: %+v", p.Name, w)
			}
		}
		if (w.Note.IT == "") != (w.Note.EN == "") {
			t.Errorf("%s: the note stands in one language", p.Name)
		}
		if !storage.ProbeKey("doctor/" + "20261125t120000z-aaaaaaaa/" + p.Name + "/a") {
			t.Errorf("%s: its keys are no probe keys", p.Name)
		}
	}
	for name := range words {
		if !known[name] {
			t.Errorf("%s: words for no probe", name)
		}
	}
	if !reflect.DeepEqual(Result{Name: "nobody's"}.Words(), Words{}) {
		t.Error("words for a name that there is not")
	}
}

// unheld is the name of what is found of the durability of a store that no spool stands in front of.
func unheld(t *testing.T) string {
	e := &examination{options: Options{Unheld: true}}
	run := func(context.Context, string) storage.Outcome { return storage.Notes("it never syncs") }
	return e.perform(t.Context(), storage.Probe{Name: "durability", Passive: true, Run: run}).Name
}
