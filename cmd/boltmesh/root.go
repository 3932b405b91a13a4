package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/service"
)

// cli holds the flags that every command takes.
type cli struct {
	nats    jetstream.Options
	output  string
	timeout time.Duration
}

func newRoot() *cobra.Command {
	c := &cli{}
	root := &cobra.Command{
		Use:   "boltmesh",
		Short: "Stream computing for device data",
		Long: `Boltmesh runs topologies: readings of devices come in from Kafka, are converted, counted and watched for alarms, and end as documents.

Try it:             boltmesh dev
Run your own:       boltmesh validate topology.yaml && boltmesh apply topology.yaml
Give it readings:   boltmesh feed machine-health readings.csv
See how it does:    boltmesh ps, boltmesh lag

Exit codes: 0 done, 1 failed, 2 not understood.`,
		Version:           service.Version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return c.complete() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	})
	fs := root.PersistentFlags()
	fs.StringVar(&c.nats.URL, "nats", "", "NATS servers, comma separated; tls:// for TLS (default $BOLTMESH_NATS_URL, else nats://127.0.0.1:4222)")
	fs.StringVar(&c.nats.Creds, "nats-creds", "", "credentials file (default $BOLTMESH_NATS_CREDS)")
	fs.StringVar(&c.nats.User, "nats-user", "", "user name (default $BOLTMESH_NATS_USER)")
	fs.StringVar(&c.nats.Password, "nats-password", "", "password; better given in $BOLTMESH_NATS_PASSWORD")
	fs.StringVar(&c.nats.Token, "nats-token", "", "token; better given in $BOLTMESH_NATS_TOKEN")
	fs.StringVar(&c.nats.CA, "nats-tls-ca", "", "certificates to trust, PEM (default $BOLTMESH_NATS_TLS_CA)")
	fs.StringVar(&c.nats.Cert, "nats-tls-cert", "", "client certificate, PEM (default $BOLTMESH_NATS_TLS_CERT)")
	fs.StringVar(&c.nats.Key, "nats-tls-key", "", "key of the client certificate, PEM (default $BOLTMESH_NATS_TLS_KEY)")
	fs.BoolVar(&c.nats.Insecure, "nats-tls-insecure", false, "accept any certificate: tests only")
	fs.IntVar(&c.nats.Replicas, "nats-replicas", 0, "copies of each stream and bucket that is created (default $BOLTMESH_NATS_REPLICAS, else 1)")
	fs.StringVarP(&c.output, "output", "o", "table", "table or json")
	fs.DurationVar(&c.timeout, "timeout", control.DefaultTimeout, "how long to wait for workers, for what is under way, and for brokers that are away")
	root.AddCommand(
		newAdvise(c), newAlarms(c), newApply(c), newArchives(c), newBench(), newCall(c), newDelete(c), newDev(), newDLQ(c), newFeed(c), newGet(c), newGraph(c), newLag(c), newList(c), newPause(c), newPS(c), newRebalance(c), newResume(c), newTap(c), newTest(c), newTop(c), newTrace(c), newTry(), newValidate(c),
	)
	return root
}

// complete takes from the environment what no flag says.
func (c *cli) complete() error {
	for name, value := range map[string]*string{
		"URL": &c.nats.URL, "CREDS": &c.nats.Creds, "USER": &c.nats.User, "PASSWORD": &c.nats.Password, "TOKEN": &c.nats.Token,
		"TLS_CA": &c.nats.CA, "TLS_CERT": &c.nats.Cert, "TLS_KEY": &c.nats.Key,
	} {
		if *value == "" {
			*value = os.Getenv("BOLTMESH_NATS_" + name)
		}
	}
	if s := os.Getenv("BOLTMESH_NATS_REPLICAS"); s != "" && c.nats.Replicas == 0 {
		if _, err := fmt.Sscanf(s, "%d", &c.nats.Replicas); err != nil {
			return usageError{fmt.Errorf("BOLTMESH_NATS_REPLICAS: %q is not a whole number", s)}
		}
	}
	switch {
	case c.output != "table" && c.output != "json":
		return usageError{fmt.Errorf("--output: %q is neither table nor json", c.output)}
	case c.timeout <= 0:
		return usageError{fmt.Errorf("--timeout: %s is not a time to wait", c.timeout)}
	}
	return nil
}

// connectWait is how long a NATS that does not answer is tried.
const connectWait = 5 * time.Second

// dial runs f with a connection to NATS.
func (c *cli) dial(ctx context.Context, f func(*jetstream.Conn) error) error {
	dial, cancel := context.WithTimeout(ctx, min(connectWait, c.timeout))
	defer cancel()
	o := c.nats
	o.Name = "boltmesh-cli"
	conn, err := jetstream.Connect(dial, o)
	if err != nil {
		return fmt.Errorf("%w: start it, or name another with --nats or BOLTMESH_NATS_URL", err)
	}
	defer conn.Close()
	return f(conn)
}

// connect runs f with the control of what runs on NATS.
func (c *cli) connect(ctx context.Context, f func(*control.Control) error) error {
	return c.dial(ctx, func(conn *jetstream.Conn) error {
		open, cancel := context.WithTimeout(ctx, c.timeout) // a cluster that is being formed answers late
		defer cancel()
		k, err := control.New(open, conn)
		if err != nil {
			return fmt.Errorf("%w: does the server run with JetStream?", err)
		}
		return f(k)
	})
}

// usageError is a command line that was not understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errSaid is a failure whose message has been printed already.
var errSaid = saidError{}

type saidError struct{}

func (saidError) Error() string { return "" }

func exitCode(err error) int {
	var usage usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command ") { // cobra has no type for the latter
		return exitUsage
	}
	return exitFailed
}

// args makes a wrong number of arguments a usage error that shows what is wanted.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usageError{fmt.Errorf("%w: it is written %s", err, cmd.UseLine())}
		}
		return nil
	}
}
