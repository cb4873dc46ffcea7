package samples

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/csv"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/marchesud/perenne/policies"
)

var monday = time.Date(2026, 3, 9, 22, 15, 0, 0, time.UTC)

// read gives the content of a file and holds it to the size that was announced.
func read(t *testing.T, f File) []byte {
	t.Helper()
	r := f.Open()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	if int64(len(b)) != f.Size {
		t.Fatalf("%s: got %d bytes, want %d", f.Name, len(b), f.Size)
	}
	return b
}

// each runs check on every file of the format, and fails if there is none.
func each(t *testing.T, format string, check func(t *testing.T, u Unit, f File)) {
	t.Helper()
	n := 0
	for _, u := range All(1, monday) {
		for _, f := range u.Files {
			if f.Format == format {
				n++
				t.Run(u.Producer+"/"+u.Register+"/"+f.Name, func(t *testing.T) { check(t, u, f) })
			}
		}
	}
	if n == 0 {
		t.Fatalf("no file of format %s", format)
	}
}

// tool runs a program that the machine may lack.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed: its opinion is not asked", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// put writes a file for a tool to read.
func put(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnitsAreThoseOfATownHall(t *testing.T) {
	units := All(1, monday)
	if len(units) < 14 {
		t.Errorf("got %d units, want at least 14", len(units))
	}
	keys, producers, types := map[string]bool{}, map[string]int{}, map[string]bool{}
	accented, reserved := false, 0
	for _, u := range units {
		key := strings.Join([]string{u.Producer, u.Structure, u.Register, u.Date[:4], u.Number}, "/")
		if keys[key] {
			t.Errorf("two units have the key %s", key)
		}
		keys[key] = true
		producers[u.Producer]++
		types[u.Type] = true
		if at, err := time.Parse(time.DateOnly, u.Date); err != nil || at.Year() != u.Year || at.After(monday) {
			t.Errorf("%s: date %s, year %d: %v", key, u.Date, u.Year, err)
		}
		if u.Subject == "" || !utf8.ValidString(u.Subject) {
			t.Errorf("%s: subject %q", key, u.Subject)
		}
		if u.Files[0].Role != roleMain {
			t.Errorf("%s: the first file is %s, want main", key, u.Files[0].Role)
		}
		for i, f := range u.Files {
			if i > 0 && f.Role == roleMain {
				t.Errorf("%s: a second main document, %s", key, f.Name)
			}
			accented = accented || strings.ContainsAny(f.Name, "àèéìòùÒ") && strings.Contains(f.Name, " ")
		}
		if u.Reserved {
			reserved++
		}
	}
	for _, p := range []string{"c_x901", "ucolli_x902"} {
		if producers[p] < 5 {
			t.Errorf("got %d units of %s, want at least 5", producers[p], p)
		}
	}
	for _, want := range []string{
		"determina", "delibera", "fattura", "registro-giornaliero-protocollo", "pec",
		"contratto", "permesso-di-costruire", "ordinanza", "verbale", "mandato",
	} {
		if !types[want] {
			t.Errorf("no unit of type %s", want)
		}
	}
	if !accented || reserved == 0 {
		t.Errorf("got accented names with spaces: %v, reserved units: %d; want both", accented, reserved)
	}
}

// Keys must stay apart and dates in their year also where the days before lie in the old year.
func TestKeysAreUniqueOnEveryDay(t *testing.T) {
	for _, day := range []time.Time{
		time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 4, 0, 0, 0, 0, time.UTC),
		time.Date(2028, 2, 29, 0, 0, 0, 0, time.UTC), time.Date(2027, 12, 31, 0, 0, 0, 0, time.UTC),
	} {
		keys := map[string]bool{}
		for _, u := range All(1, day) {
			key := u.Producer + u.Register + u.Date[:4] + "/" + u.Number
			at, err := time.Parse(time.DateOnly, u.Date)
			if keys[key] || err != nil || at.Year() != u.Year {
				t.Errorf("on %s: key %s twice, or date %s not of %d", day.Format(time.DateOnly), key, u.Date, u.Year)
			}
			keys[key] = true
		}
	}
}

