package devstack

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type kafkaBroker struct{ cluster *kfake.Cluster }

// startKafka runs one broker. Its data survives both Close and a killed process: every batch and every committed offset
// is written to a file before it is acknowledged, and a torn last entry is cut off when the directory is opened again.
func startKafka(o Options) (*kafkaBroker, error) {
	opts := []kfake.Opt{
		kfake.Ports(o.KafkaPort), // a single port is a single broker
		kfake.DataDir(filepath.Join(o.Dir, "kafka")),
		kfake.ClusterID("devstack"),
		kfake.AllowAutoTopicCreation(),
		kfake.DefaultNumPartitions(o.KafkaPartitions),
		kfake.WithLogger(kafkaLog(o.Warn)),
	}
	if o.KafkaMaxBytes > 0 {
		opts = append(opts, kfake.BrokerConfigs(map[string]string{"message.max.bytes": strconv.Itoa(o.KafkaMaxBytes)}))
	}
	if o.SyncAlways {
		opts = append(opts, kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, err
	}
	b := &kafkaBroker{cluster}
	if o.Produced != nil {
		cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // kfake has the error in the middle
			produced(r.(*kmsg.ProduceRequest), o.Produced)
			return nil, nil, false // as ever
		})
	}
	// Not kfake.SeedTopics: it is ignored when the directory already holds a cluster.
	for _, topic := range o.Topics {
		if cluster.TopicInfo(topic) != nil {
			continue
		}
		if err := cluster.CreateTopic(topic, int32(o.KafkaPartitions), nil); err != nil {
			b.close()
			return nil, fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	return b, nil
}

func produced(r *kmsg.ProduceRequest, tell func(partition int32, records int)) {
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			var batch kmsg.RecordBatch
			if batch.ReadFrom(p.Records) == nil { // otherwise it will be refused
				tell(p.Partition, int(batch.NumRecords))
			}
		}
	}
}

func (b *kafkaBroker) close() { b.cluster.Close() }

// kafkaLog passes on what the broker warns of and drops the rest.
type kafkaLog func(line string)

func (l kafkaLog) Logf(level kfake.LogLevel, format string, v ...any) {
	if level == kfake.LogLevelError || level == kfake.LogLevelWarn {
		l("kafka: " + fmt.Sprintf(format, v...))
	}
}
