package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/s3"
)

const (
	producer = "c_x901"
	origin   = "prova.perenne/" + producer
)

// setting is what writers share: the bucket and the ledger's key. Each keeps its mark and its index under State.
type setting struct {
	Dir                                    string `json:",omitempty"` // the embedded store, or
	Endpoint, AccessKey, SecretKey, Bucket string // an S3
	State                                  string
	Key, Verifier                          string
	First, Writers, Each                   int // of one process
}

func newSetting(state string) (*setting, error) {
	key, verifier, err := note.GenerateKey(rand.Reader, origin)
	return &setting{State: state, Key: key, Verifier: verifier}, errors.Join(err, os.MkdirAll(state, 0o755))
}

// head is a commit as a writer was told of it.
type head struct {
	Number           int64
	Digest, Previous string
}

// op is one append, or one read of the head when Entry is empty. Times are of the machine's monotonic clock, which
// its processes share.
type op struct {
	Writer int
	Entry  string `json:",omitempty"` // what it appended, unlike any other
	head
	Call, Return int64
	Unknown      bool `json:",omitempty"` // it was not answered
}

// told is a line of a process of writers: an operation, or how many commits of others one writer followed.
type told struct {
	Op       *op   `json:",omitempty"`
	Followed int64 `json:",omitempty"`
}

const forEver = math.MaxInt64

// readEvery makes every so manieth operation be followed by a read.
const readEvery = 10

func (s *setting) open(ctx context.Context) (storage.Store, error) {
	if s.Dir != "" {
		return dir.Open(s.Dir, dir.Options{Immutable: dir.Off})
	}
	return s3.Open(ctx, s3.Options{Endpoint: s.Endpoint, AccessKey: s.AccessKey, SecretKey: s.SecretKey, Bucket: s.Bucket, Lock: s3.Governance, Now: time.Now})
}

func (s *setting) verifiers() (note.Verifiers, error) {
	v, err := note.NewVerifier(s.Verifier)
	return note.VerifierList(v), err
}

// log opens the ledger as one machine would.
func (s *setting) log(ctx context.Context, store storage.Store, writer int) (*ledger.Log, error) {
	state := filepath.Join(s.State, strconv.Itoa(writer))
	signer, err1 := note.NewSigner(s.Key)
	verifiers, err2 := s.verifiers()
	heads, err3 := ledger.OpenHeads(filepath.Join(state, "heads"))
	if err := errors.Join(err1, err2, err3, os.MkdirAll(state, 0o755)); err != nil {
		return nil, err
	}
	return ledger.Open(ctx, ledger.Config{
		Producer: producer, Origin: origin, Signer: signer, Verifiers: verifiers, Store: store,
		Dir: filepath.Join(state, "index"), Heads: heads, Now: time.Now, AppliedTo: -1, TrustBucketHead: true,
		RetainUntil: func(t time.Time) time.Time { return t.Add(time.Hour) },
	})
}

// write makes a writer's appends, one after the other.
func (s *setting) write(ctx context.Context, l *ledger.Log, writer int, tell func(op)) error {
	for i := range s.Each {
		o := op{Writer: writer, Entry: fmt.Sprintf("%032x%032x", writer, i), Call: monotonic()}
		done, err := l.Append(ctx, ledger.Pending{Entry: ledger.Entry{Type: ledger.HoldPlaced, Cause: o.Entry}})
		o.Return = monotonic()
		if err != nil && !errors.Is(err, storage.ErrUnknown) {
			return fmt.Errorf("writer %d: %w", writer, err)
		}
		if err == nil {
			if o.head, err = headOf(ctx, l, done.Commit); err != nil {
				return err
			}
		} else {
			o.Unknown = true
		}
		tell(o)
		if i%readEvery != 0 {
			continue
		}
		o = op{Writer: writer, Call: monotonic()}
		if err := l.Refresh(ctx); err != nil {
			return fmt.Errorf("writer %d reads: %w", writer, err)
		}
		n := l.Head().Number // nobody else moves it: a writer has a ledger of its own
		o.Return = monotonic()
		if o.head, err = headOf(ctx, l, n); err != nil {
			return err
		}
		tell(o)
	}
	return nil
}

func headOf(ctx context.Context, l *ledger.Log, n int64) (head, error) {
	c, err := l.Commit(ctx, n)
	if err != nil {
		return head{}, err
	}
	return head{n, fmt.Sprintf("%x", c.SHA256), fmt.Sprintf("%x", c.Previous)}, nil
}

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it exists
	return t.Nano()
}

