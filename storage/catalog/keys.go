package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"

	"golang.org/x/text/unicode/norm"
)

// First byte of every key; the rest is given in the package comment.
const (
	kindMeta     = 'm'
	kindProducer = 'p'
	kindDropped  = 'x'
	kindFeed     = 'f'
	kindRecord   = 'r'
	kindIdentity = 'i'
	kindKey      = 'k'
	kindType     = 't'
)

// tenant is the number that stands for a producer in keys. A producer gets a new one at every Reset, so
// that what was stored under the old one is out of reach at once and deleted at leisure.
type tenant uint32

func (t tenant) append(b []byte) []byte { return binary.BigEndian.AppendUint32(b, uint32(t)) }

// position is where a record stands in the order of all answers: the complements of its date (as the
// number YYYYMMDD, 0 when unknown) and of its ledger entry, big-endian, so that ascending is newest first.
type position [12]byte

func positionOf(date uint32, index int64) position {
	var p position
	binary.BigEndian.PutUint32(p[:4], ^date)
	binary.BigEndian.PutUint64(p[4:], ^uint64(index))
	return p
}

func (p position) compare(q position) int { return bytes.Compare(p[:], q[:]) }

// date is the date that positionOf was given.
func (p position) date() uint32 { return ^binary.BigEndian.Uint32(p[:4]) }

// parseDate reads YYYY-MM-DD as the number YYYYMMDD; anything else is 0.
func parseDate(s string) uint32 {
	if len(s) != 10 || s[4] != '-' || s[7] != '-' {
		return 0
	}
	var n uint32
	for i := 0; i < len(s); i++ {
		if i == 4 || i == 7 {
			continue
		}
		if s[i] < '0' || s[i] > '9' {
			return 0
		}
		n = n*10 + uint32(s[i]-'0')
	}
	if month, day := n/100%100, n%100; month < 1 || month > 12 || day < 1 || day > 31 {
		return 0
	}
	return n
}

// tag shortens a string to a fixed number of bytes of a key. Whoever follows such a key compares the
// string itself in the record.
func tag(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:16]
}

func producerKey(producer string) []byte { return append([]byte{kindProducer}, producer...) }
func droppedKey(t tenant) []byte         { return t.append([]byte{kindDropped}) }
func feedKey(seq uint64) []byte          { return binary.BigEndian.AppendUint64([]byte{kindFeed}, seq) }

func tenantPrefix(kind byte, t tenant) []byte {
	return t.append(append(make([]byte, 0, 48), kind))
}

func recordKey(t tenant, p position) []byte { return append(tenantPrefix(kindRecord, t), p[:]...) }
func identityKey(t tenant, id string) []byte {
	return append(tenantPrefix(kindIdentity, t), tag(id)...)
}

func generationsPrefix(t tenant, keyHMAC string) []byte {
	return append(tenantPrefix(kindKey, t), tag(keyHMAC)...)
}

func generationKey(t tenant, r *Record) []byte {
	b := generationsPrefix(t, r.KeyHMAC)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Generation))
	return binary.BigEndian.AppendUint64(b, uint64(r.Index))
}

func typePrefix(t tenant, typ string) []byte {
	return append(tenantPrefix(kindType, t), tag(norm.NFC.String(typ))[:8]...)
}

// pair is one key with its value.
type pair struct{ key, value []byte }

// pairs are the at most four keys of a record.
func pairs(t tenant, r *Record) []pair {
	p := positionOf(parseDate(r.Date), r.Index)
	out := []pair{
		{recordKey(t, p), appendRecord(make([]byte, 0, 384), r)},
		{identityKey(t, r.ID), p[:]},
		{generationKey(t, r), p[:]},
	}
	if r.Type != "" {
		out = append(out, pair{append(typePrefix(t, r.Type), p[:]...), nil})
	}
	return out
}

// sum is a sum modulo 2^256 of SHA-256 digests, big-endian: it depends on what was added, not on the order.
type sum [32]byte

func (s *sum) add(d [32]byte) {
	var carry uint64
	for i := 24; i >= 0; i -= 8 {
		var w uint64
		w, carry = bits.Add64(binary.BigEndian.Uint64(s[i:]), binary.BigEndian.Uint64(d[i:]), carry)
		binary.BigEndian.PutUint64(s[i:], w)
	}
}

