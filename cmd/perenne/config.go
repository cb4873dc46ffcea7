package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/marchesud/perenne/archive/web"
)

// Config is perenne.yaml, the one configuration file of an installation; beside it stands one file for each
// producer (Producer). Relative paths begin at the installation's folder. Unknown keys are refused, and so is
// anything that would have to be guessed.
type Config struct {
	// Installation names this archive for ever: every ledger's origin is <installation>/<producer>, in every
	// paper ever issued. Lower-case letters, digits, dots and hyphens. Set by init.
	Installation string `yaml:"installation"`
	// Recovery is the public half (hex) of the offline recovery key that init made.
	Recovery string `yaml:"recovery"`
	// ReadOnly serves what the bucket holds and accepts nothing: an archive whose keys were lost.
	ReadOnly bool `yaml:"read_only,omitempty"`

	// Listen is the address of the HTTP interface. Without tls it must be a loopback address.
	Listen string `yaml:"listen"`
	// TLS is {cert: FILE, key: FILE}, read again when the files change; or the word proxy, when a proxy on
	// this host or a trusted network ends TLS.
	TLS TLS `yaml:"tls,omitempty"`
	// TrustedProxies are the networks whose X-Forwarded-For is believed; with tls: proxy nobody else is let in, this
	// machine apart.
	TrustedProxies []string `yaml:"trusted_proxies,omitempty"`
	// Metrics is the address of the Prometheus listener, a loopback or private one; empty for none.
	Metrics string `yaml:"metrics,omitempty"`
	// PrivateLedgers asks for a token under /ledger too. The ledgers hold no personal data and are served to
	// everybody by default, so that monitors and witnesses can follow them.
	PrivateLedgers bool `yaml:"private_ledgers,omitempty"`
	// MaxUploads bounds the submissions received at once; 0 means 64.
	MaxUploads int `yaml:"max_uploads,omitempty"`

	// Store says where the bucket is.
	Store StoreConfig `yaml:"store"`
	// Seal says who seals packages and papers, and how often the ledgers are timestamped.
	Seal SealConfig `yaml:"seal"`
	// TSA says who gives timestamps.
	TSA TSAConfig `yaml:"timestamps"`
	// Audit paces the scheduled reading again.
	Audit AuditConfig `yaml:"audit,omitempty"`
	// Catalog bounds the search catalog.
	Catalog CatalogConfig `yaml:"catalog,omitempty"`
	// Locks says how far ahead objects are locked.
	Locks LockConfig `yaml:"locks,omitempty"`
}

// SealConfig says who seals packages and papers, and how often the ledgers are timestamped.
type SealConfig struct {
	// Key is the file with the conservatore's key and certificates: PEM or PKCS #12, readable by its owner only.
	Key string `yaml:"key"`
	// PasswordFile holds the password of a PKCS #12 file.
	PasswordFile string `yaml:"password_file,omitempty"`
	// Every is the interval between seals. 0s, the default with the local TSA, seals at once; with an external
	// one the default is 60s.
	Every *Duration `yaml:"every,omitempty"`
	// Wait is how long a receipt waits for its seal when Every is 0s; default 2s.
	Wait Duration `yaml:"wait,omitempty"`
}

// TSAConfig says who gives timestamps.
type TSAConfig struct {
	// Local runs a timestamp authority of this installation, on loopback. Its tokens are not qualified, and
	// every paper says so. Used alone, never as a fallback.
	Local bool `yaml:"local,omitempty"`
	// Authorities are RFC 3161 services, asked in order until one gives a token that passes every check.
	Authorities []TSAEntry `yaml:"authorities,omitempty"`
}

// TSAEntry is one timestamp authority. Its root certificate must stand in trust/tsa-ca.pem.
type TSAEntry struct {
	// URL of the service, http or https.
	URL string `yaml:"url"`
	// User for HTTP basic authentication, over https or to this machine only.
	User string `yaml:"user,omitempty"`
	// PasswordFile holds the user's password.
	PasswordFile string `yaml:"password_file,omitempty"`
	// Timeout bounds one exchange; default 15s.
	Timeout Duration `yaml:"timeout,omitempty"`
}

// AuditConfig paces the scheduled reading again of everything kept. How often each package is read is the
// policy's (audit.every).
type AuditConfig struct {
	// Tick is how often the scheduler looks for what is due; default 1h, "off" is 0s.
	Tick *Duration `yaml:"tick,omitempty"`
	// Budget bounds the bytes read in one tick; 0 means no bound.
	Budget int64 `yaml:"budget,omitempty"`
}

// CatalogConfig bounds the search catalog, which is a cache under state/.
type CatalogConfig struct {
	// Quota is the most bytes its files may take; 0 means no bound but a nearly full disk.
	Quota int64 `yaml:"quota,omitempty"`
	// Memory bounds its caches, in bytes; 0 means 64 MiB.
	Memory int64 `yaml:"memory,omitempty"`
}

// LockConfig says how far ahead objects are locked, on stores that keep dates.
type LockConfig struct {
	// Horizon defaults to 400 days.
	Horizon Duration `yaml:"horizon,omitempty"`
}

// Duration is a time.Duration written like 30s, 2h or 400d.
type Duration time.Duration

