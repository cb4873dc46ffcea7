package paper_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive/paper"
)

func FuzzParseReceipt(f *testing.F) {
	r, trust := forge(f, exampleBody(f), noon, noon)
	f.Add(marshalled(f, r))
	f.Add([]byte(`{"body":{},"evidence":{"seal":"pending"},"proof":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := paper.ParseReceipt(data)
		if err != nil {
			return
		}
		if again, err := got.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, writes %q (%v)", data, again, err)
		}
		res, _ := got.Check(trust, paper.Italian)
		if res.Verdict() == paper.Good && !bytes.Equal(data, marshalled(t, r)) {
			t.Errorf("a receipt that nobody issued is good: %q", data)
		}
	})
}

// FuzzVerify gives Verify whatever bytes, and papers in which some bytes were exchanged for others; each alone and
// beside a paper it may belong to. It answers, soon, and finds nothing good that was not issued.
func FuzzVerify(f *testing.F) {
	p := issue(f)
	good := [][]byte{{}, p.pack, p.copied, p.report, p.record, p.refusalsErs}
	for _, r := range []*paper.Receipt{p.receipt, p.refusal} {
		xml, err := r.Body.XML()
		must(f, err)
		good = append(good, marshalled(f, r), xml)
	}
	for which := range good {
		f.Add(byte(which), uint32(0), uint16(0), []byte{})
		f.Add(byte(which), uint32(200), uint16(1), []byte{'x'})
	}
	for _, data := range [][]byte{[]byte("{"), []byte("<"), []byte("PK\x03\x04"), {0x30, 0x80}, bytes.Repeat([]byte{0x30, 0x80}, 1000), bytes.Repeat([]byte("["), 1000)} {
		f.Add(byte(0), uint32(0), uint16(0), data)
	}
	receipt := file("r.json", marshalled(f, p.receipt))
	f.Fuzz(func(t *testing.T, which byte, at uint32, drop uint16, insert []byte) {
		// The papers of each fuzzing process are its own, so the input says what to change in them.
		base := good[int(which)%len(good)]
		from := int(at) % (len(base) + 1)
		data := slices.Concat(base[:from], insert, base[min(from+int(drop), len(base)):])

		start := clock()
		alone := paper.Verify(ctx, p.trust, paper.English, []paper.File{file("x", data)})[0]
		beside := paper.Verify(ctx, p.trust, paper.Italian, []paper.File{file("x", data), receipt})[0]
		none := verified(paper.Trust{}, data)
		if took := clock().Sub(start); took > 10*time.Second {
			t.Errorf("three verifications of %d bytes took %v", len(data), took)
		}
		if none.Verdict() == paper.Good {
			t.Errorf("good under no trust: %+v", none)
		}
		if slices.ContainsFunc(good, func(g []byte) bool { return bytes.Equal(g, data) }) {
			return
		}
		if alone.Verdict() == paper.Good || beside.Verdict() == paper.Good {
			t.Errorf("good, yet nobody issued it: %+v %+v", alone, beside)
		}
	})
}

func clock() time.Time { return time.Now() }
