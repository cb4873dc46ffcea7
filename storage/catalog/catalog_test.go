package catalog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The test binary is also its own child: with these variables set it does one thing and ends.
const (
	envCheck   = "CATALOG_TEST_CHECK"   // directory to check
	envWrite   = "CATALOG_TEST_WRITE"   // directory to write to until killed
	envFill    = "CATALOG_TEST_FILL"    // directory to fill until it is full, and …
	envBallast = "CATALOG_TEST_BALLAST" // … the file to remove then
)

// writeUntilKilled applies commits for ever.
func writeUntilKilled(dir string) {
	c, err := Open(context.Background(), Options{Dir: dir, Check: Check})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for n := c.State(montesole).Commit + 1; ; n++ {
		if err := c.Apply(montesole, commitChange(n), State{Commit: n, Size: n + 1}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(n)
		if err := interfere(c, n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// interfere has another producer come and go.
func interfere(c *Catalog, n int64) error {
	if n%10 == 9 {
		return c.Reset(colli)
	}
	return c.Apply(colli, Change{Put: manyMade(colli, n*20, n*20+20)}, State{Commit: n})
}

// commitChange is what the n-th commit of the child does: 20 records, and of an older one an annulment.
func commitChange(n int64) Change {
	ch := Change{Put: manyMade(montesole, n*20, n*20+20)}
	if n > 0 {
		ch.Annul = []string{made(montesole, n*20-1).ID}
	}
	return ch
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(envCheck); dir != "" {
		if err := Check(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(envWrite); dir != "" {
		writeUntilKilled(dir)
	}
	if dir := os.Getenv(envFill); dir != "" {
		if err := fillUp(dir, os.Getenv(envBallast)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// checkInChild is what production gives as Options.Check.
func checkInChild(dir string) error {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envCheck+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		line, _, _ := strings.Cut(stderr.String(), "\n")
		return fmt.Errorf("%w: %s", err, line)
	}
	return nil
}

func openAt(t testing.TB, dir string) *Catalog {
	t.Helper()
	c, err := Open(context.Background(), Options{Dir: dir, Check: checkInChild, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func openNew(t testing.TB) *Catalog { return openAt(t, filepath.Join(t.TempDir(), "catalog")) }

func apply(t testing.TB, c *Catalog, producer string, commit int64, ch Change) {
	t.Helper()
	if err := c.Apply(producer, ch, State{Commit: commit, Size: commit + 1}); err != nil {
		t.Fatal(err)
	}
}

func wait(t testing.TB, c *Catalog) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

func searched(t testing.TB, c *Catalog, q Query) Page {
	t.Helper()
	p, err := c.Search(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ids(records []Record) string {
	var out []string
	for _, r := range records {
		out = append(out, r.ID)
	}
	return strings.Join(out, " ")
}

const montesole, colli = "c_x901", "ucolli_x902"

var (
	words1 = strings.Fields("affidamento approvazione liquidazione impegno proroga concessione autorizzazione rettifica")
	words2 = strings.Fields("lavori servizio fornitura manutenzione progetto incarico contributo appalto convenzione graduatoria")
	words3 = strings.Fields("strada scuola cimitero acquedotto biblioteca palestra municipio piazza mensa trasporto scolastico città viabilità")
	types  = []string{"determina", "delibera", "fattura", "contratto", "registro giornaliero di protocollo"}
)

// made is the n-th record of a producer; the same n gives the same record.
func made(producer string, n int64) Record {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d", producer, n))
	r := rand.New(rand.NewPCG(binary.BigEndian.Uint64(h[:]), uint64(n)))
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	id := fmt.Sprintf("%x", h[:16])
	year := 2016 + int(n/997)%10
	typ := types[r.IntN(len(types))]
	return Record{
		Producer: producer, ID: id, Index: n, Commit: n / 1000, KeyHMAC: fmt.Sprintf("%x", sha256.Sum256(h[:])),
		Structure: "unica", Register: strings.ToUpper(typ[:4]), Year: year, Number: fmt.Sprintf("%07d", n),
		Date: fmt.Sprintf("%d-%02d-%02d", year, 1+r.IntN(12), 1+r.IntN(28)), Type: typ,
		Subject: strings.Join([]string{pick(words1), pick(words2), "per la", pick(words3), "CIG", fmt.Sprintf("%X", h[:5])}, " "),
		Files:   1 + r.IntN(4), Size: r.Int64N(1 << 22), Object: producer + "/packages/" + id[:2] + "/" + id + ".asice",
		SHA256: fmt.Sprintf("%x", h), Time: fmt.Sprintf("%d-05-04T10:11:12Z", year), Reserved: r.IntN(9) == 0,
	}
}

func manyMade(producer string, from, to int64) (out []Record) {
	for n := from; n < to; n++ {
		out = append(out, made(producer, n))
	}
	return out
}

func TestApplyIsFoundByIdentifierAndKey(t *testing.T) {
	c := openNew(t)
	if rebuilt, why := c.Rebuilt(); !rebuilt || why == "" {
		t.Errorf("a new catalog: got rebuilt %v %q, want a reason", rebuilt, why)
	}
	if s := c.State(montesole); s != (State{Commit: -1}) {
		t.Errorf("unknown producer: got state %+v, want commit -1", s)
	}
	apply(t, c, montesole, 0, Change{Put: manyMade(montesole, 0, 300)})
	var want State
	var live sum
	for n := range int64(300) {
		r := made(montesole, n)
		live.add(sha256.Sum256(r.Identity()))
		got, ok, err := c.ByID(montesole, r.ID)
		if err != nil || !ok || got != r {
			t.Fatalf("by id %d: got %+v %v %v, want %+v", n, got, ok, err, r)
		}
		if got, ok, err = c.ByKey(montesole, r.KeyHMAC); err != nil || !ok || got != r {
			t.Fatalf("by key %d: got %+v %v %v, want %+v", n, got, ok, err, r)
		}
	}
	want = State{Commit: 0, Size: 1, Count: 300, Digest: live}
	if got := c.State(montesole); got != want {
		t.Errorf("got state %+v, want %+v", got, want)
	}
	if _, ok, err := c.ByID(montesole, "nothing"); ok || err != nil {
		t.Errorf("unknown id: got %v %v", ok, err)
	}
}

func TestApplyOnlyMovesForward(t *testing.T) {
	c := openNew(t)
	apply(t, c, montesole, 4, Change{Put: manyMade(montesole, 0, 3)})
	before := c.State(montesole)
	for _, commit := range []int64{4, 3, 0} {
		apply(t, c, montesole, commit, Change{Put: manyMade(montesole, 3, 9), Forget: []string{made(montesole, 0).ID}})
	}
	if got := c.State(montesole); got != before {
		t.Errorf("got %+v, want %+v", got, before)
	}
	apply(t, c, montesole, 5, Change{Put: manyMade(montesole, 0, 3)}) // the same records again
	if got := c.State(montesole); got.Count != 3 || got.Digest != before.Digest {
		t.Errorf("records put twice: got count %d, want 3, or another digest", got.Count)
	}
}

func TestAnnulledAndForgottenRecordsAreNotLive(t *testing.T) {
	c := openNew(t)
	r := manyMade(montesole, 0, 3)
	again := r[0]
	again.ID, again.Index, again.Generation = "again", 7, 1
	apply(t, c, montesole, 0, Change{Put: r})
	want := c.State(montesole)
	apply(t, c, montesole, 1, Change{Put: []Record{again}, Annul: []string{again.ID, "unknown"}, Forget: []string{"unknown"}})
	if got := c.State(montesole); got.Count != want.Count || got.Digest != want.Digest {
		t.Errorf("put and annulled: got %+v, want %+v", got, want)
	}
	got, ok, err := c.ByKey(montesole, again.KeyHMAC)
	if err != nil || !ok || got.ID != "again" || !got.Annulled {
		t.Errorf("newest generation: got %+v %v %v", got, ok, err)
	}
	all, err := c.Generations(montesole, again.KeyHMAC)
	if err != nil || ids(all) != r[0].ID+" again" {
		t.Errorf("got generations %s %v", ids(all), err)
	}
	apply(t, c, montesole, 2, Change{Forget: []string{r[0].ID, again.ID}})
	if all, err = c.Generations(montesole, again.KeyHMAC); len(all) != 0 || err != nil {
		t.Errorf("forgotten: got %v %v", all, err)
	}
	if got := c.Count(montesole); got != 2 {
		t.Errorf("got %d live, want 2", got)
	}
	wait(t, c)
	if p := searched(t, c, Query{Producer: montesole, Number: r[0].Number, IncludeAnnulled: true}); len(p.Records) != 0 {
		t.Errorf("forgotten, but found: %v", p.Records)
	}
}

func TestLargeChangeIsSplitAndRecordsHaveABound(t *testing.T) {
	c := openNew(t)
	big := manyMade(montesole, 0, 12)
	for i := range big {
		big[i].Subject = strings.Repeat("lavori ", 60_000)
	}
	apply(t, c, montesole, 0, Change{Put: big})
	if got := c.Count(montesole); got != 12 {
		t.Errorf("got %d, want 12", got)
	}
	big[0].Subject += strings.Repeat("x", maxRecord)
	if err := c.Apply(montesole, Change{Put: big[:1]}, State{Commit: 1}); !errors.Is(err, ErrRecord) {
		t.Errorf("a record too large: got %v, want ErrRecord", err)
	}
	if err := c.Apply(colli, Change{Put: big[1:2]}, State{Commit: 1}); !errors.Is(err, ErrRecord) {
		t.Errorf("a record of another producer: got %v, want ErrRecord", err)
	}
	if got := c.State(montesole).Commit; got != 0 {
		t.Errorf("got commit %d, want 0", got)
	}
}

func TestCloseAndOpenKeepsEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "catalog")
	c := openAt(t, dir)
	apply(t, c, montesole, 0, Change{Put: manyMade(montesole, 0, 500)})
	wait(t, c)
	want, q := c.State(montesole), Query{Producer: montesole, Words: "lavoro scuole", Limit: 1000}
	found := searched(t, c, q)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(montesole, Change{}, State{Commit: 9}); !errors.Is(err, ErrClosed) {
		t.Errorf("apply after close: got %v, want ErrClosed", err)
	}
	c, err := Open(context.Background(), Options{Dir: dir, Check: func(string) error {
		t.Error("a catalog closed cleanly is checked")
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if rebuilt, why := c.Rebuilt(); rebuilt {
		t.Errorf("rebuilt: %s", why)
	}
	if rebuilt, why := c.WordsRebuilt(); rebuilt {
		t.Errorf("words rebuilt: %s", why)
	}
	if got := c.State(montesole); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := searched(t, c, q); ids(got.Records) != ids(found.Records) || len(found.Records) == 0 {
		t.Errorf("got %q, want %q", ids(got.Records), ids(found.Records))
	}
	if _, err := Open(context.Background(), Options{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: got %v, want ErrInUse", err)
	}
}

func TestResetForgetsOneProducerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "catalog")
	c := openAt(t, dir)
	apply(t, c, montesole, 3, Change{Put: manyMade(montesole, 0, 700)})
	apply(t, c, colli, 0, Change{Put: manyMade(colli, 0, 400)})
	wait(t, c)
	if err := c.Reset(montesole); err != nil {
		t.Fatal(err)
	}
	if got := c.State(montesole); got != (State{Commit: -1}) {
		t.Errorf("got %+v", got)
	}
	if _, ok, _ := c.ByID(montesole, made(montesole, 1).ID); ok {
		t.Error("a record is found after reset")
	}
	apply(t, c, montesole, 0, Change{Put: manyMade(montesole, 5, 9)})
	wait(t, c)
	p := searched(t, c, Query{Producer: montesole, Year: made(montesole, 1).Year})
	if len(p.Records) != 4 || p.Total != 4 {
		t.Errorf("got %d records, total %d, want 4", len(p.Records), p.Total)
	}
	if got := c.Count(colli); got != 400 {
		t.Errorf("the other producer: got %d, want 400", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Check(dir); err != nil {
		t.Error(err)
	}
}

func TestQuotaAndWatermarkRefuseChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "catalog")
	c, err := Open(context.Background(), Options{Dir: dir, Quota: 3 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var n int64
	for err == nil && n < 100 {
		err = c.Apply(montesole, Change{Put: manyMade(montesole, n*200, n*200+200)}, State{Commit: n})
		n++
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("got %v after %d commits, want ErrFull", err, n)
	}
	if got := c.State(montesole); got.Count != (n-1)*200 || got.Commit != n-2 {
		t.Errorf("got %+v, want what was acknowledged", got)
	}
	if got := c.Size(); got > 6<<20 {
		t.Errorf("got %d bytes under a quota of 3 MiB", got)
	}
	_, err = Open(context.Background(), Options{Dir: filepath.Join(t.TempDir(), "catalog"), Watermark: 1 << 60})
	if !errors.Is(err, ErrFull) {
		t.Errorf("no space: got %v, want ErrFull", err)
	}
}

func TestNothingOfAnotherProducerIsFound(t *testing.T) {
	c := openNew(t)
	for _, p := range []string{montesole, colli, "c_", ""} {
		apply(t, c, p, 0, Change{Put: manyMade(p, 0, 150)})
	}
	wait(t, c)
	r := made(colli, 17)
	if _, ok, _ := c.ByID(montesole, r.ID); ok {
		t.Error("found by id")
	}
	if _, ok, _ := c.ByKey(montesole, r.KeyHMAC); ok {
		t.Error("found by key")
	}
	for _, q := range []Query{{}, {Words: "lavori"}, {Type: r.Type}, {Number: r.Number}, {From: "2000-01-01"}, {Year: r.Year}} {
		q.Producer, q.Limit, q.IncludeAnnulled = montesole, 1000, true
		p := searched(t, c, q)
		if len(p.Records) == 0 {
			t.Errorf("%+v: nothing found", q)
		}
		for _, r := range p.Records {
			if want := made(montesole, r.Index); r != want {
				t.Fatalf("%+v: got %+v, want %+v", q, r, want)
			}
		}
	}
	if p := searched(t, c, Query{Producer: "c_unknown"}); len(p.Records) != 0 || p.Total != 0 {
		t.Errorf("unknown producer: got %+v", p)
	}
}

func TestSearchByEveryFieldAgreesWithLookingThroughAll(t *testing.T) {
	c := openNew(t)
	all := manyMade(montesole, 0, 2500)
	for i := range 50 {
		all[i*3].Date = "" // undated
	}
	for n := int64(0); n < 2500; n += 500 {
		apply(t, c, montesole, n/500, Change{Put: all[n : n+500]})
	}
	apply(t, c, montesole, 9, Change{Annul: []string{all[5].ID, all[700].ID, all[2001].ID}})
	for _, i := range []int{5, 700, 2001} {
		all[i].Annulled = true
	}
	wait(t, c)
	queries := []Query{
		{},
		{IncludeAnnulled: true},
		{Type: "delibera"},
		{Type: "delibera", From: "2017-01-01", To: "2017-06-30"},
		{From: "2016-07-01"},
		{To: "2016-07-01"},
		{Words: "lavori"},
		{Words: "LAVORO scuole"},
		{Words: "citta"},
		{Words: "l'affidamento dei lavori", Year: 2016},
		{Register: "DETE", Year: 2016},
		{Number: "0000123"},
		{Number: "123"},
		{Words: "determina 700", IncludeAnnulled: true},
		{Words: "scuola", Type: "fattura", To: "2017-12-31"},
		{Structure: "unica", Words: "palestra", IncludeAnnulled: true},
		{Words: "della per"},
		{Register: "XXX"},
	}
	for _, q := range queries {
		q.Producer = montesole
		want := lookThrough(t, c, q, all)
		for _, limit := range []int{1, 7, 1000} {
			if limit == 1 && len(want) > 60 {
				continue
			}
			q.Limit = limit
			got, totals := turnPages(t, c, q)
			if ids(got) != ids(want) {
				t.Errorf("%+v: got %d records, want %d, or in other order", q, len(got), len(want))
			}
			for _, total := range totals {
				if total != -1 && total != len(want) {
					t.Errorf("%+v: got total %d, want %d", q, total, len(want))
				}
			}
		}
	}
}

// lookThrough is search without any index.
func lookThrough(t *testing.T, c *Catalog, q Query, all []Record) (found []Record) {
	s, err := c.newSearch(q)
	if err != nil {
		t.Fatal(err)
	}
	defer s.txn.Discard()
	for _, r := range all {
		if !s.hopeless && s.matches(&r) {
			found = append(found, r)
		}
	}
	return merge(nil, found)
}

func turnPages(t *testing.T, c *Catalog, q Query) (all []Record, totals []int) {
	for {
		p := searched(t, c, q)
		all, totals = append(all, p.Records...), append(totals, p.Total)
		if p.Next == "" {
			return all, totals
		}
		if len(p.Records) != q.Limit {
			t.Fatalf("%+v: a page of %d with a next one", q, len(p.Records))
		}
		q.After = p.Next
	}
}

func TestSearchWordsInItalian(t *testing.T) {
	c := openNew(t)
	subjects := []string{
		"Affidamento dei lavori di manutenzione della viabilità comunale",
		"Autorizzazione all'occupazione di suolo pubblico in Piazza dell'Università",
		"Nomina del responsabile: perché è così",
		"LIQUIDAZIONE FATTURA N. 0045/PA - CITTA' DI MONTESOLE",
		"Opere di urbanizzazione: strade e acquedotti",
		"Dell’acqua e degli acquedotti rurali",
		"Erogazione contributi ai nuclei familiari disagiati",
	}
	var put []Record
	for i, s := range subjects {
		put = append(put, Record{Producer: montesole, ID: fmt.Sprint(i), Index: int64(i), Number: fmt.Sprint(i), Register: "PROT", Year: 2026, Date: "2026-01-01", Subject: s})
	}
	apply(t, c, montesole, 0, Change{Put: put})
	for _, indexed := range []bool{false, true} { // from the tail, then from the index
		if indexed {
			wait(t, c)
		}
		for _, test := range []struct{ words, want string }{
			{"lavoro", "0"},
			{"affidamenti", "0"},
			{"viabilita", "0"},
			{"VIABILITÀ", "0"},
			{"universita", "1"},
			{"dell'università", "1"},
			{"occupazioni suolo", "1"},
			{"perche", ""},
			{"responsabili", "2"},
			{"città", "3"},
			{"citta'", "3"},
			{"fatture 45", "3"},
			{"montesole", "3"},
			{"strada", "4"},
			{"acquedotto", "5 4"},
			{"acqua", "5"},
			{"opera", "4"},
			{"contributo", "6"},
			{"familiare disagiato", "6"},
			{"contributo lavori", ""},
			{"prot 2026", "6 5 4 3 2 1 0"},
			{"prot 2", "2"},
			{"il la di", ""},
			{" , ", ""},
		} {
			p := searched(t, c, Query{Producer: montesole, Words: test.words})
			if got := ids(p.Records); got != test.want {
				t.Errorf("%q (indexed %v): got %q, want %q", test.words, indexed, got, test.want)
			}
		}
	}
}

func TestPagesAreStableWhileRecordsArrive(t *testing.T) {
	c := openNew(t)
	all := manyMade(montesole, 0, 400)
	apply(t, c, montesole, 0, Change{Put: all})
	for _, q := range []Query{{Producer: montesole}, {Producer: montesole, Words: "affidamento"}} {
		wait(t, c)
		q.Limit = 9
		want := lookThrough(t, c, q, all)
		var got []Record
		for commit := c.State(montesole).Commit + 1; ; commit++ {
			p := searched(t, c, q)
			got = append(got, p.Records...)
			if q.After = p.Next; q.After == "" {
				break
			}
			apply(t, c, montesole, commit, Change{Put: manyMade(montesole, 1000*commit, 1000*commit+20)})
		}
		got = slices.DeleteFunc(got, func(r Record) bool { return r.Index >= 400 })
		if ids(got) != ids(want) {
			t.Errorf("%+v: got %d of the records there were, want %d in their order", q, len(got), len(want))
		}
	}
}

func TestSearchRefusesWhatItCannotUnderstand(t *testing.T) {
	c := openNew(t)
	for _, q := range []Query{{From: "1/2/2026"}, {To: "2026-13-01"}, {After: "???"}, {After: "AAAA"}, {Words: strings.Repeat("a ", 600)}} {
		if _, err := c.Search(context.Background(), q); !errors.Is(err, ErrQuery) {
			t.Errorf("%+v: got %v, want ErrQuery", q, err)
		}
	}
	apply(t, c, montesole, 0, Change{Put: manyMade(montesole, 0, 400)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Search(ctx, Query{Producer: montesole, Limit: 1000}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
