package web

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/paper"
)

// AuditRequest says what to audit: without IDs, everything of the producer.
type AuditRequest struct {
	Producer string
	IDs      []string
	// Against are receipts to hold the ledger against.
	Against []*paper.Receipt
}

// AuditProgress is how far an audit is, in objects.
type AuditProgress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// AuditAnswer is the outcome of an audit.
type AuditAnswer struct {
	Report *paper.Report
	// Recorded tells whether the report stands in the ledger; a rolled back or read-only one takes no entry.
	Recorded bool
}

// auditBody is the body of a request for an audit.
type auditBody struct {
	IDs     []string          `json:"ids,omitempty"`
	Against []json.RawMessage `json:"against,omitempty"`
}

// auditLine is one line of the answer (application/x-ndjson): AuditProgress until the last, which has the
// report, the report as ASiC-E and whether it was recorded; or the problem that ended the audit.
type auditLine struct {
	Done     int64         `json:"done"`
	Total    int64         `json:"total"`
	Report   *paper.Report `json:"report"`
	Object   []byte        `json:"object"`
	Recorded bool          `json:"recorded"`
	Problem  *Problem      `json:"problem"`
}

const (
	maxAuditBody = 32 << 20
	maxAuditIDs  = 10_000
)

// audit has the producer's packages read again and streams how far it is, then the report.
func (x *exchange) audit() error {
	scope, err := x.auditScope()
	if err != nil {
		return err
	}
	p := &progressLines{x: x}
	scope.Progress = p.tell
	stop := p.repeat(x.s.beat)
	out, err := x.s.cfg.Archive.Audit(x.r.Context(), scope)
	stop()
	if err == nil {
		defer func() { _ = out.Close() }() // a nameless local file, of which nothing is kept
		return p.finish(out)
	}
	if !p.begun {
		return err
	}
	problem := problemOf(err, x.lang)
	problem.Instance = "urn:perenne:request:" + x.id
	p.line(struct {
		Problem *Problem `json:"problem"`
	}{problem})
	return nil
}

// auditScope reads the request.
func (x *exchange) auditScope() (archive.Scope, error) {
	scope := archive.Scope{Producer: x.producer}
	var req auditBody
	if err := x.readJSON(maxAuditBody, &req); err != nil {
		return scope, err
	}
	idsErr := badRequest("ids", "ids.form", "non è un elenco di identificativi di pacchetti", "inviare al massimo 10.000 identificativi così come li dà la ricerca, o omettere ids per verificare tutto")
	if len(req.IDs) > maxAuditIDs || req.IDs != nil && len(req.IDs) == 0 {
		return scope, idsErr
	}
	for _, id := range req.IDs {
		if len(id) != 32 {
			return scope, idsErr
		}
	}
	scope.IDs = req.IDs
	for i, raw := range req.Against {
		checked, err := x.against(raw)
		if err != nil {
			if k := archive.KindOf(err); k == archive.Unavailable || k == archive.NotFound {
				return scope, err
			}
			return scope, badRequest(fmt.Sprintf("against[%d]", i), "against.receipt", "non è una ricevuta di questo produttore valida per questo archivio", "inviare il file della ricevuta esattamente come fu rilasciato")
		}
		scope.Against = append(scope.Against, checked)
	}
	return scope, nil
}

// against checks one receipt. Within JSON its bytes may have been spelt anew; its canonical form is what counts.
func (x *exchange) against(raw json.RawMessage) (paper.Checked, error) {
	text, err := canon.Marshal(raw)
	if err != nil {
		return paper.Checked{}, err
	}
	r, err := paper.ParseReceipt(text)
	if err != nil {
		return paper.Checked{}, err
	}
	return x.s.cfg.Archive.CheckAgainst(x.producer, r)
}

// progressLines writes the lines of an answer. An audit tells its progress from several goroutines.
type progressLines struct {
	x *exchange

	mu    sync.Mutex
	begun bool
	last  AuditProgress // told by the audit
	shown int64         // percent that the last line said, plus one
}

// tell is told by the audit; a line is written for every percent.
func (p *progressLines) tell(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if done < p.last.Done && total == p.last.Total {
		return // told late
	}
	p.last = AuditProgress{done, total}
	percent := int64(100)
	if total > 0 {
		percent = done * 100 / total
	}
	if percent+1 > p.shown || done == total {
		p.shown = percent + 1
		p.write(p.last)
	}
}

// repeat says again how far it is whenever d has passed, so that nobody in between takes the line for dead.
func (p *progressLines) repeat(d time.Duration) (stop func()) {
	ticker, done := time.NewTicker(d), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-ticker.C:
				p.mu.Lock()
				p.write(p.last)
				p.mu.Unlock()
			case <-done:
				return
			}
		}
	})
	return func() { ticker.Stop(); close(done); running.Wait() }
}

// line writes one line.
func (p *progressLines) line(v any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write(v)
}

// write writes one line and sends it. The lock is held.
func (p *progressLines) write(v any) {
	p.begin()
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // none of our wire types can fail to be written
	}
	// A client that is gone ends the request's context, and with it the audit.
	_, _ = p.x.Write(append(text, '\n'))
	p.x.flush()
}

func (p *progressLines) begin() {
	if !p.begun {
		p.begun = true
		p.x.Header().Set("Content-Type", "application/x-ndjson")
		p.x.WriteHeader(http.StatusOK)
	}
}

// finish writes the last line. The report may be large: it is encoded as it leaves.
func (p *progressLines) finish(out *archive.Audited) error {
	report, err := json.Marshal(out.Report)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin()
	w := p.x
	_, err = fmt.Fprintf(w, `{"report":%s,"recorded":%t,"object":"`, report, out.ID != "")
	enc := base64.NewEncoder(base64.StdEncoding, w)
	if err == nil {
		_, err = io.Copy(enc, out.Reader())
	}
	if err == nil {
		err = enc.Close()
	}
	if err == nil {
		_, err = io.WriteString(w, "\"}\n")
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client is gone; the report stands in the ledger
	}
	return nil
}
