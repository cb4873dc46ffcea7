package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/storage"
)

func repairCommand() *cli.Command {
	return command(&cli.Command{
		Name: "repair", Usage: "put back objects that the store has lost or changed: exactly the bytes that the ledger names", ArgsUsage: "PRODUCER [KEY …]",
		Flags: []cli.Flag{
			dirFlag(), langFlag(),
			&cli.BoolFlag{Name: "all", Usage: "look at everything that the ledger names, not only at the KEYs"},
			&cli.GenericFlag{Name: "from", Usage: "FOLDER or file where lost bytes may be: a copy of the bucket, single objects, distribution packages that somebody holds; may be repeated", Value: &fileList{}},
		},
		Description: `Lost bytes are sought in the other versions that the store keeps of a key, in the
spool of this machine, then in the places named with --from. Nothing but bytes with the
SHA-256 that the ledger names is ever written. Delete markers over objects that are kept
are removed where the store lets it. Each object put back becomes an entry of the ledger.
The daemon of this installation must be stopped meanwhile; those of others need not be.`,
		Action: repair,
	}, `perenne repair --dir p c_x901 --all
perenne repair --dir p c_x901 c_x901/packages/k3/k3fqk7o2v5….asice --from /mnt/copy-of-the-bucket
perenne repair --dir p c_x901 --all --from pdd-DETE-2026-12.zip`)
}

func repair(c *cli.Context) error {
	keys := c.Args().Tail()
	switch {
	case c.NArg() == 0:
		return usageIn("indicare l'ente: perenne repair ENTE --all%s", "name the body: perenne repair PRODUCER --all%s", seeHelp(c))
	case c.Bool("all") == (len(keys) > 0):
		return usageIn("indicare le chiavi degli oggetti, oppure --all%s", "name the keys of the objects, or --all%s", seeHelp(c))
	}
	req := archive.RepairRequest{Producer: c.Args().First(), Keys: keys}
	if from, ok := c.Generic("from").(*fileList); ok {
		for _, name := range from.names {
			if _, err := os.Stat(name); err != nil {
				return unreadable(name, err)
			}
			req.From = append(req.From, &heap{root: name})
		}
	}
	o, err := openToMend(c)
	if err != nil {
		return err
	}
	told := &repairTold{c: c}
	err = errors.Join(o.Archive.Repair(c.Context, req, told.hear), o.Close())
	l := lang(c)
	fmt.Fprintf(c.App.Writer, l.T("guardati %d oggetti: integri %d, rimessi %d, scoperti %d, persi %d\n",
		"%d objects looked at: %d intact, %d put back, %d uncovered, %d lost\n"),
		told.seen, told.count[archive.Intact], told.count[archive.Restored], told.count[archive.Uncover], told.count[archive.Lost])
	switch {
	case err != nil:
		return err
	case told.count[archive.Lost] > 0:
		fmt.Fprintln(c.App.Writer, l.T("per quanto è perso cercare una copia (un altro daemon, un backup del bucket, chi ha un pacchetto di distribuzione) e ripetere con --from",
			"for what is lost look for a copy (another daemon, a backup of the bucket, somebody with a distribution package) and repeat with --from"))
		return exitWith(exitWrong)
	}
	return nil
}

func ledgerCommand() *cli.Command {
	return command(&cli.Command{
		Name: "ledger", Usage: "what a ledger needs a person for",
		Subcommands: []*cli.Command{command(&cli.Command{
			Name: "void", Usage: "let a ledger go on behind an object that lies where its next commit goes and that no key of it signed", ArgsUsage: "PRODUCER N",
			Flags: []cli.Flag{dirFlag(), langFlag()},
			Description: `First make sure that nobody holds a commit N: try perenne repair here, and ask the
other daemons of this bucket. A commit that somebody acknowledged and that comes
back afterwards makes a fork, which stops the ledger for good.`,
			Action: voidCommit,
		}, `perenne repair --dir p c_x901 --all
perenne ledger void --dir p c_x901 4711`)},
	}, `perenne ledger void --dir p c_x901 4711`)
}

