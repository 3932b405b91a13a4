package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/feed"
)

const negatives = `topology: rooms
spout: {id: readings, kafka: {brokers: "localhost:9092", topics: [rooms]}, key: device, time: {field: ts}}
bolts:
  - id: clean
    kind: convert
    from: readings
    script: clean.js
    save: readings
  - {id: totals, kind: stat, from: clean, window: lifetime, aggregates: {n: count, sum: sum(v)}, save: totals}
`

const refusing = `function convert(t) {
  if (t.v < 0) throw new Error("negative")
  return t
}
`

// TestDeadLetters: what cannot be handled stops nobody; mended and replayed it arrives once, however often it is replayed.
func TestDeadLetters(t *testing.T) {
	dir := t.TempDir()
	file, script := filepath.Join(dir, "topology.yaml"), filepath.Join(dir, "clean.js")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, negatives)
	write(script, refusing)
	top, err := readTopology(file)
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := startMesh(t.Context(), &devFlags{dataDir: t.TempDir(), once: true}, top, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mesh.stop(); err != nil {
			t.Error(err)
		}
	}()
	t.Setenv("BOLTMESH_NATS_URL", mesh.stack.NATSURL())
	t.Setenv("BOLTMESH_KAFKA_BROKERS", mesh.stack.KafkaBrokers()[0])
	ok(t, "apply", file)
	everyone(t, mesh, 1)

	const n = 200
	var data strings.Builder
	for i := range n {
		v := i
		if i == 42 {
			v = -7
			data.WriteString("{broken\n")
		}
		fmt.Fprintf(&data, "{\"device\":\"room-%d\",\"ts\":%d,\"v\":%d}\n", i%9, 1_700_000_000_000+i*1000, v)
	}
	rows := filepath.Join(dir, "rooms.jsonl")
	write(rows, data.String())
	fed := feed.Options{Spout: mesh.plan.Topology.Spout, Files: []string{rows}, Partitions: devPartitions}
	fed.Spout.Kafka = mesh.kafka(fed.Spout.Kafka)
	r, err := feed.Run(t.Context(), fed)
	if err != nil {
		t.Fatal(err)
	}
	if err := mesh.control.AwaitIdle(t.Context(), "rooms", r.Ends, nil); err != nil { // both partitions go on
		t.Fatal(err)
	}
	stored := func(want int64) {
		t.Helper()
		eventually(t, func() string {
			got, err := mesh.documents.Documents().Count(t.Context(), "readings")
			if err != nil || got == want {
				return ""
			}
			return fmt.Sprintf("%d readings are stored, want %d", got, want)
		})
	}
	stored(n - 1)
	letters := func(args ...string) []control.Letter {
		t.Helper()
		return decode[[]control.Letter](t, ok(t, append([]string{"dlq", "ls", "rooms", "-o", "json"}, args...)...))
	}
	if all := letters(); len(all) != 2 {
		t.Fatalf("letters %+v", all)
	}
	if none := letters("--until", "1h"); len(none) != 0 {
		t.Errorf("letters of an hour ago: %+v", none)
	}
	clean := letters("--node", "clean", "--device", "room-6", "--since", "1h", "--error", "negative")
	if len(clean) != 1 || clean[0].Topic != "rooms" || !strings.Contains(clean[0].Error, "clean.js:2:") || clean[0].Tries != 1 || clean[0].Revision != 1 ||
		clean[0].Path != fmt.Sprintf("rooms/%d@%d > readings.default > clean", clean[0].Partition, clean[0].Offset) {
		t.Fatalf("letters of clean: %+v", clean)
	}
	id := clean[0].ID.String()
	if out := ok(t, "dlq", "show", "rooms", id[:8]); !strings.Contains(out, id) || !strings.Contains(out, `"v":-7`) || !strings.Contains(out, clean[0].Path) {
		t.Error(out)
	}
	if out := ok(t, "dlq", "ls", "rooms"); !strings.Contains(out, "readings") || !strings.Contains(out, "negative") {
		t.Error(out)
	}

	write(script, strings.Replace(refusing, `throw new Error("negative")`, `t.v = 0`, 1))
	ok(t, "apply", file)
	everyone(t, mesh, 2)
	for i, want := range []string{"replayed", "had been replayed before", "had been replayed before"} {
		if out := ok(t, "dlq", "replay", "rooms", id[:12]); !strings.Contains(out, want) {
			t.Errorf("time %d: %s", i, out)
		}
	}
	stored(n)
	ok(t, "dlq", "replay", "rooms", "--node", "clean")
	if again := letters("--node", "clean"); len(again) != 1 || again[0].Dealt == nil || again[0].Dealt.Dropped {
		t.Errorf("letters of clean: %+v", again)
	}

	// a letter that fails again is a new one
	ok(t, "pause", "rooms")
	ok(t, "dlq", "replay", "rooms", "--node", "readings")
	eventually(t, func() string { // once the spout has told how far its inputs are; it drops nothing before
		code, out, errs := call(t, "dlq", "drop", "rooms", "--node", "readings")
		if code != exitFailed || !strings.Contains(out, "kept: it was replayed at 1") {
			return fmt.Sprintf("dropped while it is under way: exit %d: %s%s", code, out, errs)
		}
		return ""
	})
	ok(t, "resume", "rooms")
	eventually(t, func() string {
		if got := letters("--node", "readings"); len(got) != 2 || got[1].Path != "replay log@1 > readings" || got[1].Dealt != nil || got[1].ReplayOf.ID != got[0].ID {
			return fmt.Sprintf("letters of readings: %+v", got)
		}
		return ""
	})
	eventually(t, func() string { // what the spouts tell is up to a second old
		if code, out, _ := call(t, "dlq", "drop", "rooms", "--all"); code != exitOK {
			return out
		}
		return ""
	})
	if left := letters(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	if code, _, errs := call(t, "dlq", "replay", "rooms", id); code != exitFailed || !strings.Contains(errs, "no dead letter "+id) {
		t.Errorf("replayed after it was dropped: exit %d: %s", code, errs)
	}
	if err := mesh.control.Flush(t.Context(), "rooms"); err != nil {
		t.Fatal(err)
	}
	stored(n)
	if got := total(t, mesh); got != n {
		t.Errorf("counted %d readings, want %d", got, n)
	}
}

