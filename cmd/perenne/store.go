package main

import (
	"errors"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/s3"
)

// StoreConfig says where the bucket is: a folder of this machine, or an S3 bucket. Exactly one of the two.
type StoreConfig struct {
	// Dir is the folder of the embedded store. One host, never NFS.
	Dir string `yaml:"dir,omitempty"`
	// Immutable sets the immutable flag on every object of the embedded store: auto (where rights and file
	// system allow), on (refuse to start otherwise) or off.
	Immutable string `yaml:"immutable,omitempty"`
	// S3 is a bucket with versions and Object Lock, both switched on when it was made.
	S3 *S3Config `yaml:"s3,omitempty"`
	// Spool says how long this machine holds the bytes of what it put, in case the store loses them.
	Spool SpoolConfig `yaml:"spool,omitempty"`
}

// SpoolConfig says how long this machine holds the bytes of what it put, in case the store loses them.
type SpoolConfig struct {
	// ReadBack is how long after an object was put it is read back, and its copy given up once it is sealed: 24h
	// by default on S3. 0s trusts the store and holds nothing: the default with the embedded one.
	ReadBack *Duration `yaml:"read_back,omitempty"`
	// Quota is the most bytes held; at four fifths of it objects are read back early, at the quota submissions are
	// answered 503. 0 means half of what its disk has free at the start.
	Quota int64 `yaml:"quota,omitempty"`
	// Dir is its folder, on a local disk that syncs; default state/spool.
	Dir string `yaml:"dir,omitempty"`
}

// readBack is how long objects are held; 0: there is no spool.
func (c *StoreConfig) readBack() time.Duration {
	switch {
	case c.Spool.ReadBack != nil:
		return time.Duration(*c.Spool.ReadBack)
	case c.S3 != nil:
		return 24 * time.Hour
	}
	return 0
}

// S3Config is a bucket on an S3 server, and an account with the rights of docs/operations.md §2.1: to write, read, list
// and delete objects and their versions, to set and read their locks and holds, to read the bucket's settings. It needs
// neither the right to bypass governance nor any to change those settings, and should have neither.
type S3Config struct {
	// URL of the server, https://HOST[:PORT]; http for this machine only.
	URL string `yaml:"url"`
	// Region the server expects in signatures; default us-east-1.
	Region string `yaml:"region,omitempty"`
	// Bucket that holds this archive and nothing else.
	Bucket string `yaml:"bucket"`
	// AccessKey is the name of the key pair.
	AccessKey string `yaml:"access_key"`
	// SecretKeyFile holds its secret, readable by its owner only; under keys/ it leaves with keys export.
	SecretKeyFile string `yaml:"secret_key_file"`
	// CAFile holds the certificates (PEM) to believe the server's; default those of the system.
	CAFile string `yaml:"ca_file,omitempty"`
	// Lock is the mode of every object's lock: compliance, which nobody can lift, the default; or governance,
	// which an administrator of the store can.
	Lock string `yaml:"lock,omitempty"`
	// SSE asks the server to encrypt what it keeps: none (default), s3, or kms with KMSKey.
	SSE string `yaml:"sse,omitempty"`
	// KMSKey names the key of sse: kms.
	KMSKey string `yaml:"kms_key,omitempty"`
}

// check refuses what would have to be guessed at; bad makes the error of a key.
func (c *StoreConfig) check(bad func(key, why string) error) error {
	switch {
	case c.readBack() < 0:
		return bad("store.spool.read_back", "must not be negative; 0s trusts the store")
	case c.Spool.Quota < 0:
		return bad("store.spool.quota", "must not be negative; 0 means half of what the disk has free")
	case c.readBack() == 0 && (c.Spool.Quota > 0 || c.Spool.Dir != ""):
		return bad("store.spool", "without read_back nothing is held: remove quota and dir, or set read_back")
	case c.S3 == nil && c.Dir == "":
		return bad("store.dir", "the folder of the embedded store is missing; or name a bucket under store.s3")
	case c.S3 != nil && (c.Dir != "" || c.Immutable != ""):
		return bad("store.s3", "store.dir and store.immutable are of the embedded store: the bucket is in one place")
	case c.S3 != nil:
		return c.S3.check(bad)
	}
	if _, err := dir.ParseImmutable(c.Immutable); err != nil || c.Immutable == "" {
		return bad("store.immutable", "auto, on or off")
	}
	return nil
}

func (c *S3Config) check(bad func(key, why string) error) error {
	if _, _, err := c.endpoint(); err != nil {
		return bad("store.s3.url", err.Error())
	}
	if c.Bucket == "" {
		return bad("store.s3.bucket", "the name of the bucket is missing")
	}
	if c.AccessKey == "" {
		return bad("store.s3.access_key", "the name of the key pair is missing")
	}
	if c.SecretKeyFile == "" {
		return bad("store.s3.secret_key_file", "the file with the secret key is missing")
	}
	if _, err := s3.ParseLock(c.Lock); err != nil {
		return bad("store.s3.lock", "compliance or governance")
	}
	switch c.SSE {
	case "", "none", "s3", "kms":
	default:
		return bad("store.s3.sse", "none, s3 or kms")
	}
	if (c.SSE == "kms") != (c.KMSKey != "") {
		return bad("store.s3.kms_key", "goes with sse: kms, and sse: kms with it")
	}
	return nil
}

