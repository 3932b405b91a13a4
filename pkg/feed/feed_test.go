package feed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func broker(t testing.TB, o devstack.Options) string {
	t.Helper()
	o.Dir, o.Warn = t.TempDir(), func(line string) { t.Log(line) }
	s, err := devstack.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.KafkaBrokers()[0]
}

func options(brokers string, files ...string) Options {
	spec := timed
	spec.Kafka = topology.Kafka{Brokers: brokers, Topics: []string{"readings"}}
	return Options{Spout: spec, Files: files}
}

// readings writes a file of n rows of 7 devices and returns its name. Ids set files apart.
func readings(t testing.TB, id string, n int) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("device,ts,v,file\n")
	for i := range n {
		fmt.Fprintf(&b, "m%d,%d,%d,%s\n", i%7, 1000+i, i, id)
	}
	path := filepath.Join(t.TempDir(), id+".csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// held returns what the topic holds: how often each row of each file, and per partition the values in order.
func held(t *testing.T, o Options) (rows map[string]int, values [][]string) {
	t.Helper()
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	in, err := dial(o)
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	if err := in.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans, err := in.spans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows = map[string]int{}
	for p, s := range spans {
		var list []string
		err := in.scan(t.Context(), p, s.first, s.end, func(r *kafka.Record) {
			id, _, row := mark(r)
			rows[fmt.Sprintf("%s/%d", id, row)]++
			value, err := kafka.ReadAll(r.Value)
			if err != nil {
				t.Error(err)
			}
			list = append(list, string(value))
		})
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, list)
	}
	return rows, values
}

func once(t *testing.T, rows map[string]int, want int) {
	t.Helper()
	if len(rows) != want {
		t.Errorf("the topic holds %d rows, want %d", len(rows), want)
	}
	for row, n := range rows {
		if n != 1 {
			t.Errorf("row %s is there %d times", row, n)
		}
	}
}

func TestFeedTwice(t *testing.T) {
	o := options(broker(t, devstack.Options{}), readings(t, "a", 2500), readings(t, "b", 900))
	first, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if first.Sent() != 3400 || first.Files[0].Rows != 2500 || first.Files[1].Rows != 900 || len(first.Ends) != 4 {
		t.Errorf("got %+v", first)
	}
	rows, values := held(t, o)
	once(t, rows, 3400)
	for p, list := range values { // both files begin at the same time: merged, they alternate
		for i := 1; i < min(len(list), 200); i++ {
			if ts(list[i]) < ts(list[i-1]) {
				t.Fatalf("partition %d: %s after %s", p, list[i], list[i-1])
			}
		}
	}
	second, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if second.Sent() != 0 || second.Files[0].Found != 2500 || second.Files[1].Found != 900 {
		t.Errorf("fed again: %+v", second)
	}
	o.Again, o.Files = true, o.Files[1:]
	third, err := Run(t.Context(), o)
	if err != nil || third.Sent() != 900 {
		t.Errorf("fed anew: %+v, %v", third, err)
	}
	if rows, _ = held(t, o); rows[third.Files[0].ID+"/1"] != 2 {
		t.Errorf("row 1 is there %d times", rows[third.Files[0].ID+"/1"])
	}
}

func ts(value string) string { _, rest, _ := strings.Cut(value, `"ts":`); return rest[:4] }

func TestResumeSendsWhatIsMissing(t *testing.T) {
	o := options(broker(t, devstack.Options{}), readings(t, "a", 5000))
	o.Chunk = 100
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Progress = func(p Progress) {
		if p.Doing == "send" && p.Done >= 1200 {
			cancel()
		}
	}
	part, err := Run(ctx, o)
	if !errors.Is(err, context.Canceled) || part.Sent() < 1200 || part.Sent() >= 5000 {
		t.Fatalf("interrupted: %+v, %v", part, err)
	}
	o.Progress = nil
	var others sync.WaitGroup // somebody else's rows lie between
	others.Go(func() {
		if _, err := Run(t.Context(), options(o.Spout.Kafka.Brokers, readings(t, "b", 3000))); err != nil {
			t.Error(err)
		}
	})
	rest, err := Run(t.Context(), o)
	others.Wait()
	if err != nil || rest.Files[0].Found < part.Sent() || rest.Files[0].Found+rest.Sent() != 5000 {
		t.Errorf("resumed: %+v, %v", rest, err)
	}
	rows, _ := held(t, o)
	once(t, rows, 8000)
}

// lossy loses what it is told to, on the way there or on the way back.
type lossy struct {
	transport
	mu     sync.Mutex
	writes int
}

