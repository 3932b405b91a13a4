package script

import (
	"errors"
	"strconv"
	"strings"
)

// ErrAbsent says that an expression or a script had no answer because a field that it needs is absent from the reading;
// a rule then skips the reading.
var ErrAbsent = errors.New("a field that is needed is absent")

// ErrDeadline is wrapped by the error of a call that ran longer than RuntimeOptions.Deadline.
var ErrDeadline = errors.New("deadline exceeded")

// ErrTooLarge is wrapped by the error of a call whose result is larger than tuple.MaxPayload.
var ErrTooLarge = errors.New("result too large")

// Error is a fault in a user's code or in how it met a reading, with the place in the file where it was written.
type Error struct {
	File    string // as given at compilation; may be empty
	Line    int    // from 1
	Column  int    // from 1, in characters
	Message string // what is wrong
	Hint    string // what to write instead; may be empty
	Err     error  // the sentinel it stands for (ErrDeadline, ErrTooLarge), or nil
}

// Error returns "file:line:column: message, hint".
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		b.WriteByte(':')
	}
	b.WriteString(strconv.Itoa(e.Line))
	b.WriteByte(':')
	b.WriteString(strconv.Itoa(e.Column))
	b.WriteString(": ")
	b.WriteString(e.Message)
	if e.Hint != "" {
		b.WriteString(", ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

// Unwrap returns the sentinel that the error stands for.
func (e *Error) Unwrap() error { return e.Err }

// suggest returns `did you mean "x"?` for the known name nearest to name, or "" when none is near.
func suggest(name string, known []string) string {
	best, limit := "", 1+len(name)/3
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d <= limit && (best == "" || d < limit) {
			best, limit = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + strconv.Quote(best) + "?"
}

// distance is Levenshtein's: insertions, deletions and replacements from a to b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
