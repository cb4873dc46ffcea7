package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
)

// Submit takes a submission in charge and returns its receipt; or, when the policy does not admit it, a
// refusal, which is a paper too (Receipt.Refused). Submitting the same again is safe at any time and gives the
// same receipt: equal body, equal proof. Other content under the same key is a Conflict.
//
// The receipt is returned when everything it rests on is durable. Its evidence may be pending.
func (a *Archive) Submit(ctx context.Context, s Submission) (*paper.Receipt, error) {
	start := a.cfg.Now()
	r, err := a.submit(ctx, s)
	a.metrics.submitted(r, err, a.cfg.Now().Sub(start))
	return r, err
}

func (a *Archive) submit(ctx context.Context, s Submission) (*paper.Receipt, error) {
	p, err := a.running("submit", s.Producer)
	if err != nil {
		return nil, err
	}
	if !a.writable() {
		return nil, fail(ReadOnly, "submit", p.Code, errReadOnly)
	}

	// Receive: description, then bytes, hashed once, into a nameless object.
	in, err := a.receive(ctx, p, s)
	if err != nil {
		return nil, err
	}
	defer in.close()
	a.crash("received") // leaves nothing: a nameless object goes with the process

	// From here on the store is waited for, and not without end: a client that is told to come again finds what was
	// done meanwhile.
	ctx, cancel := context.WithTimeout(ctx, a.storeWait(in.bytes()))
	defer cancel()

	// Look up, as a courtesy: the commit below decides. What was taken in charge once is so for good, whatever
	// the policy says today.
	generation, known, taken := a.lookUp(ctx, p, in)
	if known == nil && policies.Refused(in.findings) {
		// A refusal says that nothing was taken in charge: another daemon may just have done so, under another policy.
		// Who comes while one reads takes what it finds: what it misses the sequencer sees.
		_, err := once(ctx, &p.reading, "", func(ctx context.Context) (any, error) { return nil, p.ledger().Refresh(ctx) })
		if err != nil {
			return nil, fail(Unavailable, "submit", p.Code, err)
		}
		generation, known, taken = a.lookUp(ctx, p, in)
	}
	if known != nil {
		return a.inCharge(ctx, p, *known)
	}

	// Admit.
	if policies.Refused(in.findings) {
		return a.refuse(ctx, p, in)
	}
	if taken != nil {
		return nil, taken
	}

	// Pack: receipt body, RdV, AgID profile, index, manifest, signature.
	if err := a.atWork(func() error { return a.pack(ctx, p, in, generation) }); err != nil {
		return nil, ourFault("submit", p.Code, err)
	}
	a.crash("packed") // leaves nothing

	// Store: one conditional Put. The package does not exist yet for anybody.
	if err := a.store(ctx, p, in); err != nil {
		return nil, err
	}
	a.crash("stored") // leaves an orphan, which a retry meets and commits

	// Commit: from here on the package exists. Index: the commit is applied to the catalog before it returns.
	at, err := a.commit(ctx, p, in, generation)
	if err != nil {
		return nil, err
	}
	a.crash("committed") // leaves everything but the answer: a retry gets the receipt, the next seal covers it

	// Seal: wait for it a moment, where seals are made at once.
	a.sealer.wait(ctx, p.Code, at.Index)
	a.crash("sealed")

	// Answer.
	rec, ok, err := a.cfg.Catalog.ByID(p.Code, in.body.Package)
	if err != nil || !ok {
		return nil, fail(Internal, "submit", in.body.Package, errors.Join(err, errors.New("committed but not in the catalog")))
	}
	if in.body.Salt == "" { // another submission of the same won: what it left is read first, like any other
		return a.again(ctx, p, rec)
	}
	return a.receipt(ctx, p, rec, &in.body)
}

// inCharge answers a submission that was taken in charge before.
func (a *Archive) inCharge(ctx context.Context, p *producer, rec catalog.Record) (*paper.Receipt, error) {
	a.sealer.wait(ctx, p.Code, rec.Index)
	return a.again(ctx, p, rec)
}

// atWork runs what keeps a processor busy and waits for nobody, for no more submissions at once than there are
// processors: the goroutines that write commits and seals, for which all others wait, must not queue behind them.
func (a *Archive) atWork(work func() error) error {
	a.processors <- struct{}{}
	defer func() { <-a.processors }()
	return work()
}

