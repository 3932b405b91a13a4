package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	Bad int64         `json:"bad,omitempty"` // tuples that it has dead-lettered

	Arrivals map[int32][]arrival `json:"arrivals,omitempty"` // if they were asked for
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
			came := arrivals{of: map[int32][]arrival{}}
			stack, err := devstack.Start(cmd.Context(), devstack.Options{Dir: dir, Topics: []string{benchTopic}, KafkaPartitions: devPartitions, Produced: came.note})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, stack.Close()) }()
			collector, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			server := &http.Server{Handler: http.HandlerFunc(discard), ReadHeaderTimeout: 10 * time.Second}
			go func() { _ = server.Serve(collector) }()
			defer server.Close() //nolint:errcheck // the process ends
			out := json.NewEncoder(cmd.OutOrStdout())
			if err := out.Encode(addresses{stack.NATSURL(), stack.KafkaBrokers(), "http://" + collector.Addr().String()}); err != nil {
				return err
			}
			return answer(cmd.InOrStdin(), out, func(what string) usage {
				u := processUsage()
				if what == "arrivals" {
					u.Arrivals = came.list()
				}
				return u
			})
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "where they keep their data")
	return c
}

type addresses struct {
	NATS      string   `json:"nats"`
	Kafka     []string `json:"kafka"`
	Collector string   `json:"collector"` // of spans, which it throws away
}

// discard takes what is sent and keeps nothing.
func discard(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// answer serves "usage", "profile FILE", "profiled" and whatever else used knows, one a line, each answered by the usage.
func answer(in io.Reader, out *json.Encoder, used func(what string) usage) error {
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
		if err := out.Encode(used(what)); err != nil {
			return err
		}
	}
	return lines.Err()
}

// child is this program, running again as a part of the bench.
type child struct {
	kind string // of a service; "" for the brokers
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
	addresses
}

// startBrokers starts brokers with their data in dir.
func startBrokers(ctx context.Context, dir string) (*child, error) {
	b, err := startChild(ctx, "brokers", "--dir", dir)
	if err != nil {
		return nil, fmt.Errorf("start the brokers: %w", err)
	}
	return b, nil
}

// startChild starts `boltmesh bench` with these arguments and waits until it says that it runs.
func startChild(ctx context.Context, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &child{cmd: exec.CommandContext(ctx, self, append([]string{"bench"}, args...)...)}
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
		return nil, errors.Join(err, b.stop())
	}
	return b, nil
}

// ask sends one line and returns the usage.
func (b *child) ask(line string) (u usage, err error) {
	if _, err = fmt.Fprintln(b.in, line); err == nil {
		err = b.out.Decode(&u)
	}
	if err != nil {
		return u, fmt.Errorf("ask a process of the bench: %w", err)
	}
	return u, nil
}

func (b *child) stop() error {
	_ = b.in.Close()
	return b.cmd.Wait()
}
