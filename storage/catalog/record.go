package catalog

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
)

// Record is what is searchable of one package. The catalog holds nothing that cannot be read again: every
// field comes from the ledger entry or from the search record put beside its commit.
type Record struct {
	Producer string // IPA code of the producer
	ID       string // identifier of the package

	Generation int64  // generation of the key, from 0
	Index      int64  // ledger entry that sealed the package, from 0; no two records of a producer share it
	Commit     int64  // ledger commit that holds the entry, from 0
	KeyHMAC    string // HMAC of the key under the producer's name key, as it stands in the entry

	Structure, Register string // key: AOO or SACER structure, register type
	Year                int    // key: year
	Number              string // key: number, as submitted
	Date                string // document date, YYYY-MM-DD; a record with any other spelling sorts as the oldest
	Type                string // document type
	Subject             string // oggetto
	Reserved            bool   // riservato
	Class               string // retention class, "" when undefined

	Files  int    // number of files in the package
	Size   int64  // bytes of the package object
	Object string // storage key of the package object
	SHA256 string // of the package object, lower-case hex
	Time   string // accepted, RFC 3339

	Annulled bool // set by Change.Annul
}

// Identity is what State.Digest sums: the HMAC of the key, a zero byte, the identifier. Both stand in the
// ledger entry, so that a ledger alone gives the digest its catalog must have.
func (r Record) Identity() []byte {
	b := make([]byte, 0, len(r.KeyHMAC)+1+len(r.ID))
	b = append(b, r.KeyHMAC...)
	b = append(b, 0)
	return append(b, r.ID...)
}

const (
	recordVersion = 1
	// maxRecord bounds an encoded record, so that one always fits a transaction.
	maxRecord = 512 << 10

	flagReserved  = 1 << 0
	flagAnnulled  = 1 << 1
	flagHexHMAC   = 1 << 2 // KeyHMAC is stored as the bytes its lower-case hex means
	flagHexSHA256 = 1 << 3 // likewise SHA256
	flagsKnown    = flagReserved | flagAnnulled | flagHexHMAC | flagHexSHA256
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errRecord = errors.New("not a catalog record")
)

// appendRecord appends the stored form of r: version, flags, the integers as zigzag varints, the strings
// each behind its length, and a CRC-32C of all that. The producer stands in the key.
func appendRecord(b []byte, r *Record) []byte {
	start := len(b)
	hmac, hexHMAC := packHex(r.KeyHMAC)
	sum, hexSum := packHex(r.SHA256)
	flags := flag(r.Reserved, flagReserved) | flag(r.Annulled, flagAnnulled) | flag(hexHMAC, flagHexHMAC) | flag(hexSum, flagHexSHA256)
	b = append(b, recordVersion, flags)
	for _, n := range [...]int64{r.Generation, r.Index, r.Commit, int64(r.Year), int64(r.Files), r.Size} {
		b = binary.AppendVarint(b, n)
	}
	for _, s := range [...]string{r.ID, hmac, r.Structure, r.Register, r.Number, r.Date, r.Type, r.Subject, r.Class, r.Object, sum, r.Time} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

// parseRecord is the inverse of appendRecord. It keeps no reference to data.
func parseRecord(producer string, data []byte) (Record, error) {
	body, err := checked(data)
	if err != nil || len(body) < 2 || body[0] != recordVersion || body[1]&^flagsKnown != 0 {
		return Record{}, errRecord
	}
	flags, body := body[1], body[2:]
	r := Record{Producer: producer, Reserved: flags&flagReserved != 0, Annulled: flags&flagAnnulled != 0}
	var year, files int64
	for _, p := range [...]*int64{&r.Generation, &r.Index, &r.Commit, &year, &files, &r.Size} {
		n, w := binary.Varint(body)
		if w <= 0 {
			return Record{}, errRecord
		}
		*p, body = n, body[w:]
	}
	r.Year, r.Files = int(year), int(files)
	text := string(body) // one allocation, shared by all the strings
	for _, p := range [...]*string{&r.ID, &r.KeyHMAC, &r.Structure, &r.Register, &r.Number, &r.Date, &r.Type, &r.Subject, &r.Class, &r.Object, &r.SHA256, &r.Time} {
		n, w := binary.Uvarint(body)
		if w <= 0 || n > uint64(len(body)-w) {
			return Record{}, errRecord
		}
		at := len(text) - len(body) + w
		*p, body = text[at:at+int(n)], body[w+int(n):]
	}
	if len(body) != 0 {
		return Record{}, errRecord
	}
	if flags&flagHexHMAC != 0 {
		r.KeyHMAC = hex.EncodeToString([]byte(r.KeyHMAC))
	}
	if flags&flagHexSHA256 != 0 {
		r.SHA256 = hex.EncodeToString([]byte(r.SHA256))
	}
	return r, nil
}

// seal appends the CRC-32C that checked wants.
func seal(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// checked returns data without its trailing CRC-32C, if that holds.
func checked(data []byte) ([]byte, error) {
	n := len(data) - 4
	if n < 0 || crc32.Checksum(data[:n], castagnoli) != binary.BigEndian.Uint32(data[n:]) {
		return nil, errRecord
	}
	return data[:n], nil
}

// packHex returns the bytes that s means, if s is lower-case hex.
func packHex(s string) (string, bool) {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return s, false
		}
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return s, false
	}
	return string(b), true
}
