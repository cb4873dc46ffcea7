package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"
)

// forgery makes containers with one thing wrong: everything else, manifest and signature included, is right.
type forgery struct {
	files    []file
	manifest func(refs []Reference) []Reference
	local    func(i int, b []byte) []byte
	between  func(i int) []byte // bytes before local header i; i = number of members: before the directory
	member   func(i int, m Member) Member
	central  func(i int, b []byte) []byte
	end      func(d directory) directory
	endBytes func(b []byte) []byte
}

func (f forgery) bytes(t testing.TB) []byte {
	t.Helper()
	files := f.files
	if files == nil {
		files = append([]file{{mimetypeName, mimetype}}, smallFiles...)
	}
	var refs []Reference
	for _, x := range files {
		refs = append(refs, Reference{x.name, mediaType(x.name), sha256.Sum256([]byte(x.data))})
	}
	if f.manifest != nil {
		refs = f.manifest(refs)
	}
	var manifest strings.Builder
	manifest.WriteString(manifestOpen)
	for _, r := range refs { // MarshalManifest would refuse some of the names
		one, err := MarshalManifest([]Reference{{"name", r.MediaType, r.SHA256}})
		if err != nil {
			t.Fatal(err)
		}
		line := strings.TrimSuffix(strings.TrimPrefix(string(one), manifestOpen), manifestClose)
		manifest.WriteString(strings.Replace(line, `URI="name"`, `URI="`+r.Name+`"`, 1))
	}
	manifest.WriteString(manifestClose)
	signature, _ := sign(context.Background(), []byte(manifest.String()))
	files = append(files[:len(files):len(files)], file{manifestName, manifest.String()}, file{signatureName, string(signature)})

	var b, central []byte
	for i, x := range files {
		if f.between != nil {
			b = append(b, f.between(i)...)
		}
		m := Member{Name: x.name, Size: int64(len(x.data)), CRC32: crc32.ChecksumIEEE([]byte(x.data))}
		m.Offset = int64(len(b) + lenHead(m.Name, m.Size))
		head := appendLocal(nil, m)
		if f.local != nil {
			head = f.local(i, head)
		}
		b = append(append(b, head...), x.data...)
		if f.member != nil {
			m = f.member(i, m)
		}
		head = appendCentral(nil, m)
		if f.central != nil {
			head = f.central(i, head)
		}
		central = append(central, head...)
	}
	if f.between != nil {
		b = append(b, f.between(len(files))...)
	}
	d := directory{int64(len(files)), int64(len(central)), int64(len(b))}
	if f.end != nil {
		d = f.end(d)
	}
	end := appendEnd(nil, d)
	if f.endBytes != nil {
		end = f.endBytes(end)
	}
	return append(append(b, central...), end...)
}

// set returns a hook that writes v at offset at of header number of.
func set(of, at int, v ...byte) func(int, []byte) []byte {
	return func(i int, b []byte) []byte {
		if i == of {
			copy(b[at:], v)
		}
		return b
	}
}

func both(of, local, central int, v ...byte) forgery {
	return forgery{local: set(of, local, v...), central: set(of, central, v...)}
}

// extra returns hooks that give header number 1 an extra field.
func extra(local, central []byte) forgery {
	add := func(at int, x []byte) func(int, []byte) []byte {
		return func(i int, b []byte) []byte {
			if i == 1 {
				binary.LittleEndian.PutUint16(b[at:], uint16(len(x)))
				b = append(b, x...)
			}
			return b
		}
	}
	return forgery{local: add(28, local), central: add(30, central)}
}

func withFile(name, data string) forgery {
	return forgery{files: []file{{mimetypeName, mimetype}, {"content/a", "a"}, {name, data}}}
}

func swapFiles(i, j int) forgery {
	files := append([]file{{mimetypeName, mimetype}}, smallFiles...)
	files[i], files[j] = files[j], files[i]
	return forgery{files: files}
}

