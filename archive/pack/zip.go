package pack

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Fixed parts of the records; see the package comment.
const (
	sigLocal   = 0x04034b50
	sigCentral = 0x02014b50
	sigEnd     = 0x06054b50
	sigEnd64   = 0x06064b50
	sigLocator = 0x07064b50

	versionPlain = 20
	version64    = 45
	madeBy       = 3<<8 | version64
	dosDate      = 0x0021
	attributes   = 0o100644 << 16

	mark16 = 1<<16 - 1
	mark32 = 1<<32 - 1

	lenLocal   = 30
	lenCentral = 46
	lenEnd     = 22
	lenEnd64   = 56
	lenLocator = 20
	lenExtra   = 4 + 16     // of a local header
	maxExtra   = 4 + 16 + 8 // of a central header

	crcAt = 14 // offset of the CRC-32 in a local header

	maxMembers = 200_000
	maxSize    = 1 << 50
)

// clip32 is v, or the marker that says it stands elsewhere.
func clip32(v int64) uint32 { return uint32(min(v, mark32)) }

// headAt is the offset of the member's local header.
func (m Member) headAt() int64 { return m.Offset - int64(lenHead(m.Name, m.Size)) }

// end is the offset behind the member's bytes.
func (m Member) end() int64 { return m.Offset + m.Size }

// lenHead is the length of a local header.
func lenHead(name string, size int64) int {
	n := lenLocal + len(name)
	if size >= mark32 {
		n += lenExtra
	}
	return n
}

// appendShared appends what local and central headers have in common.
func appendShared(b []byte, m Member, extra int) []byte {
	le := binary.LittleEndian
	version := uint16(versionPlain)
	if extra > 0 {
		version = version64
	}
	b = le.AppendUint16(b, version)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, dosDate)
	b = le.AppendUint32(b, m.CRC32)
	b = le.AppendUint32(b, clip32(m.Size))
	b = le.AppendUint32(b, clip32(m.Size))
	b = le.AppendUint16(b, uint16(len(m.Name)))
	return le.AppendUint16(b, uint16(extra))
}

func appendLocal(b []byte, m Member) []byte {
	le := binary.LittleEndian
	extra := lenHead(m.Name, m.Size) - lenLocal - len(m.Name)
	b = le.AppendUint32(b, sigLocal)
	b = appendShared(b, m, extra)
	b = append(b, m.Name...)
	if extra > 0 {
		b = le.AppendUint16(b, 1)
		b = le.AppendUint16(b, lenExtra-4)
		b = le.AppendUint64(b, uint64(m.Size))
		b = le.AppendUint64(b, uint64(m.Size))
	}
	return b
}

func appendCentral(b []byte, m Member) []byte {
	le := binary.LittleEndian
	var wide []byte
	if m.Size >= mark32 {
		wide = le.AppendUint64(wide, uint64(m.Size))
		wide = le.AppendUint64(wide, uint64(m.Size))
	}
	if m.headAt() >= mark32 {
		wide = le.AppendUint64(wide, uint64(m.headAt()))
	}
	extra := 0
	if len(wide) > 0 {
		extra = 4 + len(wide)
	}
	b = le.AppendUint32(b, sigCentral)
	b = le.AppendUint16(b, madeBy)
	b = appendShared(b, m, extra)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, attributes)
	b = le.AppendUint32(b, clip32(m.headAt()))
	b = append(b, m.Name...)
	if extra > 0 {
		b = le.AppendUint16(b, 1)
		b = le.AppendUint16(b, uint16(len(wide)))
		b = append(b, wide...)
	}
	return b
}

// directory is what the end records say of the central headers.
type directory struct {
	members int64
	size    int64
	offset  int64
}

func appendEnd(b []byte, d directory) []byte {
	le := binary.LittleEndian
	if d.members >= mark16 || d.size >= mark32 || d.offset >= mark32 {
		b = le.AppendUint32(b, sigEnd64)
		b = le.AppendUint64(b, lenEnd64-12)
		b = le.AppendUint16(b, madeBy)
		b = le.AppendUint16(b, version64)
		b = le.AppendUint64(b, 0)
		b = le.AppendUint64(b, uint64(d.members))
		b = le.AppendUint64(b, uint64(d.members))
		b = le.AppendUint64(b, uint64(d.size))
		b = le.AppendUint64(b, uint64(d.offset))
		b = le.AppendUint32(b, sigLocator)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(d.offset+d.size))
		b = le.AppendUint32(b, 1)
	}
	count := uint16(min(d.members, mark16))
	b = le.AppendUint32(b, sigEnd)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint16(b, count)
	b = le.AppendUint16(b, count)
	b = le.AppendUint32(b, clip32(d.size))
	b = le.AppendUint32(b, clip32(d.offset))
	return le.AppendUint16(b, 0)
}

