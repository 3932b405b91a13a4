package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bucket is a key-value bucket: topologies, or leases.
type Bucket struct {
	conn *Conn
	kv   jetstream.KeyValue
	name string
}

// Errors of buckets.
var (
	// ErrExists: the key is there already, or has another revision than expected.
	ErrExists = errors.New("the key has been written by somebody else")
	// ErrNotFound: no such key.
	ErrNotFound = errors.New("no such key")
	// ErrLeaderless: the bucket's stream has no leader, as far as the server knows. Nobody can write to it until one is elected.
	ErrLeaderless = jetstream.ErrNoStreamResponse
)

// Topologies opens the bucket of applied topologies: one key each. Like Leases it waits until the bucket can be had, or ctx ends.
func (c *Conn) Topologies(ctx context.Context) (*Bucket, error) {
	return c.bucket(ctx, jetstream.KeyValueConfig{
		Bucket: "BM_topologies", Description: "applied topologies", History: 8, MaxValueSize: 4 << 20, Storage: jetstream.FileStorage,
	})
}

// Leases opens the bucket of member and ownership leases.
func (c *Conn) Leases(ctx context.Context) (*Bucket, error) {
	return c.bucket(ctx, jetstream.KeyValueConfig{
		Bucket: "BM_leases", Description: "who is alive, and who owns which task", LimitMarkerTTL: time.Minute,
		Storage: jetstream.FileStorage, MaxValueSize: 1 << 20,
	})
}

// bucket waits for it until ctx ends: a cluster that is being formed answers late.
func (c *Conn) bucket(ctx context.Context, config jetstream.KeyValueConfig) (*Bucket, error) {
	var kv jetstream.KeyValue
	err := c.wait(ctx, "bucket "+config.Bucket, func(ctx context.Context) (err error) {
		if config.Replicas, err = c.copies(ctx, "KV_"+config.Bucket); err == nil {
			kv, err = c.js.CreateOrUpdateKeyValue(ctx, config)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Bucket{c, kv, config.Bucket}, nil
}

// Entry is a key as last written.
type Entry struct {
	Key      string
	Value    []byte // nil when the key is gone
	Revision uint64
}

// Load returns a key's entry; ErrNotFound when there is none. It asks the stream's leader, which knows of everything that was written before: the client's Get is
// answered by any server that has a copy, perhaps one that is behind.
func (b *Bucket) Load(ctx context.Context, key string) (Entry, error) {
	e, err := b.latest(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("read %s from %s: %w", key, b.name, err)
	}
	return e, err
}

// latest asks the leader for a key, by the request that nats.go makes of streams without direct access
// (https://docs.nats.io/reference/reference-protocols/nats_api_reference, STREAM.MSG.GET).
func (b *Bucket) latest(ctx context.Context, key string) (Entry, error) {
	question, err := json.Marshal(map[string]string{"last_by_subj": b.prefix() + key})
	if err != nil {
		return Entry{}, err
	}
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, oneTry)
		defer cancel()
	}
	m, err := b.conn.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"STREAM.MSG.GET.KV_"+b.name, question)
	if err != nil {
		return Entry{}, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return Entry{}, err
	}
	if answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return Entry{Key: key}, ErrNotFound
	}
	if answer.Error != nil {
		return Entry{}, answer.Error
	}
	header := nats.Header{}
	if len(answer.Message.Header) > 0 {
		if header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return Entry{}, err
		}
	}
	if gone(header) {
		return Entry{Key: key}, ErrNotFound
	}
	return Entry{key, answer.Message.Data, answer.Message.Sequence}, nil
}

// gone reports whether a message says that its key is not there any more.
func gone(h nats.Header) bool {
	return h.Get("KV-Operation") != "" || h.Get(jetstream.MarkerReasonHeader) != ""
}

// prefix is what stands before a key in its subject.
func (b *Bucket) prefix() string { return "$KV." + b.name + "." }

// Keys lists the keys that match a filter such as "a.member.>".
func (b *Bucket) Keys(ctx context.Context, filter string) ([]string, error) {
	l, err := b.kv.ListKeysFiltered(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", b.name, err)
	}
	var keys []string
	for k := range l.Keys() {
		keys = append(keys, k)
	}
	return keys, nil
}

// Store writes a key if its revision still is last (0: it must not exist); ErrExists otherwise. With a ttl above 0 the key vanishes after it, unless
// written again. The write goes to the bucket's stream directly, because the client's Update and Put drop a key's TTL.
func (b *Bucket) Store(ctx context.Context, key string, value []byte, last uint64, ttl time.Duration) (revision uint64, err error) {
	if last == 0 {
		var opts []jetstream.KVCreateOpt
		if ttl > 0 {
			opts = append(opts, jetstream.KeyTTL(ttl))
		}
		revision, err = b.kv.Create(ctx, key, value, opts...)
	} else {
		msg := &nats.Msg{Subject: b.prefix() + key, Data: value}
		opts := []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(last)}
		if ttl > 0 {
			opts = append(opts, jetstream.WithMsgTTL(ttl))
		}
		var ack *jetstream.PubAck
		if ack, err = b.conn.js.PublishMsg(ctx, msg, opts...); err == nil {
			revision = ack.Sequence
		}
	}
	b.conn.heard(err)
	var refused *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &refused) && refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return 0, fmt.Errorf("%s in %s: %w", key, b.name, ErrExists)
	}
	if err != nil {
		return 0, fmt.Errorf("write %s to %s: %w", key, b.name, err)
	}
	return revision, nil
}

// Delete removes a key, provided its revision still is last (0: whatever it is).
func (b *Bucket) Delete(ctx context.Context, key string, last uint64) error {
	var opts []jetstream.KVDeleteOpt
	if last > 0 {
		opts = append(opts, jetstream.LastRevision(last))
	}
	if err := b.kv.Delete(ctx, key, opts...); err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return fmt.Errorf("delete %s from %s: %w", key, b.name, err)
	}
	return nil
}

// Watch calls f with every entry that matches the filter, as it is now and as it changes, until ctx ends. After the entries of the beginning it calls
// f once with an empty Key. It resumes after a reconnect, and within seconds after the server that served it has died.
func (b *Bucket) Watch(ctx context.Context, filter string, f func(Entry)) error {
	prefix := b.prefix()
	missing := uint64(0) // of the beginning
	follow := follower{
		conn: b.conn, stream: "KV_" + b.name,
		config: jetstream.ConsumerConfig{FilterSubject: prefix + filter, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy},
		begun: func(pending uint64) {
			if missing = pending; missing == 0 {
				f(Entry{})
			}
		},
		take: func(m jetstream.Msg, meta *jetstream.MsgMetadata) {
			e := Entry{Key: strings.TrimPrefix(m.Subject(), prefix), Revision: meta.Sequence.Stream}
			if !gone(m.Headers()) {
				e.Value = m.Data()
			}
			f(e)
			if missing > 0 {
				if missing--; missing == 0 || meta.NumPending == 0 {
					missing = 0
					f(Entry{})
				}
			}
		},
	}
	return fmt.Errorf("watch %s: %w", b.name, follow.run(ctx))
}
