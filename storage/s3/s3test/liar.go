package s3test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/marchesud/perenne/storage/s3"
)

// Liar is an S3 server in this process, with one bucket that has versions and Object Lock. Left alone it is honest
// and behaves as AWS does. It can be made worse in two ways:
//
//   - [Flaws] are properties that it lacks for good, one switch each, as whole products do. They are what perenne
//     doctor must find: set one, open a store with Options, and the examination must name it.
//   - Lies are told on single calls, as Tell says: what proxies, caches, failing disks and attackers do.
//
// It knows the calls that Perenne and its doctor make, path style, and looks at no signature. Everything is kept in
// memory. The methods under "behind" act behind the caller's back and ask no locks.
//
// Fields are set before the first request, Tell also between requests by [Liar.Telling].
type Liar struct {
	Flaws Flaws
	// Page is how many entries a page of a listing has; 0 is 1,000.
	Page int
	// Now is the server's clock; nil is time.Now.
	Now func() time.Time
	// Pace is the time between two bytes of a Slow answer; 0 is a second.
	Pace time.Duration

	server *httptest.Server
	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	tell     func(Call) Lie
	counts   map[Kind]int
	calls    []Call
	now      state // what honest answers come from
	before   state // what it was before the last write: what stale ones come from
	uploads  map[string]*upload
	serial   int
	writers  map[string]*sync.Mutex // by key; see Flaws.WritersWait
	complete map[string]int         // completions under way, by key; see Flaws.CompleteNotAtomic
}

// Flaws are the promises that a Liar does not keep, all kept when false. The first group makes a store useless for
// Perenne; the second is what real products do and a store may do.
type Flaws struct {
	// CreateNotAtomic looks at If-None-Match when a PUT's head arrives and not when its bytes are there: of a slow
	// and a fast PUT of one key both are told 200 (versitygw 1.7.0). Deterministic: begin a Put whose reader waits, put
	// another, let the first go on.
	CreateNotAtomic bool
	// CreateUnconditional does not look at If-None-Match on a PUT at all.
	CreateUnconditional bool
	// CompleteNotAtomic lets two concurrent CompleteMultipartUploads of one key both win: each looks, waits up to
	// half a second for the other, then writes. CompleteUnconditional does not look at all.
	CompleteNotAtomic, CompleteUnconditional bool
	// NoVersioning and NoObjectLock: the bucket was made without. s3.Open refuses them.
	NoVersioning, NoObjectLock bool
	// VersioningSuspendable lets PutBucketVersioning suspend it, although the bucket has Object Lock.
	VersioningSuspendable bool
	// LockNotStored takes lock headers on PUT and forgets them.
	LockNotStored bool
	// LockInPast takes a lock that has ended already.
	LockInPast bool
	// BatchIgnoresLocks deletes locked versions when they are named in a DeleteObjects.
	BatchIgnoresLocks bool
	// LockIgnored deletes versions whatever their lock. HoldIgnored: whatever their legal hold.
	LockIgnored, HoldIgnored bool
	// Shortenable lets PutObjectRetention shorten or remove a COMPLIANCE lock; Downgradable lets it make
	// GOVERNANCE of it.
	Shortenable, Downgradable bool
	// ExtensionIgnored says 200 to a later date and keeps the old one.
	ExtensionIgnored bool
	// ComplianceBypassed honours x-amz-bypass-governance-retention for COMPLIANCE too.
	ComplianceBypassed bool
	// DefaultNotKept applies the bucket's default retention only as long as the bucket has it, instead of making it a
	// property of each object (versitygw): set a default, put without a lock, clear the default, delete.
	DefaultNotKept bool
	// ChecksumIgnored stores bytes whose SHA-256 is not that of x-amz-checksum-sha256.
	ChecksumIgnored bool
	// ListOmitsLast leaves the last key out of every listing; ListOmitsVersions all versions but the newest.
	ListOmitsLast, ListOmitsVersions bool
	// MarkerHides lets a delete marker take the versions below it out of sight, for lists and reads by version.
	MarkerHides bool
	// DeleteIgnored says 204 to every deletion of a version and does nothing.
	DeleteIgnored bool
	// NotEncrypted takes the headers that ask for encryption and heeds none (versitygw); EncryptionRefused answers 501
	// to them (MinIO without a KMS); OtherKey encrypts with a key of its own when one is named.
	NotEncrypted, EncryptionRefused, OtherKey bool

	// ListRepeats gives the last entry of a page again as the first of the next (versitygw; use it with Page).
	ListRepeats bool
	// MarkerRefuses answers 412 to a conditional PUT over a delete marker (versitygw).
	MarkerRefuses bool
	// LockNotInGet tells locks to HEAD of the newest version only, and not to GET (versitygw).
	LockNotInGet bool
	// WritersWait lets every reader and writer of a key wait for a conditional PUT of it that is under way (MinIO).
	WritersWait bool
}

// Kind is a call of S3.
type Kind string

// The calls that lies are told on.
const (
	PutObject      Kind = "PutObject"
	GetObject      Kind = "GetObject"
	HeadObject     Kind = "HeadObject"
	DeleteObject   Kind = "DeleteObject"
	ListVersions   Kind = "ListObjectVersions"
	CreateUpload   Kind = "CreateMultipartUpload"
	UploadPart     Kind = "UploadPart"
	CompleteUpload Kind = "CompleteMultipartUpload"
	AbortUpload    Kind = "AbortMultipartUpload"
	ListUploads    Kind = "ListMultipartUploads"
	PutRetention   Kind = "PutObjectRetention"
	PutHold        Kind = "PutObjectLegalHold"
	GetRetention   Kind = "GetObjectRetention"
	GetHold        Kind = "GetObjectLegalHold"
	// Setting is a call about the bucket: versioning, lock configuration, location, existence.
	Setting Kind = "Setting"
)

