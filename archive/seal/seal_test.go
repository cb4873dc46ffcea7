package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/signing/evidence"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/storagetest"
)

var ctx = context.Background()

// golden is a seal as it must be written for ever.
const golden = `perenne seal v1
12
1111111111111111111111111111111111111111111111111111111111111111
2222222222222222222222222222222222222222222222222222222222222222
3333333333333333333333333333333333333333333333333333333333333333 7
c_x901 4 9 2 3 4444444444444444444444444444444444444444444444444444444444444444
ucolli_x902 0 1 0 0 5555555555555555555555555555555555555555555555555555555555555555

bWFyY2E=
`

func filled(b byte) (d [32]byte) {
	for i := range d {
		d[i] = b
	}
	return d
}

func TestTheFormIsFrozen(t *testing.T) {
	s := &Seal{
		Number: 12, Previous: filled(0x11), PreviousToken: filled(0x22), Root: filled(0x33), Leaves: 7,
		Ranges: []Range{
			{Producer: "c_x901", First: 4, End: 9, FirstCommit: 2, LastCommit: 3, Checkpoint: filled(0x44)},
			{Producer: "ucolli_x902", First: 0, End: 1, Checkpoint: filled(0x55)},
		},
		Token: []byte("marca"),
	}
	if got := string(s.Marshal()); got != golden {
		t.Errorf("got\n%s\nwant\n%s", got, golden)
	}
	parsed, err := Parse([]byte(golden))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(parsed.Marshal()); got != golden {
		t.Errorf("read and written: got\n%s", got)
	}
	if r, ok := parsed.Range("ucolli_x902"); !ok || r != s.Ranges[1] {
		t.Errorf("range: got %+v, %v", r, ok)
	}
	if _, ok := parsed.Range("c_x9"); ok {
		t.Error("a range of a producer that the seal does not cover")
	}
	if got, want := Key(12), "evidence/0000000000000000/0012"; got != want {
		t.Errorf("key: got %s, want %s", got, want)
	}
	if got, want := Key(10000), "evidence/0000000000000001/0000"; got != want {
		t.Errorf("key: got %s, want %s", got, want)
	}
}

func TestOtherFormsAreNone(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"empty":                     func(string) string { return "" },
		"version":                   replace("seal v1", "seal v2"),
		"negative number":           replace("\n12\n", "\n-12\n"),
		"number with a zero":        replace("\n12\n", "\n012\n"),
		"capital digest":            replace("3333 7", "333A 7"),
		"short digest":              replace("1111\n2", "111\n2"),
		"no leaves":                 replace("3333 7", "3333 0"),
		"negative leaves":           replace("3333 7", "3333 -7"),
		"leaves missing":            replace("3333 7", "3333"),
		"range too short":           replace("4 9 2 3 ", "4 9 2 "),
		"range empty":               replace("4 9 2 3", "4 4 2 3"),
		"range backwards":           replace("4 9 2 3", "4 9 3 2"),
		"range negative":            replace("0 1 0 0", "-1 1 0 0"),
		"producers out of order":    replace("ucolli_x902", "a_x902"),
		"producer twice":            replace("ucolli_x902", "c_x901"),
		"no ranges":                 func(s string) string { return s[:strings.Index(s, "c_x901")] + s[strings.Index(s, "\n\n")+1:] },
		"token not base64":          replace("bWFyY2E=", "bWFyY2E"),
		"token with loose bits":     replace("bWFyY2E=", "bWFyY2F="),
		"token in two lines":        replace("bWFyY2E=", "bWFy\nY2E="),
		"end missing":               func(s string) string { return strings.TrimSuffix(s, "\n") },
		"newline after":             func(s string) string { return s + "\n" },
		"carriage returns":          func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"two spaces":                replace("4 9 2 3", "4  9 2 3"),
		"first with a previous":     replace("\n12\n", "\n0\n"),
		"number beyond 64 bits":     replace("\n12\n", "\n99999999999999999999\n"),
		"void number further off":   replace("c_x901", voidGolden(10)+"c_x901"),
		"void numbers with a gap":   replace("c_x901", voidGolden(9)+voidGolden(11)+"c_x901"),
		"void numbers backwards":    replace("c_x901", voidGolden(11)+voidGolden(10)+"c_x901"),
		"its own number void":       replace("c_x901", voidGolden(12)+"c_x901"),
		"void number misspelled":    replace("c_x901", "voiD"+voidGolden(11)[4:]+"c_x901"),
		"void number of no digest":  replace("c_x901", "void 11 abc\nc_x901"),
		"void number behind ranges": replace("\n\n", "\n"+voidGolden(11)+"\n"),
		"larger than a seal may be": func(s string) string { return s + strings.Repeat("x", maxSeal) },
	} {
		if s, err := Parse([]byte(change(golden))); !errors.Is(err, ErrForm) {
			t.Errorf("%s: got %+v, %v, want ErrForm", name, s, err)
		}
	}
}

