package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/marchesud/perenne/archive/web"
)

func serveCommand() *cli.Command {
	return command(&cli.Command{
		Name: "serve", Usage: "run the daemon until it is told to stop",
		Flags: []cli.Flag{
			dirFlag(), langFlag(),
			&cli.BoolFlag{Name: "trust-bucket-head", Usage: "once, on a new machine: take the ledgers in the bucket as they are; it becomes an entry"},
			&cli.StringFlag{Name: "log", Value: "info", Usage: "debug, info, warn or error"},
		},
		Action: func(c *cli.Context) error {
			in, err := here(c)
			if err != nil {
				return err
			}
			var level slog.Level
			if err := level.UnmarshalText([]byte(c.String("log"))); err != nil {
				return usagef("--log: debug, info, warn or error")
			}
			log := slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level}))
			return in.serve(c.Context, openOptions{Log: log, TrustBucketHead: c.Bool("trust-bucket-head")})
		},
	}, `perenne serve --dir p
perenne serve --dir p --trust-bucket-head   # after state/ was lost`)
}

// reachable is the address at which commands on this machine find a listener, which may listen on all of them.
func reachable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.To4() == nil {
			host = "localhost"
		}
	}
	return net.JoinHostPort(host, port)
}

// stopTime is how long requests under way may take to end after the daemon was told to stop.
const stopTime = 20 * time.Second

// serve runs until ctx ends, then stops in order: no new requests, those under way end, a last seal, close.
func (in *installation) serve(ctx context.Context, opt openOptions) (err error) {
	defer spare()()
	opt.Examine = !in.config.ReadOnly // which writes nothing
	o, err := in.open(ctx, opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	server := web.NewServer(web.Config{
		Archive: o.Archive, Tokens: in.tokens(opt.Log), Log: opt.Log, Now: time.Now,
		TrustedProxies: in.config.proxies(), ProxyOnly: in.config.TLS.Proxy, MaxUploads: in.config.MaxUploads, Public: !in.config.PrivateLedgers,
	})
	listener, err := in.listen()
	if err != nil {
		return err
	}
	main := server.HTTP()
	g, ctx := errgroup.WithContext(ctx)
	serveUntil(ctx, g, main, listener, server.Drain)
	if in.config.Metrics != "" {
		if err := in.serveMetrics(ctx, g, o, server); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	scheme := "http"
	if in.config.TLS.Cert != "" {
		scheme = "https"
	}
	address := scheme + "://" + reachable(listener.Addr())
	if err := writeFile(in.path("state", "address"), []byte(address+"\n"), 0o644); err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { _ = os.Remove(in.path("state", "address")) }()
	opt.Log.Info("serving", slog.String("address", address), slog.String("installation", in.config.Installation), slog.Int("producers", len(o.Archive.Producers())))
	return g.Wait()
}

// serveUntil serves and, when ctx ends, drains (is ready for nothing new) and lets requests under way end.
func serveUntil(ctx context.Context, g *errgroup.Group, srv *http.Server, l net.Listener, drain func()) {
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		drain()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			return errors.Join(fmt.Errorf("stop: %w", err), srv.Close())
		}
		return nil
	})
}

// listen opens the address, with TLS where it is configured.
func (in *installation) listen() (net.Listener, error) {
	l, err := listenOn("listen", in.config.Listen)
	if err != nil {
		return nil, err
	}
	if in.config.TLS.Cert == "" {
		return l, nil
	}
	pair := &certificatePair{cert: in.within(in.config.TLS.Cert), key: in.within(in.config.TLS.Key)}
	if _, err := pair.get(nil); err != nil {
		return nil, errors.Join(usagef("perenne.yaml: tls: %v", err), l.Close())
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.get, NextProtos: []string{"h2", "http/1.1"}}), nil
}

// listenOn listens; an address in use may be free in a moment, anything else is the configuration's.
func listenOn(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, laterf("perenne.yaml: %s: %v", key, err)
	}
	if err != nil {
		return nil, usagef("perenne.yaml: %s: %v", key, err)
	}
	return l, nil
}

// certificatePair reads certificate and key again when their files change.
type certificatePair struct {
	cert, key string

	mu     sync.Mutex
	seen   [2]time.Time
	loaded *tls.Certificate
}

func (p *certificatePair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var now [2]time.Time
	for i, f := range []string{p.cert, p.key} {
		info, err := os.Stat(f)
		if err != nil {
			return p.kept(err)
		}
		now[i] = info.ModTime()
	}
	if p.loaded != nil && now == p.seen {
		return p.loaded, nil
	}
	c, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return p.kept(err) // half replaced: go on with the old pair until both fit
	}
	p.loaded, p.seen = &c, now
	return p.loaded, nil
}

func (p *certificatePair) kept(err error) (*tls.Certificate, error) {
	if p.loaded != nil {
		return p.loaded, nil
	}
	return nil, err
}

// serveMetrics serves Prometheus metrics on a listener of their own.
func (in *installation) serveMetrics(ctx context.Context, g *errgroup.Group, o *opened, server *web.Server) error {
	reg := prometheus.NewRegistry()
	for _, c := range append(o.Archive.Metrics(), server.Metrics()...) {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	l, err := listenOn("metrics", in.config.Metrics)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	serveUntil(ctx, g, &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}, l, func() {})
	return nil
}

// tokens gives the tokens in force; the producers' files are read again when one of them changes, so that a
// token can be made and withdrawn without stopping.
func (in *installation) tokens(log *slog.Logger) func() []web.Token {
	var mu sync.Mutex
	var last string
	var current []web.Token
	return func() []web.Token {
		mu.Lock()
		defer mu.Unlock()
		state := in.tokenFilesState()
		if state == last && current != nil {
			return current
		}
		next, err := in.loadTokens()
		if err != nil {
			log.Error("tokens not read again: the old ones stay in force", slog.Any("err", err))
			last = state
			return current
		}
		current, last = next, state
		return current
	}
}

// tokenFilesState changes when a producer's file does.
func (in *installation) tokenFilesState() string {
	entries, err := os.ReadDir(in.path("producers"))
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", e.Name(), info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

func (in *installation) loadTokens() ([]web.Token, error) {
	text, err := os.ReadFile(in.path("keys", "cli.token"))
	if err != nil {
		return nil, err
	}
	all := []web.Token{{
		Name: "cli", Producer: "*", Roles: []web.Role{web.Admin},
		SHA256: sha256.Sum256([]byte(strings.TrimSpace(string(text)))),
	}}
	producers, err := in.loadProducers()
	if err != nil {
		return nil, err
	}
	for _, p := range producers {
		for _, t := range p.Tokens {
			sum, err := hex.DecodeString(t.SHA256)
			if err != nil || len(sum) != 32 {
				continue // refused by check
			}
			tok := web.Token{Name: p.Code + "/" + t.Name, Producer: p.Code, Roles: t.Roles, SHA256: [32]byte(sum)}
			if t.Expires != "" {
				tok.Expires = day(t.Expires).AddDate(0, 0, 1) // to the end of that day
			}
			all = append(all, tok)
		}
	}
	return all, nil
}

// catalogCheckCommand is what the daemon runs in a child process before it opens a catalog it has doubts about.
func catalogCheckCommand() *cli.Command {
	return &cli.Command{
		Name: "catalog-check", Hidden: true, ArgsUsage: "FOLDER",
		Action: func(c *cli.Context) error { return checkCatalog(c.Args().First()) },
	}
}
