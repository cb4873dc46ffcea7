package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Load is what a round sends.
type Load struct {
	Size      int64 // of a document, bytes
	Clients   int   // that send at once
	Producers []string
	// A round ends with the first of these: time, documents, bytes. Documents begun then are finished.
	Duration  time.Duration
	Documents int64
	Bytes     int64
}

// Target takes documents.
type Target interface {
	// Send hands over one document and returns when it was acknowledged.
	Send(ctx context.Context, d Document) error
	// Settle returns when everything acknowledged is proved as well as it ever will be.
	Settle(ctx context.Context) error
}

// Series numbers documents, so that no two of a run have the same key.
type Series struct{ next atomic.Int64 }

// Rate is what a round gives.
type Rate struct {
	PerSecond float64 `json:"per_second"` // documents
	// Processor is the time of processors that a document took in this process, clients included, in seconds.
	Processor float64 `json:"processor_seconds"`
}

// Round sends documents of a series to a target and tells how fast it took them. The first error ends it.
func (l Load) Round(ctx context.Context, to Target, series *Series) (Rate, error) {
	if l.Size < smallest {
		return Rate{}, fmt.Errorf("a document has at least %d bytes", smallest)
	}
	used := ProcessorTime()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	var begun, done atomic.Int64
	var clients sync.WaitGroup
	for c := range l.Clients {
		clients.Go(func() {
			for ctx.Err() == nil {
				n := begun.Add(1)
				if n > 1 && (time.Since(start) >= l.Duration || l.Documents > 0 && n > l.Documents || l.Bytes > 0 && n*l.Size > l.Bytes) {
					return
				}
				number := series.next.Add(1)
				if err := to.Send(ctx, Document{l.Producers[(c+int(number))%len(l.Producers)], number, l.Size}); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	clients.Wait()
	if err := context.Cause(ctx); err != nil {
		return Rate{}, err
	}
	if err := to.Settle(ctx); err != nil {
		return Rate{}, err
	}
	n := float64(done.Load())
	return Rate{n / time.Since(start).Seconds(), (ProcessorTime() - used).Seconds() / n}, nil
}

// ProcessorTime is the time of processors that this process has used.
func ProcessorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// HTTPTarget is reached over HTTP.
type HTTPTarget struct {
	URL   string // without a path
	Token string
	// Archive says that a receipt and a seal are to be waited for.
	Archive bool
	client  http.Client
	noise   []byte
}

// NewHTTPTarget makes a target for some clients at once.
func NewHTTPTarget(url, token string, archive bool, clients int) *HTTPTarget {
	return &HTTPTarget{
		URL: url, Token: token, Archive: archive, noise: noise(),
		client: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients, DisableCompression: true}},
	}
}

// Send implements [Target].
func (t *HTTPTarget) Send(ctx context.Context, d Document) error {
	body, length := d.form(t.noise)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL+"/api/v1/producers/"+d.Producer+"/submissions", body)
	if err != nil {
		return err
	}
	r.ContentLength = length
	r.Header.Set("Content-Type", "multipart/form-data; boundary="+boundary)
	text, status, err := t.do(r)
	if err == nil && status != http.StatusCreated {
		err = fmt.Errorf("HTTP %d: %.300s", status, text)
	}
	return err
}

func (t *HTTPTarget) do(r *http.Request) ([]byte, int, error) {
	r.Header.Set("Authorization", "Bearer "+t.Token)
	resp, err := t.client.Do(r)
	if err != nil {
		return nil, 0, err
	}
	text, err := io.ReadAll(resp.Body)
	return text, resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// Settle implements [Target]: it asks the archive until nothing is unsealed.
func (t *HTTPTarget) Settle(ctx context.Context) error {
	for t.Archive {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL+"/api/v1/status", http.NoBody)
		if err != nil {
			return err
		}
		text, status, err := t.do(r)
		if err != nil {
			return err
		}
		var h struct {
			SealError string `json:"seal_error"`
			Producers []struct {
				Unsealed int64 `json:"unsealed"`
			} `json:"producers"`
		}
		if err := json.Unmarshal(text, &h); err != nil || status != http.StatusOK {
			return fmt.Errorf("status: HTTP %d: %.300s", status, text)
		}
		if h.SealError != "" {
			return fmt.Errorf("seals are not made: %s", h.SealError)
		}
		unsealed := int64(0)
		for _, p := range h.Producers {
			unsealed += p.Unsealed
		}
		if unsealed == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// Close lets connections go.
func (t *HTTPTarget) Close() { t.client.CloseIdleConnections() }
