package service

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/observe"
)

func TestHealth(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		http.Error(w, "connecting to NATS", status)
	}))
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	t.Cleanup(server.Close)
	addr := server.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	for _, c := range []struct {
		what, http string
		status     int
		want       int
	}{
		{"ready", addr, http.StatusOK, exitOK},
		{"listens everywhere", "0.0.0.0:" + port, http.StatusOK, exitOK},
		{"not ready", addr, http.StatusServiceUnavailable, exitFailed},
		{"nobody there", "127.0.0.1:1", http.StatusOK, exitFailed},
		{"port unknown", "auto", http.StatusOK, exitUsage},
		{"serves nothing", "off", http.StatusOK, exitUsage},
	} {
		status = c.status
		if got := health("stat", nil, []string{"BOLTMESH_HTTP=" + c.http}); got != c.want {
			t.Errorf("%s: exit code %d, want %d", c.what, got, c.want)
		}
	}
	status = http.StatusServiceUnavailable
	if err := askReady(t.Context(), addr); err == nil || !strings.Contains(err.Error(), "connecting to NATS") {
		t.Errorf("the reason is not told: %v", err)
	}
}

// TestReadiness: a service is not ready while either of its connections is away, whatever the worker says meanwhile.
func TestReadiness(t *testing.T) {
	o, err := observe.New(observe.Options{Service: "stat", LogWriter: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close(t.Context())
	r, gone := &readiness{o: o}, errors.New("gone")
	for i, step := range []struct {
		do    func()
		ready bool
	}{
		{func() { r.connected(jetstream.Change{}) }, false}, // not started
		{func() { r.connected(jetstream.Change{Err: gone}) }, false},
		{func() { r.worker(true, "") }, false},
		{func() { r.connected(jetstream.Change{}) }, true},
		{func() { r.connected(jetstream.Change{Err: gone}) }, false},
		{func() { r.connected(jetstream.Change{Err: gone, Others: 1}) }, false},
		{func() { r.connected(jetstream.Change{Others: 1}) }, false},
		{func() { r.connected(jetstream.Change{}) }, true},
	} {
		step.do()
		if ready, reason := r.now(); ready != step.ready || ready == (reason != "") {
			t.Errorf("after step %d: %v, %q", i, ready, reason)
		}
	}
}
