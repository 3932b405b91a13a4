package webhook

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
)

const secret = "hunter2"

func serve(t *testing.T, f http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s
}

func open(t *testing.T, o Options) *Hook {
	t.Helper()
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestPost(t *testing.T) {
	var got http.Header
	var body []byte
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.URL.Path != "/T0/hunter2" {
			http.Error(w, "no", http.StatusNotFound)
		}
	})
	now := func() time.Time { return time.Unix(1_386_122_100, 5e8) }
	h := open(t, Options{Address: s.URL + "/T0/hunter2", Secret: secret, Now: now})
	if err := h.Post(t.Context(), "0a", []byte(`{"event":"raise"}`)); err != nil {
		t.Fatal(err)
	}
	if got.Get(HeaderID) != "0a" || got.Get(HeaderTimestamp) != "1386122100" || got.Get("Content-Type") != "application/json" || string(body) != `{"event":"raise"}` {
		t.Errorf("%v %s", got, body)
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(got.Get(HeaderSignature), "sha256="))
	if err != nil || !hmac.Equal(sum, Sign([]byte(secret), got.Get(HeaderTimestamp), body)) {
		t.Errorf("signature %q, %v", got.Get(HeaderSignature), err)
	}
	// What any other program computes: printf '1386122100.{"event":"raise"}' | openssl dgst -sha256 -hmac hunter2
	if got.Get(HeaderSignature) != "sha256=bf48c59552a905820902a87109c4bdd262335c29055e84221312e348cbc56d34" {
		t.Errorf("signature %q", got.Get(HeaderSignature))
	}
	unsigned := open(t, Options{Address: s.URL + "/T0/hunter2"})
	if err := unsigned.Post(t.Context(), "0a", nil); err != nil || got.Get(HeaderSignature) != "" {
		t.Errorf("%v, signature %q without a secret", err, got.Get(HeaderSignature))
	}
}

func TestAnswers(t *testing.T) {
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
	answer, header := 0, ""
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", header)
		w.Header().Set("Location", elsewhere.URL)
		w.WriteHeader(answer)
		_, _ = w.Write([]byte("cannot POST /hunter2")) // as some servers answer
	})
	h := open(t, Options{Address: s.URL + "/hunter2", Secret: secret})
	const accepted, outage, retried, final = "accepted", "outage", "retried", "final"
	for _, tt := range []struct {
		code int
		want string
	}{
		{200, accepted},
		{201, accepted},
		{204, accepted},
		{301, final},
		{302, final},
		{307, final},
		{308, final},
		{400, final},
		{401, final},
		{404, final},
		{410, final},
		{422, final},
		{408, retried},
		{425, retried},
		{429, retried},
		{500, outage},
		{502, outage},
		{503, outage},
		{504, outage},
		{599, outage},
	} {
		answer = tt.code
		err := h.Post(t.Context(), "0a", []byte(`{}`))
		got := retried
		switch {
		case err == nil:
			got = accepted
		case bolt.IsUnavailable(err):
			got = outage
		case bolt.IsReject(err):
			got = final
		}
		if got != tt.want {
			t.Errorf("%d is %s, want %s", tt.code, got, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), fmt.Sprint(tt.code))) {
			t.Errorf("%d: %v", tt.code, err)
		}
	}
}

func TestOutages(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	release := make(chan struct{})
	slow := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	cut := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = c.Close()
	})
	for name, address := range map[string]string{"refused": gone.URL, "slow": slow.URL, "cut": cut.URL} {
		h := open(t, Options{Address: address + "/hunter2?token=hunter2", Secret: secret, Timeout: 100 * time.Millisecond})
		err := h.Post(t.Context(), "0a", []byte(`{}`))
		if !bolt.IsUnavailable(err) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := open(t, Options{Address: slow.URL}).Post(ctx, "0a", nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// An answer without an end is not waited for, and does not fill the memory.
func TestEndlessAnswer(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	if err := open(t, Options{Address: s.URL}).Post(t.Context(), "0a", []byte(`{}`)); err != nil {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, address := range []string{"", "hunter2", "ftp://hunter2/", "https://", "http://hunter2 x/", "https://hunter2:x:y/"} {
		if _, err := New(Options{Address: address}); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", address, err)
		}
	}
}
