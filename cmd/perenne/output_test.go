package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/marchesud/perenne/archive/paper"
)

func testReceipt(number, salt string) *paper.Receipt {
	return &paper.Receipt{Body: paper.Body{
		Kind: paper.KindReceipt, Identifier: "urn:perenne:prova.perenne:c_x901:rdv:" + strings.Repeat(salt, 32), Package: strings.Repeat(salt, 32),
		Producer: paper.BodyProducer{Code: "c_x901"}, Key: paper.BodyKey{Structure: "unica", Register: "DETE", Year: 2026, Number: number}, Salt: salt,
	}, Proof: "proof " + salt}
}

func TestNoReceiptIsWrittenOverAnother(t *testing.T) {
	t.Chdir(t.TempDir())
	want := func(r *paper.Receipt, name string) {
		t.Helper()
		got, err := writeReceipt(receiptName(r), r)
		if err != nil || got != name {
			t.Fatalf("writeReceipt = %s, %v, want %s", got, err, name)
		}
		text, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if there, err := os.ReadFile(name); err != nil || !bytes.Equal(there, text) {
			t.Errorf("%s holds %s, %v", name, there, err)
		}
	}
	one, two := testReceipt("12/A", "a"), testReceipt("12_A", "b")
	want(one, "rdv-DETE-2026-12_A.json")
	want(one, "rdv-DETE-2026-12_A.json")
	want(two, "rdv-DETE-2026-12_A-bbbbbbbb.json")
	want(two, "rdv-DETE-2026-12_A-bbbbbbbb.json")
	sealed := testReceipt("12/A", "a")
	sealed.Evidence.Seal = paper.Sealed
	want(sealed, "rdv-DETE-2026-12_A.json")
	other := testReceipt("12/A", "a")
	other.Proof = "another proof"
	want(other, "rdv-DETE-2026-12_A-aaaaaaaa.json")

	if err := os.WriteFile("mine.txt", []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := writeReceipt("mine.txt", one); err != nil || got != "mine-aaaaaaaa.txt" {
		t.Errorf("writeReceipt over somebody's file = %s, %v, want mine-aaaaaaaa.txt", got, err)
	}
}

func TestReceiptNamesFitIntoFolders(t *testing.T) {
	r := testReceipt(strings.Repeat("1", 300), "a")
	r.Body.Key.Register = "../" + strings.Repeat("è", 300)
	name := receiptName(r)
	if len(name) > 200 || strings.ContainsAny(name, "/.è") && !strings.HasSuffix(name, ".json") {
		t.Errorf("got %s", name)
	}
}

func TestOutputsAreCheckedBeforeTheWork(t *testing.T) {
	in := testInstallation(t, nil)
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(in.path("store"), link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		want int
	}{
		{filepath.Join(dir, "out"), exitFine},
		{os.DevNull, exitFine},
		{in.path("out"), exitFine},
		{in.path("store.zip"), exitFine},
		{dir, exitUsage},
		{filepath.Join(dir, "missing", "out"), exitUsage},
		{in.path("store", "out"), exitUsage},
		{filepath.Join(link, "out"), exitUsage},
		{in.path("state", "heads"), exitUsage},
		{in.path("keys", "names", "out"), exitUsage},
	} {
		if err := in.checkOut(c.path); exitCode(err) != c.want {
			t.Errorf("checkOut(%s) = %v, want exit code %d", c.path, err, c.want)
		}
	}
}

// TestAPipeStaysAPipe writes a paper into one.
func TestAPipeStaysAPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() {
		text, err := os.ReadFile(pipe)
		if err != nil {
			text = []byte(err.Error())
		}
		read <- string(text)
	}()
	r := testReceipt("1", "a")
	if name, err := writeReceipt(pipe, r); err != nil || name != pipe {
		t.Fatalf("writeReceipt = %s, %v", name, err)
	}
	if got := <-read; !strings.Contains(got, r.Body.Identifier) {
		t.Errorf("out of the pipe came %q", got)
	}
	if info, err := os.Stat(pipe); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe is %v, %v now", info, err)
	}
}
