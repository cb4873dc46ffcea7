package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/storage"
)

var _ storage.Prober = (*Store)(nil)

// Probes implements [storage.Prober]: what the Store itself never does, so that its interface cannot show whether the
// server allows it. Those that are Alone change a setting of the bucket for a moment, if the server lets them: what
// holds for the Store, that it asks for no bypass and weakens nothing, does not hold for them.
func (s *Store) Probes() []storage.Probe {
	probes := []storage.Probe{
		{Name: "clock", Passive: true, Run: s.probeClock},
		{Name: "object-lock", Passive: true, Run: s.probeBucket},
		{Name: "lock-set", Run: s.probeLockSet},
		{Name: "lock-past", Run: s.probeLockPast},
		{Name: "lock-delete", Run: s.probeLockDelete},
		{Name: "hold-delete", Run: s.probeHoldDelete},
		{Name: "lock-shorten", Run: s.probeLockShorten},
		{Name: "lock-downgrade", Run: s.probeLockDowngrade},
		{Name: "older-versions", Run: s.probeOverwrite},
		{Name: "delete-marker", Run: s.probeMarker},
		{Name: "create-over-marker", Run: s.probeOverMarker},
		{Name: "version-listing", Run: s.probeListing},
		{Name: "multipart-one-winner", Run: s.probeParts},
		{Name: "multipart-digest", Run: s.probePartDigest},
		{Name: "multipart-lock", Run: s.probePartsLock},
		{Name: "durability", Passive: true, Run: s.probeDurability},
		{Name: "read-checks", Passive: true, Run: s.probeReadChecks},
		{Name: "versioning", Alone: true, Run: s.probeVersioning},
		{Name: "default-lock", Alone: true, Run: s.probeDefaultLock},
	}
	if s.sse != nil {
		probes = append(probes, storage.Probe{Name: "encryption", Passive: true, Run: s.probeEncryption})
	}
	return probes
}

// The headers in which a server says how an object is encrypted.
const (
	sseHeader    = "X-Amz-Server-Side-Encryption"
	sseKeyHeader = "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
)

// probeLock is how long probes lock what they make.
const probeLock = 90 * time.Second

// made is an object that a probe has created.
type made struct {
	key, version string
	data         []byte
	until        time.Time
}

// make creates an object for a probe, locked for a while if so asked.
func (s *Store) make(ctx context.Context, key string, lock bool) (made, error) {
	m := made{key: key, data: []byte("probe " + key)}
	if lock {
		m.until = wholeSecond(s.o.Now().Add(probeLock))
	}
	var err error
	m.version, err = s.create(ctx, key, bytes.NewReader(m.data), offered(m.data, m.until), true)
	if err != nil {
		return m, fmt.Errorf("create %s: %w", key, err)
	}
	return m, nil
}

func offered(data []byte, until time.Time) storage.PutOptions {
	return storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data), RetainUntil: until}
}

// refused reports whether the server said no; any other error says nothing.
func refused(err error) bool {
	a, ok := answer(err)
	return ok && a.StatusCode/100 == 4
}

// stands wants an object to be there with its bytes, whatever else has been asked of the server.
func (s *Store) stands(ctx context.Context, m made) storage.Outcome {
	r, err := s.get(ctx, m.key, m.version, 0, -1)
	if errors.Is(err, storage.ErrNotFound) {
		return storage.Breaks("version %s is gone", m.version)
	}
	if err != nil {
		return storage.Untellable("read version %s: %w", m.version, err)
	}
	data, err := io.ReadAll(r)
	switch err := errors.Join(err, r.Close()); {
	case err != nil:
		return storage.Untellable("read version %s: %w", m.version, err)
	case !bytes.Equal(data, m.data):
		return storage.Breaks("version %s has other bytes", m.version)
	default:
		return storage.Holds()
	}
}

// bare makes a request without signature to the server, whose answer, a refusal, has the headers of any other.
func (s *Store) bare(ctx context.Context) (http.Header, error) {
	scheme := "http://"
	if s.o.TLS {
		scheme = "https://"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+s.o.Endpoint+"/", nil)
	if err != nil {
		return nil, err
	}
	resp, err := newTransport(s.o).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return resp.Header, resp.Body.Close()
}

