package main

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const wordCount = "../../examples/word-count"

func unzipped(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(filepath.Join(wordCount, "data", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// bookPage is what the statistic of a page says.
type bookPage struct {
	Device  string
	Words   int
	Longest string
	Chained int
}

// pagesOf describes every page, in its own way: by all its words at once.
func pagesOf(t *testing.T) map[string]bookPage {
	t.Helper()
	words := map[string][]string{}
	var text strings.Builder
	for line := range strings.Lines(unzipped(t, "lines.jsonl.gz")) {
		var l struct{ Page, Line string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		words[l.Page] = append(words[l.Page], strings.Fields(l.Line)...)
		text.WriteString(l.Line + "\n")
	}
	if text.String() != unzipped(t, "randomwords.txt.gz") {
		t.Fatal("lines.jsonl.gz does not hold the lines of randomwords.txt.gz, of which the truth is known")
	}
	pages := map[string]bookPage{}
	for device, all := range words {
		p := bookPage{Device: device, Words: len(all)}
		for i, w := range all {
			if len(w) > len(p.Longest) {
				p.Longest = w
			}
			if i > 0 && strings.EqualFold(all[i-1][len(all[i-1])-1:], w[:1]) {
				p.Chained++
			}
		}
		pages[device] = p
	}
	return pages
}

// TestDevWordCount runs the example as its first lines say: 98,436 words, 1,000 of them different, counted as the truth beside the data says; and every page as
// a slow calculation describes it.
func TestDevWordCount(t *testing.T) {
	var known struct {
		Words    int
		Distinct int
		Max      int      `json:"max_count"`
		MaxWords []string `json:"words_with_max_count"`
		Hash     string   `json:"sha256_of_sorted_word_TAB_count_lines"`
	}
	raw, err := os.ReadFile(filepath.Join(wordCount, "data", "randomwords.truth.json"))
	if err == nil {
		err = json.Unmarshal(raw, &known)
	}
	if err != nil || known.Words != 98_436 || known.Distinct != 1000 || known.Max != 128 {
		t.Fatalf("the truth: %v, %+v", err, known)
	}
	export := t.TempDir()
	s, code := devOnce(t, "", "--topology", wordCount+"/topology.yaml", "--feed", wordCount+"/data/lines.jsonl.gz", "--export", export)
	if code != exitOK || s.Readings != 14_049 || s.DeadLetters != 0 {
		t.Fatalf("exit %d, %+v", code, s)
	}
	words, counts := 0, map[string]int{}
	for _, d := range lines[struct {
		Group string
		Count int
	}](t, filepath.Join(export, "words.jsonl")) {
		words += d.Count
		counts[d.Group] = d.Count
	}
	var sorted strings.Builder
	for _, w := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&sorted, "%s\t%d\n", w, counts[w])
	}
	if hash := fmt.Sprintf("%x", sha256.Sum256([]byte(sorted.String()))); words != known.Words || len(counts) != known.Distinct || hash != known.Hash {
		t.Errorf("%d words, %d different; the counts hash to %s, want %s", words, len(counts), hash, known.Hash)
	}
	for _, w := range known.MaxWords {
		if counts[w] != known.Max {
			t.Errorf("%s: %d, want %d", w, counts[w], known.Max)
		}
	}
	got := map[string]bookPage{}
	for _, p := range lines[bookPage](t, filepath.Join(export, "pages.jsonl")) {
		got[p.Device] = p
	}
	if want := pagesOf(t); !maps.Equal(got, want) {
		t.Errorf("pages %s\nwant %s", fmt.Sprint(got), fmt.Sprint(want))
	}
}
