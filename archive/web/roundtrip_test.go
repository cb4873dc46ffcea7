package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
)

func TestSubmittingGivesAReceiptAndRetryingTheSame(t *testing.T) {
	h := newHouse(t)
	d := withSubject("12", "Affidamento lavori")
	d.Files = append(d.Files, archivetest.File{Name: `perché "no" è.pdf`, Data: archivetest.PDF("due")})
	var sent, total int64
	first, err := h.client("m-submit").Submit(context.Background(), montesole, d.Description(), uploads(d), func(s, n int64) { sent, total = s, n })
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(len(d.Files[0].Data) + len(d.Files[1].Data)); sent != want || total != want+int64(len(d.Description())) {
		t.Errorf("progress: got %d of %d", sent, total)
	}
	res, _ := first.Check(h.bench.Trust, paper.English)
	if res.Verdict() != paper.Good {
		t.Errorf("receipt: %+v", res.Lines)
	}
	again := h.mustSubmit("m-submit", montesole, d)
	if again.Proof != first.Proof || again.Body.Salt != first.Body.Salt {
		t.Error("a retry got another receipt")
	}
}

// postForm sends a submission as curl would.
func (h *house) postForm(token, producer string, d archivetest.Doc, header map[string]string) answerOf {
	h.t.Helper()
	f, err := newOutgoing(d.Description(), uploads(d), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	all := map[string]string{"Content-Type": "multipart/form-data; boundary=" + f.boundary}
	for k, v := range header {
		all[k] = v
	}
	return h.send("POST", "/api/v1/producers/"+producer+"/submissions", token, all, f.open())
}

func TestAnswersToSubmissions(t *testing.T) {
	h := newHouse(t)
	d := withSubject("1", "Prima")
	a := h.postForm("montesole", montesole, d, nil)
	r, err := paper.ParseReceipt(a.body)
	if a.status != http.StatusCreated || err != nil || a.header.Get("Perenne-Outcome") != "accepted" {
		t.Fatalf("new: got %d %v %v", a.status, err, a.header)
	}
	if want := "/api/v1/producers/" + montesole + "/packages/" + r.Body.Package; a.header.Get("Location") != want {
		t.Errorf("location: got %q want %q", a.header.Get("Location"), want)
	}
	if a := h.postForm("montesole", montesole, d, nil); a.status != http.StatusOK {
		t.Errorf("retry: got %d want 200", a.status)
	}
	other := d
	other.Subject = "Altro"
	a = h.postForm("montesole", montesole, other, map[string]string{"Accept-Language": "en"})
	p := a.problem(t)
	if a.status != http.StatusConflict || p.Existing != r.Body.Package || p.Kind() != archive.Conflict || p.Findings[0].Rule != "key.taken" || !strings.Contains(p.Findings[0].Message, "other content") {
		t.Errorf("conflict: got %d %+v", a.status, p)
	}

	bad := withSubject("2", "Rifiutata")
	bad.Type = "sconosciuto"
	a = h.postForm("montesole", montesole, bad, nil)
	r, err = paper.ParseReceipt(a.body)
	if a.status != http.StatusUnprocessableEntity || err != nil || !r.Refused() || a.header.Get("Perenne-Outcome") != "refused" {
		t.Fatalf("refusal: got %d %v %s", a.status, err, a.body)
	}
	if got := h.send("GET", a.header.Get("Location"), "m-submit", nil, nil); got.status != 200 || !bytes.Equal(got.body, a.body) {
		t.Errorf("refusal again: got %d, equal %t", got.status, bytes.Equal(got.body, a.body))
	}
	a = h.postForm("montesole", montesole, bad, map[string]string{"Accept": "application/problem+json", "Accept-Language": "en-GB, it;q=0.5"})
	p = a.problem(t)
	i := slices.IndexFunc(p.Findings, func(f policies.Finding) bool { return f.Rule == "type.unknown" })
	if a.status != http.StatusUnprocessableEntity || p.Kind() != archive.Refused || i < 0 || p.Findings[i].Remedy == "" || p.Title != "Document not taken in charge" {
		t.Errorf("refusal as problem: got %d %+v", a.status, p)
	}
	refused, err := h.client("montesole").Submit(context.Background(), montesole, bad.Description(), uploads(bad), nil)
	if err != nil || !refused.Refused() {
		t.Errorf("refusal through the client: got %v", err)
	}
}

func TestEverythingOfAPackageCanBeFetched(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	c := h.client("montesole")
	r := h.mustSubmit("montesole", montesole, withSubject("7/bis", "Sistemazione del cimitero"))
	id := r.Body.Package

	page, err := c.Search(ctx, SearchQuery{Producer: montesole, Words: "cimiteri", Year: 2026, Register: "DETE", From: "2026-01-01", To: "2026-12-31", Limit: 5})
	if err != nil || len(page.Packages) != 1 || page.Packages[0].ID != id || page.Packages[0].Subject != "Sistemazione del cimitero" {
		t.Fatalf("search: got %+v %v", page, err)
	}
	if rec, err := c.Record(ctx, montesole, id); err != nil || *rec != page.Packages[0] {
		t.Errorf("record: got %+v %v", rec, err)
	}
	if again, err := c.Receipt(ctx, montesole, id); err != nil || again.Proof != r.Proof {
		t.Errorf("receipt: %v", err)
	}
	dir := t.TempDir()
	save := func(name string, b []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	xml, err := c.ReceiptXML(ctx, montesole, id)
	save("rdv.xml", xml, err)
	ers, err := c.Evidence(ctx, montesole, id)
	save("evidence.ers", ers, err)
	text, err := r.Marshal()
	save("receipt.json", text, err)
	var pkg, dip bytes.Buffer
	err = c.Package(ctx, montesole, id, &pkg, nil)
	save("package.asice", pkg.Bytes(), err)
	var done, total int64
	err = c.Retrieve(ctx, montesole, id, "istanza di accesso", &dip, func(d, n int64) { done, total = d, n })
	save("copy.zip", dip.Bytes(), err)
	if done != total || done != int64(dip.Len()) {
		t.Errorf("progress: got %d of %d, %d bytes", done, total, dip.Len())
	}
	proof, err := c.Proof(ctx, montesole, id)
	if err != nil || string(proof) != r.Proof {
		t.Errorf("proof: %v", err)
	}
	answer, report, err := c.Audit(ctx, AuditRequest{Producer: montesole, Against: []*paper.Receipt{r}}, nil)
	save("report.asice", report, err)
	if err == nil && (answer.Report.Verdict != paper.VerdictGood || !answer.Recorded || answer.Report.Ledger.Against != id) {
		t.Errorf("audit: got %+v", answer.Report)
	}
	h.verify(dir)
}

// verify checks papers as a stranger would.
func (h *house) verify(dir string) {
	h.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	var files []paper.File
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { f.Close() })
		info, err := f.Stat()
		if err != nil {
			h.t.Fatal(err)
		}
		files = append(files, paper.File{Name: e.Name(), ReaderAt: f, Size: info.Size()})
	}
	for i, res := range paper.Verify(context.Background(), h.bench.Trust, paper.English, files) {
		if res.Verdict() != paper.Good {
			h.t.Errorf("%s: %+v", files[i].Name, res.Lines)
		}
	}
}

