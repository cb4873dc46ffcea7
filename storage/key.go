package storage

import (
	"fmt"
	"strings"
)

// ValidKey reports, as an ErrKey, what is wrong with a key; nil when it is well formed.
func ValidKey(key string) error {
	if key == "" || len(key) > 800 {
		return fmt.Errorf("%w: %d bytes long, want 1 to 800", ErrKey, len(key))
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || len(part) > 200 {
			return fmt.Errorf("%w: %q has a component of %d bytes, want 1 to 200", ErrKey, key, len(part))
		}
		if part[0] == '.' {
			return fmt.Errorf("%w: %q has a component that starts with a dot", ErrKey, key)
		}
		for _, c := range []byte(part) {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
			default:
				return fmt.Errorf("%w: %q contains %q", ErrKey, key, c)
			}
		}
	}
	return nil
}

// Replaceable tells whether key names an object that [Replacer] may overwrite and that no store locks: one
// under "tiles", "catalog" or "records" of a producer. They can be derived again, or must be erasable.
func Replaceable(key string) bool {
	producer, rest, _ := strings.Cut(key, "/")
	kind, name, _ := strings.Cut(rest, "/")
	return producer != "" && name != "" && (kind == "tiles" || kind == "catalog" || kind == "records")
}
