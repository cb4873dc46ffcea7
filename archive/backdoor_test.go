package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/s3"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

// backdoor is what whoever administers a bucket can do to it behind our back. A storagetest.Mem is one, and so is
// the administrator of a real server.
type backdoor interface {
	// Keys are those of all objects, those under delete markers too, in order.
	Keys() []string
	// Bytes are those of the newest version; nil when there is none, or it is a marker.
	Bytes(key string) []byte
	// Plant lays a version on top of a key, whatever lies there and whatever its lock, and returns its name.
	Plant(key string, data []byte) string
	// Marker lays a delete marker on top of a key and returns its name.
	Marker(key string) string
	// Delete removes every version and marker of a key, whatever its lock.
	Delete(key string)
	// Flip inverts a bit of the newest version where it lies.
	Flip(key string, bit int)
	// Overwrite puts other bytes in the place of the newest version.
	Overwrite(key string, data []byte)
}

// administrator is a backdoor of a real server: its API with all rights, and its disk.
type administrator struct {
	t      testing.TB
	server *s3test.Server
	client *minio.Core
	store  *s3.Store
}

// onServers runs a test on a bucket of each real server, with COMPLIANCE locks or such as an administrator may bypass.
func onServers(t *testing.T, lock s3.Lock, test func(t *testing.T, m *administrator, b *archivetest.Bench)) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers")
	}
	for _, kind := range s3test.Kinds {
		t.Run(kind, func(t *testing.T) {
			m := &administrator{t: t, server: s3test.Start(t, kind)}
			var err error
			if m.client, err = m.server.Client(); err != nil {
				t.Fatal(err)
			}
			o := m.server.Options()
			o.Lock = lock
			if m.store, err = s3.Open(ctx, o); err != nil {
				t.Fatal(err)
			}
			test(t, m, archivetest.New(t, m.store))
		})
	}
}

func (m *administrator) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *administrator) Keys() []string {
	m.t.Helper()
	var keys []string
	for v, err := range m.store.List(ctx, "", "") {
		m.must(err)
		keys = append(keys, v.Key)
	}
	return slices.Compact(keys)
}

func (m *administrator) Bytes(key string) []byte {
	m.t.Helper()
	r, _, _, err := m.client.GetObject(ctx, m.server.Bucket, key, minio.GetObjectOptions{})
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return nil
	}
	m.must(err)
	data, err := io.ReadAll(r)
	m.must(errors.Join(err, r.Close()))
	return data
}

// version reads one version.
func (m *administrator) version(key, id string) []byte {
	m.t.Helper()
	r, err := m.store.Get(ctx, key, id, 0, -1)
	m.must(err)
	data, err := io.ReadAll(r)
	m.must(errors.Join(err, r.Close()))
	return data
}

func (m *administrator) Plant(key string, data []byte) string {
	m.t.Helper()
	// Not in chunks: versitygw takes what ends an empty chunked body for the next request.
	o := minio.PutObjectOptions{DisableMultipart: true, DisableContentSha256: true, SendContentMd5: true}
	info, err := m.client.Client.PutObject(ctx, m.server.Bucket, key, bytes.NewReader(data), int64(len(data)), o)
	m.must(err)
	return info.VersionID
}

func (m *administrator) Marker(key string) string {
	m.t.Helper()
	under := ""
	if len(m.versions(key)) == 0 { // MinIO lays none over nothing
		under = m.Plant(key, []byte("x"))
	}
	m.must(m.client.RemoveObject(ctx, m.server.Bucket, key, minio.RemoveObjectOptions{}))
	if under != "" {
		m.DeleteVersion(key, under)
	}
	all := m.versions(key)
	if len(all) == 0 || !all[0].Marker {
		m.t.Fatalf("%s: a delete marker was laid and is not there: %+v", key, all)
	}
	return all[0].ID
}

func (m *administrator) Delete(key string) {
	m.t.Helper()
	for _, v := range m.versions(key) {
		m.DeleteVersion(key, v.ID)
	}
}

// versions of a key, which may be none of ours, newest first.
func (m *administrator) versions(key string) (all []storage.Version) {
	m.t.Helper()
	for v, err := range m.store.List(ctx, key, "") {
		m.must(err)
		if v.Key == key {
			all = append(all, v)
		}
	}
	return all
}

// DeleteVersion removes one version, or marker.
func (m *administrator) DeleteVersion(key, id string) {
	m.t.Helper()
	err := m.client.RemoveObject(ctx, m.server.Bucket, key, minio.RemoveObjectOptions{VersionID: id, GovernanceBypass: true})
	if err != nil {
		m.t.Fatalf("delete version %s of %s: %v; it has %+v", id, key, err, m.versions(key))
	}
}

func (m *administrator) Flip(key string, bit int) {
	m.t.Helper()
	size := len(m.Bytes(key))
	path := filepath.Join(m.server.DataDir, m.server.Bucket, key)
	if m.server.Kind == "minio" {
		parts, err := filepath.Glob(filepath.Join(path, "*", "part.1"))
		m.must(err)
		if len(parts) > 1 {
			m.t.Fatalf("%s: MinIO keeps %d versions in files of their own: which is the newest is not known", key, len(parts))
		}
		// A small object lies in xl.meta, which ends with the bytes of the newest version or of an older one.
		path = append(parts, filepath.Join(path, "xl.meta"))[0]
	}
	data, err := os.ReadFile(path)
	m.must(err)
	data[max(0, len(data)-size)+bit/8] ^= 1 << (bit % 8)
	m.must(os.WriteFile(path, data, 0o644))
}

func (m *administrator) Overwrite(key string, data []byte) {
	m.t.Helper()
	m.Delete(key)
	m.Plant(key, data)
}

// snapshot copies the server's disk while it stands, and returns what puts the copy back.
func (m *administrator) snapshot() (back func()) {
	m.t.Helper()
	kept := m.t.TempDir()
	copied := func(from, to string) {
		m.t.Helper()
		m.must(m.server.Kill())
		for _, d := range []string{"data", "versions"} {
			m.must(os.RemoveAll(filepath.Join(to, d)))
			// versitygw keeps what it knows of an object in extended attributes.
			if out, err := exec.Command("cp", "-a", filepath.Join(from, d), to).CombinedOutput(); err != nil {
				m.t.Fatalf("copy %s: %v: %s", from, err, out)
			}
		}
		c, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		m.must(m.server.Restart(c))
	}
	copied(m.server.Dir, kept)
	return func() { copied(kept, m.server.Dir) }
}
