package archive

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
)

// searchRecord is what is searchable of a package. It stands, with its salt, in the search bundle beside the
// commit, and its salted digest in the entry: so a catalog made from bundles is proved to be the right one.
type searchRecord struct {
	Class      string `json:"class,omitempty"`
	Date       string `json:"date"`
	Files      int    `json:"files"`
	Generation int64  `json:"generation"`
	ID         string `json:"id"`
	Number     string `json:"number"`
	Register   string `json:"register"`
	Reserved   bool   `json:"reserved"`
	Salt       string `json:"salt"` // hex; derived from the package's salt, which it does not tell
	Structure  string `json:"structure"`
	Subject    string `json:"subject"`
	Time       string `json:"time"`
	Type       string `json:"type"`
	Year       int    `json:"year"`
}

// newSearchRecord makes the record from the description and the receipt body, which both lie in the package.
func newSearchRecord(d policies.Description, b *paper.Body) (searchRecord, error) {
	salt, err := hex.DecodeString(b.Salt)
	if err != nil || len(salt) != 32 {
		return searchRecord{}, errors.New("the receipt has no salt")
	}
	h := hmac.New(sha256.New, salt)
	h.Write([]byte("perenne search record v1"))
	return searchRecord{
		Class: d.Class, Date: d.Date, Files: len(b.Files), Generation: b.Generation, ID: b.Package,
		Number: b.Key.Number, Register: b.Key.Register, Reserved: d.Reserved != nil && *d.Reserved,
		Salt: hex.EncodeToString(h.Sum(nil)), Structure: b.Key.Structure, Subject: d.Subject, Time: b.Time,
		Type: d.Type, Year: b.Key.Year,
	}, nil
}

// digest is SHA-256(salt ‖ RFC 8785 form): what the entry carries.
func (r searchRecord) digest() (string, error) {
	text, err := canon.Marshal(r)
	if err != nil {
		return "", err
	}
	salt, err := hex.DecodeString(r.Salt)
	if err != nil {
		return "", err
	}
	return paper.Salted(salt, text), nil
}

// of is the catalog's record of the entry that names this search record.
// Its key is the HMAC under the name key of today, so that a key stays taken when a lost name key was replaced.
func (r searchRecord) of(p *producer, e ledger.Entry, index, commit int64) catalog.Record {
	key := e.Key
	if len(p.NameKey) > 0 && r.Register != "" {
		key = p.keyHMAC(policies.Key{Structure: r.Structure, Register: r.Register, Year: r.Year, Number: r.Number})
	}
	return catalog.Record{
		Producer: p.Code, ID: e.ID, Generation: e.Generation, Index: index, Commit: commit, KeyHMAC: key,
		Structure: r.Structure, Register: r.Register, Year: r.Year, Number: r.Number, Date: r.Date, Type: r.Type,
		Subject: r.Subject, Reserved: r.Reserved, Class: r.Class, Files: r.Files,
		Size: e.Size, Object: e.Object, SHA256: e.SHA256, Time: r.Time,
	}
}

// expect keeps the search record of a package until its commit is applied.
func (p *producer) expect(r searchRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arriving[r.ID] = r
}

func (p *producer) arrived(id string) (searchRecord, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.arriving[id]
	delete(p.arriving, id)
	return r, ok
}

// bundleKey is where the search records of a commit lie.
func bundleKey(producer string, commit int64) string {
	d := fmt.Sprintf("%020d", commit)
	return producer + "/catalog/" + d[:16] + "/" + d[16:] + ".0"
}

// index applies a commit to the catalog: called in order, once for each commit, our own, another daemon's or
// one replayed after a crash. The search bundle is put first, so that every commit in a catalog has one.
func (a *Archive) index(ctx context.Context, p *producer, c *ledger.Commit) error {
	records, err := a.searchRecords(ctx, p, c)
	if err != nil {
		return err
	}
	var ch catalog.Change
	refusals := map[string]int64{}
	for i, e := range c.Entries {
		index := c.First + int64(i)
		switch e.Type {
		case ledger.PackageSealed:
			ch.Put = append(ch.Put, records[e.ID].of(p, e, index, c.Number))
		case ledger.SubmissionRefused:
			rec, err := a.refusalRecord(p, e, index, c.Number, refusals)
			if err != nil {
				return err
			}
			ch.Put = append(ch.Put, rec)
		case ledger.PackageAnnulled, ledger.PackageDisposed:
			ch.Annul = append(ch.Annul, e.ID)
		case ledger.KeyAdded:
			p.keyStands(e)
		case ledger.SealEntry:
			p.mu.Lock()
			p.lastSeal = max(p.lastSeal, *e.Seal)
			p.mu.Unlock()
		}
	}
	if err := a.cfg.Catalog.Apply(p.Code, ch, catalog.State{Commit: c.Number, Size: c.Size, Root: c.Root}); err != nil {
		return fmt.Errorf("index commit %d of %s: %w", c.Number, p.Code, err)
	}
	a.metrics.entries.WithLabelValues(p.Code).Set(float64(c.Size))
	return nil
}

// refusalRecord numbers the refusals of a key.
func (a *Archive) refusalRecord(p *producer, e ledger.Entry, index, commit int64, batch map[string]int64) (catalog.Record, error) {
	key := refusalKeyHMAC(e.Key)
	n, ok := batch[key]
	if !ok {
		last, found, err := a.cfg.Catalog.ByKey(p.Code, key)
		if err != nil {
			return catalog.Record{}, err
		}
		if found {
			n = last.Generation
		}
	}
	batch[key] = n + 1
	return catalog.Record{
		Producer: p.Code, ID: e.ID, Generation: n + 1, Index: index, Commit: commit, KeyHMAC: key, Date: e.Time[:10],
		Type: refusalType, Size: e.Size, Object: e.Object, SHA256: e.SHA256, Time: e.Time, Annulled: true,
	}, nil
}

