package archive_test

import (
	"os"
	"syscall"
	"testing"
)

// TestMain lets the tests work in memory where there is plenty: they open hundreds of archives, and whether a
// disk keeps what was synced is not what they ask.
func TestMain(m *testing.M) {
	const memory, enough = "/dev/shm", 4 << 30
	var st syscall.Statfs_t
	dir := ""
	if os.Getenv(childEnv) == "" && syscall.Statfs(memory, &st) == nil && st.Bavail*uint64(st.Bsize) > enough {
		if d, err := os.MkdirTemp(memory, "perenne-"); err == nil && os.Setenv("TMPDIR", d) == nil {
			dir = d
		}
	}
	code := m.Run()
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}
