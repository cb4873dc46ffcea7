//go:build crashpoints

package main

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/marchesud/perenne/storage"
)

// This build dies where it is told to, by SIGKILL, as a machine would that loses its power but for what the kernel
// holds. The environment says where:
//
//	PERENNE_CRASH=LABEL          the step to die at
//	PERENNE_CRASH_AFTER=N        die when it is reached for the N+1st time since the trigger; default 0
//	PERENNE_CRASH_TRIGGER=FILE   only once this file exists
//	PERENNE_CRASH_HIT=FILE       gets the label just before the end: the proof that it was this step
//	PERENNE_CRASH_SEEN=FILE      gets every label that is reached since the trigger, once: what there is to die at

// points is what the environment says.
type points struct {
	label, trigger, hit string
	after               int

	mu   sync.Mutex
	seen map[string]bool
	list *os.File
}

var fatal = sync.OnceValue(func() *points {
	p := &points{label: os.Getenv("PERENNE_CRASH"), trigger: os.Getenv("PERENNE_CRASH_TRIGGER"), hit: os.Getenv("PERENNE_CRASH_HIT")}
	p.after, _ = strconv.Atoi(os.Getenv("PERENNE_CRASH_AFTER")) // none is 0
	if name := os.Getenv("PERENNE_CRASH_SEEN"); name != "" {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err) // a harness named it
		}
		p.seen, p.list = map[string]bool{}, f
	}
	return p
})

// reach is at a step.
func (p *points) reach(label string) {
	if p.list == nil && label != p.label {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock() // the first to get here is the one that dies
	if p.trigger != "" {
		if _, err := os.Lstat(p.trigger); err != nil {
			return
		}
	}
	if p.list != nil && !p.seen[label] {
		p.seen[label] = true
		_, _ = p.list.WriteString(label + "\n")
	}
	if label != p.label {
		return
	}
	if p.after > 0 {
		p.after--
		return
	}
	if p.hit != "" {
		if err := os.WriteFile(p.hit, []byte(label+"\n"), 0o600); err != nil {
			panic(err)
		}
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the lock is held: nobody gets past this step
}

func crashPoint() func(label string) { return fatal().reach }

// crashPointOf tells apart the kinds of objects: the label is followed by the room of the bucket.
func crashPointOf() func(label, key string) {
	return func(label, key string) { fatal().reach(label + " " + roomOf(key)) }
}

func roomOf(key string) string {
	parts := strings.Split(key, "/")
	switch {
	case len(parts) < 3, parts[0] == "evidence", parts[0] == "keys", parts[0] == storage.ProbeRoom:
		return parts[0]
	}
	return parts[1]
}

// crashTransport dies around the requests that write to an S3.
func crashTransport() http.RoundTripper {
	return &mortal{&http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256, DisableCompression: true}}
}

type mortal struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (m *mortal) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return m.next.RoundTrip(r)
	}
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/") // path style: the bucket stands first
	what := strings.ToLower(r.Method)
	q := r.URL.Query()
	switch {
	case q.Has("partNumber"):
		what = "part"
	case q.Has("uploads"):
		what = "begin"
	case q.Has("uploadId") && r.Method == http.MethodPost:
		what = "complete"
	case q.Has("retention"):
		what = "lock"
	}
	fatal().reach("s3." + what + ".before " + roomOf(key)) // the server has heard nothing
	resp, err := m.next.RoundTrip(r)
	if err == nil {
		fatal().reach("s3." + what + ".after " + roomOf(key)) // the server has done it, and nobody here knows
	}
	return resp, err
}
