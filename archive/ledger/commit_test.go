package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// twoCommits returns a daemon with two commits, of two entries each, the same bytes whenever it is called.
func twoCommits(t testing.TB) (*daemon, *Log) {
	t.Helper()
	d := newDaemon(t, newBucket(t))
	d.change = func(c *Config) {
		c.Now = func() time.Time { return time.Date(2026, 3, 9, 10, 11, 12, 13e6, time.UTC) }
	}
	l := d.mustOpen()
	zero := int64(0)
	l.SetRider(func() *Entry {
		return &Entry{Type: TrustedHead, Commit: &zero, Previous: digest("x")}
	})
	mustAppend(t, l, "a", "b")
	return d, l
}

func TestKeysOfCommits(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want string
	}{
		{0, "p/ledger/0000000000000000/0000"},
		{9999, "p/ledger/0000000000000000/9999"},
		{10000, "p/ledger/0000000000000001/0000"},
		{1<<63 - 1, "p/ledger/0922337203685477/5807"},
	} {
		if got := Key("p", c.n); got != c.want {
			t.Errorf("Key(%d): got %s want %s", c.n, got, c.want)
		}
		if n, ok := ParseKey("p", c.want); !ok || n != c.n {
			t.Errorf("ParseKey(%s): got %d %v want %d", c.want, n, ok, c.n)
		}
	}
	for _, bad := range []string{"p/ledger/0000000000000000/000", "p/ledger/000000000000000/00000", "p/ledger/000000000000000x/0000", "q/ledger/0000000000000000/0000", "p/ledger/00000000000000000000/", "p/ledger/9999999999999999/9999", "p/ledger/-000000000000000/0001"} {
		if n, ok := ParseKey("p", bad); ok {
			t.Errorf("ParseKey(%s): got %d want none", bad, n)
		}
	}
}

func TestCommitsAreReadBack(t *testing.T) {
	d, _ := twoCommits(t)
	for _, want := range d.applied {
		b := d.store.Bytes(Key(producer, want.Number))
		got, err := ParseCommit(b, producer, d.known)
		if err != nil {
			t.Fatal(err)
		}
		if got.SHA256 != want.SHA256 || got.Size != want.Size || got.Root != want.Root || got.First != want.First || got.Previous != want.Previous || got.Origin != origin {
			t.Errorf("got %+v want %+v", got, want)
		}
		if len(got.Entries) != 2 || !bytes.Equal(got.Lines[1], want.Lines[1]) || !bytes.Equal(got.encode(), b) {
			t.Errorf("commit %d: entries or bytes differ", want.Number)
		}
	}
}

func TestEveryBitOfACommitCounts(t *testing.T) {
	d, _ := twoCommits(t)
	first, err := ParseCommit(d.store.Bytes(Key(producer, 0)), producer, d.known)
	if err != nil {
		t.Fatal(err)
	}
	ch, _, err := start().extend(first)
	if err != nil {
		t.Fatal(err)
	}
	good := d.store.Bytes(Key(producer, 1))
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		c, err := ParseCommit(bad, producer, d.known)
		if err == nil {
			_, _, err = ch.extend(c)
		}
		if !errors.Is(err, ErrCommit) {
			t.Fatalf("bit %d of byte %d flipped: got %v want ErrCommit", i%8, i/8, err)
		}
	}
	for i := range good {
		if _, err := ParseCommit(good[:i], producer, d.known); !errors.Is(err, ErrCommit) {
			t.Fatalf("cut to %d bytes: got %v want ErrCommit", i, err)
		}
	}
}

