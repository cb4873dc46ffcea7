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
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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

// arrived forgets the search record of a package that is in a commit, or not going to be in one.
func (p *producer) arrived(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.arriving, id)
}

// arrivedWith takes the search records of entries that are on their way through Submit.
func (p *producer) arrivedWith(packages []ledger.Entry) map[string]searchRecord {
	found := map[string]searchRecord{}
	p.mu.Lock()
	for _, e := range packages {
		if r, ok := p.arriving[e.ID]; ok {
			found[e.ID] = r
			delete(p.arriving, e.ID)
		}
	}
	p.mu.Unlock()
	for _, e := range packages {
		if r, ok := found[e.ID]; ok && !r.fits(e) {
			delete(found, e.ID)
		}
	}
	return found
}

// bundleKey is where the search records of a commit lie.
func bundleKey(producer string, commit int64) string {
	d := fmt.Sprintf("%020d", commit)
	return producer + "/catalog/" + d[:16] + "/" + d[16:] + ".0"
}

// index applies a commit to the catalog: called in order, once for each commit, our own, another daemon's or
// one replayed after a crash. The search bundle is put behind it, that of a commit before the next is applied: a crash
// leaves at most the last one without, and makeUp puts it.
func (a *Archive) index(ctx context.Context, p *producer, c *ledger.Commit) error {
	records, bundle, err := a.searchRecords(ctx, p, c)
	if err != nil {
		return err
	}
	if err := a.bundled(ctx, p); err != nil {
		return err
	}
	if bundle != nil {
		p.bundling.Lock()
		go func() {
			defer p.bundling.Unlock()
			owed := owedBundle{bundleKey(p.Code, c.Number), bundle}
			if a.putBundle(context.WithoutCancel(ctx), owed.key, owed.text) != nil {
				p.owed = &owed
			}
			a.crash("bundle.stored")
		}()
	}
	a.crash("index.due") // the commit is marked, but in no catalog yet: the next start replays it
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
		case ledger.ReportIssued:
			p.reread.issued(e)
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

// owedBundle is a search bundle that a store, full or away for a moment, did not take.
type owedBundle struct {
	key  string
	text []byte
}

// bundled waits until the bundle that is being put lies there, and puts it once more where the store did not take it. A
// hole would be called damage by the next audit: until it is filled no further commit is applied.
func (a *Archive) bundled(ctx context.Context, p *producer) error {
	p.bundling.Lock()
	defer p.bundling.Unlock()
	if p.owed == nil {
		return nil
	}
	if err := a.putBundle(ctx, p.owed.key, p.owed.text); err != nil {
		return err
	}
	p.owed = nil
	return nil
}

// searchRecords finds the search record of each package of a commit, and what its bundle is to be, where that does
// not lie as it should; nil where it does. A record that is lost for good is no reason to stop a ledger; one that
// cannot be read now is.
func (a *Archive) searchRecords(ctx context.Context, p *producer, c *ledger.Commit) (found map[string]searchRecord, bundle []byte, err error) {
	packages := packagesOf(c)
	found, there, lost := p.arrivedWith(packages), 0, false
	if len(found) < len(packages) { // not ours, or not of this run: its bundle may lie there
		lies, err := a.awaitBundle(ctx, p, c, packages)
		if err != nil {
			return nil, nil, err
		}
		there = len(lies)
		maps.Copy(found, lies)
		if lost, err = a.recordsFromPackages(ctx, packages, found); err != nil {
			return nil, nil, err
		}
	}
	if there == len(packages) || lost { // what is lost is not written over what may be left of it
		return found, nil, nil
	}
	for _, e := range packages {
		line, err := canon.Marshal(found[e.ID])
		if err != nil {
			return nil, nil, err
		}
		bundle = append(append(bundle, line...), '\n')
	}
	return found, bundle, nil
}

// awaitBundle reads what is right of the bundle of a commit. Another daemon puts it just after the commit, so that
// of a young commit it may be a moment before it is there; reading every package instead would take longer, and a
// ledger that cannot be read as fast as others write it is never caught up with.
func (a *Archive) awaitBundle(ctx context.Context, p *producer, c *ledger.Commit, packages []ledger.Entry) (map[string]searchRecord, error) {
	const young, first, last = 10 * time.Second, 20 * time.Millisecond, 640 * time.Millisecond
	at, err := time.Parse(ledger.TimeLayout, packages[0].Time)
	patient := err == nil && a.cfg.Now().Sub(at) < young
	for pause := first; ; pause *= 2 {
		right, ok := p.wasAhead(c.Number)
		if !ok {
			var err error
			if right, err = a.readBundle(ctx, p.Code, c.Number, packages); err != nil {
				return nil, err
			}
		}
		if len(right) == len(packages) || !patient || pause > last {
			return right, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// recordsFromPackages adds to found the records that it lacks, several packages at a time. It reports whether some
// are lost, which leaves little more than the identifier of them.
func (a *Archive) recordsFromPackages(ctx context.Context, packages []ledger.Entry, found map[string]searchRecord) (lost bool, err error) {
	const most = 8
	var missing []ledger.Entry
	for _, e := range packages {
		if _, ok := found[e.ID]; !ok {
			missing = append(missing, e)
		}
	}
	var mu sync.Mutex
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(most)
	for _, e := range missing {
		g.Go(func() error {
			r, err := a.recordFromPackage(reading, e)
			if unread(err) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				lost = true
				a.metrics.alarms.Inc()
				a.cfg.Log.Error("search record lost: neither bundle nor package give it", slog.String("package", e.ID), slog.Any("err", err))
				r = searchRecord{ID: e.ID, Generation: e.Generation, Time: e.Time, Date: e.Time[:10]}
			}
			found[e.ID] = r
			return nil
		})
	}
	err = g.Wait()
	return lost, err
}

// fits holds the record against the digest in an entry.
func (r searchRecord) fits(e ledger.Entry) bool {
	sum, err := r.digest()
	return err == nil && sum == e.Record
}

// putBundle writes a search bundle. An archive without keys to write with does without those it cannot write.
func (a *Archive) putBundle(ctx context.Context, key string, text []byte) error {
	if _, ok := a.cfg.Store.(storage.Replacer); !ok {
		return nil
	}
	err := storage.Derive(ctx, a.cfg.Store, key, text)
	if err == nil {
		return nil
	}
	a.cfg.Log.Warn("search bundle not written", slog.String("key", key), slog.Any("err", err))
	if !a.writable() {
		return nil
	}
	return fmt.Errorf("search records %s: %w", key, err)
}

// maxBundle bounds a bundle: a commit of 4 MiB with subjects longer than its entries.
const maxBundle = 64 << 20

// readBundle reads what is right of a bundle: the lines that are what the entries name. Others are as good as
// absent, and so is a bundle that is not there.
func (a *Archive) readBundle(ctx context.Context, producer string, commit int64, packages []ledger.Entry) (map[string]searchRecord, error) {
	text, err := readSmall(ctx, a.cfg.Store, bundleKey(producer, commit), "", maxBundle)
	if unread(err) {
		return nil, err
	}
	named := make(map[string]string, len(packages))
	for _, e := range packages {
		named[e.ID] = e.Record
	}
	right := make(map[string]searchRecord, len(packages))
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		var r searchRecord
		if len(line) == 0 || canon.Unmarshal(line, &r) != nil {
			continue
		}
		// The line is the canonical form of the record, or it would not have been read.
		if salt, err := hex.DecodeString(r.Salt); err == nil && paper.Salted(salt, line) == named[r.ID] {
			right[r.ID] = r
		}
	}
	return right, nil
}

// readAhead reads the bundle of a commit that is about to be applied, while others are.
func (a *Archive) readAhead(ctx context.Context, p *producer, c *ledger.Commit) {
	packages := packagesOf(c)
	if len(packages) == 0 {
		return
	}
	right, err := a.readBundle(ctx, p.Code, c.Number, packages)
	if err != nil {
		return // it is read again, and then the error counts
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ahead[c.Number] = right
}

// wasAhead takes what was read ahead of a commit's bundle, once.
func (p *producer) wasAhead(commit int64) (map[string]searchRecord, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	right, ok := p.ahead[commit]
	delete(p.ahead, commit)
	return right, ok
}

// recordFromPackage derives the search record from the package.
func (a *Archive) recordFromPackage(ctx context.Context, e ledger.Entry) (searchRecord, error) {
	o, err := openNamed(ctx, a.cfg.Store, e.Object, e.Size, e.SHA256)
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
	o, err := openNamed(ctx, a.cfg.Store, rec.Object, rec.Size, rec.SHA256)
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
