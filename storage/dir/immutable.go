package dir

import "fmt"

// Immutable says whether objects get the immutable flag of the file system.
type Immutable int

const (
	// Auto sets it where the file system and the rights of the process allow it.
	Auto Immutable = iota
	// On sets it, and refuses to open a store where that is not possible.
	On
	// Off does not set it. Flags that are there already stay, and are cleared by Erase where possible.
	Off
)

// ParseImmutable reads "auto", "on" or "off"; "" is auto.
func ParseImmutable(s string) (Immutable, error) {
	switch s {
	case "", "auto":
		return Auto, nil
	case "on":
		return On, nil
	case "off":
		return Off, nil
	}
	return Auto, fmt.Errorf("immutable: %q is none of auto, on, off", s)
}

// String is what ParseImmutable reads.
func (i Immutable) String() string {
	switch i {
	case On:
		return "on"
	case Off:
		return "off"
	default:
		return "auto"
	}
}
