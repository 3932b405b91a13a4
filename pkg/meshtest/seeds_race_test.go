//go:build race

package meshtest

// defaultSeeds are few: the detector makes everything ten times slower, and one goroutine at a time has no races to find.
const defaultSeeds = 40

// ordered is how many tuples TestOrderPerKey sends.
const ordered = 8_000
