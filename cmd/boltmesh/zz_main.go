package main

import (
	"fmt"
	"os"
)

func main() {
	c := newDev()
	c.Flags().StringP("output", "o", "table", "")
	c.SilenceErrors = true
	if err := c.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
