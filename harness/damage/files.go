package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/marchesud/perenne/archive/ledger"
	"github.com/marchesud/perenne/archive/seal"
)

// files damages the embedded store as root does: through its files, whatever its modes.
type files struct {
	root string
	*census
	twin   string // root of another installation's store, with the same documents under other keys
	random *rand.Rand
	taken  map[string]bool // keys that a wound of this round touches
}

// way is one way to damage. do damages the object key, or returns nil where that makes no sense for it.
type way struct {
	name string
	do   func(f *files, key string) (*wound, error)
	wide bool // it hurts many objects at once, or has effects beyond: never together with another
}

// ways are all of them.
var ways = []way{
	{"flip a bit", edit(func(f *files, b []byte) []byte {
		at := f.random.IntN(len(b) * 8)
		b[at/8] ^= 1 << (at % 8)
		return b
	}), false},
	{"flip many bits", edit(func(f *files, b []byte) []byte {
		for range 2 + f.random.IntN(20) {
			at := f.random.IntN(len(b) * 8)
			b[at/8] ^= 1 << (at % 8)
		}
		return b
	}), false},
	{"overwrite a block", edit(func(f *files, b []byte) []byte {
		at := f.random.IntN(len(b))
		for i := at; i < min(len(b), at+1+f.random.IntN(512)); i++ {
			b[i] = byte(f.random.Uint32())
		}
		return b
	}), false},
	{"zero a block", edit(func(f *files, b []byte) []byte {
		at := f.random.IntN(len(b))
		clear(b[at:min(len(b), at+1+f.random.IntN(4096))])
		return b
	}), false},
	{"truncate", edit(func(f *files, b []byte) []byte { return b[:f.random.IntN(len(b))] }), false},
	{"empty", edit(func(*files, []byte) []byte { return []byte{} }), false},
	{"extend", edit(func(f *files, b []byte) []byte { return append(b, f.noise(1+f.random.IntN(4096))...) }), false},
	{"extend by a newline", edit(func(_ *files, b []byte) []byte { return append(b, '\n') }), false},
	{"swap two halves", edit(func(f *files, b []byte) []byte {
		at := f.random.IntN(len(b))
		return append(slices.Clone(b[at:]), b[:at]...)
	}), false},
	{"replace by noise of the same size", edit(func(f *files, b []byte) []byte { return f.noise(len(b)) }), false},
	{"delete", func(f *files, key string) (*wound, error) {
		return f.hurt([]string{key}, func() error { return os.Remove(f.path(key)) })
	}, false},
	{"replace by another object of the kind", replace(func(f *files, key string) string { return f.pick(f.of[kindOf(key)], key) }), false},
	{"replace by an object of another kind", replace(func(f *files, key string) string { return f.pick(f.keys, key) }), false},
	{"replace by an older object", replace((*files).older), false},
	{"replace by another producer's object", replace((*files).foreignTwin), false},
	{"replace by the same object of another installation", func(f *files, key string) (*wound, error) {
		b, err := os.ReadFile(filepath.Join(f.twin, key))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return f.rewrite(key, b)
	}, false},
	{"swap with another object of the kind", func(f *files, key string) (*wound, error) {
		other := f.pick(f.of[kindOf(key)], key)
		if other == "" || f.equal(key, other) {
			return nil, nil
		}
		return f.hurt([]string{key, other}, func() error {
			aside := f.path(key) + ".aside"
			return errors.Join(os.Rename(f.path(key), aside), os.Rename(f.path(other), f.path(key)), os.Rename(aside, f.path(other)))
		})
	}, false},
	{"rename in its folder", func(f *files, key string) (*wound, error) {
		to := filepath.Dir(key) + "/" + f.name()
		return f.hurt([]string{key, to}, func() error { return os.Rename(f.path(key), f.path(to)) })
	}, false},
	{"move to another room", func(f *files, key string) (*wound, error) {
		to := f.place()
		return f.hurt([]string{key, to}, func() error {
			return errors.Join(os.MkdirAll(filepath.Dir(f.path(to)), 0o755), os.Rename(f.path(key), f.path(to)))
		})
	}, false},
	{"hard link of another object in its place", func(f *files, key string) (*wound, error) {
		other := f.pick(f.of[kindOf(key)], key)
		if other == "" || f.equal(key, other) {
			return nil, nil
		}
		return f.hurt([]string{key}, func() error { return errors.Join(os.Remove(f.path(key)), os.Link(f.path(other), f.path(key))) })
	}, false},
	{"symbolic link to its own bytes in its place", func(f *files, key string) (*wound, error) {
		return f.hurt([]string{key}, func() error {
			aside := filepath.Join(filepath.Dir(f.root), "aside-"+f.name())
			return errors.Join(os.Rename(f.path(key), aside), os.Symlink(aside, f.path(key)))
		})
	}, false},
	{"symbolic link to another object in its place", func(f *files, key string) (*wound, error) {
		other := f.pick(f.of[kindOf(key)], key)
		if other == "" {
			return nil, nil
		}
		return f.hurt([]string{key}, func() error { return errors.Join(os.Remove(f.path(key)), os.Symlink(f.path(other), f.path(key))) })
	}, false},
	{"symbolic link to nothing in its place", func(f *files, key string) (*wound, error) {
		return f.hurt([]string{key}, func() error { return errors.Join(os.Remove(f.path(key)), os.Symlink("/nonexistent", f.path(key))) })
	}, false},
	{"pipe in its place", func(f *files, key string) (*wound, error) {
		return f.hurt([]string{key}, func() error { return errors.Join(os.Remove(f.path(key)), syscall.Mkfifo(f.path(key), 0o644)) })
	}, false},
	{"empty folder in its place", func(f *files, key string) (*wound, error) {
		return f.hurt([]string{key}, func() error { return errors.Join(os.Remove(f.path(key)), os.Mkdir(f.path(key), 0o755)) })
	}, false},
	{"folder with the object in it in its place", func(f *files, key string) (*wound, error) {
		inner := key + "/" + filepath.Base(key)
		return f.hurt([]string{key, inner}, func() error {
			b, err := os.ReadFile(f.path(key))
			return errors.Join(err, os.Remove(f.path(key)), os.Mkdir(f.path(key), 0o755), os.WriteFile(f.path(inner), b, 0o444))
		})
	}, false},
	{"take away every permission", harmless(func(path string) error { return os.Chmod(path, 0) }), false}, // root reads it all the same
	{"make writable", harmless(func(path string) error { return os.Chmod(path, 0o666) }), false},
	{"give to another owner", harmless(func(path string) error { return os.Chown(path, 65534, 65534) }), false},
	{"touch", harmless(func(path string) error { return os.Chtimes(path, time.Unix(0, 0), time.Unix(0, 0)) }), false},
	{"add a foreign object", (*files).foreign, false},
	{"add a symbolic link to an object", func(f *files, key string) (*wound, error) {
		to := f.place()
		return f.hurt([]string{to}, func() error {
			return errors.Join(os.MkdirAll(filepath.Dir(f.path(to)), 0o755), os.Symlink(f.path(key), f.path(to)))
		})
	}, false},
	{"add a hard link of an object", func(f *files, key string) (*wound, error) {
		to := f.place()
		return f.hurt([]string{to}, func() error {
			return errors.Join(os.MkdirAll(filepath.Dir(f.path(to)), 0o755), os.Link(f.path(key), f.path(to)))
		})
	}, false},
	{"add a package of another producer", func(f *files, key string) (*wound, error) {
		if kindOf(key) != "package" {
			return nil, nil
		}
		to := f.otherBody(owner(key)) + strings.TrimPrefix(key, owner(key))
		if f.seen[to] {
			return nil, nil
		}
		return f.copied(key, to, []string{to}, nil)
	}, false},
	{"add a second copy of a package", func(f *files, key string) (*wound, error) {
		to, ok := strings.CutSuffix(key, ".asice")
		if kindOf(key) != "package" || !ok {
			return nil, nil
		}
		return f.copied(key, to+".2.asice", nil, []string{to + ".2.asice"})
	}, false},
	{"add a commit after the last", func(f *files, key string) (*wound, error) {
		if kindOf(key) != "commit" {
			return nil, nil
		}
		next := ledger.Key(owner(key), int64(len(inRoom(f.of["commit"], owner(key)+"/")))+1_000)
		return f.copied(key, next, []string{next}, nil)
	}, true}, // the producer stands still
	{"add a seal after the last", func(f *files, key string) (*wound, error) {
		if kindOf(key) != "seal" {
			return nil, nil
		}
		next := seal.Key(int64(len(f.of["seal"])) + 1_000)
		return f.copied(key, next, []string{next}, nil)
	}, false},
	{"add an empty folder", func(f *files, key string) (*wound, error) {
		path := filepath.Dir(f.path(key)) + "/" + f.name()
		return &wound{undo: func() error { return os.Remove(path) }}, os.Mkdir(path, 0o755)
	}, false},
	{"rename a folder", func(f *files, key string) (*wound, error) {
		return f.folder(key, func(path string) (string, error) {
			aside := filepath.Join(filepath.Dir(f.root), "aside-"+f.name())
			return aside, os.Rename(path, aside)
		})
	}, true},
	{"symbolic link to a folder's copy in its place", func(f *files, key string) (*wound, error) {
		w, err := f.folder(key, func(path string) (string, error) {
			aside := filepath.Join(filepath.Dir(f.root), "aside-"+f.name())
			return aside, errors.Join(os.Rename(path, aside), os.Symlink(aside, path))
		})
		if w != nil {
			w.must = append(w.must, filepath.Dir(key))
		}
		return w, err
	}, true},
	{"file in a folder's place", func(f *files, key string) (*wound, error) {
		w, err := f.folder(key, func(path string) (string, error) {
			aside := filepath.Join(filepath.Dir(f.root), "aside-"+f.name())
			return aside, errors.Join(os.Rename(path, aside), os.WriteFile(path, []byte("x"), 0o444))
		})
		if w != nil {
			w.must = append(w.must, filepath.Dir(key))
		}
		return w, err
	}, true},
	{"roll a ledger back", func(f *files, key string) (*wound, error) {
		if kindOf(key) != "commit" {
			return nil, nil
		}
		all := f.now(owner(key) + "/ledger")
		gone := all[len(all)-1-f.random.IntN(5):]
		return f.hurt(gone, func() (err error) {
			for _, k := range gone {
				err = errors.Join(err, os.Remove(f.path(k)))
			}
			return err
		})
	}, true},
	{"roll the seals back", func(f *files, key string) (*wound, error) {
		if kindOf(key) != "seal" {
			return nil, nil
		}
		all := f.now("evidence")
		gone := all[len(all)-1-f.random.IntN(5):]
		return f.hurt(gone, func() (err error) {
			for _, k := range gone {
				err = errors.Join(err, os.Remove(f.path(k)))
			}
			return err
		})
	}, true},
}

