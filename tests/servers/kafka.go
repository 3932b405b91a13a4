package servers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/segmentio/kafka-go"
)

// kafkaLog4j makes the broker say on its output what is wrong, and nothing else.
var kafkaLog4j = []string{
	"status = error",
	"appender.out.type = Console",
	"appender.out.name = out",
	"appender.out.layout.type = PatternLayout",
	"appender.out.layout.pattern = %d %p %m (%c)%n",
	"rootLogger.level = warn",
	"rootLogger.appenderRef.out.ref = out",
}

// Kafka starts one Apache Kafka node that is broker and controller (KRaft), on Java 17. URL is its bootstrap address,
// host:port. Topics are created on first use with four partitions. Killed and restarted it has every record that it
// acknowledged: they are in the page cache, which outlives the process.
func Kafka(ctx context.Context, o Options) (*Process, error) {
	jars, err := o.tool("kafka")
	if err != nil {
		return nil, err
	}
	java, err := program("java", "openjdk-17-jre-headless")
	if err != nil {
		return nil, err
	}
	p, ports, err := prepare("kafka", o, 2)
	if err != nil {
		return nil, err
	}
	p.URL = loopback(ports[0])
	p.ready = p.askKafka
	log4j, err := p.writeConfig("log4j2.properties", kafkaLog4j, nil)
	if err != nil {
		p.Close()
		return nil, err
	}
	conf, err := p.writeConfig("server.properties", kafkaProperties(ports[0], ports[1], p.data()), o.Config)
	if err != nil {
		p.Close()
		return nil, err
	}
	// Serial collection and the quick compiler only: a broker of tests lives for seconds on few cores.
	jvm := []string{
		java, "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dlog4j2.configurationFile=" + log4j, "-cp", filepath.Join(jars, "*"),
	}
	if err := p.formatKafka(ctx, jvm, conf); err != nil {
		p.Close()
		return nil, err
	}
	p.argv = append(jvm, "kafka.Kafka", conf)
	return p.launch(ctx, o)
}

func kafkaProperties(port, controller int, data string) []string {
	return []string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + loopback(controller),
		"listeners=PLAINTEXT://" + loopback(port) + ",CONTROLLER://" + loopback(controller),
		"advertised.listeners=PLAINTEXT://" + loopback(port),
		"controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs=" + data,
		"num.partitions=4",
		// One node can hold one replica only.
		"offsets.topic.replication.factor=1",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		// Fewer internal partitions and no wait for further members: a group is up at once.
		"offsets.topic.num.partitions=4",
		"transaction.state.log.num.partitions=4",
		"group.initial.rebalance.delay.ms=0",
		"group.min.session.timeout.ms=1000",
		// A broker that was killed may come back before the controller has missed it for nine seconds.
		"broker.session.timeout.ms=2000",
		"broker.heartbeat.interval.ms=500",
		// 128 MiB by default, more than the rest of the heap needs.
		"log.cleaner.dedupe.buffer.size=10485760",
	}
}

// formatKafka prepares an empty data directory; KRaft does not start without.
func (p *Process) formatKafka(ctx context.Context, jvm []string, conf string) error {
	if _, err := os.Stat(filepath.Join(p.data(), "meta.properties")); err == nil {
		return nil
	}
	argv := append(jvm[:len(jvm):len(jvm)], "kafka.tools.StorageTool", "format", "-t", "Ym9sdG1lc2gtdGVzdC0wMA", "-c", conf)
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("start kafka: format %s: %w\n%s", p.data(), err, out)
	}
	return nil
}

func (p *Process) askKafka(ctx context.Context) error {
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(p.URL), Transport: transport}
	res, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return err
	}
	if len(res.Brokers) != 1 { // it is listed once the controller has let it in
		return fmt.Errorf("%d brokers are up", len(res.Brokers))
	}
	for _, t := range res.Topics {
		for _, part := range t.Partitions {
			if part.Error != nil {
				return fmt.Errorf("%s-%d: %w", t.Name, part.ID, part.Error)
			}
		}
	}
	return nil
}
