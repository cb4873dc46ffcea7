// Package s3test runs S3 servers for tests: two real ones on loopback ([Start], [Run]), which scripts/servers
// builds, and one in this process that lies on demand ([Liar]).
//
// The real ones are test doubles, never part of Perenne. versitygw is one process over plain files: the object key of
// bucket b is DataDir/b/key. MinIO keeps a folder per object, DataDir/b/key/, in a format of its own. Their bytes can be
// damaged there as a storage administrator would.
package s3test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/marchesud/perenne/storage/s3"
)

// Kinds are the servers there are.
var Kinds = []string{"minio", "versitygw"}

// Unsafe is a server that lets two conditional writers win. It is no one of Kinds: perenne doctor must refuse it.
const Unsafe = "versitygw-1.7.0"

// ErrMissing says that a server's program is not on this machine; scripts/servers builds it.
var ErrMissing = errors.New("server is not installed; run scripts/servers")

// patience is how long a server may take to start.
const patience = 30 * time.Second

// Server is a running server with a bucket of its own, made with Object Lock.
type Server struct {
	Kind                 string
	Endpoint             string // host:port
	AccessKey, SecretKey string
	Bucket               string
	Dir                  string // everything of the server's: data, versions, its log
	DataDir              string // the root of its buckets

	mu      sync.Mutex
	buckets int
	process *exec.Cmd
	ended   chan struct{} // closed when process has ended
}

// Start runs a server of a kind of [Kinds], or [Unsafe], until the test ends. It skips the test, and says why, where the program
// is missing.
func Start(t testing.TB, kind string) *Server {
	t.Helper()
	s, err := Run(t.Context(), kind, t.TempDir())
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Kill() })
	return s
}

// Run starts a server of a kind of [Kinds] in dir, which it makes, and makes its bucket; what an earlier server of the
// kind has left in dir is there again. Kill ends it. ErrMissing when the program is not on this machine.
func Run(ctx context.Context, kind, dir string) (*Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Kind: kind, AccessKey: "perenne-test", SecretKey: "perenne-test-secret", Bucket: "archive",
		Dir: dir, DataDir: filepath.Join(dir, "data"),
	}
	for _, d := range []string{s.DataDir, filepath.Join(dir, "versions"), filepath.Join(dir, "certs")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("start %s: %w", kind, err)
		}
	}
	// Between the choice of a port and its use somebody else may take it.
	for range 3 {
		if s.Endpoint, err = freePort(); err != nil {
			break
		}
		if err = s.launch(ctx); err == nil || errors.Is(err, ErrMissing) {
			break
		}
	}
	if err == nil {
		err = s.makeBucket(ctx, s.Bucket)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", kind, err), s.Kill())
	}
	return s, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Installed reports whether the program of a kind is on this machine.
func Installed(kind string) bool {
	_, err := program(kind)
	return err == nil
}

// program finds a server's binary.
func program(kind string) (string, error) {
	dir := os.Getenv("PERENNE_SERVERS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(cache, "perenne", "servers")
	}
	path := filepath.Join(dir, kind)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s: %w", path, ErrMissing)
	}
	return path, nil
}

// launch starts the process and waits until it answers.
func (s *Server) launch(ctx context.Context) error {
	path, err := program(s.Kind)
	if err != nil {
		return err
	}
	var c *exec.Cmd
	switch s.Kind {
	case "minio":
		c = exec.Command(path, "server", "--quiet", "--address", s.Endpoint, "--certs-dir", filepath.Join(s.Dir, "certs"), s.DataDir)
		c.Env = append(os.Environ(), "MINIO_ROOT_USER="+s.AccessKey, "MINIO_ROOT_PASSWORD="+s.SecretKey, "MINIO_BROWSER=off", "MINIO_UPDATE=off")
	case "versitygw", Unsafe:
		c = exec.Command(path, "--quiet", "--keep-alive", "--port", s.Endpoint, "posix", "--versioning-dir", filepath.Join(s.Dir, "versions"), s.DataDir)
		c.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey)
	default:
		return fmt.Errorf("no server of kind %q; there are %v", s.Kind, Kinds)
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = diesWithUs()
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	s.mu.Lock()
	s.process, s.ended = c, ended
	s.mu.Unlock()
	return s.ready(ctx, ended)
}

func (s *Server) ready(ctx context.Context, ended chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := s.Client()
	if err != nil {
		return err
	}
	for {
		if _, err = client.ListBuckets(ctx); err == nil {
			return nil
		}
		select {
		case <-ended:
			log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			return fmt.Errorf("it ended by itself: %s", log[max(0, len(log)-500):])
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it does not answer: %w", err), s.Kill())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Client returns the administrator's client, for what is done behind Perenne's back.
func (s *Server) Client() (*minio.Core, error) {
	return minio.NewCore(s.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Region: "us-east-1", MaxRetries: 1,
	})
}

func (s *Server) makeBucket(ctx context.Context, name string) error {
	client, err := s.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = client.MakeBucket(ctx, name, minio.MakeBucketOptions{ObjectLocking: true})
	if code := minio.ToErrorResponse(err).Code; code == minio.BucketAlreadyOwnedByYou || code == minio.BucketAlreadyExists {
		return nil
	}
	return err
}

// NewBucket makes another bucket with Object Lock and returns its name.
func (s *Server) NewBucket(ctx context.Context) (string, error) {
	s.mu.Lock()
	s.buckets++
	name := fmt.Sprintf("archive-%d", s.buckets)
	s.mu.Unlock()
	return name, s.makeBucket(ctx, name)
}

// Options opens the server's Bucket.
func (s *Server) Options() s3.Options {
	return s3.Options{
		Endpoint: s.Endpoint, Bucket: s.Bucket, AccessKey: s.AccessKey, SecretKey: s.SecretKey, Now: time.Now,
	}
}

// Kill ends the server at once, as kill -9 does, and waits for its end. It may be called more than once.
func (s *Server) Kill() error {
	s.mu.Lock()
	c, ended := s.process, s.ended
	s.process = nil
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	err := c.Process.Kill()
	<-ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Restart starts the server again, after a Kill or instead of one, on the same port and the same data.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return fmt.Errorf("restart %s: %w", s.Kind, err)
	}
	if err := s.launch(ctx); err != nil {
		return fmt.Errorf("restart %s: %w", s.Kind, err)
	}
	return nil
}

// Pause stops the process in its tracks: connections stay open and nothing answers. It returns when all its threads
// have stopped.
func (s *Server) Pause() error {
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return s.stopped()
}

// Resume lets it go on.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errors.New("server is not running")
	}
	return s.process.Process.Signal(sig)
}
