//go:build unix

package devstack

import (
	"errors"
	"os"
	"syscall"
)

// lock takes the file at path for this process. The kernel gives it back when the process dies, however it dies, so a
// killed stack leaves nothing to clean up.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