func (l *lossy) RoundTrip(ctx context.Context, addr net.Addr, r kafka.Request) (kafka.Response, error) {
	if _, ok := r.(*produce.Request); !ok {
		return l.transport.RoundTrip(ctx, addr, r)
	}
	l.mu.Lock()
	l.writes++
	n := l.writes
	l.mu.Unlock()
	if n%3 == 1 {
		return nil, errors.New("connection refused")
	}
	answer, err := l.transport.RoundTrip(ctx, addr, r)
	if n%3 == 2 {
		return nil, errors.New("connection reset")
	}
	return answer, err
}

func TestLostAnswers(t *testing.T) {
	o := options(broker(t, devstack.Options{}), readings(t, "a", 400))
	o.Chunk = 200
	o.wrap = func(in transport) transport { return &lossy{transport: in} }
	r, err := Run(t.Context(), o)
	if err != nil || r.Sent() != 400 {
		t.Fatalf("got %+v, %v", r, err)
	}
	rows, values := held(t, o)
	once(t, rows, 400)
	for p, list := range values {
		for i := 1; i < len(list); i++ {
			if ts(list[i]) < ts(list[i-1]) {
				t.Fatalf("partition %d: %s after %s", p, list[i], list[i-1])
			}
		}
	}
}

func TestLargeRows(t *testing.T) {
	o := options(broker(t, devstack.Options{KafkaMaxBytes: 100_000}), filepath.Join(t.TempDir(), "a.jsonl"))
	var b strings.Builder
	for i, n := range []int{10, 60_000, 60_000, 10, 300_000, 10} {
		fmt.Fprintf(&b, `{"device":"m","ts":%d,"note":%q}`+"\n", i, strings.Repeat("x", n))
	}
	if err := os.WriteFile(o.Files[0], []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), o)
	if err != nil || r.Sent() != 5 || r.Files[0].Refused != 1 || !strings.HasPrefix(r.Files[0].FirstRefused, "row 5 of 300") {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestStreamAndBadRows(t *testing.T) {
	o := options(broker(t, devstack.Options{}), Stdin)
	o.Spout.Stream = "temperatures"
	o.Stdin = strings.NewReader("device,ts\nm1,1\nm2\nm3,x\n")
	r, err := Run(t.Context(), o)
	if f := r.Files[0]; err != nil || f.Sent != 3 || f.Bad != 2 || !strings.HasPrefix(f.ID, "stream-") || !strings.HasPrefix(f.FirstBad, "row 2: ") {
		t.Errorf("got %+v, %v", r, err)
	}
	rows, _ := held(t, o)
	once(t, rows, 3)
}

func TestFeedRefuses(t *testing.T) {
	same := readings(t, "a", 3)
	text, err := os.ReadFile(same)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "copy.csv")
	if err := os.WriteFile(other, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no file":      {options("127.0.0.1:1"), "no file"},
		"no such file": {options("127.0.0.1:1", "/nowhere.csv"), "/nowhere.csv"},
		"a copy":       {options("127.0.0.1:1", same, other), "same content"},
		"no broker":    {options("127.0.0.1:1", same), "127.0.0.1:1 do not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Run(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	text := "device,ts,v\n" + strings.Repeat("machine-1,1386018900000,73.96732207\n", 1000)
	for b.Loop() {
		if rows := readAll(b, reader(b, "a.csv", text, timed)); len(rows) != 1000 {
			b.Fatal(len(rows))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/row")
}

// Rows whose records the topic has let expire were there: those before the first one that is left in the same partition.
func TestExpiredBeginning(t *testing.T) {
	o := options(broker(t, devstack.Options{}), readings(t, "a", 700))
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(o.Spout.Kafka.Brokers))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	cut := kmsg.NewDeleteRecordsRequest()
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic = "readings"
	for p := range int32(DefaultPartitions) {
		part := kmsg.NewDeleteRecordsRequestTopicPartition()
		part.Partition, part.Offset = p, 50
		topic.Partitions = append(topic.Partitions, part)
	}
	cut.Topics, cut.TimeoutMillis = append(cut.Topics, topic), 5000
	if _, err := cut.RequestWith(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	before, _ := held(t, o)
	if len(before) >= 700 {
		t.Fatalf("nothing expired: %d rows", len(before))
	}
	r, err := Run(t.Context(), o)
	if err != nil || r.Sent() != 0 || r.Files[0].Found != 700 {
		t.Errorf("of %d rows that are left: %+v, %v", len(before), r, err)
	}
}

func BenchmarkFeed(b *testing.B) {
	const rows = 50_000
	o := options(broker(b, devstack.Options{}), readings(b, "a", rows))
	o.Again = true
	for b.Loop() {
		if r, err := Run(b.Context(), o); err != nil || r.Sent() != rows {
			b.Fatal(r, err)
		}
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkFound(b *testing.B) {
	const rows = 50_000
	o := options(broker(b, devstack.Options{}), readings(b, "a", rows))
	if _, err := Run(b.Context(), o); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if r, err := Run(b.Context(), o); err != nil || r.Sent() != 0 {
			b.Fatal(r, err)
		}
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