const (
	clockOff   = 5 * time.Second // worth telling: dates of locks are the server's
	clockWrong = 5 * time.Minute // S3 itself refuses requests from 15 minutes on
)

func (s *Store) probeClock(ctx context.Context, _ string) storage.Outcome {
	before := s.o.Now()
	h, err := s.bare(ctx)
	after := s.o.Now()
	if err != nil {
		return storage.Untellable("%w", err)
	}
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return storage.Notes("the server's answers have no date: %q", h.Get("Date"))
	}
	off := time.Duration(0)
	if early := before.Truncate(time.Second).Sub(date); early > 0 {
		off = -early
	} else if late := date.Sub(after); late > 0 {
		off = late
	}
	switch {
	case off.Abs() > clockWrong:
		return storage.Breaks("the server's clock differs from ours by %v", off.Round(time.Second))
	case off.Abs() > clockOff:
		return storage.Notes("the server's clock differs from ours by %v", off.Round(time.Second))
	default:
		return storage.Holds()
	}
}

func (s *Store) probeBucket(ctx context.Context, _ string) storage.Outcome {
	return s.looked(ctx)
}

// looked is what look found, as an outcome. A server that cannot answer now has broken nothing.
func (s *Store) looked(ctx context.Context) storage.Outcome {
	err := s.look(ctx)
	switch {
	case errors.Is(err, ErrAway):
		return storage.Untellable("%w", err)
	case err != nil:
		return storage.Breaks("%w", err)
	}
	return storage.Holds()
}

func (s *Store) probeLockSet(ctx context.Context, room string) storage.Outcome {
	m, err := s.make(ctx, room+"/a", true)
	if err != nil {
		return storage.Untellable("%w", err)
	}
	return s.hasLock(ctx, m, s.o.Lock.mode())
}

// hasLock wants an object's lock to be the one asked for, or a longer one.
func (s *Store) hasLock(ctx context.Context, m made, mode minio.RetentionMode) storage.Outcome {
	l, err := s.locked(ctx, m.key, m.version)
	switch {
	case err != nil:
		return storage.Untellable("look at the lock: %w", err)
	case l.mode != mode || l.until.Before(m.until):
		return storage.Breaks("the lock is %q until %s, and %s until %s was asked for",
			l.mode, l.until.Format(time.RFC3339), mode, m.until.Format(time.RFC3339))
	default:
		return storage.Holds()
	}
}

func (s *Store) probeLockPast(ctx context.Context, room string) storage.Outcome {
	data := []byte("past")
	_, err := s.create(ctx, room+"/a", bytes.NewReader(data), offered(data, s.o.Now().Add(-time.Hour)), true)
	switch {
	case err == nil:
		return storage.Breaks("a create with a lock that ended an hour ago was told yes")
	case !refused(err):
		return storage.Untellable("%w", err)
	default:
		return storage.Holds()
	}
}

func (s *Store) probeLockDelete(ctx context.Context, room string) storage.Outcome {
	m, err := s.make(ctx, room+"/a", true)
	if err != nil {
		return storage.Untellable("%w", err)
	}
	attempts := []struct {
		what string
		call func() error
	}{
		{"deleted", func() error {
			return s.client.RemoveObject(ctx, s.o.Bucket, m.key, minio.RemoveObjectOptions{VersionID: m.version})
		}},
		{"deleted in a batch", func() error { return s.removeInBatch(ctx, m, false) }},
		{"deleted with a governance bypass", func() error {
			return s.client.RemoveObject(ctx, s.o.Bucket, m.key, minio.RemoveObjectOptions{VersionID: m.version, GovernanceBypass: true})
		}},
		{"deleted in a batch with a governance bypass", func() error { return s.removeInBatch(ctx, m, true) }},
	}
	if s.o.Lock == Governance {
		attempts = attempts[:2] // who has that right may bypass: that is what was chosen
	}
	for _, a := range attempts {
		err := a.call()
		if err != nil && !refused(err) {
			return storage.Untellable("%w", err)
		}
		// What counts is whether it is there, not what was said.
		if out := s.stands(ctx, m); out.Verdict == storage.Broken {
			return storage.Breaks("a locked object could be %s", a.what)
		} else if out.Verdict != storage.Held {
			return out
		}
	}
	if s.o.Lock == Governance {
		return storage.Notes("GOVERNANCE by choice: an account with that right may lift the locks")
	}
	return storage.Holds()
}

