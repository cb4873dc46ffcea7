package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/mod/sumdb/note"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/seal"
	"github.com/marchesud/perenne/signing"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/catalog"
)

func rebuildCommand() *cli.Command {
	return command(&cli.Command{
		Name: "rebuild", Usage: "make the catalog again from the bucket, or an archive from a bucket alone",
		Flags: append([]cli.Flag{
			dirFlag(), langFlag(),
			&cli.StringFlag{Name: "from", Usage: "FOLDER of an embedded store whose machine and keys are lost: makes a read-only archive in --dir; or a bucket, with --s3-url …"},
			&cli.BoolFlag{Name: "trust-bucket-head", Usage: "take the ledgers as they are where this machine has no mark of them"},
		}, s3Flags()...),
		Action: func(c *cli.Context) error {
			from, secrets, err := storeFromFlags(c, c.String("from"))
			if err != nil {
				return err
			}
			if from == nil {
				return rebuild(c)
			}
			unknown, err := archiveFromBucket(c.Context, c.String("dir"), *from, secrets)
			if err != nil {
				return err
			}
			l := lang(c)
			fmt.Fprintln(c.App.Writer, l.T("la fiducia (trust/) viene dal bucket stesso: confrontarla con una copia tenuta altrove prima di credervi",
				"the trust (trust/) comes from the bucket itself: compare it with a copy kept elsewhere before believing it"))
			for _, code := range unknown {
				fmt.Fprintf(c.App.Writer, l.T("%s  nel bucket ci sono suoi oggetti, ma nessuna chiave di verifica: non ripreso\n",
					"%s  the bucket holds its objects, but no verifier key: not taken up\n"), code)
			}
			if err := rebuild(c); err != nil {
				return err
			}
			if len(unknown) > 0 {
				return exitWith(exitUnknown)
			}
			return nil
		},
	}, `perenne rebuild --dir p
perenne rebuild --dir q --from /srv/bucket --trust-bucket-head
perenne rebuild --dir q --s3-url https://s3.example.it --s3-bucket perenne --s3-access-key perenne --s3-secret-file s3.secret`)
}

// rebuild makes the catalog again and proves that it is complete: each ledger's root, computed from what was
// read, is the one that was signed (ledger.Open does not open otherwise), and the catalog has every package.
func rebuild(c *cli.Context) error {
	in, err := here(c)
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
// papers are sealed by a new local key. It returns the bodies that the bucket has without a verifier key.
func archiveFromBucket(ctx context.Context, root string, where StoreConfig, secrets bucketSecrets) (unknown []string, err error) {
	store, done, err := openBucket(ctx, where, secrets)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	found, err := readKeys(ctx, store)
	if err != nil {
		return nil, err
	}
	if len(found.vkeys) == 0 {
		return nil, usagef("%s holds no verifier key under keys/: it is no bucket of Perenne, or was emptied", (&installation{config: Config{Store: where}}).storeName())
	}
	installation, producers, err := found.origins()
	if err != nil {
		return nil, err
	}
	verifiers, err := ledger.ParseVerifiers([]byte(strings.Join(found.vkeys, "\n") + "\n"))
	if err != nil {
		return nil, err
	}
	recovery, err := firstRecovery(ctx, store, producers, verifiers)
	if err != nil {
		return nil, err
	}
	in, err := makeInstallation(root, Config{
		Installation: installation, Listen: "127.0.0.1:8420", Store: where, ReadOnly: true, Recovery: recovery,
	}, secrets, time.Now())
	if err != nil {
		return nil, err
	}
	if err := in.trustFound(ctx, store, found); err != nil {
		return nil, err
	}
	for _, code := range producers {
		p, err := describeProducer(ctx, store, code, verifiers)
		if err != nil {
			return nil, err
		}
		if err := writeYAML(in.path("producers", code+".yaml"), p); err != nil {
			return nil, err
		}
	}
	return otherRooms(ctx, store, producers)
}

// openBucket opens a store that belongs to no installation yet; its secrets lie in a folder of their own meanwhile.
func openBucket(ctx context.Context, where StoreConfig, secrets bucketSecrets) (s storage.Store, done func() error, err error) {
	building, err := os.MkdirTemp("", "perenne-bucket-*")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(building)) }()
	if err := secrets.lay(building); err != nil {
		return nil, nil, err
	}
	if s, err = (&installation{root: building}).openStore(ctx, where); err != nil {
		return nil, nil, err
	}
	if c, ok := s.(io.Closer); ok {
		return s, c.Close, nil
	}
	return s, func() error { return nil }, nil
}

