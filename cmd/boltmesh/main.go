// Boltmesh is the command line: it runs a topology in one process (dev), and asks and tells what runs elsewhere (apply, feed, ps and so on). Operators and
// scripts call it; every answer is also had as JSON. It never keeps state of its own: all it knows it asks of NATS and Kafka.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run executes one command line and returns the exit code. The first interrupt ends what is under way in an orderly manner, the second at once.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		if text := err.Error(); text != "" {
			fmt.Fprintln(stderr, printableLines(text)) // an error may tell what devices sent
		}
		return exitCode(err)
	}
	return exitOK
}