// storeWait is how long the store may take for a submission with n bytes of files.
func (a *Archive) storeWait(n int64) time.Duration {
	wait := a.cfg.StoreWait
	if wait == 0 {
		wait = time.Minute
	}
	return wait + time.Duration(n>>20)*time.Second
}

// lookUp finds what the key already has: the package that this very submission made, or a conflict, or the
// generation a new package gets.
func (a *Archive) lookUp(ctx context.Context, p *producer, in *incoming) (int64, *catalog.Record, error) {
	rec, ok, err := a.cfg.Catalog.ByKey(p.Code, in.keyHMAC)
	if err != nil {
		return 0, nil, fail(Unavailable, "submit", p.Code, err)
	}
	if !ok {
		return 0, nil, nil
	}
	if rec.Annulled {
		return rec.Generation + 1, nil, nil
	}
	id, err := p.packageID(in.key, rec.Generation, in.metadataDigest(), in.files)
	if err != nil {
		return 0, nil, fail(Internal, "submit", p.Code, err)
	}
	if id == rec.ID || a.sameSubmission(ctx, rec, in) {
		return 0, &rec, nil
	}
	return 0, nil, conflict(in.key, rec.ID)
}

// sameSubmission compares with what the package says that it was made of: identifiers derived under a name key
// that was lost are not those derived now.
func (a *Archive) sameSubmission(ctx context.Context, rec catalog.Record, in *incoming) bool {
	var body paper.Body
	return a.readBody(ctx, rec, &body) == nil && body.Submission == in.submission && body.Key == bodyKey(in.key)
}

func conflict(key policies.Key, existing string) error {
	return &Error{Kind: Conflict, Op: "submit", Object: existing, Existing: existing, Findings: []policies.Finding{{
		Field: "number", Rule: "key.taken", Level: policies.Error,
		Message: fmt.Sprintf("%s è già conservato con un altro contenuto: pacchetto %s", key, existing),
		Remedy:  "verificare la chiave; per sostituire il documento occorre prima l'annullamento del pacchetto esistente",
	}}}
}

func (in *incoming) metadataDigest() string {
	sum := sha256.Sum256(in.metadata)
	return hex.EncodeToString(sum[:])
}

// store puts the package under its key. An object that lies there already is taken over when it is a package
// of this very identity, made from these digests and signed by a key of ours; else the package goes beside it.
func (a *Archive) store(ctx context.Context, p *producer, in *incoming) error {
	var err error
	if in.size, in.sha256, err = in.staged.Seal(ctx); err != nil {
		return storeError("submit", p.Code, err)
	}
	a.crash("staged") // leaves nothing
	until := a.lockUntil(in.at)
	if end, ends := p.Policy.RetainUntil(in.description.Class, in.at); ends && end.Before(until) {
		until = end
	}
	const attempts = 3
	for n := 1; n <= attempts; n++ {
		in.object = packageKey(p.Code, in.body.Package, n)
		err := a.create(ctx, in.object, in.staged, storage.PutOptions{Size: in.size, SHA256: in.sha256, RetainUntil: until})
		if err == nil {
			return nil
		}
		if !errors.Is(err, storage.ErrExists) {
			return storeError("submit", p.Code, err)
		}
		took, err := a.takeOver(ctx, p, in, until)
		if err != nil {
			return storeError("submit", p.Code, err)
		}
		if took {
			return nil
		}
		a.metrics.alarms.Inc()
		a.cfg.Log.Error("an object that is no package of ours lies under a package's key", slog.String("key", in.object))
	}
	return &Error{Kind: Damaged, Op: "submit", Object: in.object, Err: fmt.Errorf("%d foreign objects lie under this package's keys: run perenne audit", attempts)}
}

