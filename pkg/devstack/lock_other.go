//go:build !unix

package devstack

import "os"

// lock only makes sure that the file can be written: this system has no lock that dies with its process, and a stale
// one would keep the owner of the directory out.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	return f.Close, nil
}
