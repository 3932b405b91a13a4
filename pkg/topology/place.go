package topology

import (
	"strings"
	"unicode/utf8"
)

// within returns the place of line and column (from 1) of a scalar's text in the document. Where the text was folded, escaped or filled, so that it
// differs from what is written, that is the scalar's own place.
func (r *reader) within(n *node, line, column int) Place {
	if n.at.File != "" || n.at.Line < 1 || n.at.Line > len(r.lines) {
		return n.at
	}
	if n.style == block {
		first, indent := r.blockStart(n)
		if first+line-1 > len(r.lines) {
			return n.at
		}
		if !strings.Contains(r.line(n.at.Line, n.at.Column), "|") { // folded by >
			return Place{Line: first, Column: indent + 1}
		}
		return Place{Line: first + line - 1, Column: indent + column}
	}
	at := n.at
	if n.style == quoted {
		at.Column++
	}
	text, _, _ := strings.Cut(n.text, "\n")
	if line == 1 && strings.HasPrefix(r.line(at.Line, at.Column), text) {
		at.Column += column - 1
		return at
	}
	return n.at
}

// blockStart returns the first line of a block scalar's text and how far it is indented.
func (r *reader) blockStart(n *node) (line, indent int) {
	for i := n.at.Line; i < len(r.lines); i++ { // lines count from 1: this is the line after the | sign
		if s := strings.TrimLeft(r.lines[i], " "); s != "" {
			return n.at.Line + 1, len(r.lines[i]) - len(s)
		}
	}
	return n.at.Line, n.at.Column
}

// line returns what a line of the document holds from a column on.
func (r *reader) line(line, column int) string {
	s := r.lines[line-1]
	for ; column > 1 && s != ""; column-- {
		_, size := utf8.DecodeRuneInString(s)
		s = s[size:]
	}
	return s
}

// columnOf turns an offset in bytes of a scalar's text into line and column from 1.
func columnOf(text string, offset int) (line, column int) {
	before := text[:offset]
	line = 1 + strings.Count(before, "\n")
	if i := strings.LastIndexByte(before, '\n'); i >= 0 {
		before = before[i+1:]
	}
	return line, 1 + utf8.RuneCountInString(before)
}
