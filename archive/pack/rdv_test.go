package pack

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files again")

func exampleRdV() RdV {
	return RdV{
		ID: "urn:perenne:rdv:c_x901:k3f", Time: time.Date(2026, 3, 9, 10, 11, 12, 0, time.UTC),
		Producer: RdVProducer{"c_x901", "Comune di Montesole", "00000000000"},
		Key:      RdVKey{"unica", "DETE", 2026, "12"}, PackageID: "k3f", Generation: 1,
		Submission: sha256.Sum256([]byte("submission")),
		Files: []RdVFile{
			{"Determina <n. 12> & allegati.pdf", "main", 1234, sha256.Sum256([]byte("a")), "application/pdf"},
			{"a\x00b\xFF_x0041_.txt", "attachment", 0, sha256.Sum256(nil), "text/plain"},
		},
		Checks: []RdVCheck{
			{Rule: "format-admitted", Field: "files[0]", Level: "ok", Message: "PDF"},
			{Rule: "signature", Level: "warning", Message: "non verificata", Remedy: "nessuno"},
		},
		Salt: sha256.Sum256([]byte("salt")), Policy: RdVPolicy{"comune", sha256.Sum256([]byte("policy"))},
		Qualification: "sigillo non qualificato",
	}
}

func exampleRefusal() RdV {
	v := exampleRdV()
	v.Refused, v.PackageID, v.Generation, v.Salt = true, "", 0, [32]byte{}
	return v
}

func TestRdVIsFrozen(t *testing.T) {
	for name, v := range map[string]RdV{"rdv": exampleRdV(), "rifiuto": exampleRefusal()} {
		got, err := MarshalRdV(v)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".xml")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestRdVIsValidAgainstItsSchema(t *testing.T) {
	xsd, err := filepath.Abs("rdv.xsd")
	if err != nil {
		t.Fatal(err)
	}
	wild := exampleRdV()
	wild.Producer.Name, wild.Key.Number, wild.Checks[0].Message = hostile, hostile, hostile
	for name, v := range map[string]RdV{
		"accepted": exampleRdV(), "refused": exampleRefusal(), "hostile": wild,
		"bare": {Refused: true, ID: "x", Time: wild.Time, Producer: RdVProducer{Code: "c_x901"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := MarshalRdV(v)
			if err != nil {
				t.Fatal(err)
			}
			if err := scan(b); err != nil {
				t.Error(err)
			}
			validate(t, xsd, b)
		})
	}
}

func TestRefusalSaysThatNothingWasTakenInCharge(t *testing.T) {
	b, err := MarshalRdV(exampleRefusal())
	if err != nil {
		t.Fatal(err)
	}
	if s := string(b); !strings.Contains(s, "documento non preso in carico") || strings.Contains(s, "RapportoDiVersamento") {
		t.Errorf("got %s", s)
	}
}

func TestRdVNamesTheFieldAtFault(t *testing.T) {
	for field, spoil := range map[string]func(v *RdV){
		"ID is empty":    func(v *RdV) { v.ID = "" },
		"Time":           func(v *RdV) { v.Time = time.Time{} },
		"Producer.Code":  func(v *RdV) { v.Producer.Code = "" },
		"PackageID":      func(v *RdV) { v.PackageID = "" },
		"PackageID goes": func(v *RdV) { v.Refused = true },
		"Files[1].Size":  func(v *RdV) { v.Files[1].Size = -1 },
		"Generation":     func(v *RdV) { v.Generation = -1 },
	} {
		v := exampleRdV()
		spoil(&v)
		if _, err := MarshalRdV(v); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, want %s named", err, field)
		}
	}
}
