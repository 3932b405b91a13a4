package service

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/boltmesh/boltmesh/pkg/call"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// TestDiscovery: whoever asks NATS for services finds every worker, by its name, with what it runs and what it has done.
func TestDiscovery(t *testing.T) {
	m := newMesh(t)
	release, began := make(chan struct{}), make(chan struct{}, 1)
	m.worker("worker-a", "a1", says("", "", idle))
	m.worker("worker-b", "b1", says("!", "reply", func(_ context.Context, msg string) error {
		if msg == "slow" {
			select {
			case began <- struct{}{}:
			default:
			}
			<-release
		}
		return nil
	}))
	stop := m.worker(topology.KindSpout, "s1", nil)
	m.apply(foremanYAML)
	c := m.client()
	if _, err := c.Call(t.Context(), "foreman", json.RawMessage(`{"msg":"x"}`), call.Options{}); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(m.stack.NATSURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()

	inbox := nats.NewInbox()
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("$SRV.PING", inbox, nil); err != nil {
		t.Fatal(err)
	}
	found := map[string]micro.Ping{}
	for range 3 {
		msg, err := answers.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatalf("%v; found %v", err, found)
		}
		var p micro.Ping
		if err := json.Unmarshal(msg.Data, &p); err != nil || p.Type != micro.PingResponseType || p.Version == "" {
			t.Errorf("%s (%v)", msg.Data, err)
		}
		found[p.ID] = p
	}
	if found["a1"].Name != "boltmesh-worker-a" || found["b1"].Metadata["topologies"] != "foreman" || found["s1"].Name != "boltmesh-spout" {
		t.Errorf("found %+v", found)
	}

	if _, err := c.Send(t.Context(), "foreman", json.RawMessage(`{"msg":"slow"}`), call.Options{}); err != nil {
		t.Fatal(err)
	}
	<-began
	ask := func(subject string, into any) {
		t.Helper()
		msg, err := nc.Request(subject, nil, 10*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		if err := json.Unmarshal(msg.Data, into); err != nil {
			t.Fatal(err)
		}
	}
	var info micro.Info
	if ask("$SRV.INFO.boltmesh-worker-b.b1", &info); len(info.Endpoints) != 1 || info.Endpoints[0].Subject != "bm.foreman.b.*" || info.Endpoints[0].Metadata["tasks"] != "0,1" {
		t.Errorf("info: %+v", info)
	}
	if info.Metadata["capacity"] != "2" || info.Metadata["working"] == "0" {
		t.Errorf("b1 works on a message: %v", info.Metadata)
	}
	var stats micro.Stats
	if ask("$SRV.STATS.boltmesh-worker-b", &stats); len(stats.Endpoints) != 1 || stats.Endpoints[0].NumRequests != 2 || stats.Endpoints[0].Name != "foreman-b" || stats.Started.IsZero() {
		t.Errorf("stats: %+v", stats)
	}
	close(release)
	stop()
	if _, err := nc.Request("$SRV.PING.boltmesh-spout.s1", nil, time.Second); err == nil {
		t.Error("a worker that has stopped answers")
	}
}

func TestSemantic(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "1.0.0-rc.1": "1.0.0-rc.1", "(devel)": "0.0.0+devel", "a06612ab12cd": "0.0.0+a06612ab12cd", "unknown": "0.0.0+unknown", "": "0.0.0",
	} {
		if got := semantic(version); got != want {
			t.Errorf("%q: %q, want %q", version, got, want)
		}
	}
}