func TestAuditTellsProgressAndNamesWhatItWasAsked(t *testing.T) {
	h := newHouse(t)
	var ids []string
	for _, n := range []string{"1", "2", "3"} {
		ids = append(ids, h.mustSubmit("montesole", montesole, withSubject(n, "Oggetto")).Body.Package)
	}
	var told []AuditProgress
	answer, _, err := h.client("m-audit").Audit(context.Background(), AuditRequest{Producer: montesole, IDs: ids[:2]}, func(p AuditProgress) { told = append(told, p) })
	if err != nil {
		t.Fatal(err)
	}
	if answer.Report.Objects.Read != 2 || !slices.Equal(answer.Report.Selection.IDs, ids[:2]) {
		t.Errorf("got %+v", answer.Report)
	}
	if len(told) == 0 || told[len(told)-1].Done != told[len(told)-1].Total {
		t.Errorf("progress: got %v", told)
	}
}

func TestAuditIsHeldOnlyAgainstReceiptsThatCheckOut(t *testing.T) {
	h := newHouse(t)
	good := h.mustSubmit("montesole", montesole, withSubject("1", "Uno"))
	others := h.mustSubmit("colli", colli, withSubject("1", "Uno"))
	forged := *good
	forged.Body.Date = "2026-03-10"
	for name, r := range map[string]*paper.Receipt{"of another producer": others, "forged": &forged} {
		_, _, err := h.client("montesole").Audit(context.Background(), AuditRequest{Producer: montesole, Against: []*paper.Receipt{good, r}}, nil)
		var p *Problem
		if !errors.As(err, &p) || p.Status != 400 || p.Findings[0].Field != "against[1]" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestLedgerIsServedAsTiles(t *testing.T) {
	h := newHouse(t)
	for _, n := range []string{"1", "2", "3"} {
		h.mustSubmit("montesole", montesole, withSubject(n, "Oggetto"))
	}
	a := h.send("GET", "/ledger/"+montesole+"/checkpoint", "", nil, nil)
	if a.status != 200 || a.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Fatalf("checkpoint: got %d %v", a.status, a.header)
	}
	cp, err := ledger.ParseCheckpoint(a.body, h.bench.Trust.Ledgers)
	if err != nil {
		t.Fatal(err)
	}
	w := strings.TrimPrefix(tlog.Tile{H: 8, L: 0, N: 0, W: int(cp.Size)}.Path(), "tile/8/0/")
	tile := h.send("GET", "/ledger/"+montesole+"/tile/0/"+w, "", nil, nil)
	bundle := h.send("GET", "/ledger/"+montesole+"/tile/entries/"+w, "", nil, nil)
	if tile.status != 200 || bundle.status != 200 || tile.header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("got %d and %d", tile.status, bundle.status)
	}
	var hashes []tlog.Hash
	leaves := int64(0)
	for b := bundle.body; len(b) > 2; leaves++ {
		n := 2 + int(b[0])<<8 + int(b[1])
		if leaf := tlog.RecordHash(b[2:n]); !bytes.Equal(leaf[:], tile.body[leaves*32:leaves*32+32]) {
			t.Errorf("leaf %d of tile and bundle differ", leaves)
		}
		stored, err := tlog.StoredHashes(leaves, b[2:n], reader(hashes))
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, stored...)
		b = b[n:]
	}
	root, err := tlog.TreeHash(cp.Size, reader(hashes))
	if err != nil || root != cp.Root {
		t.Errorf("root of the bundle: got %v %v want %v", root, err, cp.Root)
	}
	for _, path := range []string{"tile/0/000", "tile/0/000.p/255", "tile/9/000", "tile/0/x", "tile/data/000", "tile/entries/000.p/0", "nothing"} {
		if a := h.send("GET", "/ledger/"+montesole+"/"+path, "", nil, nil); a.status != 404 {
			t.Errorf("%s: got %d want 404", path, a.status)
		}
	}
}

