package dir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/storage"
)

var _ storage.Prober = (*Store)(nil)

// Probes implements [storage.Prober]: what the file system must be and do, and which protection holds on it.
func (s *Store) Probes() []storage.Probe {
	return []storage.Probe{
		{Name: "local-file-system", Passive: true, Run: s.probeLocal},
		{Name: "one-file-system", Passive: true, Run: s.probeMounts},
		{Name: "folder-sync", Passive: true, Run: s.probeSync},
		{Name: "unnamed-files", Run: s.probeUnnamed},
		{Name: "immutable-flag", Run: s.probeFlag},
		{Name: "space", Passive: true, Run: s.probeSpace},
	}
}

func (s *Store) probeLocal(context.Context, string) storage.Outcome {
	kind, err := fileSystem(s.fd())
	switch {
	case err != nil:
		return storage.Untellable("statfs %s: %w", s.path, err)
	case kind.network:
		return storage.Breaks("%s is on %s", s.path, kind.name)
	case kind.name != "":
		return storage.Notes("%s is on %s", s.path, kind.name)
	default:
		return storage.Holds()
	}
}

func (s *Store) probeMounts(context.Context, string) storage.Outcome {
	mounts, err := mountPoints()
	if err != nil {
		return storage.Notes("mount points are not known: %w", err)
	}
	for _, m := range mounts {
		if strings.HasPrefix(m, strings.TrimSuffix(s.path, "/")+"/") {
			return storage.Breaks("%s is a mount point", m)
		}
	}
	return storage.Holds()
}

func (s *Store) probeSync(context.Context, string) storage.Outcome {
	if err := fsync(s.fd(), ""); err != nil {
		return storage.Breaks("fsync of %s: %w", s.path, err)
	}
	return storage.Holds()
}

func (s *Store) probeUnnamed(context.Context, string) storage.Outcome {
	if !s.unnamed {
		return storage.Notes("no O_TMPFILE here, or no /proc")
	}
	return storage.Holds()
}

// probeFlag makes an object and tries what the flag forbids, by the file system's own calls.
func (s *Store) probeFlag(ctx context.Context, room string) storage.Outcome {
	if !s.flags {
		return s.whyNoFlag()
	}
	key, data := room+"/a", []byte("immutable?")
	o := storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)}
	if err := s.Put(ctx, key, bytes.NewReader(data), o); err != nil {
		return storage.Untellable("create: %w", err)
	}
	return forbidden(path.Join(s.path, key))
}

// forbidden wants every change of a file to be refused.
func forbidden(file string) storage.Outcome {
	for _, attempt := range []struct {
		what string
		call func() error
	}{
		{"opened for writing", func() error {
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
			if err == nil {
				_ = f.Close()
			}
			return err
		}},
		{"renamed", func() error { return os.Rename(file, file+"-renamed") }},
		{"removed", func() error { return os.Remove(file) }},
	} {
		if err := attempt.call(); err == nil {
			return storage.Breaks("an object with the immutable flag could be %s", attempt.what)
		} else if !errors.Is(err, fs.ErrPermission) {
			return storage.Untellable("%w", err)
		}
	}
	return storage.Holds()
}

// whyNoFlag says why objects do not get the flag.
func (s *Store) whyNoFlag() storage.Outcome {
	if s.immutable == Off {
		return storage.Notes("switched off by store.immutable")
	}
	d, err := s.newDraft()
	if err != nil {
		return storage.Untellable("make a file: %w", err)
	}
	defer d.discard()
	switch err := setFlag(d.fd(), true); {
	case err == nil:
		_ = setFlag(d.fd(), false)
		return storage.Notes("it could not be set when the store was opened, and can now: start again")
	case errors.Is(err, unix.EPERM):
		return storage.Notes("this process may not set it: it lacks CAP_LINUX_IMMUTABLE")
	default:
		return storage.Notes("this file system does not know it: %w", err)
	}
}

// What is little: the rest of a file system that should make its administrator think.
const (
	fewBytes  = 1 << 30
	fewInodes = 100_000
	fewPart   = 20 // one part in so many
)

func (s *Store) probeSpace(context.Context, string) storage.Outcome {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(s.fd(), &st) }); err != nil {
		return storage.Untellable("statfs %s: %w", s.path, err)
	}
	block := uint64(st.Bsize) //nolint:unconvert // its type differs from system to system
	free, all := uint64(st.Bavail)*block, st.Blocks*block
	switch {
	case free < block || st.Files > 0 && st.Ffree == 0:
		return storage.Breaks("%w: %d MiB and %d inodes free of %d MiB and %d", storage.ErrFull, free>>20, st.Ffree, all>>20, st.Files)
	case free < fewBytes || free < all/fewPart, st.Files > 0 && (st.Ffree < fewInodes || st.Ffree < st.Files/fewPart):
		return storage.Notes("%d MiB of %d and %d inodes of %d are free", free>>20, all>>20, st.Ffree, st.Files)
	default:
		return storage.Holds()
	}
}

// kind says what a file system is: network ones are refused; a name alone is worth telling.
type kind struct {
	name    string
	network bool
}

// OnNetwork names the network file system on which a folder lies; "" where it lies on none that is known. What must survive
// the fall of a server, or be locked by one process, has no place there.
func OnNetwork(folder string) (name string, err error) {
	d, err := os.Open(folder)
	if err != nil {
		return "", err
	}
	defer func() { _ = d.Close() }()
	k, err := fileSystem(int(d.Fd())) //nolint:gosec // a descriptor fits
	if err != nil || !k.network {
		return "", err
	}
	return k.name, nil
}

// mountPoint undoes the escapes of mountinfo.
var mountPoint = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func mountPoints() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			return nil, fmt.Errorf("mountinfo: %q", line)
		}
		points = append(points, mountPoint.Replace(fields[4]))
	}
	return points, nil
}