// probeHoldDelete deletes under a legal hold, and lifts that.
func (s *Store) probeHoldDelete(ctx context.Context, room string) storage.Outcome {
	m, err := s.make(ctx, room+"/a", false)
	if err != nil {
		return storage.Untellable("%w", err)
	}
	if err := s.Hold(ctx, m.key, m.version, true); err != nil {
		return storage.Untellable("%w", err)
	}
	err = s.client.RemoveObject(ctx, s.o.Bucket, m.key, minio.RemoveObjectOptions{VersionID: m.version})
	if err != nil && !refused(err) {
		return storage.Untellable("%w", err)
	}
	out := s.stands(ctx, m)
	if out.Verdict == storage.Broken {
		return storage.Breaks("an object on legal hold could be deleted")
	}
	if err := s.Hold(ctx, m.key, m.version, false); err != nil {
		return storage.Untellable("%w", err)
	}
	return out
}

// removeInBatch deletes by the call for many objects. That the server says no is no error.
func (s *Store) removeInBatch(ctx context.Context, m made, bypass bool) error {
	batch := make(chan minio.ObjectInfo, 1)
	batch <- minio.ObjectInfo{Key: m.key, VersionID: m.version}
	close(batch)
	var err error
	for r := range s.client.RemoveObjectsWithResult(ctx, s.o.Bucket, batch, minio.RemoveObjectsOptions{GovernanceBypass: bypass}) {
		if _, ok := answer(r.Err); r.Err != nil && !ok {
			err = errors.Join(err, r.Err)
		}
	}
	return err
}

func (s *Store) probeLockShorten(ctx context.Context, room string) storage.Outcome {
	mode := s.o.Lock.mode()
	return s.weakened(ctx, room+"/a", s.o.Lock == Compliance, mode, -probeLock/2)
}

func (s *Store) probeLockDowngrade(ctx context.Context, room string) storage.Outcome {
	if s.o.Lock == Governance {
		return storage.Notes("GOVERNANCE by choice: there is no lower mode")
	}
	return s.weakened(ctx, room+"/a", true, minio.Governance, 0)
}

// weakened tries to put a weaker lock in the place of one, and wants that one to stay.
func (s *Store) weakened(ctx context.Context, key string, bypass bool, mode minio.RetentionMode, by time.Duration) storage.Outcome {
	m, err := s.make(ctx, key, true)
	if err != nil {
		return storage.Untellable("%w", err)
	}
	until := m.until.Add(by)
	for _, bypass := range []bool{false, bypass} {
		err := s.client.PutObjectRetention(ctx, s.o.Bucket, key, minio.PutObjectRetentionOptions{
			GovernanceBypass: bypass, Mode: &mode, RetainUntilDate: &until, VersionID: m.version,
		})
		if err != nil && !refused(err) {
			return storage.Untellable("%w", err)
		}
		if out := s.hasLock(ctx, m, s.o.Lock.mode()); out.Verdict != storage.Held {
			return out
		}
	}
	return storage.Holds()
}

// probeOverwrite lays a version over a locked one, which only a program of somebody else's would do here.
func (s *Store) probeOverwrite(ctx context.Context, room string) storage.Outcome {
	m, err := s.make(ctx, room+"/a", true)
	if err != nil {
		return storage.Untellable("%w", err)
	}
	data := []byte("other")
	if _, err := s.create(ctx, m.key, bytes.NewReader(data), offered(data, time.Time{}), false); err != nil && !refused(err) {
		return storage.Untellable("write over it: %w", err)
	}
	err = s.client.RemoveObject(ctx, s.o.Bucket, m.key, minio.RemoveObjectOptions{VersionID: m.version})
	if err != nil && !refused(err) {
		return storage.Untellable("%w", err)
	}
	if out := s.stands(ctx, m); out.Verdict != storage.Held {
		return out
	}
	switch l, err := s.locked(ctx, m.key, m.version); {
	case err != nil:
		return storage.Untellable("look at the lock: %w", err)
	case l.until.IsZero():
		return storage.Notes("the lock of a version under another one holds, and is not told")
	default:
		return s.hasLock(ctx, m, s.o.Lock.mode())
	}
}

