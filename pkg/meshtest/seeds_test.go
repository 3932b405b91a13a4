//go:build !race

package meshtest

// defaultSeeds take some fifteen seconds on two cores.
const defaultSeeds = 3000
