// Package s3 is a [storage.Store] on S3-compatible object storage with versioning and Object Lock.
//
// One bucket, one object per key, named as the key. Everything that S3 can be asked to promise is asked in the
// request itself, and nothing is left to a default of the bucket:
//
//   - Put is conditional (If-None-Match: *), so that of concurrent writers one wins.
//   - Every object with a date is written with its own lock mode and date. A version is never deleted
//     with a governance bypass, and a lock is never shortened or weakened, but by the probes of perenne doctor
//     (probe.go), on objects of their own, to see that they cannot be.
//   - The SHA-256 travels in x-amz-checksum-sha256, and the server refuses other bytes. Above
//     [Options.Single] an object is sent in parts, each with its SHA-256; the condition is the completion's. As no
//     server can then check the digest of the whole, Put reads the object back, once, before it returns.
//   - Reads by range are checked against what was asked (range, version, length). Their bytes are as the server
//     gives them: callers check digests.
//
// What a 200 is worth differs: some servers never sync, some let two writers win. perenne doctor tells; this
// package believes no more than it must. No request is ever repeated here, so that no outcome is blurred: an
// answer that is not definite is [storage.ErrUnknown], after one look whether an object is there.
//
// A request that makes no progress for [Options.Stall] is ended; there is no limit on a transfer as a whole.
// Memory does not grow with an object's size: bytes are read from the caller's reader as they are sent.
//
// # Versions
//
// A key's newest version is what Get gives when no version is named. Restore lays a version on top; nothing that
// was locked vanishes thereby. Over a delete marker some servers let a conditional Put succeed (AWS, MinIO) and
// some refuse it (versitygw): Put answers nil or ErrExists accordingly, and only the version list tells.
// Replace leaves the version before the newest, for readers that are reading it, and erases older ones.
//
// Locks are read from the head of an answer, and from a document of their own where versitygw, which has them there
// only for HEAD of the newest version, says nothing.
package s3

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/marchesud/perenne/storage"
)

// Options says which bucket, as whom, and how. Fields without a word on their zero value are required.
type Options struct {
	// Endpoint is host:port, or host for the port of the protocol; no path, no https://.
	Endpoint string
	// TLS asks for https. Roots are the authorities believed; nil: the system's.
	TLS   bool
	Roots *x509.CertPool
	// Region is signed into every request; "" is us-east-1, which most servers that have no regions want.
	Region string
	Bucket string
	// AccessKey and SecretKey are the account's.
	AccessKey, SecretKey string
	// Lock is the mode of the locks that are set; the zero value is [Compliance].
	Lock Lock
	// SSE asks the server to encrypt at rest: "" or "none", "s3" (its own key), "kms" (the key named KMSKey, or
	// the account's default key when that is "").
	SSE    string
	KMSKey string
	// Now is the clock that locks are held against before an erasure. It must run.
	Now func() time.Time

	// Stall is how long a request may go without progress, waiting for its answer included; 0 is 30 s. Progress
	// slower than 1 KiB a second is none.
	Stall time.Duration
	// Single is the largest object sent in one request, in bytes; 0 is 64 MiB. Part is the size of the parts of
	// larger ones, 0 is 16 MiB; servers want at least 5 MiB.
	Single, Part int64
	// Transport carries the requests; nil is one of our own. Tests put faults here.
	Transport http.RoundTripper
}

// Lock is the mode of an Object Lock.
type Lock int

const (
	// Compliance locks cannot be lifted by anybody before their date.
	Compliance Lock = iota
	// Governance locks can be lifted by an account that the administrator has given that right.
	Governance
)

// ParseLock reads "compliance" or "governance"; "" is compliance.
func ParseLock(s string) (Lock, error) {
	switch s {
	case "", "compliance":
		return Compliance, nil
	case "governance":
		return Governance, nil
	}
	return Compliance, fmt.Errorf("lock: %q is neither compliance nor governance", s)
}

// String is what ParseLock reads.
func (l Lock) String() string {
	if l == Governance {
		return "governance"
	}
	return "compliance"
}

func (l Lock) mode() minio.RetentionMode {
	if l == Governance {
		return minio.Governance
	}
	return minio.Compliance
}

// inFlight is how many parts of large objects a Store sends at once, whatever the number of Puts.
const inFlight = 4

// Store is one bucket. Its methods may be called concurrently.
type Store struct {
	o      Options
	client *minio.Core
	sse    encrypt.ServerSide // nil: none asked for
	parts  chan struct{}      // holds a token for every part on its way
}

var (
	_ storage.Store     = (*Store)(nil)
	_ storage.Locker    = (*Store)(nil)
	_ storage.Eraser    = (*Store)(nil)
	_ storage.Restorer  = (*Store)(nil)
	_ storage.Sweeper   = (*Store)(nil)
	_ storage.Replacer  = (*Store)(nil)
	_ storage.Protector = (*Store)(nil)
)

// Open opens a bucket that must exist, with versioning and Object Lock on. Whether the server keeps its word is
// not tried here: that is perenne doctor's business. Nothing is written.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := configured(o)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	if err := s.look(ctx); err != nil {
		return nil, fmt.Errorf("s3: bucket %s at %s: %w", o.Bucket, o.Endpoint, err)
	}
	return s, nil
}