// searchRecords finds the search record of each package of a commit, and puts the bundle where it does not lie
// as it should. A record that is lost for good is no reason to stop a ledger; one that cannot be read now is.
func (a *Archive) searchRecords(ctx context.Context, p *producer, c *ledger.Commit) (map[string]searchRecord, error) {
	found := map[string]searchRecord{}
	var bundle map[string]searchRecord
	var text bytes.Buffer
	whole, lost := true, false
	for _, e := range c.Entries {
		if e.Type != ledger.PackageSealed {
			continue
		}
		if bundle == nil {
			var err error
			if bundle, err = a.readBundle(ctx, p.Code, c.Number); err != nil {
				return nil, err
			}
		}
		r, inBundle, err := a.searchRecord(ctx, p, e, bundle)
		if unread(err) {
			return nil, err
		}
		if err != nil {
			lost = true
			a.metrics.alarms.Inc()
			a.cfg.Log.Error("search record lost: neither bundle nor package give it", slog.String("package", e.ID), slog.Any("err", err))
			r = searchRecord{ID: e.ID, Generation: e.Generation, Time: e.Time, Date: e.Time[:10]}
		}
		whole = whole && inBundle
		found[e.ID] = r
		line, err := canon.Marshal(r)
		if err != nil {
			return nil, err
		}
		text.Write(line)
		text.WriteByte('\n')
	}
	if !whole && !lost { // what is lost is not written over what may be left of it
		a.putBundle(ctx, bundleKey(p.Code, c.Number), text.Bytes())
	}
	return found, nil
}

// searchRecord finds one record: on its way through Submit, in the bundle, or in the package itself; each is held
// against the digest in its entry. It tells whether the bundle has it.
func (a *Archive) searchRecord(ctx context.Context, p *producer, e ledger.Entry, bundle map[string]searchRecord) (searchRecord, bool, error) {
	fits := func(r searchRecord) bool {
		sum, err := r.digest()
		return err == nil && sum == e.Record
	}
	there, inBundle := bundle[e.ID]
	inBundle = inBundle && fits(there)
	if r, ok := p.arrived(e.ID); ok && fits(r) {
		return r, inBundle, nil
	}
	if inBundle {
		return there, true, nil
	}
	r, err := a.recordFromPackage(ctx, e)
	return r, false, err
}

// putBundle writes a search bundle. It is derived: a failure costs the next rebuild time, nothing else.
func (a *Archive) putBundle(ctx context.Context, key string, text []byte) {
	r, ok := a.cfg.Store.(storage.Replacer)
	if !ok {
		return
	}
	o := storage.PutOptions{Size: int64(len(text)), SHA256: sha256.Sum256(text)}
	if err := r.Replace(ctx, key, bytes.NewReader(text), o); err != nil {
		a.cfg.Log.Warn("search bundle not written", slog.String("key", key), slog.Any("err", err))
	}
}

// maxBundle bounds a bundle: a commit of 4 MiB with subjects longer than its entries.
const maxBundle = 64 << 20

// readBundle reads what can be read of a bundle; lines that do not parse are as good as absent, and so is a bundle
// that is not there.
func (a *Archive) readBundle(ctx context.Context, producer string, commit int64) (map[string]searchRecord, error) {
	records := map[string]searchRecord{}
	text, err := readSmall(ctx, a.cfg.Store, bundleKey(producer, commit), maxBundle)
	if unread(err) {
		return nil, err
	}
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		var r searchRecord
		if len(line) > 0 && canon.Unmarshal(line, &r) == nil {
			records[r.ID] = r
		}
	}
	return records, nil
}

// recordFromPackage derives the search record from the package.
func (a *Archive) recordFromPackage(ctx context.Context, e ledger.Entry) (searchRecord, error) {
	o, err := openObject(ctx, a.cfg.Store, e.Object)
	if err != nil {
		return searchRecord{}, err
	}
	c, err := pack.Open(o, o.size)
	if err != nil {
		return searchRecord{}, err
	}
	text, err := paper.ReadMember(c, paper.MemberSubmission)
	if err != nil {
		return searchRecord{}, err
	}
	d, findings := policies.ParseDescription(text)
	if policies.Refused(findings) {
		return searchRecord{}, errors.New("its metadata do not parse")
	}
	var b paper.Body
	if text, err = paper.ReadMember(c, paper.MemberBody); err != nil {
		return searchRecord{}, err
	}
	if err := canon.Unmarshal(text, &b); err != nil {
		return searchRecord{}, err
	}
	r, err := newSearchRecord(d, &b)
	if err != nil {
		return searchRecord{}, err
	}
	if sum, err := r.digest(); err != nil || sum != e.Record {
		return searchRecord{}, errors.Join(err, errors.New("its search record is not the one the entry names"))
	}
	return r, nil
}

// readMember reads a small member of a package by range.
func (a *Archive) readMember(ctx context.Context, rec catalog.Record, name string) ([]byte, error) {
	o, err := openObject(ctx, a.cfg.Store, rec.Object)
	if err != nil {
		return nil, err
	}
	c, err := pack.Open(o, o.size)
	if err != nil {
		return nil, err
	}
	return paper.ReadMember(c, name)
}

// readKind tells what is gone or changed from a store that does not answer now.
func readKind(err error) Kind {
	var damage *ledger.Damage
	for _, lost := range []error{storage.ErrNotFound, pack.ErrForm, pack.ErrDigest, canon.ErrForm, ledger.ErrCommit} {
		if errors.Is(err, lost) {
			return Damaged
		}
	}
	if errors.As(err, &damage) {
		return Damaged
	}
	return Unavailable
}
