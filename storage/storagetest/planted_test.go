package storagetest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"iter"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/storagetest"
)

// faulty is a Mem with one method gone wrong.
type faulty struct {
	*storagetest.Mem
	put     func(context.Context, string, io.ReaderAt, storage.PutOptions) error
	get     func(context.Context, string, string, int64, int64) (io.ReadCloser, error)
	stat    func(context.Context, string) (storage.Object, error)
	list    func(context.Context, string, string) iter.Seq2[storage.Version, error]
	erase   func(context.Context, string, string, string) error
	restore func(context.Context, string, io.ReaderAt, storage.PutOptions) error
	replace func(context.Context, string, io.ReaderAt, storage.PutOptions) error
	extend  func(context.Context, string, string, time.Time) error
	stage   func(context.Context) (storage.Staged, error)
	unnamed bool
}

func (f *faulty) Put(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if f.put != nil {
		return f.put(ctx, key, r, o)
	}
	return f.Mem.Put(ctx, key, r, o)
}

func (f *faulty) Get(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
	if f.get != nil {
		return f.get(ctx, key, version, offset, n)
	}
	return f.Mem.Get(ctx, key, version, offset, n)
}

func (f *faulty) Stat(ctx context.Context, key string) (storage.Object, error) {
	if f.stat != nil {
		return f.stat(ctx, key)
	}
	return f.Mem.Stat(ctx, key)
}

func (f *faulty) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
	if f.list != nil {
		return f.list(ctx, prefix, after)
	}
	return f.Mem.List(ctx, prefix, after)
}

func (f *faulty) Erase(ctx context.Context, key, version, why string) error {
	if f.erase != nil {
		return f.erase(ctx, key, version, why)
	}
	return f.Mem.Erase(ctx, key, version, why)
}

func (f *faulty) Restore(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if f.restore != nil {
		return f.restore(ctx, key, r, o)
	}
	return f.Mem.Restore(ctx, key, r, o)
}

func (f *faulty) Replace(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
	if f.replace != nil {
		return f.replace(ctx, key, r, o)
	}
	return f.Mem.Replace(ctx, key, r, o)
}

func (f *faulty) Extend(ctx context.Context, key, version string, until time.Time) error {
	if f.extend != nil {
		return f.extend(ctx, key, version, until)
	}
	return f.Mem.Extend(ctx, key, version, until)
}

func (f *faulty) Stage(ctx context.Context) (storage.Staged, error) {
	if f.stage != nil {
		return f.stage(ctx)
	}
	return f.Mem.Stage(ctx)
}

func (f *faulty) Protection() string {
	if f.unnamed {
		return ""
	}
	return f.Mem.Protection()
}

// all reads what r has of the size announced.
func all(r io.ReaderAt, o storage.PutOptions) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(r, 0, max(0, o.Size)))
}

// truthful announces data as it is.
func truthful(data []byte) storage.PutOptions {
	return storage.PutOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data)}
}

// spoiled plants a listing that a bug has passed through.
func (f *faulty) spoiled(spoil func([]storage.Version) []storage.Version) {
	f.list = func(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
		return func(yield func(storage.Version, error) bool) {
			var vs []storage.Version
			for v, err := range f.Mem.List(ctx, prefix, after) {
				if err != nil {
					yield(v, err)
					return
				}
				vs = append(vs, v)
			}
			for _, v := range spoil(vs) {
				if !yield(v, nil) {
					return
				}
			}
		}
	}
}

// rewritten plants a Put that changes what it is given before the true one sees it.
func (f *faulty) rewritten(change func(data []byte, o *storage.PutOptions) []byte) {
	f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
		if _, ok := r.(storage.Staged); ok {
			return f.Mem.Put(ctx, key, r, o)
		}
		data, err := all(r, o)
		if err != nil {
			return err
		}
		data = change(data, &o)
		return f.Mem.Put(ctx, key, bytes.NewReader(data), o)
	}
}

// forced puts data over what is there.
func (f *faulty) forced(key string, data []byte) error {
	if f.Bytes(key) != nil {
		f.Overwrite(key, data)
		return nil
	}
	f.Plant(key, data)
	return nil
}

// lateStaged takes bytes after Seal.
type lateStaged struct{ storage.Staged }

func (s lateStaged) WriteAt(p []byte, off int64) (int, error) {
	_, _ = s.Staged.WriteAt(p, off)
	return len(p), nil
}

