package canon

import (
	"errors"
	"strings"
	"testing"
)

type sample struct {
	B string   `json:"b"`
	A int64    `json:"a"`
	L []string `json:"l,omitempty"`
}

func TestMarshalSortsNamesAndKeepsLetters(t *testing.T) {
	got, err := Marshal(sample{B: "è <&> \u2028", A: 7})
	if err != nil {
		t.Fatal(err)
	}
	if want := "{\"a\":7,\"b\":\"è <&> \u2028\"}"; string(got) != want {
		t.Errorf("Marshal = %s, want %s", got, want)
	}
}

func TestUnmarshalAcceptsOneFormOnly(t *testing.T) {
	good := `{"a":7,"b":"x"}`
	var s sample
	if err := Unmarshal([]byte(good), &s); err != nil {
		t.Fatalf("Unmarshal(%s) = %v", good, err)
	}
	for _, bad := range []string{
		``, `{"b":"x","a":7}`, `{"a":7,"b":"x"} `, ` {"a":7,"b":"x"}`, `{"a":7,"b":"x"}{}`, `{"a":7,"a":7,"b":"x"}`,
		`{"A":7,"b":"x"}`, `{"a":7,"b":"\u0078"}`, `{"a":7.0,"b":"x"}`, `{"a":7,"b":"x","c":1}`, `{"a":7,"b":"x","l":[]}`,
		`{"a":7}`, `null`, strings.Repeat("[", 100000), "{\"a\":7,\"b\":\"\xff\"}",
	} {
		if err := Unmarshal([]byte(bad), &sample{}); !errors.Is(err, ErrForm) {
			t.Errorf("Unmarshal(%.40s) = %v, want ErrForm", bad, err)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"a":7,"b":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s sample
		if Unmarshal(data, &s) != nil {
			return
		}
		again, err := Marshal(s)
		if err != nil || string(again) != string(data) {
			t.Errorf("accepted %q, writes %q (%v)", data, again, err)
		}
	})
}
