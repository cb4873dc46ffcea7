package pack

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
)

const (
	mimetype     = "application/vnd.etsi.asic-e+zip"
	maxSignature = 1 << 20
)

// File is where a container is written.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// Member is a file of a container.
type Member struct {
	Name string
	// Size in bytes.
	Size int64
	// SHA256 and CRC32 of its bytes.
	SHA256 [32]byte
	CRC32  uint32
	// Offset of its first byte in the container: the member's bytes lie there untouched.
	Offset int64
}

// Builder writes a container into a file, front to back, from offset 0. A file's bytes are written once; only
// the CRC-32 of a streamed file is written into its local header when it ends. A Builder is used by one
// goroutine. After a failed write, or a streamed file of another length than announced, every method returns
// that error: what was written is no container and is to be thrown away.
type Builder struct {
	f        File
	at       int64 // where the next local header goes
	names    *sequence
	members  []Member
	open     *memberWriter
	finished bool
	err      error
}

// NewBuilder begins a container in f, which should be empty.
func NewBuilder(f File) *Builder {
	b := &Builder{f: f, names: newSequence()}
	b.err = b.put(mimetypeName, []byte(mimetype))
	return b
}

// Add writes a file. Its name must be safe, new, and in the order of the package comment.
func (b *Builder) Add(name string, data []byte) error {
	if err := b.ready(name); err != nil {
		return err
	}
	return b.put(name, data)
}

// Create begins a file of exactly size bytes, to be written in any number of pieces and closed before the
// next file begins. Write refuses bytes beyond size. Close fails when there were fewer; after it, Files has
// the digest. The rules for names are those of Add.
func (b *Builder) Create(name string, size int64) (io.WriteCloser, error) {
	if err := b.ready(name); err != nil {
		return nil, err
	}
	if size < 0 || size > maxSize {
		return nil, fmt.Errorf("%s: size %d is out of bounds", name, size)
	}
	if err := b.names.admit(name); err != nil {
		return nil, err
	}
	m := b.next(name, size)
	if err := b.write(appendLocal(nil, m), b.at); err != nil {
		return nil, err
	}
	b.open = &memberWriter{b: b, m: m, sha: sha256.New()}
	return b.open, nil
}

// Files are the members written so far, mimetype first.
func (b *Builder) Files() []Member { return slices.Clone(b.members) }

// Finish writes the manifest over all files, the signature that sign makes of it, and the central directory.
// It returns the size of the container. The Builder can do nothing more.
func (b *Builder) Finish(ctx context.Context, sign func(ctx context.Context, manifest []byte) ([]byte, error)) (size int64, err error) {
	if err := b.usable(); err != nil {
		return 0, err
	}
	b.finished = true
	manifest, err := MarshalManifest(references(b.members))
	if err != nil {
		return 0, err
	}
	signature, err := sign(ctx, manifest)
	if err != nil {
		return 0, fmt.Errorf("sign manifest: %w", err)
	}
	if len(signature) == 0 || len(signature) > maxSignature {
		return 0, fmt.Errorf("sign manifest: signature of %d bytes", len(signature))
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := b.put(manifestName, manifest); err != nil {
		return 0, err
	}
	if err := b.put(signatureName, signature); err != nil {
		return 0, err
	}
	return b.writeDirectory()
}

func (b *Builder) usable() error {
	switch {
	case b.err != nil:
		return b.err
	case b.finished:
		return errors.New("container is finished")
	case b.open != nil:
		return fmt.Errorf("%s is not closed", b.open.m.Name)
	}
	return nil
}

// ready says whether the caller may add name now.
func (b *Builder) ready(name string) error {
	if err := b.usable(); err != nil {
		return err
	}
	where, err := place(name)
	if err != nil {
		return err
	}
	if where >= placeManifest {
		return fmt.Errorf("%w: %s is written by Finish", ErrForm, name)
	}
	// The manifest and the signature need room as well.
	if len(b.members) >= maxMembers-2 {
		return fmt.Errorf("%w: more than %d members", ErrForm, maxMembers)
	}
	return nil
}

func (b *Builder) next(name string, size int64) Member {
	return Member{Name: name, Size: size, Offset: b.at + int64(lenHead(name, size))}
}

// put writes a member whose bytes are all there.
func (b *Builder) put(name string, data []byte) error {
	if err := b.names.admit(name); err != nil {
		return err
	}
	m := b.next(name, int64(len(data)))
	m.CRC32, m.SHA256 = crc32.ChecksumIEEE(data), sha256.Sum256(data)
	if err := b.write(appendLocal(nil, m), b.at); err != nil {
		return err
	}
	if err := b.write(data, m.Offset); err != nil {
		return err
	}
	b.keep(m)
	return nil
}

func (b *Builder) keep(m Member) {
	b.members = append(b.members, m)
	b.at = m.end()
}

func (b *Builder) write(p []byte, at int64) error {
	if at+int64(len(p)) > maxSize {
		b.err = errors.New("container grows beyond 2^50 bytes")
		return b.err
	}
	if _, err := b.f.WriteAt(p, at); err != nil {
		b.err = fmt.Errorf("write container: %w", err)
	}
	return b.err
}

func (b *Builder) writeDirectory() (int64, error) {
	w := bufio.NewWriterSize(io.NewOffsetWriter(b.f, b.at), min(1<<16, 512+256*len(b.members)))
	d := directory{members: int64(len(b.members)), offset: b.at}
	var buf []byte
	for _, m := range b.members {
		buf = appendCentral(buf[:0], m)
		d.size += int64(len(buf))
		if _, err := w.Write(buf); err != nil {
			return 0, fmt.Errorf("write container: %w", err)
		}
	}
	end := appendEnd(nil, d)
	if _, err := w.Write(end); err != nil {
		return 0, fmt.Errorf("write container: %w", err)
	}
	if err := w.Flush(); err != nil {
		return 0, fmt.Errorf("write container: %w", err)
	}
	return d.offset + d.size + int64(len(end)), nil
}

// memberWriter writes a file whose bytes come in pieces.
type memberWriter struct {
	b       *Builder
	m       Member
	sha     hash.Hash
	written int64
	closed  bool
}

func (w *memberWriter) Write(p []byte) (int, error) {
	if w.closed {
		return 0, fmt.Errorf("%s is closed", w.m.Name)
	}
	if w.b.err != nil {
		return 0, w.b.err
	}
	if int64(len(p)) > w.m.Size-w.written {
		w.b.err = fmt.Errorf("%s: more than the %d bytes announced", w.m.Name, w.m.Size)
		return 0, w.b.err
	}
	if err := w.b.write(p, w.m.Offset+w.written); err != nil {
		return 0, err
	}
	w.sha.Write(p)
	w.m.CRC32 = crc32.Update(w.m.CRC32, crc32.IEEETable, p)
	w.written += int64(len(p))
	return len(p), nil
}

// Close ends the file; closing twice is harmless.
func (w *memberWriter) Close() error {
	if w.closed || w.b.err != nil {
		w.closed = true
		return w.b.err
	}
	w.closed = true
	w.b.open = nil
	if w.written != w.m.Size {
		w.b.err = fmt.Errorf("%s: %d bytes of the %d announced", w.m.Name, w.written, w.m.Size)
		return w.b.err
	}
	w.m.SHA256 = [32]byte(w.sha.Sum(nil))
	crc := binary.LittleEndian.AppendUint32(nil, w.m.CRC32)
	if err := w.b.write(crc, w.m.headAt()+crcAt); err != nil {
		return err
	}
	w.b.keep(w.m)
	return nil
}
