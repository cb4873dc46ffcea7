package s3test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// reply is an answer before it is sent.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func answered(status int, body any) reply {
	r := reply{status: status, header: http.Header{}}
	if body != nil {
		b, err := xml.Marshal(body)
		if err != nil {
			panic(err) // of our own types
		}
		r.header.Set("Content-Type", "application/xml")
		r.body = append([]byte(xml.Header), b...)
	}
	return r
}

type xmlError struct {
	XMLName       xml.Name `xml:"Error"`
	Code, Message string
}

func refusal(status int, code string) reply {
	return answered(status, xmlError{Code: code, Message: "said by a test"})
}

// kindOf tells what a request asks.
func kindOf(r *http.Request, key string) Kind {
	q := r.URL.Query()
	switch {
	case key == "" && q.Has("versions"):
		return ListVersions
	case key == "" && q.Has("uploads"):
		return ListUploads
	case key == "":
		return Setting
	case q.Has("retention") && r.Method == http.MethodGet:
		return GetRetention
	case q.Has("legal-hold") && r.Method == http.MethodGet:
		return GetHold
	case q.Has("retention") && r.Method == http.MethodPut:
		return PutRetention
	case q.Has("legal-hold") && r.Method == http.MethodPut:
		return PutHold
	case q.Has("uploads"):
		return CreateUpload
	case q.Has("partNumber"):
		return UploadPart
	case q.Has("uploadId") && r.Method == http.MethodPost:
		return CompleteUpload
	case q.Has("uploadId") && r.Method == http.MethodDelete:
		return AbortUpload
	}
	return map[string]Kind{
		http.MethodPut: PutObject, http.MethodGet: GetObject, http.MethodHead: HeadObject, http.MethodDelete: DeleteObject,
	}[r.Method]
}

// ServeHTTP implements [http.Handler].
func (l *Liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	kind := kindOf(r, key)
	lie := l.lie(kind, key)
	if lie.What == Reset && lie.At < 0.5 && r.ContentLength > 0 {
		_, _ = io.CopyN(io.Discard, r.Body, int64(float64(r.ContentLength)*2*lie.At))
		panic(http.ErrAbortHandler)
	}
	if bucket != LiarBucket {
		l.send(w, r, refusal(http.StatusNotFound, "NoSuchBucket"), Lie{})
		return
	}
	l.send(w, r, l.reply(kind, key, r, lie), lie)
}

// lie notes a call and decides on its answer.
func (l *Liar) lie(kind Kind, key string) Lie {
	l.mu.Lock()
	l.counts[kind]++
	call := Call{kind, key, l.counts[kind]}
	l.calls = append(l.calls, call)
	tell := l.tell
	l.mu.Unlock()
	if tell == nil {
		return Lie{}
	}
	return tell(call)
}

// reply is the honest answer, or what a lie about what is stored makes of it.
func (l *Liar) reply(kind Kind, key string, r *http.Request, lie Lie) reply {
	writes := kind != GetObject && kind != HeadObject && kind != ListVersions && kind != ListUploads && kind != GetRetention && kind != GetHold
	switch lie.What {
	case Hang:
		l.hang(r)
	case Conflict:
		return drained(r, refusal(http.StatusConflict, "ConditionalRequestConflict"))
	case ServiceDown:
		return drained(r, refusal(http.StatusServiceUnavailable, "SlowDown"))
	case StorageFull:
		return drained(r, refusal(http.StatusInsufficientStorage, "InsufficientStorage"))
	case AccessForbidden:
		return drained(r, refusal(http.StatusForbidden, "AccessDenied"))
	case OtherRegion:
		return drained(r, refusal(http.StatusBadRequest, "AuthorizationHeaderMalformed"))
	case RedirectLoop:
		a := drained(r, refusal(http.StatusTemporaryRedirect, "TemporaryRedirect"))
		a.header.Set("Location", r.URL.String())
		return a
	case NotFound:
		return drained(r, refusal(http.StatusNotFound, map[bool]string{true: "NoSuchBucket", false: "NoSuchKey"}[key == ""]))
	case ErrorIn200:
		a := drained(r, refusal(http.StatusOK, "InternalError"))
		return a
	case StoresNothing:
		if writes {
			return l.pretended(kind, key, r)
		}
	case StaleRead:
		if !writes {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.read(kind, key, r, l.before)
		}
	case OtherBody, VersionSwapped:
		if kind == GetObject || kind == HeadObject {
			return l.another(kind, key, r, lie.What)
		}
	}
	a := l.honest(kind, key, r)
	if !writes || a.status/100 != 2 {
		return a
	}
	switch lie.What {
	case StoresTwice:
		l.mu.Lock()
		if i, ok := l.now.find(key, ""); ok && (kind == PutObject || kind == CompleteUpload) {
			l.push(key, l.now.objects[key][i])
		}
		l.mu.Unlock()
	case FailsAfter:
		return refusal(http.StatusInternalServerError, "InternalError")
	case RefusesAfter:
		return refusal(http.StatusPreconditionFailed, "PreconditionFailed")
	case ConflictAfter:
		return refusal(http.StatusConflict, "ConditionalRequestConflict")
	case HangAfter:
		l.hang(r)
	}
	return a
}

