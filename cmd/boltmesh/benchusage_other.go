//go:build !unix

package main

// processUsage knows nothing of this system.
func processUsage() usage { return usage{} }
