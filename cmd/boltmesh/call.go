package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	calls "github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
)

func newCall(c *cli) *cobra.Command {
	var id string
	var noWait, distinct bool
	cmd := &cobra.Command{
		Use:   "call TOPOLOGY JSON",
		Short: "Ask a topology a question and wait for the whole answer",
		Long: `The question, a JSON object, comes out of the spout's stream call; what nodes emit on their stream reply while they work on it is the answer, printed
one JSON object a line in the order of node, key and text. When --timeout passes first, the error names who has not finished.`,
		Example: `  boltmesh call reach '{"url": "foo.com/blog/1"}' --distinct
  boltmesh call foreman '{"msg": "hello"}' --timeout 5s
  boltmesh call foreman '{"msg": "hello"}' --no-wait`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if !json.Valid([]byte(given[1])) {
				return usageError{fmt.Errorf("%q is not JSON: write an object such as '{\"msg\": \"hello\"}'", given[1])}
			}
			return c.dial(cmd.Context(), func(conn *jetstream.Conn) error {
				client, o := calls.New(conn), calls.Options{ID: id, Timeout: c.timeout}
				ask := client.Call
				if noWait {
					ask = client.Send
				}
				answer, err := ask(cmd.Context(), given[0], json.RawMessage(given[1]), o)
				if answer == nil {
					return err
				}
				if distinct {
					answer.Distinct()
				}
				return errors.Join(err, c.print(cmd.OutOrStdout(), answer, func(t *tabwriter.Writer) { replies(t, answer) }))
			})
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "name of the call: made again under its name it is not done again (default a new one)")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "return when the call has been taken")
	cmd.Flags().BoolVar(&distinct, "distinct", false, "of equal replies print one")
	return cmd
}

// replies writes one reply a line.
func replies(w io.Writer, answer *calls.Answer) {
	for _, r := range answer.Replies {
		fmt.Fprintln(w, printable(string(r.Payload)))
	}
}
