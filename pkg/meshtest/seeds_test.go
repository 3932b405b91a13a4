//go:build !race

package meshtest

// defaultSeeds take some fifteen seconds on two cores.
const defaultSeeds = 3000

// ordered is how many tuples TestOrderPerKey sends.
const ordered = 100_000
