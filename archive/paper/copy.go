package paper

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/pack"
)

// The members of a distribution package.
const (
	CopyStatement = "metadata/distribution.json" // RFC 8785 form of Statement
	CopyReceipt   = "metadata/receipt.json"      // the receipt file
	CopyEvidence  = "metadata/evidence.ers"      // the evidence record, absent while the seal is pending
	CopyReadMe    = "metadata/LEGGIMI.txt"       // ReadMe
)

// CopyPackage is the member that holds the package itself.
func CopyPackage(id string) string { return "content/" + id + ".asice" }

// Statement says what a distribution package is.
type Statement struct {
	Kind          string `json:"kind"` // "distribution"
	Identifier    string `json:"identifier"`
	Time          string `json:"time"` // of issue, as stated: nothing but the seal proves it
	Installation  string `json:"installation"`
	Producer      string `json:"producer"`
	Package       string `json:"package"`
	SHA256        string `json:"sha256"`  // of the package
	Size          int64  `json:"size"`    // of the package, bytes
	Purpose       string `json:"purpose"` // why it was asked for
	Nature        string `json:"nature"`  // Duplicate
	Qualification string `json:"qualification"`
}

// KindDistribution is Statement.Kind.
const KindDistribution = "distribution"

// Duplicate is what the bytes given out are: the same as those kept (CAD art. 1 c. 1 i-quinquies).
const Duplicate = "duplicato informatico"

// ReadMe tells the receiver, in both languages, how to check what he holds without us.
func ReadMe(s Statement) []byte {
	return fmt.Appendf(nil, readMe, s.Package, s.Producer, s.SHA256, s.Qualification)
}

const readMe = `PACCHETTO DI DISTRIBUZIONE

Contiene il pacchetto di archiviazione %[1]s dell'ente %[2]s, identico byte per
byte a quello conservato (duplicato informatico), con le sue prove.

  content/%[1]s.asice      il pacchetto: ZIP con i file versati, l'indice SInCRO e la firma
  metadata/receipt.json    il rapporto di versamento, con la prova di iscrizione nel giornale
  metadata/evidence.ers    l'evidence record RFC 4998: il pacchetto esisteva alla data della marca
  metadata/distribution.json  che cosa e' stato dato, quando e perche'

Verifica con un solo comando, senza rete:   perenne verify --trust CARTELLA copia.zip
Verifica con strumenti di altri:
  sha256sum content/%[1]s.asice
      deve dare %[3]s
  openssl cms -verify -cades -binary -inform DER -in META-INF/signature.p7s \
      -content META-INF/ASiCManifest.xml -CAfile seal-ca.pem -out /dev/null
Sigilli e marche temporali: %[4]s.

DISTRIBUTION PACKAGE

Holds the package %[1]s of %[2]s, byte for byte as it is kept, with its proofs.
Check it with one command, without a network:   perenne verify --trust FOLDER copy.zip
or with the tools of others, as above.
`

// Copy is a distribution package that was read and found whole.
type Copy struct {
	SHA256    [32]byte
	Statement Statement
	Receipt   *Receipt
	Package   *Package
	Checked   *Checked
}

// CopyParts is what a distribution package is made of.
type CopyParts struct {
	Statement Statement
	Receipt   *Receipt
	Package   io.Reader // exactly Statement.Size bytes
}

// WriteCopy writes a distribution package into f and returns its size.
func WriteCopy(ctx context.Context, f pack.File, parts CopyParts, sign func(context.Context, []byte) ([]byte, error)) (int64, error) {
	b := pack.NewBuilder(f)
	w, err := b.Create(CopyPackage(parts.Statement.Package), parts.Statement.Size)
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(w, parts.Package); err != nil {
		return 0, fmt.Errorf("copy package: %w", err)
	}
	if err := w.Close(); err != nil {
		return 0, err
	}
	statement, err := canon.Marshal(parts.Statement)
	if err != nil {
		return 0, err
	}
	receipt, err := parts.Receipt.Marshal()
	if err != nil {
		return 0, err
	}
	members := []struct {
		name string
		data []byte
	}{{CopyReadMe, ReadMe(parts.Statement)}, {CopyStatement, statement}}
	if parts.Receipt.Evidence.Seal == Sealed {
		record, err := base64.StdEncoding.DecodeString(parts.Receipt.Evidence.Record)
		if err != nil {
			return 0, fmt.Errorf("evidence record: %w", err)
		}
		members = append(members, struct {
			name string
			data []byte
		}{CopyEvidence, record})
	}
	members = append(members, struct {
		name string
		data []byte
	}{CopyReceipt, receipt})
	for _, m := range members {
		if err := b.Add(m.name, m.data); err != nil {
			return 0, err
		}
	}
	return b.Finish(ctx, sign)
}

