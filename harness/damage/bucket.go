package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/archive"
	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/harness/rig"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// bucket damages an archive on a real S3 server, as who administers it does: through its API, with a bypass of the
// GOVERNANCE locks, and through the files in which it keeps its objects.
type bucket struct {
	files  // for its choices only: no path of it is touched
	server *s3test.Server
	client *minio.Core
	store  *s3.Store
	kept   map[string]original
}

// original is an object as it was.
type original struct {
	data  []byte
	until time.Time
}

// doing is one way to damage a bucket; nil where it makes no sense for the key.
type doing struct {
	name string
	do   func(ctx context.Context, b *bucket, key string) (*wound, error)
}

var doings = []doing{
	{"delete marker", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		return b.over(ctx, []string{key}, func() error {
			return b.client.RemoveObject(ctx, b.server.Bucket, key, minio.RemoveObjectOptions{})
		})
	}},
	{"newer version, other bytes", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		return b.over(ctx, []string{key}, func() error { return b.put(ctx, key, b.noise(1+b.random.IntN(4000)), time.Time{}) })
	}},
	{"newer version, a bit flipped", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		data := slices.Clone(b.kept[key].data)
		data[b.random.IntN(len(data))] ^= 1 << b.random.IntN(8)
		return b.over(ctx, []string{key}, func() error { return b.put(ctx, key, data, time.Time{}) })
	}},
	{"newer version, the same bytes", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		w, err := b.over(ctx, []string{key}, func() error { return b.put(ctx, key, b.kept[key].data, b.kept[key].until) })
		if err == nil && derived(key) {
			w.must = nil // that is how they are replaced: the one before stays for its readers
		}
		return w, err
	}},
	{"copy of another producer's object over it", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		other := b.foreignTwin(key)
		if other == "" {
			return nil, nil
		}
		return b.over(ctx, []string{key}, func() error { return b.put(ctx, key, b.kept[other].data, time.Time{}) })
	}},
	{"delete every version, bypassing the lock", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		return b.hurt(ctx, []string{key}, func() error { return b.remove(ctx, key) })
	}},
	{"replace by another object, bypassing the lock", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		other := b.pick(b.of[kindOf(key)], key)
		if other == "" || bytes.Equal(b.kept[key].data, b.kept[other].data) {
			return nil, nil
		}
		return b.hurt(ctx, []string{key}, func() error {
			return errors.Join(b.remove(ctx, key), b.put(ctx, key, b.kept[other].data, b.kept[key].until))
		})
	}},
	{"replace by a truncated one, bypassing the lock", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		data := b.kept[key].data
		return b.hurt(ctx, []string{key}, func() error {
			return errors.Join(b.remove(ctx, key), b.put(ctx, key, data[:b.random.IntN(len(data))], b.kept[key].until))
		})
	}},
	{"shorten the lock", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		if b.kept[key].until.IsZero() {
			return nil, nil
		}
		w, err := b.hurt(ctx, []string{key}, func() error { return b.retain(ctx, key, time.Now().Add(24*time.Hour)) })
		if w != nil {
			w.must = nil
			if slices.Contains([]string{"package", "report", "refusal", "commit", "seal", "key"}, kindOf(key)) {
				w.warned = []string{key} // the others' locks are the daily round's
			}
		}
		return w, err
	}},
	{"foreign object", func(ctx context.Context, b *bucket, _ string) (*wound, error) {
		to := b.place()
		return b.hurt(ctx, []string{to}, func() error { return b.put(ctx, to, b.noise(1+b.random.IntN(2000)), time.Time{}) })
	}},
	{"copy of an object under a foreign key", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		to := b.place()
		return b.hurt(ctx, []string{to}, func() error { return b.put(ctx, to, b.kept[key].data, time.Time{}) })
	}},
	{"delete marker over a foreign key", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		to := owner(key) + "/packages/aa/" + fmt.Sprintf("%x", b.random.Uint64())
		if owner(key) == "" {
			return nil, nil
		}
		return b.hurt(ctx, []string{to}, func() error {
			return errors.Join(b.put(ctx, to, []byte("x"), time.Time{}), b.client.RemoveObject(ctx, b.server.Bucket, to, minio.RemoveObjectOptions{}))
		})
	}},
	{"its file: flip bits", inFile(func(b *bucket, data []byte) []byte {
		// MinIO's file begins with what it says of itself: the object's bytes are the last.
		data[len(data)-1-b.random.IntN(min(len(data), 16))] ^= 1 << b.random.IntN(8)
		return data
	})},
	{"its file: truncate", inFile(func(b *bucket, data []byte) []byte { return data[:b.random.IntN(len(data))] })},
	{"its file: move away", func(ctx context.Context, b *bucket, key string) (*wound, error) {
		path, aside := b.inside(key), filepath.Join(b.server.Dir, fmt.Sprintf("aside-%x", b.random.Uint64()))
		w, err := b.hurt(ctx, []string{key}, func() error { return os.Rename(path, aside) })
		if w != nil {
			again := w.undo
			w.undo = func() error {
				// What was derived may have been made again meanwhile: the API puts right what the file does not.
				if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
					if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Rename(aside, path)); err != nil {
						return err
					}
				}
				return again()
			}
		}
		return w, err
	}},
}