// total sums up the last counts of all devices.
func total(t *testing.T, m *devMesh) (sum int) {
	t.Helper()
	type document struct {
		Device string `json:"device"`
		N      int    `json:"n"`
	}
	most := map[string]int{}
	err := m.documents.Documents().Each(t.Context(), "totals", func(body []byte) error {
		d := decode[document](t, string(body))
		most[d.Device] = max(most[d.Device], d.N)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range most {
		sum += n
	}
	return sum
}

// eventually asks until what it is told is empty.
func eventually(t *testing.T, missing func() string) {
	t.Helper()
	what := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if what = missing(); what == "" {
			return
		}
	}
	t.Fatal(what)
}

func TestLetterUsage(t *testing.T) {
	for line, want := range map[string]string{
		"dlq replay rooms":                     "--all",
		"dlq drop rooms":                       "--all",
		"dlq drop rooms --all --node clean":    "or else give --all",
		"dlq show rooms":                       "dlq show TOPOLOGY ID...",
		"dlq show rooms xyz":                   "beginning of an id",
		"dlq ls rooms --since yesterday":       "2026-01-31T12:00:00Z",
		"dlq replay rooms --until -3h --all":   "how long ago",
		"dlq ls rooms --since 2026-01-31 -o x": "neither table nor json",
	} {
		if code, out, errs := call(t, strings.Fields(line)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, want 2 and %q: %s%s", line, code, want, out, errs)
		}
	}
}