func replace(a, b string) func(string) string {
	return func(s string) string { return strings.Replace(s, a, b, 1) }
}

func voidGolden(n int64) string { return Void{n, filled(0x44)}.line() + "\n" }

// TestVoidNumbersStandBeforeTheRanges spells a seal behind two void numbers, and one that calls number 0 void.
func TestVoidNumbersStandBeforeTheRanges(t *testing.T) {
	text := replace("c_x901", voidGolden(10)+voidGolden(11)+"c_x901")(golden)
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if s.After() != 9 || len(s.VoidLeaves()) != 2 || string(s.Marshal()) != text {
		t.Errorf("got %+v", s)
	}
	if s.VoidLeaves()[0] != sha256.Sum256([]byte("void 10 "+strings.Repeat("44", 32))) {
		t.Error("the leaf of a void number is another")
	}
	if s, err := Parse([]byte(strings.Replace(replace("c_x901", voidGolden(0)+"c_x901")(golden), "\n12\n", "\n1\n", 1))); !errors.Is(err, ErrForm) {
		t.Errorf("number 0 void: got %+v, %v", s, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(strings.Replace(golden, "c_x901", voidGolden(11)+"c_x901", 1)))
	f.Add([]byte(golden))
	f.Add([]byte(strings.Replace(golden, "12", "0", 1)))
	f.Add([]byte("perenne seal v1\n\n\n\n\n\n\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrForm) {
				t.Errorf("got %v, want ErrForm", err)
			}
			return
		}
		if !bytes.Equal(s.Marshal(), data) {
			t.Error("two byte strings are one seal")
		}
	})
}

func FuzzIndexLine(f *testing.F) {
	f.Add(strings.TrimSuffix(line(Head{Number: 3, Size: 900}, []Range{{Producer: "c_x901", End: 9}}), "\n"))
	f.Fuzz(func(t *testing.T, text string) {
		if h, ranges, err := parseLine(text); err == nil && line(h, ranges) != text+"\n" {
			t.Error("two lines are one seal")
		}
	})
}

// commits are three commits of one ledger, of which the last two are sealed.
func commits() map[int64]*ledger.Commit {
	object := func(kind ledger.Type, b byte) ledger.Entry {
		sum := filled(b)
		return ledger.Entry{Type: kind, SHA256: hex.EncodeToString(sum[:])}
	}
	return map[int64]*ledger.Commit{
		0: {Number: 0, First: 0, Entries: []ledger.Entry{{Type: ledger.KeyAdded}}, Checkpoint: []byte("zero")},
		1: {Number: 1, First: 1, Entries: []ledger.Entry{object(ledger.PackageSealed, 9), object(ledger.SubmissionRefused, 8)}, Checkpoint: []byte("uno")},
		2: {Number: 2, First: 3, Entries: []ledger.Entry{object(ledger.CopyIssued, 7), object(ledger.ReportIssued, 9)}, Checkpoint: []byte("due")},
	}
}

