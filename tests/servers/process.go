package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	defaultStart = time.Minute
	stopGrace    = 20 * time.Second      // how long Stop waits before it kills
	pollEvery    = 20 * time.Millisecond // between two questions whether a server is ready
	pollLimit    = 2 * time.Second       // for one such question
)

// Process is one server, running or not. It keeps its addresses and its data over restarts. Its methods may be called
// from any goroutine; each waits for what it does.
type Process struct {
	// Name is the server's: nats, kafka, redis, mongo or jaeger.
	Name string

	// URL is what the product's client is given; URLs are further addresses, named at the function that starts the server.
	URL  string
	URLs map[string]string

	dir      string
	ownDir   bool
	argv     []string
	env      []string // added to this process's own
	hide     string   // beginning of names that are taken out of it; empty for none
	ready    func(context.Context) error
	startMax time.Duration

	mu     sync.Mutex
	child  *child // the last one started
	closed bool
}

// child is one run of the program.
type child struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed once it has been waited for
	err  error         // of that wait; read after gone
}

// launch completes a Process whose argv, addresses and ready are set, and starts it.
func (p *Process) launch(ctx context.Context, o Options) (*Process, error) {
	p.startMax = o.StartTimeout
	if p.startMax == 0 {
		p.startMax = defaultStart
	}
	p.mu.Lock()
	err := p.start(ctx)
	p.mu.Unlock()
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// start runs the program and returns once it answers.
func (p *Process) start(ctx context.Context) error {
	if p.closed {
		return fmt.Errorf("start %s: closed", p.Name)
	}
	log, err := os.OpenFile(p.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir = p.dir
	cmd.Env = append(visible(os.Environ(), p.hide), p.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	c, err := spawn(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.child = c
	ctx, cancel := context.WithTimeout(ctx, p.startMax)
	defer cancel()
	if err := p.await(ctx, c); err != nil {
		c.signal(syscall.SIGKILL)
		<-c.gone
		return fmt.Errorf("start %s: %w\nend of %s:\n%s", p.Name, err, p.LogFile(), tail(p.LogFile(), 15))
	}
	return nil
}

// spawn starts the command and waits for it on one locked thread: the kernel ties a child's death signal to the thread
// that started it, not to the process, and Go may end an unlocked thread at any time.
func spawn(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, gone: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.gone)
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
		}
	}()
	return c, <-started
}

// await asks the server until it answers as it should.
func (p *Process) await(ctx context.Context, c *child) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, pollLimit)
		err := p.ready(one)
		cancel()
		select {
		case <-c.gone: // first: whoever answered then, it was not this one
			return fmt.Errorf("it exited: %w", c.exit())
		default:
		}
		if err == nil {
			return nil
		}
		select {
		case <-c.gone:
			return fmt.Errorf("it exited: %w", c.exit())
		case <-ctx.Done():
			return fmt.Errorf("%w; last answer: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func (c *child) exit() error {
	if c.err == nil {
		return errors.New("exit status 0")
	}
	return c.err
}

// signal reaches the program and whatever it has started. A program that is gone is not an error.
func (c *child) signal(sig syscall.Signal) {
	select {
	case <-c.gone: // its number may belong to somebody else by now
	default:
		_ = syscall.Kill(-c.cmd.Process.Pid, sig)
	}
}

// PID is the process id of the running server, or of the last one that ran.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.child.cmd.Process.Pid
}

// Running tells whether the server's process exists; a paused one does.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.child.gone:
		return false
	default:
		return true
	}
}

// LogFile is where the server's output goes, that of all its runs.
func (p *Process) LogFile() string { return filepath.Join(p.dir, p.Name+".log") }

// Dir is where the server keeps its data.
func (p *Process) Dir() string { return p.dir }

// Kill ends the server at once, as a crash does (SIGKILL), and waits until it is gone.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kill()
}

func (p *Process) kill() {
	if p.child == nil {
		return
	}
	p.child.signal(syscall.SIGKILL)
	<-p.child.gone
}

// Stop ends the server as an operator does (SIGTERM) and waits until it is gone. One that takes longer than 20 seconds
// is killed, which is an error.
func (p *Process) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stop()
}

func (p *Process) stop() error {
	c := p.child
	c.signal(syscall.SIGTERM)
	c.signal(syscall.SIGCONT) // a paused one must run to see it
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-c.gone:
		return nil
	case <-grace.C:
		p.kill()
		return fmt.Errorf("stop %s: killed after %v", p.Name, stopGrace)
	}
}

// Restart starts the server again on its addresses and its data, and returns once it answers. A server that still runs
// is stopped first.
func (p *Process) Restart(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.stop(); err != nil {
		return err
	}
	return p.start(ctx)
}

// Pause freezes the server (SIGSTOP): its connections stay open and say nothing, as after a cut cable or a long garbage
// collection.
func (p *Process) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.child.signal(syscall.SIGSTOP)
}

// Resume ends a Pause (SIGCONT).
func (p *Process) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.child.signal(syscall.SIGCONT)
}

// Wait returns when the server's process has ended, by itself or by another's call, or when the context has.
// The first returns nil, whatever the exit status.
func (p *Process) Wait(ctx context.Context) error {
	p.mu.Lock()
	c := p.child
	p.mu.Unlock()
	select {
	case <-c.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close kills the server for good and removes its directory if that was a temporary one. A second call does nothing.
func (p *Process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.kill()
	if p.ownDir {
		_ = os.RemoveAll(p.dir)
	}
}

// tail is the last lines of a file, for error messages.
func tail(file string, lines int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(string(bytes.TrimSpace(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
