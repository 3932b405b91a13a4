package call

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/boltmesh/boltmesh/pkg/jetstream"
	"github.com/boltmesh/boltmesh/pkg/spout"
	"github.com/boltmesh/boltmesh/pkg/trace"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// Refusal is the body of an answer over HTTP that is none.
type Refusal struct {
	Error    string          `json:"error"`
	Holders  []trace.Holder  `json:"holders,omitempty"`  // with 504: who has not finished
	Failures []spout.Failure `json:"failures,omitempty"` // with 502: which tuples became dead letters, spout.MaxFailures at most
	Failed   int             `json:"failed,omitempty"`   // with 502: how many did in all
	Replies  []spout.Reply   `json:"replies,omitempty"`  // with 502: what came nevertheless
}

// ServeHTTP answers POST with the path value topology: the body is the question, of the type application/json; ?id= and ?timeout= are the Options', and
// ?wait=no is Send. The answer is an Answer, or with 504, 502 and the like a Refusal.
func (c *Client) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, errors.New("write Content-Type: application/json"))
		return
	}
	o := Options{ID: r.URL.Query().Get("id")}
	if err := spout.CheckCallID(o.ID); err != nil && o.ID != "" {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if s := r.URL.Query().Get("timeout"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			refuse(w, http.StatusBadRequest, fmt.Errorf("timeout: %q is not a time to wait, such as 5s", s))
			return
		}
		o.Timeout = d
	}
	question, err := io.ReadAll(http.MaxBytesReader(w, r.Body, tuple.MaxPayload))
	if err != nil {
		status := http.StatusBadRequest
		if errors.As(err, new(*http.MaxBytesError)) {
			status = http.StatusRequestEntityTooLarge
		}
		refuse(w, status, err)
		return
	}
	if err := spout.CheckCall(question); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	ask := c.Call
	if r.URL.Query().Get("wait") == "no" {
		ask = c.Send
	}
	answer, err := ask(r.Context(), r.PathValue("topology"), question, o)
	var failed *FailedError
	switch {
	case errors.As(err, &failed):
		write(w, http.StatusBadGateway, Refusal{Error: err.Error(), Failures: failed.Failures, Failed: failed.All, Replies: answer.Replies})
	case err != nil:
		refuse(w, status(err), err)
	default:
		write(w, http.StatusOK, answer)
	}
}

// status is what an error of a call is over HTTP.
func status(err error) int {
	switch {
	case errors.As(err, new(*UnansweredError)), errors.Is(err, ErrNoTaker), errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, jetstream.ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadGateway
}

func refuse(w http.ResponseWriter, status int, err error) {
	r := Refusal{Error: err.Error()}
	var late *UnansweredError
	if errors.As(err, &late) {
		r.Holders = late.Holders
	}
	write(w, status, r)
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // replies as they are
	_ = e.Encode(v)        // the caller has gone
}
