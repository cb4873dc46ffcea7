package policies

import (
	"math"
	"strings"
	"testing"
	"time"
)

// submission returns the description of a good submission whose files have the contents given.
func submission(contents ...string) Description {
	no := false
	d := Description{
		Structure: DefaultStructure, Register: "DETE", Year: 2026, Number: "12", Date: "2026-03-09",
		Type: "determina", Subject: "Affidamento lavori", Reserved: &no, Class: "contratti",
	}
	for i, content := range contents {
		f := FileDescription{Name: string(rune('a'+i)) + ".pdf", Role: RoleAttachment, Size: int64(len(content))}
		if i == 0 {
			f.Role = RoleMain
		}
		d.Files = append(d.Files, f)
	}
	return d
}

func TestOneRefusalNamesEveryReason(t *testing.T) {
	p := comune(t)
	const program = "MZ\x90\x00\x03\x00\x00\x00"
	d := submission(program)
	d.Subject, d.Type, d.Date, d.Reserved = " ", "determinazione", "9/3/2026", nil
	d.Files[0].Format, d.Files[0].SHA256 = "application/pdf", strings.Repeat("ab", 32)
	found := append(p.AdmitDescription(d, received), p.AdmitFile(d, 0, foundOf([]byte(program)))...)
	want := "field.required subject, field.required reserved, date.invalid date, type.unknown type, " +
		"digest.mismatch files[0].sha256, format.executable files[0], format.mismatch files[0].format, name.extension files[0].name"
	if got := places(found); got != want || !Refused(found) {
		t.Errorf("got %s want %s", got, want)
	}
	for _, f := range found {
		if f.Message == "" || f.Remedy == "" {
			t.Errorf("%s: got message %q, remedy %q want both", f.Rule, f.Message, f.Remedy)
		}
	}
}

func TestWarningsAloneRefuseNothing(t *testing.T) {
	p := comune(t)
	d := submission("%PDF-1.7 %%EOF")
	d.Date, d.Files[0].Name, d.Class = "2025-12-31", "NUL.pdf", ""
	found := p.AdmitDescription(d, received)
	if got, want := places(found), "date.year date, class.absent class, name.portable files[0].name"; got != want || Refused(found) {
		t.Errorf("got %s, refused %v want %s, not refused", got, Refused(found), want)
	}
}

func TestWarningsNeverHideAnError(t *testing.T) {
	p := comune(t)
	d := submission(make([]string, 1000)...)
	for i := range d.Files {
		d.Files[i].Size, d.Files[i].Name = 1, strings.Repeat("a", i%200)+"?.pdf"
	}
	d.Files[999].SHA256 = "x"
	found := p.AdmitDescription(d, received)
	if !Refused(found) || len(found) > 3*maxFindings {
		t.Errorf("got %d findings, refused %v want a refusal and few findings", len(found), Refused(found))
	}
	if last := found[len(found)-1]; last.Rule != "findings.more" {
		t.Errorf("got %s at the end want findings.more", last.Rule)
	}
}

func TestDatesAreJudgedAgainstTheWholeEarth(t *testing.T) {
	p := comune(t)
	for _, c := range []struct {
		date string
		at   time.Time
		want string
	}{
		{"2026-03-10", time.Date(2026, 3, 9, 23, 30, 0, 0, time.UTC), ""},
		{"2026-03-10", time.Date(2026, 3, 10, 0, 30, 0, 0, time.FixedZone("CET", 3600)), ""},
		{"2026-03-11", time.Date(2026, 3, 10, 9, 59, 0, 0, time.UTC), "date.future date"},
		{"2026-03-11", time.Date(2026, 3, 10, 10, 0, 0, 0, time.UTC), ""},
		{"2026-3-9", received, "date.invalid date"},
		{"2026-03-09T10:00:00Z", received, "date.invalid date"},
		{"0000-01-01", received, "date.invalid date"},
		{"-001-01-01", received, "date.invalid date"},
		{"9999-12-31", received, "date.future date, date.year date"},
		{"1850-05-01", received, "date.year date"},
	} {
		d := submission("x")
		d.Date = c.date
		if got := places(p.AdmitDescription(d, c.at)); got != c.want {
			t.Errorf("%s at %s: got %s want %s", c.date, c.at, got, c.want)
		}
	}
}

