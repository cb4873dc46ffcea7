package s3test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// The names are S3's.
//
//nolint:revive // UploadId is how S3 spells it, and encoding/xml goes by the field's name
type (
	initiated struct {
		XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket, Key, UploadId string
	}
	completed struct {
		XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
		Bucket, Key, ETag string
	}
	completion struct {
		Part []struct {
			PartNumber           int
			ETag, ChecksumSHA256 string
		}
	}
	listedUpload struct {
		Key, UploadId, Initiated string
	}
	uploadPage struct {
		XMLName     xml.Name `xml:"ListMultipartUploadsResult"`
		Bucket      string
		IsTruncated bool
		Upload      []listedUpload
	}
)

// create begins an upload. The caller holds mu.
func (l *Liar) create(key string, r *http.Request) reply {
	lk, bad := l.wanted(r)
	if bad != nil {
		return *bad
	}
	enc, bad := l.encryption(r)
	if bad != nil {
		return *bad
	}
	l.serial++
	id := fmt.Sprintf("u%06d", l.serial)
	l.uploads[id] = &upload{key: key, lock: lk, sse: enc, parts: map[int][]byte{}, begun: l.clock()}
	return answered(http.StatusOK, initiated{Bucket: LiarBucket, Key: key, UploadId: id})
}

