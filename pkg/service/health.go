package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/boltmesh/boltmesh/pkg/observe"
)

// healthFlag is the first argument of a service that is to ask instead of to run: an image that holds nothing but the binary has no other program for it.
const healthFlag = "--health"

// healthPatience is how long the answer may take.
const healthPatience = 3 * time.Second

// health asks the service that runs with the same configuration whether it is ready, and returns the exit code.
func health(kind string, args, env []string) int {
	config, err := LoadConfig(kind, args, env)
	if errors.Is(err, ErrHelp) {
		fmt.Print(Help(kind))
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	}
	if config.HTTP == "" || config.HTTP == observe.Auto {
		fmt.Fprintln(os.Stderr, healthFlag+": give the service an address of its own (--http 127.0.0.1:9464), or nobody knows where to ask")
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthPatience)
	defer cancel()
	if err := askReady(ctx, config.HTTP); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	return exitOK
}

// askReady returns nil if a service that listens on addr (host:port) says that it is ready; otherwise the error has its reason.
func askReady(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // what listens everywhere is asked at home
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("not ready: %s", strings.TrimSpace(string(said)))
	}
	return err
}
