package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// print writes v as JSON if so asked, else what table writes.
func (c *cli) print(w io.Writer, v any, table func(*tabwriter.Writer)) error {
	if c.output == "json" {
		e := json.NewEncoder(screened{w})
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false) // texts as they are
		return e.Encode(v)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	table(t)
	return t.Flush()
}

// row writes one row of a table.
func row(t *tabwriter.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		switch s, text := c.(string); {
		case text && s == "":
			c = "-"
		case text:
			c = printable(s)
		}
		fmt.Fprint(t, c)
	}
	fmt.Fprintln(t)
}

// screened passes lines on so that a terminal obeys nothing in them. In JSON such letters stand in texts only, where what printable writes means the same.
type screened struct{ io.Writer }

func (w screened) Write(b []byte) (int, error) {
	_, err := io.WriteString(w.Writer, printableLines(string(b)))
	return len(b), err
}

// printableLines is printable for a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		cells := strings.Split(l, "\t")
		for k, c := range cells {
			cells[k] = printable(c)
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return strings.Join(lines, "\n")
}

// stamp writes a time given in ms; "" when there is none.
func stamp(ms int64) string {
	if ms == 0 || ms == math.MinInt64 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05Z")
}

// age writes how long ago a time given in ms is; "" when there is none.
func age(ms int64, now time.Time) string {
	if ms == 0 {
		return ""
	}
	d := max(0, now.Sub(time.UnixMilli(ms)))
	if d > time.Minute {
		return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
	}
	return d.Round(100 * time.Millisecond).String()
}

// runs writes numbers as 0-3,6.
func runs(numbers []int32) string {
	list := slices.Clone(numbers)
	slices.Sort(list)
	var out []string
	for i := 0; i < len(list); {
		k := i
		for k+1 < len(list) && list[k+1] == list[k]+1 {
			k++
		}
		s := strconv.Itoa(int(list[i]))
		if k > i {
			s += "-" + strconv.Itoa(int(list[k]))
		}
		out = append(out, s)
		i = k + 1
	}
	return strings.Join(out, ",")
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
