package main

import (
	"strings"
	"testing"
	"time"
)

// TestLongWaitsAreTold: not at once, not the same thing again and again, but something now and then.
func TestLongWaitsAreTold(t *testing.T) {
	at := time.Unix(0, 0)
	var out strings.Builder
	tell := teller(&out, func() time.Time { return at })
	for i := range 150 { // ten looks a second
		what := "a"
		if i >= 30 && i < 35 {
			what = "b"
		}
		tell(what)
		at = at.Add(100 * time.Millisecond)
	}
	const want = "after 2s waiting: a\nafter 3s waiting: b\nafter 4s waiting: a\nafter 14s waiting: a\n"
	if out.String() != want {
		t.Errorf("told\n%swant\n%s", out.String(), want)
	}
}