func (l *Liar) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-l.closed:
	}
	panic(http.ErrAbortHandler)
}

// drained is an answer after the request's body was read, as most servers do.
func drained(r *http.Request, a reply) reply {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	return a
}

// pretended is a success of which nothing is true.
func (l *Liar) pretended(kind Kind, key string, r *http.Request) reply {
	data, _ := io.ReadAll(r.Body)
	a := reply{status: http.StatusOK, header: http.Header{}}
	a.header.Set("Etag", `"`+etag(data)+`"`)
	a.header.Set("X-Amz-Version-Id", "v999999")
	switch kind {
	case CreateUpload:
		return answered(http.StatusOK, initiated{Bucket: LiarBucket, Key: key, UploadId: "none"})
	case CompleteUpload:
		a = answered(http.StatusOK, completed{Bucket: LiarBucket, Key: key, ETag: `"x-1"`})
		a.header.Set("X-Amz-Version-Id", "v999999")
	case DeleteObject, AbortUpload:
		a.status = http.StatusNoContent
	}
	return a
}

// another answers for another object, or another version, under the name of the one asked for.
func (l *Liar) another(kind Kind, key string, r *http.Request, what LieKind) reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	lied := l.now.copied()
	if what == VersionSwapped {
		q := r.URL.Query()
		if vs := lied.objects[key]; len(vs) > 1 && q.Get("versionId") != "" {
			i := slices.IndexFunc(vs, func(v version) bool { return v.id == q.Get("versionId") })
			q.Set("versionId", vs[(i+1)%len(vs)].id)
			r.URL.RawQuery = q.Encode()
		}
		return l.read(kind, key, r, lied)
	}
	for _, other := range lied.keys() {
		if other != key && len(lied.objects[key]) > 0 {
			if j, ok := lied.find(other, ""); ok {
				for i := range lied.objects[key] {
					lied.objects[key][i].data = lied.objects[other][j].data
				}
				break
			}
		}
	}
	return l.read(kind, key, r, lied)
}

// send sends an answer, with the lies that are told on the way.
func (l *Liar) send(w http.ResponseWriter, r *http.Request, a reply, lie Lie) {
	h := w.Header()
	for k, v := range a.header {
		h[k] = v
	}
	h.Set("X-Amz-Request-Id", "liar")
	at := min(len(a.body), int(lie.At*float64(len(a.body))))
	full := len(a.body)
	reads := r.Method == http.MethodGet
	switch lie.What {
	case ClockSkew:
		h.Set("Date", l.clock().Add(24*time.Hour).UTC().Format(http.TimeFormat))
	case OtherETag:
		if h.Get("Etag") != "" {
			h.Set("Etag", `"`+etag([]byte("another"))+`"`)
		}
	case WrongBytes:
		if reads && full > 0 {
			a.body = bytes.Clone(a.body)
			a.body[min(at, full-1)] ^= 1
		}
	case ShorterBody:
		if reads {
			a.body, full = a.body[:at], at
		}
	case GarbledAnswer:
		if a.header.Get("Content-Type") == "application/xml" {
			a.body = []byte("<html><body>It works!</body>")
			full = len(a.body)
		}
	case EndlessAnswer:
		l.endless(w, r, a)
	case LengthMissing:
		l.hijacked(w, a, reads)
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(a.status)
		return
	}
	h.Set("Content-Length", strconv.Itoa(full))
	w.WriteHeader(a.status)
	switch {
	case lie.What == ShortBody && reads, lie.What == Reset:
		_, _ = w.Write(a.body[:at])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case lie.What == Slow:
		l.slowly(w, r, a.body)
	default:
		_, _ = w.Write(a.body)
	}
}

