package catalog

import (
	"bytes"
	"errors"
	"testing"
)

func FuzzParseRecord(f *testing.F) {
	r := made(montesole, 4)
	f.Add(appendRecord(nil, &r))
	r = Record{Year: -1, Size: 1 << 60, KeyHMAC: "AB", SHA256: "ab", Subject: "\xff\x00", Annulled: true}
	f.Add(appendRecord(nil, &r))
	f.Add([]byte{})
	f.Add(seal([]byte{recordVersion, 0}))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, seal(bytes.Clone(data))} { // the fuzzer does not guess a CRC
			r, err := parseRecord(montesole, data)
			if err != nil {
				if r != (Record{}) {
					t.Errorf("got %+v with an error", r)
				}
				continue
			}
			again, err := parseRecord(montesole, appendRecord(nil, &r))
			if err != nil || again != r {
				t.Errorf("got %+v %v, want %+v", again, err, r)
			}
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	f.Add(cursor(positionOf(20260309, 7)))
	f.Add("")
	f.Add("AAAAAAAAAAAAAAAA")
	f.Add("0000000000000\r000") // base64 decoding passes over line ends
	f.Fuzz(func(t *testing.T, s string) {
		at, err := parseCursor(s)
		if err != nil {
			if !errors.Is(err, ErrQuery) {
				t.Errorf("got %v, want ErrQuery", err)
			}
			return
		}
		if got := cursor(at); got != s {
			t.Errorf("got %q, want %q", got, s)
		}
	})
}

func FuzzParseStored(f *testing.F) {
	a := account{tenant: 3, state: State{Commit: 4, Size: 9, Count: 2}, records: 5}
	f.Add(a.encode())
	f.Add(meta{2, 7}.encode())
	f.Add(progress{scanned: true, seq: 8}.encode())
	f.Add(seal(appendOp(nil, op{opTouch, 4, positionOf(1, 2)})))
	f.Add([]byte(markHead))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, seal(bytes.Clone(data))} {
			if a, err := parseAccount(data); err == nil && !bytes.Equal(a.encode(), data) {
				t.Errorf("account: %x is read as %+v", data, a)
			}
			if m, err := parseMeta(data); err == nil && !bytes.Equal(m.encode(), data) {
				t.Errorf("meta: %x is read as %+v", data, m)
			}
			if p, err := parseProgress(data); err == nil && !bytes.Equal(p.encode(), data) {
				t.Errorf("progress: %x is read as %+v", data, p)
			}
			if ops, err := parseOps(data); err == nil {
				var again []byte
				for _, o := range ops {
					again = appendOp(again, o)
				}
				if !bytes.Equal(seal(again), data) {
					t.Errorf("ops: %x is read as %+v", data, ops)
				}
			}
		}
		_, _ = parseMark(data)
	})
}

func TestEveryFlippedBitOfARecordIsNoticed(t *testing.T) {
	r := made(montesole, 4)
	good := appendRecord(nil, &r)
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := parseRecord(montesole, bad); err == nil {
			t.Fatalf("bit %d: got %+v, want an error", i, got)
		}
	}
}

func TestSumDoesNotDependOnOrder(t *testing.T) {
	var a, b sum
	digests := make([][32]byte, 50)
	for i := range digests {
		digests[i] = pair{[]byte{byte(i)}, nil}.digest()
		a.add(digests[i])
	}
	for i := range digests {
		b.add(digests[len(digests)-1-i])
	}
	if a != b {
		t.Errorf("got %x and %x", a, b)
	}
	for _, d := range digests {
		b.sub(d)
	}
	if b != (sum{}) {
		t.Errorf("got %x, want 0", b)
	}
}

func TestDatesOrderPositions(t *testing.T) {
	for _, test := range []struct {
		date string
		want uint32
	}{
		{"2026-03-09", 20260309},
		{"0001-01-01", 10101},
		{"", 0},
		{"2026-3-9", 0},
		{"2026-00-09", 0},
		{"2026-13-01", 0},
		{"2026-01-32", 0},
		{"2026/01/02", 0},
		{"2026-01-0x", 0},
		{"9999-12-31", 99991231},
	} {
		if got := parseDate(test.date); got != test.want {
			t.Errorf("%q: got %d, want %d", test.date, got, test.want)
		}
	}
	newest := positionOf(20260309, 9)
	for _, older := range []position{positionOf(20260309, 8), positionOf(20260308, 90), positionOf(0, 100)} {
		if newest.compare(older) >= 0 {
			t.Errorf("%x does not stand behind %x", older, newest)
		}
	}
}
