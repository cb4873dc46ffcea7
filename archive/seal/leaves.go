package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// leaves keeps the leaves of seals in local files, so that the evidence of one body does not hang on the commits of
// all others that share its seal. The file "digests" holds them one after the other, 32 bytes each; the file
// "places" holds, at 16 times a seal's number, where its own begin and how many they are (8 bytes each, big endian;
// zeros: not kept). Nothing is fsynced and nothing is believed: whoever reads holds the leaves against the root of
// their seal, and what is missing is computed from the ledgers again.
type leaves struct {
	mu      sync.Mutex
	digests *os.File
	places  *os.File
}

const (
	digestSize = 32
	placeSize  = 16
)

func openLeaves(dir string) (*leaves, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l := &leaves{}
	var err error
	if l.digests, err = os.OpenFile(filepath.Join(dir, "digests"), os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return nil, err
	}
	if l.places, err = os.OpenFile(filepath.Join(dir, "places"), os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return nil, errors.Join(err, l.digests.Close())
	}
	return l, nil
}

func (l *leaves) close() error { return errors.Join(l.digests.Close(), l.places.Close()) }

// put keeps the leaves of seal n behind all others. A crash half-way leaves digests without a place.
func (l *leaves) put(n int64, list [][32]byte) error {
	b := make([]byte, 0, len(list)*digestSize)
	for i := range list {
		b = append(b, list[i][:]...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	end, err := l.digests.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("keep leaves of seal %d: %w", n, err)
	}
	first := (end + digestSize - 1) / digestSize // behind what a crash has torn
	if _, err := l.digests.WriteAt(b, first*digestSize); err != nil {
		return fmt.Errorf("keep leaves of seal %d: %w", n, err)
	}
	place := binary.BigEndian.AppendUint64(make([]byte, 0, placeSize), uint64(first))
	place = binary.BigEndian.AppendUint64(place, uint64(len(list)))
	if _, err := l.places.WriteAt(place, n*placeSize); err != nil {
		return fmt.Errorf("keep leaves of seal %d: %w", n, err)
	}
	return nil
}

// get returns the want leaves kept for seal n, unchecked; none when there are not as many.
func (l *leaves) get(n, want int64) [][32]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	place := make([]byte, placeSize)
	if _, err := l.places.ReadAt(place, n*placeSize); err != nil {
		return nil
	}
	first, count := int64(binary.BigEndian.Uint64(place)), int64(binary.BigEndian.Uint64(place[8:]))
	st, err := l.digests.Stat()
	if err != nil || count != want || first < 0 || first > st.Size()/digestSize-count {
		return nil
	}
	b := make([]byte, count*digestSize)
	if _, err := l.digests.ReadAt(b, first*digestSize); err != nil {
		return nil
	}
	list := make([][32]byte, count)
	for i := range list {
		list[i] = [32]byte(b[i*digestSize:])
	}
	return list
}
