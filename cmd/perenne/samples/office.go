package samples

import (
	"archive/zip"
	"bytes"
	"hash/crc32"
	"io/fs"
	"time"
)

// notice is a minimal OpenDocument text (ISO/IEC 26300-3, package conventions): the type first and stored,
// then what must be there.
func (d *desk) notice(at time.Time) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	kind := []byte(formatODT)
	first := must(w.CreateRaw(&zip.FileHeader{
		Name: "mimetype", Method: zip.Store, CRC32: crc32.ChecksumIEEE(kind),
		CompressedSize64: uint64(len(kind)), UncompressedSize64: uint64(len(kind)),
	}))
	must(first.Write(kind))
	values := map[string]string{
		"Title": "Bando di selezione pubblica", "Body": d.body.name, "Date": at.Format("2006-01-02T15:04:05"),
		"Day": longDate(at), "Until": withDate("del", at.AddDate(0, 0, 30)),
	}
	for _, name := range []string{"content.xml", "meta.xml", "styles.xml"} {
		part := must(w.Create(name))
		must(part.Write(form("odt/"+name, values)))
	}
	part := must(w.Create("META-INF/manifest.xml"))
	must(part.Write(must(fs.ReadFile(forms, "forms/odt/manifest.xml"))))
	must(0, w.Close())
	return b.Bytes()
}
