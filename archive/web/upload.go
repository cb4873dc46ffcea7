package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/paper"
)

const (
	// maxMetadata bounds the metadata part; the policy's own limit is below it.
	maxMetadata = 16 << 20
	// maxPartHeader bounds what lies between two parts: boundary, header, and before the first, a preamble.
	maxPartHeader = 8 << 10
	// maxEpilogue is how much may follow the last boundary: a few line ends.
	maxEpilogue = 64
	// readAhead is the buffer before the multipart reader, which itself reads 5 KiB at a time.
	readAhead = 64 << 10
)

// The outcomes in the header Perenne-Outcome.
const (
	outcomeHeader   = "Perenne-Outcome"
	outcomeAccepted = "accepted"
	outcomeRefused  = "refused"
)

// submit receives a submission.
func (x *exchange) submit() error {
	boundary, err := formBoundary(x.r)
	if err != nil {
		return err
	}
	release, err := x.s.slots.take(x.r.Context(), x.producer, x.s.patience)
	if err != nil {
		return err
	}
	defer release()
	log, err := x.s.cfg.Archive.Ledger(x.producer)
	if err != nil {
		return err
	}
	known := log.Head().Size
	f := newForm(x.r.Body, boundary, x.r.ContentLength)
	metadata, err := f.metadata()
	if err != nil {
		return err
	}
	receipt, err := x.s.cfg.Archive.Submit(x.r.Context(), archive.Submission{Producer: x.producer, Metadata: metadata, Next: f.next})
	if err != nil {
		return err
	}
	return x.answerSubmission(receipt, known)
}

// answerSubmission sends the paper. known is the number of entries the ledger had before: an entry among them
// was not made by this request.
func (x *exchange) answerSubmission(r *paper.Receipt, known int64) error {
	text, err := r.Marshal()
	if err != nil {
		return err
	}
	at := "/api/v1/producers/" + x.producer + "/packages/"
	if r.Refused() {
		x.Header().Set(outcomeHeader, outcomeRefused)
		x.Header().Set("Location", at+r.Body.Identifier[strings.LastIndexByte(r.Body.Identifier, ':')+1:]+"/receipt")
		if prefersProblem(x.r) {
			p := refusalProblem(r, x.lang)
			p.Instance = "urn:perenne:request:" + x.id
			x.problem(p)
			return nil
		}
		x.send(http.StatusUnprocessableEntity, "application/json", text)
		return nil
	}
	rec, err := x.s.cfg.Archive.Find(x.r.Context(), x.producer, r.Body.Package)
	if err != nil {
		return err
	}
	status := http.StatusCreated
	if rec.Index < known {
		status = http.StatusOK
	}
	x.Header().Set(outcomeHeader, outcomeAccepted)
	x.Header().Set("Location", at+r.Body.Package)
	x.send(status, "application/json", text)
	return nil
}