// otherRooms lists the rooms of a bucket that belong to no producer known.
func otherRooms(ctx context.Context, store storage.Store, producers []string) ([]string, error) {
	var other []string
	for after := ""; ; {
		room := ""
		for v, err := range store.List(ctx, "", after) {
			if err != nil {
				return nil, err
			}
			room, _, _ = strings.Cut(v.Key, "/")
			break
		}
		if room == "" {
			return other, nil
		}
		if !reservedCodes[room] && !slices.Contains(producers, room) {
			other = append(other, room)
		}
		after = room + "0" // '0' follows '/': behind everything in this room
	}
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
		text, err := readAll(ctx, store, v.Key, 1<<20)
		if err != nil {
			return k, err
		}
		if sum := sha256.Sum256(text); v.Key != "keys/"+hex.EncodeToString(sum[:]) {
			return k, fmt.Errorf("%s does not hold what its name says: the bucket was tampered with", v.Key)
		}
		if _, err := note.NewVerifier(string(text)); err == nil {
			k.vkeys = append(k.vkeys, string(text))
		} else if c, err := x509.ParseCertificate(text); err == nil && bytes.Equal(c.RawIssuer, c.RawSubject) {
			k.anchors = append(k.anchors, c)
		}
	}
	return k, nil
}

// origins reads the names of the verifier keys: <installation>/<producer>. The bucket may be hostile: a name
// becomes a file name here, so it must have the form of one.
func (k bucketKeys) origins() (installation string, producers []string, err error) {
	seen := map[string]bool{}
	for _, v := range k.vkeys {
		name, _, _ := strings.Cut(v, "+")
		i, p, _ := strings.Cut(name, "/")
		if !validInstallation.MatchString(i) || !validCode.MatchString(p) || reservedCodes[p] || installation != "" && i != installation {
			return "", nil, fmt.Errorf("a verifier key in the bucket has the name %q, which is no ledger's of one installation", name)
		}
		installation = i
		if !seen[p] {
			seen[p] = true
			producers = append(producers, p)
		}
	}
	sort.Strings(producers)
	return installation, producers, nil
}

// firstRecovery is the public recovery key in the first entry of a ledger: of the first that can be read, since it
// is the same in all.
func firstRecovery(ctx context.Context, store storage.Store, producers []string, verifiers note.Verifiers) (string, error) {
	var last error
	for _, code := range producers {
		for c, err := range ledger.Walk(ctx, store, code, verifiers, 0, 0) {
			if err != nil {
				last = err
				continue
			}
			if c.Entries[0].Recovery != "" {
				return c.Entries[0].Recovery, nil
			}
		}
	}
	return "", fmt.Errorf("no ledger in the bucket has a readable first commit: %w", errors.Join(last, errors.New("the recovery key is unknown")))
}

// trustFound adds what the bucket says to trust beside the keys just made.
func (in *installation) trustFound(ctx context.Context, store storage.Store, k bucketKeys) error {
	for _, c := range k.anchors {
		file := "seal-ca.pem"
		if stamps(ctx, store, c) {
			file = "tsa-ca.pem"
		}
		if err := appendFile(in.path("trust", file), signing.MarshalCertificates([]certificate{c})); err != nil {
			return err
		}
	}
	return appendFile(in.path("trust", "ledger.vkey"), []byte(strings.Join(k.vkeys, "\n")+"\n"))
}

// stamps reports whether an authority is one of timestamps: a local one says so in its name, another one is
// known by a token of the first seals.
func stamps(ctx context.Context, store storage.Store, ca *x509.Certificate) bool {
	if strings.Contains(ca.Subject.CommonName, signing.TSACA.String()) {
		return true
	}
	const looked = 16
	trust := signing.NewTrust(nil, []certificate{ca})
	for n := range int64(looked) {
		s, _, err := seal.Read(ctx, store, n, nil)
		if err != nil {
			return false
		}
		if _, err := trust.CheckToken(s.Token, s.Root); err == nil {
			return true
		}
	}
	return false
}

