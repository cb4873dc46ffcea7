package paper_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/signing/signingtest"
)

func TestTimesThatContradictEachOtherAreNotGood(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		stated, entered, stamped time.Duration // from noon
		want                     paper.Verdict
	}{
		"in order":                           {0, 20 * time.Millisecond, time.Second, paper.Good},
		"entered two days later":             {-2 * day, 0, time.Second, paper.Good},
		"entered later still":                {-2*day - time.Second, 0, time.Second, paper.CannotTell},
		"dated back a year":                  {-365 * day, 0, time.Second, paper.CannotTell},
		"stated after the entry, by a clock": {time.Minute, 0, time.Second, paper.Good},
		"stated after the entry":             {time.Minute + time.Second, 0, time.Hour, paper.Wrong},
		"entered after the stamp, a clock":   {0, time.Minute, 0, paper.Good},
		"entered after the stamp":            {0, 3 * time.Minute, 0, paper.Wrong},
		"stamped a month later":              {0, time.Second, 30 * day, paper.Good},
	} {
		t.Run(name, func(t *testing.T) {
			body := exampleBody(t)
			body.Time = noon.Add(c.stated).Format(paper.TimeFormat)
			r, trust := forge(t, body, noon.Add(c.entered), noon.Add(c.stamped))
			res, _ := r.Check(trust, paper.English)
			if got := res.Verdict(); got != c.want {
				t.Errorf("got %v, want %v: %+v", got, c.want, res.Lines)
			}
		})
	}
}

func TestAReceiptMayNotCallItsSealQualifiedWhenTheTokenIsNot(t *testing.T) {
	for word, want := range map[string]paper.Verdict{paper.Unqualified: paper.Good, paper.Qualified: paper.Wrong, "": paper.Wrong, "qualificatissimo": paper.Wrong} {
		body := exampleBody(t)
		body.Qualification = word
		r, trust := forge(t, body, noon, noon)
		res, _ := r.Check(trust, paper.Italian)
		if got := res.Verdict(); got != want {
			t.Errorf("%q: got %v, want %v: %+v", word, got, want, res.Lines)
		}
		if want == paper.Good && !strings.Contains(text(res), "non qualificata") {
			t.Errorf("%q is not told: %+v", word, res.Lines)
		}
	}
}

func TestAReportMayNotCallItsSealQualifiedWhenTheCertificateIsNot(t *testing.T) {
	kit := signingtest.New(t)
	trust := paper.Trust{Certificates: kit.Trust}
	for word, want := range map[string]paper.Verdict{paper.Unqualified: paper.Good, paper.Qualified: paper.Wrong, "": paper.Wrong} {
		rep := exampleReport()
		rep.Qualification = word
		now := kitNow()
		rep.Ended = now.Format(paper.TimeFormat)
		res := check(t, trust, paper.Italian, writeReport(t, kit, &rep, now))
		if got := res.Verdict(); got != want {
			t.Errorf("%q: got %v, want %v: %+v", word, got, want, res.Lines)
		}
		if want == paper.Good && !(strings.Contains(text(&res), "non qualificata") && strings.Contains(text(&res), "dichiara")) {
			t.Errorf("%q, or that its date is stated, is not told: %+v", word, res.Lines)
		}
	}
}

// kitNow is a time at which the certificates of signingtest.New are valid, as papers state it.
func kitNow() time.Time { return time.Now().UTC().Truncate(time.Second) }

func text(res *paper.Result) string {
	var b strings.Builder
	for _, l := range res.Lines {
		b.WriteString(l.Text + "\n")
	}
	return b.String()
}

// check verifies one file alone.
func check(t testing.TB, trust paper.Trust, l paper.Lang, path string) paper.Result {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	return paper.Verify(ctx, trust, l, []paper.File{{Name: "carta", Size: info.Size(), ReaderAt: f}})[0]
}

// writeReport signs a report and gives the path of its file.
func writeReport(t testing.TB, kit *signingtest.Kit, rep *paper.Report, at time.Time) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.asice")
	f, err := os.Create(path)
	must(t, err)
	_, err = paper.WriteReport(ctx, f, rep, io.NewSectionReader(strings.NewReader("{}\n"), 0, 3), func(ctx context.Context, manifest []byte) ([]byte, error) {
		return kit.Signer.Sign(ctx, manifest, at)
	})
	must(t, err)
	must(t, f.Close())
	return path
}

func TestAReportThatOutgrowsOtherMembersIsReadBack(t *testing.T) {
	if testing.Short() {
		t.Skip("writes and reads 65 MiB; left out by -short")
	}
	kit := signingtest.New(t)
	now := kitNow()
	rep := exampleReport()
	rep.Ended = now.Format(paper.TimeFormat)
	rep.Findings[0].Text = strings.Repeat("x", 65<<20)
	res := check(t, paper.Trust{Certificates: kit.Trust}, paper.English, writeReport(t, kit, &rep, now))
	if got := res.Verdict(); got != paper.Good {
		t.Errorf("got %v, want good: %.200s", got, text(&res))
	}
}
