package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func TestProofsStandAlone(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	var done []Committed
	for i := range 12 {
		done = append(done, together(t, l, names(fmt.Sprint("e", i, "-"), i+1)...)...)
	}
	for _, c := range done {
		text, err := l.Proof(context.Background(), c.Index)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParseProof(text, d.known)
		if err != nil {
			t.Fatal(err)
		}
		if p.Index != c.Index || !bytes.Equal(p.Line, c.Line) || p.Origin != origin || p.Entry.Type != PackageSealed {
			t.Errorf("entry %d: got %+v", c.Index, p)
		}
		// Another implementation of RFC 6962 must agree.
		path := pathOf(t, text)
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(p.Index), uint64(p.Size), rfc6962.DefaultHasher.HashLeaf(p.Line), path, p.Root[:]); err != nil {
			t.Errorf("entry %d of %d: %v", p.Index, p.Size, err)
		}
	}
}

// pathOf returns the hashes of a proof.
func pathOf(t *testing.T, text []byte) [][]byte {
	t.Helper()
	var path [][]byte
	head, _, _ := bytes.Cut(text, []byte("\n\n"))
	for _, line := range bytes.Split(head, []byte("\n"))[3:] {
		h, err := tlog.ParseHash(string(line))
		if err != nil {
			t.Fatal(err)
		}
		path = append(path, h[:])
	}
	return path
}

func TestAProofNeverChanges(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, "a", "b")
	before, err := l.Proof(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	together(t, l, names("n", 300)...)
	l.Close()
	d.forget()
	after, err := d.mustOpen().Proof(context.Background(), 1)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("got\n%s, %v want\n%s", after, err, before)
	}
}

func TestAProofInALaterCheckpoint(t *testing.T) {
	ctx := context.Background()
	d, l := twoCommits(t)
	text, err := l.ProofIn(ctx, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := ParseProof(text, d.known); err != nil || p.Index != 1 || p.Size != 4 {
		t.Errorf("got %+v, %v want entry 1 in the checkpoint of 4", p, err)
	}
	own, err := l.Proof(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := l.ProofIn(ctx, 1, 0); err != nil || !bytes.Equal(text, own) {
		t.Errorf("in its own commit: got\n%s, %v want\n%s", text, err, own)
	}
	for _, n := range []int64{0, 2} {
		if _, err := l.ProofIn(ctx, 2, n); !errors.Is(err, ErrRange) {
			t.Errorf("entry 2 in commit %d: got %v want ErrRange", n, err)
		}
	}
}

func TestEveryBitOfAProofCounts(t *testing.T) {
	d, l := twoCommits(t)
	good, err := l.Proof(context.Background(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseProof(good, d.known); err != nil {
		t.Fatal(err)
	}
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := ParseProof(bad, d.known); !errors.Is(err, ErrProof) {
			t.Fatalf("bit %d of byte %d flipped: got %v want ErrProof", i%8, i/8, err)
		}
	}
	for i := range good {
		if _, err := ParseProof(good[:i], d.known); !errors.Is(err, ErrProof) {
			t.Fatalf("cut to %d bytes: got %v want ErrProof", i, err)
		}
	}
	if _, err := ParseProof(good, note.VerifierList()); !errors.Is(err, ErrProof) {
		t.Errorf("without keys: got %v want ErrProof", err)
	}
	_, stranger := keys(t, 9)
	if _, err := ParseProof(good, note.VerifierList(stranger)); !errors.Is(err, ErrProof) {
		t.Errorf("with another key: got %v want ErrProof", err)
	}
}

func TestConsistencyOfEveryPairOfSizes(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, names("n", 20)...)
	roots := map[int64][]byte{}
	for _, c := range d.applied {
		roots[c.Size] = c.Root[:]
	}
	for size := int64(1); size <= 20; size++ {
		for old := int64(1); old <= size; old++ {
			p, err := l.Consistency(context.Background(), old, size)
			if err != nil {
				t.Fatalf("%d, %d: %v", old, size, err)
			}
			var path [][]byte
			for _, h := range p {
				path = append(path, h[:])
			}
			if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old), uint64(size), path, roots[old], roots[size]); err != nil {
				t.Errorf("%d, %d: %v", old, size, err)
			}
		}
	}
	for _, c := range [][2]int64{{-1, 3}, {4, 3}, {3, 21}} {
		if _, err := l.Consistency(context.Background(), c[0], c[1]); !errors.Is(err, ErrRange) {
			t.Errorf("%v: got %v want ErrRange", c, err)
		}
	}
}

func TestWhatIsNotThereIsOutOfRange(t *testing.T) {
	ctx := context.Background()
	_, l := twoCommits(t)
	for _, i := range []int64{-1, 4, 1 << 60} {
		_, e1 := l.Proof(ctx, i)
		_, e2 := l.Entry(ctx, i)
		_, e3 := l.Commit(ctx, i)
		_, e4 := l.CommitOf(i)
		_, e5 := l.EntryBundle(ctx, i, 1)
		for n, err := range []error{e1, e2, e3, e4, e5} {
			if !errors.Is(err, ErrRange) {
				t.Errorf("%d, call %d: got %v want ErrRange", i, n, err)
			}
		}
	}
}

func FuzzParseProof(f *testing.F) {
	d, l := twoCommits(f)
	var lines [][]byte
	for i := range int64(4) {
		text, err := l.Proof(context.Background(), i)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		e, err := l.Entry(context.Background(), i)
		if err != nil {
			f.Fatal(err)
		}
		lines = append(lines, e.Line)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParseProof(text, d.known)
		if err != nil {
			return
		}
		if p.Index >= int64(len(lines)) || !bytes.Equal(p.Line, lines[p.Index]) {
			t.Fatalf("a forged proof was accepted: %q", text)
		}
	})
}

func BenchmarkParseProof(b *testing.B) {
	d := newDaemon(b, newBucket(b))
	l := d.mustOpen()
	together(b, l, names("n", 2000)...)
	text, err := l.Proof(context.Background(), 1999)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ParseProof(text, d.known); err != nil {
			b.Fatal(err)
		}
	}
}
