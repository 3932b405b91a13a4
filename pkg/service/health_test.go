package service

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