// CallKinds are all of them but Setting.
var CallKinds = []Kind{
	PutObject, GetObject, HeadObject, DeleteObject, ListVersions, CreateUpload, UploadPart, CompleteUpload,
	AbortUpload, ListUploads, PutRetention, PutHold, GetRetention, GetHold,
}

// Call is one request.
type Call struct {
	Kind Kind
	Key  string
	N    int // of its kind, from 1
}

// Lie is what is done instead of the honest answer to one call.
type Lie struct {
	What LieKind
	// At is where in a body it happens, from 0 (before the first byte) to 1 (after the last).
	At float64
}

// LieKind names a lie. Those that make no sense for a call leave its answer honest.
type LieKind string

// The lies. Those about bodies act on the answer's; StoresNothing and those after it act on what is written.
const (
	Honest          LieKind = ""
	StaleRead       LieKind = "stale read"                  // from before the last write
	ShortBody       LieKind = "short body"                  // ends At, with the length of the whole announced
	ShorterBody     LieKind = "short body with its length"  // ends At, and says that that is all
	WrongBytes      LieKind = "right length, wrong bytes"   // one bit differs At
	OtherBody       LieKind = "another object's body"       //
	Reset           LieKind = "connection reset"            // At
	ErrorIn200      LieKind = "200 with an error in XML"    //
	NotFound        LieKind = "404 for what exists"         //
	ListTruncated   LieKind = "list ends early"             // At, and says that it is whole
	ListNoAdvance   LieKind = "list says more for ever"     // without moving its marker
	ListNoLast      LieKind = "list without its last key"   //
	ListDuplicated  LieKind = "list with every entry twice" //
	ListDisordered  LieKind = "list out of order"           //
	OtherETag       LieKind = "another object's ETag"       //
	ClockSkew       LieKind = "Date a day off"              //
	StoresNothing   LieKind = "success that stored nothing" //
	StoresTwice     LieKind = "stored twice"                // as two versions
	FailsAfter      LieKind = "500 after storing"           //
	RefusesAfter    LieKind = "412 after its own retry"     // of what it stored
	Conflict        LieKind = "409"                         // stored nothing
	ConflictAfter   LieKind = "409 after storing"           //
	Slow            LieKind = "one byte at a time"          // see Liar.Pace
	Hang            LieKind = "no answer"                   //
	HangAfter       LieKind = "no answer after storing"     //
	RedirectLoop    LieKind = "redirect to itself"          //
	OtherRegion     LieKind = "another region"              //
	GarbledAnswer   LieKind = "no XML where XML is due"     //
	EndlessAnswer   LieKind = "an answer without end"       //
	LengthMissing   LieKind = "answer without a length"     // and the connection closed where it ends
	RangeIgnored    LieKind = "200 with all for a range"    //
	VersionSwapped  LieKind = "another version's answer"    // its name says so
	ServiceDown     LieKind = "503"                         // stored nothing
	StorageFull     LieKind = "507"                         // stored nothing
	AccessForbidden LieKind = "403"                         // stored nothing
)

// LieKinds are all of them but Honest.
var LieKinds = []LieKind{
	StaleRead, ShortBody, ShorterBody, WrongBytes, OtherBody, Reset, ErrorIn200, NotFound, ListTruncated, ListNoAdvance,
	ListNoLast, ListDuplicated, ListDisordered, OtherETag, ClockSkew, StoresNothing, StoresTwice, FailsAfter, RefusesAfter,
	Conflict, ConflictAfter, Slow, Hang, HangAfter, RedirectLoop, OtherRegion, GarbledAnswer, EndlessAnswer, LengthMissing,
	RangeIgnored, VersionSwapped, ServiceDown, StorageFull, AccessForbidden,
}

// LiarBucket is the name of a Liar's bucket.
const LiarBucket = "archive"

// StartLiar runs an honest Liar on loopback until the test ends.
func StartLiar(t testing.TB, flaws Flaws) *Liar {
	l := &Liar{
		Flaws: flaws, closed: make(chan struct{}), counts: map[Kind]int{}, now: state{objects: map[string][]version{}},
		uploads: map[string]*upload{}, writers: map[string]*sync.Mutex{}, complete: map[string]int{},
	}
	l.now.suspended = flaws.NoVersioning
	l.before = l.now.copied()
	l.server = httptest.NewUnstartedServer(l)
	l.server.Config.ErrorLog = log.New(io.Discard, "", 0) // the lies
	l.server.Start()
	t.Cleanup(l.Close)
	return l
}

// Close ends the Liar before its test does. It may be called more than once.
func (l *Liar) Close() {
	l.once.Do(func() {
		close(l.closed)
		l.server.CloseClientConnections()
		l.server.Close()
	})
}

// Options opens the Liar's bucket.
func (l *Liar) Options() s3.Options {
	return s3.Options{
		Endpoint: strings.TrimPrefix(l.server.URL, "http://"), Bucket: LiarBucket, AccessKey: "a", SecretKey: "b", Now: l.clock,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
}

// Telling lets tell decide on the lie of every call from now on, which are counted from 1 again; nil is honesty.
func (l *Liar) Telling(tell func(Call) Lie) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell = tell
	clear(l.counts)
	l.calls = nil
}

// Calls returns those since the last Telling.
func (l *Liar) Calls() []Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

func (l *Liar) clock() time.Time {
	if l.Now != nil {
		return l.Now()
	}
	return time.Now()
}

// Client returns the administrator's client, for what is done behind Perenne's back.
func (l *Liar) Client() (*minio.Core, error) {
	o := l.Options()
	return minio.NewCore(o.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""), Region: "us-east-1", MaxRetries: 1, Transport: o.Transport,
	})
}
