package tuple

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
)

// ID names a tuple by where it came from, so that any re-execution produces the same one. It guards effects: state, documents.
type ID [16]byte

// String returns the id as 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the id is unset.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText writes the id as String does: so it stands in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 32 {
		return id, errors.New("a tuple id has 32 hexadecimal digits, not " + strconv.Itoa(len(s)))
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err
}

// Name is the hash of a node's or a stream's name, as it enters other ids.
type Name uint64

// NameOf returns the first eight bytes of SHA-256(s), little endian.
func NameOf(s string) Name {
	sum := sha256.Sum256([]byte(s))
	return Name(binary.LittleEndian.Uint64(sum[:]))
}

// OriginOf names an input log. Parts are, for Kafka: topology, input node, topic, incarnation, partition.
func OriginOf(parts ...string) Origin {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	return Origin(binary.LittleEndian.Uint64(sum[:]))
}

// RootID is the id of a tuple that a spout emits: a function of its position alone, never of the batch it was fetched in. It is a Feistel network of four
// rounds, hence a permutation: no two positions have the same.
func RootID(p Position) ID {
	a, b := uint64(p.Origin), uint64(p.Offset)
	b ^= mix(a ^ 'r')
	a ^= mix(b)
	b ^= mix(a)
	a ^= mix(b)
	return idOf(a, b)
}

// Emitter is what a child id takes from the one who emits it.
type Emitter struct {
	Node Name
	By   ID // ByGroup for a stateful node, ByTask where the input edge is `all`, otherwise zero
}

// ByGroup tells apart the children that different groups of a stateful node emit for one parent (a tick).
func ByGroup(group string) ID {
	b := make([]byte, 0, 64)
	b = append(b, 'g')
	return truncated(append(b, group...))
}

// ByTask tells apart the children that different tasks emit for one parent that reached all of them.
func ByTask(task int32) ID {
	var b [5]byte
	b[0] = 't'
	binary.LittleEndian.PutUint32(b[1:], uint32(task))
	return truncated(b[:])
}

// ChildID is the id of the ordinal-th tuple (from 0, per stream) that e emits on stream for parent. It is a Feistel network too, of six rounds, of which each takes
// in one of the words that tell the parent's children apart: whoever emits the same of two parents makes two ids, and so do two groups or tasks of one.
func ChildID(parent ID, e Emitter, stream Name, ordinal uint32) ID {
	a, b := parent.halves()
	x, y := e.By.halves()
	b ^= mix(a ^ x)
	a ^= mix(b ^ y)
	b ^= mix(a ^ uint64(e.Node))
	a ^= mix(b ^ uint64(stream))
	b ^= mix(a ^ uint64(ordinal))
	a ^= mix(b)
	return idOf(a, b)
}

// LedgerID names one delivery of a tuple in one attempt. It is what the ledger XORs; a tuple sent to two nodes has two.
func LedgerID(id ID, node Name, task int32, a Attempt) uint64 {
	lo, hi := id.halves()
	h := mix(lo ^ uint64(node))
	h = mix(h ^ hi ^ uint64(uint32(task)))
	return mix(h ^ (uint64(a.Generation)<<32 | uint64(a.Count)))
}

// FrameID is the Nats-Msg-Id of a frame: a function of its destination and of what it carries, never of who sent it or when.
func FrameID(node Name, task int32, ledgerIDs []uint64) ID {
	var whole [13 + 8*MaxTuples]byte // of a frame that is full
	b := append(whole[:0], 'f')
	b = binary.LittleEndian.AppendUint64(b, uint64(node))
	b = binary.LittleEndian.AppendUint32(b, uint32(task))
	for _, l := range ledgerIDs {
		b = binary.LittleEndian.AppendUint64(b, l)
	}
	return truncated(b)
}

// halves are the id's two words, little endian.
func (id ID) halves() (a, b uint64) {
	return binary.LittleEndian.Uint64(id[:8]), binary.LittleEndian.Uint64(id[8:])
}

func idOf(a, b uint64) (id ID) {
	binary.LittleEndian.PutUint64(id[:8], a)
	binary.LittleEndian.PutUint64(id[8:], b)
	return id
}

func truncated(b []byte) ID {
	sum := sha256.Sum256(b)
	return ID(sum[:16])
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): a bijection in which every
// input bit reaches every output bit.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
