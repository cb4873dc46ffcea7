package paper_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/paper"
)

var update = flag.Bool("update", false, "write the golden files again (papers issued before would no longer verify)")

// exampleReport has a line of every kind in it.
func exampleReport() paper.Report {
	return paper.Report{
		Kind: paper.KindReport, Identifier: paper.ReportURN("prova.perenne", "c_x901", "r7example"), Installation: "prova.perenne",
		Producer: paper.BodyProducer{Code: "c_x901", Name: "Comune di Montesole", TaxCode: "00000000901"},
		Started:  "2026-03-09T12:00:00.000Z", Ended: "2026-03-09T12:00:04.000Z",
		Selection: paper.Selection{What: "range", First: 10, End: 20}, Verdict: paper.VerdictDamaged,
		Ledger:  paper.ReportLedger{Origin: "prova.perenne/c_x901", Size: 20, Root: hexSum("root"), Commits: 4, Rollback: "not checked"},
		Objects: paper.ReportObjectsCount{Expected: 3, Read: 2, Bytes: 4321, Good: 1}, Seals: paper.ReportSeals{Checked: 2, Unsealed: 1},
		Findings: []paper.ReportFinding{
			{Gravity: paper.Damage, Object: "c_x901/packages/k3/k3fexample.asice", Kind: "changed", Text: "è cambiato <il contenuto>", ID: "k3fexample"},
			{Gravity: paper.Notice, Object: "c_x901/packages/k4/k4fexample.asice", Kind: "orphan", Text: "resto di un versamento"},
		},
		NotChecked: []string{"rollback: nessun segno"}, Protection: "detection only", Qualification: paper.Unqualified, Program: "Perenne 1",
		Results: hexSum("results"),
	}
}

// TestWhatIsDerivedFromAPaperIsFrozen holds the functions by which papers already issued are verified to their
// golden files: a difference here means that those papers turn wrong.
func TestWhatIsDerivedFromAPaperIsFrozen(t *testing.T) {
	body := exampleBody(t)
	refusal := body
	refusal.Kind, refusal.Statement, refusal.Package, refusal.Generation = paper.KindRefusal, paper.StatementRefusal, "", 0
	refusal.Identifier = paper.ReceiptURN(body.Installation, body.Producer.Code, "x5example")
	report := exampleReport()
	good := exampleReport()
	good.Verdict, good.Findings, good.NotChecked, good.Ledger.Rollback = paper.VerdictGood, []paper.ReportFinding{}, []string{}, "none"

	for name, derive := range map[string]func() ([]byte, error){
		"body.json":       func() ([]byte, error) { return canon.Marshal(body) },
		"body.xml":        body.XML,
		"body.digest":     func() ([]byte, error) { d, err := body.Digest(); return []byte(d + "\n"), err },
		"submission":      func() ([]byte, error) { return []byte(body.Submission + "\n"), nil },
		"refusal.json":    func() ([]byte, error) { return canon.Marshal(refusal) },
		"refusal.xml":     refusal.XML,
		"refusal.digest":  func() ([]byte, error) { d, err := refusal.Digest(); return []byte(d + "\n"), err },
		"report.json":     func() ([]byte, error) { return canon.Marshal(report) },
		"report.it.txt":   func() ([]byte, error) { return report.Text(paper.Italian), nil },
		"report.en.txt":   func() ([]byte, error) { return report.Text(paper.English), nil },
		"good.it.txt":     func() ([]byte, error) { return good.Text(paper.Italian), nil },
		"good.en.txt":     func() ([]byte, error) { return good.Text(paper.English), nil },
		"copy.readme.txt": func() ([]byte, error) { return paper.ReadMe(exampleStatement(body)), nil },
	} {
		t.Run(name, func(t *testing.T) {
			got, err := derive()
			must(t, err)
			path := filepath.Join("testdata", name)
			if *update {
				must(t, os.WriteFile(path, got, 0o644))
			}
			want, err := os.ReadFile(path)
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func exampleStatement(b paper.Body) paper.Statement {
	return paper.Statement{
		Kind: paper.KindDistribution, Installation: b.Installation, Producer: b.Producer.Code, Package: b.Package,
		SHA256: hexSum("object"), Nature: paper.Duplicate, Qualification: b.Qualification,
	}
}