// inFile changes the file in which the server keeps an object's bytes.
func inFile(change func(*bucket, []byte) []byte) func(context.Context, *bucket, string) (*wound, error) {
	return func(ctx context.Context, b *bucket, key string) (*wound, error) {
		path, err := b.dataFile(key)
		if err != nil || path == "" {
			return nil, err
		}
		was, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		w, err := b.hurt(ctx, []string{key}, func() error { return os.WriteFile(path, change(b, slices.Clone(was)), 0o644) })
		if w != nil {
			again := w.undo
			w.undo = func() error { return errors.Join(os.WriteFile(path, was, 0o644), again()) }
			// MinIO checks what it reads and gives nothing then: nobody can say what the object holds.
			w.unread = b.server.Kind == "minio"
		}
		return w, err
	}
}

// inside is where a server keeps an object.
func (b *bucket) inside(key string) string {
	return filepath.Join(b.server.DataDir, b.server.Bucket, key)
}

// dataFile is the file with an object's bytes.
func (b *bucket) dataFile(key string) (string, error) {
	if b.server.Kind != "minio" {
		return b.inside(key), nil
	}
	parts, err := filepath.Glob(filepath.Join(b.inside(key), "*", "part.1"))
	if err != nil || len(parts) > 0 {
		return slices.Max(append(parts, "")), err
	}
	return filepath.Join(b.inside(key), "xl.meta"), nil // a small object lies in it
}

// put lays a version on top.
func (b *bucket) put(ctx context.Context, key string, data []byte, until time.Time) error {
	o := minio.PutObjectOptions{DisableMultipart: true}
	if !until.IsZero() {
		o.Mode, o.RetainUntilDate = minio.Governance, until
	}
	o.SendContentMd5 = !until.IsZero()
	_, err := b.client.Client.PutObject(ctx, b.server.Bucket, key, bytes.NewReader(data), int64(len(data)), o)
	return err
}

