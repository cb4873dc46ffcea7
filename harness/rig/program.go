package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Build builds the daemon with the given tags into a folder and returns its path. The go command knows what has
// not changed.
func Build(ctx context.Context, folder string, tags ...string) (string, error) {
	root, err := Repository(ctx)
	if err != nil {
		return "", err
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return "", err
	}
	program := filepath.Join(folder, strings.Join(append([]string{"perenne"}, tags...), "-"))
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-tags", strings.Join(tags, ","), "-o", program, "./cmd/perenne")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the daemon: %w: %s", err, out)
	}
	return program, nil
}

// Scratch makes a folder for one run: in memory where there is room, since SIGKILL takes nothing from the page cache and
// a disk would only make the run longer; else among the temporary files.
func Scratch(name string) (string, error) {
	const memory, room = "/dev/shm", 4 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err == nil && fs.Bavail*uint64(fs.Bsize) > room {
		return os.MkdirTemp(memory, "perenne-"+name+"-")
	}
	return os.MkdirTemp("", "perenne-"+name+"-")
}

// Repository is the folder of the product's module, which harnesses are run inside of.
func Repository(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/marchesud/perenne").Output()
	if err != nil {
		return "", fmt.Errorf("where is the repository: %w (run harnesses from the folder harness/)", err)
	}
	return strings.TrimSpace(string(out)), nil
}