// formBoundary wants a multipart/form-data request that is not compressed, and returns its boundary.
func formBoundary(r *http.Request) (string, error) {
	if r.Header.Get("Content-Encoding") != "" {
		return "", &transportError{status: http.StatusUnsupportedMediaType, finding: finding("Content-Encoding", "http.encoding", "il corpo è compresso", "inviarlo senza Content-Encoding")}
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	b := params["boundary"]
	if err != nil || media != "multipart/form-data" || len(b) < 1 || len(b) > 70 {
		return "", &transportError{status: http.StatusUnsupportedMediaType, finding: finding("Content-Type", "http.content-type", "il tipo di contenuto non è multipart/form-data con un boundary", "inviare multipart/form-data con boundary: prima la parte metadata, poi le parti file")}
	}
	return b, nil
}

// form reads a submission's parts in order, holding none of them.
type form struct {
	in    *leash
	parts *multipart.Reader
	count int // of files begun
	err   error
}

// newForm reads a form of length bytes; -1 where that is not known.
func newForm(r io.Reader, boundary string, length int64) *form {
	ahead := int64(readAhead)
	if length >= 0 {
		ahead = min(ahead, length+maxEpilogue)
	}
	in := &leash{r: bufio.NewReaderSize(&closing{r: r}, int(ahead)), left: -1}
	return &form{in: in, parts: multipart.NewReader(in, boundary)}
}

// closing ends a body with a line end, where it has none, and then with io.ErrUnexpectedEOF: a whole form never
// asks for more than the former, and one that is cut short can never be taken for whole, which mime/multipart would do if the cut
// came between a boundary and the header after it.
type closing struct {
	r    io.Reader
	last byte
	over bool
}

func (c *closing) Read(p []byte) (int, error) {
	if c.over {
		return 0, io.ErrUnexpectedEOF
	}
	if len(p) < 2 {
		return 0, io.ErrShortBuffer
	}
	n, err := c.r.Read(p[:len(p)-2])
	if n > 0 {
		c.last = p[n-1]
	}
	if err != io.EOF {
		return n, err
	}
	c.over = true
	if c.last != '\n' {
		n += copy(p[n:], "\r\n")
	}
	if n == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}

// leash bounds how many bytes are read while it is set.
type leash struct {
	r    io.Reader
	left int // -1: no bound
}

var errLeash = errors.New("more than the form allows at this place")

func (l *leash) Read(p []byte) (int, error) {
	if l.left < 0 {
		return l.r.Read(p)
	}
	if l.left == 0 {
		return 0, errLeash
	}
	n, err := l.r.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// part moves to the next part; io.EOF after the final boundary, if nothing follows it.
func (f *form) part(field string) (*multipart.Part, map[string]string, error) {
	f.in.left = maxPartHeader
	p, err := f.parts.NextRawPart()
	f.in.left = -1
	if err == io.EOF { //nolint:errorlint // bare: a wrapped one is the end of a form that was cut off
		return nil, nil, f.epilogue()
	}
	if err != nil {
		return nil, nil, formError(field, err)
	}
	switch e := strings.ToLower(p.Header.Get("Content-Transfer-Encoding")); e {
	case "", "7bit", "8bit", "binary":
	default:
		return nil, nil, badRequest(field, "multipart.encoding", "la parte ha un Content-Transfer-Encoding", "inviare i byte così come sono (binary)")
	}
	disposition, params, err := mime.ParseMediaType(p.Header.Get("Content-Disposition"))
	if err != nil || disposition != "form-data" || !utf8.ValidString(params["filename"]) || !utf8.ValidString(params["name"]) {
		return nil, nil, badRequest(field, "multipart.name", "il Content-Disposition non è UTF-8 o è malformato", "inviare form-data con name e, volendo, filename in UTF-8 o filename* (RFC 5987)")
	}
	return p, params, nil
}

// epilogue returns io.EOF when the body ends here. The multipart reader may hold up to 5 KiB of what follows:
// that much is not seen, and does no harm.
func (f *form) epilogue() error {
	_, err := io.CopyN(io.Discard, f.in, maxEpilogue)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF): // what closing says after the last byte
		return io.EOF
	case err == nil:
		return badRequest("$", "multipart.epilogue", "seguono byte dopo l'ultimo boundary", "terminare il corpo con il boundary finale")
	}
	return formError("$", err)
}

// metadata reads the first part.
func (f *form) metadata() ([]byte, error) {
	const message, remedy = "la prima parte non è quella dei metadati", "inviare per prima una parte di nome metadata e tipo application/json"
	p, params, err := f.part("metadata")
	if errors.Is(err, io.EOF) || err == nil && params["name"] != "metadata" {
		return nil, badRequest("metadata", "multipart.metadata", message, remedy)
	}
	if err != nil {
		return nil, err
	}
	if t := p.Header.Get("Content-Type"); t != "" {
		if media, _, err := mime.ParseMediaType(t); err != nil || media != "application/json" {
			return nil, badRequest("metadata", "multipart.metadata", message, remedy)
		}
	}
	text, err := io.ReadAll(io.LimitReader(p, maxMetadata+1))
	if err != nil {
		return nil, formError("metadata", err)
	}
	if len(text) > maxMetadata {
		return nil, &transportError{status: http.StatusRequestEntityTooLarge, finding: finding("metadata", "metadata.size", fmt.Sprintf("i metadati superano %d byte", maxMetadata), "ridurre i metadati")}
	}
	return text, nil
}

// next gives the next file to archive.Submit.
func (f *form) next() (archive.Part, error) {
	if f.err != nil {
		return archive.Part{}, f.err
	}
	field := fmt.Sprintf("files[%d]", f.count)
	p, params, err := f.part(field)
	if err == nil && params["name"] != "file" {
		err = badRequest(field, "multipart.file", fmt.Sprintf("la parte non si chiama file: %.40q", params["name"]), "dopo metadata inviare solo parti di nome file, nell'ordine annunciato")
	}
	if err != nil {
		f.err = err
		return archive.Part{}, err
	}
	f.count++
	return archive.Part{Name: params["filename"], Body: &fileBody{field, p}}, nil
}

// fileBody gives a file's bytes, and says of what is wrong with the form which file it was.
type fileBody struct {
	field string
	r     io.Reader
}

func (b *fileBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // bare: a wrapped one is the end of a form that was cut off
		err = formError(b.field, err)
	}
	return n, err
}

// formError says what a failure of the multipart reader means.
func formError(field string, err error) error {
	var t *transportError
	if errors.As(err, &t) {
		return err
	}
	if errors.Is(err, errLeash) || errors.Is(err, multipart.ErrMessageTooLarge) {
		return badRequest(field, "multipart.header", "l'intestazione di una parte è troppo grande o malformata", "inviare solo Content-Disposition e Content-Type, entro 8 KiB")
	}
	return badRequest(field, "multipart.form", "il corpo non è multipart/form-data ben formato, o è troncato", "inviare ogni parte fra i boundary annunciati e il boundary finale; ripetere è sempre sicuro")
}
