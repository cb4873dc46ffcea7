package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/marchesud/perenne/archive/web"
)

// Daemon is one life of perenne serve.
type Daemon struct {
	In   *Installation
	Base string // http://127.0.0.1:…
	Log  string // file of what it printed

	cmd  *exec.Cmd
	wrap bool // cmd is a command that runs the daemon
	http *http.Client
	done chan struct{}
}

// ErrDied means that the daemon ended before it served.
var ErrDied = errors.New("the daemon ended before it served")

// startTime bounds how long a daemon may take until it serves, where the installation does not say.
const startTime = time.Minute

// Start starts the daemon and returns when it serves. One that dies before is returned with ErrDied, so that its end
// can be looked at. env are variables for it alone; wrap, when given, is a command that runs it (strace, ip netns).
func (in *Installation) Start(ctx context.Context, env []string, args []string, wrap ...string) (*Daemon, error) {
	if err := os.Remove(in.Path("state", "address")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	d := &Daemon{
		In: in, Log: in.Path("daemon.log"), done: make(chan struct{}),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128, ExpectContinueTimeout: time.Second}},
	}
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	d.wrap = len(wrap) > 0
	line := append(append(append([]string{}, wrap...), in.Program, "serve", "--dir", in.Root), args...)
	d.cmd = exec.Command(line[0], line[1:]...)
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	go func() {
		_ = d.cmd.Wait() // Killed and State tell how
		close(d.done)
	}()
	return d, d.serving(ctx)
}

// serving waits for the address, which the daemon writes once it listens.
func (d *Daemon) serving(ctx context.Context) error {
	within := d.In.StartTime
	if within == 0 {
		within = startTime
	}
	limit := time.After(within)
	for {
		text, err := os.ReadFile(d.In.Path("state", "address"))
		if err == nil && strings.HasSuffix(string(text), "\n") {
			d.Base = strings.TrimSpace(string(text))
			return nil
		}
		select {
		case <-d.done:
			return fmt.Errorf("%w (%s): %s", ErrDied, d.cmd.ProcessState, d.Tail())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), d.Kill())
		case <-limit:
			return errors.Join(fmt.Errorf("the daemon does not serve after %v: %s", within, d.Tail()), d.Kill())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Client speaks to the daemon.
func (d *Daemon) Client(token string) *web.Client {
	return &web.Client{Base: d.Base, Token: token, Lang: "en", HTTP: d.http}
}

// Process is the daemon's process: the child of the command that runs it, where there is one.
func (d *Daemon) Process() *os.Process {
	pid := d.cmd.Process.Pid
	if !d.wrap {
		return d.cmd.Process
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return d.cmd.Process
	}
	var child int
	if _, err := fmt.Sscan(string(text), &child); err != nil {
		return d.cmd.Process
	}
	p, err := os.FindProcess(child)
	if err != nil {
		return d.cmd.Process
	}
	return p
}

// Status is what /proc says of the process in numbers, such as VmRSS, VmHWM and RssAnon, memory in KiB; empty when it
// has ended.
func (d *Daemon) Status() map[string]int64 {
	all := map[string]int64{}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Process().Pid))
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); len(f) > 0 {
			all[name], _ = strconv.ParseInt(f[0], 10, 64) // not all are numbers
		}
	}
	return all
}

// Done is closed when the process has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Ended reports whether the process has ended.
func (d *Daemon) Ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// Killed waits, at most so long, for the process to end and reports whether SIGKILL ended it.
func (d *Daemon) Killed(within time.Duration) bool {
	select {
	case <-d.done:
	case <-time.After(within):
		return false
	}
	s, ok := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && s.Signaled() && s.Signal() == syscall.SIGKILL
}

// Later reports whether the process has ended with the code that asks to be started again later, as systemd does.
func (d *Daemon) Later() bool {
	const tempFail = 75
	return d.Ended() && d.cmd.ProcessState.ExitCode() == tempFail
}

// Kill ends the process at once, with SIGKILL.
func (d *Daemon) Kill() error {
	_ = d.Process().Kill() // it may have ended
	_ = d.cmd.Process.Kill()
	<-d.done
	d.http.CloseIdleConnections()
	return nil
}

// Pause stops the process where it is; Resume lets it go on.
func (d *Daemon) Pause() error { return d.Process().Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (d *Daemon) Resume() error { return d.Process().Signal(syscall.SIGCONT) }

// stopTime bounds an orderly stop.
const stopTime = 40 * time.Second

// Stop tells the daemon to stop and waits for it; an end that is not orderly is an error.
func (d *Daemon) Stop() error {
	_ = d.Process().Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-d.done:
	case <-time.After(stopTime):
		return errors.Join(fmt.Errorf("the daemon did not stop within %v: %s", stopTime, d.Tail()), d.Kill())
	}
	d.http.CloseIdleConnections()
	if !d.cmd.ProcessState.Success() {
		return fmt.Errorf("the daemon stopped with %s: %s", d.cmd.ProcessState, d.Tail())
	}
	return nil
}

// Tail is the end of what the daemon printed.
func (d *Daemon) Tail() string {
	const most = 2000
	text, err := os.ReadFile(d.Log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}
