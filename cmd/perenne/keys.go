package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/signing"
)

func keysCommand() *cli.Command {
	passphrase := &cli.StringFlag{Name: "passphrase-file", Usage: "FILE with the passphrase; else it is read from standard input"}
	return command(&cli.Command{
		Name: "keys", Usage: "carry the keys of an installation to a safe place and back",
		Subcommands: []*cli.Command{
			command(&cli.Command{
				Name: "export", Usage: "write configuration and keys, encrypted with a passphrase, to one file",
				Flags:  []cli.Flag{dirFlag(), langFlag(), passphrase, &cli.StringFlag{Name: "out", Usage: "FILE to write (age format)"}},
				Action: exportKeys,
			}, `perenne keys export --dir p --out keys.age --passphrase-file pass.txt`),
			command(&cli.Command{
				Name: "import", Usage: "make an installation again from an export", ArgsUsage: "FILE",
				Flags:  append([]cli.Flag{dirFlag(), langFlag(), passphrase, &cli.StringFlag{Name: "store", Usage: "folder of the embedded store, when it is not where it was"}}, s3Flags()...),
				Action: importKeys,
			}, `perenne keys import --dir p --store /srv/bucket keys.age
perenne serve --dir p --trust-bucket-head`),
			command(&cli.Command{
				Name: "adopt", Usage: "go on with new keys after the old ones were lost, by the recovery key",
				Flags:  []cli.Flag{dirFlag(), langFlag(), &cli.StringFlag{Name: "recovery", Usage: "FILE with the recovery key that init made"}},
				Action: adoptKeys,
			}, `perenne rebuild --dir p --from /srv/bucket
perenne keys adopt --dir p --recovery recovery.key`),
		},
	}, "perenne keys export --help")
}

// exported are the parts of an installation that an export carries: everything but what the bucket gives.
var exported = []string{"producers", "keys", "trust", "perenne.yaml"}

// exportedHeads stands in an export for the marks of the ledgers at that time: a bucket that is behind them when
// the export is imported was rolled back, or is another one.
const exportedHeads = "heads.exported"

func exportKeys(c *cli.Context) error {
	in, err := here(c)
	if err != nil {
		return err
	}
	if err := in.allInside(); err != nil {
		return err
	}
	pass, err := readPassphrase(c, true)
	if err != nil {
		return err
	}
	recipient, err := age.NewScryptRecipient(pass)
	if err != nil {
		return usagef("passphrase: %v", err)
	}
	var out bytes.Buffer
	enc, err := age.Encrypt(&out, recipient)
	if err != nil {
		return err
	}
	n, err := in.writeTar(enc)
	if err := errors.Join(err, enc.Close()); err != nil {
		return err
	}
	if c.String("out") == "" {
		return usagef("--out FILE is needed")
	}
	if info, err := os.Lstat(c.String("out")); err == nil && !info.Mode().IsRegular() {
		return usageIn("--out %s non è un file", "--out %s is no file", c.String("out"))
	}
	if err := writeFile(c.String("out"), out.Bytes(), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, lang(c).T("%d file cifrati in %s: portarlo via da questa macchina, e la passphrase altrove\n",
		"%d files encrypted in %s: take it away from this machine, and the passphrase elsewhere\n"), n, c.String("out"))
	return nil
}

func (in *installation) writeTar(w io.Writer) (int, error) {
	t := tar.NewWriter(w)
	n := 0
	for _, part := range exported {
		err := filepath.WalkDir(in.path(part), func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(in.root, name)
			if err != nil {
				return err
			}
			n++
			if err := t.WriteHeader(&tar.Header{Name: filepath.ToSlash(rel), Mode: 0o600, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
				return err
			}
			_, err = t.Write(text)
			return err
		})
		if err != nil {
			return n, err
		}
	}
	heads, err := os.ReadFile(in.path("state", "heads"))
	if err == nil {
		n++
		err = errors.Join(t.WriteHeader(&tar.Header{Name: exportedHeads, Mode: 0o600, Size: int64(len(heads)), Typeflag: tar.TypeReg}), write(t, heads))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return n, err
	}
	return n, t.Close()
}