type reader []tlog.Hash

func (r reader) ReadHashes(at []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range at {
		out = append(out, r[i])
	}
	return out, nil
}

func TestStatusShowsOnlyTheTokensProducers(t *testing.T) {
	h := newHouse(t)
	for token, want := range map[string][]string{"m-audit": {montesole}, "colli": {colli}, "all": {montesole, colli}} {
		got, err := h.client(token).Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var codes []string
		for _, p := range got.Producers {
			codes = append(codes, p.Code)
		}
		if !slices.Equal(codes, want) {
			t.Errorf("%s: got %v want %v", token, codes, want)
		}
	}
}

func TestReadinessEndsWithDrain(t *testing.T) {
	h := newHouse(t)
	if err := h.client("").Ready(context.Background()); err != nil {
		t.Fatal(err)
	}
	h.srv.Drain()
	if err := h.client("").Ready(context.Background()); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("got %v", err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/api/v1/healthz": 200, "/readyz": 503} {
		if a := h.send("GET", path, "", nil, nil); a.status != want {
			t.Errorf("%s: got %d want %d", path, a.status, want)
		}
	}
}

func TestAServerThatIsNotThereIsUnavailable(t *testing.T) {
	c := &Client{Base: "http://127.0.0.1:1"}
	if _, err := c.Status(context.Background()); archive.KindOf(err) != archive.Unavailable {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v want canceled", err)
	}
}

func TestAFileThatChangedIsSaidByTheClient(t *testing.T) {
	h := newHouse(t)
	d := withSubject("1", "Uno")
	up := uploads(d)
	up[0].Size++
	if _, err := h.client("montesole").Submit(context.Background(), montesole, d.Description(), up, nil); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("got %v", err)
	}
}

func TestOverTLSWithHTTP2(t *testing.T) {
	h := newHouse(t)
	tls := httptest.NewUnstartedServer(nil)
	tls.Config = h.srv.HTTP()
	tls.EnableHTTP2 = true
	tls.StartTLS()
	t.Cleanup(tls.Close)
	h.http = tls
	r := h.mustSubmit("montesole", montesole, withSubject("1", "Uno"))
	a := h.send("GET", "/api/v1/producers/"+montesole+"/packages/"+r.Body.Package, "montesole", nil, nil)
	if a.status != 200 || a.header.Get("Strict-Transport-Security") == "" {
		t.Errorf("got %d %v", a.status, a.header)
	}
	var dip bytes.Buffer
	if err := h.client("montesole").Retrieve(context.Background(), montesole, r.Body.Package, "accesso", &dip, nil); err != nil {
		t.Error(err)
	}
	big := &repeated{text: strings.Repeat("x", 1000), left: 20_000}
	p := h.send("POST", "/api/v1/producers/"+montesole+"/submissions", "montesole", map[string]string{"Content-Type": "multipart/form-data; boundary=b"}, big).problem(t)
	if p.Status != 400 {
		t.Errorf("malformed: got %d", p.Status)
	}
	h.srv.window = 300 * time.Millisecond
	never, w := io.Pipe()
	defer w.Close()
	p = h.send("POST", "/api/v1/producers/"+montesole+"/submissions", "montesole", map[string]string{"Content-Type": "multipart/form-data; boundary=b"}, never).problem(t)
	if p.Status != 408 {
		t.Errorf("slow: got %d", p.Status)
	}
}

func TestTheSameSubmissionManyTimesAtOnceIsOnePackage(t *testing.T) {
	h := newHouse(t)
	d := withSubject("1", "Uno")
	var all errgroup.Group
	proofs := make([]string, 30)
	for i := range proofs {
		all.Go(func() error {
			r, err := h.client("montesole").Submit(context.Background(), montesole, d.Description(), uploads(d), nil)
			if err == nil {
				proofs[i] = r.Proof + r.Body.Salt
			}
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(proofs); proofs[0] != proofs[len(proofs)-1] {
		t.Error("the receipts differ")
	}
	if n := mustStatus(t, h).Packages; n != 1 {
		t.Errorf("got %d packages want 1", n)
	}
}