// remove erases every version and marker of a key, whatever its lock.
func (b *bucket) remove(ctx context.Context, key string) error {
	for v, err := range b.store.List(ctx, key, "") {
		if err != nil {
			return err
		}
		if v.Key != key {
			break
		}
		if err := b.client.RemoveObject(ctx, b.server.Bucket, key, minio.RemoveObjectOptions{VersionID: v.ID, GovernanceBypass: true}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bucket) retain(ctx context.Context, key string, until time.Time) error {
	mode := minio.Governance
	return b.client.PutObjectRetention(ctx, b.server.Bucket, key, minio.PutObjectRetentionOptions{GovernanceBypass: true, Mode: &mode, RetainUntilDate: &until})
}

// derived reports whether the archive makes an object again, in place, from what its ledger says.
func derived(key string) bool { return storage.Replaceable(key) && kindOf(key) != "record" }

// over lays something over a key: that is seen of records too.
func (b *bucket) over(ctx context.Context, keys []string, do func() error) (*wound, error) {
	return b.wounded(ctx, keys, true, do)
}

// hurt does something to keys. Nothing is held against records.
func (b *bucket) hurt(ctx context.Context, keys []string, do func() error) (*wound, error) {
	return b.wounded(ctx, keys, false, do)
}

// wounded does something to keys, and knows how to make them what they were.
func (b *bucket) wounded(ctx context.Context, keys []string, beside bool, do func() error) (*wound, error) {
	w := &wound{}
	for _, key := range keys {
		if beside || kindOf(key) != "record" || !b.seen[key] {
			w.must = append(w.must, key)
		}
	}
	w.undo = func() error {
		for _, key := range keys {
			if err := b.remove(ctx, key); err != nil {
				return err
			}
			if was, ours := b.kept[key]; ours {
				if err := b.put(ctx, key, was.data, was.until); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return w, do()
}

// keep reads every object.
func (b *bucket) keep(ctx context.Context) error {
	b.kept = map[string]original{}
	for _, key := range b.keys {
		st, err := b.store.Stat(ctx, key)
		if err != nil {
			return err
		}
		r, err := b.store.Get(ctx, key, "", 0, -1)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		b.kept[key] = original{data, st.RetainUntil}
	}
	return nil
}

// onServer damages a bucket of a server of a kind.
func onServer(kind string) func(context.Context, *plan, *rig.Result) error {
	return func(ctx context.Context, p *plan, r *rig.Result) (err error) {
		defer caught(&err)
		s := &scene{folder: p.scratch}
		defer s.end()
		b := &bucket{}
		b.random = rand.New(rand.NewPCG(p.seed, 2))
		if b.server, err = s3test.Run(ctx, kind, filepath.Join(p.scratch, kind)); err != nil {
			return err
		}
		s.Cleanup(func() { _ = b.server.Kill() })
		if b.client, err = b.server.Client(); err != nil {
			return err
		}
		o := b.server.Options()
		o.Lock, o.Stall = s3.Governance, 5*time.Second
		if b.store, err = s3.Open(ctx, o); err != nil {
			return err
		}
		bench := archivetest.New(s, b.store)
		if err := settle(ctx, bench, 6); err != nil {
			return err
		}
		if b.census, err = take(ctx, b.store); err == nil {
			err = b.whole()
		}
		if err != nil {
			return err
		}
		if err := b.keep(ctx); err != nil {
			return err
		}
		r.Add("objects", int64(len(b.keys)))
		a, err := bench.Open()
		if err != nil {
			return err
		}
		if err := tiled(a, int64(len(b.of["entry bundle"]))); err != nil {
			return err
		}
		if err := b.planted(ctx, r, a); err != nil {
			return err
		}
		for r.Counts["damages"] < int64(p.n) {
			if err := b.round(ctx, p, r, a); err != nil {
				return err
			}
		}
		bench.Close(a)
		return nil
	}
}

// planted shows that the judge sees an object hurt that is not named, and one named that is not hurt.
func (b *bucket) planted(ctx context.Context, r *rig.Result, a *archive.Archive) error {
	b.taken = map[string]bool{}
	done, err := b.wound(ctx, "package", "delete marker")
	if err != nil {
		return err
	}
	for _, c := range []struct {
		told []*wound // what the judge is told of
		want func(*judgement, *wound) error
	}{{nil, (*judgement).accuses}, {[]*wound{done}, (*judgement).sound}} {
		j, err := judge(ctx, in(a), c.told)
		if err == nil {
			err = c.want(j, done)
		}
		if err != nil {
			return err
		}
	}
	if err := done.undo(); err != nil {
		return err
	}
	j, err := judge(ctx, in(a), []*wound{done})
	if err == nil {
		err = j.misses(done)
	}
	if err != nil {
		return err
	}
	if j, err = judge(ctx, in(a), nil); err == nil {
		err = j.sound(done)
	}
	r.Planted = "an audit that does not name what is hurt, and one that accuses what is whole; none of a sound one"
	return err
}

func (b *bucket) wound(ctx context.Context, kind string, only string) (*wound, error) {
	for {
		by := doings[b.random.IntN(len(doings))]
		if only != "" && by.name != only {
			continue
		}
		key := b.pick(b.of[kind], "")
		if key == "" {
			kind = kinds[b.random.IntN(len(kinds))]
			continue
		}
		done, err := by.do(ctx, b, key)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", by.name, key, err)
		}
		if done == nil {
			continue
		}
		done.kind, done.how = kind, by.name
		b.taken[key] = true
		return done, nil
	}
}

// round does several damages that have nothing to do with each other, has all bodies audited, and undoes them.
func (b *bucket) round(ctx context.Context, p *plan, r *rig.Result, a *archive.Archive) error {
	b.taken = map[string]bool{}
	var wounds []*wound
	for n := 1 + b.random.IntN(8); n > 0; n-- {
		kind := kinds[b.random.IntN(len(kinds))]
		if kind == "commit" && len(wounds) > 0 {
			continue // a commit is hurt alone
		}
		done, err := b.wound(ctx, kind, "")
		if err != nil {
			return err
		}
		p.say("%s", done)
		wounds = append(wounds, done)
		if done.kind == "commit" {
			break
		}
	}
	j, err := judge(ctx, in(a), wounds)
	if err != nil {
		return err
	}
	for _, done := range wounds {
		r.Add("damages", 1)
		r.Add("of kind "+done.kind, 1)
		r.Add("way: "+done.how, 1)
	}
	bad := note(r, j, fmt.Sprint(wounds))
	for _, done := range slices.Backward(wounds) {
		if err := done.undo(); err != nil {
			return fmt.Errorf("undo %s: %w", done, err)
		}
	}
	if b.random.IntN(3) > 0 && !bad {
		return nil
	}
	if j, err = whole(ctx, in(a)); err != nil {
		return err
	}
	r.Add("good again after undoing", 1)
	if note(r, j, fmt.Sprintf("after undoing %v", wounds)) {
		return errors.New("the bucket is not what it was: " + strings.Join(j.invented, " | "))
	}
	return nil
}
