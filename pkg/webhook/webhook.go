// Package webhook hands notices to an HTTP address: one signed POST each, judged by the status of its answer. A notifying node delivers through it.
// It never follows a redirect, and never puts more of an address into an error than its host, nor anything of a secret or an answer.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/boltmesh/boltmesh/pkg/bolt"
)

// Headers of a POST.
const (
	HeaderID        = "Boltmesh-Event-Id"  // 32 hexadecimal digits: the same when an event comes again
	HeaderTimestamp = "Boltmesh-Timestamp" // when this POST was made, seconds since 1970
	HeaderSignature = "Boltmesh-Signature" // sha256= and Sign in hexadecimal; absent without a secret
)

// Bounds of a POST.
const (
	DefaultTimeout = 10 * time.Second
	maxAnswer      = 64 << 10    // bytes of an answer that are read, so that the connection can be used again
	maxRetryAfter  = time.Minute // that an answer may ask for
)

// Options say where to. The zero value of all but Address is usable.
type Options struct {
	Address   string            // http or https
	Secret    string            // of the signature; "": there is none
	Timeout   time.Duration     // of one POST with its answer; default DefaultTimeout
	Transport http.RoundTripper // default http.DefaultTransport
	Now       func() time.Time  // default time.Now
}

// Hook is an address that takes notices. It is safe for concurrent use.
type Hook struct {
	client  *http.Client
	address *url.URL
	secret  []byte
	now     func() time.Time
}

// New checks the address. The error does not repeat it: all of it may be a secret.
func New(o Options) (*Hook, error) {
	u, err := url.Parse(o.Address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("the webhook is no http or https address")
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Hook{
		client: &http.Client{
			Transport: o.Transport, Timeout: o.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		address: u, secret: []byte(o.Secret), now: o.Now,
	}, nil
}

// Sign is the HMAC-SHA256 of timestamp, a dot, and body.
func Sign(secret []byte, timestamp string, body []byte) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(timestamp + "."))
	m.Write(body)
	return m.Sum(nil)
}

// Post hands one event over. It returns nil for an answer of 2xx; a bolt.Unavailable for 5xx and when there is no answer; a plain error, or a bolt.Retry
// where the answer asks for a pause, for 408, 425 and 429; and a bolt.Reject for any other answer, redirects included.
func (h *Hook) Post(ctx context.Context, id string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.address.String(), bytes.NewReader(body))
	if err != nil {
		return bolt.Reject(errors.New("the webhook's address cannot be used"))
	}
	stamp := strconv.FormatInt(h.now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "boltmesh")
	r.Header.Set(HeaderID, id)
	r.Header.Set(HeaderTimestamp, stamp)
	if len(h.secret) > 0 {
		r.Header.Set(HeaderSignature, "sha256="+hex.EncodeToString(Sign(h.secret, stamp, body)))
	}
	answer, err := h.client.Do(r)
	if err != nil {
		if inner := new(url.Error); errors.As(err, &inner) {
			err = inner.Err // without the address
		}
		return bolt.Unavailable(fmt.Errorf("%s does not answer: %w", h.address.Host, err))
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer)) // the status says all
	return h.judge(answer)
}

func (h *Hook) judge(answer *http.Response) error {
	code := answer.StatusCode
	err := fmt.Errorf("%s answered %d %s", h.address.Host, code, http.StatusText(code))
	switch {
	case code >= 200 && code < 300:
		return nil
	case code >= 500:
		return bolt.Unavailable(err)
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
		if seconds, bad := strconv.Atoi(answer.Header.Get("Retry-After")); bad == nil && seconds > 0 {
			return bolt.Retry(err, min(time.Duration(seconds)*time.Second, maxRetryAfter))
		}
		return err
	case code >= 300 && code < 400:
		return bolt.Reject(fmt.Errorf("%w: redirects are not followed, name the address that they lead to", err))
	}
	return bolt.Reject(err)
}

// Close ends idle connections.
func (h *Hook) Close() error {
	h.client.CloseIdleConnections()
	return nil
}
