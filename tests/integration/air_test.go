package integration

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/webhook"
	"github.com/boltmesh/boltmesh/tests/integration/figures"
	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

// TestAirQuality runs the example with an archive, a statistic in two stages per site of it, and alarms with limits from it, on real servers, and kills a
// stat worker, an alarm and an output in the middle: every figure is what a slow program makes of the readings, and each event of one alarm is
// told once.
func TestAirQuality(t *testing.T) {
	hook := &receiver{seen: map[string][]time.Time{}}
	address := httptest.NewServer(hook)
	t.Cleanup(address.Close)
	m := start(t, mesh.Options{Replicas: map[string]int{"stat": 2}, Env: []string{"ALARM_HOOK=" + address.URL, "ALARM_SECRET=" + hookSecret}})
	dir := filepath.Join("..", "..", "examples", "air-quality")
	if _, err := m.CLI(t.Context(), "archives", "import", "--mongo", m.Mongo.URL, "--archive", "stations", filepath.Join(dir, "archives.jsonl")); err != nil {
		t.Fatal(err)
	}
	top := apply(t, m, notifying(t, filepath.Join(dir, "topology.yaml")))
	data, err := figures.Lines[figures.AirReading](filepath.Join(dir, "data", "readings.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	stations, err := figures.Stations(filepath.Join(dir, "archives.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	want := figures.TruthOfAir(data, stations)
	acknowledged := ""
	fed := feeding(t, m, top, 400, filepath.Join(dir, "data", "readings.jsonl"))
	for i, kind := range []string{"stat", "alarm", "output"} {
		reached(t, m, top.Name, (i+1)*len(data)/5)
		p := m.Services[kind][0]
		var acked <-chan string
		switch kind {
		case "alarm":
			acked = acknowledging(t, m, top)
		case "output":
			hook.killed()
		}
		p.Kill()
		t.Logf("killed %s", p.Name)
		restart(t, p)
		if acked != nil {
			acknowledged = <-acked
		}
	}
	if n := <-fed; n != int64(len(data)) {
		t.Fatalf("%d of %d readings were fed", n, len(data))
	}
	settle(t, m, top)
	noLetters(t, m, top.Name)
	db := database(t, m, "air")
	checkAcknowledged(t, stored[ackedEpisode](t, db, "alarms_episodes"), acknowledged)
	events := slices.DeleteFunc(stored[figures.AirEvent](t, db, "alarms"), func(e figures.AirEvent) bool { return e.Event == "ack" })
	for _, wrong := range want.Differences(figures.AirStored{
		Hours: stored[figures.AirHour](t, db, "hourly"), Sites: stored[figures.AirSite](t, db, "site_hours"),
		Totals: stored[figures.AirTotal](t, db, "totals"), Events: events,
	}) {
		t.Error(wrong)
	}
	if n := len(stored[struct{}](t, db, "readings")); n != want.Stored {
		t.Errorf("%d readings are stored, want %d", n, want.Stored)
	}
	hook.check(t, stored[told](t, db, "alarms"))
}

// ackedEpisode is what is stored of an episode that somebody may have acknowledged.
type ackedEpisode struct {
	ID             string `bson:"_id"`
	Group, State   string
	RaisedAt       int64  `bson:"raised_at"`
	AcknowledgedBy string `bson:"acknowledged_by"`
	Version        int
	History        []struct{ What, By, Note string }
}

// acknowledging acknowledges an open episode of dust in the background, and sends its group; "" when none was open for long enough. It returns when it has begun to.
func acknowledging(t *testing.T, m *mesh.Mesh, top *topology.Topology) <-chan string {
	t.Helper()
	out, begun := make(chan string, 1), make(chan struct{})
	db := database(t, m, "air")
	go func() {
		defer close(out)
		for try := range 20 {
			all, err := figures.Stored[ackedEpisode](t.Context(), db, "alarms_episodes")
			if err != nil {
				t.Log(err)
			}
			for _, e := range all {
				if e.State != "open" {
					continue
				}
				args := []string{"alarms", "ack", top.Name, "dust", e.Group, "--by", "ann", "--note", "on my way", "--request", fmt.Sprint("air-", try, "-", e.Group)}
				if try == 0 {
					select {
					case <-begun:
					default:
						close(begun)
					}
				}
				if _, err := m.CLI(t.Context(), args...); err != nil {
					t.Logf("%s: %v", e.Group, err) // it is cleared by now, or of the other alarm
					continue
				}
				if _, err := m.CLI(t.Context(), args...); err != nil {
					t.Errorf("the same request once more: %v", err)
				}
				out <- e.Group
				return
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-t.Context().Done():
				return
			}
		}
	}()
	select {
	case <-begun:
	case <-time.After(5 * time.Second):
	}
	return out
}

// checkAcknowledged wants one episode of the group to have been acknowledged, once.
func checkAcknowledged(t *testing.T, all []ackedEpisode, group string) {
	t.Helper()
	var acks []string
	for _, e := range all {
		for _, h := range e.History {
			if h.What == "ack" {
				acks = append(acks, fmt.Sprint(e.Group, h.By, h.Note, e.AcknowledgedBy))
			}
		}
	}
	if want := []string{fmt.Sprint(group, "ann", "on my way", "ann")}; group == "" || !slices.Equal(acks, want) {
		t.Errorf("acknowledged: %q, want %q", acks, want)
	}
}

// told is what a stored event and a POST have in common.
type told struct {
	ID    string `bson:"_id"`
	Alarm string
}

const hookSecret = "a secret of this test"

// notifying returns a copy of the topology in which one alarm tells a webhook.
func notifying(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "air.yaml")
	with := bytes.Replace(text, []byte("    severity: major\n"), []byte("    severity: major\n    notify: {subject: alarms.dust, webhook: \"${ALARM_HOOK}\", secret: \"${ALARM_SECRET}\"}\n"), 1)
	if bytes.Equal(with, text) {
		t.Fatal("the example has no alarm to which a notify can be added")
	}
	if err := os.WriteFile(out, with, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// feeding feeds in the background, and sends how many readings were sent when it is over.
func feeding(t *testing.T, m *mesh.Mesh, top *topology.Topology, rate int, file string) <-chan int64 {
	t.Helper()
	fed, over := make(chan int64, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(over)
		n, err := m.Feed(ctx, top, rate, file)
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		fed <- n
	}()
	t.Cleanup(func() { cancel(); <-over })
	return fed
}

// receiver is a webhook that is down for every fifth request, and remembers what it has taken.
type receiver struct {
	mu    sync.Mutex
	calls int
	seen  map[string][]time.Time // when it was taken
	death time.Time              // of the output service
	wrong []string
}

// ServeHTTP implements http.Handler.
func (h *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls++; h.calls%5 == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(r.Body)
	sum, _ := hex.DecodeString(r.Header.Get(webhook.HeaderSignature)[len("sha256="):])
	if err != nil || !hmac.Equal(sum, webhook.Sign([]byte(hookSecret), r.Header.Get(webhook.HeaderTimestamp), body)) {
		h.wrong = append(h.wrong, fmt.Sprintf("a POST that is not signed right: %v %s", r.Header, body))
	}
	id := r.Header.Get(webhook.HeaderID)
	h.seen[id] = append(h.seen[id], time.Now())
}

// killed says that the output service is about to die.
func (h *receiver) killed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.death = time.Now()
}

// check wants each event of the alarm once. Killing the output service between an answer and its note may double one: first taken just before, and again after.
func (h *receiver) check(t *testing.T, events []told) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var want []string
	for _, e := range events {
		if e.Alarm == "dust" {
			want = append(want, e.ID)
		}
	}
	var got []string
	for id, at := range h.seen {
		got = append(got, id)
		const note = 3 * time.Second // writing it takes milliseconds
		if n := len(at); n > 2 || n == 2 && (at[0].Before(h.death.Add(-note)) || at[0].After(h.death.Add(note)) || at[1].Before(h.death)) {
			t.Errorf("event %s was told %d times, at %v, while the output service died at %v", id, n, at, h.death)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%d events were told, of %d", len(got), len(want))
	}
	if len(want) < 10 {
		t.Errorf("only %d events: the test is too dull", len(want))
	}
	for _, w := range h.wrong {
		t.Error(w)
	}
}