// hidden makes an object and lays a delete marker over it.
func (s *Store) hidden(ctx context.Context, key string) (made, error) {
	m, err := s.make(ctx, key, false)
	if err != nil {
		return m, err
	}
	if err := s.client.RemoveObject(ctx, s.o.Bucket, key, minio.RemoveObjectOptions{}); err != nil {
		return m, fmt.Errorf("lay a delete marker: %w", err)
	}
	return m, nil
}

func (s *Store) probeMarker(ctx context.Context, room string) storage.Outcome {
	m, err := s.hidden(ctx, room+"/a")
	if err != nil {
		return storage.Untellable("%w", err)
	}
	if out := s.stands(ctx, m); out.Verdict != storage.Held {
		return out
	}
	all, err := s.history(ctx, m.key)
	if err != nil {
		return storage.Untellable("list versions: %w", err)
	}
	if len(all) != 2 || !all[0].Marker || all[1].ID != m.version {
		return storage.Breaks("under a delete marker %d versions are listed, and not the marker first", len(all))
	}
	if err := s.client.RemoveObject(ctx, s.o.Bucket, m.key, minio.RemoveObjectOptions{VersionID: all[0].ID}); err != nil {
		return storage.Untellable("remove the delete marker: %w", err)
	}
	newest := m
	newest.version = ""
	return s.stands(ctx, newest)
}

func (s *Store) probeOverMarker(ctx context.Context, room string) storage.Outcome {
	m, err := s.hidden(ctx, room+"/a")
	if err != nil {
		return storage.Untellable("%w", err)
	}
	data := []byte("over the marker")
	_, err = s.create(ctx, m.key, bytes.NewReader(data), offered(data, time.Time{}), true)
	switch {
	case err == nil:
		return storage.Notes("a conditional create over a delete marker is told yes, as on AWS")
	case errors.Is(err, storage.ErrExists):
		return storage.Notes("a conditional create over a delete marker is refused (412)")
	default:
		return storage.Untellable("create over a delete marker: %w", err)
	}
}

// probeListing lists versions in pages of three, which shows what pages do without a thousand objects.
func (s *Store) probeListing(ctx context.Context, room string) storage.Outcome {
	want := map[string]bool{}
	for _, name := range []string{"a", "b", "c", "d"} {
		m, err := s.make(ctx, room+"/"+name, false)
		if err != nil {
			return storage.Untellable("%w", err)
		}
		want[m.key+" "+m.version] = true
		version, err := s.create(ctx, m.key, bytes.NewReader(m.data), offered(m.data, time.Time{}), false)
		if err != nil {
			return storage.Untellable("second version: %w", err)
		}
		want[m.key+" "+version] = true
	}
	times, broken, err := s.listedInPages(ctx, room, want)
	for failed := 0; err != nil; failed++ {
		if !relist(ctx, failed, err) {
			return storage.Untellable("list versions: %w", err)
		}
		times, broken, err = s.listedInPages(ctx, room, want)
	}
	if times == nil {
		return broken
	}
	repeated := 0
	for id := range want {
		switch times[id] {
		case 0:
			return storage.Breaks("of %d versions listed in pages %s is missing", len(want), id)
		case 1:
		default:
			repeated++
		}
	}
	if repeated > 0 {
		return storage.Notes("where a page ends a version is listed twice")
	}
	return storage.Holds()
}

// listedInPages tells how often each version is listed, where pages are small; no times when the listing is wrong.
func (s *Store) listedInPages(ctx context.Context, room string, want map[string]bool) (times map[string]int, broken storage.Outcome, err error) {
	times, last := map[string]int{}, ""
	for o := range s.client.ListObjectsIter(ctx, s.o.Bucket, minio.ListObjectsOptions{
		WithVersions: true, Recursive: true, Prefix: room + "/", MaxKeys: 3,
	}) {
		if o.Err != nil {
			return nil, broken, o.Err
		}
		if o.Key < last {
			return nil, storage.Breaks("a version of %s is listed after one of %s", o.Key, last), nil
		}
		last = o.Key
		id := o.Key + " " + o.VersionID
		if !want[id] {
			return nil, storage.Breaks("%s is listed, and was never made", id), nil
		}
		if times[id]++; times[id] > len(want) {
			return nil, storage.Breaks("the listing does not end"), nil
		}
	}
	return times, broken, ctx.Err()
}

