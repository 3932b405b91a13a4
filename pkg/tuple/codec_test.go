package tuple

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite golden files")

// public compares what others see of a frame.
var public = cmpopts.IgnoreUnexported(Frame{})

func example() *Frame {
	root := Root{Origin: 0x1122334455667788, First: 100, Attempt: Attempt{3, 1}, Floor: 90}
	return &Frame{Revision: 7, Source: "clean", Tuples: []Tuple{
		{ID: ID([]byte("\x9f\x90\xb5\xf0\x27\xdd\x16\xd1\xf7\xee\x5a\x0b\xb9\xd7\xe0\x6d")), Root: root, Offset: 101, Stream: "default", Key: "machine-1", Time: 1386018900000, Payload: []byte(`{"temperature":73.9}`)},
		{ID: ID{15: 2}, Root: root, Offset: 102, Stream: "late", Key: "machine-2", Time: -1, Group: "hall", N: 300, Trace: Trace{[16]byte{1}, [8]byte{2}}, Payload: []byte(`{}`)},
	}}
}

// TestGolden pins the bytes on the wire: services of different builds, and bolts in other languages, depend on them.
func TestGolden(t *testing.T) {
	b, err := example().Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	got := hex.Dump(b)
	const file = "testdata/frame.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// TestOldFrames decodes a frame of each version that there has been, for ever: one is added with each version, and none is rewritten. 1 is the first.
func TestOldFrames(t *testing.T) {
	for v := 1; v <= Version; v++ {
		text, err := os.ReadFile(fmt.Sprintf("testdata/frame-v%d.hex", v))
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if int(b[1]) != v {
			t.Errorf("the frame of version %d says %d", v, b[1])
		}
		var got Frame
		if err := got.Decode(b); err != nil {
			t.Errorf("version %d: %v", v, err)
		}
		if diff := cmp.Diff(example(), &got, public); diff != "" {
			t.Errorf("version %d:\n%s", v, diff)
		}
	}
}

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		roots := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Root {
			return Root{
				Origin(rapid.Uint64().Draw(t, "origin")), rapid.Int64Range(0, 1<<40).Draw(t, "first"),
				Attempt{rapid.Uint32().Draw(t, "generation"), rapid.Uint32().Draw(t, "count")},
				rapid.Int64().Draw(t, "floor"),
			}
		}), 1, 4).Draw(t, "roots")
		text := rapid.StringN(0, 20, 80)
		f := Frame{Revision: rapid.Uint32().Draw(t, "revision"), Source: text.Draw(t, "source")}
		for range rapid.IntRange(1, 20).Draw(t, "tuples") {
			x := Tuple{Root: rapid.SampledFrom(roots).Draw(t, "root"), Stream: text.Draw(t, "stream"), Key: text.Draw(t, "key"), Time: rapid.Int64().Draw(t, "time")}
			x.Offset = x.Root.First + rapid.Int64Range(0, 1000).Draw(t, "offset")
			copy(x.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
			x.Payload = rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "payload")
			if rapid.Bool().Draw(t, "stateful") {
				x.Group, x.N = text.Draw(t, "group"), rapid.Uint64().Draw(t, "n")
			}
			if rapid.Bool().Draw(t, "sampled") {
				x.Trace.TraceID[3] = 1
			}
			f.Tuples = append(f.Tuples, x)
		}
		b, err := f.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got Frame
		if err := got.Decode(b); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(f, got, public); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestRefused(t *testing.T) {
	good, err := example().Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Clone(good)
	newer[1] = Version + 1
	var f Frame
	if err := f.Decode(newer); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer version: %v", err)
	}
	deltas := AppendDeltas(nil, []Delta{{First: 1, XOR: 2}})
	for _, v := range []byte{0, Version + 1} {
		deltas[1] = v
		if _, err := DecodeDeltas(deltas); !errors.Is(err, ErrVersion) {
			t.Errorf("deltas of version %d: %v", v, err)
		}
	}
	for n := range good {
		if err := f.Decode(good[:n]); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("the first %d bytes of a frame: %v", n, err)
		}
	}
	if err := f.Decode(append(bytes.Clone(good), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
	claims := binary.AppendUvarint([]byte{magic, Version, 0, 0, 0, 0}, MaxTuples)
	if err := f.Decode(claims); !errors.Is(err, ErrCorrupt) || cap(f.Tuples) >= MaxTuples {
		t.Errorf("a frame of %d bytes that claims %d tuples: %v, memory for %d", len(claims), MaxTuples, err, cap(f.Tuples))
	}
	for name, f := range map[string]Frame{
		"no tuples":       {},
		"a long key":      {Tuples: []Tuple{{Key: strings.Repeat("k", MaxKey+1)}}},
		"a large payload": {Tuples: []Tuple{{Payload: make([]byte, MaxPayload+1)}}},
		"too many":        {Tuples: make([]Tuple, MaxTuples+1)},
		"too many roots":  {Tuples: ofRoots(MaxRoots + 1)},
	} {
		if _, err := f.Append(nil); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

// ofRoots makes tuples of n roots, two of each.
func ofRoots(n int) (out []Tuple) {
	for i := range 2 * n {
		out = append(out, Tuple{Root: Root{First: int64(i % n)}, Offset: int64(i % n), Stream: "s", Payload: []byte("{}")})
	}
	return out
}

// TestManyRoots fills a frame with as many roots as it may have; more tuples of these have room, those of another have not.
func TestManyRoots(t *testing.T) {
	f := Frame{Tuples: ofRoots(MaxRoots)}
	b, err := f.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got Frame
	if err := got.Decode(b); err != nil || len(got.Tuples) != 2*MaxRoots {
		t.Errorf("%d tuples, %v", len(got.Tuples), err)
	}
	var p Packing
	for i := range f.Tuples {
		if err := p.Add(&f.Tuples[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !p.Takes(&f.Tuples[0]) || p.Takes(&Tuple{Root: Root{First: -1}, Stream: "s"}) {
		t.Errorf("a full list of roots takes one that it has: %v, and another: %v", p.Takes(&f.Tuples[0]), p.Takes(&Tuple{Root: Root{First: -1}, Stream: "s"}))
	}
}

func TestDeltasRoundTrip(t *testing.T) {
	want := []Delta{{Frame: ID{1}, First: 5, Attempt: Attempt{1, 2}, XOR: 3}, {First: -1}}
	b := AppendDeltas(nil, want)
	got, err := DecodeDeltas(b)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for n := range b {
		if _, err := DecodeDeltas(b[:n]); err == nil {
			t.Errorf("the first %d bytes were accepted", n)
		}
	}
}

func FuzzFrame(f *testing.F) {
	b, _ := example().Append(nil)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var frame, again Frame
		if frame.Decode(b) != nil {
			return
		}
		c, err := frame.Append(nil)
		if err != nil {
			t.Fatalf("decoded, but does not encode: %v", err)
		}
		if err := again.Decode(c); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(frame, again, public); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDeltas(f *testing.F) {
	f.Add(AppendDeltas(nil, []Delta{{Frame: ID{1}, First: 5, Attempt: Attempt{1, 2}, XOR: 3}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		ds, err := DecodeDeltas(b)
		if err != nil {
			return
		}
		again, err := DecodeDeltas(AppendDeltas(nil, ds))
		if err != nil || cmp.Diff(ds, again) != "" {
			t.Fatal(err, ds, again)
		}
	})
}

// TestKeysAreShared decodes frames of more keys than Keys holds: each key is as it was written, and one that comes again and again is copied once.
func TestKeysAreShared(t *testing.T) {
	keys := new(Keys)
	for i := range 3 * len(keys) {
		for _, n := range []int{i, i / 2, 0} {
			want := fmt.Sprintf("device-%d", n)
			if got := keys.String([]byte(want)); got != want {
				t.Fatalf("%q became %q", want, got)
			}
		}
	}
	for _, size := range []int{longestKept, longestKept + 1, MaxPayload} {
		long := strings.Repeat("k", size)
		if got := keys.String([]byte(long)); got != long {
			t.Fatalf("a key of %d bytes became one of %d", size, len(got))
		}
	}
	for _, s := range keys {
		if len(s) > longestKept {
			t.Errorf("a key of %d bytes is kept", len(s))
		}
	}
	f := bench()
	data, err := f.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	into := &Frame{}
	for _, keys := range []*Keys{keys, nil} {
		into.Keys = keys
		if allocs := testing.AllocsPerRun(100, func() {
			if err := into.Decode(data); err != nil {
				t.Fatal(err)
			}
		}); allocs > 0 {
			t.Errorf("decoding %d tuples allocates %v times", len(f.Tuples), allocs)
		}
	}
	if diff := cmp.Diff(&f, into, public); diff != "" {
		t.Error(diff)
	}
}

// TestKeysMayAlias looks where a decoded key lies: in the frame, unless the frame has Keys.
func TestKeysMayAlias(t *testing.T) {
	for _, keys := range []*Keys{nil, new(Keys)} {
		data, err := example().Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		f := Frame{Keys: keys}
		if err := f.Decode(data); err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(data, []byte("machine-1"))
		if within := unsafe.StringData(f.Tuples[0].Key) == &data[at]; within != (keys == nil) {
			t.Errorf("with Keys %v a key lies in the frame: %v", keys != nil, within)
		}
	}
}

// TestDecodeAgain reads frames of different shapes into the memory of one another.
func TestDecodeAgain(t *testing.T) {
	var f Frame
	one := Frame{Source: "b", Tuples: []Tuple{{Stream: "other", Key: "k", Root: Root{Origin: 9}, Payload: []byte("{}")}}}
	large := bench()
	for _, want := range []*Frame{example(), &one, &large, example(), &one} {
		data, err := want.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Decode(data); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, &f, public); diff != "" {
			t.Error(diff)
		}
		if f.Decode(data[:len(data)-1]) == nil {
			t.Error("half a frame was decoded")
		}
	}
}

func bench() (f Frame) {
	for i := range 256 {
		f.Tuples = append(f.Tuples, Tuple{ID: ID{byte(i)}, Offset: int64(i), Stream: "default", Key: "machine-000123", Time: 1386018900000, Payload: make([]byte, 200)})
	}
	return f
}

// The two frame benchmarks report the time of one tuple among 256.
func BenchmarkFrameEncode(b *testing.B) {
	f := bench()
	var p Packing
	var out []byte
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(f.Tuples) {
		for k := range f.Tuples {
			if err := p.Add(&f.Tuples[k]); err != nil {
				b.Fatal(err)
			}
		}
		out = p.Seal(out[:0], f.Revision, f.Source)
	}
}

func BenchmarkFrameDecode(b *testing.B) {
	f := bench()
	data, _ := f.Append(nil)
	f.Keys = new(Keys)
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(f.Tuples) {
		if err := f.Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChildID(b *testing.B) {
	id, e, s := ID{1}, Emitter{Node: NameOf("clean")}, NameOf("default")
	for i := 0; b.Loop(); i++ {
		id = ChildID(id, e, s, 0)
	}
}
