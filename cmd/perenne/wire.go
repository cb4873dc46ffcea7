package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
	"github.com/marchesud/perenne/storage/dir"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/spool"
)

// This is the only file that names the concrete parts an archive is made of.

type certificate = *x509.Certificate

// openOptions vary how an installation is opened.
type openOptions struct {
	Log             *slog.Logger
	TrustBucketHead bool
	// ReadOnly opens without writing to the ledgers: papers are sealed, nothing is entered.
	ReadOnly bool
	// StoreDir and StateDir stand in for the installation's own: the demo audits damaged copies.
	StoreDir, StateDir string
	// Examine puts the store to the test first, and opens none that fails.
	Examine bool
	// ForgetCatalog makes the catalog again from the bucket.
	ForgetCatalog bool
	// Mending opens for a repair: no audit is scheduled meanwhile.
	Mending bool
}

// opened is an archive with what it was made of.
type opened struct {
	Archive *archive.Archive
	Catalog *catalog.Catalog
	Trust   paper.Trust
	closers []func() error
}

// Close closes in reverse order.
func (o *opened) Close() error {
	var err error
	for i := len(o.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, o.closers[i]())
	}
	return err
}

// open makes an archive from an installation.
func (in *installation) open(ctx context.Context, opt openOptions) (*opened, error) {
	o := &opened{}
	if err := o.assemble(ctx, in, opt); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// assemble reads the configuration first, so that what is wrong with it is said before anything is touched.
func (o *opened) assemble(ctx context.Context, in *installation, opt openOptions) error {
	state := firstOf(opt.StateDir, in.path("state"))
	var err error
	if o.Trust, err = trustOf(in.path("trust")); err != nil {
		return err
	}
	cfg, err := in.archiveConfig(o, state, opt)
	if err != nil {
		return err
	}
	if opt.Mending {
		cfg.AuditTick = 0
	}
	if err := o.lock(state); err != nil {
		return err
	}
	if err := removeUnfinished(state); err != nil {
		return err
	}
	where := in.config.Store
	if opt.StoreDir != "" {
		where = StoreConfig{Dir: opt.StoreDir, Immutable: in.config.Store.Immutable}
	}
	if cfg.Store, err = in.openStore(ctx, where); err != nil {
		return err
	}
	if opt.Examine {
		if err := in.examineFirst(ctx, cfg.Store, state, opt.Log); err != nil {
			return err
		}
	}
	if opt.StoreDir == "" {
		if cfg.Store, err = o.openSpool(ctx, in, state, opt.Log, cfg.Store); err != nil {
			return err
		}
	}
	if err := o.holdAgainstExport(ctx, cfg.Store, state); err != nil {
		return err
	}
	if err := o.openCatalog(ctx, in, state, opt); err != nil {
		return err
	}
	cfg.Catalog = o.Catalog
	if !in.config.ReadOnly && !opt.ReadOnly {
		if err := o.openKeys(in, &cfg); err != nil {
			return err
		}
	}
	if o.Archive, err = archive.Open(ctx, cfg); err != nil {
		return err
	}
	o.closers = append(o.closers, o.Archive.Close)
	return nil
}

// lock keeps a second process away from the local state. The bucket needs no lock.
func (o *opened) lock(state string) error {
	if err := os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	// Commands probe the lock for an instant; whoever holds it longer is at work.
	for n := 0; ; n++ {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if n == 20 {
			return errors.Join(laterIn("un altro perenne lavora su %s: fermarlo prima", "another perenne works on %s: stop it first", state), f.Close())
		}
		time.Sleep(10 * time.Millisecond)
	}
	o.closers = append(o.closers, f.Close)
	// Where the last daemon answered is nobody's now, until the next one serves.
	if err := os.Remove(filepath.Join(state, "address")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openStore opens the bucket. It asks an S3 server that the bucket is there and locks; what more the server promises,
// and keeps, is the doctor's to find out.
func (in *installation) openStore(ctx context.Context, c StoreConfig) (storage.Store, error) {
	if c.S3 != nil {
		return in.openS3(ctx, c.S3)
	}
	immutable, err := dir.ParseImmutable(c.Immutable)
	if err != nil {
		return nil, usagef("perenne.yaml: store.immutable: %v", err)
	}
	s, err := dir.Open(in.within(c.Dir), dir.Options{Immutable: immutable, Crash: crashPointOf()})
	if err != nil {
		return nil, usagef("perenne.yaml: store.dir: %v", err)
	}
	return planted(s), nil
}

func (in *installation) openS3(ctx context.Context, c *S3Config) (storage.Store, error) {
	host, secure, err := c.endpoint()
	if err != nil {
		return nil, usagef("perenne.yaml: store.s3.url: %v", err)
	}
	lock, err := s3.ParseLock(c.Lock)
	if err != nil {
		return nil, usagef("perenne.yaml: store.s3.lock: %v", err)
	}
	secret, err := readPrivate(in.within(c.SecretKeyFile))
	if err != nil {
		return nil, usagef("perenne.yaml: store.s3.secret_key_file: %v", err)
	}
	o := s3.Options{
		Endpoint: host, TLS: secure, Region: c.Region, Bucket: c.Bucket, Lock: lock, SSE: c.SSE, KMSKey: c.KMSKey,
		AccessKey: c.AccessKey, SecretKey: strings.TrimSpace(string(secret)), Now: time.Now, Transport: crashTransport(),
	}
	if c.CAFile != "" {
		text, err := os.ReadFile(in.within(c.CAFile))
		if err != nil {
			return nil, usagef("perenne.yaml: store.s3.ca_file: %v", err)
		}
		if o.Roots = x509.NewCertPool(); !o.Roots.AppendCertsFromPEM(text) {
			return nil, usagef("perenne.yaml: store.s3.ca_file: no certificate in it (PEM)")
		}
	}
	s, err := s3.Open(ctx, o)
	if errors.Is(err, s3.ErrAway) {
		return nil, laterf("perenne.yaml: store.s3: %v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("perenne.yaml: store.s3: %w", err)
	}
	return planted(s), nil
}

// openSpool puts the spool in front of a store that is not trusted.
func (o *opened) openSpool(ctx context.Context, in *installation, state string, log *slog.Logger, store storage.Store) (storage.Store, error) {
	c := in.config.Store
	folder := filepath.Join(state, "spool")
	if c.Spool.Dir != "" {
		folder = in.within(c.Spool.Dir)
	}
	if c.readBack() == 0 {
		held, err := spool.Left(folder)
		if err != nil {
			return nil, err
		}
		if held > 0 {
			return nil, usageIn("perenne.yaml: store.spool.read_back: %s custodisce ancora %d oggetti: lasciarlo acceso finché è vuoto (perenne status lo dice)", "perenne.yaml: store.spool.read_back: %s still holds %d objects: leave it on until it is empty (perenne status tells)", folder, held)
		}
		return store, nil
	}
	if err := in.localSpool(folder); err != nil {
		return nil, err
	}
	s, err := spool.Open(ctx, store, spool.Options{Dir: folder, ReadBack: c.readBack(), Quota: c.Spool.Quota, Now: time.Now, Log: log, Crash: crashPoint()})
	if err != nil {
		return nil, fmt.Errorf("perenne.yaml: store.spool: %w", err)
	}
	o.closers = append(o.closers, s.Close)
	return s.Store(), nil
}

// localSpool refuses a spool on a network file system: what it holds must be there when the store's machine is not.
func (in *installation) localSpool(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("perenne.yaml: store.spool: %w", err)
	}
	name, err := dir.OnNetwork(folder)
	if err != nil {
		return fmt.Errorf("perenne.yaml: store.spool: %w", err)
	}
	if name != "" {
		return usageIn("perenne.yaml: store.spool.dir: %s sta su %s: serve un disco di questa macchina", "perenne.yaml: store.spool.dir: %s lies on %s: a disk of this machine is needed", folder, name)
	}
	return nil
}

// doubtFile in the state says that an audit found the catalog wrong.
const doubtFile = "catalog-in-doubt"

func (o *opened) openCatalog(ctx context.Context, in *installation, state string, opt openOptions) error {
	root, doubt := filepath.Join(state, "catalog"), filepath.Join(state, doubtFile)
	if _, err := os.Stat(doubt); err == nil || opt.ForgetCatalog {
		if err := os.RemoveAll(root); err != nil {
			return fmt.Errorf("forget catalog: %w", err)
		}
		if err := os.Remove(doubt); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	var err error
	o.Catalog, err = catalog.Open(ctx, catalog.Options{Dir: root, Quota: in.config.Catalog.Quota, Memory: in.config.Catalog.Memory, Check: checkInChild, Now: time.Now})
	if err != nil {
		return fmt.Errorf("open catalog: %w", err)
	}
	o.closers = append(o.closers, o.Catalog.Close)
	if anew, why := o.Catalog.Rebuilt(); anew && why != "" {
		opt.Log.Info("catalog is made again from the bucket", slog.String("why", why))
	}
	return nil
}

// checkInChild looks through a catalog in a process of its own, since damaged files can kill the one that
// opens them.
func checkInChild(root string) error {
	self, err := exec.LookPath(os.Args[0])
	if err != nil {
		return catalog.Check(root)
	}
	cmd := exec.Command(self, "catalog-check", root)
	cmd.Env = append(os.Environ(), "GOTRACEBACK=none")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("check of the catalog: %w: %.200s", err, out)
	}
	return nil
}

// archiveConfig gathers what does not need secret keys, but the one that seals papers.
func (in *installation) archiveConfig(o *opened, state string, opt openOptions) (archive.Config, error) {
	producers, err := in.loadProducers()
	if err != nil {
		return archive.Config{}, err
	}
	cfg := archive.Config{
		Installation: in.config.Installation,
		Program:      pack.Application{Name: "Perenne", Version: version, Producer: "Perenne"},
		State:        state, Trust: o.Trust, Recovery: in.config.Recovery,
		CatalogInDoubt: func() error { return os.WriteFile(filepath.Join(state, doubtFile), nil, 0o644) },
		SealEvery:      in.config.sealEvery(), SealWait: orDefault(in.config.Seal.Wait, 2*time.Second),
		AuditTick: in.config.auditTick(), AuditBudget: in.config.Audit.Budget,
		LockHorizon: orDefault(in.config.Locks.Horizon, 400*24*time.Hour), TrustBucketHead: opt.TrustBucketHead,
		Now: time.Now, Rand: rand.Reader, Log: opt.Log, Crash: crashPoint(),
	}
	for _, p := range producers {
		nameKey, err := readSecret(in.path("keys", "names", p.Code), 32)
		if errors.Is(err, fs.ErrNotExist) && (in.config.ReadOnly || opt.ReadOnly) {
			nameKey, err = nil, nil
		}
		if err != nil {
			return cfg, fmt.Errorf("name key of %s: %w", p.Code, err)
		}
		served, err := p.served(nameKey)
		if err != nil {
			return cfg, err
		}
		cfg.Producers = append(cfg.Producers, served)
	}
	if cfg.Signer, err = in.sealer(); err != nil {
		return cfg, err
	}
	cfg.Published, err = in.published(cfg.Signer)
	return cfg, err
}

// sealer opens the conservatore's key.
func (in *installation) sealer() (signing.Signer, error) {
	password := ""
	if f := in.config.Seal.PasswordFile; f != "" {
		text, err := os.ReadFile(in.within(f))
		if err != nil {
			return nil, usagef("perenne.yaml: seal.password_file: %v", err)
		}
		password = strings.TrimRight(string(text), "\r\n")
		if key, err := os.ReadFile(in.within(in.config.Seal.Key)); err == nil && bytes.Contains(key, []byte("-----BEGIN")) {
			return nil, usagef("perenne.yaml: seal.password_file: seal.key is PEM, whose key has no password")
		}
	}
	key, chain, err := signing.LoadKey(in.within(in.config.Seal.Key), password)
	if err != nil {
		return nil, usagef("perenne.yaml: seal.key: %v", err)
	}
	if err := signing.ValidAt(chain, time.Now()); err != nil {
		return nil, usagef("perenne.yaml: seal.key: %v: get a new certificate", err)
	}
	return signing.NewSigner(key, chain)
}

// published is every public key and certificate in use: it lies in the bucket too, for whoever has nothing else.
func (in *installation) published(signer signing.Signer) ([][]byte, error) {
	var all [][]byte
	for _, c := range signer.Chain() {
		all = append(all, c.Raw)
	}
	for _, name := range []string{"seal-ca.pem", "tsa-ca.pem"} {
		text, err := os.ReadFile(in.path("trust", name))
		if err != nil {
			return nil, usagef("trust/%s: %v", name, err)
		}
		certs, err := signing.ParseCertificates(text)
		if err != nil {
			return nil, usagef("trust/%s: %v", name, err)
		}
		for _, c := range certs {
			all = append(all, c.Raw)
		}
	}
	text, err := os.ReadFile(in.path("trust", "ledger.vkey"))
	if err != nil {
		return nil, usagef("trust/ledger.vkey: %v", err)
	}
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			all = append(all, line)
		}
	}
	return all, nil
}

// openKeys adds the keys that write: of the ledgers, and the way to timestamps.
func (o *opened) openKeys(in *installation, cfg *archive.Config) error {
	cfg.LedgerSigner = func(producer string) (note.Signer, error) {
		signer, _, err := in.ledgerKeys(producer)
		if err != nil {
			return nil, err
		}
		return note.NewSigner(signer)
	}
	cfg.VerifierKey = func(producer string) (string, error) {
		_, verifier, err := in.ledgerKeys(producer)
		return verifier, err
	}
	cfg.Adoption = func(producer string) (*ledger.Entry, error) { return in.adoption(producer, cfg.Signer) }
	cfg.Adopted = in.adopted
	tsas, err := in.tsas()
	if err != nil {
		return err
	}
	options := signing.TimestamperOptions{Now: time.Now, Rand: rand.Reader}
	if in.config.TSA.Local {
		if tsas, options.Client, err = in.localTSA(); err != nil {
			return err
		}
	}
	cfg.Timestamper, err = signing.NewTimestamper(tsas, o.Trust.Certificates, options)
	return err
}

func (in *installation) tsas() ([]signing.TSA, error) {
	var all []signing.TSA
	for i, t := range in.config.TSA.Authorities {
		tsa := signing.TSA{URL: t.URL, User: t.User, Timeout: time.Duration(t.Timeout)}
		if t.PasswordFile != "" {
			text, err := os.ReadFile(in.within(t.PasswordFile))
			if err != nil {
				return nil, usagef("perenne.yaml: timestamps.authorities[%d].password_file: %v", i, err)
			}
			tsa.Password = strings.TrimRight(string(text), "\r\n")
		}
		all = append(all, tsa)
	}
	return all, nil
}

// localTSA is the installation's own timestamp authority: a real RFC 3161 service, asked with the requests and held to
// the checks of any other, so that nothing changes but the address when a qualified one takes over. It answers in
// this process, without a socket: a seal is what every receipt waits for.
func (in *installation) localTSA() ([]signing.TSA, *http.Client, error) {
	key, chain, err := signing.LoadKey(in.path("keys", "tsa.pem"), "")
	if err != nil {
		return nil, nil, usagef("keys/tsa.pem: %v", err)
	}
	responder, err := signing.NewResponder(key, chain, time.Now)
	if err != nil {
		return nil, nil, err
	}
	return []signing.TSA{{URL: "http://localhost/", Policy: signing.LocalPolicy(), Timeout: 10 * time.Second}}, &http.Client{Transport: responder}, nil
}

// adoptionFile holds the recovery key's signatures over new keys, by producer, until they stand in the ledgers.
const adoptionFile = "adoption.json"

// adoption is the entry that takes new keys into use after the old ones were lost: signed with the recovery
// key, whose public half stands in the first entry of each ledger. Nil when there is none to write.
func (in *installation) adoption(producer string, signer signing.Signer) (*ledger.Entry, error) {
	signatures, err := in.adoptions()
	signature, ok := signatures[producer]
	if err != nil || !ok {
		return nil, err
	}
	_, vkey, err := in.ledgerKeys(producer)
	if err != nil {
		return nil, err
	}
	return &ledger.Entry{Type: ledger.KeyAdded, VKey: vkey, Certificate: signing.Fingerprint(signer.Chain()[0]), Signature: signature}, nil
}

func (in *installation) adoptions() (map[string]string, error) {
	text, err := os.ReadFile(in.path("keys", adoptionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var signatures map[string]string
	if err := json.Unmarshal(text, &signatures); err != nil {
		return nil, usagef("keys/%s: %v", adoptionFile, err)
	}
	return signatures, nil
}

// adopted notes that the entry stands in a producer's ledger. A crash before it costs a second, equal entry.
func (in *installation) adopted(producer string) error {
	signatures, err := in.adoptions()
	if err != nil {
		return err
	}
	delete(signatures, producer)
	if len(signatures) == 0 {
		return os.Remove(in.path("keys", adoptionFile))
	}
	text, err := json.Marshal(signatures)
	if err != nil {
		return err
	}
	return writeFile(in.path("keys", adoptionFile), text, 0o600)
}

// holdAgainstExport refuses a bucket that is behind the marks that an export of the keys carried: it was rolled
// back, or is another one. The marks are older than the ledgers, so they are no marks to go on from.
func (o *opened) holdAgainstExport(ctx context.Context, store storage.Store, state string) error {
	path := filepath.Join(state, exportedHeads)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	heads, err := ledger.OpenHeads(path)
	if err != nil {
		return err
	}
	for code, head := range heads.All() {
		if head.Number < 0 {
			continue
		}
		key := ledger.Key(code, head.Number)
		r, err := store.Get(ctx, key, "", 0, -1)
		if errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("the bucket lacks %s, which was there when the keys were exported: it was rolled back, or is another one", key)
		}
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		if [32]byte(h.Sum(nil)) != head.Commit {
			return fmt.Errorf("%s in the bucket is not the commit that was there when the keys were exported", key)
		}
	}
	return nil
}

// noteSignerKey spells a signer key as golang.org/x/mod/sumdb/note reads it.
func noteSignerKey(name, hash string, seed []byte) string {
	const ed25519Key = 1
	return "PRIVATE+KEY+" + name + "+" + hash + "+" + base64.StdEncoding.EncodeToString(append([]byte{ed25519Key}, seed...))
}

func parseVerifiers(text []byte) (note.Verifiers, error) { return ledger.ParseVerifiers(text) }

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