// edit changes the bytes of an object.
func edit(change func(*files, []byte) []byte) func(*files, string) (*wound, error) {
	return func(f *files, key string) (*wound, error) {
		b, err := os.ReadFile(f.path(key))
		if err != nil || len(b) == 0 {
			return nil, err
		}
		return f.rewrite(key, change(f, slices.Clone(b)))
	}
}

// replace gives an object the bytes of another.
func replace(by func(*files, string) string) func(*files, string) (*wound, error) {
	return func(f *files, key string) (*wound, error) {
		other := by(f, key)
		if other == "" || f.taken[other] {
			return nil, nil
		}
		b, err := os.ReadFile(f.path(other))
		if errors.Is(err, fs.ErrNotExist) && f.taken[other] { // hurt in this round already
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return f.rewrite(key, b)
	}
}

// harmless does something to a file that leaves the object what it is.
func harmless(do func(path string) error) func(*files, string) (*wound, error) {
	return func(f *files, key string) (*wound, error) {
		w, err := f.hurt([]string{key}, func() error { return do(f.path(key)) })
		if w != nil {
			w.must = nil
		}
		return w, err
	}
}

func (f *files) path(key string) string { return filepath.Join(f.root, key) }

func (f *files) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(f.random.Uint32())
	}
	return b
}

