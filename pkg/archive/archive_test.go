package archive_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/archive/archivetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	archivetest.Run(t, archivetest.Traits{}, func(*testing.T) archive.Store { return &archive.Memory{} })
}

func TestCheck(t *testing.T) {
	deep := strings.Repeat(`{"x":`, 33) + "1" + strings.Repeat("}", 33)
	for _, c := range []struct{ device, fields, want string }{
		{"m", `{"a":1,"B_2":{"any thing-goes":[{"x":null}]}}`, ""},
		{"m", ` { "a" : 1 } `, ""},
		{"", `{}`, "no id"},
		{strings.Repeat("x", 257), `{}`, "257 bytes"},
		{"a\nb", `{}`, "control character"},
		{"a\xff", `{}`, "not UTF-8"},
		{"m", ``, "not a JSON object"},
		{"m", `null`, "not a JSON object"},
		{"m", `{"a":1`, "not JSON"},
		{"m", `{"a":1}{}`, "something follows"},
		{"m", `{"a":1,"a":2}`, "comes twice"},
		{"m", `{"a":{"b":1,"b":2}}`, "comes twice"},
		{"m", `{"a-b":1}`, "cannot be the name"},
		{"m", `{"1a":1}`, "cannot be the name"},
		{"m", `{"":1}`, "cannot be the name"},
		{"m", `{"a":{"b.c":1}}`, "cannot be the name"},
		{"m", `{"a":{"$c":1}}`, "cannot be the name"},
		{"m", `{"` + strings.Repeat("a", 65) + `":1}`, "65 bytes"},
		{"m", `{"a":1e400}`, "too large"},
		{"m", `{"a":[9223372036854775809]}`, "64 bits"},
		{"m", `{"a":` + deep + `}`, "deeper"},
		{"m", `{"a":"` + strings.Repeat("x", 65530) + `"}`, "65538 bytes"},
		{"m", "{\"a\":\"\xff\"}", "not UTF-8"},
	} {
		_, err := archive.New(c.device, []byte(c.fields))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%.20s %.40s: %v, want %q", c.device, c.fields, err, c.want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, good := range map[string]bool{"devices": true, "a1_b": true, "": false, "1a": false, "a-b": false, "A": false, strings.Repeat("a", 49): false} {
		if err := archive.CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