func TestKeysMayHoldWhatRegistersHold(t *testing.T) {
	p := comune(t)
	for _, c := range []struct {
		number string
		want   string
	}{
		{"12/bis", ""},
		{"0012", ""},
		{"12 bis", ""},
		{"A-12.3_4", ""},
		{"12°", ""},
		{"№ 7", ""},
		{"12  bis", "key.characters number"},
		{"12\u00a0bis", "key.characters number"},
		{"12\tbis", "key.characters number"},
		{"12\u00ad", "key.characters number"},
		{"12\x00", "key.characters number"},
		{"12\ufffd", "key.characters number"},
		{"12\xff", "key.characters number"},
		{"e\u0301", "text.normalised number"},
		{strings.Repeat("1", 101), "text.length number"},
	} {
		d := submission("x")
		d.Number = c.number
		if got := places(p.AdmitDescription(d, received)); got != c.want {
			t.Errorf("%q: got %s want %s", c.number, got, c.want)
		}
	}
}

func TestSizesAreJudgedWithoutOverflow(t *testing.T) {
	p := comune(t)
	const gib = int64(1) << 30
	for _, c := range []struct {
		name  string
		sizes []int64
		want  string
	}{
		{"at the limits", []int64{16 * gib, 16 * gib, 16 * gib, 16 * gib}, ""},
		{"one byte more in all", []int64{16 * gib, 16 * gib, 16 * gib, 16*gib - 1, 2}, "size.limit files"},
		{"one byte more in one", []int64{16*gib + 1}, "size.limit files[0].size"},
		{"negative", []int64{1, -1}, "size.limit files[1].size"},
		{"sum beyond 64 bits", []int64{math.MaxInt64, math.MaxInt64, math.MaxInt64}, "size.limit files[0].size, size.limit files[1].size, size.limit files[2].size, size.limit files"},
	} {
		d := submission(make([]string, len(c.sizes))...)
		for i := range c.sizes {
			d.Files[i].Size = c.sizes[i]
		}
		if got := places(p.AdmitDescription(d, received)); got != c.want {
			t.Errorf("%s: got %s want %s", c.name, got, c.want)
		}
	}
}

func TestTruncatedFilesAreTold(t *testing.T) {
	p := comune(t)
	p7m := signed(der, attached(der, strings.Repeat("x", 200)))
	zipped := zipOf(t, [2]string{"a.txt", strings.Repeat("abc", 100)})
	for _, c := range []struct {
		name, content string
		want          bool
	}{
		{"whole CMS", p7m, false},
		{"CMS with a line end behind it", p7m + "\r\n", false},
		{"CMS cut", p7m[:len(p7m)-1], true},
		{"BER says nothing", signed(ber, attached(ber, "x"))[:60], false},
		{"whole PDF", "%PDF-1.7\n%%EOF\n", false},
		{"PDF cut", "%PDF-1.7\n", true},
		{"whole ZIP", zipped, false},
		{"ZIP cut", zipped[:len(zipped)-30], true},
	} {
		d := submission(c.content)
		d.Files[0].Name = "a"
		found := p.AdmitFile(d, 0, foundOf([]byte(c.content)))
		if got := strings.Contains(places(found), "format.truncated"); got != c.want {
			t.Errorf("%s: got %s want truncated=%v", c.name, places(found), c.want)
		}
	}
	without := foundOf([]byte("%PDF-1.7\n"))
	without.Tail = nil
	d := submission("%PDF-1.7\n")
	if found := p.AdmitFile(d, 0, without); len(found) != 0 {
		t.Errorf("without the end of the file: got %s want nothing said", places(found))
	}
}

func TestAdmitFileOfNoDeclaredFile(t *testing.T) {
	p := comune(t)
	for _, i := range []int{-1, 1, math.MaxInt} {
		if got := p.AdmitFile(submission("x"), i, foundOf([]byte("x"))); !Refused(got) {
			t.Errorf("file %d: got %s want a refusal", i, places(got))
		}
	}
	if got := places(p.AdmitFile(submission("x"), 0, Found{})); got != "size.zero files[0]" {
		t.Errorf("no bytes: got %s want size.zero", got)
	}
}

func BenchmarkAdmit(b *testing.B) {
	p := comune(b)
	content := []byte("%PDF-1.7\n" + strings.Repeat("0 obj\n", 2000) + "%%EOF\n")
	found := foundOf(content)
	for b.Loop() {
		d, fs := ParseDescription([]byte(determina))
		fs = Join(fs, p.AdmitDescription(d, received))
		fs = append(fs, p.AdmitFile(d, 0, found)...)
		if len(fs) == 0 {
			b.Fatal("the size differs and nothing was said")
		}
	}
}