// plants are the bugs: each with the check that must find it.
var plants = []struct {
	bug, check string
	plant      func(f *faulty)
}{
	{"object is visible before it is whole", "slow-put-is-invisible-and-loses-to-a-fast-one", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if storage.ValidKey(key) != nil || f.Bytes(key) != nil {
				return f.Mem.Put(ctx, key, r, o)
			}
			f.Plant(key, []byte{})
			data, err := all(r, o)
			if err != nil || sha256.Sum256(data) != o.SHA256 {
				f.Mem.Delete(key)
				return storage.ErrDigest
			}
			return f.forced(key, data)
		}
	}},
	{"short write is accepted", "other-bytes-than-announced-are-refused", func(f *faulty) {
		f.rewritten(func(data []byte, o *storage.PutOptions) []byte {
			if int64(len(data)) < o.Size {
				*o = truthful(data)
			}
			return data
		})
	}},
	{"size is not compared", "other-bytes-than-announced-are-refused", func(f *faulty) {
		f.rewritten(func(data []byte, o *storage.PutOptions) []byte {
			if o.SHA256 == sha256.Sum256(data) {
				o.Size = int64(len(data))
			}
			return data
		})
	}},
	{"digest is not compared", "other-bytes-than-announced-are-refused", func(f *faulty) {
		f.rewritten(func(data []byte, o *storage.PutOptions) []byte {
			if int64(len(data)) == o.Size {
				*o = truthful(data)
			}
			return data
		})
	}},
	{"last byte is lost", "created-object-reads-back", func(f *faulty) {
		f.rewritten(func(data []byte, o *storage.PutOptions) []byte {
			if len(data) > 65536 && int64(len(data)) == o.Size {
				data = data[:len(data)-1]
				*o = truthful(data)
			}
			return data
		})
	}},
	{"second put overwrites", "second-put-is-refused", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			err := f.Mem.Put(ctx, key, r, o)
			if errors.Is(err, storage.ErrExists) {
				data, _ := all(r, o)
				f.Overwrite(key, data)
			}
			return err
		}
	}},
	{"second put of the same bytes succeeds", "second-put-is-refused", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			err := f.Mem.Put(ctx, key, r, o)
			if errors.Is(err, storage.ErrExists) && sha256.Sum256(f.Bytes(key)) == o.SHA256 {
				return nil
			}
			return err
		}
	}},
	{"condition is looked at before the bytes arrive", "slow-put-is-invisible-and-loses-to-a-fast-one", earlyCondition},
	{"condition is looked at before the bytes arrive", "of-concurrent-puts-one-wins", earlyCondition},
	{"concurrent puts in one folder fail", "concurrent-puts-share-new-directories", func(f *faulty) {
		var busy atomic.Int32
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if busy.Add(1) > 1 && strings.Contains(key, "/a/b/c/") {
				busy.Add(-1)
				return errors.New("folder is busy")
			}
			time.Sleep(time.Millisecond)
			defer busy.Add(-1)
			return f.Mem.Put(ctx, key, r, o)
		}
	}},
	{"bytes stay the caller's", "put-keeps-no-hold-on-the-callers-bytes", func(f *faulty) {
		var readers sync.Map
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			err := f.Mem.Put(ctx, key, r, o)
			if err == nil {
				readers.Store(key, io.NewSectionReader(r, 0, o.Size))
			}
			return err
		}
		f.get = func(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
			if r, ok := readers.Load(key); ok && offset == 0 && n < 0 {
				return io.NopCloser(r.(*io.SectionReader)), nil
			}
			return f.Mem.Get(ctx, key, version, offset, n)
		}
	}},
	{"what was read before a failure stays", "failed-reader-leaves-nothing", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			err := f.Mem.Put(ctx, key, r, o)
			if data, failed := all(r, o); failed != nil {
				f.Plant(key, data)
			}
			return err
		}
	}},
	{"reader's failure is taken for its end", "failed-reader-leaves-nothing", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if data, err := all(r, o); err != nil {
				f.Plant(key, data)
				return nil
			}
			return f.Mem.Put(ctx, key, r, o)
		}
	}},
	{"put ignores its context", "cancelled-put-leaves-nothing", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			return f.Mem.Put(context.WithoutCancel(ctx), key, r, o)
		}
	}},
	{"put looks at its context only once", "cancelled-put-leaves-nothing", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f.Mem.Put(context.WithoutCancel(ctx), key, r, o)
		}
	}},
	{"keys are cleaned instead of refused", "keys-outside-the-alphabet-are-refused", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			return f.Mem.Put(ctx, strings.TrimPrefix(path.Clean(key), "/"), r, o)
		}
	}},
	{"object gives way to a folder", "key-under-an-object-hurts-nothing", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if parent := path.Dir(key); f.Bytes(parent) != nil {
				f.Mem.Delete(parent)
			}
			return f.Mem.Put(ctx, key, r, o)
		}
	}},
	{"range is one byte short", "ranges", func(f *faulty) {
		f.get = func(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
			return f.Mem.Get(ctx, key, version, offset, max(n-1, -1))
		}
	}},
	{"offset is ignored", "ranges", func(f *faulty) {
		f.get = func(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
			return f.Mem.Get(ctx, key, version, 0, n)
		}
	}},
	{"range beyond the end is an error", "ranges", func(f *faulty) {
		f.get = func(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
			if offset > int64(len(f.Bytes(key))) {
				return nil, errors.New("range not satisfiable")
			}
			return f.Mem.Get(ctx, key, version, offset, n)
		}
	}},
	{"missing object is empty", "missing-object-is-not-found", func(f *faulty) {
		f.get = func(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
			r, err := f.Mem.Get(ctx, key, version, offset, n)
			if errors.Is(err, storage.ErrNotFound) {
				return io.NopCloser(strings.NewReader("")), nil
			}
			return r, err
		}
	}},
	{"missing object is an error of another kind", "missing-object-is-not-found", func(f *faulty) {
		f.stat = func(ctx context.Context, key string) (storage.Object, error) {
			o, err := f.Mem.Stat(ctx, key)
			if err != nil {
				err = errors.New("500 internal server error")
			}
			return o, err
		}
	}},
	{"version is ignored", "missing-object-is-not-found", func(f *faulty) {
		f.get = func(ctx context.Context, key, _ string, offset, n int64) (io.ReadCloser, error) {
			return f.Mem.Get(ctx, key, "", offset, n)
		}
	}},
	{"stat tells another size", "created-object-reads-back", func(f *faulty) {
		f.stat = func(ctx context.Context, key string) (storage.Object, error) {
			o, err := f.Mem.Stat(ctx, key)
			o.Size++
			return o, err
		}
	}},
	{"reader outlives its context", "cancelled-reads-end", func(f *faulty) {
		f.get = func(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
			return f.Mem.Get(context.WithoutCancel(ctx), key, version, offset, n)
		}
	}},
	{"cancelled listing looks empty", "cancelled-reads-end", func(f *faulty) {
		f.list = func(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
			if ctx.Err() != nil {
				return func(func(storage.Version, error) bool) {}
			}
			return f.Mem.List(ctx, prefix, after)
		}
	}},
	{"list is unordered", "listing-is-ordered-and-resumes", func(f *faulty) {
		f.spoiled(func(vs []storage.Version) []storage.Version {
			if len(vs) > 3 {
				vs[1], vs[2] = vs[2], vs[1]
			}
			return vs
		})
	}},
	{"list is in the order of a walk through folders", "listing-is-ordered-and-resumes", func(f *faulty) {
		f.spoiled(func(vs []storage.Version) []storage.Version {
			slices.SortFunc(vs, func(a, b storage.Version) int {
				return slices.Compare(strings.Split(a.Key, "/"), strings.Split(b.Key, "/"))
			})
			return vs
		})
	}},
	{"list ends one too early", "listing-is-ordered-and-resumes", func(f *faulty) {
		f.spoiled(func(vs []storage.Version) []storage.Version {
			if len(vs) > 20 {
				vs = vs[:len(vs)-1]
			}
			return vs
		})
	}},
	{"list repeats a key", "listing-is-ordered-and-resumes", func(f *faulty) {
		f.spoiled(func(vs []storage.Version) []storage.Version {
			if len(vs) > 20 {
				vs = slices.Insert(vs, 10, vs[10])
			}
			return vs
		})
	}},
	{"list begins with after itself", "listing-is-ordered-and-resumes", func(f *faulty) {
		f.list = func(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
			if f.Bytes(after) != nil {
				after = after[:len(after)-1]
			}
			return f.Mem.List(ctx, prefix, after)
		}
	}},
	{"list takes the prefix for a folder", "listing-is-ordered-and-resumes", func(f *faulty) {
		f.list = func(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
			if f.Bytes(prefix) == nil {
				prefix = strings.TrimSuffix(prefix, "/") + "/"
			}
			return f.Mem.List(ctx, prefix, after)
		}
	}},
	{"list loses an object when another is put", "listing-stays-whole-while-others-write", func(f *faulty) {
		var puts atomic.Int64
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			puts.Add(1)
			return f.Mem.Put(ctx, key, r, o)
		}
		f.list = func(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
			return func(yield func(storage.Version, error) bool) {
				before := puts.Load()
				for v, err := range f.Mem.List(ctx, prefix, after) {
					if now := puts.Load(); now != before {
						before = now
						continue
					}
					if !yield(v, err) {
						return
					}
				}
			}
		}
	}},
	{"lock is shortened", "locks-hold-and-never-shorten", func(f *faulty) {
		f.extend = func(ctx context.Context, key, version string, until time.Time) error {
			f.Unlock(key)
			return f.Mem.Extend(ctx, key, version, until)
		}
	}},
	{"reader does not tell its lock", "locks-hold-and-never-shorten", func(f *faulty) {
		f.get = func(ctx context.Context, key, version string, offset, n int64) (io.ReadCloser, error) {
			r, err := f.Mem.Get(ctx, key, version, offset, n)
			if err != nil {
				return nil, err
			}
			return struct{ io.ReadCloser }{r}, nil
		}
	}},
	{"lock does not hold", "locks-hold-and-never-shorten", func(f *faulty) {
		f.erase = func(ctx context.Context, key, version, why string) error {
			f.Unlock(key)
			return f.Mem.Erase(ctx, key, version, why)
		}
	}},
	{"hold is not heeded", "holds-forbid-erasure", func(f *faulty) {
		f.erase = func(ctx context.Context, key, version, why string) error {
			f.Unlock(key)
			return f.Mem.Erase(ctx, key, version, why)
		}
	}},
	{"only the newest version's hold is heeded", "holds-forbid-erasure", func(f *faulty) {
		f.erase = func(ctx context.Context, key, version, why string) error {
			if version == "" {
				f.Unlock(key)
			}
			return f.Mem.Erase(ctx, key, version, why)
		}
	}},
	{"older versions are not listed", "versions-stay-what-they-were", func(f *faulty) {
		f.list = func(ctx context.Context, prefix, after string) iter.Seq2[storage.Version, error] {
			return func(yield func(storage.Version, error) bool) {
				for v, err := range f.Mem.List(ctx, prefix, after) {
					if (err != nil || v.Latest) && !yield(v, err) {
						return
					}
				}
			}
		}
	}},
	{"restore overwrites the version that is there", "versions-stay-what-they-were", func(f *faulty) {
		f.restore = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if err := f.Mem.Restore(ctx, key, r, o); err != nil {
				return err
			}
			if o, err := f.Mem.Stat(ctx, key); err == nil && len(o.Versions) > 1 {
				f.DeleteVersion(key, o.Versions[1].ID)
			}
			return nil
		}
	}},
	{"erase wants no reason", "erase-says-why-and-leaves-nothing", func(f *faulty) {
		f.erase = func(ctx context.Context, key, version, why string) error {
			return f.Mem.Erase(ctx, key, version, why+"x")
		}
	}},
	{"erase removes the folder", "erase-says-why-and-leaves-nothing", func(f *faulty) {
		f.erase = func(ctx context.Context, key, version, why string) error {
			err := f.Mem.Erase(ctx, key, version, why)
			for v := range f.Mem.List(ctx, "t-erase/d/", "") {
				if err == nil {
					f.Mem.Delete(v.Key)
				}
			}
			return err
		}
	}},
	{"erase only hides", "erase-says-why-and-leaves-nothing", func(f *faulty) {
		f.erase = func(ctx context.Context, key, version, why string) error {
			if _, err := f.Mem.Stat(ctx, key); err != nil || why == "" || version != "" {
				return f.Mem.Erase(ctx, key, version, why)
			}
			f.Marker(key)
			return nil
		}
	}},
	{"restore takes any bytes", "restore-brings-exactly-the-bytes-named", func(f *faulty) {
		f.restore = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			data, _ := all(r, o)
			return f.Mem.Restore(ctx, key, bytes.NewReader(data), truthful(data))
		}
	}},
	{"restore does not replace", "restore-brings-exactly-the-bytes-named", func(f *faulty) {
		f.restore = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if err := f.Put(ctx, key, r, o); !errors.Is(err, storage.ErrExists) {
				return err
			}
			return nil
		}
	}},
	{"restore adds a version every time", "restore-brings-exactly-the-bytes-named", func(f *faulty) {
		f.restore = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if err := f.Mem.Restore(ctx, key, r, o); err != nil {
				return err
			}
			f.Plant(key, f.Bytes(key))
			return nil
		}
	}},
	{"replace takes every key", "replace-is-atomic-and-for-derived-objects-only", func(f *faulty) {
		f.replace = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if storage.Replaceable(key) {
				return f.Mem.Replace(ctx, key, r, o)
			}
			data, _ := all(r, o)
			return f.forced(key, data)
		}
	}},
	{"replace removes before it writes", "replace-is-atomic-and-for-derived-objects-only", func(f *faulty) {
		f.replace = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if data, err := all(r, o); err == nil && truthful(data) == o && f.Bytes(key) != nil {
				f.Mem.Delete(key)
				time.Sleep(time.Millisecond)
			}
			return f.Mem.Replace(ctx, key, r, o)
		}
	}},
	{"replace does not compare the digest", "replace-is-atomic-and-for-derived-objects-only", func(f *faulty) {
		f.replace = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			data, _ := all(r, o)
			return f.Mem.Replace(ctx, key, bytes.NewReader(data), truthful(data))
		}
	}},
	{"staged object can be written after Seal", "staged-object-is-put-as-sealed", func(f *faulty) {
		f.stage = func(ctx context.Context) (storage.Staged, error) {
			st, err := f.Mem.Stage(ctx)
			return lateStaged{st}, err
		}
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if late, ok := r.(lateStaged); ok {
				r = late.Staged
			}
			return f.Mem.Put(ctx, key, r, o)
		}
	}},
	{"staged object can be put twice", "staged-object-is-put-as-sealed", func(f *faulty) {
		f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
			if _, ok := r.(storage.Staged); ok && o.Size > 0 {
				data, _ := all(r, o)
				r = bytes.NewReader(data)
			}
			return f.Mem.Put(ctx, key, r, o)
		}
	}},
	{"staged object is listed", "unput-staged-object-vanishes", func(f *faulty) {
		f.stage = func(ctx context.Context) (storage.Staged, error) {
			st, err := f.Mem.Stage(ctx)
			return &listedStaged{Staged: st, f: f}, err
		}
	}},
	{"protection has no name", "protection-is-named", func(f *faulty) { f.unnamed = true }},
}