func read(c map[int64]*ledger.Commit) Commits {
	return func(_ context.Context, _ string, n int64) (*ledger.Commit, error) {
		if n > 2 {
			return nil, ledger.ErrRange
		}
		if c[n] == nil {
			return nil, storage.ErrNotFound
		}
		return c[n], nil
	}
}

func sealed() *Seal {
	return &Seal{Number: 1, PreviousToken: filled(1), Ranges: []Range{{Producer: "c_x901", First: 1, End: 5, FirstCommit: 1, LastCommit: 2, Checkpoint: sha256.Sum256([]byte("due"))}}}
}

// TestTheLeavesAreThoseOfTheSpecification computes the root by hand: previous token, the digests of packages,
// reports and copies once each, and the last checkpoint; sorted, in pairs, the odd one carried up.
func TestTheLeavesAreThoseOfTheSpecification(t *testing.T) {
	tree, err := sealed().Tree(ctx, read(commits()))
	if err != nil {
		t.Fatal(err)
	}
	leaves := [][32]byte{filled(1), filled(7), filled(9), sha256.Sum256([]byte("due"))}
	slices.SortFunc(leaves, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	pair := func(a, b [32]byte) [32]byte {
		if bytes.Compare(a[:], b[:]) > 0 {
			a, b = b, a
		}
		return sha256.Sum256(append(a[:], b[:]...))
	}
	want := pair(pair(leaves[0], leaves[1]), pair(leaves[2], leaves[3]))
	if got, err := tree.Root(); err != nil || got != want || tree.Len() != 4 {
		t.Errorf("got root %x of %d leaves, %v, want %x of 4", got, tree.Len(), err, want)
	}
}

func TestASealThatDoesNotFitItsCommitsHasNoTree(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Seal, map[int64]*ledger.Commit)
		unread bool
	}{
		"begins within a commit": {func(s *Seal, _ map[int64]*ledger.Commit) { s.Ranges[0].First = 2 }, false},
		"ends within a commit":   {func(s *Seal, _ map[int64]*ledger.Commit) { s.Ranges[0].End = 4 }, false},
		"ends beyond":            {func(s *Seal, _ map[int64]*ledger.Commit) { s.Ranges[0].End = 6 }, false},
		"other checkpoint":       {func(s *Seal, _ map[int64]*ledger.Commit) { s.Ranges[0].Checkpoint = filled(0) }, false},
		"gap between commits":    {func(_ *Seal, c map[int64]*ledger.Commit) { c[2].First = 4 }, false},
		"digest that is none":    {func(_ *Seal, c map[int64]*ledger.Commit) { c[2].Entries[0].SHA256 = "x" }, false},
		"beyond the ledger":      {func(s *Seal, _ map[int64]*ledger.Commit) { s.Ranges[0].LastCommit, s.Ranges[0].End = 3, 9 }, false},
		"commit missing":         {func(_ *Seal, c map[int64]*ledger.Commit) { delete(c, 2) }, true},
		"missing, and other that does not fit": {func(s *Seal, c map[int64]*ledger.Commit) {
			delete(c, 2)
			s.Ranges = append(s.Ranges, Range{Producer: "ucolli_x902", First: 0, End: 2, FirstCommit: 0, LastCommit: 0})
		}, false},
	} {
		s, list := sealed(), commits()
		c.change(s, list)
		_, err := s.Tree(ctx, read(list))
		if err == nil || errors.Is(err, ErrUnread) != c.unread {
			t.Errorf("%s: got %v, want an error, ErrUnread: %v", name, err, c.unread)
		}
	}
}