func u64(v ...uint64) (b []byte) {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

func TestForgedContainersAreRefused(t *testing.T) {
	if err := verify(forgery{}.bytes(t)); err != nil {
		t.Fatalf("a forgery with nothing wrong: %v", err)
	}
	zip64Sizes := append([]byte{1, 0, 16, 0}, u64(22, 22)...)
	for name, f := range map[string]forgery{
		"no mimetype":        {files: []file{{"content/a", "a"}}},
		"no file at all":     {files: []file{}},
		"mimetype second":    {files: []file{{"content/a", "a"}, {mimetypeName, mimetype}}},
		"mimetype twice":     withFile(mimetypeName, mimetype),
		"other mimetype":     {files: []file{{mimetypeName, "application/zip"}}},
		"longer mimetype":    {files: []file{{mimetypeName, mimetype + "\n"}}},
		"metadata early":     swapFiles(1, 3),
		"index early":        swapFiles(4, 5),
		"name given twice":   withFile("content/a", "b"),
		"name but for case":  withFile("content/A", "b"),
		"name below a file":  withFile("content/a/b", "b"),
		"name of a folder":   withFile("content", "b"),
		"name ..":            withFile("content/../../b", "b"),
		"absolute name":      withFile("/b", "b"),
		"name with NUL":      withFile("b\x00.pdf", "b"),
		"name with \\":       withFile(`b\c`, "b"),
		"name of a drive":    withFile("C:/b", "b"),
		"name not ASCII":     withFile("bà", "b"),
		"name of a device":   withFile("nul", "b"),
		"no name":            withFile("", "b"),
		"folder":             withFile("folder/", ""),
		"hidden name":        withFile(".b", "b"),
		"second manifest":    withFile("META-INF/ASiCManifest1.xml", manifestOpen+manifestClose),
		"second signature":   withFile("META-INF/signature001.p7s", "x"),
		"manifest too early": withFile(manifestName, "x"),

		"manifest without a file": {manifest: func(r []Reference) []Reference { return append(r[:2:2], r[3:]...) }},
		"manifest without last":   {manifest: func(r []Reference) []Reference { return r[:len(r)-1] }},
		"manifest with more":      {manifest: func(r []Reference) []Reference { return append(r, Reference{Name: "x", MediaType: "a/b"}) }},
		"manifest with double":    {manifest: func(r []Reference) []Reference { return append(r, r[1]) }},
		"manifest out of order":   {manifest: func(r []Reference) []Reference { r[1], r[2] = r[2], r[1]; return r }},
		"manifest names itself":   {manifest: func(r []Reference) []Reference { return append(r, Reference{Name: manifestName, MediaType: "a/b"}) }},

		"encrypted":           both(1, 6, 8, 1),
		"data descriptor":     both(1, 6, 8, 8),
		"UTF-8 flag":          both(1, 7, 9, 8),
		"strong encryption":   both(1, 6, 8, 0x40),
		"masked headers":      both(1, 7, 9, 0x20),
		"compressed":          both(1, 8, 10, 8),
		"another time":        both(1, 10, 12, 1),
		"another date":        both(1, 12, 14, 0x22),
		"version 1.0":         both(1, 4, 6, 10),
		"made by FAT":         {central: set(1, 4, 45, 0)},
		"comment of a file":   {central: set(1, 32, 1)},
		"on another disk":     {central: set(1, 34, 1)},
		"text attribute":      {central: set(1, 36, 1)},
		"symbolic link":       {central: set(1, 40, 0, 0, 0xFF, 0xA1)},
		"set-uid":             {central: set(1, 40, 0, 0, 0xA4, 0x89)},
		"folder attribute":    {central: set(1, 38, 0x10)},
		"local name differs":  {local: set(1, 30, 'X')},
		"local CRC differs":   {local: set(1, 14, 1, 2, 3, 4)},
		"CRC differs in both": both(1, 14, 16, 1, 2, 3, 4),
		"local size differs":  {local: set(1, 18, 21, 0, 0, 0, 21)},
		"sizes differ":        both(1, 18, 20, 21),
		"size 2^32-2":         both(1, 18, 20, 0xFE, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0xFF, 0xFF),
		"size marked":         both(1, 18, 20, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF),
		"needless ZIP64":      extra(zip64Sizes, zip64Sizes),
		"foreign extra field": extra([]byte{'U', 'T', 1, 0, 7}, []byte{'U', 'T', 1, 0, 7}),
		"local extra field":   extra([]byte{'U', 'T', 1, 0, 7}, nil),
		"central extra field": extra(nil, []byte{'U', 'T', 1, 0, 7}),

		"gap before a file": {between: func(i int) []byte { return make([]byte, max(0, 2-i)*i) }},
		"gap in front":      {between: func(i int) []byte { return make([]byte, max(0, 1-i)) }},
		"gap at the end":    {between: func(i int) []byte { return make([]byte, max(0, i-7)) }},
		"hidden file": {between: func(i int) []byte {
			if i != 2 {
				return nil
			}
			return append(appendLocal(nil, Member{Name: "content/b", Size: 1, CRC32: crc32.ChecksumIEEE([]byte("b"))}), 'b')
		}},
		"overlapping": {member: func(i int, m Member) Member {
			if i == 2 {
				m.Offset -= 10
			}
			return m
		}},
		"all at one place": {member: func(i int, m Member) Member { m.Offset = int64(lenHead(m.Name, m.Size)); return m }},
		"holding itself": {member: func(i int, m Member) Member {
			if i == 1 {
				m.Size = 4000
			}
			return m
		}},
		"offset far away": {member: func(i int, m Member) Member { m.Offset += int64(i) << 40; return m }},

		"one member less":       {end: func(d directory) directory { d.members--; return d }},
		"one member more":       {end: func(d directory) directory { d.members++; return d }},
		"65,535 members":        {end: func(d directory) directory { d.members = 65535; return d }},
		"200,001 members":       {end: func(d directory) directory { d.members = 200_001; return d }},
		"2^62 members":          {end: func(d directory) directory { d.members = 1 << 62; return d }},
		"directory later":       {end: func(d directory) directory { d.offset++; d.size--; return d }},
		"directory earlier":     {end: func(d directory) directory { d.offset--; d.size++; return d }},
		"directory far away":    {end: func(d directory) directory { d.offset = 1 << 49; return d }},
		"negative offset":       {end: func(d directory) directory { d.offset = -1; return d }},
		"comment":               {endBytes: func(b []byte) []byte { b[len(b)-2] = 3; return append(b, "hey"...) }},
		"comment's length only": {endBytes: func(b []byte) []byte { b[len(b)-2] = 3; return b }},
		"needless ZIP64 end": {endBytes: func(b []byte) []byte {
			big := appendEnd(nil, directory{members: 65535})
			copy(big[24:], u64(8, 8))
			return append(big[:lenEnd64+lenLocator], b...)
		}},
		"ZIP64 lie": {end: func(d directory) directory { d.members = 65535; return d }, endBytes: func(b []byte) []byte {
			copy(b[24:], u64(8, 8))
			return b
		}},
		"other disk": {endBytes: func(b []byte) []byte { b[4] = 1; return b }},
	} {
		t.Run(name, func(t *testing.T) {
			b := f.bytes(t)
			err := verify(b)
			if !errors.Is(err, ErrForm) && !errors.Is(err, ErrDigest) {
				t.Errorf("got %v, want a finding", err)
			}
		})
	}
}

func TestEverySingleFlippedBitIsFound(t *testing.T) {
	good := build(t, []file{{"content/001-a.pdf", "some bytes"}, {"metadata/m.json", "{}"}, {"PIndex.xml", "<PIndex/>"}})
	if err := verify(good); err != nil {
		t.Fatal(err)
	}
	b := bytes.Clone(good)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if err := verify(b); err == nil {
				t.Errorf("bit %d of byte %d flipped: got no error", bit, i)
			} else if !errors.Is(err, ErrForm) && !errors.Is(err, ErrDigest) && !errors.Is(err, errSignature) {
				t.Errorf("bit %d of byte %d flipped: got %v, want a finding", bit, i, err)
			}
			b[i] = good[i]
		}
	}
}

