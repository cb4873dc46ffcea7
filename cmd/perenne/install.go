package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/signing"
)

// An installation is a folder:
//
//	perenne.yaml        Config
//	producers/          one file for each producer
//	keys/               what must never be lost and never be seen: 0700
//	  seal.pem          the conservatore's key (local one) and its certificate
//	  tsa.pem           the key of the local timestamp authority
//	  ledger.key        the key that signs the ledgers' checkpoints
//	  names/<code>      the name key of each producer
//	  cli.token         the token of the commands on this machine
//	  s3.secret         the secret key of the bucket, when it is on S3
//	offline/            the recovery key, to be taken away at once and deleted here
//	trust/              what a verifier needs, to be given to anybody
//	  seal-ca.pem  tsa-ca.pem  ledger.vkey
//	store/              the bucket (embedded store)
//	state/              marks, derived indexes, catalog: the marks are worth keeping, the rest is a cache
type installation struct {
	root   string
	config Config
}

func (in *installation) path(parts ...string) string {
	return filepath.Join(append([]string{in.root}, parts...)...)
}

// within resolves a path of the configuration.
func (in *installation) within(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return in.path(path)
}

// findInstallation loads the configuration in a folder.
func findInstallation(root string) (*installation, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	in := &installation{root: root}
	err = loadYAML(in.path("perenne.yaml"), &in.config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("%s is no installation: there is no perenne.yaml in it; make one with perenne init --dir", root)
	}
	if err != nil {
		return nil, usagef("%v", err)
	}
	return in, in.config.check()
}

func initCommand() *cli.Command {
	return command(&cli.Command{
		Name: "init", Usage: "make an installation with its first producer",
		Flags: slices.Concat([]cli.Flag{
			dirFlag(), langFlag(),
			&cli.StringFlag{Name: "installation", Usage: "name of the archive for ever, in every paper; default <producer>.perenne"},
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:8420", Usage: "address of the HTTP interface", EnvVars: []string{"PERENNE_LISTEN"}},
			&cli.StringFlag{Name: "immutable", Value: "auto", Usage: "immutable flag on stored objects: auto, on, off", EnvVars: []string{"PERENNE_IMMUTABLE"}},
		}, s3Flags(), producerFlags()),
		Action: func(c *cli.Context) error {
			l := lang(c)
			p, err := producerFromFlags(c)
			if err != nil {
				return err
			}
			store := StoreConfig{Dir: "store", Immutable: c.String("immutable")}
			bucket, secrets, err := s3FromFlags(c)
			if err != nil {
				return err
			}
			if bucket != nil {
				store = StoreConfig{S3: bucket}
			}
			in, err := makeInstallation(c.String("dir"), Config{
				Installation: firstOf(c.String("installation"), strings.ReplaceAll(p.Code, "_", "-")+".perenne"),
				Listen:       c.String("listen"), Store: store,
			}, secrets, time.Now())
			if err != nil {
				return err
			}
			token, err := in.addProducer(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, l.T(initDoneIT, initDoneEN), in.root, in.config.Installation, p.Code, token, quote(in.path("offline", "recovery.key")), quote(c.String("dir")))
			return nil
		},
	}, `perenne init --dir p --producer c_x901 --name "Comune di Montesole" --tax-code 00000000000 \
    --responsible "Nome Cognome" --responsible-tax-code RSSMRA80A01H501U \
    --appointment "Decreto del Sindaco n. 1 del 2 gennaio 2026" --appointed 2026-01-02 \
    --manual "Manuale di conservazione, versione 1.0"
perenne init --dir p --s3-url https://s3.example.it --s3-bucket perenne --s3-access-key perenne --s3-secret-file s3.secret …`)
}