// TestCollectGivesWhatLiesBeforeADamagedCommit reads a ledger whose last commit is missing.
func TestCollectGivesWhatLiesBeforeADamagedCommit(t *testing.T) {
	list := commits()
	delete(list, 2)
	r, leaves, err := Collect(ctx, "c_x901", 1, 1, 2, read(list))
	want := Range{Producer: "c_x901", First: 1, End: 3, FirstCommit: 1, LastCommit: 1, Checkpoint: sha256.Sum256([]byte("uno"))}
	if r != want || !slices.Equal(leaves, [][32]byte{filled(9), want.Checkpoint}) || !errors.Is(err, ErrUnread) {
		t.Errorf("got %+v, %d leaves, %v, want %+v and two", r, len(leaves), err, want)
	}
	delete(list, 1)
	if r, leaves, err := Collect(ctx, "c_x901", 1, 1, 2, read(list)); r.End != r.First || leaves != nil || !errors.Is(err, ErrUnread) {
		t.Errorf("nothing readable: got %+v, %d leaves, %v", r, len(leaves), err)
	}
}

// chain puts n seals into a store, each over one entry of one of two producers.
func chain(t *testing.T, m *storagetest.Mem, n int) []*Seal {
	t.Helper()
	var list []*Seal
	var previous, token [32]byte
	for i := range n {
		at := int64(i / 2)
		s := &Seal{
			Number: int64(i), Previous: previous, PreviousToken: token, Leaves: 2, Token: fmt.Appendf(nil, "marca %d", i),
			Ranges: []Range{{Producer: []string{"c_x901", "ucolli_x902"}[i%2], First: 10 * at, End: 10*at + 10, FirstCommit: at, LastCommit: at}},
		}
		data := s.Marshal()
		o := storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data), RetainUntil: time.Unix(1<<40, 0)}
		if err := m.Put(ctx, Key(s.Number), bytes.NewReader(data), o); err != nil {
			t.Fatal(err)
		}
		previous, token = sha256.Sum256(data), sha256.Sum256(s.Token)
		list = append(list, s)
	}
	return list
}

// openRead opens an index that believes every seal of the right form, and reads the bucket.
func openRead(m *storagetest.Mem, path string) (*Index, error) {
	x, err := OpenIndex(m, path, func(context.Context, *Seal) error { return nil })
	if err != nil {
		return nil, err
	}
	if err := x.Refresh(ctx); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

func mustOpen(t *testing.T, m *storagetest.Mem, path string) *Index {
	t.Helper()
	x, err := openRead(m, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return x
}

func TestTheIndexFindsTheSealOfAnEntry(t *testing.T) {
	m := storagetest.NewMem(t)
	chain(t, m, 6)
	x := mustOpen(t, m, filepath.Join(t.TempDir(), "seals"))
	for _, c := range []struct {
		producer string
		entry    int64
		seal     int64
		ok       bool
	}{
		{"c_x901", 0, 0, true},
		{"c_x901", 9, 0, true},
		{"c_x901", 10, 2, true},
		{"c_x901", 29, 4, true},
		{"c_x901", 30, 0, false},
		{"ucolli_x902", 0, 1, true},
		{"ucolli_x902", 29, 5, true},
		{"altro", 0, 0, false},
	} {
		if n, ok := x.Of(c.producer, c.entry); n != c.seal || ok != c.ok {
			t.Errorf("%s entry %d: got seal %d, %v, want %d, %v", c.producer, c.entry, n, ok, c.seal, c.ok)
		}
	}
	if x.Head().Number != 5 || x.End("c_x901") != 30 || x.End("altro") != 0 {
		t.Errorf("got head %d, end %d", x.Head().Number, x.End("c_x901"))
	}
}

func TestADamagedIndexFileIsMadeAgain(t *testing.T) {
	m := storagetest.NewMem(t)
	chain(t, m, 6)
	path := filepath.Join(t.TempDir(), "seals")
	want := mustOpen(t, m, path).Head()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data    []byte
		doubted bool // the machine cannot tell any more how many seals there were
	}{
		"flip":           {flip(whole, len(whole)/2), true},
		"flip first":     {flip(whole, 0), true},
		"line lost":      {whole[bytes.IndexByte(whole, '\n')+1:], true},
		"lines twice":    {append(bytes.Clone(whole), whole...), true},
		"rubbish":        {[]byte("non è un indice"), true},
		"rubbish behind": {append(bytes.Clone(whole), "non è un indice"...), true},
		"empty":          {[]byte{}, false},
		"torn":           {whole[:len(whole)-20], false},
		"no newline":     {whole[:len(whole)-1], false},
		"number torn":    {whole[:bytes.LastIndexByte(whole[:len(whole)-1], '\n')+2], false},
		"never written":  {append(bytes.Clone(whole[:bytes.LastIndexByte(whole[:len(whole)-1], '\n')+1]), make([]byte, 100)...), false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "seals")
			if err := os.WriteFile(path, c.data, 0o644); err != nil {
				t.Fatal(err)
			}
			for range 2 { // and what was made is good for the next start, which doubts the same
				x, err := openRead(m, path)
				if err != nil {
					t.Fatal(err)
				}
				if got := x.Head(); got != want {
					t.Errorf("got head %+v, want %+v", got, want)
				}
				if n, ok := x.Of("ucolli_x902", 29); n != 5 || !ok {
					t.Errorf("got seal %d, %v, want 5", n, ok)
				}
				if got := x.Doubted(); (got != "") != c.doubted {
					t.Errorf("doubted: got %q, want %v", got, c.doubted)
				}
				if err := x.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, whole) {
				t.Errorf("the file is not as it was: %v\n%q", err, got)
			}
			if kept, err := os.ReadFile(path + ".damaged"); c.doubted && !bytes.Equal(kept, c.data) {
				t.Errorf("the damaged file was not kept: %v", err)
			}
		})
	}
}

