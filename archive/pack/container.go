package pack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
)

// What a container can be found to be. An error that is neither of them means that it could not be read.
var (
	// ErrForm: the bytes are not a container, or another document, of the one form of this package.
	ErrForm = errors.New("not in canonical form")
	// ErrDigest: the form is right, but bytes of a member differ from their checksum or the manifest.
	ErrDigest = errors.New("bytes differ")
)

// Container is an open container whose form was checked, and whose files were not read yet.
type Container struct {
	r         io.ReaderAt
	size      int64
	names     *sequence
	members   []Member
	manifest  []byte
	signature []byte
}

// Open reads the directory, the local headers and META-INF of the container that is the size bytes of r. It
// returns ErrForm, saying where, unless a Builder would write the same bytes around the same files; ErrDigest
// when what it read differs from its CRC-32; any other error means that r could not be read. The other files
// are not read, the signature is not judged: [Container.Verify] does both. Memory is bounded by the directory.
func Open(r io.ReaderAt, size int64) (*Container, error) {
	c := &Container{r: r, size: size, names: newSequence()}
	d, err := c.readEnd()
	if err != nil {
		return nil, err
	}
	if err := c.readDirectory(d); err != nil {
		return nil, err
	}
	if err := c.names.complete(); err != nil {
		return nil, err
	}
	last := len(c.members) - 1
	head, err := c.small(c.members[0], int64(len(mimetype)))
	if err != nil {
		return nil, err
	}
	if c.manifest, err = c.small(c.members[last-1], maxManifest(len(c.members))); err != nil {
		return nil, err
	}
	if c.signature, err = c.small(c.members[last], maxSignature); err != nil {
		return nil, err
	}
	if err := matchManifest(c.members, head, c.manifest, c.signature); err != nil {
		return nil, err
	}
	return c, nil
}

// Members are the files in order, mimetype first, META-INF last. SHA256 is what the manifest says; for
// META-INF, which it does not name, the digest of the bytes read.
func (c *Container) Members() []Member { return slices.Clone(c.members) }

// Manifest is META-INF/ASiCManifest.xml.
func (c *Container) Manifest() []byte { return bytes.Clone(c.manifest) }

// Signature is META-INF/signature.p7s.
func (c *Container) Signature() []byte { return bytes.Clone(c.signature) }

// Member finds a file by its name.
func (c *Container) Member(name string) (Member, bool) {
	i, ok := c.names.index[strings.ToLower(name)]
	if !ok || c.members[i].Name != name {
		return Member{}, false
	}
	return c.members[i], true
}

// Section gives the bytes of a file as they lie in the container: they are not checked.
func (c *Container) Section(name string) (*io.SectionReader, error) {
	m, ok := c.Member(name)
	if !ok {
		return nil, fmt.Errorf("container has no %q", name)
	}
	return io.NewSectionReader(c.r, m.Offset, m.Size), nil
}

// ReadFile reads a file of at most limit bytes and checks it against the manifest; ErrDigest when it differs.
func (c *Container) ReadFile(name string, limit int64) ([]byte, error) {
	m, ok := c.Member(name)
	if !ok {
		return nil, fmt.Errorf("container has no %q", name)
	}
	b, err := c.small(m, limit)
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(b) != m.SHA256 {
		return nil, fmt.Errorf("%w: %s: SHA-256 is not the manifest's", ErrDigest, name)
	}
	return b, nil
}

// Verify reads every byte of the container once, in order. It checks the form again, every file against its
// CRC-32 and the manifest, and gives manifest and signature to check. It returns the SHA-256 of the whole
// container, also beside an error when all bytes could be read in order; zero otherwise.
//
// ErrDigest names every file that differs; ErrForm means damage outside the files; an error of check comes
// wrapped; any other error means that r could not be read, which is no finding about the container.
func (c *Container) Verify(ctx context.Context, check func(manifest, signature []byte) error) (sha256 [32]byte, err error) {
	p, err := readAll(ctx, io.NewSectionReader(c.r, 0, c.size), check)
	if err == nil && (!slices.Equal(p.members, c.members) || !bytes.Equal(p.manifest, c.manifest)) {
		err = fmt.Errorf("%w: container changed since it was opened", ErrForm)
	}
	return p.sum, err
}

