package catalog

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The records a test expects are those that commitChange makes of commits 0 … State.Commit.

// sound holds everything a catalog answers against what was applied. It returns how many records there are.
func sound(t *testing.T, c *Catalog) int64 {
	t.Helper()
	s := c.State(montesole)
	want := expected(s.Commit)
	var live sum
	var count int64
	for _, r := range want {
		if got, ok, err := c.ByID(montesole, r.ID); err != nil || !ok || got != r {
			t.Fatalf("record %d of %d: got %+v %v %v, want %+v", r.Index, len(want), got, ok, err, r)
		}
		if got, ok, err := c.ByKey(montesole, r.KeyHMAC); err != nil || !ok || got != r {
			t.Fatalf("key of record %d of %d: got %+v %v %v, want %+v", r.Index, len(want), got, ok, err, r)
		}
		if !r.Annulled {
			count++
			live.add(sha256.Sum256(r.Identity()))
		}
	}
	if s.Count != count || s.Digest != live {
		t.Fatalf("after commit %d: got count %d, want %d, or another digest", s.Commit, s.Count, count)
	}
	wait(t, c)
	for _, q := range []Query{{IncludeAnnulled: true}, {Type: "delibera"}, {Words: "lavori"}, {Words: "cigno"}, {Register: "DETE", Year: 2016}} {
		q.Producer, q.Limit = montesole, 1000
		if got, _ := turnPages(t, c, q); ids(got) != ids(lookThrough(t, c, q, want)) {
			t.Fatalf("after commit %d, %+v: got %d records, or in another order", s.Commit, q, len(got))
		}
	}
	return int64(len(want))
}

func expected(commit int64) []Record {
	all := manyMade(montesole, 0, (commit+1)*20)
	for n := int64(1); n <= commit; n++ {
		all[n*20-1].Annulled = true
	}
	return all
}

// closedCatalog makes one that was closed cleanly.
func closedCatalog(t *testing.T, commits int64) string {
	dir := filepath.Join(t.TempDir(), "catalog")
	c := openAt(t, dir)
	for n := range commits {
		if err := c.Apply(montesole, commitChange(n), State{Commit: n, Size: n + 1}); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// killedCatalog lets a child go on with the catalog in dir and kills it once it has said that it applied a
// number of commits; it returns the last commit acknowledged.
func killedCatalog(t *testing.T, dir string, commits int) (acknowledged int64) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envWrite+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		if acknowledged, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if i == commits {
			cmd.Process.Kill() // SIGKILL
		}
	}
	_ = cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatalf("child: %s", stderr.String())
	}
	return acknowledged
}

func TestKilledCatalogHoldsWhatItsStateClaims(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "catalog")
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	for i := range rounds {
		acknowledged := killedCatalog(t, dir, 20+i*13)
		c := openAt(t, dir)
		if rebuilt, why := c.Rebuilt(); rebuilt {
			t.Fatalf("round %d: rebuilt: %s", i, why)
		}
		if got := c.State(montesole).Commit; got < acknowledged {
			t.Fatalf("round %d: got commit %d, acknowledged was %d", i, got, acknowledged)
		}
		sound(t, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLosingADirectoryHeals(t *testing.T) {
	from := closedCatalog(t, 30)
	for _, test := range []struct {
		lost    []string
		rebuilt bool
	}{
		{[]string{dataName}, true},
		{[]string{wordsName}, false},
		{[]string{dataName, wordsName}, true},
		{[]string{markName}, false},
		{[]string{lockName, checkName}, false},
		{[]string{wordsName, markName}, false},
	} {
		dir := copyCatalog(t, from)
		for _, name := range test.lost {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		c := openAt(t, dir)
		if got, why := c.Rebuilt(); got != test.rebuilt {
			t.Errorf("without %v: got rebuilt %v (%s), want %v", test.lost, got, why, test.rebuilt)
		}
		if got := sound(t, c); (got == 0) != test.rebuilt {
			t.Errorf("without %v: got %d records", test.lost, got)
		}
		c.Close()
	}
}

func TestSoundCatalogIsNotDoubted(t *testing.T) {
	dir := closedCatalog(t, 30)
	killedCatalog(t, dir, 40)
	if err := Check(dir); err != nil {
		t.Error(err)
	}
	c := openAt(t, dir)
	if rebuilt, why := c.WordsRebuilt(); rebuilt {
		t.Errorf("words rebuilt: %s", why)
	}
}

// TestDamageGivesAllOrNothing hurts files of catalogs that were closed and that were killed, one per trial.
func TestDamageGivesAllOrNothing(t *testing.T) {
	closed := closedCatalog(t, 40)
	killed := closedCatalog(t, 25)
	killedCatalog(t, killed, 30)
	trials := 100
	if testing.Short() {
		trials = 14
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	outcome := make(map[string]int)
	t.Run("trials", func(t *testing.T) {
		for i := range trials {
			from, state := closed, "closed"
			if i%2 == 1 {
				from, state = killed, "killed"
			}
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				got := damageTrial(t, from, rand.New(rand.NewPCG(seed, uint64(i))))
				mu.Lock()
				defer mu.Unlock()
				outcome[state+" "+got]++
			})
		}
	})
	t.Log(outcome)
	if outcome["closed rebuilt"]+outcome["killed rebuilt"] == 0 {
		t.Error("no damage was found in the records: the campaign does not bite")
	}
}

func damageTrial(t *testing.T, from string, rnd *rand.Rand) (outcome string) {
	dir := copyCatalog(t, from)
	what := hurt(t, rnd, dir)
	t.Log(what)
	c := openAt(t, dir)
	rebuilt, why := c.Rebuilt()
	words, _ := c.WordsRebuilt()
	n := sound(t, c)
	if rebuilt != (n == 0) {
		t.Errorf("%s: got rebuilt %v (%s) with %d records", what, rebuilt, why, n)
	}
	if err := c.Close(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	switch {
	case rebuilt:
		return "rebuilt"
	case words:
		return "words rebuilt"
	}
	return "whole"
}

// hurt flips a bit in the used part of a file, or truncates or deletes it.
func hurt(t *testing.T, rnd *rand.Rand, dir string) string {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.EqualFold(d.Name(), lockName) && d.Name() != checkName {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	path := files[rnd.IntN(len(files))]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(b, "\x00"))
	name, _ := filepath.Rel(dir, path)
	switch kind := rnd.IntN(5); {
	case kind == 0:
		err = os.Remove(path)
		name += " deleted"
	case kind == 1 && used > 0:
		n := rnd.IntN(used)
		err = os.Truncate(path, int64(n))
		name += fmt.Sprintf(" truncated to %d of %d", n, used)
	case used > 0:
		at := rnd.IntN(used)
		b[at] ^= 1 << rnd.IntN(8)
		err = os.WriteFile(path, b, 0o600)
		name += fmt.Sprintf(" flipped at %d of %d", at, used)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// copyCatalog copies a directory, holes of its files left holes.
func copyCatalog(t *testing.T, from string) string {
	to := filepath.Join(t.TempDir(), "copy")
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dest := to + strings.TrimPrefix(path, from)
		if d.IsDir() {
			return os.Mkdir(dest, 0o755)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(dest, bytes.TrimRight(b, "\x00"), 0o600); err != nil {
			return err
		}
		return os.Truncate(dest, int64(len(b)))
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}