func TestCommitsOfOthersAreRefused(t *testing.T) {
	d, _ := twoCommits(t)
	b := d.store.Bytes(Key(producer, 0))
	other, otherKey := keys(t, 2)
	for name, c := range map[string]struct {
		bytes    []byte
		producer string
		known    note.Verifiers
	}{
		"another producer": {b, "c_x902", d.known},
		"unknown key":      {b, producer, note.VerifierList(otherKey)},
		"no key":           {b, producer, note.VerifierList()},
		"two signatures":   {append(bytes.Clone(b), signature(t, b, other)...), producer, note.VerifierList(d.verifier(t), otherKey)},
		"one unverified":   {append(bytes.Clone(b), signature(t, b, other)...), producer, d.known},
		"same twice":       {append(bytes.Clone(b), signature(t, b, d.signer)...), producer, d.known},
		"text behind":      {append(bytes.Clone(b), '\n'), producer, d.known},
		"CRLF":             {bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")), producer, d.known},
	} {
		if _, err := ParseCommit(c.bytes, c.producer, c.known); !errors.Is(err, ErrCommit) {
			t.Errorf("%s: got %v want ErrCommit", name, err)
		}
	}
}

func (d *daemon) verifier(t testing.TB) note.Verifier {
	_, v := keys(t, 1)
	return v
}

// signature returns one more signature line for the checkpoint of a commit.
func signature(t testing.TB, commit []byte, s note.Signer) []byte {
	t.Helper()
	c, err := splitCommit(commit, producer)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := bytes.Cut(c.Checkpoint, []byte("\n\n"))
	msg, err := note.Sign(&note.Note{Text: string(text) + "\n"}, s)
	if err != nil {
		t.Fatal(err)
	}
	return msg[bytes.LastIndex(msg, []byte("\n\n"))+2:]
}

func TestACheckpointHasOneSpelling(t *testing.T) {
	s, v := keys(t, 1)
	known := note.VerifierList(v)
	good, err := Checkpoint{origin, 3, tlog.RecordHash(nil)}.sign(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseCheckpoint(good, known); err != nil {
		t.Fatal(err)
	}
	resign := func(text string) []byte {
		msg, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, bad := range map[string][]byte{
		"extension line":   resign(origin + "\n3\n" + hash + "\nmore\n"),
		"size with zero":   resign(origin + "\n03\n" + hash + "\n"),
		"size with plus":   resign(origin + "\n+3\n" + hash + "\n"),
		"size negative":    resign(origin + "\n-3\n" + hash + "\n"),
		"root loose bits":  resign(origin + "\n3\n" + hash[:42] + "B=\n"),
		"root short":       resign(origin + "\n3\nAAAA\n"),
		"another origin":   resign("prova.example/c_x902\n3\n" + hash + "\n"),
		"signature spaced": []byte(strings.Replace(string(good), "— ", "—  ", 1)),
		"line in base64":   []byte(strings.TrimSuffix(string(good), "\n") + "\r\n"),
	} {
		if c, err := ParseCheckpoint(bad, known); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%s: got %+v, %v want ErrCheckpoint", name, c, err)
		}
	}
}

func TestVerifierKeysAreReadFromLines(t *testing.T) {
	_, one, err := noteKey("prova.example/c_x901")
	if err != nil {
		t.Fatal(err)
	}
	_, two, err := noteKey("prova.example/c_x902")
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseVerifiers([]byte("# keys\n" + one + "\n\n" + one + "\n" + two))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{one, two} {
		want, err := note.NewVerifier(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.Verifier(want.Name(), want.KeyHash()); err != nil || got.Name() != want.Name() {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	if _, err := ParseVerifiers([]byte("nonsense\n")); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v want an error that names line 1", err)
	}
}

func TestCommitsSignedByAnOlderKeyStayValid(t *testing.T) {
	d := newDaemon(t, newBucket(t))
	l := d.mustOpen()
	mustAppend(t, l, "a")
	l.Close()
	signer, verifier := keys(t, 2)
	d.signer, d.known = signer, note.VerifierList(d.verifier(t), verifier)
	l = d.mustOpen()
	mustAppend(t, l, "b")
	for i := range int64(2) {
		p, err := l.Proof(context.Background(), i)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseProof(p, d.known); err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	checkAll(t, d, 2)
}

func FuzzParseCommit(f *testing.F) {
	d, _ := twoCommits(f)
	first, err := ParseCommit(d.store.Bytes(Key(producer, 0)), producer, d.known)
	if err != nil {
		f.Fatal(err)
	}
	after, _, err := start().extend(first)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(first.Bytes)
	f.Add(d.store.Bytes(Key(producer, 1)))
	f.Add([]byte(commitMagic + producer + " 0 0 1\n" + strings.Repeat("0", 64) + "\n{}\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := splitCommit(b, producer); err == nil && !bytes.Equal(c.encode(), b) {
			t.Fatalf("%q is split but written otherwise", b)
		}
		c, err := ParseCommit(b, producer, d.known)
		if err != nil {
			return
		}
		for _, ch := range []chain{start(), after} {
			if _, _, err := ch.extend(c); err == nil && !bytes.Equal(b, d.store.Bytes(Key(producer, c.Number))) {
				t.Fatalf("a forged commit was accepted: %q", b)
			}
		}
	})
}
