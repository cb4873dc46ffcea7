package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
)

// Request asks for a package.
type Request struct {
	Producer string
	ID       string
	// Purpose says why; it stands in the distribution package and, in the ledger, only as a salted digest.
	Purpose string
	// By names who asks: a token's name, never a person's where it can be helped.
	By string
}

// Copy is a distribution package ready to be sent. Close it.
type Copy struct {
	Statement paper.Statement
	Key       paper.BodyKey
	Size      int64
	SHA256    [32]byte
	staged    storage.Staged
}

// Reader gives the bytes.
func (c *Copy) Reader() *io.SectionReader { return io.NewSectionReader(c.staged, 0, c.Size) }

// Close frees the room the copy takes.
func (c *Copy) Close() error { return c.staged.Close() }

// Retrieve gives a package out: a distribution package with the package itself, byte for byte (duplicato
// informatico), its receipt and its evidence record, under the conservatore's seal. The package is read whole
// and verified first: nothing is issued from a damaged one. That it was given out is entered in the ledger
// before the first byte leaves; to whom and why is in a record beside it, which can be erased.
func (a *Archive) Retrieve(ctx context.Context, req Request) (*Copy, error) {
	start := a.cfg.Now()
	c, err := a.retrieve(ctx, req)
	a.metrics.retrieved(err, a.cfg.Now().Sub(start))
	return c, err
}

func (a *Archive) retrieve(ctx context.Context, req Request) (*Copy, error) {
	p, rec, err := a.find(ctx, "retrieve", req.Producer, req.ID)
	if err != nil {
		return nil, err
	}
	if isRefusal(rec) {
		return nil, fail(NotFound, "retrieve", req.ID, errors.New("this is a refusal: it has a paper, but no package"))
	}
	if a.cfg.Signer == nil {
		return nil, fail(ReadOnly, "retrieve", req.ID, errReadOnly)
	}
	version, err := a.verifyPackage(ctx, "retrieve", rec)
	if err != nil {
		return nil, err
	}
	receipt, err := a.receipt(ctx, p, rec, nil)
	if err != nil {
		return nil, err
	}
	staged, err := a.spool()
	if err != nil {
		return nil, storeError("retrieve", req.ID, err)
	}
	c, err := a.writeCopy(ctx, p, rec, version, req, receipt, staged)
	if err != nil {
		return nil, errors.Join(err, staged.Close())
	}
	return c, nil
}

// verifyPackage reads a package whole: its digest against the entry, its form, its signature, its parts. It returns
// the version that is the package; "" means the newest.
func (a *Archive) verifyPackage(ctx context.Context, op string, rec catalog.Record) (version string, err error) {
	o, err := openNamed(ctx, a.cfg.Store, rec.Object, rec.Size, rec.SHA256)
	if err != nil {
		return "", fail(readKind(err), op, rec.ID, err)
	}
	got, err := paper.ReadPackage(ctx, o, o.size, a.cfg.Trust)
	if err != nil {
		if ctx.Err() != nil || unread(err) {
			return "", fail(Unavailable, op, rec.ID, err)
		}
		return "", fail(Damaged, op, rec.ID, fmt.Errorf("%w: run perenne audit", err))
	}
	if hex.EncodeToString(got.SHA256[:]) != rec.SHA256 || got.Body.Package != rec.ID {
		return "", fail(Damaged, op, rec.ID, errors.New("the object is not the package that the ledger names: run perenne audit"))
	}
	return o.version, nil
}