// configured checks the options and makes the client. It asks the server nothing.
func configured(o Options) (*Store, error) {
	for _, f := range []struct{ name, value, remedy string }{
		{"endpoint", o.Endpoint, "host:port of the S3 server"},
		{"bucket", o.Bucket, "the name of a bucket made with Object Lock"},
		{"access key", o.AccessKey, "the account's access key"},
		{"secret key", o.SecretKey, "the account's secret key"},
	} {
		if f.value == "" {
			return nil, fmt.Errorf("%s: is empty; give %s", f.name, f.remedy)
		}
	}
	if o.Now == nil {
		return nil, errors.New("no clock was given (Options.Now)")
	}
	if o.Stall < 0 || o.Single < 0 || o.Part < 0 {
		return nil, fmt.Errorf("stall %v, single %d, part %d: must not be negative", o.Stall, o.Single, o.Part)
	}
	if o.Stall == 0 {
		o.Stall = 30 * time.Second
	}
	if o.Single == 0 {
		o.Single = 64 << 20
	}
	if o.Part == 0 {
		o.Part = 16 << 20
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	s := &Store{o: o, parts: make(chan struct{}, inFlight)}
	switch o.SSE {
	case "", "none":
	case "s3":
		s.sse = encrypt.NewSSE()
	case "kms":
		sse, err := encrypt.NewSSEKMS(o.KMSKey, nil)
		if err != nil {
			return nil, fmt.Errorf("sse: %w", err)
		}
		s.sse = sse
	default:
		return nil, fmt.Errorf("sse: %q is none of none, s3, kms", o.SSE)
	}
	if o.KMSKey != "" && o.SSE != "kms" {
		return nil, fmt.Errorf("kms key: given, but sse is %q; set sse to kms, or take the key away", o.SSE)
	}
	client, err := minio.NewCore(o.Endpoint, &minio.Options{
		Creds:     credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""),
		Secure:    o.TLS,
		Region:    o.Region,
		Transport: newTransport(o),
		// A request is sent once: what it did when no answer came is for the caller to find out.
		MaxRetries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint: %q: %w; want host:port without a path", o.Endpoint, err)
	}
	s.client = client
	return s, nil
}

// look finds out whether the bucket is one that can keep its promises.
func (s *Store) look(ctx context.Context) error {
	v, err := s.client.GetBucketVersioning(ctx, s.o.Bucket)
	if err != nil {
		return s.explained(err)
	}
	if !v.Enabled() {
		return fmt.Errorf("bucket: versioning is %s; make a new bucket with Object Lock", orOff(v.Status))
	}
	locking, _, _, _, err := s.client.GetObjectLockConfig(ctx, s.o.Bucket)
	if a, ok := answer(err); ok && a.Code == "ObjectLockConfigurationNotFoundError" {
		locking, err = "", nil
	}
	if err != nil {
		return s.explained(err)
	}
	if locking != "Enabled" {
		return errors.New("bucket: has no Object Lock; make a new bucket with Object Lock, it cannot be added later on every server")
	}
	return nil
}

func orOff(status string) string {
	if status == "" {
		return "off"
	}
	return status
}

// ErrAway says that the server gave no answer, or said that it cannot give one now: nothing is known of the bucket.
var ErrAway = errors.New("the S3 server does not answer now")

// explained says of an error at Open which setting it comes from; ErrAway when it comes from none.
func (s *Store) explained(err error) error {
	a, ok := answer(err)
	var dns *net.DNSError
	var network *net.OpError
	switch {
	case ok && a.StatusCode >= http.StatusInternalServerError, ok && a.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", ErrAway, fault(err))
	case errors.Is(err, errStalled), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrAway, err)
	case ok && a.Code == minio.NoSuchBucket:
		return fmt.Errorf("bucket: does not exist; make it with Object Lock (mc mb --with-lock): %w", err)
	case ok && (a.Code == minio.InvalidAccessKeyID || a.Code == "XAdminUserNotFound"):
		return fmt.Errorf("access key: the server does not know it: %w", err)
	case ok && a.Code == minio.SignatureDoesNotMatch:
		return fmt.Errorf("secret key: is not that of the access key: %w", err)
	case ok && a.Code == minio.RequestTimeTooSkewed:
		return fmt.Errorf("clock: this machine's and the server's differ; set both by NTP: %w", err)
	case ok && (a.Code == minio.InvalidRegion || a.Code == minio.AuthorizationHeaderMalformed):
		return fmt.Errorf("region: %q is not the server's (it says %q): %w", s.o.Region, a.Region, err)
	case ok && a.Code == minio.AccessDenied:
		return fmt.Errorf("access key: may not read the bucket's settings; allow s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration: %w", err)
	case ok && a.StatusCode/100 == 3:
		return fmt.Errorf("endpoint: the server sends us elsewhere; give the address of the bucket's own region: %w", err)
	case errors.As(err, &dns):
		return fmt.Errorf("%w: endpoint: cannot be found: %w", ErrAway, err)
	case errors.As(err, &network):
		return fmt.Errorf("%w: is it running, and is the endpoint right? %w", ErrAway, err)
	}
	return fmt.Errorf("endpoint: gives no usable answer; is it an S3 server, and is tls (now %v) right? %w", s.o.TLS, fault(err))
}

// Protection implements [storage.Protector].
func (s *Store) Protection() string { return "object lock " + string(s.o.Lock.mode()) }
