package bolt

import (
	"strconv"
	"strings"
)

// Divisible is a Stateful bolt that tells whose each of its keys is, so that its state can move when its node gets another number of tasks. A node whose
// bolt is not Divisible keeps the number that it began with.
type Divisible interface {
	Stateful
	// GroupOf returns the group that Keys names key for; ok is false for a key that is none of the bolt's.
	GroupOf(key string) (group string, ok bool)
}

var _ Divisible = (*Keyed[int])(nil)

// GroupOf implements Divisible.
func (k *Keyed[T]) GroupOf(key string) (group string, ok bool) {
	return strings.CutPrefix(key, valueKey)
}

// Groups returns the function that tells to which group a key in the state of one of b's tasks belongs: b's own keys, and those of the engine.
func Groups(b Divisible) func(key string) (group string, ok bool) {
	return func(key string) (group string, ok bool) {
		if _, receiving, ok := counted(key, gatePrefix); ok {
			return receiving, true
		}
		if emitting, _, ok := counted(key, numberPrefix); ok {
			return emitting, true
		}
		return b.GroupOf(key)
	}
}

// Keys of the engine's counters. A group may hold any byte, so the length of the emitting one says where it ends.
const (
	gatePrefix   = "gate-"
	numberPrefix = "n-"
)

// gateKey names the last n that the receiving group, one of this node's, has taken from a group of the node source.
func gateKey(source, emitting, receiving string) string {
	return counterKey(gatePrefix, source, emitting, receiving)
}

// numberKey names the last n that the emitting group, one of this node's, has given to a group of the node to.
func numberKey(to, emitting, receiving string) string {
	return counterKey(numberPrefix, to, emitting, receiving)
}

func counterKey(prefix, node, emitting, receiving string) string {
	return prefix + node + "\x1f" + strconv.Itoa(len(emitting)) + "\x1f" + emitting + receiving
}

// counted reads what counterKey wrote.
func counted(key, prefix string) (emitting, receiving string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return "", "", false
	}
	_, rest, _ = strings.Cut(rest, "\x1f")
	length, rest, ok := strings.Cut(rest, "\x1f")
	n, err := strconv.Atoi(length)
	if !ok || err != nil || n < 0 || n > len(rest) {
		return "", "", false
	}
	return rest[:n], rest[n:], true
}