// pick chooses one of keys that is not key; "" when there is none.
func (f *files) pick(keys []string, key string) string {
	for range min(10, 10*len(keys)) {
		if other := keys[f.random.IntN(len(keys))]; other != key && !f.taken[other] {
			return other
		}
	}
	return ""
}

// older is an object of the kind and of the body that is older, as far as names tell.
func (f *files) older(key string) string {
	all := inRoom(f.of[kindOf(key)], owner(key))
	at := slices.Index(all, key)
	if at <= 0 {
		return ""
	}
	return all[f.random.IntN(at)]
}

// foreignTwin is an object of another body under, if there is one, the same name.
func (f *files) foreignTwin(key string) string {
	if owner(key) == "" {
		return ""
	}
	other := f.otherBody(owner(key))
	if same := other + strings.TrimPrefix(key, owner(key)); f.seen[same] {
		return same
	}
	all := inRoom(f.of[kindOf(key)], other+"/")
	if len(all) == 0 {
		return ""
	}
	return all[f.random.IntN(len(all))]
}

func (f *files) otherBody(code string) string {
	return bodies[(slices.Index(bodies, code)+1)%len(bodies)]
}

func inRoom(keys []string, prefix string) []string {
	var list []string
	for _, k := range keys {
		if strings.HasPrefix(k, prefix) {
			list = append(list, k)
		}
	}
	return list
}

