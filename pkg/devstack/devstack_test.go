package devstack_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/devstack"
)

// stackDirVar makes this test binary a stack on the directory it names, to be killed by a test.
const stackDirVar = "DEVSTACK_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(stackDirVar); dir != "" {
		serve(dir)
	}
	goleak.VerifyTestMain(m)
}

// serve runs a stack until the process is killed or its input ends, which it does when the test dies.
func serve(dir string) {
	s, err := devstack.Start(context.Background(), devstack.Options{Dir: dir, Topics: []string{"readings"}, KafkaPartitions: 2})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready", s.NATSURL(), s.KafkaBrokers()[0])
	bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(0)
}

func start(t *testing.T, o devstack.Options) *devstack.Stack {
	t.Helper()
	o.Warn = func(line string) { t.Log(line) }
	began := time.Now()
	s, err := devstack.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(began))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestDataSurvivesAClose(t *testing.T) {
	o := devstack.Options{Dir: t.TempDir(), Topics: []string{"readings"}, KafkaPartitions: 2}
	first := start(t, o)
	before := write(t, first.NATSURL(), first.KafkaBrokers()[0])
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	o.Topics = append(o.Topics, "later") // topics named after the first start are created too
	second := start(t, o)
	verify(t, second.NATSURL(), second.KafkaBrokers()[0], before)
	if _, got := topic(t, second.KafkaBrokers()[0], "later"); got != 2 {
		t.Errorf("topic later has %d partitions, want 2", got)
	}
}

func TestDataSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), stackDirVar+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != 3 || words[0] != "ready" {
		t.Fatalf("child said %q, %v", line, err)
	}
	before := write(t, words[1], words[2])
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the error is the kill
	s := start(t, devstack.Options{Dir: dir, Topics: []string{"readings"}, KafkaPartitions: 2})
	verify(t, s.NATSURL(), s.KafkaBrokers()[0], before)
}

func TestOneStackPerDirectory(t *testing.T) {
	o := devstack.Options{Dir: t.TempDir(), NoKafka: true}
	s := start(t, o)
	if got := s.KafkaBrokers(); got != nil {
		t.Errorf("brokers without kafka: %v", got)
	}
	if other, err := devstack.Start(t.Context(), o); err == nil {
		other.Close()
		t.Fatal("a second stack started on the same directory")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, o)
}

func TestStartErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	blocked := t.TempDir()
	if err := os.WriteFile(filepath.Join(blocked, "kafka"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	busy := start(t, devstack.Options{Dir: t.TempDir(), NoKafka: true})
	var port int
	if _, err := fmt.Sscanf(busy.NATSURL(), "nats://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]devstack.Options{
		"no directory":        {},
		"directory is a file": {Dir: file},
		"kafka dir is a file": {Dir: blocked},
		"kafka port taken":    {Dir: t.TempDir(), KafkaPort: port},
		"nats port taken":     {Dir: t.TempDir(), NATSPort: port},
		"impossible port":     {Dir: t.TempDir(), KafkaPort: -1},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if s, err := devstack.Start(ctx, o); err == nil {
				s.Close()
				t.Fatal("started")
			}
		})
	}
}

func TestPortsAreKept(t *testing.T) {
	o := devstack.Options{Dir: t.TempDir()}
	s := start(t, o)
	natsURL, broker := s.NATSURL(), s.KafkaBrokers()[0]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(natsURL, "nats://127.0.0.1:%d", &o.NATSPort); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(broker, "127.0.0.1:%d", &o.KafkaPort); err != nil {
		t.Fatal(err)
	}
	s = start(t, o)
	if s.NATSURL() != natsURL || s.KafkaBrokers()[0] != broker {
		t.Errorf("moved from %s and %s to %s and %v", natsURL, broker, s.NATSURL(), s.KafkaBrokers())
	}
}

// TestProduced checks that whoever wants to know of records knows of all of them when they are acknowledged.
func TestProduced(t *testing.T) {
	var mu sync.Mutex
	got := map[int32]int{}
	s := start(t, devstack.Options{Dir: t.TempDir(), Topics: []string{"readings"}, KafkaPartitions: 2, Produced: func(partition int32, records int) {
		mu.Lock()
		defer mu.Unlock()
		got[partition] += records
	}})
	before := write(t, s.NATSURL(), s.KafkaBrokers()[0])
	mu.Lock()
	if got[0] != 5 || got[1] != 5 {
		t.Errorf("%v records came, want 5 to each partition", got)
	}
	mu.Unlock()
	verify(t, s.NATSURL(), s.KafkaBrokers()[0], before)
}

// written is what verify expects to find again.
type written struct{ topicID string }

// write leaves a stream, a bucket, records and a committed offset behind.
func write(t *testing.T, natsURL, broker string) written {
	t.Helper()
	ctx, js := connect(t, natsURL)
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.*"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "s.a", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "B", LimitMarkerTTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}

	w := &kafka.Writer{Addr: kafka.TCP(broker), Topic: "readings", RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond, Transport: transport(t), Balancer: &kafka.RoundRobin{}}
	defer w.Close()
	for i := range 10 {
		if err := w.WriteMessages(ctx, kafka.Message{Key: []byte("d"), Value: fmt.Appendf(nil, "%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	client := &kafka.Client{Addr: kafka.TCP(broker), Transport: transport(t)}
	res, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: "g", GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{"readings": {{Partition: 0, Offset: 3}, {Partition: 1, Offset: 2}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range res.Topics["readings"] {
		if p.Error != nil {
			t.Fatal(p.Error)
		}
	}
	id, _ := topic(t, broker, "readings")
	return written{id}
}

func verify(t *testing.T, natsURL, broker string, want written) {
	t.Helper()
	ctx, js := connect(t, natsURL)
	stream, err := js.Stream(ctx, "S")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetMsg(ctx, 1)
	if err != nil || string(msg.Data) != "kept" {
		t.Errorf("stream message = %v, %v", msg, err)
	}
	kv, err := js.KeyValue(ctx, "B")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(ctx, "k"); err != nil || string(e.Value()) != "v" {
		t.Errorf("key = %v, %v", e, err)
	}

	if id, partitions := topic(t, broker, "readings"); id != want.topicID || partitions != 2 {
		t.Errorf("topic readings = %s with %d partitions, want %s with 2", id, partitions, want.topicID)
	}
	var values []string
	for p := range 2 {
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{broker}, Topic: "readings", Partition: p, MaxWait: 10 * time.Millisecond})
		for range 5 {
			m, err := r.ReadMessage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, string(m.Value))
		}
		r.Close()
	}
	if got := strings.Join(values, ""); got != "0246813579" {
		t.Errorf("records = %s", got)
	}
	client := &kafka.Client{Addr: kafka.TCP(broker), Transport: transport(t)}
	res, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: "g", Topics: map[string][]int{"readings": {0, 1}}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[int]int64{}
	for _, p := range res.Topics["readings"] {
		got[p.Partition] = p.CommittedOffset
	}
	if got[0] != 3 || got[1] != 2 {
		t.Errorf("committed offsets = %v, want 3 and 2", got)
	}
}

func connect(t *testing.T, url string) (context.Context, jetstream.JetStream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, js
}

// topic returns a topic's id, which kafka-go does not show, and its number of partitions.
func topic(t *testing.T, broker, name string) (id string, partitions int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
	res, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	if err := kerr.ErrorForCode(res.Topics[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", res.Topics[0].TopicID), len(res.Topics[0].Partitions)
}

func transport(t *testing.T) *kafka.Transport {
	t.Helper()
	tr := &kafka.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}
