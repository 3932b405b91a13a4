package service

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestCallHTTP: a question over HTTP, one that nobody waits for, one that fails, one that is late, one whose caller goes away.
func TestCallHTTP(t *testing.T) {
	m := newMesh(t)
	release, began := make(chan struct{}), make(chan string, 8)
	m.worker("worker-a", "a1", says("", "", idle))
	m.worker("worker-b", "b1", says("!", "reply", func(ctx context.Context, msg string) error {
		select {
		case began <- msg:
		default:
		}
		switch msg {
		case "bad":
			return bolt.Reject(errors.New("it is bad"))
		case "slow":
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return ctx.Err()
	}))
	m.worker(topology.KindSpout, "s1", nil)
	m.apply(strings.Replace(foremanYAML, "timeout: 2s", "timeout: 30s", 1))
	mux := http.NewServeMux()
	mux.Handle("POST /call/{topology}", m.client())
	server := httptest.NewServer(mux)
	defer server.Close()
	post := func(ctx context.Context, query, body string, into any) (int, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/call/"+query, strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		r.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		return res.StatusCode, json.NewDecoder(res.Body).Decode(into)
	}
	var a call.Answer
	if status, err := post(t.Context(), "foreman?id=first", `{"msg":"hello"}`, &a); err != nil || status != http.StatusOK || len(a.Replies) != 2 || a.ID != "first" {
		t.Errorf("%d, %v: %+v", status, err, a)
	}
	var sent call.Answer
	if status, err := post(t.Context(), "foreman?wait=no", `{"msg":"sent"}`, &sent); err != nil || status != http.StatusOK || sent.Position != a.Position+1 || sent.Replies == nil {
		t.Errorf("%d, %v: %+v", status, err, sent)
	}
	for msg := ""; msg != "sent"; msg = <-began { // it is worked on though nobody waits
	}
	var bad call.Refusal
	if status, err := post(t.Context(), "foreman", `{"msg":"bad"}`, &bad); err != nil || status != http.StatusBadGateway || len(bad.Failures) != 2 ||
		bad.Failures[0].Node != "b" || bad.Failures[0].Worker != "b1" || !strings.Contains(bad.Error, "it is bad") {
		t.Errorf("%d, %v: %+v", status, err, bad)
	}
	var late call.Refusal
	if status, err := post(t.Context(), "foreman?timeout=1s", `{"msg":"slow"}`, &late); err != nil || status != http.StatusGatewayTimeout ||
		len(late.Holders) == 0 || late.Holders[0].Node != "b" || late.Holders[0].Worker != "b1" {
		t.Errorf("%d, %v: %+v", status, err, late)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := post(ctx, "foreman", `{"msg":"slow"}`, &late); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller that goes away: %v", err)
	}
	close(release)
	if status, err := post(t.Context(), "foreman", `{"msg":"after"}`, &a); err != nil || status != http.StatusOK || len(a.Replies) != 2 {
		t.Errorf("%d, %v: %+v", status, err, a)
	}
	var unsent call.Refusal
	if status, err := post(t.Context(), "nobody?wait=no&timeout=500ms", `{}`, &unsent); err != nil || status != http.StatusGatewayTimeout || !strings.Contains(unsent.Error, "no spout takes calls") {
		t.Errorf("%d, %v: %+v", status, err, unsent)
	}
	var nobody call.Refusal
	if status, err := post(t.Context(), "nobody?timeout=500ms", `{}`, &nobody); err != nil || status != http.StatusGatewayTimeout || !strings.Contains(nobody.Error, "no spout takes calls") {
		t.Errorf("%d, %v: %+v", status, err, nobody)
	}
}
