package services

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/service"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
	"github.com/boltmesh/boltmesh/pkg/webhook"
)

// TestNotifying: events reach a subject of NATS and a webhook that is down at first, once each, though they come again, also to a new process.
func TestNotifying(t *testing.T) {
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
	var posted []string
	answers := []int{503, 429, 200, 200, 404} // then 200
	calls := 0
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := http.StatusOK
		if calls < len(answers) {
			code = answers[calls]
		}
		calls++
		body, _ := io.ReadAll(r.Body)
		if code == http.StatusOK {
			posted = append(posted, r.Header.Get(webhook.HeaderID)+" "+string(body))
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(hook.Close)
	node := service.Node{
		Node: topology.Node{ID: "hot-notify", Kind: topology.KindNotify, Bolt: &topology.Bolt{Notify: &topology.Notify{Subject: "alarms.hot", Webhook: "${HOOK}", Secret: "${SECRET}"}}},
		Env: func(name string) (string, bool) {
			v, ok := map[string]string{"HOOK": hook.URL, "SECRET": "hunter2"}[name]
			return v, ok
		},
	}
	open := func() *bolttest.Harness {
		n := node
		if n.Notices, err = conn.Notices(t.Context(), "plant", "hot-notify"); err != nil {
			t.Fatal(err)
		}
		b, err := Output(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.(io.Closer).Close() })
		return bolttest.New(t, b)
	}
	event := func(n byte) tuple.Tuple {
		return tuple.Tuple{ID: tuple.ID{15: n}, Stream: "default", Key: "m1", Payload: fmt.Appendf(nil, `{"n":%d,"notify":true}`, n)}
	}
	h := open()
	h.Push("hot", event(1), event(2), event(3), event(4))
	h.Push("hot", event(1))
	h.Step()
	if len(h.Letters) != 1 || h.Letters[0].ID != event(3).ID {
		t.Fatalf("letters %v", h.Letters)
	}
	again := open()
	again.Push("hot", event(1), event(2), event(4))
	again.Push("hot", event(3)) // the subject was told before
	again.Step()
	line := func(n byte) string { return fmt.Sprintf(`%s {"n":%d,"notify":true}`, event(n).ID, n) }
	if want := []string{line(1), line(2), line(4), line(3)}; !slices.Equal(posted, want) {
		t.Errorf("posted %q, want %q", posted, want)
	}
	if got, want := notices(t, stack.NATSURL(), 4), []string{line(1), line(2), line(3), line(4)}; !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
	removed := conn.RemoveNotices(t.Context(), "plant")
	if removed != nil || conn.RemoveNotices(t.Context(), "plant") != nil {
		t.Error(removed)
	}
}

// notices reads what a subscriber of the topology's stream gets.
func notices(t *testing.T, url string, n int) (out []string) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.OrderedConsumer(t.Context(), jetstream.NoticesStream("plant"), natsjs.OrderedConsumerConfig{FilterSubjects: []string{jetstream.NoticeSubject("plant", "alarms.hot")}})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := c.Fetch(n+1, natsjs.FetchMaxWait(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		out = append(out, m.Headers().Get("Nats-Msg-Id")+" "+string(m.Data()))
	}
	return out
}

// A node whose settings cannot be resolved says which, and nobody is told in a rehearsal.
func TestNotifyingWithout(t *testing.T) {
	node := service.Node{Node: topology.Node{Kind: topology.KindNotify, Bolt: &topology.Bolt{Notify: &topology.Notify{Webhook: "${HOOK}"}}}}
	b, err := Output(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	h := bolttest.New(t, b)
	h.Feed(tuple.Tuple{Key: "m1", Payload: []byte(`{"notify":true}`)})
	if len(h.Letters) > 0 {
		t.Error(h.Letters)
	}
	node.Notices, node.Env = &jetstream.Notices{}, func(string) (string, bool) { return "", false }
	if _, err := Output(t.Context(), node); err == nil || err.Error() != "notify.webhook: the variable HOOK is not set and has no default" {
		t.Error(err)
	}
}
