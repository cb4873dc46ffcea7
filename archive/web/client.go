package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
)

// Client speaks to a Server. Its methods return a *Problem for what the server answered, and an *archive.Error
// of kind Unavailable when it could not be reached: archive.KindOf sorts both.
type Client struct {
	// Base is the server's address, such as http://127.0.0.1:8080, without /api/v1.
	Base string
	// Token is the bearer token; "" sends none.
	Token string
	// Lang is "it" or "en"; "" means Italian.
	Lang string
	// HTTP makes the requests; nil means http.DefaultClient. Redirects are never followed.
	HTTP *http.Client
}

// maxAnswer bounds the answers that are held in memory, but for audits.
const maxAnswer = 64 << 20

// path joins a route of the API; every element is escaped.
func path(elements ...string) string {
	for i, e := range elements {
		elements[i] = url.PathEscape(e)
	}
	return "/api/v1/" + strings.Join(elements, "/")
}

// request makes a request with everything that all of them carry.
func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Base, "/")+path, body)
	if err != nil {
		return nil, err
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if c.Lang != "" {
		r.Header.Set("Accept-Language", c.Lang)
	}
	return r, nil
}

// do sends a request. An answer other than the wanted ones is a problem; the caller closes the body of the others.
func (c *Client) do(op string, r *http.Request, want ...int) (*http.Response, error) {
	base := c.HTTP
	if base == nil {
		base = http.DefaultClient
	}
	h := *base
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := h.Do(r)
	if err != nil {
		if ctx := r.Context(); ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", op, ctx.Err())
		}
		return nil, unreachable(op, err)
	}
	for _, s := range want {
		if resp.StatusCode == s {
			return resp, nil
		}
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, readProblem(resp)
}

// unreachable is the error of a server that gave no whole answer.
func unreachable(op string, err error) error {
	return &archive.Error{Kind: archive.Unavailable, Op: op, Err: err}
}

// readProblem makes the problem of an answer, also of one that somebody in between has given.
func readProblem(resp *http.Response) *Problem {
	p := &Problem{}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != ProblemType || json.Unmarshal(text, p) != nil || p.Title == "" {
		p = &Problem{Title: http.StatusText(resp.StatusCode), Detail: fmt.Sprintf("HTTP %d", resp.StatusCode)}
	}
	p.Status = resp.StatusCode
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && p.RetryAfter == 0 {
		p.RetryAfter = n
	}
	return p
}

// get fetches a small answer whole.
func (c *Client) get(ctx context.Context, op, path string) ([]byte, error) {
	r, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(op, r, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return readAll(op, resp)
}

func readAll(op string, resp *http.Response) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, unreachable(op, err)
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("%s: the answer is larger than %d bytes", op, maxAnswer)
	}
	return text, nil
}

// Search looks for packages.
func (c *Client) Search(ctx context.Context, q SearchQuery) (*SearchPage, error) {
	text, err := c.get(ctx, "search", path("producers", q.Producer, "packages")+"?"+q.values().Encode())
	if err != nil {
		return nil, err
	}
	var page SearchPage
	if err := json.Unmarshal(text, &page); err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	return &page, nil
}

// Record gives what the catalog knows of a package.
func (c *Client) Record(ctx context.Context, producer, id string) (*Record, error) {
	text, err := c.get(ctx, "record", path("producers", producer, "packages", id))
	if err != nil {
		return nil, err
	}
	var rec Record
	if err := json.Unmarshal(text, &rec); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return &rec, nil
}

// Receipt fetches the receipt of a package, or a refusal, again.
func (c *Client) Receipt(ctx context.Context, producer, id string) (*paper.Receipt, error) {
	text, err := c.get(ctx, "receipt", path("producers", producer, "packages", id, "receipt"))
	if err != nil {
		return nil, err
	}
	return paper.ParseReceipt(text)
}

// ReceiptXML fetches the same as rapporto di versamento in XML.
func (c *Client) ReceiptXML(ctx context.Context, producer, id string) ([]byte, error) {
	return c.get(ctx, "receipt", path("producers", producer, "packages", id, "receipt.xml"))
}

// Evidence fetches the evidence record, DER; Unavailable while the seal is pending.
func (c *Client) Evidence(ctx context.Context, producer, id string) ([]byte, error) {
	return c.get(ctx, "evidence", path("producers", producer, "packages", id, "evidence"))
}

// Proof fetches the tlog-proof of the package's entry.
func (c *Client) Proof(ctx context.Context, producer, id string) ([]byte, error) {
	return c.get(ctx, "proof", path("producers", producer, "packages", id, "proof"))
}

// Checkpoint fetches the signed head of a producer's ledger.
func (c *Client) Checkpoint(ctx context.Context, producer string) ([]byte, error) {
	return c.get(ctx, "checkpoint", "/ledger/"+url.PathEscape(producer)+"/checkpoint")
}

// Status tells how the archive is, as far as the token may see.
func (c *Client) Status(ctx context.Context) (*archive.Health, error) {
	text, err := c.get(ctx, "status", "/api/v1/status")
	if err != nil {
		return nil, err
	}
	var h archive.Health
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	return &h, nil
}

// Ready returns nil when the server takes requests.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.get(ctx, "ready", "/api/v1/readyz")
	return err
}

// errChanged means that a download is not what the server announced.
var errChanged = errors.New("the bytes received are not those announced: ask again")