// takeOver reads the object under in.object and, when it is this package, makes in speak of it. Whoever put it may be
// gone with all that it held: from here on this daemon answers for it, and holds it first, locked until then.
func (a *Archive) takeOver(ctx context.Context, p *producer, in *incoming, until time.Time) (bool, error) {
	o, err := openObject(ctx, a.cfg.Store, in.object)
	if err != nil {
		return false, err
	}
	got, err := paper.ReadPackage(ctx, o, o.size, a.cfg.Trust)
	if err != nil {
		if ctx.Err() != nil || unread(err) {
			return false, err // it may well be ours: not now
		}
		return false, nil
	}
	if got.Body.Package != in.body.Package || got.Body.Submission != in.submission || got.Body.Producer.Code != p.Code || got.Body.Installation != a.cfg.Installation {
		return false, nil
	}
	if got.Body.Timely(in.at) != nil {
		return false, nil // its receipt would state a time that its entry contradicts
	}
	if err := a.adopt(ctx, in.object, o, storage.PutOptions{Size: o.size, SHA256: got.SHA256, RetainUntil: until}); err != nil {
		return false, err
	}
	a.crash("orphan.met") // leaves it as it was
	in.body, in.size, in.sha256 = got.Body, o.size, got.SHA256
	in.record, err = newSearchRecord(in.description, &in.body)
	return err == nil, err
}

// errKnown is how Decide says that the same submission was committed meanwhile.
var errKnown = errors.New("the same submission is committed already")

// commit appends the entry. Identity is decided inside the sequencer, against exactly the state it chains to.
func (a *Archive) commit(ctx context.Context, p *producer, in *incoming, generation int64) (ledger.Committed, error) {
	receipt, err := in.body.Digest()
	if err != nil {
		return ledger.Committed{}, fail(Internal, "submit", p.Code, err)
	}
	record, err := in.record.digest()
	if err != nil {
		return ledger.Committed{}, fail(Internal, "submit", p.Code, err)
	}
	entry := ledger.Entry{
		Type: ledger.PackageSealed, ID: in.body.Package, Key: in.keyHMAC, Generation: generation,
		Object: in.object, Size: in.size, SHA256: hex.EncodeToString(in.sha256[:]), Receipt: receipt, Record: record,
	}
	p.expect(in.record)
	at, err := p.ledger().Append(ctx, ledger.Pending{Entry: entry, Decide: func(context.Context) error { return a.decide(p, in, generation) }})
	if !errors.Is(err, storage.ErrUnknown) {
		p.arrived(in.record.ID) // the commit took it, or it is not going to arrive
	} // else its client went away while it was written: the commit takes it when it is applied
	switch {
	case err == nil:
		return at, nil
	case errors.Is(err, errKnown):
		rec, ok, err := a.cfg.Catalog.ByID(p.Code, in.body.Package)
		if err != nil || !ok {
			return ledger.Committed{}, fail(Internal, "submit", p.Code, errors.Join(err, errKnown))
		}
		in.body = paper.Body{Package: rec.ID} // the receipt is read from the package that won
		return ledger.Committed{Index: rec.Index, Commit: rec.Commit}, nil
	default:
		return ledger.Committed{}, fail(Unavailable, "submit", p.Code, err)
	}
}

func (a *Archive) decide(p *producer, in *incoming, generation int64) error {
	rec, ok, err := a.cfg.Catalog.ByKey(p.Code, in.keyHMAC)
	switch {
	case err != nil:
		return fail(Unavailable, "submit", p.Code, err)
	case !ok && generation == 0:
		return nil
	case ok && rec.ID == in.body.Package && !rec.Annulled:
		return errKnown
	case ok && !rec.Annulled:
		return conflict(in.key, rec.ID)
	case ok && rec.Generation+1 == generation:
		return nil
	default:
		return fail(Unavailable, "submit", p.Code, errors.New("the key changed meanwhile: submit again"))
	}
}

// receipt makes the receipt of a package: its body (read from the package unless given), the proof of its
// entry in the checkpoint of its own commit, and the evidence record once it is sealed.
func (a *Archive) receipt(ctx context.Context, p *producer, rec catalog.Record, body *paper.Body) (*paper.Receipt, error) {
	r := &paper.Receipt{}
	if body != nil {
		r.Body = *body
	} else if err := a.readBody(ctx, rec, &r.Body); err != nil {
		return nil, err
	}
	return r, a.prove(ctx, p, rec, r, body != nil)
}

