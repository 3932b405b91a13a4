//go:build !linux

package servers

import "syscall"

// childAttributes gives the child a process group, so that a signal reaches its own children. This system has nothing
// that would end it with a parent that is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
