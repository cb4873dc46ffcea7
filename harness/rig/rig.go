// Package rig sets up what a harness hurts, and judges what is left: the real daemon as a child process, built with
// its crash points; an installation that the real perenne init has made, on the embedded store or on a real S3; a
// bounded load of small real submissions over real HTTP; and, afterwards, the verdict.
//
// # The verdict
//
// A client believes what it was answered, and nothing else. [Book] holds every submission that left, and the receipt
// of those that were acknowledged. What holds after any death, in this order:
//
//   - everything that was acknowledged is given again, with an equal body and an equal proof, and verifies offline;
//   - what was sent and not answered is sent again, and now answered;
//   - a retry of what was acknowledged gives the same receipt;
//   - each key is there once, and nothing is there that was not sent;
//   - the audit finds no damage, and nothing at all but notices of what a death may leave;
//   - the catalog equals one made from scratch out of the bucket;
//   - nothing is left half-done on the disk.
//
// # Seeds
//
// What a harness chooses it chooses from a seed that it prints. The interleaving of processes is not chosen: a
// seed repeats what was attempted, not always what came of it.
package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// Store says where an installation keeps its bucket.
type Store struct {
	// Kind names it in results: "dir", or a kind of server.
	Kind string
	// Flags are what perenne init is given to put it there; none is the embedded store in the installation's folder.
	Flags []string
}

// Dir is the embedded store, without the immutable flag, so that it can be damaged and thrown away.
func Dir() Store { return Store{Kind: "dir", Flags: []string{"--immutable", "off"}} }

// S3 is a new bucket of a server.
func S3(ctx context.Context, server *s3test.Server) (Store, error) {
	bucket, err := server.NewBucket(ctx)
	if err != nil {
		return Store{}, err
	}
	secret := filepath.Join(server.Dir, "secret")
	return Store{Kind: server.Kind, Flags: []string{
		"--s3-url", "http://" + server.Endpoint, "--s3-bucket", bucket,
		"--s3-access-key", server.AccessKey, "--s3-secret-file", secret,
	}}, os.WriteFile(secret, []byte(server.SecretKey+"\n"), 0o600)
}

// Options describe an installation to be made.
type Options struct {
	Program string // the daemon, as Build gives it
	Root    string // the folder to make
	Store   Store
	// Producers is how many bodies there are; 0 means 2.
	Producers int
	// StartTime bounds how long its daemon may take until it serves; 0 means a minute.
	StartTime time.Duration
	// Config are keys of perenne.yaml to set, by their dotted path: "seal.every": "1s".
	Config map[string]any
}

// Producer is a body, with the token of its document system.
type Producer struct{ Code, Token string }

// Installation is an installation on disk. Its daemon may run or not.
type Installation struct {
	Options
	Bodies []Producer
	Admin  string // the token of the command line: everything, for every producer
	Trust  paper.Trust
}

var tokenForm = regexp.MustCompile(`prn_[0-9a-f]{64}`)

// New makes an installation with the program's own commands.
func New(ctx context.Context, o Options) (*Installation, error) {
	if o.Producers == 0 {
		o.Producers = 2
	}
	in := &Installation{Options: o}
	for i := range o.Producers {
		code := fmt.Sprintf("c_x%03d", 901+i)
		args := []string{"producer", "add"}
		if i == 0 {
			args = append([]string{"init", "--installation", "prova.perenne", "--listen", "127.0.0.1:0"}, o.Store.Flags...)
		}
		args = append(args, "--dir", o.Root, "--producer", code, "--name", "Comune di Prova "+code, "--tax-code", fmt.Sprintf("%011d", 901+i),
			"--responsible", "Persona Inventata", "--responsible-tax-code", "NVNPSN80A01X901A",
			"--appointment", "Atto di prova n. 1", "--appointed", "2026-01-01", "--manual", "Manuale di prova, versione 1.0")
		out, err := exec.CommandContext(ctx, o.Program, args...).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("perenne %s: %w: %s", args[0], err, out)
		}
		token := tokenForm.FindString(string(out))
		if token == "" {
			return nil, fmt.Errorf("perenne %s shows no token: %s", args[0], out)
		}
		in.Bodies = append(in.Bodies, Producer{code, token})
	}
	if err := in.configure(); err != nil {
		return nil, err
	}
	return in, in.load()
}

// Path is a path in the installation.
func (in *Installation) Path(parts ...string) string {
	return filepath.Join(append([]string{in.Root}, parts...)...)
}

// configure sets the keys that were asked for.
func (in *Installation) configure() error {
	keys := map[string]any{"audit.tick": "0s"}
	maps.Copy(keys, in.Config)
	return in.Set(keys)
}

// Set sets keys of perenne.yaml by their dotted path. A daemon that runs does not see it.
func (in *Installation) Set(keys map[string]any) error {
	text, err := os.ReadFile(in.Path("perenne.yaml"))
	if err != nil {
		return err
	}
	var all map[string]any
	if err := yaml.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("perenne.yaml: %w", err)
	}
	for path, value := range keys {
		at := all
		parts := strings.Split(path, ".")
		for _, p := range parts[:len(parts)-1] {
			next, ok := at[p].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[p] = next
			}
			at = next
		}
		at[parts[len(parts)-1]] = value
	}
	if text, err = yaml.Marshal(all); err != nil {
		return err
	}
	return os.WriteFile(in.Path("perenne.yaml"), text, 0o600)
}

// load reads what a client and a verifier of the installation need.
func (in *Installation) load() error {
	token, err := os.ReadFile(in.Path("keys", "cli.token"))
	if err != nil {
		return err
	}
	in.Admin = strings.TrimSpace(string(token))
	seals, err1 := os.ReadFile(in.Path("trust", "seal-ca.pem"))
	times, err2 := os.ReadFile(in.Path("trust", "tsa-ca.pem"))
	vkeys, err3 := os.ReadFile(in.Path("trust", "ledger.vkey"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	sealCA, err1 := signing.ParseCertificates(seals)
	timeCA, err2 := signing.ParseCertificates(times)
	in.Trust.Certificates = signing.NewTrust(sealCA, timeCA)
	in.Trust.Ledgers, err3 = ledger.ParseVerifiers(vkeys)
	return errors.Join(err1, err2, err3)
}

// Copy copies the installation, which must not run, to another folder: with its state and its embedded store, or
// without them. A copy without is what a second machine has: the keys, and nothing else.
func (in *Installation) Copy(ctx context.Context, root string, withState bool) (*Installation, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	parts := []string{"keys", "trust", "producers", "perenne.yaml"}
	if withState {
		parts = append(parts, "state")
		if in.Store.Kind == "dir" {
			parts = append(parts, "store")
		}
	}
	args := []string{"-a", "--reflink=auto"}
	for _, p := range parts {
		args = append(args, in.Path(p))
	}
	if out, err := exec.CommandContext(ctx, "cp", append(args, root)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the installation: %w: %s", err, out)
	}
	c := *in
	c.Root = root
	return &c, os.MkdirAll(c.Path("state"), 0o755)
}

// Command runs one command of the program on the installation and returns what it printed.
func (in *Installation) Command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, in.Program, append(args[:1:1], append([]string{"--dir", in.Root}, args[1:]...)...)...)
	cmd.Env = append(os.Environ(), "PERENNE_LANG=en")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("perenne %s: %w: %s", args[0], err, out)
	}
	return string(out), err
}