// readEnd finds the directory.
func (c *Container) readEnd() (directory, error) {
	if c.size < 0 || c.size > maxSize {
		return directory{}, fmt.Errorf("%w: size %d is out of bounds", ErrForm, c.size)
	}
	tail := make([]byte, min(c.size, lenEnd64+lenLocator+lenEnd))
	if err := readAt(c.r, tail, c.size-int64(len(tail))); err != nil {
		return directory{}, err
	}
	return parseEnd(tail, c.size)
}

// readDirectory reads the central headers and holds each local header to its own.
func (c *Container) readDirectory(d directory) error {
	in := &reading{r: io.NewSectionReader(c.r, d.offset, d.size)}
	r := bufio.NewReaderSize(in, 1<<16)
	read := func(n int) ([]byte, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, in.failure(err)
	}
	var at int64
	for range d.members {
		head, err := read(lenCentral)
		if err != nil {
			return err
		}
		m, err := parseCentral(head, read)
		if err != nil {
			return err
		}
		if err := c.names.admit(m.Name); err != nil {
			return err
		}
		if m.headAt() != at {
			return fmt.Errorf("%w: %s: begins at %d, not at %d", ErrForm, m.Name, m.headAt(), at)
		}
		if at = m.end(); at > d.offset {
			return fmt.Errorf("%w: %s: runs into the directory", ErrForm, m.Name)
		}
		want := appendLocal(nil, m)
		got := make([]byte, len(want))
		if err := readAt(c.r, got, m.headAt()); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%w: %s: local header differs from the central one", ErrForm, m.Name)
		}
		c.members = append(c.members, m)
	}
	if at != d.offset {
		return fmt.Errorf("%w: gap before the directory", ErrForm)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: gap behind the directory", ErrForm)
	}
	return nil
}

// small reads a whole member and checks its CRC-32.
func (c *Container) small(m Member, limit int64) ([]byte, error) {
	if m.Size > limit {
		return nil, fmt.Errorf("%w: %s: %d bytes, %d at most", ErrForm, m.Name, m.Size, limit)
	}
	b := make([]byte, m.Size)
	if err := readAt(c.r, b, m.Offset); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(b) != m.CRC32 {
		return nil, fmt.Errorf("%w: %s: CRC-32 is not the header's", ErrDigest, m.Name)
	}
	return b, nil
}

// maxManifest bounds the manifest of a container of n members.
func maxManifest(n int) int64 {
	return int64(len(manifestOpen) + len(manifestClose) + n*maxReference)
}

// matchManifest holds the manifest to the members, all of them, and gives these their digests.
func matchManifest(members []Member, head, manifest, signature []byte) error {
	if string(head) != mimetype {
		return fmt.Errorf("%w: %s is not %s", ErrForm, mimetypeName, mimetype)
	}
	if len(signature) == 0 {
		return fmt.Errorf("%w: %s is empty", ErrForm, signatureName)
	}
	refs, err := ParseManifest(manifest)
	if err != nil {
		return err
	}
	named := members[:len(members)-2]
	for i, m := range named {
		if i >= len(refs) || refs[i].Name != m.Name {
			return fmt.Errorf("%w: %s: %s is not where it belongs in the manifest", ErrForm, manifestName, m.Name)
		}
		named[i].SHA256 = refs[i].SHA256
	}
	if len(refs) > len(named) {
		return fmt.Errorf("%w: %s: names %s, which is not there", ErrForm, manifestName, refs[len(named)].Name)
	}
	members[len(members)-2].SHA256 = sha256.Sum256(manifest)
	members[len(members)-1].SHA256 = sha256.Sum256(signature)
	return nil
}
