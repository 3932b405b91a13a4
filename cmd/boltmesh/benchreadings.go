package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// readings are what the device scenarios read: temperatures swing, each device in its own phase, so that one reading in a hundred raises or clears an alarm.
type readings struct {
	devices int  // that they come from, in turn; 0: benchDevices
	fields  int  // of a reading; 0: the twelve of the device job; otherwise at least leanFields
	toggle  bool // each of them raises or clears its device's alarm
}

// usualLinger is how long Kafka's own clients gather records, since 4.0.
const usualLinger = 5 * time.Millisecond

// leanFields are those that the job in lean expressions looks at.
const leanFields = 4

// at returns the i-th one, of some moment.
func (r readings) at(i int, at time.Time) *kgo.Record {
	device, turn := i%r.number(), i/r.number()
	celsius := 60 + 40*math.Sin(2*math.Pi*float64(turn+7*device)/200)
	fahrenheit := celsius*1.8 + 32
	if r.toggle {
		fahrenheit = []float64{100, 220}[turn%2]
	}
	name := r.device(i)
	body := full(name, device, at, fahrenheit, i)
	if r.fields > 0 {
		body = lean(name, at, fahrenheit, i, r.fields)
	}
	return &kgo.Record{Key: []byte(name), Value: body, Timestamp: at}
}

// number is how many devices there are.
func (r readings) number() int { return cmp.Or(r.devices, benchDevices) }

// device is the one of the i-th reading.
func (r readings) device(i int) string { return fmt.Sprintf("device-%04d", i%r.number()) }

// full is a reading of the device job.
func full(name string, device int, at time.Time, fahrenheit float64, i int) []byte {
	b := make([]byte, 0, 320)
	b = fmt.Appendf(b, `{"device":%q,"ts":%d,"site":"site-%02d","line":%d,"temperature":`, name, at.UnixMilli(), device%20, device%5)
	b = strconv.AppendFloat(b, fahrenheit, 'f', 2, 64)
	return fmt.Appendf(b, `,"humidity":%d.5,"pressure":%d.25,"voltage":%d.1,"current":%d.75,"rpm":%d,"status":"running","seq":%d}`,
		30+i%40, 990+i%40, 225+i%10, 1+i%9, 1400+i%200, i)
}

// lean is a reading of n fields, of which the last is looked at too: whoever looks for it passes all others.
func lean(name string, at time.Time, fahrenheit float64, i, n int) []byte {
	b := make([]byte, 0, 80+16*n)
	b = fmt.Appendf(b, `{"device":%q,"ts":%d,"temperature":%.2f,`, name, at.UnixMilli(), fahrenheit)
	for f := range n - leanFields {
		b = fmt.Appendf(b, `"%s":%d.5,`, extra(f), (i+f)%1000)
	}
	return append(b, `"status":"running"}`...)
}

// extra names a field that nothing looks at.
func extra(f int) string { return fmt.Sprintf("extra%02d", f) }

// declared is the spout's declaration of a lean reading's fields.
func declared(n int) string {
	var b strings.Builder
	b.WriteString("{device: string, ts: number, temperature: number, status: string")
	for f := range n - leanFields {
		fmt.Fprintf(&b, ", %s: number", extra(f))
	}
	b.WriteString("}")
	return b.String()
}

// producer writes all readings of a device to one partition. Like Kafka's own clients, and unlike kafka-go, it sends what waits for all partitions of a broker in
// one request, so that little of what is measured is the producer's.
func producer(brokers []string, linger time.Duration) (*kgo.Client, error) {
	return kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(benchTopic), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerLinger(linger), kgo.MaxBufferedRecords(1<<18), kgo.ProducerBatchMaxBytes(900<<10), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
}

// produce writes n readings, before anything is measured. One ms of event time passes with each reading.
func (r readings) produce(ctx context.Context, brokers []string, n int) error {
	c, err := producer(brokers, usualLinger)
	if err != nil {
		return err
	}
	defer c.Close()
	began := time.Now().Add(-time.Duration(n) * time.Millisecond)
	for i := 0; i < n; {
		batch := make([]*kgo.Record, 0, 8*2000)
		for ; len(batch) < cap(batch) && i < n; i++ {
			batch = append(batch, r.at(i, began.Add(time.Duration(i)*time.Millisecond)))
		}
		if err := c.ProduceSync(ctx, batch...).FirstErr(); err != nil {
			return fmt.Errorf("produce readings: %w", err)
		}
	}
	return nil
}
