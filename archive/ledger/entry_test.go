package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/marchesud/perenne/archive/canon"
)

// sample returns a valid entry of the type with all members it may have, or only those it must.
func sample(t testing.TB, typ Type, all bool, seed uint64) Entry {
	r := rand.New(rand.NewPCG(seed, 0))
	_, v := keys(t, 7)
	e := Entry{Type: typ, Time: "2026-03-09T10:11:12.013Z"}
	bits := rules[typ].need
	if all {
		bits |= rules[typ].may
	}
	for i := range members {
		m := &members[i]
		if bits&(1<<i) == 0 {
			continue
		}
		switch {
		case m.count != nil:
			*m.count(&e) = 1 + r.Int64N(maxNumber)
		case m.ordinal != nil:
			n := r.Int64N(3)
			*m.ordinal(&e) = &n
		case m.name == "id":
			*m.text(&e) = "k3f-9_a.b"
		case m.name == "object":
			*m.text(&e) = "c_x901/packages/k3/k3f.asice"
		case m.name == "vkey":
			*m.text(&e) = origin + "+" + vkeyTail(t, v.Name())
		case m.name == "recovery", m.name == "signature":
			*m.text(&e) = "age1 qyq<s>&z+/= '~"
		case m.name != "type" && m.name != "time":
			*m.text(&e) = digest(m.name, r.Uint64())
		}
	}
	return e
}

// vkeyTail returns the part of a verifier key behind its name.
func vkeyTail(t testing.TB, name string) string {
	t.Helper()
	_, vkey, err := noteKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(vkey, name+"+")
}

func TestLinesAreCanonicalAndReadBack(t *testing.T) {
	for _, typ := range slices.Sorted(maps.Keys(rules)) {
		for seed := range uint64(20) {
			e := sample(t, typ, seed%2 == 0, seed)
			line, err := e.Line()
			if err != nil {
				t.Fatalf("%s: %v", typ, err)
			}
			want, err := canon.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(line, want) {
				t.Fatalf("%s: got\n%s want\n%s", typ, line, want)
			}
			got, err := ParseEntry(line)
			if err != nil || !reflect.DeepEqual(got, e) {
				t.Errorf("%s: read back %+v, %v", typ, got, err)
			}
		}
	}
}

func TestATypeHasTheMembersOfItsRuleAndNoOthers(t *testing.T) {
	for typ, r := range rules {
		for i := range members {
			m, bit := &members[i], uint32(1<<i)
			e := sample(t, typ, true, 1)
			missing := r.need&bit != 0
			switch {
			case missing && m.text != nil:
				*m.text(&e) = ""
			case missing && m.count != nil:
				*m.count(&e) = 0
			case missing:
				*m.ordinal(&e) = nil
			case (r.need|r.may|mType|mTime)&bit != 0:
				continue
			default: // superfluous
				other := sample(t, PackageSealed, true, 2)
				for _, source := range []Type{PackageSealed, SealEntry, KeyAdded, TrustedHead, HoldPlaced} {
					s := sample(t, source, true, 2)
					if have, _ := s.present(); have&bit != 0 {
						other = s
					}
				}
				switch {
				case m.text != nil:
					*m.text(&e) = *m.text(&other)
				case m.count != nil:
					*m.count(&e) = *m.count(&other)
				default:
					*m.ordinal(&e) = *m.ordinal(&other)
				}
			}
			if err := e.Validate(); !errors.Is(err, ErrEntry) || !strings.Contains(err.Error(), m.name) {
				t.Errorf("%s, %s: got %v want an ErrEntry that names it", typ, m.name, err)
			}
		}
	}
}

