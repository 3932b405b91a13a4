package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/devstack"
)

// usage is what a process has used.
type usage struct {
	CPU time.Duration `json:"cpu"`
	RSS int64         `json:"rss"`
}

// benchTopic is the topic of the device scenarios.
const benchTopic = "readings"

// newBrokers is the process that holds the brokers of a bench, so that their work is not done by the process that is measured. It says where they are,
// answers every line on stdin with its own usage, and ends with stdin, so that it does not outlive the bench.
func newBrokers() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "brokers", Hidden: true, Short: "NATS and Kafka for a bench, in a process of their own", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			stack, err := devstack.Start(cmd.Context(), devstack.Options{Dir: dir, Topics: []string{benchTopic}, KafkaPartitions: devPartitions})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, stack.Close()) }()
			out := json.NewEncoder(cmd.OutOrStdout())
			if err := out.Encode(addresses{stack.NATSURL(), stack.KafkaBrokers()}); err != nil {
				return err
			}
			return answer(cmd.InOrStdin(), out)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "where they keep their data")
	return c
}

type addresses struct {
	NATS  string   `json:"nats"`
	Kafka []string `json:"kafka"`
}

// answer serves "usage", "profile FILE" and "profiled", one a line, each answered by the usage.
func answer(in io.Reader, out *json.Encoder) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		what, file, _ := strings.Cut(lines.Text(), " ")
		switch what {
		case "profile":
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := pprof.StartCPUProfile(f); err != nil {
				return err
			}
		case "profiled":
			pprof.StopCPUProfile()
		}
		if err := out.Encode(processUsage()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// brokers is the running process.
type brokers struct {
	addresses
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// startBrokers starts this program again, as brokers with their data in dir.
func startBrokers(ctx context.Context, dir string) (*brokers, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &brokers{cmd: exec.CommandContext(ctx, self, "bench", "brokers", "--dir", dir)}
	b.cmd.Stderr = os.Stderr
	if b.in, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	b.out = json.NewDecoder(out)
	if err := b.out.Decode(&b.addresses); err != nil {
		return nil, errors.Join(fmt.Errorf("start the brokers: %w", err), b.stop())
	}
	return b, nil
}

// ask sends one line and returns the usage.
func (b *brokers) ask(line string) (u usage, err error) {
	if _, err = fmt.Fprintln(b.in, line); err == nil {
		err = b.out.Decode(&u)
	}
	if err != nil {
		return u, fmt.Errorf("ask the brokers: %w", err)
	}
	return u, nil
}

func (b *brokers) stop() error {
	_ = b.in.Close()
	return b.cmd.Wait()
}
