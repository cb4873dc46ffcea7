package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/marchesud/perenne/archive/canon"
)

// Retrieve has a distribution package made and writes it to to. Bytes that are not those the server announced
// are an error; what was written until then is to be thrown away.
func (c *Client) Retrieve(ctx context.Context, producer, id, purpose string, to io.Writer, progress func(done, total int64)) error {
	body, err := json.Marshal(copyRequest{purpose})
	if err != nil {
		return err
	}
	r, err := c.request(ctx, http.MethodPost, path("producers", producer, "packages", id, "copies"), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	return c.download("retrieve", r, to, progress)
}

// Package writes the package as it is kept to to.
func (c *Client) Package(ctx context.Context, producer, id string, to io.Writer, progress func(done, total int64)) error {
	r, err := c.request(ctx, http.MethodGet, path("producers", producer, "packages", id, "package"), nil)
	if err != nil {
		return err
	}
	return c.download("package", r, to, progress)
}

// download copies an answer and holds it against its Content-Length and Repr-Digest.
func (c *Client) download(op string, r *http.Request, to io.Writer, progress func(done, total int64)) error {
	resp, err := c.do(op, r, http.StatusOK)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	h := sha256.New()
	counted := &counter{total: resp.ContentLength, progress: progress}
	in := &inbound{r: resp.Body}
	if _, err := io.Copy(io.MultiWriter(to, h, counted), in); err != nil {
		if in.err != nil && r.Context().Err() == nil {
			return unreachable(op, in.err)
		}
		return fmt.Errorf("%s: %w", op, err)
	}
	if want := "sha-256=:" + base64.StdEncoding.EncodeToString(h.Sum(nil)) + ":"; resp.Header.Get("Repr-Digest") != want {
		return unreachable(op, errChanged)
	}
	return nil
}

// inbound tells a line that broke from a disk that is full.
type inbound struct {
	r   io.Reader
	err error
}

func (i *inbound) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	if err != nil && err != io.EOF {
		i.err = err
	}
	return n, err
}

// counter tells how many bytes have passed.
type counter struct {
	done, total int64
	progress    func(done, total int64)
}

func (c *counter) Write(p []byte) (int, error) {
	c.done += int64(len(p))
	if c.progress != nil {
		c.progress(c.done, c.total)
	}
	return len(p), nil
}

// Audit has a producer's packages read again and returns the report, and the report as the sealed ASiC-E
// container that is the paper.
func (c *Client) Audit(ctx context.Context, req AuditRequest, progress func(AuditProgress)) (*AuditAnswer, []byte, error) {
	body := auditBody{IDs: req.IDs}
	for _, r := range req.Against {
		text, err := r.Marshal()
		if err != nil {
			return nil, nil, fmt.Errorf("audit: %w", err)
		}
		body.Against = append(body.Against, text)
	}
	text, err := canon.Marshal(body)
	if err != nil {
		return nil, nil, fmt.Errorf("audit: %w", err)
	}
	r, err := c.request(ctx, http.MethodPost, path("producers", req.Producer, "audits"), bytes.NewReader(text))
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.do("audit", r, http.StatusOK)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return readAudit(ctx, resp.Body, progress)
}

// readAudit reads the lines of an audit's answer.
func readAudit(ctx context.Context, body io.Reader, progress func(AuditProgress)) (*AuditAnswer, []byte, error) {
	lines := json.NewDecoder(body)
	for {
		var l auditLine
		if err := lines.Decode(&l); err != nil {
			if ctx.Err() != nil {
				return nil, nil, fmt.Errorf("audit: %w", ctx.Err())
			}
			return nil, nil, unreachable("audit", fmt.Errorf("the answer ends before the report: %w", err))
		}
		switch {
		case l.Problem != nil:
			return nil, nil, l.Problem
		case l.Report != nil:
			return &AuditAnswer{Report: l.Report, Recorded: l.Recorded}, l.Object, nil
		case progress != nil:
			progress(AuditProgress{l.Done, l.Total})
		}
	}
}
