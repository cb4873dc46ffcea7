package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchesud/perenne/signing"
)

// testInstallation makes an installation with one producer; vary changes its configuration.
func testInstallation(t *testing.T, vary func(*Config)) *installation {
	t.Helper()
	in, err := makeInstallation(filepath.Join(t.TempDir(), "p"), Config{
		Installation: "prova.perenne", Listen: "127.0.0.1:0", Store: StoreConfig{Dir: "store", Immutable: "off"},
	}, bucketSecrets{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	deed := Deed{Text: "Atto n. 1"}
	_, err = in.addProducer(Producer{
		Code: "c_x901", Name: "Comune di Montesole", TaxCode: "00000000000", Manual: Deed{Text: "Manuale"},
		Responsible: Person{FirstName: "Persona", LastName: "Inventata", TaxCode: "NVNPSN80A01X901A", Appointment: deed, From: "2026-01-01"},
		Conservator: Body{Name: "Comune di Montesole", TaxCode: "00000000000", Appointment: deed, From: "2026-01-01"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if vary != nil {
		vary(&in.config)
	}
	if err := in.config.check(); err != nil {
		t.Fatal(err)
	}
	return in
}

// serving runs the daemon for the length of a test and returns its address.
func serving(t *testing.T, in *installation) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- in.serve(ctx, openOptions{Log: slog.New(slog.DiscardHandler)}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("serve: %v", err)
		default:
		}
		if address, err := os.ReadFile(in.path("state", "address")); err == nil {
			return strings.TrimSpace(string(address))
		}
	}
	t.Fatal("the daemon does not come up")
	return ""
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestMetricsHaveAListenerOfTheirOwn(t *testing.T) {
	metrics := freeAddress(t)
	in := testInstallation(t, func(c *Config) { c.Metrics = metrics })
	base := serving(t, in)
	if code, body := fetch(t, http.DefaultClient, "http://"+metrics+"/metrics"); code != 200 || !strings.Contains(body, "perenne_ledger_entries") {
		t.Errorf("metrics: %d %.200s", code, body)
	}
	if code, _ := fetch(t, http.DefaultClient, base+"/metrics"); code != 404 {
		t.Errorf("metrics on the public listener: %d, want 404", code)
	}
}

func fetch(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// pair writes a certificate for 127.0.0.1 issued by a throw-away authority and returns the authority.
func pair(t *testing.T, dir string, n int) *x509.Certificate {
	t.Helper()
	cert, key, ca, err := loopbackPair(n)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := writeFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca
}

func TestTLSCertificateIsReadAgainWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	first := pair(t, dir, 1)
	in := testInstallation(t, func(c *Config) {
		c.TLS = TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	})
	base := serving(t, in)
	if !strings.HasPrefix(base, "https://") {
		t.Fatalf("address %s, want https", base)
	}
	trusting := func(ca *x509.Certificate) *http.Client {
		pool := x509.NewCertPool()
		pool.AddCert(ca)
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	}
	if code, _ := fetch(t, trusting(first), base+"/healthz"); code != 200 {
		t.Errorf("healthz over TLS: %d", code)
	}
	// Commands on the same machine go by the loopback address and know the daemon by its certificate.
	s, err := in.sessionFor("it")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.find(t.Context()); err != nil {
		t.Errorf("a command on the same machine: %v", err)
	}
	time.Sleep(20 * time.Millisecond) // file times have a resolution
	second := pair(t, dir, 2)
	if code, _ := fetch(t, trusting(second), base+"/healthz"); code != 200 {
		t.Errorf("healthz with the new certificate: %d", code)
	}
	if _, err := trusting(first).Get(base + "/healthz"); err == nil {
		t.Error("the old certificate is still served")
	}
	// Half replaced: the pair in force stays.
	if err := writeFile(filepath.Join(dir, "cert.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _ := fetch(t, trusting(second), base+"/healthz"); code != 200 {
		t.Errorf("healthz while the files do not fit: %d", code)
	}
}

// s3Store is a good configuration of a bucket, varied.
func s3Store(vary func(*S3Config)) StoreConfig {
	b := &S3Config{URL: "https://s3.example.it", Bucket: "perenne", AccessKey: "k", SecretKeyFile: "keys/s3.secret"}
	vary(b)
	return StoreConfig{S3: b}
}

func TestConfigurationNamesTheKeyAndTheReason(t *testing.T) {
	good := testInstallation(t, nil).config
	for name, c := range map[string]struct {
		vary func(*Config)
		want string
	}{
		"installation": {func(c *Config) { c.Installation = "Prova Perenne" }, "installation"},
		"recovery":     {func(c *Config) { c.Recovery = "" }, "recovery"},
		"store":        {func(c *Config) { c.Store.Dir = "" }, "store.dir"},
		"immutable":    {func(c *Config) { c.Store.Immutable = "maybe" }, "store.immutable"},
		"two stores":   {func(c *Config) { c.Store.S3 = &S3Config{} }, "store.s3"},
		"S3 url":       {func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.URL = "s3.example.it" }) }, "store.s3.url"},
		"S3 in clear":  {func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.URL = "http://s3.example.it" }) }, "store.s3.url"},
		"S3 path":      {func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.URL += "/bucket" }) }, "store.s3.url"},
		"S3 bucket":    {func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.Bucket = "" }) }, "store.s3.bucket"},
		"S3 key":       {func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.AccessKey = "" }) }, "store.s3.access_key"},
		"S3 secret":    {func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.SecretKeyFile = "" }) }, "store.s3.secret_key_file"},
		"S3 lock":      {func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.Lock = "none" }) }, "store.s3.lock"},
		"S3 sse":       {func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.SSE = "aes" }) }, "store.s3.sse"},
		"S3 kms":       {func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.SSE = "kms" }) }, "store.s3.kms_key"},
		"seal":         {func(c *Config) { c.Seal.Key = "" }, "seal.key"},
		"no TSA":       {func(c *Config) { c.TSA = TSAConfig{} }, "timestamps"},
		"two TSAs":     {func(c *Config) { c.TSA.Authorities = []TSAEntry{{URL: "http://x"}} }, "timestamps"},
		"TSA url":      {func(c *Config) { c.TSA = TSAConfig{Authorities: []TSAEntry{{}}} }, "timestamps.authorities[0].url"},
		"TSA scheme":   {func(c *Config) { c.TSA = TSAConfig{Authorities: []TSAEntry{{URL: "ftp:x"}}} }, "timestamps.authorities[0].url"},
		"TSA timeout": {func(c *Config) {
			c.TSA = TSAConfig{Authorities: []TSAEntry{{URL: "https://tsa.example/", Timeout: -1}}}
		}, "timestamps.authorities[0].timeout"},
		"listen":       {func(c *Config) { c.Listen = "8420" }, "listen"},
		"public":       {func(c *Config) { c.Listen = "0.0.0.0:8420" }, "listen"},
		"proxy":        {func(c *Config) { c.Listen, c.TLS.Proxy = "0.0.0.0:8420", true }, "trusted_proxies"},
		"proxies":      {func(c *Config) { c.TrustedProxies = []string{"10.0.0.1"} }, "trusted_proxies[0]"},
		"metrics":      {func(c *Config) { c.Metrics = "here" }, "metrics"},
		"open metrics": {func(c *Config) { c.Metrics = "0.0.0.0:9420" }, "metrics"},
	} {
		cfg := good
		c.vary(&cfg)
		err := cfg.check()
		if exitCode(err) != exitUsage || !strings.Contains(fmt.Sprint(err), "perenne.yaml: "+c.want+":") {
			t.Errorf("%s: got %v, want a usage error that names %s", name, err, c.want)
		}
	}
	for name, vary := range map[string]func(*Config){
		"S3":             func(c *Config) { c.Store = s3Store(func(*S3Config) {}) },
		"S3 by loopback": func(c *Config) { c.Store = s3Store(func(b *S3Config) { b.URL = "http://127.0.0.1:9000" }) },
		"proxy": func(c *Config) {
			c.Listen, c.TLS.Proxy, c.TrustedProxies = "0.0.0.0:8420", true, []string{"10.0.0.0/24"}
		},
		"tls": func(c *Config) { c.Listen, c.TLS = "0.0.0.0:8420", TLS{Cert: "c", Key: "k"} },
	} {
		cfg := good
		vary(&cfg)
		if err := cfg.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTLSIsNotGuessed(t *testing.T) {
	in := testInstallation(t, nil)
	plain, err := os.ReadFile(in.path("perenne.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tls := range []string{"{cert: a, cert: b, key: k}", "[cert, a, key, k]", "maybe", "{cert: a}", "{cert: a, key: k, ca: c}"} {
		if err := os.WriteFile(in.path("perenne.yaml"), append(plain, "tls: "+tls+"\n"...), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := findInstallation(in.root); exitCode(err) != exitUsage || !strings.Contains(err.Error(), "tls") {
			t.Errorf("tls: %s: got %v, want a usage error that names tls", tls, err)
		}
	}
}

func TestConfigurationFileIsReadAsItIsWritten(t *testing.T) {
	every, tick := Duration(90*time.Second), Duration(24*time.Hour)
	in := testInstallation(t, func(c *Config) {
		c.Seal.Every, c.Audit.Tick, c.Locks.Horizon = &every, &tick, Duration(400*24*time.Hour)
		c.TLS, c.TrustedProxies, c.Listen = TLS{Proxy: true}, []string{"10.0.0.0/24"}, "10.0.0.5:8420"
	})
	if err := writeYAML(in.path("perenne.yaml"), in.config); err != nil {
		t.Fatal(err)
	}
	again, err := findInstallation(in.root)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v %v %v", again.config.TLS, *again.config.Seal.Every, again.config.Locks) != fmt.Sprintf("%+v %v %v", in.config.TLS, every, in.config.Locks) {
		t.Errorf("read %+v, wrote %+v", again.config, in.config)
	}
}

func TestSealKeyFromPKCS12(t *testing.T) {
	in := testInstallation(t, nil)
	key, chain, err := signing.LoadKey(in.path("keys", "seal.pem"), "")
	if err != nil {
		t.Fatal(err)
	}
	p12, err := encodePKCS12(key, chain, "segreto di prova")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"seal.p12": p12, "seal.password": []byte("segreto di prova\n")} {
		if err := writeFile(in.path("keys", name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in.config.Seal = SealConfig{Key: "keys/seal.p12", PasswordFile: "keys/seal.password"}
	signer, err := in.sealer()
	if err != nil {
		t.Fatal(err)
	}
	if signing.Fingerprint(signer.Chain()[0]) != signing.Fingerprint(chain[0]) {
		t.Error("another certificate came out of the PKCS #12 file")
	}
	in.config.Seal.PasswordFile = "keys/nowhere"
	if _, err := in.sealer(); exitCode(err) != exitUsage {
		t.Errorf("without its password: got %v, want a usage error", err)
	}
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// TestWhatAKilledProcessLeftIsRemoved leaves a file that was being written when its process was killed.
func TestWhatAKilledProcessLeftIsRemoved(t *testing.T) {
	in := testInstallation(t, nil)
	left := in.path("state", ".new-123")
	if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o755), os.WriteFile(left, []byte("http"), 0o600)); err != nil {
		t.Fatal(err)
	}
	o, err := in.open(t.Context(), openOptions{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want it gone", err)
	}
}
