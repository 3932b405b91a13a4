package mongo

import (
	"fmt"
	"testing"
)

// The address decides; where it says nothing, a majority with its journal does.
func TestWriteConcern(t *testing.T) {
	for _, tt := range []struct{ uri, option, want string }{
		{"mongodb://localhost/", "", "majority true"},
		{"mongodb://localhost/?replicaSet=rs0", "", "majority true"},
		{"mongodb://localhost/?w=1", "", "1 not said"},
		{"mongodb://localhost/?w=2&journal=true", "", "2 true"},
		{"mongodb://localhost/?journal=false", "", "<nil> false"},
		{"mongodb://localhost/?w=1", "majority", "majority true"},
		{"mongodb://localhost/", "3", "3 not said"},
		{"mongodb://localhost/", "two-sites", "two-sites not said"},
	} {
		c := clientOptions(Options{URI: tt.uri, WriteConcern: tt.option}).WriteConcern
		journal := "not said"
		if c.Journal != nil {
			journal = fmt.Sprint(*c.Journal)
		}
		if got := fmt.Sprint(c.W, " ", journal); got != tt.want {
			t.Errorf("%s %q: %s, want %s", tt.uri, tt.option, got, tt.want)
		}
	}
}
