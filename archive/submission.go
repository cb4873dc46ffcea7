package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/storage"
)

// Submission is what a producer hands over (PdV): the description first, then the files it announces, in its
// order. The bytes are read once, as they come.
type Submission struct {
	Producer string
	// Metadata is the description as received: strict JSON, see policies.ParseDescription.
	Metadata []byte
	// Next opens the next file; io.EOF after the last. A file is read to its end before Next is called again.
	Next func() (Part, error)
}

// Part is one file of a submission.
type Part struct {
	Name string // as announced; "" when the transport gives none
	Body io.Reader
}

// incoming is a submission on its way through Submit: what is known of it so far.
type incoming struct {
	at          time.Time
	description policies.Description
	key         policies.Key
	keyHMAC     string
	metadata    []byte
	files       []paper.BodyFile
	formats     []policies.Format
	findings    []policies.Finding
	submission  string // digest over the whole

	staged  storage.Staged
	builder *pack.Builder

	body   paper.Body
	record searchRecord
	object string
	size   int64
	sha256 [32]byte
}

func (in *incoming) close() {
	if in.staged != nil {
		// A staged object that was put stays; one that was not vanishes, which is all Close can fail at.
		_ = in.staged.Close()
	}
}

// bytes is the size of the files received.
func (in *incoming) bytes() int64 {
	var n int64
	for _, f := range in.files {
		n += f.Size
	}
	return n
}

func invalid(field, rule, it, remedy string) *Error {
	return &Error{Kind: Invalid, Op: "submit", Findings: []policies.Finding{{Field: field, Rule: rule, Level: policies.Error, Message: it, Remedy: remedy}}}
}

// receive reads a submission: the description, then every byte of the files, hashed once and written once into
// the package that is to be.
func (a *Archive) receive(ctx context.Context, p *producer, s Submission) (*incoming, error) {
	in := &incoming{at: a.cfg.Now(), metadata: s.Metadata}
	limits := p.Policy.Limits()
	if int64(len(s.Metadata)) > limits.MaxMetadata {
		return nil, invalid("$", "metadata.size", fmt.Sprintf("i metadati superano %d byte", limits.MaxMetadata), "ridurre i metadati")
	}
	var malformed []policies.Finding
	in.description, malformed = policies.ParseDescription(s.Metadata)
	if policies.Refused(malformed) {
		return nil, &Error{Kind: Invalid, Op: "submit", Object: p.Code, Findings: malformed}
	}
	in.findings = policies.Join(malformed, p.Policy.AdmitDescription(in.description, in.at))
	in.key = in.description.Key()
	if in.key.Register == "" || in.key.Year == 0 || in.key.Number == "" {
		return nil, &Error{Kind: Invalid, Op: "submit", Object: p.Code, Findings: in.findings}
	}
	in.keyHMAC = p.keyHMAC(in.key)
	sum := sha256.Sum256(s.Metadata)
	if err := tooMuch(in.description, limits); err != nil && !a.mayBeKept(p, in) {
		return nil, err
	}
	var err error
	if in.staged, err = a.stage(ctx, in.announced()); err != nil {
		return nil, storeError("submit", p.Code, err)
	}
	in.builder = pack.NewBuilder(in.staged)
	a.crash("receive.begun") // leaves nothing, as anywhere within
	if err := in.readFiles(ctx, p, s.Next); err != nil {
		in.close()
		return nil, err
	}
	in.at = a.cfg.Now() // taken in charge when the last byte is here, not when the first one came
	in.submission, err = paper.SubmissionDigest(hex.EncodeToString(sum[:]), in.files)
	if err != nil {
		in.close()
		return nil, fail(Internal, "submit", p.Code, err)
	}
	return in, nil
}

// announced is about how many bytes the package will have, which holds its description twice and a dozen small files.
func (in *incoming) announced() int64 {
	total := 2*int64(len(in.metadata)) + 24<<10
	for _, f := range in.description.Files {
		total += f.Size + 2<<10
	}
	return total
}

// mayBeKept reports whether the key has a live package at least as large as what is announced: then this is
// perhaps a retry of what a former policy admitted.
func (a *Archive) mayBeKept(p *producer, in *incoming) bool {
	rec, ok, err := a.cfg.Catalog.ByKey(p.Code, in.keyHMAC)
	var total int64
	for _, f := range in.description.Files {
		if f.Size < 0 || f.Size > rec.Size {
			return false
		}
		total += f.Size
	}
	return err == nil && ok && !rec.Annulled && total <= rec.Size && len(in.description.Files) <= rec.Files
}

// tooMuch turns away what would not even be read: more or larger files than the policy takes.
func tooMuch(d policies.Description, l policies.Limits) error {
	if len(d.Files) > l.MaxFiles {
		return invalid("files", "files.count", fmt.Sprintf("%d file: il massimo è %d", len(d.Files), l.MaxFiles), "suddividere il versamento in più unità documentarie")
	}
	var total int64
	for i, f := range d.Files {
		if f.Size < 0 || f.Size > l.MaxFileSize {
			return invalid(fmt.Sprintf("files[%d].size", i), "file.size", fmt.Sprintf("%d byte: il massimo è %d", f.Size, l.MaxFileSize), "suddividere il file o concordare un limite più alto")
		}
		if total += f.Size; total > l.MaxSubmission {
			return invalid("files", "submission.size", fmt.Sprintf("il versamento supera %d byte", l.MaxSubmission), "suddividere il versamento in più unità documentarie")
		}
	}
	return nil
}