// endpoint is what the client dials. Documents cross the network: without TLS only as far as this machine.
func (c *S3Config) endpoint() (host string, tls bool, err error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "", false, errors.New("want https://HOST[:PORT], without a path")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return "", false, errors.New("http is for this machine only: documents would cross the network in clear; use https")
	}
	return u.Host, u.Scheme == "https", nil
}

// s3Flags name a bucket on the command line.
func s3Flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "s3-url", Usage: "keep the objects on an S3 server: https://HOST[:PORT]", EnvVars: []string{"PERENNE_S3_URL"}},
		&cli.StringFlag{Name: "s3-bucket", Usage: "its bucket, made with Object Lock", EnvVars: []string{"PERENNE_S3_BUCKET"}},
		&cli.StringFlag{Name: "s3-region", Usage: "region for signatures; default us-east-1", EnvVars: []string{"PERENNE_S3_REGION"}},
		&cli.StringFlag{Name: "s3-access-key", Usage: "name of the key pair", EnvVars: []string{"PERENNE_S3_ACCESS_KEY"}},
		&cli.StringFlag{Name: "s3-secret-file", Usage: "FILE with the secret key; copied to keys/s3.secret", EnvVars: []string{"PERENNE_S3_SECRET_FILE"}},
		&cli.StringFlag{Name: "s3-ca", Usage: "FILE with the certificates to believe the server's; copied to trust/s3-ca.pem", EnvVars: []string{"PERENNE_S3_CA"}},
		&cli.StringFlag{Name: "s3-lock", Usage: "compliance (default) or governance", EnvVars: []string{"PERENNE_S3_LOCK"}},
		&cli.StringFlag{Name: "s3-sse", Usage: "encryption by the server: none (default), s3 or kms", EnvVars: []string{"PERENNE_S3_SSE"}},
		&cli.StringFlag{Name: "s3-kms-key", Usage: "key of --s3-sse kms", EnvVars: []string{"PERENNE_S3_KMS_KEY"}},
	}
}

// bucketSecrets are the files of a bucket named on the command line, to be laid into an installation.
type bucketSecrets struct{ secret, ca []byte }

// Where they are laid.
const (
	secretFile = "keys/s3.secret"
	caFile     = "trust/s3-ca.pem"
)

// s3FromFlags is the bucket that the flags name; nil when they name none.
func s3FromFlags(c *cli.Context) (*S3Config, bucketSecrets, error) {
	var s bucketSecrets
	if c.String("s3-url") == "" {
		for _, f := range s3Flags() {
			if name := f.Names()[0]; c.IsSet(name) {
				return nil, s, usagef("--%s goes with --s3-url", name)
			}
		}
		return nil, s, nil
	}
	cfg := &S3Config{
		URL: c.String("s3-url"), Region: c.String("s3-region"), Bucket: c.String("s3-bucket"), AccessKey: c.String("s3-access-key"),
		SecretKeyFile: secretFile, Lock: c.String("s3-lock"), SSE: c.String("s3-sse"), KMSKey: c.String("s3-kms-key"),
	}
	var err error
	if c.String("s3-secret-file") == "" {
		return nil, s, usagef("--s3-secret-file: the file with the secret key is missing")
	}
	if s.secret, err = os.ReadFile(c.String("s3-secret-file")); err != nil {
		return nil, s, usagef("--s3-secret-file: %v", err)
	}
	if f := c.String("s3-ca"); f != "" {
		if s.ca, err = os.ReadFile(f); err != nil {
			return nil, s, usagef("--s3-ca: %v", err)
		}
		cfg.CAFile = caFile
	}
	return cfg, s, cfg.check(func(key, why string) error {
		flag := strings.ReplaceAll(strings.TrimPrefix(key, "store.s3."), "_", "-")
		return usagef("--s3-%s: %s", flag, why)
	})
}

// storeFromFlags is the store that a command names: a folder, or a bucket by its flags; nil when it names none.
func storeFromFlags(c *cli.Context, folder string) (*StoreConfig, bucketSecrets, error) {
	bucket, secrets, err := s3FromFlags(c)
	switch {
	case err != nil:
		return nil, secrets, err
	case bucket != nil && folder != "":
		return nil, secrets, usagef("a folder and --s3-url: name one store")
	case bucket != nil:
		return &StoreConfig{S3: bucket}, secrets, nil
	case folder == "":
		return nil, secrets, nil
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return nil, secrets, err
	}
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return nil, secrets, usagef("%s is no folder", folder)
	}
	return &StoreConfig{Dir: folder, Immutable: "off"}, secrets, nil
}

// lay writes the files into an installation's folder.
func (s bucketSecrets) lay(root string) error {
	if s.secret != nil {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(secretFile)), 0o700); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(root, secretFile), s.secret, 0o600); err != nil {
			return err
		}
	}
	if s.ca != nil {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(caFile)), 0o755); err != nil {
			return err
		}
		return writeFile(filepath.Join(root, caFile), s.ca, 0o644)
	}
	return nil
}