// uploaded begins an upload in parts and sends its only part.
func (s *Store) uploaded(ctx context.Context, m made) (id string, parts []minio.CompletePart, err error) {
	p := s.putOptions(offered(m.data, m.until))
	p.UserMetadata = map[string]string{"X-Amz-Checksum-Algorithm": "SHA256"}
	if id, err = s.client.NewMultipartUpload(ctx, s.o.Bucket, m.key, p); err != nil {
		return "", nil, fmt.Errorf("begin an upload in parts: %w", err)
	}
	src := &source{ctx: ctx, r: bytes.NewReader(m.data), end: int64(len(m.data))}
	digest, err := digested(src, io.Discard)
	if err != nil {
		return id, nil, err
	}
	src.off = 0
	part, err := s.part(ctx, m.key, id, 1, src, digest)
	if err != nil {
		return id, nil, fmt.Errorf("send a part: %w", err)
	}
	return id, []minio.CompletePart{part}, nil
}

// probeParts lets uploads of one key be completed at the same moment, several times.
func (s *Store) probeParts(ctx context.Context, room string) storage.Outcome {
	const keys, writers = 4, 4
	for k := range keys {
		key := fmt.Sprintf("%s/%d", room, k)
		var ms [writers]made
		var ids [writers]string
		var parts [writers][]minio.CompletePart
		for w := range writers {
			ms[w] = made{key: key, data: fmt.Appendf(nil, "writer %d of %s", w, key)}
			var err error
			if ids[w], parts[w], err = s.uploaded(ctx, ms[w]); err != nil {
				return storage.Untellable("%w", err)
			}
		}
		var errs [writers]error
		var start, done sync.WaitGroup
		start.Add(1)
		for w := range writers {
			done.Go(func() {
				start.Wait()
				ms[w].version, errs[w] = s.complete(ctx, key, ids[w], parts[w], int64(len(ms[w].data)), true)
			})
		}
		start.Done()
		done.Wait()
		winner, winners := 0, 0
		for w, err := range errs {
			if err == nil {
				winner = w
				winners++
			} else {
				s.abort(ctx, key, ids[w])
			}
		}
		switch {
		case winners > 1:
			return storage.Breaks("of %d concurrent completions of one key the server said yes to %d", writers, winners)
		case winners == 0:
			return storage.Untellable("of %d concurrent completions of one key none succeeded: %w", writers, errs[0])
		}
		if out := s.stands(ctx, ms[winner]); out.Verdict != storage.Held {
			return out
		}
	}
	return storage.Holds()
}

func (s *Store) probePartDigest(ctx context.Context, room string) storage.Outcome {
	m := made{key: room + "/a", data: []byte("probe of a part")}
	id, _, err := s.uploaded(ctx, m)
	if id != "" {
		defer s.abort(ctx, m.key, id)
	}
	if err != nil {
		return storage.Untellable("%w", err)
	}
	other := sha256.Sum256([]byte("other bytes"))
	src := &source{ctx: ctx, r: bytes.NewReader(m.data), end: int64(len(m.data))}
	_, err = s.part(ctx, m.key, id, 2, src, base64.StdEncoding.EncodeToString(other[:]))
	switch {
	case err == nil:
		return storage.Breaks("a part whose bytes do not have the SHA-256 announced was told yes")
	case !errors.Is(err, storage.ErrDigest) && !refused(err):
		return storage.Untellable("%w", err)
	default:
		return storage.Holds()
	}
}

func (s *Store) probePartsLock(ctx context.Context, room string) storage.Outcome {
	m := made{key: room + "/a", data: []byte("probe of a lock"), until: wholeSecond(s.o.Now().Add(probeLock))}
	id, parts, err := s.uploaded(ctx, m)
	if err == nil {
		m.version, err = s.complete(ctx, m.key, id, parts, int64(len(m.data)), true)
	}
	if err != nil {
		if id != "" {
			s.abort(ctx, m.key, id)
		}
		return storage.Untellable("%w", err)
	}
	return s.hasLock(ctx, m, s.o.Lock.mode())
}

