package service

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/member"
	"github.com/boltmesh/boltmesh/pkg/partition"
)

// DefaultLease is how long a worker that does not renew counts as alive.
const DefaultLease = 3 * time.Second

// roster is one topology's leases as last seen: who is alive, who owns what.
type roster struct {
	bucket   *jetstream.Bucket
	topology string

	mu        sync.Mutex
	members   map[string]member.Member   // by key
	owners    map[string]owner           // by key
	divisions map[string]member.Division // by key
	synced    chan struct{}              // closed once the present state is known
	changed   chan struct{}              // closed and replaced at every change
}

// owner is a claim with the revision of its key, by which it may be replaced; also of one that has been deleted: then it names nobody.
type owner struct {
	worker   string
	revision uint64
}

func newRoster(b *jetstream.Bucket, topology string) *roster {
	return &roster{
		bucket: b, topology: topology, members: map[string]member.Member{}, owners: map[string]owner{},
		divisions: map[string]member.Division{},
		synced:    make(chan struct{}), changed: make(chan struct{}),
	}
}

// watch keeps the roster up to date until ctx ends.
func (r *roster) watch(ctx context.Context, failed func(error)) {
	for ctx.Err() == nil {
		err := r.bucket.Watch(ctx, r.topology+".>", r.take)
		if ctx.Err() == nil {
			failed(err)
			sleep(ctx, time.Second)
		}
	}
}

func (r *roster) take(e jetstream.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.Key == "":
		select {
		case <-r.synced:
		default:
			close(r.synced)
		}
	case strings.HasPrefix(e.Key, r.topology+".member."):
		var m member.Member
		if e.Value == nil || json.Unmarshal(e.Value, &m) != nil {
			delete(r.members, e.Key)
		} else {
			r.members[e.Key] = m
		}
	case strings.HasPrefix(e.Key, r.topology+".division."):
		var d member.Division
		if e.Value == nil || json.Unmarshal(e.Value, &d) != nil {
			delete(r.divisions, e.Key)
		} else {
			r.divisions[e.Key] = d
		}
	default:
		r.owners[e.Key] = owner{string(e.Value), e.Revision}
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// wait returns once the roster knows the present state, or ctx ends.
func (r *roster) wait(ctx context.Context) error {
	select {
	case <-r.synced:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// see returns everybody alive and a channel that closes at the next change.
func (r *roster) see() ([]member.Member, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]member.Member, 0, len(r.members))
	for _, m := range r.members {
		out = append(out, m)
	}
	return out, r.changed
}

// owner returns who owns a task, and whether that worker is alive.
func (r *roster) owner(node, task string) (o owner, alive bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o = r.owners[member.OwnKey(r.topology, node, task)]
	_, alive = r.members[member.Key(r.topology, node, o.worker)]
	return o, alive
}

// has reports whether a worker is alive on a node.
func (r *roster) has(node, worker string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, alive := r.members[member.Key(r.topology, node, worker)]
	return alive
}

// assign divides a node's tasks among its workers that are alive and not leaving.
func (r *roster) assign(node string, tasks int) []string {
	alive, _ := r.see()
	owners := make([]string, tasks)
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.divisions[member.DivisionKey(r.topology, node)]; ok && d.Holds(node, tasks, alive) {
		return d.Tasks
	}
	for t := range owners {
		owners[t] = r.owners[member.OwnKey(r.topology, node, strconv.Itoa(t))].worker
	}
	return partition.Assign(node, owners, member.Candidates(node, alive))
}