// prove adds proof and evidence, and holds the body against the entry: no paper is issued from a damaged one. Of a
// package that was committed this moment nobody else is asked for a seal: it would cost each submission a request.
func (a *Archive) prove(ctx context.Context, p *producer, rec catalog.Record, r *paper.Receipt, fresh bool) error {
	text, err := p.ledger().Proof(ctx, rec.Index)
	if err != nil {
		return fail(readKind(err), "receipt", p.Code, err)
	}
	r.Proof = string(text)
	proof, err := ledger.ParseProof(text, a.checkpoints)
	if err != nil {
		return fail(Damaged, "receipt", p.Code, err)
	}
	if e := proof.Entry; e.ID != rec.ID || e.Object != rec.Object || e.SHA256 != rec.SHA256 || e.Size != rec.Size {
		return fail(Damaged, "receipt", rec.ID, errors.New("the catalog points at another entry of the ledger: run perenne audit"))
	}
	sum, err := r.Body.Digest()
	if err != nil || sum != proof.Entry.Receipt {
		return fail(Damaged, "receipt", proof.Entry.ID, errors.Join(err, errors.New("the receipt in the package is not the one the ledger names: run perenne audit")))
	}
	var leaf *[32]byte
	if !r.Refused() {
		sum, err := hex.DecodeString(proof.Entry.SHA256)
		if err != nil || len(sum) != 32 {
			return fail(Internal, "receipt", proof.Entry.ID, errors.New("the entry has no digest"))
		}
		leaf = (*[32]byte)(sum)
	}
	if _, sealed := a.seals.Of(p.Code, rec.Index); fresh && !sealed {
		r.Evidence = paper.Evidence{Seal: paper.Pending}
		return nil
	}
	r.Evidence, err = a.evidence(ctx, p, rec.Index, leaf)
	if err != nil {
		return fail(readKind(err), "receipt", proof.Entry.ID, err)
	}
	return nil
}

// readBody reads the receipt body, or the refusal, where it lies.
func (a *Archive) readBody(ctx context.Context, rec catalog.Record, body *paper.Body) error {
	var text []byte
	var err error
	if isRefusal(rec) {
		text, err = readNamed(ctx, a.cfg.Store, rec.Object, rec.Size, rec.SHA256, maxRefusal)
	} else {
		text, err = a.readMember(ctx, rec, paper.MemberBody)
	}
	if err != nil {
		return fail(readKind(err), "receipt", rec.ID, err)
	}
	if err := canon.Unmarshal(text, body); err != nil {
		return fail(Damaged, "receipt", rec.ID, fmt.Errorf("%w: run perenne audit", err))
	}
	return nil
}

// Receipt gives the receipt of a package, or a refusal, again.
func (a *Archive) Receipt(ctx context.Context, code, id string) (*paper.Receipt, error) {
	p, rec, err := a.find(ctx, "receipt", code, id)
	if err != nil {
		return nil, err
	}
	return a.again(ctx, p, rec)
}

// again gives the receipt of a package that was taken in charge before. The package is read whole and verified
// first: who asks again is told when it is not what it was.
func (a *Archive) again(ctx context.Context, p *producer, rec catalog.Record) (*paper.Receipt, error) {
	if !isRefusal(rec) {
		if _, err := a.verifyPackage(ctx, "receipt", rec); err != nil {
			return nil, err
		}
	}
	return a.receipt(ctx, p, rec, nil)
}

// find looks a package up by its identifier; a miss refreshes first, since another daemon may have written it.
func (a *Archive) find(ctx context.Context, op, code, id string) (*producer, catalog.Record, error) {
	p, err := a.running(op, code)
	if err != nil {
		return nil, catalog.Record{}, err
	}
	if !validID(id) {
		return nil, catalog.Record{}, fail(NotFound, op, "", errors.New("not the identifier of a package"))
	}
	rec, ok, err := a.cfg.Catalog.ByID(code, id)
	if err == nil && !ok {
		if err = p.ledger().Refresh(ctx); err == nil {
			rec, ok, err = a.cfg.Catalog.ByID(code, id)
		}
	}
	if err != nil {
		return nil, catalog.Record{}, fail(Unavailable, op, id, err)
	}
	if !ok {
		return nil, catalog.Record{}, fail(NotFound, op, id, errors.New("no such package"))
	}
	return p, rec, nil
}

// newSalt is 256 random bits in hex.
func (a *Archive) newSalt() (string, error) {
	var salt [32]byte
	if _, err := io.ReadFull(a.cfg.Rand, salt[:]); err != nil {
		return "", fmt.Errorf("salt: %w", err)
	}
	return hex.EncodeToString(salt[:]), nil
}

// wholeSecond is the precision that SInCRO and CMS times have.
func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
