package pack

import (
	"bytes"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// ParsePIndex reads an index. It returns ErrForm for any bytes but those that Marshal writes.
func ParsePIndex(b []byte) (PIndex, error) {
	if err := scan(b); err != nil {
		return PIndex{}, fmt.Errorf("index: %w", err)
	}
	var x indexXML
	if err := xml.Unmarshal(b, &x); err != nil {
		return PIndex{}, fmt.Errorf("index: %w: %w", ErrForm, err)
	}
	p := x.index()
	again, err := p.Marshal()
	if err != nil {
		return PIndex{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if !bytes.Equal(again, b) {
		i := 0
		for i < len(b) && i < len(again) && b[i] == again[i] {
			i++
		}
		return PIndex{}, fmt.Errorf("index: %w: differs at byte %d", ErrForm, i)
	}
	return p, nil
}

// The index as encoding/xml reads it: leniently, since ParsePIndex compares what comes of it.
type (
	indexXML struct {
		ID          string         `xml:"SelfDescription>ID"`
		Application applicationXML `xml:"SelfDescription>CreatingApplication"`
		Volume      volumeXML      `xml:"PVolume"`
		Groups      []groupXML     `xml:"FileGroup"`
		Submitter   agentXML       `xml:"Process>Submitter"`
		Holders     []agentXML     `xml:"Process>Holder"`
		Signers     []agentXML     `xml:"Process>AuthorizedSigner"`
		Time        string         `xml:"Process>TimeReference>TimeInfo"`
		Laws        string         `xml:"Process>LawsAndRegulations"`
	}
	applicationXML struct {
		Name, Version, Producer string
	}
	volumeXML struct {
		ID, Label, Description string
		Generation             int64  `xml:"MoreInfo>EmbeddedMetadata>Volume>Generation"`
		Supersedes             string `xml:"MoreInfo>EmbeddedMetadata>Volume>Supersedes"`
	}
	groupXML struct {
		ID, Label, Description string
		Files                  []fileXML `xml:"File"`
	}
	fileXML struct {
		Extension    string `xml:"extension,attr"`
		Format       string `xml:"format,attr"`
		ID, Path     string
		Hash         string
		OriginalName string `xml:"MoreInfo>EmbeddedMetadata>File>OriginalName"`
		Role         string `xml:"MoreInfo>EmbeddedMetadata>File>Role"`
	}
	agentXML struct {
		Kind       string    `xml:"agentType,attr"`
		HolderRole string    `xml:"holderRole,attr"`
		SignerRole string    `xml:"signerRole,attr"`
		ID         string    `xml:"AgentID"`
		FirstName  string    `xml:"AgentName>NameAndSurname>FirstName"`
		LastName   string    `xml:"AgentName>NameAndSurname>LastName"`
		FormalName string    `xml:"AgentName>FormalName"`
		Deeds      []deedXML `xml:"RelevantDocument"`
		IPACode    string    `xml:"MoreInfo>EmbeddedMetadata>Agent>IPACode"`
		Role       string    `xml:"MoreInfo>EmbeddedMetadata>Agent>Role"`
		ValidFrom  string    `xml:"MoreInfo>EmbeddedMetadata>Agent>ValidFrom"`
		ValidTo    string    `xml:"MoreInfo>EmbeddedMetadata>Agent>ValidTo"`
	}
	deedXML struct {
		Hash string `xml:"docHash,attr"`
		URI  string `xml:"uriDoc,attr"`
		Text string `xml:",chardata"`
	}
)

// index takes the fields over. What cannot be read is left empty: then the bytes differ, or Marshal refuses.
func (x indexXML) index() PIndex {
	p := PIndex{
		ID: unescape(x.ID),
		Application: Application{
			Name: unescape(x.Application.Name), Version: unescape(x.Application.Version),
			Producer: unescape(x.Application.Producer),
		},
		Volume: Volume{
			ID: unescape(x.Volume.ID), Label: unescape(x.Volume.Label), Description: unescape(x.Volume.Description),
			Generation: x.Volume.Generation, Supersedes: unescape(x.Volume.Supersedes),
		},
		Submitter: x.Submitter.agent(),
		Time:      parseTime(secondForm, x.Time),
		Laws:      unescape(x.Laws),
	}
	for _, g := range x.Groups {
		group := FileGroup{ID: unescape(g.ID), Label: unescape(g.Label), Description: unescape(g.Description)}
		for _, f := range g.Files {
			group.Files = append(group.Files, IndexedFile{
				ID: unescape(f.ID), Path: f.Path, SHA256: parseDigest(f.Hash), Format: unescape(f.Format),
				Extension: unescape(f.Extension), OriginalName: unescape(f.OriginalName), Role: unescape(f.Role),
			})
		}
		p.FileGroups = append(p.FileGroups, group)
	}
	for _, a := range x.Holders {
		p.Holders = append(p.Holders, a.agent())
	}
	for _, a := range x.Signers {
		p.Signers = append(p.Signers, a.agent())
	}
	return p
}

func (x agentXML) agent() Agent {
	a := Agent{
		Kind: AgentKind(x.Kind), TaxCode: strings.TrimPrefix(x.ID, "CF:IT-"), IPACode: unescape(x.IPACode),
		FirstName: unescape(x.FirstName), LastName: unescape(x.LastName), FormalName: unescape(x.FormalName),
		Role:      unescape(x.HolderRole + x.SignerRole + x.Role),
		ValidFrom: parseTime(dayForm, x.ValidFrom), ValidTo: parseTime(dayForm, x.ValidTo),
	}
	for _, r := range x.Deeds {
		a.Deeds = append(a.Deeds, RelevantDocument{
			Text: unescape(r.Text), SHA256: parseDigest(r.Hash), URI: unescape(r.URI),
		})
	}
	return a
}

func parseTime(form, s string) time.Time {
	t, err := time.Parse(form, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func parseDigest(s string) [32]byte {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 {
		return [32]byte{}
	}
	return [32]byte(b)
}
