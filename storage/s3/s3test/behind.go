package s3test

import (
	"bytes"
	"crypto/md5" //nolint:gosec // an ETag
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"
)

// state is what lies in a Liar's bucket. Versions are never changed in place but for their locks.
type state struct {
	objects   map[string][]version // newest first
	suspended bool                 // versioning
	rule      rule                 // default retention
}

type version struct {
	id     string
	data   []byte
	marker bool
	lock   lock
	hold   bool
	sse    sse
	at     time.Time
}

// sse is how a version is encrypted, as the headers say it.
type sse struct{ mode, key string }

type lock struct {
	mode  string // "", GOVERNANCE, COMPLIANCE
	until time.Time
}

type rule struct {
	mode string
	days int
}

// upload is an incomplete multipart upload.
type upload struct {
	key   string
	lock  lock
	sse   sse
	parts map[int][]byte
	begun time.Time
}

func (s state) copied() state {
	c := s
	c.objects = make(map[string][]version, len(s.objects))
	for k, vs := range s.objects {
		c.objects[k] = slices.Clone(vs)
	}
	return c
}

func (s state) keys() []string { return slices.Sorted(maps.Keys(s.objects)) }

// find returns the index of a version of key; "" is the newest, unless it is a marker.
func (s state) find(key, id string) (int, bool) {
	vs := s.objects[key]
	if id == "" {
		return 0, len(vs) > 0 && !vs[0].marker
	}
	i := slices.IndexFunc(vs, func(v version) bool { return v.id == id })
	return i, i >= 0
}

func etag(data []byte) string {
	sum := md5.Sum(data) //nolint:gosec // what S3 calls an ETag
	return hex.EncodeToString(sum[:])
}

// push lays a version on top. The caller holds mu.
func (l *Liar) push(key string, v version) string {
	l.before = l.now.copied()
	l.serial++
	v.id, v.at = fmt.Sprintf("v%06d", l.serial), l.clock()
	vs := l.now.objects[key]
	if l.now.suspended {
		v.id = "null"
		vs = slices.DeleteFunc(vs, func(v version) bool { return v.id == "null" })
	}
	l.now.objects[key] = append([]version{v}, vs...)
	return v.id
}

// drop removes a version. The caller holds mu.
func (l *Liar) drop(key string, i int) {
	l.before = l.now.copied()
	vs := slices.Delete(slices.Clone(l.now.objects[key]), i, i+1)
	if len(vs) == 0 {
		delete(l.now.objects, key)
		return
	}
	l.now.objects[key] = vs
}

// Keys returns the keys that have versions or markers.
func (l *Liar) Keys() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now.keys()
}

// Bytes returns the newest version of key; nil when there is none, or it is a marker.
func (l *Liar) Bytes(key string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := l.now.find(key, ""); ok {
		return append([]byte{}, l.now.objects[key][i].data...)
	}
	return nil
}

// Versions returns the names of key's versions and markers, newest first.
func (l *Liar) Versions(key string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for _, v := range l.now.objects[key] {
		ids = append(ids, v.id)
	}
	return ids
}

// Uploads is how many multipart uploads are incomplete.
func (l *Liar) Uploads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.uploads)
}

// Plant lays data on top of any key, without a lock, and returns the version's name.
func (l *Liar) Plant(key string, data []byte) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.push(key, version{data: bytes.Clone(data)})
}

// Marker lays a delete marker on top of any key and returns its name.
func (l *Liar) Marker(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.push(key, version{marker: true})
}

// Damage puts what change makes of the newest version's bytes in their place.
func (l *Liar) Damage(key string, change func([]byte) []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := l.now.find(key, ""); ok {
		l.now.objects[key][i].data = change(bytes.Clone(l.now.objects[key][i].data))
	}
}

// Lose removes every version of key, whatever its locks.
func (l *Liar) Lose(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.now.objects, key)
	delete(l.before.objects, key)
}

// Lock gives the newest version of key a COMPLIANCE lock.
func (l *Liar) Lock(key string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := l.now.find(key, ""); ok {
		l.now.objects[key][i].lock = lock{"COMPLIANCE", until}
	}
}

// Locked tells whether the newest version of key has a COMPLIANCE lock until then or later.
func (l *Liar) Locked(key string, until time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.now.find(key, "")
	if !ok {
		return false
	}
	lk := l.now.objects[key][i].lock
	return lk.mode == "COMPLIANCE" && !lk.until.Before(until)
}

// Held tells whether the newest version of key has a legal hold.
func (l *Liar) Held(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.now.find(key, "")
	return ok && l.now.objects[key][i].hold
}

// Begin leaves an incomplete upload that is so old.
func (l *Liar) Begin(key string, age time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serial++
	l.uploads[fmt.Sprintf("u%06d", l.serial)] = &upload{key: key, parts: map[int][]byte{}, begun: l.clock().Add(-age)}
}