// checkCopy verifies a distribution package and everything inside it.
func checkCopy(ctx context.Context, r io.ReaderAt, size int64, t Trust, l Lang) (*Result, *Copy) {
	res := &Result{Kind: l.T("pacchetto di distribuzione", "distribution package")}
	what := l.T("pacchetto di distribuzione", "distribution package")
	c, err := readCopy(ctx, r, size, t)
	if err != nil {
		return res.fail(what, err), nil
	}
	res.About = c.Statement.Producer + " " + c.Receipt.Body.Key.String()
	res.good(fmt.Sprintf(l.T("integro, con firma%s; dichiara di essere stato rilasciato il %s", "whole, signed%s; stated to be issued on %s"),
		unqualified(l, c.Statement.Qualification), c.Statement.Time))
	sub, checked := c.Receipt.Check(t, l)
	res.Lines = append(res.Lines, sub.Lines...)
	if checked == nil {
		return res, nil
	}
	c.Checked = checked
	if checked.Entry.SHA256 != c.Statement.SHA256 || checked.Entry.Size != c.Statement.Size {
		return res.fail(what, errors.New("the package inside is not the one in the ledger")), nil
	}
	res.good(fmt.Sprintf(l.T("duplicato informatico del pacchetto %s, %d file", "duplicate of package %s, %d files"), c.Statement.Package, len(c.Package.Body.Files)))
	return res, c
}

// readCopy reads and verifies the container, the package in it, and that the parts agree.
func readCopy(ctx context.Context, r io.ReaderAt, size int64, t Trust) (*Copy, error) {
	container, err := pack.Open(r, size)
	if err != nil {
		return nil, err
	}
	c := &Copy{}
	text, err := ReadMember(container, CopyStatement)
	if err != nil {
		return nil, err
	}
	if err := canon.Unmarshal(text, &c.Statement); err != nil {
		return nil, fmt.Errorf("%s: %w", CopyStatement, err)
	}
	at, err := time.Parse(TimeFormat, c.Statement.Time)
	if err != nil || c.Statement.Kind != KindDistribution || c.Statement.Nature != Duplicate {
		return nil, fmt.Errorf("%s: not a statement of this format", CopyStatement)
	}
	if c.SHA256, err = verifySealed(ctx, container, t, at, c.Statement.Qualification); err != nil {
		return nil, err
	}
	if text, err = ReadMember(container, CopyReceipt); err != nil {
		return nil, err
	}
	if c.Receipt, err = ParseReceipt(text); err != nil {
		return nil, err
	}
	if err := c.readInner(ctx, container, t); err != nil {
		return nil, err
	}
	return c, c.agree(container)
}

// readInner reads the package inside.
func (c *Copy) readInner(ctx context.Context, container *pack.Container, t Trust) error {
	s, err := container.Section(CopyPackage(c.Statement.Package))
	if err != nil {
		return err
	}
	if c.Package, err = ReadPackage(ctx, s, s.Size(), t); err != nil {
		return fmt.Errorf("%s: %w", CopyPackage(c.Statement.Package), err)
	}
	if hex.EncodeToString(c.Package.SHA256[:]) != c.Statement.SHA256 || s.Size() != c.Statement.Size {
		return fmt.Errorf("%s: not the package the statement names", CopyPackage(c.Statement.Package))
	}
	return nil
}

// agree holds the members against each other.
func (c *Copy) agree(container *pack.Container) error {
	inside, err := canon.Marshal(c.Package.Body)
	if err != nil {
		return err
	}
	body, err := canon.Marshal(c.Receipt.Body)
	if err != nil {
		return err
	}
	if !bytes.Equal(inside, body) {
		return errors.New("the receipt is not that of the package")
	}
	if b := c.Receipt.Body; c.Statement.Installation != b.Installation || c.Statement.Producer != b.Producer.Code || c.Statement.Package != b.Package {
		return fmt.Errorf("%s is not about the package inside", CopyStatement)
	}
	if readme, err := ReadMember(container, CopyReadMe); err != nil || !bytes.Equal(readme, ReadMe(c.Statement)) {
		return fmt.Errorf("%s: not the text of this format", CopyReadMe)
	}
	want := 7 // with mimetype, manifest and signature
	if c.Receipt.Evidence.Seal == Sealed {
		want++
		record, err := ReadMember(container, CopyEvidence)
		if err != nil {
			return err
		}
		if base64.StdEncoding.EncodeToString(record) != c.Receipt.Evidence.Record {
			return fmt.Errorf("%s: not the record of the receipt", CopyEvidence)
		}
	}
	if n := len(container.Members()); n != want {
		return fmt.Errorf("%d members where a distribution package has %d", n, want)
	}
	return nil
}