func TestCutAndGrownContainersAreRefused(t *testing.T) {
	good := build(t, smallFiles)
	for n := range good {
		if err := verify(good[:n]); !errors.Is(err, ErrForm) {
			t.Errorf("first %d bytes: got %v, want ErrForm", n, err)
		}
	}
	for _, b := range [][]byte{
		append(bytes.Clone(good), 0), append([]byte{0}, good...), append(bytes.Clone(good), good...),
		append(bytes.Clone(good), good[len(good)-lenEnd:]...), good[1:], nil,
		bytes.Repeat([]byte{0xFF}, 200), bytes.Repeat([]byte("PK\x05\x06"), 100), bytes.Repeat([]byte("PK\x03\x04"), 100),
	} {
		if err := verify(b); !errors.Is(err, ErrForm) {
			t.Errorf("%.20q … of %d bytes: got %v, want ErrForm", b, len(b), err)
		}
	}
	if _, err := Open(bytes.NewReader(nil), -1); !errors.Is(err, ErrForm) {
		t.Errorf("negative size: got %v, want ErrForm", err)
	}
	if _, err := Open(bytes.NewReader(good), int64(len(good))+1); !errors.Is(err, ErrForm) {
		t.Errorf("size too large: got %v, want ErrForm", err)
	}
}