// TestASecondDamagedFileIsKeptBesideTheFirst damages the index twice.
func TestASecondDamagedFileIsKeptBesideTheFirst(t *testing.T) {
	m := storagetest.NewMem(t)
	chain(t, m, 2)
	path := filepath.Join(t.TempDir(), "seals")
	for _, name := range []string{"seals.damaged", "seals.damaged.2"} {
		if err := os.WriteFile(path, []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		mustOpen(t, m, path)
		if got, err := os.ReadFile(filepath.Join(filepath.Dir(path), name)); string(got) != name+"\n" {
			t.Errorf("got %q, %v, want %s kept", got, err, name)
		}
	}
}

// TestATornLineWhoseSealIsGoneIsDoubt cuts the line of the newest seal and deletes the seal.
func TestATornLineWhoseSealIsGoneIsDoubt(t *testing.T) {
	m := storagetest.NewMem(t)
	chain(t, m, 4)
	path := filepath.Join(t.TempDir(), "seals")
	mustOpen(t, m, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-9], 0o644); err != nil {
		t.Fatal(err)
	}
	m.Delete(Key(3))
	for range 2 {
		if x := mustOpen(t, m, path); x.Doubted() == "" || x.Head().Number != 2 {
			t.Errorf("got head %d and no doubt, want 2 and a doubt", x.Head().Number)
		}
	}
}

// TestALineThatCannotBeWrittenIsNotNoted closes the file behind the index, as a failing disk would.
func TestALineThatCannotBeWrittenIsNotNoted(t *testing.T) {
	m := storagetest.NewMem(t)
	chain(t, m, 2)
	x := mustOpen(t, m, filepath.Join(t.TempDir(), "seals"))
	s, object, err := Read(ctx, m, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	next := &Seal{
		Number: 2, Previous: sha256.Sum256(object), PreviousToken: sha256.Sum256(s.Token), Leaves: 1, Token: []byte("x"),
		Ranges: []Range{{Producer: "c_x901", First: 10, End: 11, FirstCommit: 1, LastCommit: 1}},
	}
	changed := x.Changed()
	if err := x.file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.Add(next, next.Marshal()); err == nil {
		t.Error("a line that was not written is relied upon")
	}
	select {
	case <-changed:
		t.Error("somebody was told of it")
	default:
	}
	if got := x.Head().Number; got != 1 {
		t.Errorf("got head %d, want 1", got)
	}
}

func TestChangedTellsOfEverySeal(t *testing.T) {
	m := storagetest.NewMem(t)
	x := mustOpen(t, m, filepath.Join(t.TempDir(), "seals"))
	changed := x.Changed()
	chain(t, m, 2)
	if err := x.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("seals of another daemon were noted and nobody was told")
	}
}

