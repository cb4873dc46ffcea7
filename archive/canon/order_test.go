package canon

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/gowebpki/jcs"
)

// FuzzOrder holds the short way against the library: it gives the same bytes or leaves the text to it.
func FuzzOrder(f *testing.F) {
	for _, text := range []string{
		`{}`, `[]`, `0`, `-0`, `"x"`, `null`, `{"b":1,"a":[true,{"d":null,"c":"è"}]}`, `{"a":1,"a":2}`, `{"b":1,"a":1,"b":2}`, `{"é":1,"e":2}`,
		`{"a b":1,"a":2,"a!":3}`, `{"":1,"!":2}`, `[[],{},[{"z":{},"y":[]}]]`, `{"a":"\n\t\"\\\b"}`, `"\u0001"`, `"\/"`, `{"a\n":1,"a":2}`, `"\`, "\"\xff\"", `{"a":-0}`, `{"a":[1,2,-3]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var raw json.RawMessage
		if json.Unmarshal(data, &raw) != nil {
			return
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if enc.Encode(raw) != nil || exactNumbers(b.Bytes()) != nil {
			return
		}
		got, ok := order(b.Bytes())
		if !ok {
			return
		}
		want, err := jcs.Transform(b.Bytes())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("order(%s) = %s, the library gives %s, %v", b.Bytes(), got, want, err)
		}
	})
}

func TestOrderTakesTheOrdinary(t *testing.T) {
	for text, want := range map[string]string{
		`{"b":1,"a":[true,{"d":null,"c":"è"}]}`: `{"a":[true,{"c":"è","d":null}],"b":1}`,
		`{"a b":1,"a":2}`:                       `{"a":2,"a b":1}`,
		`{"b":"x\n","a":"\"\\"}`:                `{"a":"\"\\","b":"x\n"}`,
	} {
		if got, ok := order([]byte(text + "\n")); !ok || string(got) != want {
			t.Errorf("order(%s) = %s, %v, want %s", text, got, ok, want)
		}
	}
}

func BenchmarkMarshal(b *testing.B) {
	v := map[string]any{"type": "determina", "key": map[string]any{"register": "DETE", "number": "12", "year": 2026}, "files": []any{map[string]string{"sha256": "00", "name": "determina.pdf"}}}
	for b.Loop() {
		if _, err := Marshal(v); err != nil {
			b.Fatal(err)
		}
	}
}
