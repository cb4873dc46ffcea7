//go:build !linux

package s3test

import (
	"syscall"
	"time"
)

func diesWithUs() *syscall.SysProcAttr { return nil }

func (s *Server) stopped() error {
	time.Sleep(100 * time.Millisecond)
	return nil
}
