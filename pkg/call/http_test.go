package call

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
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

// TestParts: an answer in several messages is whole again at the other end, whatever its replies' sizes.
func TestParts(t *testing.T) {
	o := spout.Outcome{ID: "x", Position: 7, Failures: []spout.Failure{{Node: "b", Error: "bad"}}}
	if ps := Parts(o); len(ps) != 1 || ps[0].Parts != 1 || len(ps[0].Failures) != 1 {
		t.Errorf("no replies: %+v", ps)
	}
	o.Failures = nil
	for i := range 50 {
		o.Replies = append(o.Replies, spout.Reply{Node: "b", Payload: fmt.Appendf(nil, `{"n":%d,"x":"%s"}`, i, strings.Repeat("x", i*1000))})
	}
	o.Replies = append(o.Replies, spout.Reply{Node: "c", Payload: []byte(`{"x":"` + strings.Repeat("x", 2*partBytes) + `"}`)}, spout.Reply{Node: "d", Payload: []byte("{}")})
	got := map[int]Part{}
	for _, p := range Parts(o) {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > partBytes+4096 && len(p.Replies) > 1 {
			t.Errorf("part %d has %d bytes and %d replies", p.Part, len(b), len(p.Replies))
		}
		var back Part
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		got[back.Part] = back
	}
	a, err := answerOf("x", got)
	if err != nil || len(got) < 3 || len(a.Replies) != len(o.Replies) || a.Position != 7 {
		t.Fatalf("%d parts, %d replies (%v)", len(got), len(a.Replies), err)
	}
	for i := range a.Replies {
		if string(a.Replies[i].Payload) != string(o.Replies[i].Payload) {
			t.Fatalf("reply %d is another", i)
		}
	}
}
