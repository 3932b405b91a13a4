package servers

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Program is any other program that answers HTTP on one port and is to be killed, paused and restarted as the servers are: a service of boltmesh, say.
type Program struct {
	Name  string                     // of the log file, and in messages
	Argv  func(addr string) []string // the command line, the program first; addr is the host:port that it is to listen on
	Env   []string                   // NAME=value, added to this process's own environment
	Hide  string                     // variables of this process whose names begin so are kept from the program; empty hides none
	Ready string                     // path that answers 200 once the program is ready
}

// Start is a Starter: it starts the program and returns once it is ready. URL is http://127.0.0.1:port.
func (g Program) Start(ctx context.Context, o Options) (*Process, error) {
	p, ports, err := prepare(g.Name, o, 1)
	if err != nil {
		return nil, err
	}
	addr := loopback(ports[0])
	p.URL = "http://" + addr
	p.argv, p.env, p.hide = g.Argv(addr), g.Env, g.Hide
	p.ready = func(ctx context.Context) error { return httpOK(ctx, http.MethodGet, p.URL+g.Ready, nil) }
	return p.launch(ctx, o)
}

// ExitCode is that of the last run. It fails while the program runs, and when a signal has ended it.
func (p *Process) ExitCode() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.child.gone:
	default:
		return 0, fmt.Errorf("%s still runs", p.Name)
	}
	state := p.child.cmd.ProcessState
	if !state.Exited() {
		return 0, fmt.Errorf("%s was ended by a %s", p.Name, state)
	}
	return state.ExitCode(), nil
}

// visible returns the variables whose names do not begin with hide.
func visible(env []string, hide string) []string {
	if hide == "" {
		return env
	}
	return slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, hide) })
}