func (s *sum) sub(d [32]byte) {
	var borrow uint64
	for i := 24; i >= 0; i -= 8 {
		var w uint64
		w, borrow = bits.Sub64(binary.BigEndian.Uint64(s[i:]), binary.BigEndian.Uint64(d[i:]), borrow)
		binary.BigEndian.PutUint64(s[i:], w)
	}
}

// digest of a pair, the length of the key keeping key and value apart.
func (p pair) digest() [32]byte {
	b := make([]byte, 0, 2+len(p.key)+len(p.value))
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.key)))
	b = append(b, p.key...)
	return sha256.Sum256(append(b, p.value...))
}

// account is what the catalog remembers of a producer: the state the caller sees, and what Check compares.
type account struct {
	tenant  tenant
	state   State
	records int64 // including annulled ones
	total   sum   // over every key and value under the tenant's number
}

var errAccount = errors.New("not a catalog account")

const accountSize = 4 + 8 + 8 + 32 + 8 + 32 + 8 + 32

func (a *account) encode() []byte {
	b := a.tenant.append(make([]byte, 0, accountSize+4))
	b = binary.BigEndian.AppendUint64(b, uint64(a.state.Commit))
	b = binary.BigEndian.AppendUint64(b, uint64(a.state.Size))
	b = append(b, a.state.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(a.state.Count))
	b = append(b, a.state.Digest[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(a.records))
	b = append(b, a.total[:]...)
	return seal(b)
}

func parseAccount(data []byte) (account, error) {
	b, err := checked(data)
	if err != nil || len(b) != accountSize {
		return account{}, errAccount
	}
	var a account
	number := func() int64 { n := binary.BigEndian.Uint64(b); b = b[8:]; return int64(n) }
	digest := func() (d [32]byte) { b = b[copy(d[:], b):]; return d }
	a.tenant = tenant(binary.BigEndian.Uint32(b))
	b = b[4:]
	a.state.Commit, a.state.Size, a.state.Root = number(), number(), digest()
	a.state.Count, a.state.Digest = number(), digest()
	a.records, a.total = number(), digest()
	return a, nil
}

// meta numbers what comes next.
type meta struct {
	tenant tenant // the last number given
	seq    uint64 // of the last feed entry
}

const metaVersion = 1

func (m meta) encode() []byte {
	b := m.tenant.append([]byte{metaVersion})
	return seal(binary.BigEndian.AppendUint64(b, m.seq))
}

func parseMeta(data []byte) (meta, error) {
	b, err := checked(data)
	if err != nil || len(b) != 13 || b[0] != metaVersion {
		return meta{}, errAccount
	}
	return meta{tenant(binary.BigEndian.Uint32(b[1:])), binary.BigEndian.Uint64(b[5:])}, nil
}

// A feed entry is a list of ops that the words index has yet to follow: each says that the record at a
// position of a tenant was put, changed or deleted (the record itself tells which), or, with an op of kind
// opDrop, that all of a tenant's are gone.
type op struct {
	kind   byte
	tenant tenant
	at     position
}

const (
	opTouch = 'T'
	opDrop  = 'D'
	opSize  = 1 + 4 + 12
)

func appendOp(b []byte, o op) []byte {
	b = o.tenant.append(append(b, o.kind))
	return append(b, o.at[:]...)
}

func parseOps(data []byte) ([]op, error) {
	b, err := checked(data)
	if err != nil || len(b)%opSize != 0 {
		return nil, errAccount
	}
	out := make([]op, 0, len(b)/opSize)
	for ; len(b) > 0; b = b[opSize:] {
		o := op{kind: b[0], tenant: tenant(binary.BigEndian.Uint32(b[1:]))}
		copy(o.at[:], b[5:])
		out = append(out, o)
	}
	return out, nil
}

func parseFeedKey(key []byte) (uint64, error) {
	if len(key) != 9 {
		return 0, errAccount
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

func parseDroppedKey(key []byte) (tenant, error) {
	if len(key) != 5 {
		return 0, errAccount
	}
	return tenant(binary.BigEndian.Uint32(key[1:])), nil
}
