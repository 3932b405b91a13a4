package call

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
)

// TestTooLarge: what the server does not take is not sent again until the deadline.
func TestTooLarge(t *testing.T) {
	stack, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	conn, err := jetstream.Connect(t.Context(), jetstream.Options{URL: stack.NATSURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	payload := json.RawMessage(`{"x":"` + strings.Repeat("x", 2<<20) + `"}`)
	began := time.Now()
	if _, err := New(conn).ask(t.Context(), "x", Request{ID: "x", Payload: payload}); !errors.Is(err, jetstream.ErrTooLarge) { // the test's context has no deadline
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
