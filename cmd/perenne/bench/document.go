package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"

	"github.com/marchesud/perenne/policies"
)

// Document is one of a series of PDF files that differ from each other in every run.
type Document struct {
	Producer string
	Number   int64 // of the series, from 0; makes key and content
	Size     int64 // of the file, bytes
}

const (
	boundary  = "perenne-bench-c6a1f0e2b9d44f6b"
	smallest  = 256 // bytes a document has at least
	fileName  = "determina.pdf"
	noiseSize = 1 << 20
)

// noise fills the documents.
func noise() []byte {
	b := make([]byte, noiseSize)
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// form is the submission of a document as multipart/form-data, and its length.
func (d Document) form(noise []byte) (io.Reader, int64) {
	head := fmt.Appendf(nil, "%%PDF-1.7\n%%perenne bench %d of %d bytes\n", d.Number, d.Size)
	tail := []byte("\ntrailer<</Root 1 0 R>>\n%%EOF\n")
	var before bytes.Buffer
	fmt.Fprintf(&before, "--%s\r\nContent-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json\r\n\r\n", boundary)
	before.Write(d.description())
	fmt.Fprintf(&before, "\r\n--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\"\r\nContent-Type: application/octet-stream\r\n\r\n", boundary, fileName)
	before.Write(head)
	after := append(tail, "\r\n--"+boundary+"--\r\n"...)
	parts := []io.Reader{&before}
	length := int64(before.Len()) + int64(len(after))
	for left := d.Size - int64(len(head)+len(tail)); left > 0; left -= noiseSize {
		n := min(left, noiseSize)
		parts = append(parts, bytes.NewReader(noise[:n]))
		length += n
	}
	return io.MultiReader(append(parts, bytes.NewReader(after))...), length
}

func (d Document) description() []byte {
	reserved := false
	text, err := json.Marshal(policies.Description{
		Register: "DETE", Year: 2026, Number: strconv.FormatInt(d.Number, 10), Date: "2026-03-09", Type: "determina",
		Subject: fmt.Sprintf("Affidamento del servizio di prova numero %d", d.Number), Reserved: &reserved,
		Files: []policies.FileDescription{{Name: fileName, Role: policies.RoleMain, Size: d.Size}},
	})
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	return text
}
