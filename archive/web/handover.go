package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"sync"

	"github.com/marchesud/perenne/archive/paper"
)

// Upload is one file to hand over.
type Upload struct {
	Name string
	Size int64 // bytes, exactly
	Open func() (io.ReadCloser, error)
}

// Submit hands over a submission and returns its paper: a receipt or, with a nil error all the same, a refusal
// (Receipt.Refused). The files go in the order in which metadata announces them; each is opened when its turn
// comes. progress, when not nil, is told how many bytes of metadata and files have left.
func (c *Client) Submit(ctx context.Context, producer string, metadata []byte, files []Upload, progress func(sent, total int64)) (*paper.Receipt, error) {
	f, err := newOutgoing(metadata, files, progress)
	if err != nil {
		return nil, err
	}
	r, err := c.request(ctx, http.MethodPost, path("producers", producer, "submissions"), f.open())
	if err != nil {
		return nil, err
	}
	r.ContentLength = f.size
	r.GetBody = func() (io.ReadCloser, error) { return f.open(), nil }
	r.Header.Set("Content-Type", "multipart/form-data; boundary="+f.boundary)
	r.Header.Set("Accept", "application/json, "+ProblemType+";q=0.5")
	r.Header.Set("Expect", "100-continue") // a wrong token is told before a gigabyte is sent
	resp, err := c.do("submit", r, http.StatusOK, http.StatusCreated, http.StatusUnprocessableEntity)
	if local := f.failed(); local != nil {
		if err == nil {
			_ = resp.Body.Close()
		}
		return nil, fmt.Errorf("submit: %w", local)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media == ProblemType {
		return nil, readProblem(resp)
	}
	text, err := readAll("submit", resp)
	if err != nil {
		return nil, err
	}
	receipt, err := paper.ParseReceipt(text)
	if err != nil {
		return nil, fmt.Errorf("submit: %w", err)
	}
	if refused := resp.StatusCode == http.StatusUnprocessableEntity; refused != receipt.Refused() {
		return nil, errors.New("submit: status and paper contradict each other")
	}
	return receipt, nil
}

// outgoing is a form whose every byte is known before the first leaves, so that its length can be announced.
type outgoing struct {
	boundary string
	pieces   []piece
	size     int64 // of the form
	total    int64 // of metadata and files
	progress func(sent, total int64)

	mu    sync.Mutex // the transport reads a body in a goroutine of its own
	fault error
}

// piece is either text or a file.
type piece struct {
	text []byte
	file *Upload
}

func newOutgoing(metadata []byte, files []Upload, progress func(sent, total int64)) (*outgoing, error) {
	f := &outgoing{progress: progress, total: int64(len(metadata))}
	var text bytes.Buffer
	w := multipart.NewWriter(&text)
	f.boundary = w.Boundary()
	part := func(header map[string]string) error {
		h := textproto.MIMEHeader{}
		for k, v := range header {
			h.Set(k, v)
		}
		_, err := w.CreatePart(h)
		return err
	}
	cut := func() {
		f.pieces = append(f.pieces, piece{text: bytes.Clone(text.Bytes())})
		f.size += int64(text.Len())
		text.Reset()
	}
	if err := part(map[string]string{"Content-Disposition": `form-data; name="metadata"`, "Content-Type": "application/json"}); err != nil {
		return nil, err
	}
	text.Write(metadata)
	for i := range files {
		u := &files[i]
		disposition := mime.FormatMediaType("form-data", map[string]string{"name": "file", "filename": u.Name})
		if disposition == "" {
			disposition = `form-data; name="file"`
		}
		if err := part(map[string]string{"Content-Disposition": disposition, "Content-Type": "application/octet-stream"}); err != nil {
			return nil, err
		}
		cut()
		f.pieces = append(f.pieces, piece{file: u})
		f.size += u.Size
		f.total += u.Size
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	cut()
	return f, nil
}

// open begins the form anew.
func (f *outgoing) open() io.ReadCloser { return &outgoingReader{f: f, rest: f.pieces} }

// failed gives the fault on our side that cut the form short, such as a file that changed.
func (f *outgoing) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}

func (f *outgoing) fail(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = err
	return err
}

// outgoingReader reads a form once.
type outgoingReader struct {
	f    *outgoing
	rest []piece
	at   int64 // in the first of rest
	file io.ReadCloser
	sent int64
}

func (r *outgoingReader) Read(p []byte) (int, error) {
	for len(r.rest) > 0 {
		first := &r.rest[0]
		if first.file != nil {
			return r.readFile(first.file, p)
		}
		if n := copy(p, first.text[r.at:]); n > 0 {
			r.at += int64(n)
			return n, nil
		}
		r.next()
	}
	return 0, io.EOF
}

func (r *outgoingReader) next() { r.rest, r.at = r.rest[1:], 0 }

// readFile reads from a file, which must have exactly the size announced.
func (r *outgoingReader) readFile(u *Upload, p []byte) (int, error) {
	if r.file == nil {
		file, err := u.Open()
		if err != nil {
			return 0, r.f.fail(err)
		}
		r.file = file
	}
	n, err := r.file.Read(p)
	r.at += int64(n)
	r.sent += int64(n)
	switch {
	case r.at > u.Size || errors.Is(err, io.EOF) && r.at < u.Size:
		return 0, r.f.fail(fmt.Errorf("%s: not %d bytes any more: the file changed", u.Name, u.Size))
	case err != nil && !errors.Is(err, io.EOF):
		return 0, r.f.fail(err)
	}
	if r.f.progress != nil && n > 0 {
		r.f.progress(r.sent, r.f.total)
	}
	if err != nil {
		err = r.file.Close()
		r.file = nil
		r.next()
		if err != nil {
			return n, r.f.fail(err)
		}
	}
	return n, nil
}

func (r *outgoingReader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}