// writeCopy makes the distribution package of a package that was just verified, and enters it in the ledger.
func (a *Archive) writeCopy(ctx context.Context, p *producer, rec catalog.Record, version string, req Request, receipt *paper.Receipt, staged storage.Staged) (*Copy, error) {
	at := a.cfg.Now()
	number, err := a.newSalt()
	if err != nil {
		return nil, fail(Internal, "retrieve", rec.ID, err)
	}
	c := &Copy{staged: staged, Key: receipt.Body.Key, Statement: paper.Statement{
		Kind: paper.KindDistribution, Identifier: "urn:perenne:" + a.cfg.Installation + ":" + p.Code + ":pdd:" + number[:32],
		Time: stamp(at), Installation: a.cfg.Installation, Producer: p.Code, Package: rec.ID, SHA256: rec.SHA256, Size: rec.Size,
		Purpose: req.Purpose, Nature: paper.Duplicate, Qualification: a.qualification(),
	}}
	source, err := a.cfg.Store.Get(ctx, rec.Object, version, 0, -1)
	if err != nil {
		return nil, fail(readKind(err), "retrieve", rec.ID, err)
	}
	h := sha256.New()
	parts := paper.CopyParts{Statement: c.Statement, Receipt: receipt, Package: io.TeeReader(&cancellable{ctx, source}, h)}
	c.Size, err = paper.WriteCopy(ctx, staged, parts, func(ctx context.Context, manifest []byte) ([]byte, error) {
		return a.cfg.Signer.Sign(ctx, manifest, at)
	})
	if err := errors.Join(err, source.Close()); err != nil {
		return nil, fail(Unavailable, "retrieve", rec.ID, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != rec.SHA256 {
		return nil, fail(Damaged, "retrieve", rec.ID, errors.New("the package changed while it was read: run perenne audit"))
	}
	if _, c.SHA256, err = staged.Seal(ctx); err != nil {
		return nil, fail(Unavailable, "retrieve", rec.ID, err)
	}
	if !a.writable() {
		return c, nil // a read-only archive gives out what it has, and cannot enter it
	}
	return c, a.enterCopy(ctx, p, rec, req, c)
}

// accessRecord says who was given what and why. It lies beside the ledger, unlocked and erasable; the entry has
// its salted digest.
type accessRecord struct {
	By      string `json:"by"`
	Copy    string `json:"copy"`
	Package string `json:"package"`
	Purpose string `json:"purpose"`
	Salt    string `json:"salt"`
	Time    string `json:"time"`
}

// enterCopy writes the record and appends the entry. A crash between the two leaves a record that no entry names.
func (a *Archive) enterCopy(ctx context.Context, p *producer, rec catalog.Record, req Request, c *Copy) error {
	salt, err := a.newSalt()
	if err != nil {
		return fail(Internal, "retrieve", rec.ID, err)
	}
	text, err := canon.Marshal(accessRecord{By: req.By, Copy: c.Statement.Identifier, Package: rec.ID, Purpose: req.Purpose, Salt: salt, Time: c.Statement.Time})
	if err != nil {
		return fail(Internal, "retrieve", rec.ID, err)
	}
	raw, err := hex.DecodeString(salt)
	if err != nil {
		return fail(Internal, "retrieve", rec.ID, err)
	}
	number, err := a.newSalt()
	if err != nil {
		return fail(Internal, "retrieve", rec.ID, err)
	}
	key := fmt.Sprintf("%s/records/%s/%s", p.Code, c.Statement.Time[:4], number[:32])
	if err := a.putErasable(ctx, key, text); err != nil {
		return storeError("retrieve", rec.ID, err)
	}
	entry := ledger.Entry{Type: ledger.CopyIssued, ID: rec.ID, Size: c.Size, SHA256: hex.EncodeToString(c.SHA256[:]), Cause: paper.Salted(raw, text)}
	if _, err := p.ledger().Append(ctx, ledger.Pending{Entry: entry}); err != nil {
		return fail(Unavailable, "retrieve", rec.ID, err)
	}
	a.sealer.retry()
	return nil
}

// Evidence gives the RFC 4998 record of a package, DER; Unavailable while its seal is pending.
func (a *Archive) Evidence(ctx context.Context, code, id string) ([]byte, error) {
	p, rec, err := a.find(ctx, "evidence", code, id)
	if err != nil {
		return nil, err
	}
	r, err := a.again(ctx, p, rec)
	if err != nil {
		return nil, err
	}
	if r.Evidence.Seal != paper.Sealed {
		return nil, fail(Unavailable, "evidence", id, errors.New("the seal is pending: ask again later"))
	}
	return evidenceRecord(r)
}

// Package gives the package as it is kept, verified whole first. It is no paper: nothing is entered for it.
func (a *Archive) Package(ctx context.Context, code, id string) (io.ReadCloser, catalog.Record, error) {
	_, rec, err := a.find(ctx, "package", code, id)
	if err != nil {
		return nil, rec, err
	}
	if isRefusal(rec) {
		return nil, rec, fail(NotFound, "package", id, errors.New("this is a refusal: it has no package"))
	}
	version, err := a.verifyPackage(ctx, "package", rec)
	if err != nil {
		return nil, rec, err
	}
	r, err := a.cfg.Store.Get(ctx, rec.Object, version, 0, -1)
	if err != nil {
		return nil, rec, fail(readKind(err), "package", id, err)
	}
	return r, rec, nil
}

// Proof gives the tlog-proof of a package's or refusal's entry.
func (a *Archive) Proof(ctx context.Context, code, id string) ([]byte, error) {
	p, rec, err := a.find(ctx, "proof", code, id)
	if err != nil {
		return nil, err
	}
	text, err := p.ledger().Proof(ctx, rec.Index)
	if err != nil {
		return nil, fail(Damaged, "proof", id, err)
	}
	return text, nil
}

// Search looks for packages of one producer. A search that finds nothing is made once more when the ledger has been read
// on: another daemon may have written what is looked for. What it finds may lack what others wrote in the last minute.
func (a *Archive) Search(ctx context.Context, q catalog.Query) (catalog.Page, error) {
	p, err := a.producer("search", q.Producer)
	if err != nil {
		return catalog.Page{}, err
	}
	page, err := a.cfg.Catalog.Search(ctx, q)
	if err == nil && len(page.Records) == 0 && q.After == "" {
		before := p.followed()
		if a.readOn(ctx, p); p.followed() > before {
			page, err = a.cfg.Catalog.Search(ctx, q)
		}
	}
	if errors.Is(err, catalog.ErrQuery) {
		return page, fail(Invalid, "search", "", err)
	}
	if err != nil {
		return page, fail(Unavailable, "search", q.Producer, err)
	}
	return page, nil
}

// Find gives the catalog's record of a package.
func (a *Archive) Find(ctx context.Context, code, id string) (catalog.Record, error) {
	_, rec, err := a.find(ctx, "package", code, id)
	return rec, err
}

// CheckAgainst verifies a receipt somebody brought, so that an audit of its producer can be held against it.
func (a *Archive) CheckAgainst(producer string, r *paper.Receipt) (paper.Checked, error) {
	if r.Body.Producer.Code != producer || r.Body.Installation != a.cfg.Installation {
		return paper.Checked{}, &Error{Kind: Invalid, Op: "audit", Err: errors.New("the receipt to hold against is of another body, or of another archive")}
	}
	res, checked := r.Check(a.cfg.Trust, paper.Italian)
	if checked == nil || res.Verdict() == paper.Wrong {
		last := res.Lines[len(res.Lines)-1]
		return paper.Checked{}, &Error{Kind: Invalid, Op: "audit", Err: errors.New("the receipt to hold against is not good: " + last.Text)}
	}
	return *checked, nil
}
