package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Move says how the state of a node that is at rest gets from one division into tasks to another.
type Move struct {
	From, To []Task
	// Key returns the index in To of the task that gets a key, and Group that of an agenda's entry. An error ends the move.
	Key, Group func(string) (int, error)
	// Floors below which everything is processed, of all origins: what was applied need not move, since all of it lies below them. A move that finds something
	// above them, or beyond them, ends with ErrUnrest.
	Floors map[tuple.Origin]int64
	Page   int // keys and agenda entries that are read at once; default 1,000
	// Still says, by an error, that the move is not wanted any more: somebody else was asked for it, or it was given up. It is asked when To is claimed and
	// not cleared yet. Whoever withdraws a move makes Still fail before anybody else is asked and before anybody reads To. nil: nobody withdraws it.
	Still func(ctx context.Context) error
}

// Moved counts what a Move has copied.
type Moved struct {
	Keys   int `json:"keys"`
	Groups int `json:"groups"` // on the agenda
}

const (
	movePage = 1000
	always   = 1 << 53 // no agenda entry lies behind it
)

// Run raises the fences of all tasks, clears To, and copies keys, agenda and floors into it. From stays as it was, but for the fences: until somebody
// reads To, nothing has happened, and after an error or a crash a move begins anew. ErrFenced says that a task has got another owner meanwhile.
func (m Move) Run(ctx context.Context, s Store) (Moved, error) {
	r := mover{Move: m, store: s}
	if r.Page <= 0 {
		r.Page = movePage
	}
	err := r.begin(ctx)
	if err == nil {
		err = r.keys(ctx)
	}
	for i := 0; i < len(r.From) && err == nil; i++ {
		err = r.agenda(ctx, r.From[i])
	}
	for i := 0; i < len(r.From) && err == nil; i++ { // nobody has owned it meanwhile
		err = s.Commit(ctx, r.From[i], r.before[i], &Batch{})
	}
	return r.moved, err
}

// mover is a Move on its way.
type mover struct {
	Move
	store         Store
	floors        map[tuple.Origin]int64
	before, after []uint64 // epochs in From and To
	moved         Moved
}

// begin takes all tasks, and gives the new ones the floors: with the first commit, so that whoever sees anything of a task sees them.
func (r *mover) begin(ctx context.Context) (err error) {
	if r.before, r.floors, err = seize(ctx, r.store, r.From, r.Floors); err != nil {
		return err
	}
	var claimed []Claimed
	for _, t := range r.To {
		epoch, err := r.store.Claim(ctx, t)
		if err != nil {
			return err
		}
		claimed, r.after = append(claimed, Claimed{t, epoch}), append(r.after, epoch)
	}
	// Somebody who was stopped for a while may come here when the move was made by another, and To is in use. Either To was claimed before that other one did, and
	// what is done here under this claim is refused, or the move is not wanted any more.
	if r.Still != nil {
		if err := r.Still(ctx); err != nil {
			return err
		}
	}
	if err := r.store.Drop(ctx, claimed); err != nil {
		return err
	}
	for _, t := range claimed {
		if err := r.store.Commit(ctx, t.Task, t.Epoch, &Batch{Floors: r.floors}); err != nil {
			return err
		}
	}
	return nil
}

func (r *mover) keys(ctx context.Context) error {
	for cursor, first := "", true; first || cursor != ""; first = false {
		page, next, err := r.store.Walk(ctx, r.From, cursor, r.Page)
		if err != nil {
			return err
		}
		batches := make([]Batch, len(r.To))
		for _, e := range page {
			to, err := r.place(r.Key, e.Key)
			if err != nil {
				return fmt.Errorf("key %q of %s: %w", e.Key, r.From[0].Node, err)
			}
			batches[to].Set = append(batches[to].Set, e)
		}
		if err := r.commit(ctx, batches); err != nil {
			return err
		}
		r.moved.Keys += len(page)
		cursor = next
	}
	return nil
}

func (r *mover) agenda(ctx context.Context, from Task) error {
	for after := ""; ; {
		due, err := r.store.Due(ctx, from, always, after, r.Page)
		if err != nil {
			return err
		}
		batches := make([]Batch, len(r.To))
		for _, d := range due {
			to, err := r.place(r.Group, d.Key)
			if err != nil {
				return fmt.Errorf("group %q of %s: %w", d.Key, from, err)
			}
			batches[to].Agenda = append(batches[to].Agenda, d)
			after = d.Key
		}
		if err := r.commit(ctx, batches); err != nil {
			return err
		}
		r.moved.Groups += len(due)
		if len(due) < r.Page {
			return nil
		}
	}
}