// parseEnd reads the end records from the tail of a container: its last bytes, all of them or at least
// lenEnd64+lenLocator+lenEnd. It refuses every spelling but that of appendEnd.
func parseEnd(tail []byte, size int64) (directory, error) {
	le := binary.LittleEndian
	if len(tail) < lenEnd {
		return directory{}, fmt.Errorf("%w: %d bytes are no container", ErrForm, size)
	}
	end := tail[len(tail)-lenEnd:]
	d := directory{
		members: int64(le.Uint16(end[10:])),
		size:    int64(le.Uint32(end[12:])),
		offset:  int64(le.Uint32(end[16:])),
	}
	marked := d.members == mark16 || d.size == mark32 || d.offset == mark32
	if marked && len(tail) >= lenEnd64+lenLocator+lenEnd {
		end64 := tail[len(tail)-lenEnd-lenLocator-lenEnd64:]
		members, length, offset := le.Uint64(end64[32:]), le.Uint64(end64[40:]), le.Uint64(end64[48:])
		if members > maxMembers || length > maxSize || offset > maxSize {
			return directory{}, fmt.Errorf("%w: end record: more than is allowed", ErrForm)
		}
		d = directory{members: int64(members), size: int64(length), offset: int64(offset)}
	}
	if d.members > maxMembers {
		return directory{}, fmt.Errorf("%w: end record: more than %d members", ErrForm, maxMembers)
	}
	want := appendEnd(nil, d)
	if len(want) > len(tail) || !bytes.Equal(tail[len(tail)-len(want):], want) {
		return directory{}, fmt.Errorf("%w: end record: not in its only form", ErrForm)
	}
	if d.offset+d.size+int64(len(want)) != size {
		return directory{}, fmt.Errorf("%w: end record: does not fit a container of %d bytes", ErrForm, size)
	}
	if d.size < d.members*lenCentral || d.size > d.members*(lenCentral+maxName+maxExtra) {
		return directory{}, fmt.Errorf("%w: end record: %d bytes for %d members", ErrForm, d.size, d.members)
	}
	return d, nil
}

// parseLocal reads a local header that begins at offset at. head is its fixed part; rest reads what follows.
// It refuses every spelling but that of appendLocal.
func parseLocal(head []byte, at int64, rest func(n int) ([]byte, error)) (Member, error) {
	le := binary.LittleEndian
	nameLen, extraLen := int(le.Uint16(head[26:])), int(le.Uint16(head[28:]))
	if nameLen > maxName || extraLen != 0 && extraLen != lenExtra {
		return Member{}, fmt.Errorf("%w: local header at %d: lengths", ErrForm, at)
	}
	tail, err := rest(nameLen + extraLen)
	if err != nil {
		return Member{}, err
	}
	m := Member{Name: string(tail[:nameLen]), CRC32: le.Uint32(head[crcAt:]), Size: int64(le.Uint32(head[22:]))}
	if extraLen > 0 {
		size := le.Uint64(tail[nameLen+4:])
		if size > maxSize {
			return Member{}, fmt.Errorf("%w: %q: size beyond 2^50", ErrForm, m.Name)
		}
		m.Size = int64(size)
	}
	m.Offset = at + lenLocal + int64(len(tail))
	want := appendLocal(nil, m)
	if !bytes.Equal(want[:min(lenLocal, len(want))], head) || !bytes.Equal(want[lenLocal:], tail) {
		return Member{}, fmt.Errorf("%w: %q: local header at %d not in its only form", ErrForm, m.Name, at)
	}
	return m, nil
}

// parseCentral reads a central header. head is its fixed part; rest reads what follows. It refuses every
// spelling but that of appendCentral.
func parseCentral(head []byte, rest func(n int) ([]byte, error)) (Member, error) {
	le := binary.LittleEndian
	nameLen, extraLen := int(le.Uint16(head[28:])), int(le.Uint16(head[30:]))
	if nameLen > maxName || extraLen > maxExtra {
		return Member{}, fmt.Errorf("%w: central header: lengths", ErrForm)
	}
	tail, err := rest(nameLen + extraLen)
	if err != nil {
		return Member{}, err
	}
	m := Member{Name: string(tail[:nameLen]), CRC32: le.Uint32(head[16:]), Size: int64(le.Uint32(head[24:]))}
	at := int64(le.Uint32(head[42:]))
	wide := tail[nameLen:]
	if len(wide) >= 4 {
		wide = wide[4:]
	}
	if m.Size == mark32 && len(wide) >= 16 {
		m.Size, wide = int64(min(le.Uint64(wide), maxSize+1)), wide[16:]
	}
	if at == mark32 && len(wide) >= 8 {
		at = int64(min(le.Uint64(wide), maxSize+1))
	}
	if m.Size > maxSize || at > maxSize {
		return Member{}, fmt.Errorf("%w: %q: size or offset beyond 2^50", ErrForm, m.Name)
	}
	m.Offset = at + int64(lenHead(m.Name, m.Size))
	want := appendCentral(nil, m)
	if !bytes.Equal(want[:lenCentral], head) || !bytes.Equal(want[lenCentral:], tail) {
		return Member{}, fmt.Errorf("%w: %q: central header not in its only form", ErrForm, m.Name)
	}
	return m, nil
}
