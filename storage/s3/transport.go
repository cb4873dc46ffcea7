package s3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// errStalled ends a request that makes no progress.
var errStalled = errors.New("the S3 server stalls")

// newTransport returns what carries a Store's requests.
func newTransport(o Options) http.RoundTripper {
	next := o.Transport
	if next == nil {
		t := &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: min(o.Stall, 10*time.Second), KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: min(o.Stall, 10*time.Second),
			MaxIdleConns:        256,
			MaxIdleConnsPerHost: 256,
			IdleConnTimeout:     time.Minute,
			WriteBufferSize:     64 << 10,
			ReadBufferSize:      64 << 10,
			DisableCompression:  true, // bytes are wanted as they lie there
		}
		if o.TLS {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots}
		}
		next = t
	}
	return &watched{next: next, stall: o.Stall}
}

// watched ends requests that make no progress. The time that the caller takes to give or to fetch bytes is
// not the server's.
type watched struct {
	next  http.RoundTripper
	stall time.Duration
}

// patience is, in a context, how much longer than Stall a request's answer may take.
type patience struct{}

// RoundTrip implements [http.RoundTripper].
func (t *watched) RoundTrip(req *http.Request) (*http.Response, error) {
	page, listed := req.Context().Value(listing{}).(*pages)
	if listed {
		if err := page.turn(req.URL.Query()); err != nil {
			return nil, err
		}
	}
	stall := t.stall
	if more, ok := req.Context().Value(patience{}).(time.Duration); ok {
		stall += more
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{cancel: cancel, tick: max(stall/ticks, time.Millisecond), floor: int64(stall.Seconds() * 1024), waiting: true}
	w.mu.Lock()
	w.timer = time.AfterFunc(w.tick, w.look)
	w.mu.Unlock()
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &given{req.Body, w}
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		w.stop()
		if errors.Is(context.Cause(ctx), errStalled) {
			return nil, fmt.Errorf("%w: %w", errStalled, err)
		}
		return nil, err
	}
	w.answer()
	resp.Body = &got{ReadCloser: resp.Body, ctx: ctx, w: w, object: ctx.Value(object{}) != nil}
	if resp.StatusCode >= http.StatusBadRequest && req.Body != nil && resp.ContentLength > 0 && resp.ContentLength < 64<<10 {
		if err := parted(resp); err != nil {
			return nil, err
		}
	}
	if q := req.URL.Query(); req.Method == http.MethodGet && q.Has("retention") {
		if err := renamed(resp); err != nil {
			return nil, err
		}
	}
	if listed && resp.StatusCode == http.StatusOK {
		resp.Body = &rooted{Reader: bufio.NewReaderSize(resp.Body, 4096), Closer: resp.Body}
	}
	return resp, nil
}

// object is, in a context, that the answer is an object's bytes. Any other must end within Stall of its head, and after
// answerLimit bytes: a page of a listing is some megabytes at most, and minio-go reads to the end whatever it is given.
type object struct{}

const answerLimit = 16 << 20

// ticks is how often within Stall a request is looked at.
const ticks = 8

// watch counts, at each tick, whether the server is being waited for.
type watch struct {
	cancel context.CancelCauseFunc
	tick   time.Duration
	floor  int64 // bytes that are progress

	mu       sync.Mutex
	timer    *time.Timer
	stopped  bool
	answered bool
	waiting  bool  // for the server, not for the caller
	moved    int64 // bytes since strikes was 0
	strikes  int
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	if w.moved > w.floor {
		w.moved, w.strikes = 0, 0
	} else if w.waiting {
		w.strikes++
	}
	if w.strikes >= ticks {
		w.stopped = true
		w.cancel(errStalled)
		return
	}
	w.timer.Reset(w.tick)
}

// answer notes that the answer's head has come: from now on the server is waited for only while its body is read.
func (w *watch) answer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered, w.waiting = true, false
	w.moved, w.strikes = 0, 0
}

// move notes a body's next step: bytes moved, and whether the server is waited for after it.
func (w *watch) move(n int, waiting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moved += int64(n)
	w.waiting = waiting
}

// give is move for a request's body. A server may answer before it has read it all.
func (w *watch) give(n int, waiting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moved += int64(n)
	if !w.answered {
		w.waiting = waiting
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
	w.cancel(nil)
}

// given is a request's body, whose bytes come from the caller.
type given struct {
	io.ReadCloser
	w *watch
}

func (b *given) Read(p []byte) (int, error) {
	b.w.give(0, false)
	n, err := b.ReadCloser.Read(p)
	b.w.give(n, true)
	return n, err
}

// got is an answer's body, whose bytes come from the server. Its Close ends the watch.
type got struct {
	io.ReadCloser
	ctx    context.Context
	w      *watch
	object bool
	read   int64
}

func (b *got) Read(p []byte) (int, error) {
	b.w.move(0, true)
	n, err := b.ReadCloser.Read(p)
	if b.object {
		b.w.move(n, false)
	} else if b.w.move(0, false); b.read+int64(n) > answerLimit {
		return 0, errors.New("the server's answer does not end")
	}
	b.read += int64(n)
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(b.ctx), errStalled) {
		err = fmt.Errorf("%w: %w", errStalled, err)
	}
	return n, err
}

func (b *got) Close() error {
	err := b.ReadCloser.Close()
	b.w.stop()
	return err
}

// rooted is the body of a page of a listing. minio-go reads any XML as one, a server's error in a 200 or a proxy's
// page as a listing of nothing.
type rooted struct {
	*bufio.Reader
	io.Closer
	seen bool
}

func (b *rooted) Read(p []byte) (int, error) {
	if !b.seen {
		head, _ := b.Peek(1024) // fewer, and its error again, when there are fewer
		if !bytes.Contains(head, []byte("<ListVersionsResult")) {
			return 0, fmt.Errorf("the server's listing is none: %.200q", head)
		}
		b.seen = true
	}
	return b.Reader.Read(p)
}

// renamed gives a retention document the name that minio-go wants: versitygw's has that of its schema's type.
func renamed(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	b = bytes.ReplaceAll(b, []byte("ObjectLockRetention"), []byte("Retention"))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	return nil
}

// parted reads a refusal of a request that had a body, and parts from its connection: versitygw refuses without
// reading the body, and then takes it for the next request. A body closed before its end takes the connection
// with it, so the last byte is left unread; it is the end of the XML.
func parted(resp *http.Response) error {
	b := make([]byte, resp.ContentLength-1, resp.ContentLength)
	_, err := io.ReadFull(resp.Body, b)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("<")) && !bytes.HasSuffix(bytes.TrimSpace(b), []byte(">")) {
		b = append(b, '>')
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return nil
}