// product is what was measured of a server that cannot be seen from outside.
type product struct{ durability, readChecks string }

var products = map[string]product{
	"versitygw": {
		"versitygw never syncs: what it acknowledged is in the memory of its machine for a while",
		"versitygw does not check what it reads: flipped bits come with a 200",
	},
	"minio": {
		"MinIO syncs the bytes of an object, not its folders",
		"MinIO finds flipped bits when it reads, and answers with an error",
	},
}

// known finds the server among the products; otherwise it says what it calls itself.
func (s *Store) known(ctx context.Context) (p product, name string, err error) {
	h, err := s.bare(ctx)
	if err != nil {
		return product{}, "", err
	}
	name = h.Get("Server")
	for word, p := range products {
		if strings.Contains(strings.ToLower(name), word) {
			return p, name, nil
		}
	}
	return product{}, name, nil
}

func (s *Store) probeDurability(ctx context.Context, _ string) storage.Outcome {
	return s.told(ctx, func(p product) string { return p.durability })
}

func (s *Store) probeReadChecks(ctx context.Context, _ string) storage.Outcome {
	return s.told(ctx, func(p product) string { return p.readChecks })
}

// told is a note on what no request can show.
func (s *Store) told(ctx context.Context, what func(product) string) storage.Outcome {
	p, name, err := s.known(ctx)
	switch {
	case err != nil:
		return storage.Untellable("%w", err)
	case what(p) != "":
		return storage.Notes("%s", what(p))
	default:
		return storage.Notes("it cannot be seen from here; the server calls itself %q", name)
	}
}

// probeVersioning tries to suspend versioning, and takes that back at once where it was possible.
func (s *Store) probeVersioning(ctx context.Context, _ string) storage.Outcome {
	if found := s.looked(ctx); found.Verdict != storage.Held {
		return found
	}
	err := s.client.SuspendVersioning(ctx, s.o.Bucket)
	if err != nil && !refused(err) {
		err = fmt.Errorf("suspend versioning: %w", err)
	} else {
		err = nil
	}
	v, asked := s.client.GetBucketVersioning(ctx, s.o.Bucket)
	switch {
	case errors.Join(err, asked) != nil:
		// What was done is not known: to be sure, versioning is switched on.
		return storage.Untellable("%w", errors.Join(err, asked, s.enableVersioning(ctx)))
	case !v.Enabled():
		if err := s.enableVersioning(ctx); err != nil {
			return storage.Breaks("versioning could be suspended, and not be switched on again: %w", err)
		}
		return storage.Breaks("versioning could be suspended")
	default:
		return storage.Holds()
	}
}

// probeEncryption creates an object with the encryption that is configured, and wants the server to say that the object
// has it: there are servers that heed none of these headers, and others that take no object with them. That the
// bytes on its disks are encrypted cannot be seen from here.
func (s *Store) probeEncryption(ctx context.Context, room string) storage.Outcome {
	m, err := s.make(ctx, room+"/a", false)
	if err != nil {
		return s.withoutEncryption(ctx, room+"/plain", err)
	}
	defer s.discard(ctx, m)
	i, err := s.client.StatObject(ctx, s.o.Bucket, m.key, minio.StatObjectOptions{VersionID: m.version})
	if err != nil {
		return storage.Untellable("%w", fault(err))
	}
	wanted := http.Header{}
	s.sse.Marshal(wanted)
	mode, key := i.Headers.Get(sseHeader), i.Headers.Get(sseKeyHeader)
	switch {
	case mode != wanted.Get(sseHeader):
		return storage.Breaks("asked for encryption %q, the server says %q", wanted.Get(sseHeader), mode)
	case s.o.KMSKey == "":
		return storage.Holds()
	case strings.Contains(s.o.KMSKey, "alias/") && key != "":
		return storage.Notes("the key that %s stands for is %s", s.o.KMSKey, key)
	case key != s.o.KMSKey && !strings.HasSuffix(key, "/"+s.o.KMSKey) && !strings.HasSuffix(key, ":"+s.o.KMSKey):
		return storage.Breaks("asked for encryption with the key %q, the server says %q", s.o.KMSKey, key)
	}
	return storage.Holds()
}