// TestKeptLeavesAreHeldAgainstTheRoot keeps leaves of several seals, also wrong ones.
func TestKeptLeavesAreHeldAgainstTheRoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seals")
	m := storagetest.NewMem(t)
	x := mustOpen(t, m, path)
	seals := map[int64]*Seal{}
	for _, n := range []int64{0, 7, 3} { // in any order, with gaps
		leaves := Sorted([][32]byte{filled(byte(n)), filled(byte(n) + 1), filled(byte(n) + 1)})
		root, err := evidence.Root(leaves)
		if err != nil {
			t.Fatal(err)
		}
		seals[n] = &Seal{Number: n, Root: root, Leaves: 2}
		if err := x.Keep(n, leaves); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Keep(5, [][32]byte{filled(9), filled(10)}); err != nil {
		t.Fatal(err)
	}
	seals[5] = &Seal{Number: 5, Root: filled(1), Leaves: 2}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = mustOpen(t, m, path)
	for n, s := range seals {
		tree := x.Kept(s)
		if (tree != nil) != (n != 5) {
			t.Errorf("seal %d: got tree %v", n, tree)
		}
	}
	for _, s := range []*Seal{{Number: 4, Leaves: 2}, {Number: 99, Leaves: 2}, {Number: 7, Root: seals[7].Root, Leaves: 1}, {Number: 1 << 60, Leaves: 1 << 60}} {
		if x.Kept(s) != nil {
			t.Errorf("got a tree for seal %d of %d leaves", s.Number, s.Leaves)
		}
	}
}

func flip(data []byte, at int) []byte {
	b := bytes.Clone(data)
	b[at] ^= 1
	return b
}

func TestTheIndexRemembersSealsThatAreGone(t *testing.T) {
	m := storagetest.NewMem(t)
	chain(t, m, 4)
	path := filepath.Join(t.TempDir(), "seals")
	mustOpen(t, m, path)
	m.Delete(Key(3))
	if got := mustOpen(t, m, path).Head().Number; got != 3 {
		t.Errorf("got head %d, want 3: it was there", got)
	}
}

func TestASealOfAnotherHistoryIsNotTaken(t *testing.T) {
	m := storagetest.NewMem(t)
	list := chain(t, m, 2)
	x := mustOpen(t, m, filepath.Join(t.TempDir(), "seals"))
	next := *list[1]
	next.Number, next.Previous, next.PreviousToken = 2, filled(9), filled(9)
	if err := x.Add(&next, next.Marshal()); err == nil {
		t.Error("a seal that names another before it was taken")
	}
	if got := x.Head().Number; got != 1 {
		t.Errorf("got head %d, want 1", got)
	}
}

func TestASealUnderAnotherKeyIsNone(t *testing.T) {
	m := storagetest.NewMem(t)
	chain(t, m, 3)
	m.Swap(Key(1), Key(2))
	if _, _, err := Read(ctx, m, 1, nil); !errors.Is(err, ErrForm) {
		t.Errorf("got %v, want ErrForm", err)
	}
	if _, _, err := Read(ctx, m, 9, nil); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("got %v, want not found", err)
	}
}

