//go:build !linux

package main

import (
	"os/exec"
	"syscall"
)

// endWithUs gives a child a process group of its own, so that Ctrl-C reaches only the parent, which stops the child in
// order. Should the parent be killed, the child goes on.
func endWithUs(child *exec.Cmd) { child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// withoutNetwork reports that this system has no network namespaces.
func withoutNetwork(*exec.Cmd) bool { return false }