// withoutEncryption tells whether it is the encryption that a server refused.
func (s *Store) withoutEncryption(ctx context.Context, key string, refusal error) storage.Outcome {
	if errors.Is(refusal, storage.ErrFull) {
		return storage.Breaks("the store is full: %w", refusal)
	}
	if _, ok := answer(refusal); !ok {
		return storage.Untellable("%w", refusal)
	}
	plain := *s
	plain.sse = nil
	m, err := plain.make(ctx, key, false)
	if err != nil {
		return storage.Untellable("%w", refusal)
	}
	s.discard(ctx, m)
	return storage.Breaks("the server takes an object without encryption, and none with it: %w", refusal)
}

// discard erases what a probe made.
func (s *Store) discard(ctx context.Context, m made) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	_ = s.client.RemoveObject(ctx, s.o.Bucket, m.key, minio.RemoveObjectOptions{VersionID: m.version})
}

// afterwards is a context for what a probe must put right, also when its own time is over.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
}

func (s *Store) enableVersioning(ctx context.Context) error {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	return s.client.EnableVersioning(ctx, s.o.Bucket)
}

// probeDefaultLock gives the bucket a default lock, creates an object with a lock of its own and one without, and
// takes the default away. Some servers give an object the default when it is written, some ask the bucket when it is
// deleted. While the default stands, everything written here without a lock would get it; so this is tried only
// in a bucket that is not in use yet.
func (s *Store) probeDefaultLock(ctx context.Context, room string) storage.Outcome {
	for v, err := range s.versions(ctx, "", "") {
		if err != nil {
			return storage.Untellable("list: %w", err)
		}
		if !strings.HasPrefix(v.Key, storage.ProbeRoom+"/") {
			return storage.Notes("not tried, since the bucket is in use")
		}
	}
	_, mode, validity, unit, err := s.client.GetObjectLockConfig(ctx, s.o.Bucket)
	if err != nil {
		return storage.Untellable("read the bucket's default lock: %w", err)
	}
	governance, days, day := minio.Governance, uint(1), minio.Days
	if err := s.client.SetBucketObjectLockConfig(ctx, s.o.Bucket, &governance, &days, &day); err != nil {
		if refused(err) {
			return storage.Notes("not tried: these credentials may not set the bucket's default lock")
		}
		return storage.Untellable("set the bucket's default lock: %w", errors.Join(err, s.setDefault(ctx, mode, validity, unit)))
	}
	own, ownErr := s.make(ctx, room+"/own", true)
	plain, plainErr := s.make(ctx, room+"/plain", false)
	if err := s.setDefault(ctx, mode, validity, unit); err != nil {
		return storage.Breaks("the bucket was given a default lock of a day, which could not be taken away again: %w", err)
	}
	if err := errors.Join(ownErr, plainErr); err != nil {
		return storage.Untellable("%w", err)
	}
	err = s.client.RemoveObject(ctx, s.o.Bucket, own.key, minio.RemoveObjectOptions{VersionID: own.version})
	if err != nil && !refused(err) {
		return storage.Untellable("%w", err)
	}
	if out := s.stands(ctx, own); out.Verdict != storage.Held {
		return out
	}
	if out := s.hasLock(ctx, own, s.o.Lock.mode()); out.Verdict != storage.Held {
		return out
	}
	switch err := s.client.RemoveObject(ctx, s.o.Bucket, plain.key, minio.RemoveObjectOptions{VersionID: plain.version}); {
	case err == nil:
		return storage.Notes("a bucket's default lock does not become the object's: it goes when the default goes")
	case refused(err):
		_ = s.client.RemoveObject(ctx, s.o.Bucket, plain.key, minio.RemoveObjectOptions{VersionID: plain.version, GovernanceBypass: true})
		return storage.Holds()
	default:
		return storage.Untellable("%w", err)
	}
}

// setDefault makes the bucket's default lock what it was.
func (s *Store) setDefault(ctx context.Context, mode *minio.RetentionMode, validity *uint, unit *minio.ValidityUnit) error {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if mode == nil || validity == nil || unit == nil || *validity == 0 {
		mode, validity, unit = nil, nil, nil
	}
	return s.client.SetBucketObjectLockConfig(ctx, s.o.Bucket, mode, validity, unit)
}
