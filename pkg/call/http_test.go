package call

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// TestRefused: what is no question is answered before anybody is asked; the client has no connection.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name, kind, query, body string
		status                  int
		said                    string
	}{
		{"a form, as a web page of anywhere can send it", "application/x-www-form-urlencoded", "", "a=1", http.StatusUnsupportedMediaType, "Content-Type"},
		{"no type", "", "", "{}", http.StatusUnsupportedMediaType, "Content-Type"},
		{"no time", "application/json", "?timeout=soon", "{}", http.StatusBadRequest, `"soon" is not a time to wait`},
		{"less than no time", "application/json", "?timeout=-1s", "{}", http.StatusBadRequest, "not a time to wait"},
		{"a long name", "application/json", "?id=" + strings.Repeat("x", 129), "{}", http.StatusBadRequest, "the call's id has 129 bytes: give it 1 to 128"},
		{"a long name, and nobody waits", "application/json", "?wait=no&id=" + strings.Repeat("x", 129), "{}", http.StatusBadRequest, "1 to 128"},
		{"a list", "application/json; charset=utf-8", "", "[1]", http.StatusBadRequest, "a JSON object is wanted"},
		{"half of an object", "application/json", "", `{"a":`, http.StatusBadRequest, ""},
		{"more than a tuple holds", "application/json", "", `{"a":"` + strings.Repeat("x", tuple.MaxPayload) + `"}`, http.StatusRequestEntityTooLarge, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/call/foreman"+tt.query, strings.NewReader(tt.body))
			r.SetPathValue("topology", "foreman")
			if tt.kind != "" {
				r.Header.Set("Content-Type", tt.kind)
			}
			w := httptest.NewRecorder()
			New(nil).ServeHTTP(w, r)
			var why Refusal
			if err := json.Unmarshal(w.Body.Bytes(), &why); err != nil || w.Code != tt.status || why.Error == "" || !strings.Contains(why.Error, tt.said) {
				t.Errorf("%d, want %d: %s (%v)", w.Code, tt.status, w.Body, err)
			}
		})
	}
}

// TestParts: an answer in several messages is whole again at the other end, whatever its replies' and failures' sizes, and none is too large for NATS.
func TestParts(t *testing.T) {
	ps, err := Parts(spout.Outcome{ID: "x", Position: 7})
	if err != nil || len(ps) != 1 || string(ps[0]) != `{"id":"x","position":7,"part":0,"parts":1}` {
		t.Errorf("nothing: %s (%v)", ps, err)
	}
	o := spout.Outcome{ID: "x", Position: 7, Failed: 5000}
	for i := range spout.MaxFailures {
		o.Failures = append(o.Failures, spout.Failure{Node: "b", Letter: tuple.ID{byte(i)}, Error: strings.Repeat("\x01", tuple.MaxError)}) // six bytes each
	}
	for i := range 50 {
		o.Replies = append(o.Replies, spout.Reply{Node: "b", Payload: fmt.Appendf(nil, `{"n":%d,"x":"%s"}`, i, strings.Repeat("x", i*1000))})
	}
	for range 500 {
		o.Replies = append(o.Replies, spout.Reply{Node: "b", Key: strings.Repeat("\x01", tuple.MaxKey), Payload: []byte("{}")})
	}
	o.Replies = append(o.Replies,
		spout.Reply{Node: "c", Key: strings.Repeat("\x01", tuple.MaxKey), Payload: []byte(`{"x":"` + strings.Repeat("<", tuple.MaxPayload-8) + `"}`)}, spout.Reply{Node: "d", Payload: []byte("{}")})
	if ps, err = Parts(o); err != nil {
		t.Fatal(err)
	}
	got := map[int]Part{}
	for _, b := range ps {
		if len(b) > 1<<20 {
			t.Errorf("a part of %d bytes", len(b))
		}
		var back Part
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if len(b) > partBytes+1024 && len(back.Replies) > 1 {
			t.Errorf("part %d has %d bytes and %d replies", back.Part, len(b), len(back.Replies))
		}
		got[back.Part] = back
	}
	a, err := answerOf("x", got)
	var failed *FailedError
	if !errors.As(err, &failed) || !slices.Equal(failed.Failures, o.Failures) || failed.All != 5000 || len(got) < 3 || len(a.Replies) != len(o.Replies) || a.Position != 7 {
		t.Fatalf("%d parts, %d replies (%.200v)", len(got), len(a.Replies), err)
	}
	if said := err.Error(); !strings.HasSuffix(said, "and 4990 more dead letters") {
		t.Errorf("not said how many there are: %d bytes", len(said))
	}
	for i := range a.Replies {
		if string(a.Replies[i].Payload) != string(o.Replies[i].Payload) {
			t.Fatalf("reply %d is another", i)
		}
	}
}
