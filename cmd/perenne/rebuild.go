package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
	"github.com/marchesud/perenne/storage/dir"
)

func rebuildCommand() *cli.Command {
	return command(&cli.Command{
		Name: "rebuild", Usage: "make the catalog again from the bucket, or an archive from a bucket alone",
		Flags: []cli.Flag{
			dirFlag(), langFlag(),
			&cli.StringFlag{Name: "from", Usage: "FOLDER of an embedded store whose machine and keys are lost: makes a read-only archive in --dir"},
			&cli.BoolFlag{Name: "trust-bucket-head", Usage: "take the ledgers as they are where this machine has no mark of them"},
		},
		Action: func(c *cli.Context) error {
			if from := c.String("from"); from != "" {
				if err := archiveFromBucket(c.Context, c.String("dir"), from); err != nil {
					return err
				}
			}
			return rebuild(c)
		},
	}, `perenne rebuild --dir p
perenne rebuild --dir q --from /srv/bucket --trust-bucket-head`)
}

// rebuild makes the catalog again and proves that it is complete: each ledger's root, computed from what was
// read, is the one that was signed (ledger.Open does not open otherwise), and the catalog has every package.
func rebuild(c *cli.Context) error {
	in, err := findInstallation(c.String("dir"))
	if err != nil {
		return err
	}
	start := time.Now()
	log := slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o, err := in.open(c.Context, openOptions{Log: log, ReadOnly: true, ForgetCatalog: true, TrustBucketHead: c.Bool("trust-bucket-head") || in.config.ReadOnly})
	if err != nil {
		return err
	}
	l := lang(c)
	stopped := false
	for _, p := range o.Archive.Status(c.Context).Producers {
		if p.Stopped != "" {
			fmt.Fprintf(c.App.Writer, l.T("%s  FERMO: %s\n", "%s  STANDS STILL: %s\n"), p.Code, p.Stopped)
			stopped = true
			continue
		}
		fmt.Fprintf(c.App.Writer, l.T("%s  %d pacchetti da %d righe di giornale in %d commit; radice ricalcolata uguale a quella firmata\n",
			"%s  %d packages from %d ledger entries in %d commits; root recomputed equals the one signed\n"), p.Code, p.Packages, p.Entries, p.Commits)
	}
	if err := errors.Join(o.Catalog.Wait(c.Context), o.Close()); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, l.T("catalogo rifatto in %s\n", "catalog made again in %s\n"), time.Since(start).Round(time.Millisecond))
	if stopped {
		return exitWith(exitUnknown)
	}
	return nil
}

// archiveFromBucket makes a read-only installation of a bucket whose machine and keys are gone: what the
// ledgers need to be verified with lies under keys/, who the bodies are stands in their packages. Its own
// papers are sealed by a new local key.
func archiveFromBucket(ctx context.Context, root, bucket string) error {
	bucket, err := filepath.Abs(bucket)
	if err != nil {
		return err
	}
	if info, err := os.Stat(bucket); err != nil || !info.IsDir() {
		return usagef("--from %s is no folder", bucket)
	}
	store, err := dir.Open(bucket, dir.Options{Immutable: dir.Off})
	if err != nil {
		return err
	}
	found, err := readKeys(ctx, store)
	if err != nil {
		return err
	}
	if len(found.vkeys) == 0 {
		return usagef("%s holds no verifier key under keys/: it is no bucket of Perenne, or was emptied", bucket)
	}
	installation, producers := found.origins()
	recovery, err := firstRecovery(ctx, store, producers[0], found)
	if err != nil {
		return err
	}
	in, err := makeInstallation(root, Config{Installation: installation, Listen: "127.0.0.1:8420", Store: StoreConfig{Dir: bucket, Immutable: "off"}}, time.Now())
	if err != nil {
		return err
	}
	in.config.ReadOnly, in.config.Recovery = true, recovery
	if err := os.RemoveAll(in.path("offline")); err != nil { // the recovery key is the old one
		return err
	}
	if err := in.trustFound(found); err != nil {
		return err
	}
	for _, code := range producers {
		p, err := describeProducer(ctx, store, code)
		if err != nil {
			return err
		}
		if err := writeYAML(in.path("producers", code+".yaml"), p); err != nil {
			return err
		}
	}
	return writeYAML(in.path("perenne.yaml"), in.config)
}