func (f *files) equal(a, b string) bool {
	x, err1 := os.ReadFile(f.path(a))
	y, err2 := os.ReadFile(f.path(b))
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// name is a name that no object has, now and then one outside of our alphabet.
func (f *files) name() string {
	n := fmt.Sprintf("%x", f.random.Uint64())
	switch f.random.IntN(6) {
	case 0:
		return "Copia di " + n
	case 1:
		return "." + n
	case 2:
		return n + ".bak"
	case 3:
		return "è-" + n + "~"
	}
	return n
}

// place is a key under which nothing of ours may lie, in any room or outside of all.
func (f *files) place() string {
	p := bodies[f.random.IntN(len(bodies))]
	n := f.name()
	return []string{
		n, n + "/" + f.name(), p + "/" + n, p + "/" + n + "/" + f.name(), p + "/packages/" + n, p + "/packages/aa/" + n + ".asice", p + "/ledger/" + n,
		p + "/ledger/0000000000000000/" + n, p + "/tiles/" + n, p + "/tiles/tile/0/" + n, p + "/tiles/tile/entries/" + n, p + "/catalog/" + n,
		p + "/catalog/0000000000000000/" + n, p + "/reports/2026/" + n, p + "/refusals/2026/" + n, p + "/records/" + n, p + "/records/2026/" + n,
		"evidence/" + n, "evidence/0000000000000000/" + n, "keys/" + n, fmt.Sprintf("keys/%064x", f.random.Uint64()),
	}[f.random.IntN(21)]
}

// foreign adds an object nobody asked for: noise, or the bytes of one of ours.
func (f *files) foreign(key string) (*wound, error) {
	to := f.place()
	if f.random.IntN(2) == 0 {
		return f.copied(key, to, []string{to}, nil)
	}
	return f.hurt([]string{to}, func() error { return f.write(to, f.noise(f.random.IntN(3000))) })
}

// copied adds a copy of an object under another key.
func (f *files) copied(key, to string, must, orphans []string) (*wound, error) {
	b, err := os.ReadFile(f.path(key))
	if err != nil {
		return nil, err
	}
	w, err := f.hurt([]string{to}, func() error { return f.write(to, b) })
	if w != nil {
		w.must, w.orphans = must, orphans
	}
	return w, err
}

// write puts bytes under a key, whatever lies there.
func (f *files) write(key string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(f.path(key)), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(f.path(key)); err != nil {
		return err
	}
	return os.WriteFile(f.path(key), b, 0o444)
}

// rewrite gives an object other bytes; nil when they are the same.
func (f *files) rewrite(key string, b []byte) (*wound, error) {
	if was, err := os.ReadFile(f.path(key)); err != nil || bytes.Equal(was, b) {
		return nil, err
	}
	return f.hurt([]string{key}, func() error { return f.write(key, b) })
}

// hurt does something to keys and knows how to undo it. Nothing is held against records.
func (f *files) hurt(keys []string, do func() error) (*wound, error) {
	w := &wound{}
	before := make([][]byte, len(keys))
	for i, key := range keys {
		b, err := os.ReadFile(f.path(key))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return nil, err
		}
		if before[i] = b; err == nil && b == nil {
			before[i] = []byte{}
		}
		if !(kindOf(key) == "record" && f.seen[key]) {
			w.must = append(w.must, key)
		}
	}
	w.undo = func() error {
		var errs []error
		for i, key := range keys {
			if before[i] == nil {
				errs = append(errs, os.RemoveAll(f.path(key)))
				f.prune(filepath.Dir(key))
			}
		}
		for i, key := range keys {
			if before[i] != nil {
				errs = append(errs, f.write(key, before[i]))
			}
		}
		return errors.Join(errs...)
	}
	return w, do()
}

// prune removes the empty folders from key upwards.
func (f *files) prune(key string) {
	for key != "." && os.Remove(f.path(key)) == nil {
		key = filepath.Dir(key)
	}
}

// now is what lies in a folder at this moment: the archive goes on while it is damaged.
func (f *files) now(at string) []string {
	var list []string
	_ = filepath.WalkDir(f.path(at), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(path, f.root+"/"))
		}
		return err
	})
	return list
}

// folder does something to the folder that holds an object, which moves it aside; everything in it is hurt.
func (f *files) folder(key string, move func(path string) (aside string, err error)) (*wound, error) {
	at := filepath.Dir(key)
	w := &wound{}
	for _, k := range f.now(at) {
		if kindOf(k) != "record" {
			w.must = append(w.must, k)
		}
	}
	aside, err := move(f.path(at))
	w.undo = func() error {
		// What the archive has made again since then is the same, or was never there.
		return errors.Join(os.RemoveAll(f.path(at)), os.MkdirAll(filepath.Dir(f.path(at)), 0o755), os.Rename(aside, f.path(at)))
	}
	return w, err
}
