package pack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// maxFindings bounds the differing files that one verification names.
const maxFindings = 100

// VerifyStream is [Open] and [Container.Verify] in one pass over a container that can only be read from front
// to end. It reads r to its end and returns how many bytes there were and their SHA-256. Errors are those of
// Verify.
func VerifyStream(ctx context.Context, r io.Reader, check func(manifest, signature []byte) error) (size int64, sha256 [32]byte, err error) {
	p, err := readAll(ctx, r, check)
	return p.src.n, p.sum, err
}

// pass is one reading of a container from front to end.
type pass struct {
	src   *source
	r     *bufio.Reader
	at    int64 // offset of what r gives next
	names *sequence
	buf   []byte

	members   []Member // SHA256 as found while reading, then as the manifest has it
	found     [][32]byte
	mimetype  []byte
	manifest  []byte
	signature []byte
	findings  []error
	sum       [32]byte
}

// readAll reads a whole container and judges it.
func readAll(ctx context.Context, r io.Reader, check func(manifest, signature []byte) error) (*pass, error) {
	p := &pass{src: &source{ctx: ctx, in: reading{r: r}, sha: sha256.New()}, names: newSequence(), buf: make([]byte, 1<<17)}
	p.r = bufio.NewReaderSize(p.src, 1<<15)
	if err := p.readMembers(); err != nil {
		return p, errors.Join(append(p.findings, err)...)
	}
	if err := p.readDirectory(); err != nil {
		return p, errors.Join(append(p.findings, err)...)
	}
	p.sum = [32]byte(p.src.sha.Sum(nil))
	if err := matchManifest(p.members, p.mimetype, p.manifest, p.signature); err != nil {
		return p, errors.Join(append(p.findings, err)...)
	}
	for i, m := range p.members {
		if m.SHA256 != p.found[i] {
			p.find(m.Name, "SHA-256 is not the manifest's")
		}
	}
	if err := check(p.manifest, p.signature); err != nil {
		p.findings = append(p.findings, fmt.Errorf("signature of the manifest: %w", err))
	}
	return p, errors.Join(p.findings...)
}

func (p *pass) find(name, what string) {
	if len(p.findings) < maxFindings {
		p.findings = append(p.findings, fmt.Errorf("%w: %s: %s", ErrDigest, name, what))
	}
}

// read gives the next n bytes.
func (p *pass) read(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(p.r, b)
	p.at += int64(n)
	return b, p.src.in.failure(err)
}

// readMembers reads local headers and files up to the directory.
func (p *pass) readMembers() error {
	for {
		sig, err := p.r.Peek(4)
		if err != nil {
			return p.src.in.failure(err)
		}
		if binary.LittleEndian.Uint32(sig) == sigCentral {
			return p.names.complete()
		}
		at := p.at
		head, err := p.read(lenLocal)
		if err != nil {
			return err
		}
		m, err := parseLocal(head, at, p.read)
		if err != nil {
			return err
		}
		if err := p.names.admit(m.Name); err != nil {
			return err
		}
		if err := p.readFile(m); err != nil {
			return err
		}
	}
}

// readFile reads the bytes of m.
func (p *pass) readFile(m Member) error {
	keep, limit := p.kept(m.Name)
	if keep != nil && m.Size > limit {
		return fmt.Errorf("%w: %s: %d bytes, %d at most", ErrForm, m.Name, m.Size, limit)
	}
	sha, crc := sha256.New(), uint32(0)
	for left := m.Size; left > 0; {
		b := p.buf[:min(left, int64(len(p.buf)))]
		if _, err := io.ReadFull(p.r, b); err != nil {
			return p.src.in.failure(err)
		}
		sha.Write(b)
		crc = crc32.Update(crc, crc32.IEEETable, b)
		if keep != nil {
			*keep = append(*keep, b...)
		}
		left -= int64(len(b))
	}
	p.at += m.Size
	if crc != m.CRC32 {
		p.find(m.Name, "CRC-32 is not the header's")
	}
	p.members = append(p.members, m)
	p.found = append(p.found, [32]byte(sha.Sum(nil)))
	return nil
}

// kept says where the bytes of a member that must be looked at go, and how many they may be.
func (p *pass) kept(name string) (*[]byte, int64) {
	switch name {
	case mimetypeName:
		return &p.mimetype, int64(len(mimetype))
	case manifestName:
		return &p.manifest, maxManifest(len(p.members))
	case signatureName:
		return &p.signature, maxSignature
	}
	return nil, 0
}

// readDirectory holds the central headers and the end records to the members read, and wants nothing behind.
func (p *pass) readDirectory() error {
	d := directory{members: int64(len(p.members)), offset: p.at}
	var want []byte
	for _, m := range p.members {
		want = appendCentral(want[:0], m)
		got, err := p.read(len(want))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%w: %s: central header differs from the local one", ErrForm, m.Name)
		}
	}
	d.size = p.at - d.offset
	want = appendEnd(want[:0], d)
	got, err := p.read(len(want))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: end record: not in its only form", ErrForm)
	}
	if _, err := p.r.ReadByte(); err == nil {
		return fmt.Errorf("%w: bytes behind the end record", ErrForm)
	}
	if err := p.src.in.err; err != nil {
		return fmt.Errorf("read container: %w", err)
	}
	return nil
}

// source hashes what is read, until ctx ends.
type source struct {
	ctx context.Context
	in  reading
	sha hash.Hash
	n   int64
}

func (s *source) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		s.in.err = err
		return 0, err
	}
	n, err := s.in.Read(b)
	s.sha.Write(b[:n])
	s.n += int64(n)
	return n, err
}

// reading keeps what went wrong with a reader apart from its end, which io.ReadFull does not: a connection
// that breaks is no finding about the container.
type reading struct {
	r   io.Reader
	err error
}

func (in *reading) Read(b []byte) (int, error) {
	n, err := in.r.Read(b)
	if err != nil && err != io.EOF {
		in.err = err
	}
	return n, err
}

// failure says what err, met while reading from in, means.
func (in *reading) failure(err error) error {
	switch {
	case err == nil:
		return nil
	case in.err != nil:
		return fmt.Errorf("read container: %w", in.err)
	}
	return fmt.Errorf("%w: container is cut short", ErrForm)
}

// readAt fills b from offset at. An end of r within b is ErrForm, any other error is r's.
func readAt(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		return fmt.Errorf("%w: container ends at %d", ErrForm, at+int64(n))
	}
	return fmt.Errorf("read container: %w", err)
}
