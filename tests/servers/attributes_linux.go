package servers

import "syscall"

// childAttributes gives the child a process group, so that a signal reaches its own children and a Ctrl-C at the
// terminal does not reach it before the program under test has drained; and its death with this process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