func voidCommit(c *cli.Context) error {
	if c.NArg() != 2 {
		return usageIn("indicare l'ente e il numero del commit%s", "name the body and the number of the commit%s", seeHelp(c))
	}
	code := c.Args().First()
	n, err := strconv.ParseInt(c.Args().Get(1), 10, 64)
	if err != nil || n < 0 {
		return usageIn("%q non è il numero di un commit", "%q is no number of a commit", c.Args().Get(1))
	}
	o, err := openToMend(c)
	if err != nil {
		return err
	}
	err = errors.Join(o.Archive.VoidCommit(c.Context, code, n), o.Close())
	if archive.KindOf(err) == archive.Invalid {
		return absentIn("il commit %d di %s non si può dichiarare nullo, niente è cambiato: %v", "commit %d of %s cannot be called void, nothing was changed: %v", n, code, err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, lang(c).T("il numero %d di %s è nullo; il giornale prosegue dopo di esso\n", "number %d of %s is void; the ledger goes on behind it\n"), n, code)
	return nil
}

func sealsCommand() *cli.Command {
	return command(&cli.Command{
		Name: "seals", Usage: "what the chain of seals needs a person for",
		Subcommands: []*cli.Command{command(&cli.Command{
			Name: "void", Usage: "let the seals go on behind an object that lies where the next seal goes and is none", ArgsUsage: "N",
			Flags: []cli.Flag{dirFlag(), langFlag()},
			Description: `First make sure that nobody holds a seal N: try perenne repair here, and ask the
other daemons of this bucket. A seal that comes back afterwards makes a fork.
Under N and the numbers behind it everything is called void that is no seal; the
seal behind it names its digests, and the token covers them.`,
			Action: voidSeal,
		}, `perenne repair --dir p c_x901 evidence/0000000000000000/0042
perenne seals void --dir p 42`)},
	}, `perenne seals void --dir p 42`)
}

func voidSeal(c *cli.Context) error {
	if c.NArg() != 1 {
		return usageIn("indicare il numero del sigillo%s", "name the number of the seal%s", seeHelp(c))
	}
	n, err := strconv.ParseInt(c.Args().First(), 10, 64)
	if err != nil || n < 0 {
		return usageIn("%q non è il numero di un sigillo", "%q is no number of a seal", c.Args().First())
	}
	o, err := openToMend(c)
	if err != nil {
		return err
	}
	err = errors.Join(o.Archive.VoidSeal(c.Context, n), o.Close())
	if archive.KindOf(err) == archive.Invalid {
		return absentIn("il sigillo %d non si può dichiarare nullo, niente è cambiato: %v", "seal %d cannot be called void, nothing was changed: %v", n, err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, lang(c).T("il numero %d dei sigilli è nullo; i sigilli proseguono dopo di esso\n", "number %d of the seals is void; the seals go on behind it\n"), n)
	return nil
}

// openToMend opens the installation to write, with nothing scheduled. Its daemon must be stopped.
func openToMend(c *cli.Context) (*opened, error) {
	in, err := here(c)
	if err != nil {
		return nil, err
	}
	if in.config.ReadOnly {
		return nil, usageIn("questo archivio è in sola lettura: le sue chiavi sono perse", "this archive is read-only: its keys are lost")
	}
	log := slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelError}))
	return in.open(c.Context, openOptions{Log: log, Mending: true})
}

// repairTold prints what became of each object that was not as it should be.
type repairTold struct {
	c     *cli.Context
	seen  int
	count map[string]int
}

func (t *repairTold) hear(r archive.Repaired) {
	if t.count == nil {
		t.count = map[string]int{}
	}
	t.seen++
	t.count[r.What]++
	l := lang(t.c)
	var what string
	switch r.What {
	case archive.Restored:
		what = fmt.Sprintf(l.T("rimesso (%s)", "put back (%s)"), r.From)
	case archive.Uncover:
		what = l.T("scoperto", "uncovered")
	case archive.Lost:
		what = fmt.Sprintf(l.T("PERSO: %v", "LOST: %v"), r.Err)
	default:
		return
	}
	if r.Markers > 0 {
		what += fmt.Sprintf(l.T("; marcatori di cancellazione tolti: %d", "; delete markers removed: %d"), r.Markers)
	}
	fmt.Fprintf(t.c.App.Writer, "%s  %s\n", r.Key, what)
}

// heap is a file or a folder of the user's in which lost bytes may be: under their key, as any file, or as a
// member, stored uncompressed, of a distribution package.
type heap struct {
	root  string
	found map[[32]byte]place // by digest; made when something is first sought that does not lie under its key
}

// place is where bytes lie.
type place struct {
	file         string
	offset, size int64
}

// Recall implements [storage.Keeper].
func (h *heap) Recall(ctx context.Context, key string, sum [32]byte) (io.ReadCloser, error) {
	under := filepath.Join(h.root, filepath.FromSlash(key))
	if info, err := os.Stat(under); err == nil && info.Mode().IsRegular() && (sum == [32]byte{} || holds(ctx, under, sum)) {
		return os.Open(under)
	}
	if sum == [32]byte{} {
		return nil, fmt.Errorf("%s: %w", under, storage.ErrNotFound)
	}
	if h.found == nil {
		h.found = map[[32]byte]place{}
		if err := filepath.WalkDir(h.root, h.take(ctx)); err != nil {
			return nil, err
		}
	}
	at, ok := h.found[sum]
	if !ok {
		return nil, fmt.Errorf("%s: %w", h.root, storage.ErrNotFound)
	}
	f, err := os.Open(at.file)
	if err != nil {
		return nil, err
	}
	return section{io.NewSectionReader(f, at.offset, at.size), f}, nil
}

// section reads a part of a file and closes it.
type section struct {
	io.Reader
	io.Closer
}

// holds reports whether a file has a digest.
func holds(ctx context.Context, name string, sum [32]byte) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	got, err := digestOf(ctx, f)
	return errors.Join(err, f.Close()) == nil && got == sum
}

func digestOf(ctx context.Context, r io.Reader) (sum [32]byte, err error) {
	h := sha256.New()
	_, err = io.Copy(h, r)
	h.Sum(sum[:0])
	return sum, errors.Join(err, ctx.Err())
}

// take notes what a file holds. One that cannot be read is passed over: what it may have is found lost.
func (h *heap) take(ctx context.Context) fs.WalkDirFunc {
	return func(name string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // somebody else's file
		}
		f, err := os.Open(name)
		if err != nil {
			return nil //nolint:nilerr // somebody else's file
		}
		defer func() { _ = f.Close() }()
		info, err := f.Stat()
		if err != nil {
			return nil //nolint:nilerr // somebody else's file
		}
		if sum, err := digestOf(ctx, f); err == nil {
			h.found[sum] = place{name, 0, info.Size()}
		}
		z, err := zip.NewReader(f, info.Size())
		if err != nil {
			return nil //nolint:nilerr // no ZIP
		}
		for _, m := range z.File {
			at, err := m.DataOffset()
			size := int64(m.UncompressedSize64)
			if err != nil || m.Method != zip.Store || size < 0 || at+size > info.Size() {
				continue
			}
			if sum, err := digestOf(ctx, io.NewSectionReader(f, at, size)); err == nil {
				h.found[sum] = place{name, at, size}
			}
		}
		return ctx.Err()
	}
}
