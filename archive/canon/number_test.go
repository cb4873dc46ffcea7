package canon

import (
	"errors"
	"math"
	"strconv"
	"testing"
)

func TestMarshalKeepsEveryNumberOrRefusesIt(t *testing.T) {
	for _, n := range []int64{0, 1, -1, 1<<53 - 1, -(1<<53 - 1)} {
		got, err := Marshal(map[string]int64{"n": n})
		if want := `{"n":` + strconv.FormatInt(n, 10) + `}`; err != nil || string(got) != want {
			t.Errorf("Marshal(%d): got %s, %v, want %s", n, got, err, want)
		}
	}
	for _, v := range []any{int64(1 << 53), int64(1<<53 + 1), int64(-1 << 53), int64(math.MaxInt64), uint64(math.MaxUint64), 1.5, 1e300} {
		if got, err := Marshal([]any{"1e9", v}); err == nil {
			t.Errorf("Marshal(%v): got %s, want an error", v, got)
		}
	}
}

func TestMarshalTakesNoStringForANumber(t *testing.T) {
	in := map[string]string{`9007199254740993`: `\"9007199254740993`, `a"b`: "1.5", `-1e5\`: `\\`}
	text, err := Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(in) || got["a\"b"] != "1.5" {
		t.Errorf("got %v, want %v", got, in)
	}
}

func TestUnmarshalRefusesNumbersThatOtherReadersRound(t *testing.T) {
	for _, bad := range []string{`{"a":9007199254740992,"b":"x"}`, `{"a":9007199254740993,"b":"x"}`, `{"a":-9007199254740993,"b":"x"}`} {
		if err := Unmarshal([]byte(bad), &sample{}); !errors.Is(err, ErrForm) {
			t.Errorf("Unmarshal(%s): got %v, want ErrForm", bad, err)
		}
	}
}
