package window

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// counters is how many values a topk of k keeps: it tells of k, and more of them make the counts better.
func counters(k float64) int { return max(64, 4*int(k)) }

// topk counts the most frequent values (Metwally, Agrawal, El Abbadi 2005: Space-Saving; merged as Cafaro, Pulimeno, Tempesta 2016 do). Of n values
// altogether and m counters, every count is at least the true one and at most n/m more; every value that occurred more than n/m times is there; while
// there have been at most m different ones, all is exact. It has at most m (2 + 128 + 9) bytes.
type topk struct {
	most   int
	counts []tally // by text
}

// tally is one value with its count.
type tally struct {
	text string // JSON
	n    uint64
}

func byText(c tally, text string) int { return strings.Compare(c.text, text) }

// byRank orders by count, the greatest first, then by text.
func byRank(a, b tally) int {
	if a.n != b.n {
		return cmp.Compare(b.n, a.n)
	}
	return strings.Compare(a.text, b.text)
}

// add counts a value. When there is no room, it takes over the count of the last in rank, which may have been its own once.
func (s *topk) add(_ float64, text string) {
	i, found := slices.BinarySearchFunc(s.counts, text, byText)
	if found {
		s.counts[i].n++
		return
	}
	n := uint64(1)
	if len(s.counts) == s.most {
		last := 0
		for k := range s.counts { // by text: of equal counts the last is the last in rank
			if s.counts[k].n <= s.counts[last].n {
				last = k
			}
		}
		n += s.counts[last].n
		s.counts = slices.Delete(s.counts, last, last+1)
		if last < i {
			i--
		}
	}
	s.counts = slices.Insert(s.counts, i, tally{text, n})
}

// least is what a value that is not there may have been counted at most.
func (s *topk) least() uint64 {
	if len(s.counts) < s.most {
		return 0
	}
	return slices.MaxFunc(s.counts, byRank).n
}

func (s *topk) merge(other sketch) {
	o := other.(*topk)
	mine, theirs := s.least(), o.least()
	var all []tally
	a, b := s.counts, o.counts
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].text < b[0].text:
			all, a = append(all, tally{a[0].text, a[0].n + theirs}), a[1:]
		case len(a) == 0 || b[0].text < a[0].text:
			all, b = append(all, tally{b[0].text, b[0].n + mine}), b[1:]
		default:
			all, a, b = append(all, tally{a[0].text, a[0].n + b[0].n}), a[1:], b[1:]
		}
	}
	if len(all) > s.most {
		slices.SortFunc(all, byRank)
		all = all[:s.most]
		slices.SortFunc(all, func(a, b tally) int { return byText(a, b.text) })
	}
	s.counts = all
}

func (s *topk) clone() sketch { return &topk{s.most, slices.Clone(s.counts)} }

// top returns the first k in rank as a JSON array of {"value", "count"}.
func (s *topk) top(k int) []byte {
	ranked := slices.Clone(s.counts)
	slices.SortFunc(ranked, byRank)
	b := []byte{'['}
	for i, c := range ranked[:min(k, len(ranked))] {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"value":`...)
		b = append(b, c.text...)
		b = append(b, `,"count":`...)
		b = strconv.AppendUint(b, c.n, 10)
		b = append(b, '}')
	}
	return append(b, ']')
}

func (s *topk) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.counts)))
	for _, c := range s.counts {
		b = binary.AppendUvarint(b, uint64(len(c.text)))
		b = append(b, c.text...)
		b = binary.AppendUvarint(b, c.n)
	}
	return b
}

func decodeTopK(b []byte, most int) (*topk, error) {
	d := decoder{b: b}
	n := d.length(3)
	if n > most {
		return nil, fmt.Errorf("it has %d values, at most %d are kept", n, most)
	}
	s := &topk{most, make([]tally, n)}
	all := string(b) // all texts are parts of it: one allocation
	for i := range s.counts {
		size := len(d.bytes())
		end := len(b) - len(d.b)
		s.counts[i] = tally{all[end-size : end], d.uvarint()}
		if d.err != nil {
			return nil, d.err
		}
		if err := checkText(s.counts[i].text); err != nil {
			return nil, err
		}
		if i > 0 && s.counts[i-1].text >= s.counts[i].text {
			return nil, fmt.Errorf("%q follows %q", s.counts[i].text, s.counts[i-1].text)
		}
	}
	return s, d.end()
}
