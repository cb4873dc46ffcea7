package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
)

// How long a command waits for a daemon: one that nobody seems to have started, and one that has the lock of
// the installation but does not answer yet, as while it makes a large catalog again.
const (
	patience  = 10 * time.Second
	indulgent = time.Minute
)

// lookout is one command looking for its daemon.
type lookout struct {
	s       *session
	began   time.Time
	told    bool
	held    bool        // the lock of the installation, when it was looked at last
	looked  time.Time   // when that was
	stale   os.FileInfo // an address that a daemon left behind when it was killed
	lastErr error
}

// find reads the daemon's address and waits until it answers. Nothing secret goes to an address before two things
// are known: somebody holds the installation's lock, so that the address is not one that a killed daemon left
// behind and a stranger has taken since; and what answers there answers as a daemon does, asked without the token.
func (s *session) find(ctx context.Context) error {
	look := &lookout{s: s, began: time.Now()}
	for {
		if look.once(ctx) {
			return nil
		}
		if err := look.enough(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// once looks once.
func (l *lookout) once(ctx context.Context) bool {
	path := l.s.in.path("state", "address")
	info, err := os.Stat(path)
	if err != nil || l.stale != nil && os.SameFile(info, l.stale) && info.ModTime().Equal(l.stale.ModTime()) {
		// Seldom: for the moment of the look a daemon that is just starting could not have the lock.
		if time.Since(l.looked) > time.Second {
			l.look()
		}
		return false
	}
	if l.look(); !l.held {
		l.stale = info
		return false
	}
	address, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	l.s.Base = strings.TrimSpace(string(address))
	nameless := *l.s.Client
	nameless.Token = ""
	l.lastErr = nameless.Ready(ctx)
	var p *web.Problem
	// Not ready is an answer: what stands still, the command's own request will say.
	return l.lastErr == nil || errors.As(l.lastErr, &p) && p.Status == http.StatusServiceUnavailable
}

// look sees whether somebody holds the lock.
func (l *lookout) look() {
	l.looked = time.Now()
	held, err := lockHeld(l.s.in.path("state", "lock"))
	l.held = held
	if err != nil {
		l.lastErr = err
	}
}

// enough is the error that ends the search, nil while it goes on. After a moment it tells the user to be patient.
func (l *lookout) enough() error {
	waited := time.Since(l.began)
	if !l.told && waited > 2*time.Second {
		l.told = true
		fmt.Fprintf(os.Stderr, "perenne: %s\n", paper.Lang(l.s.Lang).T("in attesa del daemon…", "waiting for the daemon…"))
	}
	if !l.held && waited > patience {
		return laterIn("nessun daemon è in servizio su questa installazione; avviarlo con: perenne serve --dir %s",
			"no daemon runs on this installation; start it with: perenne serve --dir %s", quote(l.s.in.root))
	}
	if waited > indulgent {
		return laterIn("un perenne lavora su questa installazione, ma non risponde ancora: riprovare più tardi (%v)",
			"a perenne works on this installation, but does not answer yet: try again later (%v)", l.lastErr)
	}
	return nil
}

// lockHeld reports whether a process holds the lock on a file.
func lockHeld(file string) (bool, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, f.Close()
	}
	return false, errors.Join(err, f.Close())
}