func write(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

// allInside refuses to export while the configuration names secrets elsewhere, which an export would not carry.
func (in *installation) allInside() error {
	files := map[string]string{"seal.key": in.config.Seal.Key, "seal.password_file": in.config.Seal.PasswordFile, "tls.key": in.config.TLS.Key, "tls.cert": in.config.TLS.Cert}
	if b := in.config.Store.S3; b != nil {
		files["store.s3.secret_key_file"], files["store.s3.ca_file"] = b.SecretKeyFile, b.CAFile
	}
	for i, t := range in.config.TSA.Authorities {
		files[fmt.Sprintf("timestamps.authorities[%d].password_file", i)] = t.PasswordFile
	}
	for key, file := range files {
		if file == "" {
			continue
		}
		rel, err := filepath.Rel(in.root, in.within(file))
		if part, _, _ := strings.Cut(filepath.ToSlash(rel), "/"); err != nil || !slices.Contains(exported, part) {
			return usagef("perenne.yaml: %s: %s lies outside keys/ and would be left behind: move it there first", key, file)
		}
	}
	return nil
}

// maxExport bounds what an export may unpack to.
const maxExport = 64 << 20

func importKeys(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("want one file, made by perenne keys export")
	}
	root, err := filepath.Abs(c.String("dir"))
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(root); err == nil && len(entries) > 0 {
		return usagef("%s exists and is not empty", root)
	}
	f, err := os.Open(c.Args().First())
	if err != nil {
		return usagef("%v", err)
	}
	defer func() { _ = f.Close() }()
	pass, err := readPassphrase(c, false)
	if err != nil {
		return err
	}
	identity, err := age.NewScryptIdentity(pass)
	if err != nil {
		return usagef("passphrase: %v", err)
	}
	plain, err := age.Decrypt(f, identity)
	if err != nil {
		return usagef("%s: %v", c.Args().First(), err)
	}
	elsewhere, secrets, err := storeFromFlags(c, c.String("store"))
	if err != nil {
		return err
	}
	in, err := unpackInstallation(c.Context, root, io.LimitReader(plain, maxExport), elsewhere, secrets)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, lang(c).T("installazione %s ripresa in %s; questa macchina non ha il segno dei giornali: la prima volta\n  perenne serve --dir %s --trust-bucket-head\n",
		"installation %s is back in %s; this machine has no mark of the ledgers: the first time\n  perenne serve --dir %s --trust-bucket-head\n"), in.config.Installation, root, quote(c.String("dir")))
	return nil
}

// unpackInstallation makes an installation of an export, perenne.yaml last: a folder without it is none. The bucket is
// where the export says unless elsewhere says otherwise.
func unpackInstallation(
	ctx context.Context, root string, r io.Reader, elsewhere *StoreConfig, secrets bucketSecrets,
) (in *installation, err error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, usagef("%v", err)
	}
	building, err := os.MkdirTemp(root, ".import-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(building)) }()
	if err := unpackKeys(building, r); err != nil {
		return nil, err
	}
	if in, err = findInstallation(building); err != nil {
		return nil, err
	}
	if elsewhere != nil {
		in.config.Store = *elsewhere
		if err := secrets.lay(in.root); err != nil {
			return nil, err
		}
		if err := writeYAML(in.path("perenne.yaml"), in.config); err != nil {
			return nil, err
		}
	}
	if err := in.findBucket(ctx, root); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(root, "state"), 0o755); err != nil {
		return nil, err
	}
	if err := os.Rename(in.path(exportedHeads), filepath.Join(root, "state", exportedHeads)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, part := range exported {
		if err := os.Rename(in.path(part), filepath.Join(root, part)); err != nil {
			return nil, err
		}
	}
	in.root = root
	return in, nil
}

// findBucket refuses a place that holds no bucket of this archive. A relative folder begins at root.
func (in *installation) findBucket(ctx context.Context, root string) error {
	if in.config.Store.S3 == nil {
		bucket := in.config.Store.Dir
		if !filepath.IsAbs(bucket) {
			bucket = filepath.Join(root, bucket)
		}
		if info, err := os.Stat(filepath.Join(bucket, "keys")); err != nil || !info.IsDir() {
			return usagef("%s holds no bucket of this archive: say where it is with --store FOLDER", bucket)
		}
		return nil
	}
	store, err := in.openStore(ctx, in.config.Store)
	if err != nil {
		return err
	}
	for _, err := range store.List(ctx, "keys/", "") {
		return err
	}
	return usagef("%s holds no bucket of this archive: say where it is with --s3-url, --s3-bucket …", in.storeName())
}

// unpackKeys writes the files of an export, whose names must be of the parts exported.
func unpackKeys(root string, r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return usagef("the export is damaged: %v", err)
		}
		part, _, _ := strings.Cut(h.Name, "/")
		if h.Typeflag != tar.TypeReg || path.Clean(h.Name) != h.Name || !filepath.IsLocal(h.Name) || !slices.Contains(exported, part) && h.Name != exportedHeads {
			return usagef("the export holds %q, which is no part of an installation", h.Name)
		}
		text, err := io.ReadAll(t)
		if err != nil {
			return usagef("the export is damaged: %v", err)
		}
		name := filepath.Join(root, filepath.FromSlash(h.Name))
		dirMode, fileMode := os.FileMode(0o755), os.FileMode(0o644)
		if part == "keys" {
			dirMode, fileMode = 0o700, 0o600
		}
		if err := os.MkdirAll(filepath.Dir(name), dirMode); err != nil {
			return err
		}
		if err := writeFile(name, text, fileMode); err != nil {
			return err
		}
	}
}

