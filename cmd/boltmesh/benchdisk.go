package main

import (
	"os"
	"path/filepath"
	"slices"
	"time"
)

// flushes is how many writes the disk is measured with, and flushed how long they are: a page.
const (
	flushes = 100
	flushed = 4096
)

// disk returns the median of how long the disk that holds dir takes to make a write durable. No commit can be faster, and an alarm waits for one.
func disk(dir string) (d time.Duration, err error) {
	f, err := os.Create(filepath.Join(dir, "flushed"))
	if err != nil {
		return 0, err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	took := make([]time.Duration, flushes)
	for i := range took {
		if _, err := f.Write(make([]byte, flushed)); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[flushes/2], nil
}
