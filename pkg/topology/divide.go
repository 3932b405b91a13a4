package topology

import (
	"fmt"
	"strings"
)

// WithTasks returns the document with another number of tasks for one of its bolts, written into the source; everything else stays as it is written. It
// refuses where that would say something else than this, such as a bolt that is an alias.
func (d Document) WithTasks(bolt string, tasks int) (Document, error) {
	t, problems := d.Parse(nil)
	if err := problems.Err(); err != nil {
		return d, err
	}
	found := false
	for i := range t.Bolts {
		if t.Bolts[i].ID == bolt {
			t.Bolts[i].Tasks, found = tasks, true
		}
	}
	if !found {
		return d, fmt.Errorf("%s has no bolt %s", t.Name, bolt)
	}
	out := d
	out.Source = withTasks(d.Source, bolt, tasks)
	changed, problems := out.Parse(nil)
	if err := problems.Err(); err != nil {
		return d, fmt.Errorf("with tasks: %d: %w", tasks, err)
	}
	if changed.Fingerprint() != t.Fingerprint() {
		return d, fmt.Errorf("tasks of %s cannot be changed where it stands in the document: write tasks: %d there and apply it", bolt, tasks)
	}
	return out, nil
}

// withTasks puts the number in the place of the one that is there, or in front of the bolt's first key.
func withTasks(source, bolt string, tasks int) string {
	root, lines, problem := parseTree([]byte(source))
	if problem != nil {
		return source
	}
	bolts := root.value("bolts")
	if bolts == nil {
		return source
	}
	for _, b := range bolts.items {
		if id := b.value("id"); id == nil || id.text != bolt || len(b.pairs) == 0 {
			continue
		}
		if old := b.value("tasks"); old != nil {
			return edit(lines, old.at, func(line string) string {
				return fmt.Sprint(tasks) + line[scalarEnd(line):]
			})
		}
		at := b.pairs[0].at
		return edit(lines, at, func(line string) string {
			if before := strings.TrimLeft(lines[at.Line-1][:at.Column-1], " -"); before != "" { // {id: x, ...}
				return fmt.Sprintf("tasks: %d, %s", tasks, line)
			}
			return fmt.Sprintf("tasks: %d\n%s%s", tasks, strings.Repeat(" ", at.Column-1), line)
		})
	}
	return source
}

// scalarEnd is where a number or a variable ends, with which line begins.
func scalarEnd(line string) int {
	if i := strings.IndexByte(line, '}'); strings.HasPrefix(line, "${") && i > 0 {
		return i + 1
	}
	if i := strings.IndexAny(line, " ,}\t#"); i >= 0 {
		return i
	}
	return len(line)
}

// edit replaces what is from a place to the end of its line.
func edit(lines []string, at Place, f func(string) string) string {
	i, column := at.Line-1, at.Column-1
	if i < 0 || i >= len(lines) || column < 0 || column > len(lines[i]) {
		return strings.Join(lines, "\n")
	}
	lines[i] = lines[i][:column] + f(lines[i][column:])
	return strings.Join(lines, "\n")
}
