package storage_test

import (
	"errors"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/marchesud/perenne/storage"
)

func TestValidKey(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, test := range []struct {
		key  string
		good bool
	}{
		{"a", true},
		{"c_x901/packages/k3/k3f.asice", true},
		{"evidence/0000000000000000/0000", true},
		{"a/b.c/-d/_e", true},
		{"a..b", true},
		{long, true},
		{long + "/" + long + "/" + long + "/" + long[:197], true},
		{long + "/" + long + "/" + long + "/" + long[:198], false},
		{long + "x", false},
		{"", false},
		{"/", false},
		{"/a", false},
		{"a/", false},
		{"a//b", false},
		{".", false},
		{"..", false},
		{"a/../b", false},
		{".tmp", false},
		{"a/.b", false},
		{"a b", false},
		{"a\\b", false},
		{"a\x00b", false},
		{"città", false},
		{"a\nb", false},
		{"a%2Fb", false},
		{"a:b", false},
		{"a~", false},
	} {
		err := storage.ValidKey(test.key)
		if test.good && err != nil {
			t.Errorf("ValidKey(%q): got %v, want nil", test.key, err)
		}
		if !test.good && !errors.Is(err, storage.ErrKey) {
			t.Errorf("ValidKey(%q): got %v, want ErrKey", test.key, err)
		}
	}
}

func TestReplaceable(t *testing.T) {
	for key, want := range map[string]bool{
		"c_x901/tiles/tile/0/000":           true,
		"c_x901/catalog/0/12.1":             true,
		"c_x901/records/2026/k3f":           true,
		"c_x901/tiles":                      false,
		"c_x901/tiles/":                     false,
		"tiles/a/b":                         false,
		"/tiles/a":                          false,
		"c_x901/packages/tiles/a.asice":     false,
		"c_x901/packages/k3/k3f.asice":      false,
		"c_x901/tilesx/a":                   false,
		"evidence/0000000000000000/0000":    false,
		"c_x901/ledger/0000000000000000/01": false,
	} {
		if got := storage.Replaceable(key); got != want {
			t.Errorf("Replaceable(%q): got %v, want %v", key, got, want)
		}
	}
}

// FuzzValidKey holds ValidKey to the sentence in the package comment, written a second time as an expression.
func FuzzValidKey(f *testing.F) {
	sentence := regexp.MustCompile(`^[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,199}(/[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,199})*$`)
	for _, seed := range []string{"a", "a/b", "a/../b", ".", "", "a//b", "/a", "a/", "à", "a\x00", strings.Repeat("a/", 399) + "b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		err := storage.ValidKey(key)
		want := len(key) <= 800 && sentence.MatchString(key) && !strings.HasSuffix(key, "\n")
		if got := err == nil; got != want {
			t.Fatalf("ValidKey(%q): got %v, want valid = %v", key, err, want)
		}
		if err != nil && !errors.Is(err, storage.ErrKey) {
			t.Fatalf("ValidKey(%q): got %v, want an ErrKey", key, err)
		}
		if err == nil && (path.Clean(key) != key || !filepath.IsLocal(key)) {
			t.Fatalf("ValidKey(%q): accepted, but it is no clean local path", key)
		}
	})
}
