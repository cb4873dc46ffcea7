package storagetest

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"time"
)

// The methods below act behind the caller's back, as an administrator of the store, a disk or an attacker
// would. They ask neither locks nor holds, and fail the test at once when there is nothing to act upon.

// Keys returns the keys of all objects, foreign ones and lone delete markers included, in order.
func (m *Mem) Keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.keys)
}

// Bytes returns a copy of the newest version of key, nil when there is none.
func (m *Mem) Bytes(key string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.find(key, "")
	if err != nil {
		return nil
	}
	return bytes.Clone(m.objects[key][i].data)
}

// newest returns the newest version of key. The caller holds mu.
func (m *Mem) newest(what, key string) *version {
	m.t.Helper()
	i, err := m.find(key, "")
	if err != nil {
		m.t.Fatalf("storagetest.Mem: %s %s: %v", what, key, err)
	}
	return &m.objects[key][i]
}

// Damage puts what change makes of the bytes of key's newest version in their place. change gets a copy.
func (m *Mem) Damage(key string, change func([]byte) []byte) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.newest("damage", key)
	v.data = change(bytes.Clone(v.data))
}

// Flip inverts one bit of key's newest version; bit counts from the lowest of the first byte.
func (m *Mem) Flip(key string, bit int) {
	m.t.Helper()
	m.Damage(key, func(b []byte) []byte {
		b[bit/8] ^= 1 << (bit % 8)
		return b
	})
}

// Rot makes the newest version of key one that Get fails to give for good, as a server does that finds its own file damaged.
func (m *Mem) Rot(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.newest("rot", key).rotten = true
}

// Unrot takes Rot back.
func (m *Mem) Unrot(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.newest("unrot", key).rotten = false
}

// Overwrite puts data in the place of key's newest version.
func (m *Mem) Overwrite(key string, data []byte) {
	m.t.Helper()
	m.Damage(key, func([]byte) []byte { return bytes.Clone(data) })
}

// Swap exchanges the newest versions of two keys.
func (m *Mem) Swap(a, b string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	v, w := m.newest("swap", a), m.newest("swap", b)
	v.data, w.data = w.data, v.data
}

// Delete removes every version of key.
func (m *Mem) Delete(key string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[key]; !ok {
		m.t.Fatalf("storagetest.Mem: delete %s: no such object", key)
	}
	m.drop(key)
}

// DeleteVersion removes one version, or marker, of key.
func (m *Mem) DeleteVersion(key, id string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.find(key, id)
	if err != nil {
		m.t.Fatalf("storagetest.Mem: delete %s version %q: %v", key, id, err)
	}
	if rest := slices.Delete(slices.Clone(m.objects[key]), i, i+1); len(rest) > 0 {
		m.objects[key] = rest
		return
	}
	m.drop(key)
}

// Lose removes the n newest versions, as the power cut of a store that never syncs does, and returns their keys,
// oldest first. What was acknowledged stays remembered: other bytes put under the same keys fail the test.
func (m *Mem) Lose(n int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lost []string
	for ; n > 0 && len(m.keys) > 0; n-- {
		newest, at := "", -1
		for key, vs := range m.objects {
			if i, err := strconv.Atoi(vs[0].id[1:]); err == nil && i > at {
				newest, at = key, i
			}
		}
		if rest := m.objects[newest][1:]; len(rest) > 0 {
			m.objects[newest] = rest
		} else {
			m.drop(newest)
		}
		lost = append(lost, newest)
	}
	slices.Reverse(lost)
	return lost
}

// Forget removes every version of key and what was acknowledged under it: other bytes may be put there.
func (m *Mem) Forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(key)
	delete(m.acked, key)
}

// Plant makes data the newest version of key, which may be any string, and returns the version's name. It
// lies on top of what is there already and is not acknowledged to anybody.
func (m *Mem) Plant(key string, data []byte) (id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.push(key, version{data: bytes.Clone(data)})
}

// Marker lays a delete marker on top of key, which need not exist, and returns the marker's name.
func (m *Mem) Marker(key string) (id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.push(key, version{marker: true})
}

// Unlock ends the locks and holds on every version of key.
func (m *Mem) Unlock(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.objects[key] {
		m.objects[key][i].retain, m.objects[key][i].hold = time.Time{}, false
	}
}

// Snapshot is the state of a Mem at a moment.
type Snapshot struct{ objects map[string][]version }

// Snapshot returns the present state.
func (m *Mem) Snapshot() Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Snapshot{clone(m.objects)}
}

// Rollback brings back an earlier state. What was acknowledged since stays remembered, so that other bytes
// put under the same keys fail the test; see Forget.
func (m *Mem) Rollback(s Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects = clone(s.objects)
	m.keys = slices.Sorted(maps.Keys(m.objects))
}

func clone(objects map[string][]version) map[string][]version {
	c := make(map[string][]version, len(objects))
	for key, vs := range objects {
		c[key] = slices.Clone(vs)
	}
	return c
}