func (l *Liar) slowly(w http.ResponseWriter, r *http.Request, body []byte) {
	pace := l.Pace
	if pace == 0 {
		pace = time.Second
	}
	for i := range body {
		select {
		case <-time.After(pace):
		case <-r.Context().Done():
			return
		case <-l.closed:
			return
		}
		_, _ = w.Write(body[i : i+1])
		_ = http.NewResponseController(w).Flush()
	}
}

// endless sends the body again and again.
func (l *Liar) endless(w http.ResponseWriter, r *http.Request, a reply) {
	w.WriteHeader(a.status)
	body := append(bytes.Clone(a.body), " "...)
	for {
		if _, err := w.Write(body); err != nil || r.Context().Err() != nil {
			panic(http.ErrAbortHandler)
		}
		select {
		case <-l.closed:
			panic(http.ErrAbortHandler)
		default:
		}
	}
}

// hijacked sends half of the body in the manner of HTTP/1.0, where the end of the connection is the end of the body.
func (l *Liar) hijacked(w http.ResponseWriter, a reply, half bool) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	body := a.body
	if half {
		body = body[:len(body)/2]
	}
	_, _ = fmt.Fprintf(c, "HTTP/1.0 %d x\r\n", a.status)
	for k, v := range a.header {
		if k != "Content-Length" {
			_, _ = fmt.Fprintf(c, "%s: %s\r\n", k, v[0])
		}
	}
	_, _ = c.Write(append([]byte("\r\n"), body...))
	_ = c.Close()
	panic(http.ErrAbortHandler)
}

