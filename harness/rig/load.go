package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/policies"
)

// Load is what clients do at once. The zero value of each field is its default.
type Load struct {
	Clients int // 8
	Size    int // bytes of a document; 2000
	// RefuseEvery makes every so manieth submission one that the policy refuses; 0: none.
	RefuseEvery int64
	// RetryEvery makes a client hand over again, after every so manieth submission, one that was acknowledged; 0: never.
	RetryEvery int64
	// Every is the least time from one submission of a client to its next; 0: at once.
	Every time.Duration
	// Acked, when not nil, is told of each acknowledgement as soon as the client has it.
	Acked func(*Sent)
}

// Sent is a submission that left, or is about to.
type Sent struct {
	Producer string
	Number   string // of the register DETE of 2026
	Refused  bool   // it is one that the policy refuses

	metadata, data []byte

	mu      sync.Mutex
	receipt *paper.Receipt
}

// Receipt is what the client was given; nil while it was given nothing.
func (s *Sent) Receipt() *paper.Receipt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.receipt
}

// ID is the identifier of the package, or of the refusal; "" while there is no receipt.
func (s *Sent) ID() string {
	r := s.Receipt()
	switch {
	case r == nil:
		return ""
	case r.Refused():
		return r.Body.Identifier[strings.LastIndexByte(r.Body.Identifier, ':')+1:]
	}
	return r.Body.Package
}

// Book is what the clients of an installation know: it outlives daemons. All methods may be called concurrently.
type Book struct {
	In   *Installation
	Seed uint64
	// Patience bounds how long a daemon that was just started may answer "later", or a seal may be pending.
	Patience time.Duration

	next  atomic.Int64
	acked atomic.Int64
	busy  atomic.Int64

	mu     sync.Mutex
	list   []*Sent
	bad    []error
	random *rand.Rand // what is handed over again
}

// NewBook is an empty book.
func NewBook(in *Installation, seed uint64) *Book {
	return &Book{In: in, Seed: seed, Patience: 30 * time.Second, random: rand.New(rand.NewPCG(seed, 0))}
}

// Acked is how many submissions were acknowledged so far.
func (b *Book) Acked() int64 { return b.acked.Load() }

// Busy is how often a client was told to come again later.
func (b *Book) Busy() int64 { return b.busy.Load() }

// All returns everything that left so far, in order.
func (b *Book) All() []*Sent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list[:len(b.list):len(b.list)]
}

// Unexpected returns, and forgets, what clients met that no failure of a daemon explains.
func (b *Book) Unexpected() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := errors.Join(b.bad...)
	b.bad = nil
	return err
}

func (b *Book) wrong(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad = append(b.bad, err)
}

// New makes the next submission: a small document that no other has the like of.
func (b *Book) New(l Load) *Sent {
	n := b.next.Add(1)
	random := rand.New(rand.NewPCG(b.Seed, uint64(n)))
	s := &Sent{Producer: b.In.Bodies[n%int64(len(b.In.Bodies))].Code, Number: strconv.FormatInt(n, 10), Refused: l.RefuseEvery > 0 && n%l.RefuseEvery == 0}
	s.data = document(random, l.Size)
	reserved := false
	d := policies.Description{
		Register: "DETE", Year: 2026, Number: s.Number, Date: "2026-03-09", Type: "determina",
		Subject: "Affidamento lavori " + s.Number, Reserved: &reserved,
		Files: []policies.FileDescription{{Name: "determina.pdf", Role: policies.RoleMain, Size: int64(len(s.data))}},
	}
	if s.Refused {
		d.Type = "inesistente"
	}
	s.metadata, _ = json.Marshal(d) // strings and numbers
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, s)
	return s
}

// document is a tiny PDF of about so many bytes, as far as the format rules look into it.
func document(random *rand.Rand, size int) []byte {
	text := "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n% "
	noise := make([]byte, max(16, size/2-80))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	return []byte(text + hex.EncodeToString(noise) + "\ntrailer<</Root 1 0 R>>\n%%EOF\n")
}

// Run lets clients work until ctx ends or every daemon has ended. Client i speaks to daemon i modulo their number.
func (b *Book) Run(ctx context.Context, l Load, daemons ...*Daemon) {
	if l.Clients == 0 {
		l.Clients = 8
	}
	if l.Size == 0 {
		l.Size = 2000
	}
	var clients sync.WaitGroup
	for i := range l.Clients {
		clients.Go(func() {
			d := daemons[i%len(daemons)]
			for n := int64(1); ctx.Err() == nil && !d.Ended(); n++ {
				next := time.Now().Add(l.Every)
				s := b.New(l)
				if b.Hand(ctx, d, s) && l.Acked != nil {
					l.Acked(s)
				}
				if l.RetryEvery > 0 && n%l.RetryEvery == 0 {
					b.retryOne(ctx, d)
				}
				sleep(ctx, time.Until(next))
			}
		})
	}
	clients.Wait()
}

