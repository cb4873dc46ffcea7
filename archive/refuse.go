package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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

func refusalKeyHMAC(keyHMAC string) string { return "refusals:" + keyHMAC }
func isRefusal(rec catalog.Record) bool    { return rec.Type == refusalType }

// refusalAttempts is how many keys a refusal may have: beside an object that it cannot take over, it stands under the next.
const refusalAttempts = 3

// refusalKey is where a refusal lies.
func refusalKey(producer, year, id string, attempt int) string {
	key := producer + "/refusals/" + year + "/" + id
	if attempt > 1 {
		return key + "." + strconv.Itoa(attempt)
	}
	return key
}

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
	at, err := p.ledger().Append(ctx, ledger.Pending{Entry: entry, Decide: func(context.Context) error { return a.decideRefusal(p, in, id) }})
	if errors.Is(err, errInCharge) {
		_, known, err := a.lookUp(ctx, p, in)
		if known == nil {
			return nil, fail(Unavailable, "submit", p.Code, errors.Join(err, errInCharge))
		}
		return a.inCharge(ctx, p, *known)
	}
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

// errInCharge is how Decide says that the submission to be refused was taken in charge meanwhile.
var errInCharge = errors.New("the submission was taken in charge by another daemon")

// decideRefusal decides inside the sequencer whether a refusal still stands.
func (a *Archive) decideRefusal(p *producer, in *incoming, id string) error {
	if _, ok, err := a.cfg.Catalog.ByID(p.Code, id); err != nil {
		return err
	} else if ok {
		return errKnown
	}
	rec, ok, err := a.cfg.Catalog.ByKey(p.Code, in.keyHMAC)
	if err != nil {
		return err
	}
	if ok && !rec.Annulled {
		own, err := p.packageID(in.key, rec.Generation, in.metadataDigest(), in.files)
		if err != nil {
			return err
		}
		if own == rec.ID {
			return errInCharge
		}
	}
	return a.belowRefusalLimit(p, in)
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
	in.body = a.body(p, in, policy, salt)
	in.body.Files = slices.Clone(in.files)
	for i := range in.body.Files {
		in.body.Files[i].Path = "" // in no package
	}
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

// putRefusal creates the object. One that lies there already is taken over when it is this refusal; else ours goes beside
// it.
func (a *Archive) putRefusal(ctx context.Context, p *producer, in *incoming, id string) (string, error) {
	text, err := canon.Marshal(in.body)
	if err != nil {
		return "", fail(Internal, "submit", p.Code, err)
	}
	in.size, in.sha256 = int64(len(text)), sha256.Sum256(text)
	var object string
	for attempt := 1; attempt <= refusalAttempts; attempt++ {
		object = refusalKey(p.Code, strconv.Itoa(in.at.UTC().Year()), id, attempt)
		err := a.put(ctx, object, text, in.sha256)
		if err == nil {
			return object, nil
		}
		if !errors.Is(err, storage.ErrExists) {
			return "", storeError("submit", p.Code, err)
		}
		took, err := a.takeOverRefusal(ctx, in, object)
		if err != nil {
			return "", storeError("submit", p.Code, err)
		}
		if took {
			return object, nil
		}
		a.metrics.alarms.Inc()
		a.cfg.Log.Error("an object that is not this refusal lies under its key", slog.String("key", object))
	}
	return "", &Error{Kind: Damaged, Op: "submit", Object: object, Err: fmt.Errorf("%d other objects lie under this refusal's keys: run perenne audit", refusalAttempts)}
}

// takeOverRefusal reads the object under a refusal's key and, when it is this refusal, makes in speak of it. Whoever put it
// may be gone with all that it held: from here on this daemon answers for it, and holds it first.
func (a *Archive) takeOverRefusal(ctx context.Context, in *incoming, object string) (bool, error) {
	text, err := readSmall(ctx, a.cfg.Store, object, "", maxRefusal)
	if unread(err) || errors.Is(err, storage.ErrNotFound) {
		return false, err // it may well be ours: not now
	}
	var there paper.Body
	if err != nil || canon.Unmarshal(text, &there) != nil || !sameRefusal(there, in.body) {
		return false, nil //nolint:nilerr // something else
	}
	if there.Timely(in.at) != nil {
		return false, nil // it would state a time that its entry contradicts
	}
	o := storage.PutOptions{Size: int64(len(text)), SHA256: sha256.Sum256(text), RetainUntil: a.lockUntil(a.cfg.Now())}
	if err := a.adopt(ctx, object, bytes.NewReader(text), o); err != nil {
		return false, err
	}
	in.body, in.size, in.sha256 = there, o.Size, o.SHA256
	return true, nil
}