func TestMalformedMembersAreRefused(t *testing.T) {
	good := sample(t, PackageSealed, true, 1)
	for name, spoil := range map[string]func(*Entry){
		"type unknown":          func(e *Entry) { e.Type = "package.lost" },
		"type empty":            func(e *Entry) { e.Type = "" },
		"time without Z":        func(e *Entry) { e.Time = "2026-03-09T10:11:12.013+00:00" },
		"time without millis":   func(e *Entry) { e.Time = "2026-03-09T10:11:12Z" },
		"time with micros":      func(e *Entry) { e.Time = "2026-03-09T10:11:12.013000Z" },
		"thirtieth of February": func(e *Entry) { e.Time = "2026-02-30T10:11:12.013Z" },
		"digest upper case":     func(e *Entry) { e.SHA256 = strings.ToUpper(e.SHA256) },
		"digest short":          func(e *Entry) { e.SHA256 = e.SHA256[1:] },
		"id upper case":         func(e *Entry) { e.ID = "K3F" },
		"object outside":        func(e *Entry) { e.Object = "../etc/passwd" },
		"generation negative":   func(e *Entry) { e.Generation = -1 },
		"size beyond 2^53":      func(e *Entry) { e.Size = 1 << 53 },
		"text with quote":       func(e *Entry) { e.ID = `a"b` },
		"text not ASCII":        func(e *Entry) { e.ID = "città" },
		"text with control":     func(e *Entry) { e.ID = "a\nb" },
	} {
		e := good
		spoil(&e)
		if line, err := e.Line(); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: got %s, %v want ErrEntry", name, line, err)
		}
	}
	e := sample(t, CopyIssued, false, 1)
	e.Size = 5
	if err := e.Validate(); err == nil {
		t.Error("a size without digest was accepted")
	}
	e = sample(t, KeyAdded, true, 1)
	e.Recovery = strings.Repeat("x", MaxLine)
	if _, err := e.Line(); err == nil {
		t.Error("a line beyond 60 KiB was accepted")
	}
}

func TestOnlyTheCanonicalSpellingIsRead(t *testing.T) {
	line, err := sealed2("a").Line()
	if err != nil {
		t.Fatal(err)
	}
	good := string(line)
	for name, bad := range map[string]string{
		"empty":              "",
		"not an object":      "[]",
		"empty object":       "{}",
		"newline":            good + "\n",
		"trailing":           good + "{}",
		"space":              strings.Replace(good, ",", ", ", 1),
		"comma at end":       strings.Replace(good, "}", ",}", 1),
		"unknown member":     strings.Replace(good, "{", `{"a":1,`, 1),
		"member twice":       strings.Replace(good, `"id":"a"`, `"id":"a","id":"a"`, 1),
		"order":              strings.Replace(strings.Replace(good, `"id":"a",`, "", 1), "}", `,"id":"a"}`, 1),
		"escape":             strings.Replace(good, `"id":"a"`, `"id":"\u0061"`, 1),
		"fraction":           strings.Replace(good, `"size":4711`, `"size":4711.0`, 1),
		"exponent":           strings.Replace(good, `"size":4711`, `"size":4e3`, 1),
		"leading zero":       strings.Replace(good, `"size":4711`, `"size":04711`, 1),
		"minus":              strings.Replace(good, `"size":4711`, `"size":-1`, 1),
		"count of zero":      strings.Replace(good, `"id":"a"`, `"generation":0,"id":"a"`, 1),
		"number as text":     strings.Replace(good, `"size":4711`, `"size":"4711"`, 1),
		"text as number":     strings.Replace(good, `"id":"a"`, `"id":1`, 1),
		"null":               strings.Replace(good, `"id":"a"`, `"id":null`, 1),
		"no value":           strings.Replace(good, `"id":"a"`, `"id":`, 1),
		"number without end": `{"size":12`,
		"text without end":   `{"id":"a`,
	} {
		if bad == good {
			t.Errorf("%s: nothing was changed", name)
		}
		if e, err := ParseEntry([]byte(bad)); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: got %+v, %v want ErrEntry", name, e, err)
		}
	}
}

// sealed2 is sealed with a time.
func sealed2(name string) Entry {
	e := sealed(name)
	e.Time = "2026-03-09T10:11:12.013Z"
	return e
}

func FuzzParseEntry(f *testing.F) {
	for typ := range rules {
		line, err := sample(f, typ, true, 3).Line()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Add([]byte(`{"commit":0,"previous":"","time":"x","type":"head.trusted"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := ParseEntry(line)
		if err != nil {
			return
		}
		again, err := e.Line()
		if err != nil || !bytes.Equal(again, line) {
			t.Fatalf("%q was read but is written %q, %v", line, again, err)
		}
		var second Entry
		if err := canon.Unmarshal(line, &second); err != nil || !reflect.DeepEqual(e, second) {
			t.Fatalf("%q: canon reads %+v, %v", line, second, err)
		}
	})
}

func BenchmarkParseEntry(b *testing.B) {
	line, err := sealed2("a").Line()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEntry(line); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleEntry_Line() {
	n := int64(0)
	line, err := Entry{
		Type: TrustedHead, Time: "2026-03-09T10:11:12.013Z", Commit: &n,
		Previous: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	}.Line()
	fmt.Println(string(line), err)
	// Output: {"commit":0,"previous":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","time":"2026-03-09T10:11:12.013Z","type":"head.trusted"} <nil>
}