// retryOne hands over again something that was acknowledged.
func (b *Book) retryOne(ctx context.Context, d *Daemon) {
	b.mu.Lock()
	s := b.list[b.random.IntN(len(b.list))]
	b.mu.Unlock()
	if s.Receipt() == nil {
		return
	}
	if r, err := b.submit(ctx, d, s); err == nil {
		if err := same(s.Receipt(), r); err != nil {
			b.wrong(fmt.Errorf("%w: a retry of %s: %w", ErrDoubled, s.Number, err))
		}
	}
}

// Hand hands a submission over once and reports whether it is acknowledged. A client that is told nothing, or
// to come later, knows nothing; one that is answered anything else than a paper is unexpected.
func (b *Book) Hand(ctx context.Context, d *Daemon, s *Sent) bool {
	r, err := b.submit(ctx, d, s)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.receipt != nil {
		if err := same(s.receipt, r); err != nil {
			b.wrong(fmt.Errorf("%w: %s was acknowledged twice: %w", ErrDoubled, s.Number, err))
		}
		return true
	}
	s.receipt = r
	b.acked.Add(1)
	return true
}

// Told hands a submission over once and wants its client to be told to come again later.
func (b *Book) Told(ctx context.Context, d *Daemon, s *Sent) error {
	_, err := b.submit(ctx, d, s)
	var problem *web.Problem
	switch {
	case err == nil:
		return errors.New("it was acknowledged")
	case !errors.As(err, &problem) || problem.RetryAfter <= 0:
		return fmt.Errorf("it was not told to come again later: %w", err)
	}
	return nil
}

func (b *Book) submit(ctx context.Context, d *Daemon, s *Sent) (*paper.Receipt, error) {
	const pause = 20 * time.Millisecond
	files := []web.Upload{{Name: "determina.pdf", Size: int64(len(s.data)), Open: s.open}}
	r, err := d.Client(b.In.token(s.Producer)).Submit(ctx, s.Producer, s.metadata, files, nil)
	var problem *web.Problem
	switch {
	case err == nil:
		if err := s.about(r); err != nil {
			b.wrong(err)
			return nil, err
		}
		return r, nil
	case errors.As(err, &problem) && problem.Status != http.StatusServiceUnavailable && problem.Status != http.StatusTooManyRequests:
		b.wrong(fmt.Errorf("submission %s of %s: HTTP %d: %w", s.Number, s.Producer, problem.Status, err))
	case problem != nil && problem.RetryAfter <= 0:
		b.wrong(fmt.Errorf("submission %s of %s: HTTP %d says not when to come again: %w", s.Number, s.Producer, problem.Status, err))
	case problem != nil:
		b.busy.Add(1)
		sleep(ctx, pause)
	default: // no whole answer
		sleep(ctx, pause)
	}
	return nil, err
}

// Files writes the submission as a producer's system would have it: metadata and document, two files.
func (s *Sent) Files(folder string) (metadata, document string, err error) {
	metadata, document = filepath.Join(folder, "metadata.json"), filepath.Join(folder, "determina.pdf")
	return metadata, document, errors.Join(os.WriteFile(metadata, s.metadata, 0o600), os.WriteFile(document, s.data, 0o600))
}

// Take notes that a receipt was given for a submission by another way than Hand.
func (b *Book) Take(s *Sent, r *paper.Receipt) error {
	if err := s.about(r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.receipt = r
	b.acked.Add(1)
	return nil
}

// Forget takes the receipt away: nobody was told yes.
func (s *Sent) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.receipt = nil
}

// Copy is a book of the same knowledge about a copy of the installation.
func (b *Book) Copy(in *Installation) *Book {
	c := NewBook(in, b.Seed)
	c.Patience = b.Patience
	c.next.Store(b.next.Load())
	for _, s := range b.All() {
		c.list = append(c.list, &Sent{Producer: s.Producer, Number: s.Number, Refused: s.Refused, metadata: s.metadata, data: s.data, receipt: s.Receipt()})
	}
	return c
}

func (s *Sent) open() (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(string(s.data))), nil
}

// about holds a paper against what was sent.
func (s *Sent) about(r *paper.Receipt) error {
	sum := sha256.Sum256(s.data)
	switch b := r.Body; {
	case r.Refused() != s.Refused:
		return fmt.Errorf("submission %s: refused is %v, want %v", s.Number, r.Refused(), s.Refused)
	case b.Producer.Code != s.Producer || b.Key.Number != s.Number:
		return fmt.Errorf("submission %s of %s: the paper is about %s of %s", s.Number, s.Producer, b.Key.Number, b.Producer.Code)
	case len(b.Files) != 1 || b.Files[0].SHA256 != hex.EncodeToString(sum[:]):
		return fmt.Errorf("submission %s of %s: the paper is about another file", s.Number, s.Producer)
	}
	return nil
}

func (in *Installation) token(producer string) string {
	for _, p := range in.Bodies {
		if p.Code == producer {
			return p.Token
		}
	}
	return in.Admin
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