// readFiles reads exactly the files announced.
func (in *incoming) readFiles(ctx context.Context, p *producer, next func() (Part, error)) error {
	for i, f := range in.description.Files {
		field := fmt.Sprintf("files[%d]", i)
		part, err := next()
		if errors.Is(err, io.EOF) {
			return invalid(field, "file.missing", "il file annunciato non è arrivato", "inviare i file nell'ordine in cui la descrizione li annuncia")
		}
		if err != nil {
			return receiveError(field, err)
		}
		if part.Name != "" && part.Name != f.Name {
			return invalid(field+".name", "file.order", fmt.Sprintf("è arrivato un file di altro nome: %.80q", part.Name), "inviare i file nell'ordine in cui la descrizione li annuncia")
		}
		found, path, err := in.readFile(ctx, i, f, part.Body)
		if err != nil {
			return err
		}
		in.findings = addNew(in.findings, p.Policy.AdmitFile(in.description, i, found))
		format := policies.DetectFormat(found.Head)
		in.formats = append(in.formats, format)
		in.files = append(in.files, paper.BodyFile{Path: path, Name: f.Name, Role: f.Role, Size: found.Size, SHA256: hex.EncodeToString(found.SHA256[:]), Format: format.MIME})
	}
	if part, err := next(); err == nil {
		return invalid("files", "file.unannounced", fmt.Sprintf("è arrivato un file che la descrizione non annuncia: %.80q", part.Name), "elencare in files ogni file inviato")
	} else if !errors.Is(err, io.EOF) {
		return receiveError("files", err)
	}
	return nil
}

// addNew adds findings, but not one that the description gave rise to already: a file declared to be empty is
// not said to be empty again when it arrives.
func addNew(all, more []policies.Finding) []policies.Finding {
	for _, f := range more {
		said := slices.ContainsFunc(all, func(have policies.Finding) bool {
			return have.Rule == f.Rule && strings.HasPrefix(have.Field, f.Field)
		})
		if !said {
			all = append(all, f)
		}
	}
	return all
}

// headSize and tailSize are how much of a file's ends the format rules look at.
const (
	headSize = policies.HeadSize
	tailSize = policies.HeadSize
)

// readFile reads one file into the package and keeps its ends for the format rules.
func (in *incoming) readFile(ctx context.Context, i int, f policies.FileDescription, body io.Reader) (policies.Found, string, error) {
	field := fmt.Sprintf("files[%d]", i)
	path := pack.SafeName(i, f.Name)
	w, err := in.builder.Create(path, f.Size)
	if err != nil {
		return policies.Found{}, "", ourFault("submit", field, err)
	}
	ends := newEnds(f.Size)
	buffer := make([]byte, min(max(f.Size, 512), 64<<10))
	n, err := io.CopyBuffer(io.MultiWriter(&ours{w}, ends), &cancellable{ctx, io.LimitReader(body, f.Size)}, buffer)
	if err != nil {
		return policies.Found{}, "", receiveError(field, err)
	}
	if n < f.Size {
		return policies.Found{}, "", invalid(field+".size", "file.short", fmt.Sprintf("annunciati %d byte, arrivati %d", f.Size, n), "indicare in size la dimensione esatta del file e inviarlo per intero")
	}
	var more [1]byte
	if extra, err := io.ReadFull(body, more[:]); extra > 0 {
		return policies.Found{}, "", invalid(field+".size", "file.long", fmt.Sprintf("annunciati %d byte, arrivati di più", f.Size), "indicare in size la dimensione esatta del file")
	} else if !errors.Is(err, io.EOF) {
		return policies.Found{}, "", receiveError(field, err)
	}
	if err := w.Close(); err != nil {
		return policies.Found{}, "", storeError("submit", field, err)
	}
	members := in.builder.Files()
	return policies.Found{Size: n, SHA256: members[len(members)-1].SHA256, Head: ends.head, Tail: ends.tail}, path, nil
}

// receiveError is the error of a body that could not be read to its end: the sender's connection, or our disk.
func receiveError(field string, err error) error {
	var own *writeError
	if errors.As(err, &own) {
		return storeError("submit", field, own.err)
	}
	e := invalid(field, "transport", "il corpo della richiesta si interrompe o è malformato", "inviare di nuovo: ripetere un versamento è sempre sicuro")
	e.Err = err
	return e
}

// ours marks what goes wrong on our side of a copy.
type ours struct{ w io.Writer }

type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

func (o *ours) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

// endsWriter keeps the first and the last bytes of what passes.
type endsWriter struct{ head, tail []byte }

// newEnds makes room for the ends of a file of size bytes.
func newEnds(size int64) *endsWriter {
	return &endsWriter{make([]byte, 0, min(size, headSize)), make([]byte, 0, min(size, tailSize))}
}

func (e *endsWriter) Write(b []byte) (int, error) {
	if room := headSize - len(e.head); room > 0 {
		e.head = append(e.head, b[:min(room, len(b))]...)
	}
	if len(b) >= tailSize {
		e.tail = append(e.tail[:0], b[len(b)-tailSize:]...)
	} else {
		e.tail = append(e.tail, b...)
		if over := len(e.tail) - tailSize; over > 0 {
			e.tail = append(e.tail[:0], e.tail[over:]...)
		}
	}
	return len(b), nil
}

// ourFault is an error of our own making: a full disk or quota may pass, anything else is Internal.
func ourFault(op, object string, err error) error {
	for _, full := range []error{storage.ErrFull, storage.ErrUnknown, syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS} {
		if errors.Is(err, full) {
			return storeError(op, object, err)
		}
	}
	return fail(Internal, op, object, err)
}

// storeError says "not now" for a store that could not be written: nothing was acknowledged.
func storeError(op, object string, err error) error {
	return fail(Unavailable, op, object, err)
}