// honest does what is asked.
func (l *Liar) honest(kind Kind, key string, r *http.Request) reply {
	if l.Flaws.WritersWait && key != "" && (kind == GetObject || kind == HeadObject) {
		l.turn(key).Lock()
		defer l.turn(key).Unlock()
	}
	switch kind {
	case PutObject:
		return l.put(key, r)
	case UploadPart:
		return l.part(r)
	case CompleteUpload:
		return l.completing(key, r)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch kind {
	case GetObject, HeadObject, ListVersions, GetRetention, GetHold:
		return l.read(kind, key, r, l.now)
	case ListUploads:
		return l.uploadsListed()
	case DeleteObject:
		return l.delete(key, r, l.Flaws.LockIgnored)
	case CreateUpload:
		return l.create(key, r)
	case AbortUpload:
		if _, ok := l.uploads[r.URL.Query().Get("uploadId")]; !ok {
			return refusal(http.StatusNotFound, "NoSuchUpload")
		}
		delete(l.uploads, r.URL.Query().Get("uploadId"))
		return answered(http.StatusNoContent, nil)
	case PutRetention:
		return l.retain(key, r, body)
	case PutHold:
		return l.holding(key, r, body)
	case Setting:
		return l.setting(r, body)
	}
	return refusal(http.StatusNotImplemented, "NotImplemented")
}

func (l *Liar) turn(key string) *sync.Mutex {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writers[key] == nil {
		l.writers[key] = &sync.Mutex{}
	}
	return l.writers[key]
}

// taken tells whether a condition is broken. The caller holds mu.
func (l *Liar) taken(key string, r *http.Request) bool {
	if r.Header.Get("If-None-Match") != "*" {
		return false
	}
	vs := l.now.objects[key]
	return len(vs) > 0 && (!vs[0].marker || l.Flaws.MarkerRefuses)
}

func (l *Liar) put(key string, r *http.Request) reply {
	conditional := r.Header.Get("If-None-Match") == "*"
	if l.Flaws.WritersWait && conditional {
		l.turn(key).Lock()
		defer l.turn(key).Unlock()
	}
	l.mu.Lock()
	early := l.taken(key, r) && !l.Flaws.CreateUnconditional
	l.mu.Unlock()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	lk, bad := l.wanted(r)
	if bad != nil {
		return *bad
	}
	sum, bad := l.checked(r, data)
	if bad != nil {
		return *bad
	}
	enc, bad := l.encryption(r)
	if bad != nil {
		return *bad
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	late := l.taken(key, r) && !l.Flaws.CreateUnconditional && !l.Flaws.CreateNotAtomic
	if early || late {
		return refusal(http.StatusPreconditionFailed, "PreconditionFailed")
	}
	id := l.push(key, version{data: data, lock: l.kept(lk), sse: enc})
	a := answered(http.StatusOK, nil)
	a.header.Set("Etag", `"`+etag(data)+`"`)
	a.header.Set("X-Amz-Version-Id", id)
	if l.Flaws.NoVersioning {
		a.header.Del("X-Amz-Version-Id")
	}
	if sum != "" {
		a.header.Set("X-Amz-Checksum-Sha256", sum)
	}
	return a
}

// The headers that ask for encryption and tell it.
const (
	sseHeader    = "X-Amz-Server-Side-Encryption"
	sseKeyHeader = "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
)

// encryption is what a request's headers make of a new version.
func (l *Liar) encryption(r *http.Request) (sse, *reply) {
	e := sse{r.Header.Get(sseHeader), r.Header.Get(sseKeyHeader)}
	switch {
	case e.mode != "" && l.Flaws.EncryptionRefused:
		a := refusal(http.StatusNotImplemented, "NotImplemented")
		return sse{}, &a
	case l.Flaws.NotEncrypted:
		return sse{}, nil
	case l.Flaws.OtherKey && e.key != "":
		e.key = "its-own"
	}
	return e, nil
}

// wanted reads the lock that a request's headers ask for.
func (l *Liar) wanted(r *http.Request) (lock, *reply) {
	mode, date := r.Header.Get("X-Amz-Object-Lock-Mode"), r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date")
	if mode == "" && date == "" {
		return lock{}, nil
	}
	until, err := time.Parse(time.RFC3339, date)
	if l.Flaws.NoObjectLock || err != nil || mode != "GOVERNANCE" && mode != "COMPLIANCE" || !until.After(l.clock()) && !l.Flaws.LockInPast {
		a := refusal(http.StatusBadRequest, "InvalidRequest")
		return lock{}, &a
	}
	return lock{mode, until}, nil
}

// kept is the lock that a new version gets. The caller holds mu.
func (l *Liar) kept(lk lock) lock {
	switch {
	case l.Flaws.LockNotStored:
		return lock{}
	case lk.mode == "" && l.now.rule.mode != "" && !l.Flaws.DefaultNotKept:
		return lock{l.now.rule.mode, l.clock().AddDate(0, 0, l.now.rule.days)}
	}
	return lk
}

func (l *Liar) checked(r *http.Request, data []byte) (string, *reply) {
	want := r.Header.Get("X-Amz-Checksum-Sha256")
	sum := sha256.Sum256(data)
	if want != "" && want != base64.StdEncoding.EncodeToString(sum[:]) && !l.Flaws.ChecksumIgnored {
		a := refusal(http.StatusBadRequest, "XAmzContentChecksumMismatch")
		return "", &a
	}
	return want, nil
}

// read answers from a state. The caller holds mu.
func (l *Liar) read(kind Kind, key string, r *http.Request, s state) reply {
	if kind == ListVersions {
		return l.listed(r.URL.Query(), s)
	}
	id := r.URL.Query().Get("versionId")
	i, ok := s.find(key, id)
	vs := s.objects[key]
	if ok && l.Flaws.MarkerHides && slices.ContainsFunc(vs[:i], func(v version) bool { return v.marker }) {
		ok = false
	}
	if !ok {
		return refusal(http.StatusNotFound, map[bool]string{true: "NoSuchKey", false: "NoSuchVersion"}[id == ""])
	}
	v := vs[i]
	if v.marker {
		a := refusal(http.StatusMethodNotAllowed, "MethodNotAllowed")
		a.header.Set("X-Amz-Delete-Marker", "true")
		return a
	}
	if kind == GetRetention || kind == GetHold {
		return document(kind, v)
	}
	a := answered(http.StatusOK, nil)
	a.header.Set("Etag", `"`+etag(v.data)+`"`)
	a.header.Set("X-Amz-Version-Id", v.id)
	a.header.Set("Last-Modified", v.at.UTC().Format(http.TimeFormat))
	if v.lock.mode != "" && !(l.Flaws.LockNotInGet && (kind == GetObject || i > 0)) {
		a.header.Set("X-Amz-Object-Lock-Mode", v.lock.mode)
		a.header.Set("X-Amz-Object-Lock-Retain-Until-Date", v.lock.until.UTC().Format(time.RFC3339))
	}
	if v.hold {
		a.header.Set("X-Amz-Object-Lock-Legal-Hold", "ON")
	}
	if v.sse.mode != "" {
		a.header.Set(sseHeader, v.sse.mode)
	}
	if v.sse.key != "" {
		a.header.Set(sseKeyHeader, "arn:aws:kms:"+v.sse.key)
	}
	a.body = v.data
	a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
	if s := r.Header.Get("Range"); s != "" && kind == GetObject {
		return ranged(a, s)
	}
	return a
}

// document is a version's lock or hold.
func document(kind Kind, v version) reply {
	switch {
	case kind == GetHold && v.hold:
		return answered(http.StatusOK, struct {
			XMLName xml.Name `xml:"LegalHold"`
			Status  string
		}{Status: "ON"})
	case kind == GetRetention && v.lock.mode != "":
		return answered(http.StatusOK, struct {
			XMLName               xml.Name `xml:"ObjectLockRetention"` // as versitygw calls it
			Mode, RetainUntilDate string
		}{Mode: v.lock.mode, RetainUntilDate: v.lock.until.UTC().Format(time.RFC3339)})
	}
	return refusal(http.StatusNotFound, "NoSuchObjectLockConfiguration")
}

func ranged(a reply, s string) reply {
	from, to, _ := strings.Cut(strings.TrimPrefix(s, "bytes="), "-")
	first, err := strconv.ParseInt(from, 10, 64)
	last, toErr := strconv.ParseInt(to, 10, 64)
	if to == "" {
		last, toErr = int64(len(a.body))-1, nil
	}
	if err != nil || toErr != nil || first >= int64(len(a.body)) {
		return refusal(http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
	}
	last = min(last, int64(len(a.body))-1)
	a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(a.body)))
	a.body = a.body[first : last+1]
	a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
	a.status = http.StatusPartialContent
	return a
}

//nolint:revive // VersionId is how S3 spells it
type listEntry struct {
	XMLName        xml.Name
	Key, VersionId string
	IsLatest       bool
	LastModified   string
	ETag, Size     string `xml:",omitempty"`
}

//nolint:revive // VersionId is how S3 spells it
type listPage struct {
	XMLName                                  xml.Name `xml:"ListVersionsResult"`
	Name, Prefix, KeyMarker, VersionIdMarker string
	NextKeyMarker, NextVersionIdMarker       string `xml:",omitempty"`
	EncodingType                             string
	MaxKeys                                  int
	IsTruncated                              bool
	Entries                                  []listEntry
}

// entries are all that a listing of a state gives, in order.
func (l *Liar) entries(prefix string, s state) []listEntry {
	var all []listEntry
	keys := slices.DeleteFunc(s.keys(), func(key string) bool { return !strings.HasPrefix(key, prefix) })
	if l.Flaws.ListOmitsLast && len(keys) > 0 {
		keys = keys[:len(keys)-1]
	}
	for _, key := range keys {
		for i, v := range s.objects[key] {
			if i > 0 && (l.Flaws.ListOmitsVersions || l.Flaws.MarkerHides && s.objects[key][0].marker) {
				break
			}
			e := listEntry{
				XMLName: xml.Name{Local: "Version"}, Key: url.QueryEscape(key), VersionId: v.id, IsLatest: i == 0,
				LastModified: v.at.UTC().Format(time.RFC3339), ETag: `"` + etag(v.data) + `"`, Size: strconv.Itoa(len(v.data)),
			}
			if v.marker {
				e.XMLName.Local, e.ETag, e.Size = "DeleteMarker", "", ""
			}
			all = append(all, e)
		}
	}
	return all
}

func (l *Liar) listed(q url.Values, s state) reply {
	size := l.Page
	if size == 0 {
		size = 1000
	}
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil && n > 0 {
		size = min(size, n)
	}
	all := l.entries(q.Get("prefix"), s)
	marker, at := url.QueryEscape(q.Get("key-marker")), q.Get("version-id-marker")
	start := 0
	if marker != "" {
		start = slices.IndexFunc(all, func(e listEntry) bool { return unescaped(e.Key) > unescaped(marker) })
		if at != "" {
			if i := slices.IndexFunc(all, func(e listEntry) bool { return e.Key == marker && e.VersionId == at }); i >= 0 {
				start = i + 1
				if l.Flaws.ListRepeats {
					start = i
				}
			}
		}
		if start < 0 {
			start = len(all)
		}
	}
	p := listPage{
		Name: LiarBucket, Prefix: url.QueryEscape(q.Get("prefix")), KeyMarker: marker, VersionIdMarker: at, EncodingType: "url",
		MaxKeys: size, Entries: all[start:min(start+size, len(all))],
	}
	if start+size < len(all) {
		last := p.Entries[len(p.Entries)-1]
		p.IsTruncated, p.NextKeyMarker, p.NextVersionIdMarker = true, last.Key, last.VersionId
	}
	return answered(http.StatusOK, p)
}

func unescaped(s string) string {
	u, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return u
}
