package main

import (
	"os"
	"os/exec"
	"syscall"
)

// endWithUs gives a child a process group of its own, so that Ctrl-C reaches only the parent, which stops the child in
// order; and has the kernel stop it in order should the parent be killed. The kernel minds the thread that started
// the child: its goroutine is to be locked to it.
func endWithUs(child *exec.Cmd) {
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// withoutNetwork puts a child into a network namespace in which there is nothing, and reports whether this system
// knows such. Start fails where it is not allowed.
func withoutNetwork(child *exec.Cmd) bool {
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
	}
	return true
}