func TestVerifyNamesEveryDamagedFile(t *testing.T) {
	b := build(t, smallFiles)
	c, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"content/001-determina.pdf", "metadata/profile.xml"} {
		m, _ := c.Member(name)
		b[m.Offset] ^= 1
	}
	sum, err := c.Verify(context.Background(), check)
	if !errors.Is(err, ErrDigest) || errors.Is(err, ErrForm) {
		t.Fatalf("got %v, want ErrDigest alone", err)
	}
	for _, name := range []string{"content/001-determina.pdf", "metadata/profile.xml"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("got %q, want %s named", err, name)
		}
	}
	for _, name := range []string{"metadata/submission.json", "PIndex.xml"} {
		if strings.Contains(err.Error(), name) {
			t.Errorf("got %q, which accuses %s", err, name)
		}
	}
	if sum != sha256.Sum256(b) {
		t.Errorf("got sum %x beside the findings, want that of the bytes read", sum)
	}
	if _, err := c.ReadFile("metadata/profile.xml", 1000); !errors.Is(err, ErrDigest) {
		t.Errorf("damaged file read: got %v, want ErrDigest", err)
	}
}

func TestVerifyNoticesAChangeSinceOpen(t *testing.T) {
	b := build(t, smallFiles)
	c, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	changed := append([]file(nil), smallFiles...)
	changed[0].data = strings.ToUpper(changed[0].data)
	copy(b, build(t, changed))
	if _, err := c.Verify(context.Background(), check); !errors.Is(err, ErrForm) {
		t.Errorf("got %v, want ErrForm", err)
	}
}

func TestVerifyPassesOnWhatTheCheckSays(t *testing.T) {
	b := build(t, smallFiles)
	c, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Verify(context.Background(), func(_, _ []byte) error { return errSignature })
	if !errors.Is(err, errSignature) || errors.Is(err, ErrForm) || errors.Is(err, ErrDigest) {
		t.Errorf("got %v, want the error of the check alone", err)
	}
}

// broken is a reader that fails at an offset, as a connection does.
type broken struct {
	b   []byte
	at  int64
	err error
}

func (r broken) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > r.at {
		return 0, r.err
	}
	return bytes.NewReader(r.b).ReadAt(p, at)
}

func TestAFailingReaderIsNoFinding(t *testing.T) {
	b := build(t, smallFiles)
	for _, failure := range []error{errors.New("connection reset"), io.ErrUnexpectedEOF, fmt.Errorf("wrapped: %w", io.EOF)} {
		for at := 0; at < len(b); at += 3 {
			r := broken{b, int64(at), failure}
			_, err := Open(r, int64(len(b)))
			if errors.Is(err, ErrForm) || !errors.Is(err, failure) {
				t.Fatalf("Open, broken at %d: got %v, want %v", at, err, failure)
			}
			stream := io.MultiReader(bytes.NewReader(b[:at]), errReader{failure})
			_, _, err = VerifyStream(context.Background(), stream, check)
			if errors.Is(err, ErrForm) || errors.Is(err, ErrDigest) || !errors.Is(err, failure) {
				t.Fatalf("VerifyStream, broken at %d: got %v, want %v", at, err, failure)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := VerifyStream(ctx, bytes.NewReader(b), check); !errors.Is(err, context.Canceled) || errors.Is(err, ErrForm) {
		t.Errorf("cancelled: got %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestTooManyMembersAreRefusedEarly(t *testing.T) {
	b := appendEnd(make([]byte, maxMembers+1), directory{members: maxMembers + 1, size: maxMembers + 1})
	if _, err := Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrForm) {
		t.Errorf("got %v, want ErrForm", err)
	}
	s := newSequence()
	for i := range maxMembers {
		name := fmt.Sprintf("content/%d", i)
		if i == 0 {
			name = mimetypeName
		}
		if err := s.admit(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.admit("content/more"); !errors.Is(err, ErrForm) {
		t.Errorf("member 200,001: got %v, want ErrForm", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(build(f, smallFiles))
	f.Add(build(f, nil))
	f.Add(forgery{end: func(d directory) directory { d.members = 65535; return d }}.bytes(f))
	f.Add(extra(append([]byte{1, 0, 16, 0}, u64(22, 22)...), append([]byte{1, 0, 16, 0}, u64(22, 22)...)).bytes(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := verify(b)
		if err != nil {
			if strings.Contains(err.Error(), "VerifyStream says") {
				t.Fatal(err)
			}
			return
		}
		c, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		var again memory
		w := NewBuilder(&again)
		members := c.Members()
		for _, m := range members[1 : len(members)-2] {
			data, err := c.ReadFile(m.Name, m.Size)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Add(m.Name, data); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Finish(context.Background(), func(context.Context, []byte) ([]byte, error) { return c.Signature(), nil }); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.b, b) && bytes.Equal(mustManifest(t, members), c.Manifest()) {
			t.Fatal("got a container that a Builder would write otherwise")
		}
	})
}

// mustManifest is the manifest that a Builder would write over the members.
func mustManifest(t *testing.T, members []Member) []byte {
	b, err := MarshalManifest(references(members[:len(members)-2]))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
