package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
	"github.com/boltmesh/boltmesh/tests/servers"
)

// TestNewcomersAreDrawn: replicas beyond those that are there from the beginning join, of every kind, and nothing else is done to them.
func TestNewcomersAreDrawn(t *testing.T) {
	p := newPlanner(1, time.Second, 3)
	seen := map[string]bool{}
	for range 1000 {
		f := p.next()
		beyond := strings.HasSuffix(f.target, "-3") || strings.HasSuffix(f.target, "-4")
		if beyond != (f.what == join) {
			t.Errorf("%v", f)
		}
		if f.what == join {
			kind, _, _ := strings.Cut(f.target, "-")
			seen[kind] = true
		}
	}
	for _, kind := range mesh.Kinds {
		if !seen[kind] {
			t.Errorf("no %s joins", kind)
		}
	}
}

// late is a mesh whose newcomers are programs that wait; the first start of each fails.
type late struct {
	t      *testing.T
	failed []string
	there  []*servers.Process
}

func (*late) Processes() []*servers.Process { return nil }

func (l *late) Join(ctx context.Context, kind, name string) (*servers.Process, error) {
	if !slices.Contains(l.failed, name) {
		l.failed = append(l.failed, name)
		return nil, errors.New("a server is missing")
	}
	p, err := servers.NATS(ctx, servers.Options{Dir: l.t.TempDir()})
	l.there = append(l.there, p)
	return p, err
}

// TestNewcomerJoinsAndLeaves: it is started again until it runs, and it is gone when its time is over; one that ends by itself is told of.
func TestNewcomerJoinsAndLeaves(t *testing.T) {
	l := &late{t: t}
	in := newInjector(l)
	in.newcomer(t.Context(), fault{what: join, target: "stat-3", length: time.Millisecond})
	if len(l.there) != 1 || l.there[0].Running() || len(in.bad) > 0 {
		t.Fatalf("%d have joined, wrong: %q", len(l.there), in.bad)
	}
	history := strings.Join(in.said, "\n")
	for _, want := range []string{"again a server is missing", "did   join", "has left"} {
		if !strings.Contains(history, want) {
			t.Errorf("no %q in\n%s", want, history)
		}
	}
	in.stay(t.Context(), fault{what: join, length: time.Millisecond}, l.there[0])
	if len(in.bad) != 1 || !strings.Contains(in.bad[0], "had ended by itself") {
		t.Errorf("wrong: %q", in.bad)
	}
}