const initDoneIT = `Installazione %[2]s creata in %[1]s.

  token del sistema documentale di %[3]s (mostrato solo ora):
    %[4]s

Da portare via da questa macchina, adesso:
  %[5]s   la chiave di recupero: in cassaforte, poi cancellarla da qui
  perenne keys export --dir %[6]s --out chiavi.age           tutte le altre chiavi, cifrate
Senza le chiavi i documenti restano leggibili e verificabili, ma l'archivio non può continuare.

Ora:  perenne serve --dir %[6]s
`

const initDoneEN = `Installation %[2]s made in %[1]s.

  token of the document system of %[3]s (shown this once):
    %[4]s

To be taken away from this machine, now:
  %[5]s   the recovery key: into a safe, then delete it here
  perenne keys export --dir %[6]s --out keys.age             all other keys, encrypted
Without keys the documents can still be read and verified, but the archive cannot go on.

Next:  perenne serve --dir %[6]s
`

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// makeInstallation makes keys, trust and configuration in a folder that must be new or empty (it may be a mount
// point). The parts are made aside and moved in, perenne.yaml last: a folder without it is no installation.
func makeInstallation(root string, cfg Config, secrets bucketSecrets, now time.Time) (in *installation, err error) {
	root, err = filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	// Documents, search data and keys are below: nobody but the owner gets in.
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, usagef("%v", err)
	}
	if err := os.Chmod(root, 0o700); err != nil {
		return nil, usagef("%v", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return nil, usagef("%s exists and is not empty", root)
		}
	}
	building, err := os.MkdirTemp(root, ".init-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(building)) }()
	in = &installation{root: building, config: cfg}
	if err := in.makeKeys(now); err != nil {
		return nil, err
	}
	if err := secrets.lay(in.root); err != nil {
		return nil, err
	}
	if err := in.config.check(); err != nil {
		return nil, err
	}
	if err := writeYAML(in.path("perenne.yaml"), in.config); err != nil {
		return nil, err
	}
	for _, part := range []string{"keys", "offline", "trust", "producers", "state", "store", "perenne.yaml"} {
		if part == "store" && in.config.Store.Dir == "" {
			continue
		}
		if err := os.Rename(in.path(part), filepath.Join(root, part)); err != nil {
			return nil, err
		}
	}
	in.root = root
	return in, nil
}

// makeKeys makes the keys of a new installation and what others need to verify with.
func (in *installation) makeKeys(now time.Time) error {
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{"keys", 0o700}, {"keys/names", 0o700}, {"offline", 0o700}, {"trust", 0o755}, {"producers", 0o755}, {"state", 0o755}, {"store", 0o755}} {
		if err := os.MkdirAll(in.path(d.name), d.mode); err != nil {
			return err
		}
	}
	if in.config.Recovery == "" { // an archive made of a bucket keeps the recovery key that its ledgers name
		recovery, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		in.config.Recovery = hex.EncodeToString(recovery)
		if err := writeFile(in.path("offline", "recovery.key"), []byte(hex.EncodeToString(private.Seed())+"\n"), 0o600); err != nil {
			return err
		}
	}
	if err := in.makeWorkingKeys(now); err != nil {
		return err
	}
	token, err := newToken()
	if err != nil {
		return err
	}
	return writeFile(in.path("keys", "cli.token"), []byte(token+"\n"), 0o600)
}

