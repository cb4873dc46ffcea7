package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
)

// maxRefusal bounds a refusal object.
const maxRefusal = 16 << 20

// Refusals stand in the catalog beside the packages, under a key of their own and marked annulled, so that they
// are found by identifier and counted by key, and never taken for a package.
const refusalType = "comunicazione di rifiuto"

func refusalKeyHMAC(keyHMAC string) string        { return "refusals:" + keyHMAC }
func isRefusal(rec catalog.Record) bool           { return rec.Type == refusalType }
func refusalKey(producer, year, id string) string { return producer + "/refusals/" + year + "/" + id }

// refuse answers a submission that the policy does not admit (Linee guida AgID 4.7 c). The refusal is put,
// then entered in the ledger; the same submission under the same policy gets the same one. Beyond the policy's
// limit of refusals for one key nothing more is recorded: the error says so.
func (a *Archive) refuse(ctx context.Context, p *producer, in *incoming) (*paper.Receipt, error) {
	policy := p.Policy.Digest()
	id, err := p.refusalID(bodyKey(in.key), in.submission, hex.EncodeToString(policy[:]))
	if err != nil {
		return nil, fail(Internal, "submit", p.Code, err)
	}
	if rec, ok, err := a.cfg.Catalog.ByID(p.Code, id); err != nil {
		return nil, fail(Unavailable, "submit", p.Code, err)
	} else if ok {
		a.sealer.wait(ctx, p.Code, rec.Index)
		return a.receipt(ctx, p, rec, nil)
	}
	if err := a.belowRefusalLimit(p, in); err != nil {
		return nil, err
	}
	if err := a.refusalBody(p, in, id, policy); err != nil {
		return nil, fail(Internal, "submit", p.Code, err)
	}

	// Put the refusal. A crash after it leaves an object without an entry, which the same submission meets again.
	object, err := a.putRefusal(ctx, p, in, id)
	if err != nil {
		return nil, err
	}
	a.crash("refusal.stored")

	// Commit its entry.
	digest, err := in.body.Digest()
	if err != nil {
		return nil, fail(Internal, "submit", p.Code, err)
	}
	entry := ledger.Entry{Type: ledger.SubmissionRefused, ID: id, Key: in.keyHMAC, Object: object, Size: in.size, SHA256: hex.EncodeToString(in.sha256[:]), Receipt: digest}
	at, err := p.ledger().Append(ctx, ledger.Pending{Entry: entry, Decide: func(context.Context) error {
		if _, ok, err := a.cfg.Catalog.ByID(p.Code, id); err != nil {
			return err
		} else if ok {
			return errKnown
		}
		return a.belowRefusalLimit(p, in)
	}})
	if err != nil && !errors.Is(err, errKnown) {
		return nil, fail(Unavailable, "submit", p.Code, err)
	}
	a.crash("refusal.committed") // leaves everything but the answer
	rec, ok, findErr := a.cfg.Catalog.ByID(p.Code, id)
	if findErr != nil || !ok {
		return nil, fail(Internal, "submit", id, errors.Join(findErr, errors.New("committed but not in the catalog")))
	}
	if err == nil {
		a.sealer.wait(ctx, p.Code, at.Index)
	}
	return a.receipt(ctx, p, rec, nil)
}

// belowRefusalLimit counts the refusals of the key.
func (a *Archive) belowRefusalLimit(p *producer, in *incoming) error {
	rec, ok, err := a.cfg.Catalog.ByKey(p.Code, refusalKeyHMAC(in.keyHMAC))
	if err != nil {
		return fail(Unavailable, "submit", p.Code, err)
	}
	limit := p.Policy.RefusalLimit()
	if ok && rec.Generation >= int64(limit) {
		return &Error{Kind: Refused, Op: "submit", Object: p.Code, Findings: append([]policies.Finding{{
			Field: "number", Rule: "refusals.limit", Level: policies.Error,
			Message: fmt.Sprintf("%s è già stato rifiutato %d volte, il massimo concordato", in.key, rec.Generation),
			Remedy:  "concordare con il conservatore come procedere; il limite è nella policy del produttore",
		}}, in.findings...)}
	}
	return nil
}

func (a *Archive) refusalBody(p *producer, in *incoming, id string, policy [32]byte) error {
	salt, err := a.newSalt()
	if err != nil {
		return err
	}
	for i := range in.files {
		in.files[i].Path = ""
	}
	in.body = a.body(p, in, policy, salt)
	in.body.Kind, in.body.Statement = paper.KindRefusal, paper.StatementRefusal
	in.body.Identifier = paper.ReceiptURN(a.cfg.Installation, p.Code, id)
	return nil
}

// sameRefusal reports whether two bodies say the same but for when they were made.
func sameRefusal(there, own paper.Body) bool {
	there.Time, there.Salt = own.Time, own.Salt
	a, errA := canon.Marshal(there)
	b, errB := canon.Marshal(own)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// putRefusal creates the object; one that lies there already is taken over when it is this refusal.
func (a *Archive) putRefusal(ctx context.Context, p *producer, in *incoming, id string) (string, error) {
	object := refusalKey(p.Code, strconv.Itoa(in.at.UTC().Year()), id)
	text, err := canon.Marshal(in.body)
	if err != nil {
		return "", fail(Internal, "submit", p.Code, err)
	}
	err = a.put(ctx, object, text, sha256.Sum256(text))
	if errors.Is(err, storage.ErrExists) {
		if text, err = readSmall(ctx, a.cfg.Store, object, "", maxRefusal); err == nil {
			var there paper.Body
			if err = canon.Unmarshal(text, &there); err == nil && !sameRefusal(there, in.body) {
				err = errors.New("another object lies under the refusal's key: run perenne audit")
			}
			in.body = there
		}
		if err == nil {
			o := storage.PutOptions{Size: int64(len(text)), SHA256: sha256.Sum256(text), RetainUntil: a.lockUntil(a.cfg.Now())}
			err = a.adopt(ctx, object, bytes.NewReader(text), o)
		}
	}
	if err != nil {
		return "", storeError("submit", p.Code, err)
	}
	in.size, in.sha256 = int64(len(text)), sha256.Sum256(text)
	return object, nil
}
