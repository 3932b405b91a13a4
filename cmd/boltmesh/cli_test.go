package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/boltmesh/boltmesh/pkg/control"
	"github.com/boltmesh/boltmesh/pkg/feed"
	"github.com/boltmesh/boltmesh/pkg/member"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata.
func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s\nregenerate it with -update and look at the difference", path, got, want)
	}
}

// call runs a command line.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return callWith(t, "", args...)
}

func callWith(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// ok runs a command line that has to succeed.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := call(t, args...)
	if code != exitOK {
		t.Fatalf("boltmesh %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func TestHelp(t *testing.T) {
	for _, verb := range []string{"advise", "apply", "call", "delete", "dlq drop", "dlq ls", "dlq replay", "dlq show", "feed", "get", "lag", "list", "pause", "ps", "rebalance", "resume", "validate"} {
		t.Run(verb, func(t *testing.T) {
			help, _, _ := strings.Cut(ok(t, append(strings.Fields(verb), "--help")...), "Global Flags:")
			if !strings.Contains(help, "Examples:") {
				t.Error("without an example")
			}
			golden(t, "help/"+strings.ReplaceAll(verb, " ", "-")+".txt", help)
		})
	}
}

func TestValidate(t *testing.T) {
	for _, file := range []string{"good", "bad", "torn"} {
		t.Run(file, func(t *testing.T) {
			code, out, errs := call(t, "validate", "testdata/"+file+".yaml")
			if want := map[bool]int{true: exitOK, false: exitFailed}[file == "good"]; code != want {
				t.Errorf("exit %d, want %d: %s", code, want, errs)
			}
			golden(t, "validate-"+file+".txt", out)
		})
	}
	code, out, _ := call(t, "validate", "-o", "json", "testdata/good.yaml", "testdata/bad.yaml")
	vs := decode[[]verdict](t, out)
	if code != exitFailed || len(vs) != 2 || len(vs[0].Problems) != 0 || len(vs[1].Problems) == 0 || vs[1].Problems[0].Line == 0 || vs[1].Problems[0].File == "" {
		t.Errorf("exit %d, %s", code, out)
	}
}

func TestUsage(t *testing.T) {
	for line, want := range map[string]string{
		"aply":                            "Did you mean",
		"validate":                        "it is written boltmesh validate FILE...",
		"advise x --target 70":            "write a share such as 0.7",
		"advise x --window 0s":            "no time to measure",
		"list extra":                      "unknown command",
		"list --color":                    "see boltmesh list --help",
		"list -o yaml":                    "neither table nor json",
		"get --timeout 0s x":              "not a time to wait",
		"feed --topology x.yaml":          "feed TOPOLOGY FILE...",
		"feed --rate fast name file.csv":  "write 500/s",
		"feed --rate 500/d name file.csv": "write 500/s",
	} {
		if code, out, errs := call(t, strings.Fields(line)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, want 2 and %q: %s%s", line, code, want, out, errs)
		}
	}
}

func TestNoServer(t *testing.T) {
	code, _, errs := call(t, "list", "--nats", "nats://someone:secret@127.0.0.1:1", "--timeout", "300ms")
	if code != exitFailed || !strings.Contains(errs, "BOLTMESH_NATS_URL") || strings.Contains(errs, "secret") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestParseRate(t *testing.T) {
	for s, want := range map[string]float64{"": 0, "500": 500, "500/s": 500, "30/m": 0.5, "3600/h": 1} {
		if got, err := parseRate(s); err != nil || got != want {
			t.Errorf("%q: got %v (%v), want %v", s, got, err, want)
		}
	}
}

func TestProcesses(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixMilli() }
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	processes(w, []member.Member{
		{
			Topology: "t", Node: "readings", Kind: "spout", Worker: "a", Version: "v1", Since: ago(90 * time.Minute), Revision: 2, Tasks: []int32{3, 0, 1}, Partitions: 4,
			Marks: []member.Mark{
				{Topic: "r", Partition: 0, Watermark: ago(time.Hour), Floor: 10, Next: 15, End: 20},
				{Topic: "r", Partition: 1, Watermark: math.MinInt64, Floor: 3, Next: 3, End: 3, Idle: true},
			},
			Oldest: ago(1500 * time.Millisecond), At: ago(300 * time.Millisecond),
		},
		{Topology: "t", Node: "clean", Kind: "convert", Worker: "b", Version: "v1", Since: ago(5 * time.Second), Revision: 2, Tasks: []int32{-1}, Working: 1, Capacity: 4, Held: ago(3 * time.Second), At: ago(2500 * time.Millisecond), In: 9, Out: 8, Failed: 1},
		{
			Topology: "t", Node: "hourly", Kind: "stat", Worker: "c", Version: "v1", Since: ago(5 * time.Second), Revision: 2,
			LastError: "no store", ErrorAt: ago(2 * time.Second),
		},
	}, now)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	golden(t, "ps.txt", b.String())
	b.Reset()
	owners(w, []control.Ownership{
		{Node: "readings", Task: "r/0", Worker: "a"}, {Node: "hourly", Task: "0", Worker: "c", Epoch: 12, Since: ago(5 * time.Second), In: 70}, {Node: "hourly", Task: "1"},
	}, now)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	golden(t, "ps-owners.txt", b.String())
	chosen, err := ofKind([]member.Member{{Node: "readings", Kind: "spout"}, {Node: "clean", Kind: "convert"}, {Node: "more", Kind: "convert"}}, nil, "convert")
	if err != nil || len(chosen) != 2 || chosen[0].Node != "clean" {
		t.Errorf("%v: %v", chosen, err)
	}
}

// TestVerbs goes through a topology's life, first without a service, then with all of them.
func TestVerbs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "topology.yaml")
	write := func(from string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("testdata", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good.yaml")
	t1, err := readTopology(file)
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := startMesh(t.Context(), &devFlags{dataDir: t.TempDir(), once: true}, t1, os.Stderr)
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

	if out := ok(t, "list", "-o", "json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("an empty list: %s", out)
	}
	if code, _, errs := call(t, "get", "rooms"); code != exitFailed || !strings.Contains(errs, "none is applied") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if out := ok(t, "apply", file); !strings.Contains(out, "rooms: applied, revision 1") {
		t.Error(out)
	}
	everyone(t, mesh, 1)
	if out := ok(t, "apply", file); !strings.Contains(out, "rooms: unchanged, revision 1") {
		t.Error(out)
	}
	if out := ok(t, "get", "rooms"); out != t1.Document.Source {
		t.Errorf("another text: %s", out)
	}
	if code, _, errs := call(t, "get", "room"); code != exitFailed || !strings.Contains(errs, "applied are rooms") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if out := ok(t, "list"); !strings.Contains(out, "running") {
		t.Error(out)
	}

	data := filepath.Join(t.TempDir(), "rooms.csv")
	rows := func(n int) {
		t.Helper()
		var b strings.Builder
		b.WriteString("device,ts,temperature\n")
		for i := range n {
			fmt.Fprintf(&b, "room-%d,%d,%d\n", i%9, 1_700_000_000_000+int64(i)*1000, i%40)
		}
		if err := os.WriteFile(data, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rows(3000)
	first := decode[feed.Result](t, ok(t, "feed", "rooms", data, "-o", "json"))
	if first.Sent() != 3000 {
		t.Errorf("fed %+v", first)
	}
	if again := decode[feed.Result](t, ok(t, "feed", "--topology", file, data, "-o", "json")); again.Sent() != 0 || again.Files[0].Found != 3000 {
		t.Errorf("fed twice: %+v", again)
	}
	if err := mesh.control.AwaitIdle(t.Context(), "rooms", first.Ends, nil); err != nil {
		t.Fatal(err)
	}
	if err := mesh.control.Flush(t.Context(), "rooms"); err != nil {
		t.Fatal(err)
	}
	if out := ok(t, "lag", "rooms", "-o", "json"); len(decode[control.Progress](t, out).Partitions) != devPartitions {
		t.Error(out)
	}
	ok(t, "lag", "rooms")
	ok(t, "ps")
	if ms := decode[[]member.Member](t, ok(t, "ps", "rooms", "--kind", "spout", "-o", "json")); len(ms) != 1 || ms[0].Kind != "spout" {
		t.Errorf("spouts: %v", ms)
	}
	if out := ok(t, "ps", "rooms", "--kind", "convert"); strings.Contains(out, "spout") || strings.Contains(out, "nobody") || !strings.Contains(out, "convert") {
		t.Errorf("workers of kind convert: %s", out)
	}
	if code, _, errs := call(t, "ps", "--kind", "stats"); code != exitFailed || !strings.Contains(errs, "there are ") {
		t.Errorf("an unknown kind: exit %d: %s", code, errs)
	}
	if ms := decode[[]member.Member](t, ok(t, "ps", "rooms", "-o", "json")); len(ms) != len(mesh.plan.Nodes) {
		t.Errorf("%d members of %d nodes", len(ms), len(mesh.plan.Nodes))
	}

	advice := decode[control.Advice](t, ok(t, "advise", "rooms", "--window", "1500ms", "-o", "json"))
	if n := advice.Nodes[0]; len(advice.Nodes) != len(mesh.plan.Nodes) || n.Replicas != 1 || n.Partitions != devPartitions {
		t.Errorf("%+v", advice)
	}
	if out := ok(t, "advise", "rooms", "--window", "100ms"); !strings.Contains(out, "NEEDS") || !strings.Contains(out, plural(devPartitions, "partition")) {
		t.Error(out)
	}
	if out := ok(t, "rebalance", "rooms", "--window", "1500ms"); !strings.Contains(out, "nothing to move") { // one worker has them all
		t.Error(out)
	}

	for _, c := range [][2]string{{"pause", "rooms: paused\n"}, {"pause", "rooms: paused already\n"}, {"resume", "rooms: running\n"}, {"resume", "rooms: running already\n"}} {
		if out := ok(t, c[0], "rooms"); out != c[1] {
			t.Errorf("%s: %s", c[0], out)
		}
	}
	more, _, _ := callWith(t, "device,ts,temperature\nroom-1,1700009999000,7\nbroken\n", "feed", "rooms", "-")
	if more != exitOK {
		t.Error("feed from standard input")
	}

	// a change while readings flow
	rows(30000)
	if out := decode[feed.Result](t, ok(t, "feed", "rooms", data, "-o", "json")); out.Sent() != 30000 {
		t.Errorf("fed %+v", out)
	}
	write("changed.yaml")
	if code, _, errs := call(t, "apply", file); code != exitFailed || !strings.Contains(errs, "removes hot: ") || !strings.Contains(errs, "--drain") {
		t.Errorf("exit %d: %s", code, errs)
	}
	reports := decode[[]control.Report](t, ok(t, "apply", file, "--drain", "-o", "json"))
	r := reports[0]
	t.Logf("emission paused for %s", r.Pause)
	if r.Revision != 2 || r.Pause <= 0 || strings.Join(r.Removed, ",") != "hot" || len(r.Silent) > 0 {
		t.Errorf("changed: %+v", r)
	}
	everyone(t, mesh, 2)
	last := decode[feed.Result](t, ok(t, "feed", "rooms", data, "-o", "json"))
	if err := mesh.control.AwaitIdle(t.Context(), "rooms", last.Ends, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("topology: rooms\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := call(t, "apply", file); code != exitFailed || !strings.Contains(errs, "nothing was applied") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if out := ok(t, "delete", "rooms", "--drain"); out != "rooms: deleted\n" {
		t.Error(out)
	}
	if left, err := mesh.conn.Inputs(t.Context(), "rooms"); err != nil || len(left) > 0 {
		t.Errorf("streams are left: %v, %v", left, err)
	}
	if out := ok(t, "ps", "-o", "json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("still there: %s", out)
	}
}

// everyone waits until every node reports a revision.
func everyone(t *testing.T, m *devMesh, revision uint32) {
	t.Helper()
	ctx := t.Context()
	for {
		ms, err := m.control.Members(ctx, "rooms")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, x := range ms {
			if x.Revision == revision {
				n++
			}
		}
		a, err := m.control.Get(ctx, "rooms")
		if err != nil {
			t.Fatal(err)
		}
		plan, err := a.Plan()
		if err != nil {
			t.Fatal(err)
		}
		if n == len(plan.Nodes) {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
}

func TestAdvised(t *testing.T) {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	advised(w, &control.Advice{Nodes: []control.NodeAdvice{
		{Node: "readings", Handled: 1000, Arrival: 3000, Replicas: 1, NeedReplicas: 3, Partitions: 4, Growth: 2000},
		{Node: "clean", Handled: 1000, Arrival: 1000, Service: 5000, Busy: 1.25, Loops: 4, Replicas: 1, NeedReplicas: 4},
		{
			Node: "hourly", Handled: 8000, Arrival: 8000, Service: 200, Busy: 0.2, Loops: 8, Replicas: 2, NeedReplicas: 2, Tasks: 8, NeedTasks: 3,
			Hottest: &control.Hot{Task: 5, Share: 0.9125, Busy: 1.46, Key: "room-1", KeyShare: 0.75, Looked: 64},
		},
		{Node: "store"},
	}})
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	golden(t, "advise.txt", b.String())
}

func TestBalances(t *testing.T) {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	balances(w, []control.Balance{{
		Node: "hourly", Moves: []control.Move{{Task: 3, From: "a", To: "b", Load: 812.4}},
		Before: []control.WorkersLoad{{Worker: "a", Tasks: 3, Load: 1700}, {Worker: "b", Tasks: 2, Load: 90}},
		After:  []control.WorkersLoad{{Worker: "a", Tasks: 2, Load: 887.6}, {Worker: "b", Tasks: 3, Load: 902.4}},
	}}, false)
	balances(w, nil, true)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	golden(t, "rebalance.txt", b.String())
}