func (l *Liar) part(r *http.Request) reply {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	sum, bad := l.checked(r, data)
	if bad != nil {
		return *bad
	}
	n, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
	if err != nil || n < 1 || n > 10_000 {
		return refusal(http.StatusBadRequest, "InvalidArgument")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	u, ok := l.uploads[r.URL.Query().Get("uploadId")]
	if !ok {
		return refusal(http.StatusNotFound, "NoSuchUpload")
	}
	u.parts[n] = data
	a := answered(http.StatusOK, nil)
	a.header.Set("Etag", `"`+etag(data)+`"`)
	a.header.Set("X-Amz-Checksum-Sha256", sum)
	return a
}

func (l *Liar) completing(key string, r *http.Request) reply {
	var c completion
	if err := xml.NewDecoder(io.LimitReader(r.Body, 4<<20)).Decode(&c); err != nil {
		return refusal(http.StatusBadRequest, "MalformedXML")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id := r.URL.Query().Get("uploadId")
	u, ok := l.uploads[id]
	if !ok || u.key != key {
		return refusal(http.StatusNotFound, "NoSuchUpload")
	}
	var whole []byte
	for _, p := range c.Part {
		data, ok := u.parts[p.PartNumber]
		if !ok || `"`+etag(data)+`"` != `"`+trimmed(p.ETag)+`"` {
			return refusal(http.StatusBadRequest, "InvalidPart")
		}
		whole = append(whole, data...)
	}
	taken := l.taken(key, r)
	if l.Flaws.CompleteNotAtomic && !taken {
		l.meet(key)
	} else {
		taken = l.taken(key, r)
	}
	if taken && !l.Flaws.CompleteUnconditional {
		return refusal(http.StatusPreconditionFailed, "PreconditionFailed")
	}
	version := l.push(key, version{data: whole, lock: l.kept(u.lock), sse: u.sse})
	delete(l.uploads, id)
	a := answered(http.StatusOK, completed{Bucket: LiarBucket, Key: key, ETag: fmt.Sprintf(`"%s-%d"`, etag(whole), len(c.Part))})
	a.header.Set("X-Amz-Version-Id", version)
	return a
}

func trimmed(etag string) string {
	if len(etag) > 1 && etag[0] == '"' {
		return etag[1 : len(etag)-1]
	}
	return etag
}

// meet waits for another completion of the key, half a second at most. The caller holds mu, which is let go meanwhile.
func (l *Liar) meet(key string) {
	l.complete[key]++
	for range 50 {
		if l.complete[key] > 1 {
			break
		}
		l.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		l.mu.Lock()
	}
}

// uploadsListed lists incomplete uploads. The caller holds mu.
func (l *Liar) uploadsListed() reply {
	p := uploadPage{Bucket: LiarBucket}
	for id, u := range l.uploads {
		p.Upload = append(p.Upload, listedUpload{u.key, id, u.begun.UTC().Format(time.RFC3339)})
	}
	return answered(http.StatusOK, p)
}

// effective is the lock in force on a version. The caller holds mu.
func (l *Liar) effective(v version) lock {
	if v.lock.mode == "" && l.Flaws.DefaultNotKept && l.now.rule.mode != "" {
		return lock{l.now.rule.mode, v.at.AddDate(0, 0, l.now.rule.days)}
	}
	return v.lock
}

func (l *Liar) bypassed(r *http.Request, mode string) bool {
	return r.Header.Get("X-Amz-Bypass-Governance-Retention") == "true" && (mode == "GOVERNANCE" || l.Flaws.ComplianceBypassed)
}

// delete removes a version, whatever its lock where locksIgnored says so, or lays a marker. The caller holds mu.
func (l *Liar) delete(key string, r *http.Request, locksIgnored bool) reply {
	id := r.URL.Query().Get("versionId")
	if id == "" {
		a := answered(http.StatusNoContent, nil)
		a.header.Set("X-Amz-Delete-Marker", "true")
		a.header.Set("X-Amz-Version-Id", l.push(key, version{marker: true}))
		return a
	}
	i, ok := l.now.find(key, id)
	if !ok {
		return answered(http.StatusNoContent, nil)
	}
	v := l.now.objects[key][i]
	lk := l.effective(v)
	if v.hold && !l.Flaws.HoldIgnored || lk.until.After(l.clock()) && !locksIgnored && !l.bypassed(r, lk.mode) {
		return refusal(http.StatusForbidden, "AccessDenied")
	}
	if !l.Flaws.DeleteIgnored {
		l.drop(key, i)
	}
	return answered(http.StatusNoContent, nil)
}

type (
	batch struct {
		Object []struct {
			Key       string
			VersionId string //nolint:revive // as S3 spells it
		}
	}
	undeleted struct {
		Key, Code string
	}
	batchResult struct {
		XMLName xml.Name `xml:"DeleteResult"`
		Error   []undeleted
	}
)

// deleteBatch deletes what a DeleteObjects names. The caller holds mu.
func (l *Liar) deleteBatch(r *http.Request, body []byte) reply {
	var asked batch
	if err := xml.Unmarshal(body, &asked); err != nil {
		return refusal(http.StatusBadRequest, "MalformedXML")
	}
	var result batchResult
	for _, o := range asked.Object {
		one := r.Clone(r.Context())
		one.URL.RawQuery = url.Values{"versionId": {o.VersionId}}.Encode()
		if a := l.delete(o.Key, one, l.Flaws.LockIgnored || l.Flaws.BatchIgnoresLocks); a.status/100 != 2 {
			result.Error = append(result.Error, undeleted{o.Key, "AccessDenied"})
		}
	}
	return answered(http.StatusOK, result)
}

// retain changes a lock. The caller holds mu.
func (l *Liar) retain(key string, r *http.Request, body []byte) reply {
	var asked struct {
		Mode            string
		RetainUntilDate string
	}
	if err := xml.Unmarshal(body, &asked); err != nil {
		return refusal(http.StatusBadRequest, "MalformedXML")
	}
	i, ok := l.now.find(key, r.URL.Query().Get("versionId"))
	if !ok {
		return refusal(http.StatusNotFound, "NoSuchVersion")
	}
	var until time.Time
	if asked.RetainUntilDate != "" {
		var err error
		if until, err = time.Parse(time.RFC3339Nano, asked.RetainUntilDate); err != nil || !until.After(l.clock()) {
			return refusal(http.StatusBadRequest, "InvalidRequest")
		}
	}
	v := &l.now.objects[key][i]
	if was := l.effective(*v); was.until.After(l.clock()) && !l.bypassed(r, was.mode) {
		shorter := until.Before(was.until) && !(l.Flaws.Shortenable && was.mode == "COMPLIANCE")
		weaker := was.mode == "COMPLIANCE" && asked.Mode == "GOVERNANCE" && !l.Flaws.Downgradable
		if shorter || weaker {
			return refusal(http.StatusForbidden, "AccessDenied")
		}
	}
	if !l.Flaws.ExtensionIgnored || until.Before(v.lock.until) {
		v.lock = lock{asked.Mode, until}
	}
	return answered(http.StatusOK, nil)
}

// holding sets or lifts a legal hold. The caller holds mu.
func (l *Liar) holding(key string, r *http.Request, body []byte) reply {
	var asked struct{ Status string }
	if err := xml.Unmarshal(body, &asked); err != nil {
		return refusal(http.StatusBadRequest, "MalformedXML")
	}
	i, ok := l.now.find(key, r.URL.Query().Get("versionId"))
	if !ok {
		return refusal(http.StatusNotFound, "NoSuchVersion")
	}
	l.now.objects[key][i].hold = asked.Status == "ON"
	return answered(http.StatusOK, nil)
}

type (
	versioning struct {
		XMLName xml.Name `xml:"VersioningConfiguration"`
		Status  string   `xml:",omitempty"`
	}
	defaultRetention struct {
		Mode  string
		Days  int `xml:",omitempty"`
		Years int `xml:",omitempty"`
	}
	lockRule struct {
		DefaultRetention defaultRetention
	}
	locking struct {
		XMLName           xml.Name `xml:"ObjectLockConfiguration"`
		ObjectLockEnabled string
		Rule              *lockRule `xml:",omitempty"`
	}
)

// setting answers calls about the bucket. The caller holds mu.
func (l *Liar) setting(r *http.Request, body []byte) reply {
	q := r.URL.Query()
	known := slices.ContainsFunc([]string{"versioning", "object-lock", "location"}, q.Has)
	switch put := r.Method == http.MethodPut; {
	case q.Has("delete") && r.Method == http.MethodPost:
		return l.deleteBatch(r, body)
	case q.Has("versioning") && put:
		var v versioning
		if err := xml.Unmarshal(body, &v); err != nil {
			return refusal(http.StatusBadRequest, "MalformedXML")
		}
		if v.Status == "Suspended" && !l.Flaws.VersioningSuspendable && !l.Flaws.NoObjectLock {
			return refusal(http.StatusConflict, "InvalidBucketState")
		}
		l.now.suspended = v.Status != "Enabled"
		return answered(http.StatusOK, nil)
	case q.Has("versioning"):
		switch {
		case l.Flaws.NoVersioning:
			return answered(http.StatusOK, versioning{})
		case l.now.suspended:
			return answered(http.StatusOK, versioning{Status: "Suspended"})
		}
		return answered(http.StatusOK, versioning{Status: "Enabled"})
	case q.Has("object-lock") && l.Flaws.NoObjectLock:
		return refusal(http.StatusNotFound, "ObjectLockConfigurationNotFoundError")
	case q.Has("object-lock") && put:
		var c locking
		if err := xml.Unmarshal(body, &c); err != nil {
			return refusal(http.StatusBadRequest, "MalformedXML")
		}
		l.now.rule = rule{}
		if c.Rule != nil {
			l.now.rule = rule{c.Rule.DefaultRetention.Mode, c.Rule.DefaultRetention.Days + 365*c.Rule.DefaultRetention.Years}
		}
		return answered(http.StatusOK, nil)
	case q.Has("object-lock"):
		c := locking{ObjectLockEnabled: "Enabled"}
		if l.now.rule.mode != "" {
			c.Rule = &lockRule{defaultRetention{Mode: l.now.rule.mode, Days: l.now.rule.days}}
		}
		return answered(http.StatusOK, c)
	case q.Has("location"):
		return answered(http.StatusOK, struct {
			XMLName xml.Name `xml:"LocationConstraint"`
		}{})
	case !known && (r.Method == http.MethodHead || r.Method == http.MethodPut):
		return answered(http.StatusOK, nil)
	}
	return refusal(http.StatusNotImplemented, "NotImplemented")
}
