package s3test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// diesWithUs lets the kernel end a server whose test was killed.
func diesWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// stopped waits until every thread of the server has stopped.
func (s *Server) stopped() error {
	s.mu.Lock()
	pid := s.process.Process.Pid
	s.mu.Unlock()
	for range 500 {
		running := 0
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			return err
		}
		for _, stat := range threads {
			b, err := os.ReadFile(stat)
			if _, state, ok := strings.Cut(string(b), ") "); err == nil && ok && !strings.HasPrefix(state, "T") {
				running++
			}
		}
		if running == 0 {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return errors.New("the server does not stop")
}
