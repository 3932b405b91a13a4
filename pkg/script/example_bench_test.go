//go:build unix

package script

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkExampleStat is one call for each word of the example word-count, as its statistic makes it: the state is read from JSON and written to it, with the word
// before at hand. It reports CPU time, user and system: what a core can do in a second, however busy the machine is.
func BenchmarkExampleStat(b *testing.B) {
	source, err := os.ReadFile(filepath.Join("..", "..", "examples", "word-count", "scripts", "pages.js"))
	if err != nil {
		b.Fatal(err)
	}
	rt := runtime(b, string(source))
	words := exampleWords(b)
	var state, before State
	in := &Input{Doc: NewDoc(nil), Device: "page-1"}
	raw := []byte(nil)
	used := cpuTime(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := i % len(words)
		if n == 0 {
			raw, in.Previous = nil, nil // another page
		} else {
			before.doc.Reset(words[n-1])
			in.Previous = &before.doc
		}
		in.Doc.Reset(words[n])
		state.Reset(raw)
		if err := rt.Compute(in, &state); err != nil {
			b.Fatal(err)
		}
		if raw, err = state.Bytes(); err != nil {
			b.Fatal(err)
		}
	}
	used = cpuTime(b) - used
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/used.Seconds(), "calls/cpu-s")
}

func exampleWords(b *testing.B) (words [][]byte) {
	f, err := os.Open(filepath.Join("..", "..", "examples", "word-count", "data", "randomwords.txt.gz"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		b.Fatal(err)
	}
	for in := bufio.NewScanner(z); in.Scan() && len(words) < 3500; { // about a page
		for _, w := range strings.Fields(in.Text()) {
			payload, err := json.Marshal(map[string]string{"word": w})
			if err != nil {
				b.Fatal(err)
			}
			words = append(words, payload)
		}
	}
	return words
}

func cpuTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