// bucketKeys is what lies under keys/.
type bucketKeys struct {
	anchors []*x509.Certificate // self-signed: what was trusted when they were put there
	vkeys   []string
}

func readKeys(ctx context.Context, store storage.Store) (bucketKeys, error) {
	var k bucketKeys
	for v, err := range store.List(ctx, "keys/", "") {
		if err != nil {
			return k, err
		}
		r, err := store.Get(ctx, v.Key, "", 0, 1<<20)
		if err != nil {
			return k, err
		}
		text, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return k, err
		}
		if _, err := note.NewVerifier(string(text)); err == nil {
			k.vkeys = append(k.vkeys, string(text))
		} else if c, err := x509.ParseCertificate(text); err == nil && bytes.Equal(c.RawIssuer, c.RawSubject) {
			k.anchors = append(k.anchors, c)
		}
	}
	return k, nil
}

// origins reads the names of the verifier keys: <installation>/<producer>.
func (k bucketKeys) origins() (installation string, producers []string) {
	seen := map[string]bool{}
	for _, v := range k.vkeys {
		name, _, _ := strings.Cut(v, "+")
		i, p, _ := strings.Cut(name, "/")
		installation = i
		if !seen[p] {
			seen[p] = true
			producers = append(producers, p)
		}
	}
	sort.Strings(producers)
	return installation, producers
}

// firstRecovery is the public recovery key in the first entry of a ledger.
func firstRecovery(ctx context.Context, store storage.Store, producer string, k bucketKeys) (string, error) {
	verifiers, err := ledger.ParseVerifiers([]byte(strings.Join(k.vkeys, "\n") + "\n"))
	if err != nil {
		return "", err
	}
	for c, err := range ledger.Walk(ctx, store, producer, verifiers, 0, 0) {
		if err != nil {
			return "", fmt.Errorf("first commit of %s: %w", producer, err)
		}
		return c.Entries[0].Recovery, nil
	}
	return "", fmt.Errorf("the ledger of %s has no first commit", producer)
}

// trustFound adds what the bucket says to trust beside the keys just made.
func (in *installation) trustFound(k bucketKeys) error {
	for _, c := range k.anchors {
		file := "seal-ca.pem"
		if strings.Contains(c.Subject.CommonName, signing.TSACA.String()) {
			file = "tsa-ca.pem"
		}
		if err := appendFile(in.path("trust", file), signing.MarshalCertificates([]certificate{c})); err != nil {
			return err
		}
	}
	return appendFile(in.path("trust", "ledger.vkey"), []byte(strings.Join(k.vkeys, "\n")+"\n"))
}

// describeProducer finds out who a body is from one of its packages.
func describeProducer(ctx context.Context, store storage.Store, code string) (Producer, error) {
	unknown := Deed{Text: "da completare: ripreso dal solo bucket"}
	p := Producer{
		Code: code, Name: code, TaxCode: "00000000000", Policy: "comune",
		Responsible: Person{FirstName: "da", LastName: "completare", TaxCode: "00000000000", Appointment: unknown, From: "1970-01-01"},
		Conservator: Body{Name: code, TaxCode: "00000000000", Appointment: unknown, From: "1970-01-01"}, Manual: unknown,
	}
	for v, err := range store.List(ctx, code+"/packages/", "") {
		if err != nil {
			return p, err
		}
		body, err := readBody(ctx, store, v)
		if err != nil {
			continue // a damaged package: the audit will name it; another one tells as well
		}
		p.Name, p.TaxCode = body.Producer.Name, body.Producer.TaxCode
		p.Conservator.Name, p.Conservator.TaxCode = p.Name, p.TaxCode
		break
	}
	return p, nil
}

func readBody(ctx context.Context, store storage.Store, v storage.Version) (*paper.Body, error) {
	r, err := store.Get(ctx, v.Key, "", 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	text, err := io.ReadAll(io.LimitReader(r, 1<<30))
	if err != nil {
		return nil, err
	}
	c, err := pack.Open(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return nil, err
	}
	member, err := paper.ReadMember(c, paper.MemberBody)
	if err != nil {
		return nil, err
	}
	var b paper.Body
	return &b, canon.Unmarshal(member, &b)
}

// checkCatalog looks through a catalog: run in a child process.
func checkCatalog(root string) error { return catalog.Check(root) }
