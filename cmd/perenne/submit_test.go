package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/archive/paper"
)

// standIn answers for the daemon of an installation: it holds the lock, is ready, and does with submissions as told.
func standIn(t *testing.T, in *installation, submissions http.HandlerFunc) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /api/v1/producers/c_x901/submissions", submissions)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	if err := os.WriteFile(in.path("state", "address"), []byte(server.URL), 0o644); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(in.path("state", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

// submitOne runs the command and returns what it said.
func submitOne(ctx context.Context, t *testing.T, in *installation, receipt string) (out, fault string, code int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "determina.pdf")
	if err := os.WriteFile(file, []byte("%PDF-1.7"), 0o644); err != nil {
		t.Fatal(err)
	}
	app := newApp()
	var said, wrong bytes.Buffer
	app.Writer, app.ErrWriter = &said, &wrong
	err := app.RunContext(ctx, []string{"perenne", "submit", "--lang", "en", "--dir", in.root, "--register", "DETE", "--year", "2026", "--number", "12", "--receipt", receipt, file})
	if err != nil {
		explain(&wrong, paper.English, err)
	}
	return said.String(), wrong.String(), exitCode(err)
}

func TestCtrlCWhileSubmittingSaysThatNothingWasAcknowledged(t *testing.T) {
	in := testInstallation(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	standIn(t, in, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that the client is gone
		cancel()
		<-r.Context().Done()
	})
	receipt := filepath.Join(t.TempDir(), "r.json")
	_, fault, code := submitOne(ctx, t, in, receipt)
	if want := "interrupted: nothing was acknowledged, submitting again is safe"; code != exitLater || !strings.Contains(fault, want) {
		t.Errorf("got %d, %q, want %d, %q", code, fault, exitLater, want)
	}
	if _, err := os.Stat(receipt); err == nil {
		t.Error("there is a receipt")
	}
}

// TestAReceiptThatCannotBeWrittenDoesNotHideTheAcceptance takes away the place of the receipt while the daemon works.
func TestAReceiptThatCannotBeWrittenDoesNotHideTheAcceptance(t *testing.T) {
	in := testInstallation(t, nil)
	place, want := filepath.Join(t.TempDir(), "r.json"), testReceipt("12", "a")
	standIn(t, in, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		text, err := want.Marshal()
		if err := os.Mkdir(place, 0o755); err != nil {
			t.Error(err)
		}
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(text)
	})
	out, fault, code := submitOne(t.Context(), t, in, place)
	if code != exitUsage || !strings.Contains(out, "accepted  c_x901 DETE 2026/12  id "+want.Body.Package+"  receipt NOT WRITTEN") {
		t.Errorf("got %d, %q, want %d and the line of the acceptance", code, out, exitUsage)
	}
	if want := "perenne receipt --dir " + in.root + " --producer c_x901 " + want.Body.Package + " --out FILE"; !strings.Contains(fault, want) {
		t.Errorf("got %q, want %q in it", fault, want)
	}
}