// readPassphrase reads a passphrase of at least twelve characters: from a file, or from the terminal without
// showing it, twice where a mistake would lock everything away.
func readPassphrase(c *cli.Context, twice bool) (string, error) {
	if f := c.String("passphrase-file"); f != "" {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", usagef("--passphrase-file: %v", err)
		}
		return checkPassphrase(strings.TrimRight(string(text), "\r\n"))
	}
	in := bufio.NewReader(os.Stdin)
	first, err := askHidden(c, in, "passphrase: ")
	if err != nil {
		return "", err
	}
	if twice {
		again, err := askHidden(c, in, lang(c).T("di nuovo: ", "once more: "))
		if err != nil {
			return "", err
		}
		if again != first {
			return "", usagef("the two passphrases differ")
		}
	}
	return checkPassphrase(first)
}

func checkPassphrase(pass string) (string, error) {
	if len([]rune(pass)) < 12 {
		return "", usagef("the passphrase must have at least 12 characters")
	}
	return pass, nil
}

// askHidden reads a line; on a terminal it is not shown. Ctrl-C ends it.
func askHidden(c *cli.Context, in *bufio.Reader, prompt string) (string, error) {
	fmt.Fprint(c.App.ErrWriter, prompt)
	fd := int(os.Stdin.Fd())
	if show, err := hide(fd); err == nil {
		defer func() {
			show()
			fmt.Fprintln(c.App.ErrWriter)
		}()
	}
	type answer struct {
		text string
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		text, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		read <- answer{strings.TrimRight(text, "\r\n"), err}
	}()
	select {
	case a := <-read:
		return a.text, a.err
	case <-c.Context.Done():
		return "", c.Context.Err()
	}
}

// adoptKeys makes new working keys for a read-only archive. The recovery key signs them; its public half
// stands in the first entry of each ledger, so that everybody can see that they were taken over rightfully.
func adoptKeys(c *cli.Context) error {
	in, err := here(c)
	if err != nil {
		return err
	}
	if !in.config.ReadOnly {
		return usagef("this installation has its keys; adopt is for one that perenne rebuild --from made of a bucket alone")
	}
	seed, err := readSecret(c.String("recovery"), ed25519.SeedSize)
	if err != nil {
		return usagef("--recovery FILE: %v", err)
	}
	recovery := ed25519.NewKeyFromSeed(seed)
	if got := hex.EncodeToString(recovery.Public().(ed25519.PublicKey)); got != in.config.Recovery {
		return usagef("%s is not the recovery key of this archive: the ledgers name %s", c.String("recovery"), in.config.Recovery)
	}
	signer, err := in.sealer()
	if err != nil {
		return err
	}
	producers, err := in.loadProducers()
	if err != nil {
		return err
	}
	for _, p := range producers {
		if err := p.check(p.Code+".yaml", false); err != nil {
			return fmt.Errorf("%w: complete the file first, new packages carry it", err)
		}
	}
	signatures := map[string]string{}
	for _, p := range producers {
		if err := in.newNameKey(p.Code); err != nil {
			return err
		}
		_, vkey, err := in.ledgerKeys(p.Code)
		if err != nil {
			return err
		}
		if err := appendFile(in.path("trust", "ledger.vkey"), []byte(vkey+"\n")); err != nil {
			return err
		}
		text := archive.AdoptionText(in.config.Installation+"/"+p.Code, vkey, signing.Fingerprint(signer.Chain()[0]))
		signatures[p.Code] = signAdoption(recovery, text)
	}
	text, err := json.Marshal(signatures)
	if err != nil {
		return err
	}
	if err := writeFile(in.path("keys", "adoption.json"), text, 0o600); err != nil {
		return err
	}
	// The catalog knows keys by their HMAC under the name key, which is a new one.
	if err := os.RemoveAll(in.path("state", "catalog")); err != nil {
		return err
	}
	in.config.ReadOnly = false
	if err := writeYAML(in.path("perenne.yaml"), in.config); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, lang(c).T("chiavi nuove adottate per %d enti; ora\n  perenne serve --dir %s --trust-bucket-head\n",
		"new keys adopted for %d bodies; then\n  perenne serve --dir %s --trust-bucket-head\n"), len(producers), quote(c.String("dir")))
	return nil
}

// newNameKey makes a name key where there is none.
func (in *installation) newNameKey(code string) error {
	name := in.path("keys", "names", code)
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	return writeFile(name, []byte(hex.EncodeToString(key[:])+"\n"), 0o600)
}

// signAdoption signs with the recovery key.
func signAdoption(recovery ed25519.PrivateKey, text []byte) string {
	return base64.StdEncoding.EncodeToString(ed25519.Sign(recovery, text))
}
