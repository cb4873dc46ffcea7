package archive

import (
	"context"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/marchesud/perenne/archive/canon"
	"github.com/marchesud/perenne/archive/pack"
	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
)

// body states what a receipt and a refusal have in common.
func (a *Archive) body(p *producer, in *incoming, policy [32]byte, salt string) paper.Body {
	return paper.Body{
		Time: stamp(in.at), Installation: a.cfg.Installation,
		Producer: paper.BodyProducer{Code: p.Code, Name: p.Name, TaxCode: p.TaxCode},
		Key:      bodyKey(in.key), Type: in.description.Type, Date: in.description.Date,
		Submission: in.submission, Metadata: in.metadataDigest(), Files: in.files, Checks: in.findings,
		Policy:        paper.BodyPolicy{Name: p.Policy.Name, Digest: hex.EncodeToString(policy[:])},
		Qualification: a.qualification(), Salt: salt,
	}
}

// pack finishes the package whose content receive has written: metadata, receipt, index, manifest, signature.
func (a *Archive) pack(ctx context.Context, p *producer, in *incoming, generation int64) error {
	id, err := p.packageID(in.key, generation, in.metadataDigest(), in.files)
	if err != nil {
		return err
	}
	salt, err := a.newSalt()
	if err != nil {
		return err
	}
	in.body = a.body(p, in, p.Policy.Digest(), salt)
	in.body.Kind, in.body.Statement = paper.KindReceipt, paper.StatementReceipt
	in.body.Identifier = paper.ReceiptURN(a.cfg.Installation, p.Code, id)
	in.body.Package, in.body.Generation = id, generation
	if in.record, err = newSearchRecord(in.description, &in.body); err != nil {
		return err
	}
	if err := in.addMetadata(p, a.cfg.Program); err != nil {
		return err
	}
	index, err := a.packIndex(p, in).Marshal()
	if err != nil {
		return err
	}
	if err := in.builder.Add(paper.MemberIndex, index); err != nil {
		return err
	}
	_, err = in.builder.Finish(ctx, func(ctx context.Context, manifest []byte) ([]byte, error) {
		return a.cfg.Signer.Sign(ctx, manifest, in.at)
	})
	return err
}

// addMetadata adds what belongs to the documents.
func (in *incoming) addMetadata(p *producer, program pack.Application) error {
	body, err := canon.Marshal(in.body)
	if err != nil {
		return err
	}
	rdv, err := in.body.XML()
	if err != nil {
		return err
	}
	profile, err := in.profile(p, program).Marshal()
	if err != nil {
		return fmt.Errorf("%s: %w", paper.MemberProfile, err)
	}
	for _, m := range []struct {
		name string
		data []byte
	}{
		{paper.MemberSubmission, in.metadata},
		{paper.MemberProfile, profile},
		{paper.MemberBody, body},
		{paper.MemberRdV, rdv},
	} {
		if err := in.builder.Add(m.name, m.data); err != nil {
			return err
		}
	}
	return nil
}

// packIndex is the SInCRO index of the package.
func (a *Archive) packIndex(p *producer, in *incoming) pack.PIndex {
	content := pack.FileGroup{ID: "content", Label: "Contenuto", Description: "I file come versati"}
	metadata := pack.FileGroup{ID: "metadata", Label: "Metadati", Description: "Metadati come ricevuti, profilo AgID, rapporto di versamento"}
	n := 0
	for _, m := range in.builder.Files() {
		f := pack.IndexedFile{ID: m.Name, Path: m.Name, SHA256: m.SHA256, Extension: strings.TrimPrefix(path.Ext(m.Name), ".")}
		switch {
		case strings.HasPrefix(m.Name, "content/"):
			d := in.description.Files[n]
			f.Format, f.OriginalName, f.Role = orOctets(in.formats[n].MIME), d.Name, d.Role
			content.Files = append(content.Files, f)
			n++
		case strings.HasPrefix(m.Name, "metadata/"):
			f.Format, f.Role = "application/xml", "metadata"
			if f.Extension == "json" {
				f.Format = "application/json"
			}
			metadata.Files = append(metadata.Files, f)
		}
	}
	return pack.PIndex{
		ID: in.body.Package + "-index", Application: a.cfg.Program,
		Volume: pack.Volume{
			ID: in.body.Package, Label: in.key.String(), Generation: in.body.Generation,
			Description: fmt.Sprintf("Unità documentaria %s, tipo %s", in.key, in.description.Type),
		},
		FileGroups: []pack.FileGroup{content, metadata},
		Submitter:  p.Submitter, Holders: p.Holders, Signers: p.Signers,
		Time: wholeSecond(in.at), Laws: p.Laws,
	}
}

func orOctets(mime string) string {
	if mime == "" {
		return "application/octet-stream"
	}
	return mime
}

// profile is the Allegato 5 profile of the unit, as far as its description tells.
func (in *incoming) profile(p *producer, program pack.Application) pack.Profile {
	d, main := in.description, 0
	for i, f := range d.Files {
		if f.Role == policies.RoleMain {
			main = i
			break
		}
	}
	date, err := time.Parse(time.DateOnly, d.Date)
	if err != nil {
		date = in.at // AdmitDescription refuses such a date: this is never reached with an admitted one
	}
	pr := pack.Profile{
		Document: in.documentID(main), Formation: pack.FormationSoftware, Type: d.Type, Flow: pack.Flow(d.Flow),
		Registration: pack.Registration{Kind: pack.Register, Date: date, Number: in.key.Number, Code: pack.RegisterCode(in.key.Register)},
		Subjects: []pack.Subject{
			{Role: pack.RoleRegistrar, Organisation: &pack.Organisation{Name: p.Name, TaxCode: p.TaxCode}},
			{Role: pack.RoleSystem, System: &pack.System{Name: program.Name + " " + program.Version}},
		},
		Title: d.Subject, Reserved: *d.Reserved, Format: orOctets(in.formats[main].MIME),
		Signed: isSigned(in.formats[main]), Name: d.Files[main].Name, Version: "1", Note: d.Notes,
	}
	if pr.Flow == "" {
		pr.Flow = pack.Internal
	}
	if d.Classification != "" {
		pr.Classification = &pack.Classification{Index: d.Classification, Description: d.Classification}
	}
	if d.Folder != "" {
		pr.Aggregations = []pack.AggregationRef{{Kind: pack.Dossier, ID: d.Folder}}
	}
	for i := range d.Files {
		if i != main {
			pr.Attachments = append(pr.Attachments, pack.Attachment{Document: in.documentID(i), Description: d.Files[i].Name})
		}
	}
	if len(pr.Attachments) > maxProfileAttachments {
		pr.Attachments = pr.Attachments[:maxProfileAttachments] // the schema has no room for more; PIndex.xml names them all
	}
	return pr
}

// maxProfileAttachments is the schema's bound on IndiceAllegati.
const maxProfileAttachments = 4999

func (in *incoming) documentID(i int) pack.DocumentID {
	sum, err := hex.DecodeString(in.files[i].SHA256)
	if err != nil {
		return pack.DocumentID{Identifier: in.files[i].Path}
	}
	return pack.DocumentID{SHA256: [32]byte(sum), Identifier: in.files[i].Path}
}

func isSigned(f policies.Format) bool { return f.Extension == "p7m" }