// UnmarshalYAML reads a duration; days are 24 hours.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	text := n.Value
	if days, ok := strings.CutSuffix(text, "d"); ok {
		text = days + "h"
		v, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("line %d: %q is no duration such as 30s, 2h or 400d", n.Line, n.Value)
		}
		*d = Duration(24 * v)
		return nil
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("line %d: %q is no duration such as 30s, 2h or 400d", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes it as Go does.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// TLS is either the word proxy or a pair of files.
type TLS struct {
	// Proxy: a proxy in front ends TLS.
	Proxy bool
	// Cert is the file with the certificate chain, PEM.
	Cert string
	// Key is the file with its key, PEM.
	Key string
}

// IsZero reports that no TLS is configured.
func (t TLS) IsZero() bool { return t == TLS{} }

// UnmarshalYAML reads "proxy" or {cert, key}.
func (t *TLS) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		if n.Value != "proxy" {
			return fmt.Errorf("line %d: tls: want proxy or {cert: FILE, key: FILE}", n.Line)
		}
		t.Proxy = true
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: tls: want proxy or {cert: FILE, key: FILE}", n.Line)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i].Value, n.Content[i+1].Value
		to := map[string]*string{"cert": &t.Cert, "key": &t.Key}[k]
		if to == nil {
			return fmt.Errorf("line %d: tls: unknown key %s", n.Content[i].Line, k)
		}
		if *to != "" {
			return fmt.Errorf("line %d: tls: %s stands twice", n.Content[i].Line, k)
		}
		*to = v
	}
	if t.Cert == "" || t.Key == "" {
		return fmt.Errorf("line %d: tls: both cert and key are needed", n.Line)
	}
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (t TLS) MarshalYAML() (any, error) {
	if t.Proxy {
		return "proxy", nil
	}
	return map[string]string{"cert": t.Cert, "key": t.Key}, nil
}

var validInstallation = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,98}[a-z0-9])?$`)

// loadYAML reads one YAML document strictly.
func loadYAML(path string, to any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(to); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one document", filepath.Base(path))
	}
	return nil
}

// check refuses a configuration that would have to be guessed at, naming the key.
func (c *Config) check() error {
	bad := func(key, why string) error { return usagef("perenne.yaml: %s: %s", key, why) }
	if !validInstallation.MatchString(c.Installation) {
		return bad("installation", "lower-case letters, digits, dots and hyphens, at most 100")
	}
	if b, err := hex.DecodeString(c.Recovery); err != nil || len(b) != 32 {
		return bad("recovery", "the public recovery key that init wrote, 64 hex digits")
	}
	if err := c.Store.check(bad); err != nil {
		return err
	}
	for _, n := range []struct {
		key      string
		negative bool
	}{
		{"max_uploads", c.MaxUploads < 0},
		{"audit.budget", c.Audit.Budget < 0},
		{"catalog.quota", c.Catalog.Quota < 0},
		{"catalog.memory", c.Catalog.Memory < 0},
		{"audit.tick", c.Audit.Tick != nil && *c.Audit.Tick < 0},
		{"seal.every", c.Seal.Every != nil && *c.Seal.Every < 0},
		{"seal.wait", c.Seal.Wait < 0},
		{"locks.horizon", c.Locks.Horizon < 0},
	} {
		if n.negative {
			return bad(n.key, "must not be negative")
		}
	}
	if c.Seal.Key == "" {
		return bad("seal.key", "the file of the conservatore's key is missing")
	}
	if c.TSA.Local == (len(c.TSA.Authorities) > 0) {
		return bad("timestamps", "either local: true or a list of authorities")
	}
	for i, t := range c.TSA.Authorities {
		key := fmt.Sprintf("timestamps.authorities[%d]", i)
		if u, err := url.Parse(t.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return bad(key+".url", "want the http or https address of an RFC 3161 service")
		}
		if t.Timeout < 0 {
			return bad(key+".timeout", "must not be negative")
		}
	}
	return c.checkListen(bad)
}

// checkListen lets nothing but loopback be served without TLS.
func (c *Config) checkListen(bad func(key, why string) error) error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return bad("listen", "want HOST:PORT")
	}
	ip, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && ip.IsLoopback()
	if c.TLS.IsZero() && !loopback {
		return bad("listen", "without tls only a loopback address is served; set tls: {cert, key}, or tls: proxy")
	}
	if c.TLS.Proxy && !loopback && len(c.TrustedProxies) == 0 {
		return bad("trusted_proxies", "tls: proxy on an address that is not loopback needs the networks of the proxies")
	}
	for i, p := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(p); err != nil {
			return bad(fmt.Sprintf("trusted_proxies[%d]", i), "want a network such as 10.0.0.0/24")
		}
	}
	if c.Metrics != "" {
		host, _, err := net.SplitHostPort(c.Metrics)
		if err != nil {
			return bad("metrics", "want HOST:PORT")
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback() && !ip.IsPrivate()) {
			return bad("metrics", "want a loopback or private address: metrics have no token")
		}
	}
	return nil
}

// sealEvery is the interval between seals.
func (c *Config) sealEvery() time.Duration {
	if c.Seal.Every != nil {
		return time.Duration(*c.Seal.Every)
	}
	if c.TSA.Local {
		return 0
	}
	return time.Minute
}

func orDefault(d Duration, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return time.Duration(d)
}

func (c *Config) auditTick() time.Duration {
	if c.Audit.Tick != nil {
		return time.Duration(*c.Audit.Tick)
	}
	return time.Hour
}

func (c *Config) proxies() []netip.Prefix {
	var ps []netip.Prefix
	for _, t := range c.TrustedProxies {
		if p, err := netip.ParsePrefix(t); err == nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// roles are what a token may do.
var validRoles = map[web.Role]bool{web.Submit: true, web.Read: true, web.Audit: true, web.Admin: true}
