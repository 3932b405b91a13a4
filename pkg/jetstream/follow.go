package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A follower's consumer that says nothing for two beats is given up. The client's own ordered consumers notice after 10 to 20 s, and wait 10 s for the
// answer to a request that a cluster has lost.
const (
	beat      = time.Second
	idleAfter = 30 * time.Second // the server forgets a consumer that nobody pulls from
)

// follower reads messages of a stream in order, each once, by consumers of its own that it replaces when they fall silent.
type follower struct {
	conn   *Conn
	stream string
	config jetstream.ConsumerConfig // filters, and where to begin
	// begun is told, once, how many messages there are to begin with.
	begun func(pending uint64)
	take  func(jetstream.Msg, *jetstream.MsgMetadata)

	last uint64 // sequence in the stream of the last one taken
}

// run follows until ctx ends, or the stream can no longer be read.
func (f *follower) run(ctx context.Context) error {
	for first := true; ; first = false {
		consumer, err := f.consumer(ctx)
		if err != nil {
			return err
		}
		if first && f.begun != nil {
			f.begun(consumer.CachedInfo().NumPending)
		}
		err = f.read(ctx, consumer)
		remove, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortTry/2)
		_ = f.conn.js.DeleteConsumer(remove, f.stream, consumer.CachedInfo().Name) // or it is forgotten
		cancel()
		if err != nil {
			return err
		}
	}
}

// consumer creates one that goes on behind the last message.
func (f *follower) consumer(ctx context.Context) (consumer jetstream.Consumer, err error) {
	config := f.config
	config.AckPolicy, config.MemoryStorage, config.Replicas, config.InactiveThreshold = jetstream.AckNonePolicy, true, 1, idleAfter
	if f.last > 0 {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, f.last+1
	}
	patience := shortTry // as in Take, but few wait for this
	err = repeat(ctx, "follow stream "+f.stream, steady, func() error {
		try, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		patience = min(patience*3/2, oneTry)
		config.Name = rand.Text()[:12] // another one each time: the cluster may place it on a server that has died
		consumer, err = f.conn.js.CreateConsumer(try, f.stream, config)
		return err
	})
	return consumer, err
}

// read takes messages until the consumer falls silent or leaves one out, or the connection is made anew: what was on its way over the old one
// is lost, and will not come again. Then it returns nil.
func (f *follower) read(ctx context.Context, consumer jetstream.Consumer) error {
	same, broken := context.WithCancel(ctx)
	defer broken()
	connected := f.conn.nc.StatusChanged(nats.CONNECTED)
	defer f.conn.nc.RemoveStatusListener(connected)
	go func() {
		for range connected {
			broken()
		}
	}()
	ms, err := consumer.Messages(jetstream.PullExpiry(10*beat), jetstream.PullHeartbeat(beat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return fmt.Errorf("follow stream %s: %w", f.stream, err)
	}
	defer ms.Stop()
	for delivery := uint64(1); ; delivery++ {
		m, err := ms.Next(jetstream.NextContext(same))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, jetstream.ErrConnectionClosed):
			return fmt.Errorf("follow stream %s: %w", f.stream, err)
		case err != nil:
			return nil
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("follow stream %s: %w", f.stream, err)
		}
		if meta.Sequence.Consumer != delivery {
			return nil
		}
		f.take(m, meta)
		f.last = meta.Sequence.Stream
	}
}