// TestVoidNumbersAreRemembered reads a chain with two void numbers, cuts the mark at every byte, and reads it again.
func TestVoidNumbersAreRemembered(t *testing.T) {
	m := storagetest.NewMem(t)
	list := chain(t, m, 2)
	for n := range int64(2) {
		m.Plant(Key(2+n), fmt.Appendf(nil, "altro %d", n))
	}
	s := &Seal{
		Number: 4, Previous: sha256.Sum256(list[1].Marshal()), PreviousToken: sha256.Sum256(list[1].Token), Leaves: 3, Token: []byte("marca"),
		Ranges: []Range{{Producer: "c_x901", First: 10, End: 20, FirstCommit: 1, LastCommit: 1}},
	}
	for n := range int64(2) {
		s.Voids = append(s.Voids, Void{2 + n, sha256.Sum256(fmt.Appendf(nil, "altro %d", n))})
	}
	m.Plant(Key(4), s.Marshal())
	path := filepath.Join(t.TempDir(), "seals")
	x := mustOpen(t, m, path)
	if n, ok := x.Of("c_x901", 15); !ok || n != 4 || x.Head().Number != 4 {
		t.Fatalf("got seal %d, %v, head %d", n, ok, x.Head().Number)
	}
	if sum, ok := x.Noted(3); !ok || sum != s.Voids[1].SHA256 {
		t.Errorf("void number 3: got %x, %v", sum, ok)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(path, whole[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		x, err := openRead(m, path)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if x.Head().Number != 4 || x.Doubted() != "" {
			t.Fatalf("cut at %d: head %d, doubt %q", cut, x.Head().Number, x.Doubted())
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, whole) {
			t.Fatalf("cut at %d: the mark is another", cut)
		}
	}
}

// asked is a store that counts what it is asked.
type asked struct {
	*storagetest.Mem
	n int
}

func (a *asked) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	a.n++
	return a.Mem.Get(ctx, key, version, offset, n)
}

func (a *asked) Stat(ctx context.Context, key string) (storage.Object, error) {
	a.n++
	return a.Mem.Stat(ctx, key)
}

func (a *asked) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
	a.n++
	return a.Mem.List(ctx, prefix, after)
}

// TestALostSealCostsFewRequests looks for the seal behind void numbers where there are none, but a seal that is gone, or
// changed, before a long chain; where all numbers but the first are gone; and where a seal that nobody may rest on, under a
// void number, must not end the search.
func TestALostSealCostsFewRequests(t *testing.T) {
	s := &asked{Mem: storagetest.NewMem(t)}
	list := chain(t, s.Mem, 600)
	no := func(*Seal, []byte) error { return errors.New("no") }
	yes := func(*Seal, []byte) error { return nil }
	good := func(*Seal) bool { return true }
	for _, c := range []struct {
		name string
		lose func()
	}{
		{"gone", func() { s.Delete(Key(5)) }},
		{"changed", func() { s.Plant(Key(5), []byte("x")) }},
	} {
		c.lose()
		s.n = 0
		if _, _, err := Behind(ctx, s, 5, no, good); !errors.Is(err, storage.ErrNotFound) || s.n > 4 {
			t.Errorf("%s: %v after %d requests, want not found after 4 at most", c.name, err, s.n)
		}
	}
	v := &Seal{
		Number: 100, Previous: sha256.Sum256(list[4].Marshal()), PreviousToken: sha256.Sum256(list[4].Token), Leaves: 3, Token: []byte("marca"),
		Ranges: []Range{{Producer: "c_x901", First: 30, End: 40, FirstCommit: 3, LastCommit: 3}},
	}
	for n := int64(5); n < 100; n++ {
		v.Voids = append(v.Voids, Void{n, filled(1)})
		s.Delete(Key(n))
	}
	s.Overwrite(Key(100), v.Marshal())
	s.n = 0
	if got, _, err := Behind(ctx, s, 5, yes, good); err != nil || got.Number != 100 || s.n > 4 {
		t.Errorf("where the objects of void numbers are gone: %v after %d requests, want seal 100 after 4 at most", err, s.n)
	}
	s.Plant(Key(6), list[6].Marshal())
	if got, _, err := Behind(ctx, s, 5, yes, func(s *Seal) bool { return s.Number != 6 }); err != nil || got.Number != 100 {
		t.Errorf("behind a seal that nobody may rest on: %v, want seal 100", err)
	}
}