// describeProducer finds out who a body is from the index of its newest package that can be read. What no package
// says stays empty: a read-only archive needs none of it, and one that goes on with new keys is refused until it is
// there.
func describeProducer(ctx context.Context, store storage.Store, code string, v note.Verifiers) (Producer, error) {
	p := Producer{Code: code, Policy: "comune"}
	last, err := lastCommit(ctx, store, code)
	if err != nil {
		return p, err
	}
	for n := last; n >= 0 && ctx.Err() == nil; n-- {
		text, err := readAll(ctx, store, ledger.Key(code, n), ledger.MaxCommit)
		if err != nil {
			continue // flaws are the audit's
		}
		c, err := ledger.ParseCommit(text, code, v)
		if err != nil {
			continue
		}
		for _, e := range slices.Backward(c.Entries) {
			if e.Type != ledger.PackageSealed {
				continue
			}
			index, body, err := readIndex(ctx, store, e.Object, e.Size)
			if err != nil || body.Producer.Code != code {
				continue // a damaged package: another one tells as well
			}
			p.Name, p.TaxCode, p.Laws = body.Producer.Name, body.Producer.TaxCode, index.Laws
			p.fillFrom(index)
			return p, nil
		}
	}
	return p, ctx.Err()
}

// readAll reads an object of at most n bytes.
func readAll(ctx context.Context, store storage.Store, key string, n int64) ([]byte, error) {
	r, err := store.Get(ctx, key, "", 0, n)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(r)
	return text, errors.Join(err, r.Close())
}

// lastCommit finds the number of the last commit by doubling and halving; -1 for none. Where one is missing
// before it, an earlier one may be found, which does as well here.
func lastCommit(ctx context.Context, store storage.Store, code string) (int64, error) {
	there := func(n int64) (bool, error) {
		_, err := store.Stat(ctx, ledger.Key(code, n))
		if errors.Is(err, storage.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	low, high := int64(-1), int64(0) // low is there, high is not
	for {
		ok, err := there(high)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		low, high = high, 2*high+1
	}
	for high-low > 1 {
		mid := low + (high-low)/2
		ok, err := there(mid)
		if err != nil {
			return 0, err
		}
		if ok {
			low = mid
		} else {
			high = mid
		}
	}
	return low, nil
}

// fillFrom takes the agents out of an index that Producer.served has filled.
func (p *Producer) fillFrom(index pack.PIndex) {
	deed := func(a pack.Agent) Deed {
		if len(a.Deeds) == 0 {
			return Deed{}
		}
		d := Deed{Text: a.Deeds[0].Text, URI: a.Deeds[0].URI}
		if a.Deeds[0].SHA256 != [32]byte{} {
			d.SHA256 = hex.EncodeToString(a.Deeds[0].SHA256[:])
		}
		return d
	}
	date := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Format(time.DateOnly)
	}
	p.Manual = deed(index.Submitter)
	for _, a := range index.Signers {
		if a.Kind == pack.Legal {
			p.Conservator = Body{Name: a.FormalName, TaxCode: a.TaxCode, Appointment: deed(a), From: date(a.ValidFrom), To: date(a.ValidTo)}
		} else {
			p.Responsible = Person{FirstName: a.FirstName, LastName: a.LastName, TaxCode: a.TaxCode, Appointment: deed(a), From: date(a.ValidFrom), To: date(a.ValidTo)}
		}
	}
}

// stored reads an object of the bucket by range.
type stored struct {
	ctx   context.Context
	store storage.Store
	key   string
}

func (o stored) ReadAt(b []byte, off int64) (int, error) {
	r, err := o.store.Get(o.ctx, o.key, "", off, int64(len(b)))
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r, b)
	if closed := r.Close(); err == nil {
		err = closed
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// readIndex reads what a package says of itself, by range.
func readIndex(ctx context.Context, store storage.Store, key string, size int64) (pack.PIndex, paper.Body, error) {
	var body paper.Body
	c, err := pack.Open(stored{ctx, store, key}, size)
	if err != nil {
		return pack.PIndex{}, body, err
	}
	text, err := paper.ReadMember(c, paper.MemberBody)
	if err != nil {
		return pack.PIndex{}, body, err
	}
	if err := canon.Unmarshal(text, &body); err != nil {
		return pack.PIndex{}, body, err
	}
	if text, err = paper.ReadMember(c, paper.MemberIndex); err != nil {
		return pack.PIndex{}, body, err
	}
	index, err := pack.ParsePIndex(text)
	return index, body, err
}

// checkCatalog looks through a catalog: run in a child process.
func checkCatalog(root string) error { return catalog.Check(root) }
