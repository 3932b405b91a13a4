package integration

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
)

// likeOthers looks at what a worker in another language shows of itself: its lease, its consumers' names, its answers to NATS' service discovery.
func (c *called) likeOthers(worker string) {
	c.Helper()
	c.until(worker+" says what it can do", "workers", func(ms []member.Member) bool {
		i := slices.IndexFunc(ms, func(m member.Member) bool { return m.Worker == worker && m.Node == "b" })
		return i >= 0 && ms[i].Capacity == 1 && ms[i].Working == 0 && ms[i].In >= 3 && ms[i].Busy > 0
	})
	nc, err := nats.Connect(c.nats.URL)
	if err != nil {
		c.Fatal(err)
	}
	defer nc.Close()
	ask := func(subject string, into any) {
		c.Helper()
		m, err := nc.Request(subject, nil, 10*time.Second)
		if err == nil {
			err = json.Unmarshal(m.Data, into)
		}
		if err != nil {
			c.Fatalf("%s: %v", subject, err)
		}
	}
	for task := range 2 {
		var names struct{ Consumers []string }
		ask(fmt.Sprintf("$JS.API.CONSUMER.NAMES.BM_workers_b_%d", task), &names)
		if want := fmt.Sprintf(`^t%d-e[0-9]+-[0-9A-Za-z]+$`, task); len(names.Consumers) != 1 || !regexp.MustCompile(want).MatchString(names.Consumers[0]) {
			c.Errorf("consumers %v of task %d, want one like %s", names.Consumers, task, want)
		}
	}
	var ping micro.Ping
	var info micro.Info
	var stats micro.Stats
	ask("$SRV.PING.boltmesh-foreman-b."+worker, &ping)
	ask("$SRV.INFO.boltmesh-foreman-b."+worker, &info)
	ask("$SRV.STATS.boltmesh-foreman-b."+worker, &stats)
	if ping.Type != micro.PingResponseType || ping.ID != worker || ping.Metadata["kind"] != "foreman-b" || ping.Metadata["capacity"] != "1" {
		c.Errorf("PING: %+v", ping)
	}
	if info.Type != micro.InfoResponseType || len(info.Endpoints) != 1 || info.Endpoints[0].Subject != "bm.workers.b.*" {
		c.Errorf("INFO: %+v", info)
	}
	if stats.Type != micro.StatsResponseType || len(stats.Endpoints) != 1 || stats.Endpoints[0].NumRequests < 3 || stats.Endpoints[0].ProcessingTime <= 0 || stats.Started.IsZero() {
		c.Errorf("STATS: %+v", stats)
	}
}

// exchange has two workers exchange the tasks that they own at the Bs, as `boltmesh rebalance` would where that evened something out.
func (c *called) exchange(x, y string) {
	c.Helper()
	ms, err := c.control.Members(c.Context(), "workers")
	if err != nil {
		c.Fatal(err)
	}
	d := member.Division{Workers: map[string]int64{}, Tasks: make([]string, 2)}
	other := map[string]string{x: y, y: x}
	for _, m := range ms {
		if to := other[m.Worker]; m.Node == "b" && to != "" && len(m.Tasks) == 1 {
			d.Workers[m.Worker], d.Tasks[m.Tasks[0]] = m.Since, to
		}
	}
	conn, err := jetstream.Connect(c.Context(), jetstream.Options{URL: c.nats.URL, Name: "exchange"})
	if err != nil {
		c.Fatal(err)
	}
	defer conn.Close()
	leases, err := conn.Leases(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	value, err := json.Marshal(d)
	if err == nil {
		_, err = leases.Store(c.Context(), member.DivisionKey("workers", "b"), value, 0, 0)
	}
	if err != nil {
		c.Fatal(err)
	}
	c.until(fmt.Sprint("the tasks are ", d.Tasks, "'s"), "workers", func(ms []member.Member) bool {
		have := make([]string, 2)
		for _, m := range ms {
			if m.Node == "b" && len(m.Tasks) == 1 {
				have[m.Tasks[0]] = m.Worker
			}
		}
		return slices.Equal(have, d.Tasks)
	})
}