// listedStaged writes its bytes where they are listed.
type listedStaged struct {
	storage.Staged
	f *faulty
}

func (s *listedStaged) WriteAt(p []byte, off int64) (int, error) {
	s.f.Plant("tmp/upload", p)
	return s.Staged.WriteAt(p, off)
}

// earlyCondition is how versitygw 1.7 and others answered two conditional writers.
func earlyCondition(f *faulty) {
	f.put = func(ctx context.Context, key string, r io.ReaderAt, o storage.PutOptions) error {
		if storage.ValidKey(key) != nil || f.Bytes(key) != nil {
			return f.Mem.Put(ctx, key, r, o)
		}
		data, err := all(r, o)
		if err != nil || truthful(data) != o {
			return f.Mem.Put(ctx, key, r, o)
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
		return f.forced(key, data)
	}
}

// TestSuiteFindsPlantedBugs is the suite's own test: a check that cannot fail proves nothing.
func TestSuiteFindsPlantedBugs(t *testing.T) {
	checks := map[string]storagetest.Check{}
	for _, check := range storagetest.Checks() {
		checks[check.Name] = check
	}
	caught := map[string]bool{} // by check
	for _, p := range plants {
		t.Run(p.bug+" "+p.check, func(t *testing.T) {
			check, ok := checks[p.check]
			if !ok {
				t.Fatalf("no check %q", p.check)
			}
			f := &faulty{Mem: storagetest.NewMem(t)}
			f.Lenient = true
			if err := check.Run(t.Context(), f); err != nil {
				t.Fatalf("without the bug: %v", err)
			}
			f = &faulty{Mem: storagetest.NewMem(t)}
			f.Lenient = true
			p.plant(f)
			err := check.Run(t.Context(), f)
			if err == nil {
				t.Fatal("got no error, want the bug to be found")
			}
			t.Log(err)
			caught[p.check] = true
		})
	}
	for name := range checks {
		if !caught[name] {
			t.Errorf("check %s: no planted bug shows that it can fail", name)
		}
	}
}