func TestDatesAndAmountsAreWrittenAsInItaly(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2026, 3, d, 0, 0, 0, 0, time.UTC) }
	for got, want := range map[string]string{
		withDate("del", day(9)): "del 9 marzo 2026", withDate("del", day(8)): "dell’8 marzo 2026",
		withDate("al", day(11)): "all’11 marzo 2026", withDate("il", day(1)): "il 1° marzo 2026",
		euro(123_456_789): "1.234.567,89", euro(5): "0,05", euro(100_000): "1.000,00", decimal(100_005): "1000.05",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func digests(t *testing.T, units []Unit) map[string][32]byte {
	t.Helper()
	all := map[string][32]byte{}
	for _, u := range units {
		for _, f := range u.Files {
			first := sha256.Sum256(read(t, f))
			if f.Format != formatWAV && sha256.Sum256(read(t, f)) != first {
				t.Errorf("%s: the second Open gives other bytes", f.Name)
			}
			all[u.Producer+"/"+u.Register+"/"+u.Number+"/"+f.Name] = first
		}
	}
	return all
}

func TestSameSeedAndDayGiveTheSameBytes(t *testing.T) {
	a := digests(t, All(7, monday))
	b := digests(t, All(7, monday.Add(-9*time.Hour)))
	if len(a) != len(b) {
		t.Fatalf("got %d and %d files", len(a), len(b))
	}
	for name, sum := range a {
		if b[name] != sum {
			t.Errorf("%s: got other bytes the second time", name)
		}
	}
}

func TestAnotherSeedGivesOtherDocuments(t *testing.T) {
	a, b := All(1, monday), All(2, monday)
	same := 0
	for i := range a {
		if bytes.Equal(read(t, a[i].Files[0]), read(t, b[i].Files[0])) {
			same++
		}
	}
	if same > len(a)/2 {
		t.Errorf("got %d of %d main documents equal under two seeds", same, len(a))
	}
}

func TestPDFsAreSound(t *testing.T) {
	each(t, formatPDF, func(t *testing.T, _ Unit, f File) {
		content := read(t, f)
		if !bytes.HasPrefix(content, []byte("%PDF-1.")) {
			t.Fatalf("got %q", content[:8])
		}
		path := put(t, "document.pdf", content)
		t.Run("qpdf", func(t *testing.T) { tool(t, "qpdf", "--check", path) })
		t.Run("pdfinfo", func(t *testing.T) {
			out := tool(t, "pdfinfo", "-isodates", path)
			if !strings.Contains(out, "Title:") || strings.Contains(out, "Pages:           0") {
				t.Errorf("got %s", out)
			}
		})
		t.Run("pdftotext", func(t *testing.T) {
			out := tool(t, "pdftotext", path, "-")
			if !strings.Contains(out, "è un ente di fantasia") || !strings.Contains(out, "pagina 1 di") || strings.Contains(out, "{nb}") {
				t.Errorf("accents or page numbers are wrong in %s", out)
			}
		})
	})
}

func TestXMLIsWellFormed(t *testing.T) {
	each(t, formatXML, func(t *testing.T, _ Unit, f File) {
		d := xml.NewDecoder(bytes.NewReader(read(t, f)))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// shared is where the schemas lie beside the repository.
const shared = "../../../../shared/data/italy"

func TestInvoicesAndSegnatureAreValidAgainstTheirSchemas(t *testing.T) {
	if _, err := os.Stat(shared); err != nil {
		t.Skipf("no schemas at %s: validity is not checked", shared)
	}
	each(t, formatXML, func(t *testing.T, u Unit, f File) {
		switch {
		case u.Type == "fattura":
			// The published schema imports xmldsig by URL; xmllint is given one that imports a file.
			tool(t, "xmllint", "--nonet", "--noout", "--schema", localSchema(t), put(t, "fattura.xml", read(t, f)))
		case f.Name == "segnatura.xml":
			schema := filepath.Join(shared, "agid-allegato6/previous_schemas/segnatura_protocollo_circolare_60_2013.xsd")
			tool(t, "xmllint", "--nonet", "--noout", "--schema", schema, put(t, "segnatura.xml", read(t, f)))
		}
	})
}

var importLocation = regexp.MustCompile(`(namespace="http://www.w3.org/2000/09/xmldsig#"\s*)schemaLocation="[^"]*"`)

// localSchema makes a copy, for the length of the test, of the FatturaPA schema that imports its neighbour.
func localSchema(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"FatturaPA_v1.2.2.xsd": "fattura.xsd", "xmldsig-core.xsd": "xmldsig.xsd"} {
		b, err := os.ReadFile(filepath.Join(shared, "fatturapa/schemas", from))
		if err != nil {
			t.Fatal(err)
		}
		b = importLocation.ReplaceAll(b, []byte(`${1}schemaLocation="xmldsig.xsd"`))
		if err := os.WriteFile(filepath.Join(dir, to), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "fattura.xsd")
}

func TestSumsOfTheInvoiceAgree(t *testing.T) {
	each(t, formatXML, func(t *testing.T, u Unit, f File) {
		if u.Type != "fattura" {
			return
		}
		var v struct {
			Total string   `xml:"FatturaElettronicaBody>DatiGenerali>DatiGeneraliDocumento>ImportoTotaleDocumento"`
			Net   string   `xml:"FatturaElettronicaBody>DatiBeniServizi>DatiRiepilogo>ImponibileImporto"`
			VAT   string   `xml:"FatturaElettronicaBody>DatiBeniServizi>DatiRiepilogo>Imposta"`
			Lines []string `xml:"FatturaElettronicaBody>DatiBeniServizi>DettaglioLinee>PrezzoTotale"`
		}
		if err := xml.Unmarshal(read(t, f), &v); err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, l := range v.Lines {
			sum += cents(t, l)
		}
		if net, total := cents(t, v.Net), cents(t, v.Total); sum != net || net+cents(t, v.VAT) != total {
			t.Errorf("got lines %d, net %d, VAT %s, total %d", sum, net, v.VAT, total)
		}
	})
}

func cents(t *testing.T, s string) int64 {
	t.Helper()
	var n int64
	for _, c := range strings.Replace(s, ".", "", 1) {
		if c < '0' || c > '9' {
			t.Fatalf("not an amount: %q", s)
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

func TestEnvelopeIsVerifiedByOpenSSL(t *testing.T) {
	each(t, formatP7M, func(t *testing.T, _ Unit, f File) {
		d := newDesk(1, montesole, monday)
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.authority().Raw})
		out := filepath.Join(t.TempDir(), "content.pdf")
		content := read(t, f)
		verify := []string{
			"cms", "-verify", "-cades", "-binary", "-inform", "DER", "-CAfile", put(t, "ca.pem", ca), "-purpose", "any",
			"-attime", "1773100000", "-out", out,
		}
		tool(t, "openssl", append(verify, "-in", put(t, "signed.p7m", content))...)
		if b, err := os.ReadFile(out); err != nil || !bytes.HasPrefix(b, []byte("%PDF-")) {
			t.Errorf("content: %v, %d bytes", err, len(b))
		}
		content[bytes.Index(content, []byte("%PDF-"))+700] ^= 1
		bad := append(verify, "-in", put(t, "damaged.p7m", content))
		if err := exec.Command("openssl", bad...).Run(); err == nil {
			t.Error("openssl accepts a damaged envelope: this test cannot fail")
		}
	})
}

func TestCertifiedMailHoldsWhatItShould(t *testing.T) {
	each(t, formatMail, func(t *testing.T, u Unit, f File) {
		outer := parts(t, bytes.NewReader(read(t, f)))
		inner := parts(t, bytes.NewReader(outer["postacert.eml"]))
		if !bytes.Contains(outer["daticert.xml"], []byte("posta-certificata")) || !bytes.HasPrefix(inner["convocazione.pdf"], []byte("%PDF-")) {
			t.Errorf("got outer parts %d, inner parts %d without what they should hold", len(outer), len(inner))
		}
		if got, want := inner["segnatura.xml"], read(t, u.Files[1]); !bytes.Equal(got, want) {
			t.Error("the segnatura in the mail differs from the unit's attachment")
		}
	})
}

// parts gives the named parts of a message, decoded.
func parts(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	m, err := mail.ReadMessage(r)
	if err != nil {
		t.Fatal(err)
	}
	if subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil || !strings.Contains(subject, "è convocata") {
		t.Errorf("got subject %q, %v", subject, err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	mr := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		var body io.Reader = p
		if p.Header.Get("Content-Transfer-Encoding") == "base64" {
			body = base64.NewDecoder(base64.StdEncoding, p)
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		all[p.FileName()] = b
	}
}

func TestTextFormatsAreReadable(t *testing.T) {
	each(t, formatCSV, func(t *testing.T, _ Unit, f File) {
		r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(read(t, f), []byte("\uFEFF"))))
		r.Comma = ';'
		if rows, err := r.ReadAll(); err != nil || len(rows) < 10 {
			t.Errorf("got %d rows, %v", len(rows), err)
		}
	})
	each(t, formatText, func(t *testing.T, _ Unit, f File) {
		if b := read(t, f); !utf8.Valid(b) || !bytes.Contains(b, []byte("Perché")) {
			t.Errorf("got %q", b)
		}
	})
}

func TestDrawingsAreImages(t *testing.T) {
	each(t, formatPNG, func(t *testing.T, _ Unit, f File) {
		m, err := png.Decode(bytes.NewReader(read(t, f)))
		if err != nil || m.Bounds().Dx() != 1400 {
			t.Fatalf("got %v, %v", m, err)
		}
	})
}

func TestOpenDocumentBeginsWithItsType(t *testing.T) {
	each(t, formatODT, func(t *testing.T, _ Unit, f File) {
		b := read(t, f)
		if got, want := string(b[30:38+len(formatODT)]), "mimetype"+formatODT; got != want {
			t.Errorf("got %q at byte 30, want %q (no extra field, stored)", got, want)
		}
		z, err := zip.NewReader(bytes.NewReader(b), f.Size)
		if err != nil || len(z.File) != 5 {
			t.Fatalf("got %v, %v", z, err)
		}
		for _, part := range z.File[1:] {
			r, err := part.Open()
			if err != nil {
				t.Fatal(err)
			}
			if err := xml.NewDecoder(r).Decode(new(struct{})); err != nil {
				t.Errorf("%s: %v", part.Name, err)
			}
		}
	})
}

func TestRecordingIsSixtyFourMebibytesOfWAV(t *testing.T) {
	each(t, formatWAV, func(t *testing.T, _ Unit, f File) {
		b := read(t, f)
		riff, data := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[40:])
		if f.Size != 64<<20 || string(b[8:16]) != "WAVEfmt " || int64(riff) != f.Size-8 || int64(data) != f.Size-44 {
			t.Errorf("got %d bytes, header % x", f.Size, b[:44])
		}
		if block := b[1<<20 : 1<<20+4096]; bytes.Count(b, block) != 1 {
			t.Error("the recording repeats itself")
		}
		// However small the reader's buffer, the bytes are the same.
		slow := make([]byte, 5000)
		if _, err := io.ReadFull(iotest.OneByteReader(f.Open()), slow); err != nil || !bytes.Equal(slow, b[:5000]) {
			t.Errorf("read byte by byte: other bytes, %v", err)
		}
		odd := f.Open()
		got, chunk := make([]byte, 0, 70_000), make([]byte, 777)
		for len(got) < 70_000-777 {
			n, err := odd.Read(chunk)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, chunk[:n]...)
		}
		if !bytes.Equal(got, b[:len(got)]) {
			t.Error("read in odd pieces: other bytes")
		}
	})
}

// judge gives the findings of the builtin policy on a unit, as a submission of it would meet them.
func judge(t *testing.T, u Unit) []policies.Finding {
	t.Helper()
	p, err := policies.Builtin("comune")
	if err != nil {
		t.Fatal(err)
	}
	d := policies.Description{
		Structure: u.Structure, Register: u.Register, Year: u.Year, Number: u.Number, Date: u.Date,
		Type: u.Type, Subject: u.Subject, Reserved: &u.Reserved, Class: u.Class,
	}
	for _, f := range u.Files {
		d.Files = append(d.Files, policies.FileDescription{Name: f.Name, Role: f.Role, Size: f.Size, Format: f.Format})
	}
	findings := p.AdmitDescription(d, monday)
	for i, f := range u.Files {
		b := read(t, f)
		found := policies.Found{Size: f.Size, SHA256: sha256.Sum256(b), Head: b[:min(4096, len(b))], Tail: b[max(0, len(b)-4096):]}
		findings = append(findings, p.AdmitFile(d, i, found)...)
	}
	return findings
}

func TestBuiltinPolicyAdmitsEveryUnitWithoutAWarning(t *testing.T) {
	for _, u := range All(1, monday) {
		for _, f := range judge(t, u) {
			if f.Level != policies.Info {
				t.Errorf("%s %s/%s: %s %s %s: %s", u.Producer, u.Register, u.Number, f.Level, f.Rule, f.Field, f.Message)
			}
		}
	}
}

func TestBadUnitBreaksFiveRules(t *testing.T) {
	broken := map[string]string{}
	for _, f := range judge(t, Bad(monday)) {
		if f.Level == policies.Error {
			broken[f.Rule] = f.Message
		}
	}
	if len(broken) != 5 {
		t.Errorf("got %d rules broken, want 5: %v", len(broken), broken)
	}
}

func TestBadUnitHasAKeyAndNothingElseInOrder(t *testing.T) {
	u := Bad(monday)
	if u.Producer == "" || u.Register == "" || u.Number == "" || u.Year != 2026 {
		t.Errorf("the key is not in order: %+v", u)
	}
	_, err := time.Parse(time.DateOnly, u.Date)
	program, empty := read(t, u.Files[0]), read(t, u.Files[1])
	if u.Subject != "" || err == nil || !bytes.HasPrefix(program, []byte("MZ")) || len(empty) != 0 {
		t.Errorf("the unit is better than it should be: %+v", u)
	}
}
