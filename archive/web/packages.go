package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
)

// containerType is the media type of packages, distribution packages and reports.
const containerType = "application/vnd.etsi.asic-e+zip"

// receipt sends the receipt file, or the refusal.
func (x *exchange) receipt() error {
	r, err := x.s.cfg.Archive.Receipt(x.r.Context(), x.producer, x.r.PathValue("id"))
	if err != nil {
		return err
	}
	text, err := r.Marshal()
	if err != nil {
		return err
	}
	x.send(http.StatusOK, "application/json", text)
	return nil
}

// receiptXML sends the same as rapporto di versamento.
func (x *exchange) receiptXML() error {
	r, err := x.s.cfg.Archive.Receipt(x.r.Context(), x.producer, x.r.PathValue("id"))
	if err != nil {
		return err
	}
	text, err := r.Body.XML()
	if err != nil {
		return err
	}
	x.send(http.StatusOK, "application/xml", text)
	return nil
}

func (x *exchange) proof() error {
	text, err := x.s.cfg.Archive.Proof(x.r.Context(), x.producer, x.r.PathValue("id"))
	if err != nil {
		return err
	}
	x.send(http.StatusOK, "text/plain; charset=utf-8", text)
	return nil
}

func (x *exchange) evidence() error {
	der, err := x.s.cfg.Archive.Evidence(x.r.Context(), x.producer, x.r.PathValue("id"))
	if err != nil {
		return err
	}
	x.send(http.StatusOK, "application/octet-stream", der)
	return nil
}

// sendPackage sends the package as it is kept.
func (x *exchange) sendPackage() error {
	r, rec, err := x.s.cfg.Archive.Package(x.r.Context(), x.producer, x.r.PathValue("id"))
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	sum, err := hex.DecodeString(rec.SHA256)
	if err != nil {
		return err
	}
	return x.stream(r, rec.Size, [32]byte(sum), x.producer+"-"+rec.ID+".asice")
}

// copyRequest is the body of a request for a copy.
type copyRequest struct {
	Purpose string `json:"purpose"`
}

// maxPurpose bounds the purpose of a copy, in bytes.
const maxPurpose = 1000

// copyOut sends a distribution package.
func (x *exchange) copyOut() error {
	var req copyRequest
	if err := x.readJSON(64<<10, &req); err != nil {
		return err
	}
	req.Purpose = strings.TrimSpace(req.Purpose)
	if req.Purpose == "" || len(req.Purpose) > maxPurpose || strings.ContainsFunc(req.Purpose, unicode.IsControl) {
		return badRequest("purpose", "purpose.form", "lo scopo manca, supera 1000 byte o ha caratteri di controllo", "indicare in purpose perché si chiede la copia")
	}
	c, err := x.s.cfg.Archive.Retrieve(x.r.Context(), archive.Request{Producer: x.producer, ID: x.r.PathValue("id"), Purpose: req.Purpose, By: x.token.Name})
	if err != nil {
		return err
	}
	err = x.stream(c.Reader(), c.Size, c.SHA256, copyName(x.producer, c.Key, c.Statement.Package))
	if closeErr := c.Close(); closeErr != nil {
		x.s.cfg.Log.Warn("room of a copy not freed", slog.String("request", x.id), slog.String("err", discreet(closeErr)))
	}
	return err
}

var unsafeInName = regexp.MustCompile(`[^A-Za-z0-9._]+`)

// copyName is a file name that every system can write and that says what the copy is of.
func copyName(producer string, key paper.BodyKey, id string) string {
	parts := []string{producer}
	for _, p := range []string{key.Register, strconv.Itoa(key.Year), key.Number, id[:min(8, len(id))]} {
		if p = strings.Trim(unsafeInName.ReplaceAllString(p, "-"), "-."); p != "" {
			parts = append(parts, p[:min(len(p), 40)])
		}
	}
	return strings.Join(parts, "-") + ".zip"
}

// stream sends a container. The last bytes leave only once all before are known to be the right ones: what
// changed while it was read reaches nobody whole.
func (x *exchange) stream(r io.Reader, size int64, sum [32]byte, name string) error {
	digest := base64.StdEncoding.EncodeToString(sum[:])
	h := x.Header()
	h.Set("Content-Type", containerType)
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h.Set("Repr-Digest", "sha-256=:"+digest+":")
	h.Set("Digest", "sha-256="+digest)
	x.WriteHeader(http.StatusOK)
	if x.r.Method == http.MethodHead {
		return nil
	}
	if err := sendVerified(x.r.Context(), x, r, size, sum); err != nil {
		if x.r.Context().Err() == nil {
			x.s.cfg.Log.Error("download broken off", slog.String("request", x.id), slog.String("route", x.route), slog.String("producer", x.producer), slog.String("err", discreet(err)))
		}
		panic(http.ErrAbortHandler) // the header has left: only a broken connection can still say it
	}
	return nil
}

var errOtherBytes = errors.New("the bytes read are not those named")

// sendVerified copies size bytes with the digest sum, holding each block back until the next was read.
func sendVerified(ctx context.Context, w io.Writer, r io.Reader, size int64, sum [32]byte) error {
	h := sha256.New()
	var blocks [2][64 << 10]byte
	held := blocks[0][:0]
	for i := 1; size > 0; i++ {
		next := blocks[i%2][:min(size, 64<<10)]
		if _, err := io.ReadFull(r, next); err != nil {
			return fmt.Errorf("%w: %w", errOtherBytes, err)
		}
		h.Write(next)
		if _, err := w.Write(held); err != nil {
			return err
		}
		held, size = next, size-int64(len(next))
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if !equalSum(h, sum) {
		return errOtherBytes
	}
	_, err := w.Write(held)
	return err
}

func equalSum(h hash.Hash, sum [32]byte) bool { return [32]byte(h.Sum(nil)) == sum }

// readJSON reads a small body of one strict JSON value. An empty body leaves v as it is.
func (x *exchange) readJSON(limit int64, v any) error {
	if x.r.Header.Get("Content-Encoding") != "" {
		return &transportError{status: http.StatusUnsupportedMediaType, finding: finding("Content-Encoding", "http.encoding", "il corpo è compresso", "inviarlo senza Content-Encoding")}
	}
	text, err := io.ReadAll(io.LimitReader(x.r.Body, limit+1))
	if err != nil {
		return bodyError(err)
	}
	if int64(len(text)) > limit {
		return &transportError{status: http.StatusRequestEntityTooLarge, finding: finding("$", "json.size", fmt.Sprintf("il corpo supera %d byte", limit), "chiedere meno in una volta")}
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	media, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return &transportError{status: http.StatusUnsupportedMediaType, finding: finding("Content-Type", "http.content-type", "il tipo di contenuto non è application/json", "inviare Content-Type: application/json")}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil || d.More() || !utf8.Valid(text) {
		return badRequest("$", "json.form", "il corpo non è il JSON richiesto", "si veda docs/api.md")
	}
	return nil
}

// bodyError is the error of a small body that did not arrive whole.
func bodyError(err error) error {
	var t *transportError
	if errors.As(err, &t) {
		return err
	}
	return badRequest("$", "transport", "il corpo della richiesta si interrompe o è malformato", "inviare di nuovo: ripetere è sempre sicuro")
}
