// Package wire holds docs/wire.md to what it says of itself: that the program at its end checks every vector on the page, against the bytes that the Go side writes.
// CI runs it. It never knows what the bytes mean.
package wire

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestSnippet runs the page's program in the repository's root, and looks for each vector of its tables in it.
func TestSnippet(t *testing.T) {
	page, err := os.ReadFile("../../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	text, rest, ok := strings.Cut(string(page), "```python\n")
	program, _, closed := strings.Cut(rest, "\n```")
	if !ok || !closed {
		t.Fatal("the page has no program")
	}
	cmd := exec.CommandContext(t.Context(), "python3", "-c", program)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ok\n" {
		t.Errorf("%v: %s", err, out)
	}
	vectors := regexp.MustCompile("(?m)`([0-9a-f]{16,})`|^\\|[^|]+\\| ([0-9]{9,}) \\|").FindAllStringSubmatch(text, -1)
	for _, v := range vectors {
		if !strings.Contains(program, v[1]+v[2]) {
			t.Errorf("the program does not check %s", v[1]+v[2])
		}
	}
	if len(vectors) < 20 {
		t.Errorf("%d vectors found", len(vectors))
	}
}