// makeWorkingKeys makes the keys that sign every day: of seals, timestamps and ledgers.
func (in *installation) makeWorkingKeys(now time.Time) error {
	in.config.Seal.Key, in.config.TSA.Local = "keys/seal.pem", true
	for _, a := range []struct {
		kind       signing.CAKind
		leaf       string
		key, trust string
	}{
		{signing.SealCA, "Sigillo " + in.config.Installation, "seal.pem", "seal-ca.pem"},
		{signing.TSACA, "Marca temporale " + in.config.Installation, "tsa.pem", "tsa-ca.pem"},
	} {
		ca, err := signing.NewLocalCA(in.config.Installation, a.kind, now, rand.Reader)
		if err != nil {
			return err
		}
		key, cert, err := ca.Issue(a.leaf, now)
		if err != nil {
			return err
		}
		text, err := signing.MarshalPEM(key, []certificate{cert})
		if err != nil {
			return err
		}
		if err := writeFile(in.path("keys", a.key), text, 0o600); err != nil {
			return err
		}
		if err := appendFile(in.path("trust", a.trust), signing.MarshalCertificates([]certificate{ca.Certificate()})); err != nil {
			return err
		}
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	return writeFile(in.path("keys", "ledger.key"), []byte(hex.EncodeToString(private.Seed())+"\n"), 0o600)
}

// appendFile adds to a file of trust, where old anchors stay beside new ones.
func appendFile(path string, data []byte) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if strings.Contains(string(old), string(data)) {
		return nil
	}
	return writeFile(path, append(old, data...), 0o644)
}

// ledgerKeys are the two halves of the key under a producer's origin, as signed notes name keys.
func (in *installation) ledgerKeys(producer string) (signer, verifier string, err error) {
	seed, err := readSecret(in.path("keys", "ledger.key"), ed25519.SeedSize)
	if err != nil {
		return "", "", err
	}
	name := in.config.Installation + "/" + producer
	private := ed25519.NewKeyFromSeed(seed)
	if verifier, err = note.NewEd25519VerifierKey(name, private.Public().(ed25519.PublicKey)); err != nil {
		return "", "", err
	}
	// A signer key is PRIVATE+KEY+<name>+<hash>+<base64 of 0x01 and the seed>; the hash is the verifier's.
	hash := strings.Split(verifier, "+")[1]
	return noteSignerKey(name, hash, seed), verifier, nil
}

// readPrivate reads a file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, usagef("%s can be read by others: chmod 600 %s", path, path)
	}
	return os.ReadFile(path)
}

// readSecret reads a key of n bytes in hex, from a file that only its owner may read.
func readSecret(path string, n int) ([]byte, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != n {
		return nil, usagef("%s does not hold a key of %d bytes in hex", path, n)
	}
	return b, nil
}

func newToken() (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return "prn_" + hex.EncodeToString(b[:]), nil
}

func producerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "producer", Usage: "IPA code, lower case"},
		&cli.StringFlag{Name: "name", Usage: "denomination"},
		&cli.StringFlag{Name: "tax-code", Usage: "codice fiscale of the body"},
		&cli.StringFlag{Name: "responsible", Usage: `responsabile della conservazione, "First Last"`},
		&cli.StringFlag{Name: "responsible-tax-code", Usage: "codice fiscale of the responsabile"},
		&cli.StringFlag{Name: "appointment", Usage: "deed of appointment of the responsabile"},
		&cli.StringFlag{Name: "appointed", Usage: "first day of the appointment, YYYY-MM-DD"},
		&cli.StringFlag{Name: "conservator", Usage: "conservatore; default the body itself"},
		&cli.StringFlag{Name: "conservator-tax-code", Usage: "codice fiscale of the conservatore; default the body's"},
		&cli.StringFlag{Name: "conservator-appointment", Usage: "deed or contract of the conservatore; default the deed of the responsabile"},
		&cli.StringFlag{Name: "manual", Usage: "title and version of the manuale di conservazione"},
	}
}

