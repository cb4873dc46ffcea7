package paper

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/pack"
)

// The members of a package beside its content.
const (
	MemberSubmission = "metadata/submission.json"                // the metadata as received
	MemberProfile    = "metadata/agid-documento-informatico.xml" // Allegato 5
	MemberBody       = "metadata/receipt.json"                   // RFC 8785 form of the receipt's body
	MemberRdV        = "metadata/rapporto-di-versamento.xml"     // Body.XML
	MemberIndex      = "PIndex.xml"
)

// maxMember bounds the members that are read into memory.
const maxMember = 64 << 20

// Package is a package that was read and found whole.
type Package struct {
	SHA256 [32]byte // of all its bytes: what the ledger and the seal name
	Body   Body
	Index  pack.PIndex
	// Container gives access to the content.
	Container *pack.Container
}

// ReadPackage reads every byte of a package once and verifies it: the form of the container, each digest, the
// signature under a trusted anchor at the time the body states, its qualification, and that body, index, RdV and content say the
// same. It proves that the package is ours and whole, not that it stands in a ledger.
func ReadPackage(ctx context.Context, r io.ReaderAt, size int64, t Trust) (*Package, error) {
	c, err := pack.Open(r, size)
	if err != nil {
		return nil, err
	}
	p := &Package{Container: c}
	if err := p.readParts(); err != nil {
		return nil, err
	}
	at, err := time.Parse(TimeFormat, p.Body.Time)
	if err != nil {
		return nil, fmt.Errorf("%s: the time is not in the form of the format", MemberBody)
	}
	p.SHA256, err = verifySealed(ctx, c, t, at, p.Body.Qualification)
	if goOn(ctx, err) {
		err = errors.Join(err, p.agree())
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// readParts parses the members that say what the package is.
func (p *Package) readParts() error {
	text, err := ReadMember(p.Container, MemberBody)
	if err != nil {
		return err
	}
	if err := canon.Unmarshal(text, &p.Body); err != nil {
		return fmt.Errorf("%s: %w", MemberBody, err)
	}
	if text, err = ReadMember(p.Container, MemberIndex); err != nil {
		return err
	}
	if p.Index, err = pack.ParsePIndex(text); err != nil {
		return fmt.Errorf("%s: %w", MemberIndex, err)
	}
	return nil
}

// agree holds the parts against each other.
func (p *Package) agree() error {
	if err := p.Body.consistent(); err != nil {
		return fmt.Errorf("%s: %w", MemberBody, err)
	}
	if p.Body.Kind != KindReceipt || p.Index.Volume.ID != p.Body.Package || p.Index.Volume.Generation != p.Body.Generation {
		return fmt.Errorf("%s and %s speak of different packages", MemberBody, MemberIndex)
	}
	want, err := p.Body.XML()
	if err != nil {
		return err
	}
	if got, err := ReadMember(p.Container, MemberRdV); err != nil {
		return err
	} else if !bytes.Equal(got, want) {
		return fmt.Errorf("%s is not the rendering of %s", MemberRdV, MemberBody)
	}
	digests := map[string]string{}
	content := 0
	for _, m := range p.Container.Members() {
		digests[m.Name] = hex.EncodeToString(m.SHA256[:])
		if len(m.Name) > 8 && m.Name[:8] == "content/" {
			content++
		}
	}
	if digests[MemberSubmission] != p.Body.Metadata {
		return fmt.Errorf("%s is not the metadata the receipt speaks of", MemberSubmission)
	}
	if content != len(p.Body.Files) {
		return fmt.Errorf("the package holds %d files, the receipt names %d", content, len(p.Body.Files))
	}
	for _, f := range p.Body.Files {
		if digests[f.Path] != f.SHA256 {
			return fmt.Errorf("%s is not the file the receipt speaks of", f.Path)
		}
	}
	return p.Index.Match(p.Container.Members())
}

// ReadMember reads a small member whole and checks it against the manifest.
func ReadMember(c *pack.Container, name string) ([]byte, error) { return c.ReadFile(name, maxMember) }

// checkPackage is the check of a package that stands alone.
func checkPackage(ctx context.Context, r io.ReaderAt, size int64, t Trust, l Lang) (*Result, *Package) {
	res := &Result{Kind: l.T("pacchetto di archiviazione", "package")}
	p, err := ReadPackage(ctx, r, size, t)
	if err != nil {
		return res.fail(l.T("pacchetto", "package"), err), nil
	}
	res.About = p.Body.Producer.Code + " " + p.Body.Key.String()
	res.good(fmt.Sprintf(l.T("integro, %d file, con firma%s; id %s", "whole, %d files, signed%s; id %s"), len(p.Body.Files), unqualified(l, p.Body.Qualification), p.Body.Package))
	return res, p
}

var errOtherAlgorithm = errors.New("a timestamp over something else than SHA-256")