// child is a process of writers: it reads its setting, says that all are open, waits for a line, and prints what each
// was told.
func child(ctx context.Context) error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var s setting
	if err := json.Unmarshal(line, &s); err != nil {
		return err
	}
	logs := make([]*ledger.Log, s.Writers)
	for i := range logs {
		store, err := s.open(ctx)
		if err != nil {
			return err
		}
		if logs[i], err = s.log(ctx, store, s.First+i); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	if _, err := in.ReadBytes('\n'); err != nil {
		return err
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	tell := func(o op) {
		text, _ := json.Marshal(told{Op: &o}) // strings and numbers
		mu.Lock()
		defer mu.Unlock()
		_, _ = out.Write(append(text, '\n')) // Flush tells
	}
	errs := make([]error, len(logs))
	var work sync.WaitGroup
	for i, l := range logs {
		work.Go(func() { errs[i] = s.write(ctx, l, s.First+i, tell) })
	}
	work.Wait()
	for _, l := range logs {
		text, _ := json.Marshal(told{Followed: l.Followed()}) // a number
		_, _ = out.Write(append(text, '\n'))
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, out.Flush())...)
}

// spawn runs the writers in their processes and returns what they were told, and how many commits of others they followed
// in all.
func (s *setting) spawn(ctx context.Context, p *plan) ([]op, int64, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	type process struct {
		cmd *exec.Cmd
		in  io.WriteCloser
		out *bufio.Reader
	}
	var processes []process
	defer func() {
		for _, c := range processes {
			_ = c.cmd.Process.Kill() // it has ended, unless we failed
			_ = c.cmd.Wait()
		}
	}()
	for i := range p.processes {
		one := *s
		one.First = i * p.writers / p.processes
		one.Writers, one.Each = (i+1)*p.writers/p.processes-one.First, p.each
		text, _ := json.Marshal(one) // strings and numbers
		c := process{cmd: exec.CommandContext(ctx, self, "writers")}
		c.cmd.Stderr = os.Stderr
		out, err1 := c.cmd.StdoutPipe()
		in, err2 := c.cmd.StdinPipe()
		if err := errors.Join(err1, err2, c.cmd.Start()); err != nil {
			return nil, 0, err
		}
		c.in, c.out = in, bufio.NewReader(out)
		processes = append(processes, c)
		if _, err := in.Write(append(text, '\n')); err != nil {
			return nil, 0, err
		}
		if line, err := c.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
			return nil, 0, fmt.Errorf("process %d does not begin: %q, %w", i, line, err)
		}
	}
	for _, c := range processes {
		if _, err := io.WriteString(c.in, "go\n"); err != nil {
			return nil, 0, err
		}
	}
	lines := make([][]op, len(processes))
	followed := make([]int64, len(processes))
	errs := make([]error, len(processes))
	var reading sync.WaitGroup
	for i, c := range processes {
		reading.Go(func() {
			d := json.NewDecoder(c.out)
			for {
				var t told
				if err := d.Decode(&t); err != nil {
					if !errors.Is(err, io.EOF) {
						errs[i] = err
					}
					return
				}
				followed[i] += t.Followed
				if t.Op != nil {
					lines[i] = append(lines[i], *t.Op)
				}
			}
		})
	}
	reading.Wait()
	var history []op
	var all int64
	for i, c := range processes {
		errs[i] = errors.Join(errs[i], c.cmd.Wait())
		history = append(history, lines[i]...)
		all += followed[i]
	}
	return history, all, errors.Join(errs...)
}

// walk reads the ledger from the bucket alone: where each entry stands, and how many commits there are.
func (s *setting) walk(ctx context.Context) (map[string]head, int64, error) {
	store, err1 := s.open(ctx)
	verifiers, err2 := s.verifiers()
	if err := errors.Join(err1, err2); err != nil {
		return nil, 0, err
	}
	standing := map[string]head{}
	var n int64
	for c, err := range ledger.Walk(ctx, store, producer, verifiers, 0, -1) {
		if err != nil {
			return nil, 0, fmt.Errorf("the ledger is not whole: %w", err)
		}
		if c.Number != n {
			return nil, 0, fmt.Errorf("commit %d where %d belongs", c.Number, n)
		}
		n++
		for _, e := range c.Entries {
			if e.Type != ledger.HoldPlaced {
				continue
			}
			if _, twice := standing[e.Cause]; twice {
				return nil, 0, fmt.Errorf("DOUBLED: entry %s", e.Cause)
			}
			standing[e.Cause] = head{c.Number, fmt.Sprintf("%x", c.SHA256), fmt.Sprintf("%x", c.Previous)}
		}
	}
	return standing, n, nil
}