// producerFromFlags collects a producer and names every flag that is missing, at once.
func producerFromFlags(c *cli.Context) (Producer, error) {
	var missing []string
	need := func(flag string) string {
		v := strings.TrimSpace(c.String(flag))
		if v == "" {
			missing = append(missing, "--"+flag)
		}
		return v
	}
	first, last, _ := strings.Cut(need("responsible"), " ")
	appointment, from := Deed{Text: need("appointment")}, need("appointed")
	p := Producer{
		Code: need("producer"), Name: need("name"), TaxCode: need("tax-code"), Policy: "comune",
		Responsible: Person{FirstName: first, LastName: last, TaxCode: need("responsible-tax-code"), Appointment: appointment, From: from},
		Manual:      Deed{Text: need("manual")},
	}
	p.Conservator = Body{
		Name: firstOf(c.String("conservator"), p.Name), TaxCode: firstOf(c.String("conservator-tax-code"), p.TaxCode),
		Appointment: Deed{Text: firstOf(c.String("conservator-appointment"), appointment.Text)}, From: from,
	}
	if len(missing) > 0 {
		return p, usagef("missing: %s (they go into the index of every package; see perenne init --help)", strings.Join(missing, ", "))
	}
	return p, p.check(p.Code+".yaml", false)
}

// addProducer makes the name key, the verifier key and the file of a producer, and a token for its document
// system, which it returns.
func (in *installation) addProducer(p Producer) (token string, err error) {
	release, err := in.lockProducers()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	file := in.path("producers", p.Code+".yaml")
	if _, err := os.Stat(file); err == nil {
		return "", usagef("producer %s is here already", p.Code)
	}
	var name [32]byte
	if _, err := rand.Read(name[:]); err != nil {
		return "", err
	}
	if err := writeFile(in.path("keys", "names", p.Code), []byte(hex.EncodeToString(name[:])+"\n"), 0o600); err != nil {
		return "", err
	}
	_, verifier, err := in.ledgerKeys(p.Code)
	if err != nil {
		return "", err
	}
	if err := appendFile(in.path("trust", "ledger.vkey"), []byte(verifier+"\n")); err != nil {
		return "", err
	}
	if token, err = newToken(); err != nil {
		return "", err
	}
	p.Tokens = []Token{{Name: "gestione-documentale", Roles: []web.Role{web.Submit, web.Read}, SHA256: hashToken(token)}}
	return token, writeYAML(file, p)
}

func producerCommand() *cli.Command {
	return command(&cli.Command{
		Name: "producer", Usage: "add a body to an installation",
		Subcommands: []*cli.Command{command(&cli.Command{
			Name: "add", Usage: "add a body; takes effect when the daemon is started again",
			Flags: append([]cli.Flag{dirFlag(), langFlag()}, producerFlags()...),
			Action: func(c *cli.Context) error {
				in, err := here(c)
				if err != nil {
					return err
				}
				p, err := producerFromFlags(c)
				if err != nil {
					return err
				}
				token, err := in.addProducer(p)
				if err != nil {
					return err
				}
				fmt.Fprintf(c.App.Writer, lang(c).T("%s aggiunto; token del suo sistema documentale (mostrato solo ora):\n  %s\nriavviare il daemon\n",
					"%s added; token of its document system (shown this once):\n  %s\nstart the daemon again\n"), p.Code, token)
				return nil
			},
		}, `perenne producer add --dir p --producer ucolli_x902 --name "Unione dei Colli" …`)},
	}, "perenne producer add --help")
}

// trustOf loads a folder of trust. A file that is missing is no error here: what needs it cannot be told.
func trustOf(root string) (paper.Trust, error) {
	var t paper.Trust
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return t, usagef("%s is no folder of trust: it holds seal-ca.pem, tsa-ca.pem and ledger.vkey", root)
	}
	var anchors [2][]certificate
	for i, name := range []string{"seal-ca.pem", "tsa-ca.pem"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return t, err
		}
		if anchors[i], err = signing.ParseCertificates(text); err != nil {
			return t, usagef("%s: %v", filepath.Join(root, name), err)
		}
	}
	t.Certificates = signing.NewTrust(anchors[0], anchors[1])
	text, err := os.ReadFile(filepath.Join(root, "ledger.vkey"))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	t.Ledgers, err = parseVerifiers(text)
	if err != nil {
		return t, usagef("%s: %v", filepath.Join(root, "ledger.vkey"), err)
	}
	return t, nil
}