var errPlace = errors.New("its new task is none of the node's")

func (r *mover) place(f func(string) (int, error), key string) (int, error) {
	to, err := f(key)
	if err == nil && (to < 0 || to >= len(r.To)) {
		err = errPlace
	}
	return to, err
}

func (r *mover) commit(ctx context.Context, batches []Batch) error {
	for to := range batches {
		if batches[to].Empty() {
			continue
		}
		if err := r.store.Commit(ctx, r.To[to], r.after[to], &batches[to]); err != nil {
			return err
		}
	}
	return nil
}

// RaiseFloors takes tasks that are at rest and stay as they are, and raises their floors to where everything is processed. It returns ErrUnrest as a Move does.
func RaiseFloors(ctx context.Context, s Store, tasks []Task, floors map[tuple.Origin]int64) error {
	epochs, floors, err := seize(ctx, s, tasks, floors)
	for i := 0; i < len(tasks) && err == nil; i++ {
		err = s.Commit(ctx, tasks[i], epochs[i], &Batch{Floors: floors})
	}
	return err
}

// ErrUnrest says that a task has applied something that, as far as floors say, is still to come. It would be applied again where nobody knows of it.
var ErrUnrest = errors.New("it is not at rest")

// seize claims tasks, and returns the highest floors that they or their spouts know of. Below these lies everything that was applied: a spout that lost what it
// reads, and does not know yet, may have emitted beyond.
func seize(ctx context.Context, s Store, tasks []Task, told map[tuple.Origin]int64) (epochs []uint64, floors map[tuple.Origin]int64, err error) {
	floors = maps.Clone(told)
	if floors == nil {
		floors = map[tuple.Origin]int64{}
	}
	heads := make([]Head, len(tasks))
	for i, t := range tasks {
		epoch, err := s.Claim(ctx, t)
		if err != nil {
			return nil, nil, err
		}
		epochs = append(epochs, epoch)
		if heads[i], err = s.Head(ctx, t); err != nil {
			return nil, nil, err
		}
		for o, floor := range heads[i].Floors {
			if old, ok := floors[o]; !ok || floor > old {
				floors[o] = floor
			}
		}
	}
	for i, h := range heads {
		for id, x := range h.Applied {
			if _, read := told[x.Position.Origin]; read && x.Position.Offset >= floors[x.Position.Origin] { // of others nothing is to come
				return nil, nil, fmt.Errorf("%w: %s has applied tuple %s of offset %d, and everything is processed only up to %d. A spout that was replaced has emitted it: "+
					"its successor will again, when the topology goes on", ErrUnrest, tasks[i], id, x.Position.Offset, floors[x.Position.Origin])
			}
		}
	}
	return epochs, floors, nil
}

// Tidy drops what is kept in tasks that nobody reads any more. still is asked as in a Move: when it does not fail, nobody has begun to move anything into one of
// them before it was claimed.
func Tidy(ctx context.Context, s Store, tasks []Task, still func(context.Context) error) error {
	var left []Claimed
	for _, t := range tasks {
		head, err := s.Head(ctx, t)
		if err != nil {
			return err
		}
		if len(head.Floors)+len(head.Applied) == 0 { // nothing is kept in a task that has committed nothing
			continue
		}
		epoch, err := s.Claim(ctx, t)
		if err != nil {
			return err
		}
		left = append(left, Claimed{t, epoch})
	}
	if err := still(ctx); err != nil {
		return err
	}
	return s.Drop(ctx, left)
}

// InTurn is Store.Walk for a store that finds the keys of a task by themselves: one task after the other. walk is Store.Walk for one of them.
func InTurn(tasks []Task, cursor string, walk func(t Task, cursor string) ([]Entry, string, error)) (page []Entry, next string, err error) {
	at := 0
	number, within, _ := strings.Cut(cursor, ":")
	if cursor != "" {
		if at, err = strconv.Atoi(number); err != nil || at < 0 {
			return nil, "", fmt.Errorf("walk: cursor %q", cursor)
		}
	}
	if at >= len(tasks) {
		return nil, "", nil
	}
	page, next, err = walk(tasks[at], within)
	switch {
	case err != nil:
		return nil, "", err
	case next != "":
		next = strconv.Itoa(at) + ":" + next
	case at+1 < len(tasks):
		next = strconv.Itoa(at+1) + ":"
	}
	return page, next, nil
}
