package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAStrangerOnAStaleAddressGetsNoToken has somebody else listen where a killed daemon did.
func TestAStrangerOnAStaleAddressGetsNoToken(t *testing.T) {
	in := testInstallation(t, nil)
	var asked, secrets atomic.Int64
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "" {
			secrets.Add(1)
		}
		w.WriteHeader(http.StatusOK)
	}))
	defer stranger.Close()
	if err := os.WriteFile(in.path("state", "address"), []byte(stranger.URL+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := in.sessionFor("it")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := s.find(ctx); exitCode(err) != exitLater {
		t.Errorf("find = %v, want an error that says later", err)
	}
	if asked.Load() != 0 {
		t.Errorf("the stranger was asked %d times though nobody holds the lock, want 0", asked.Load())
	}

	// While the lock is held it may be asked whether it is ready, without the token.
	lock, err := os.Create(in.path("state", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := s.find(t.Context()); err != nil {
		t.Errorf("find = %v", err)
	}
	if asked.Load() == 0 || secrets.Load() != 0 {
		t.Errorf("asked %d times, %d of them with the token, want some and 0", asked.Load(), secrets.Load())
	}
}

func TestWhatAnswersLikeNoDaemonIsNone(t *testing.T) {
	in := testInstallation(t, nil)
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	for name, text := range map[string]string{"address": stranger.URL, "lock": ""} {
		if err := os.WriteFile(in.path("state", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.Open(in.path("state", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	s, err := in.sessionFor("it")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := s.find(ctx); exitCode(err) != exitLater {
		t.Errorf("find = %v, want an error that says later", err)
	}
}

func TestALockIsSeenWhileItIsHeld(t *testing.T) {
	state := t.TempDir()
	lock := filepath.Join(state, "lock")
	if held, err := lockHeld(lock); held || err != nil {
		t.Errorf("without a file: got %t, %v, want false", held, err)
	}
	o := &opened{}
	if err := o.lock(state); err != nil {
		t.Fatal(err)
	}
	if held, err := lockHeld(lock); !held || err != nil {
		t.Errorf("held: got %t, %v, want true", held, err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if held, err := lockHeld(lock); held || err != nil {
		t.Errorf("given back: got %t, %v, want false", held, err)
	}
}
