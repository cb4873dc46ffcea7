package archive

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
)

// issue seals the report, puts it and enters it.
func (w *audit) issue(ctx context.Context) (*Audited, error) {
	a := w.a
	id, err := a.newSalt()
	if err != nil {
		return nil, fail(Internal, "audit", w.p.Code, err)
	}
	raw, err := hex.DecodeString(id)
	if err != nil {
		return nil, fail(Internal, "audit", w.p.Code, err)
	}
	results, err := w.results.reader()
	if err != nil {
		return nil, storeError("audit", w.p.Code, err)
	}
	out := &Audited{ID: idText.EncodeToString(raw[:20])}
	ended := wholeSecond(a.cfg.Now())
	out.Report = w.report(out.ID, stamp(ended))
	if out.staged, err = a.spool(); err != nil {
		return nil, storeError("audit", w.p.Code, err)
	}
	out.Size, err = paper.WriteReport(ctx, out.staged, out.Report, results, func(ctx context.Context, manifest []byte) ([]byte, error) {
		return a.cfg.Signer.Sign(ctx, manifest, ended)
	})
	if err != nil {
		return nil, errors.Join(fail(Internal, "audit", w.p.Code, err), out.Close())
	}
	w.p.reread.concluded(w.scope, out.Report)
	if err := w.enter(ctx, out); err != nil {
		// The report is true whether or not it can be entered: a rolled back ledger takes no entry.
		out.ID = ""
		a.cfg.Log.Warn("report not entered in the ledger", slog.String("producer", w.p.Code), slog.Any("err", err))
		return out, nil
	}
	a.crash("report.entered")
	w.p.reread.note(w.scope, w.end, w.started, w.unread)
	return out, nil
}

// enter puts the report and appends its entry. A crash between the two leaves an orphan, valid under our key.
func (w *audit) enter(ctx context.Context, out *Audited) error {
	a, p := w.a, w.p
	log, why := p.state()
	switch {
	case !a.writable():
		return errors.Join(errReadOnly, why)
	case log == nil || why != nil:
		return fmt.Errorf("the producer stands still: %w", why)
	}
	size, sum, err := out.staged.Seal(ctx)
	if err != nil {
		return err
	}
	key := reportKey(p.Code, out.Report.Ended[:4], out.ID)
	o := storage.PutOptions{Size: size, SHA256: sum, RetainUntil: a.lockUntil(a.cfg.Now())}
	if err := a.create(ctx, key, out.Reader(), o); err != nil {
		return err
	}
	a.crash("report.stored")
	entry := ledger.Entry{Type: ledger.ReportIssued, ID: out.ID, Object: key, Size: size, SHA256: hex.EncodeToString(sum[:])}
	p.reread.issuing(out.ID)
	if _, err := log.Append(ctx, ledger.Pending{Entry: entry}); err != nil {
		return err
	}
	a.sealer.retry()
	return nil
}

// reportKey is where a report lies.
func reportKey(producer, year, id string) string {
	return fmt.Sprintf("%s/reports/%s/%s.asice", producer, year, id)
}

// report makes the statement.
func (w *audit) report(id, ended string) *paper.Report {
	a, p := w.a, w.p
	selection := w.selection()
	w.storeLost()
	if p.why() != nil {
		w.unchecked("il produttore è fermo: " + p.why().Error())
	}
	r := &paper.Report{
		Kind: paper.KindReport, Identifier: paper.ReportURN(a.cfg.Installation, p.Code, id), Installation: a.cfg.Installation,
		Producer: paper.BodyProducer{Code: p.Code, Name: p.Name, TaxCode: p.TaxCode},
		Started:  stamp(w.started), Ended: ended, Selection: selection,
		Ledger:  paper.ReportLedger{Origin: a.cfg.Installation + "/" + p.Code, Size: w.head.Size, Root: hex.EncodeToString(w.head.Root[:]), Commits: w.commits, Rollback: w.rollback},
		Objects: w.count, Seals: w.seals, Findings: w.all(p.Code), NotChecked: w.allMissed(),
		Protection: protection(a.cfg.Store), Qualification: a.qualification(), Program: a.cfg.Program.Name + " " + a.cfg.Program.Version,
	}
	for _, c := range w.scope.Against {
		r.Ledger.Against = c.Entry.ID
	}
	r.Verdict = paper.VerdictGood
	if len(r.NotChecked) > 0 || w.rollback == notHeld {
		r.Verdict = paper.VerdictIncomplete
	}
	if damaged(r) > 0 {
		r.Verdict = paper.VerdictDamaged
	}
	return r
}

// selection says what was looked at, and notes which of the packages asked for the ledger does not name.
func (w *audit) selection() paper.Selection {
	switch {
	case len(w.scope.IDs) > 0:
		for _, id := range w.scope.IDs {
			if !w.ids[id] {
				w.unchecked("il pacchetto " + id + ", che il giornale non nomina")
			}
		}
		return paper.Selection{What: "packages", IDs: w.scope.IDs}
	case w.scope.End > 0:
		return paper.Selection{What: "range", First: w.scope.First, End: min(w.end, w.scope.End)}
	}
	return paper.Selection{What: "everything"}
}

// damaged counts the findings that are damage.
func damaged(r *paper.Report) int {
	n := 0
	for _, f := range r.Findings {
		if f.Gravity == paper.Damage {
			n++
		}
	}
	return n
}

func protection(s storage.Store) string {
	if p, ok := s.(storage.Protector); ok {
		return p.Protection()
	}
	return "detection only"
}
