package jetstream

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func TestStanding(t *testing.T) {
	var s standing
	begin := time.Now()
	for i, x := range []struct {
		after time.Duration
		err   error
		leave bool
	}{
		{0, errors.New("no answer"), false},
		{9 * time.Second, errors.New("no answer"), false},
		{9500 * time.Millisecond, nil, false},
		{11 * time.Second, errors.New("no answer"), false},
		{21 * time.Second, ErrExists, true},
		{22 * time.Second, errors.New("no answer"), false}, // it has left
		{31 * time.Second, errors.New("no answer"), true},
	} {
		if s.failing(x.err, begin.Add(x.after)) != x.leave {
			t.Errorf("request %d: to leave is %v, want %v", i, !x.leave, x.leave)
		}
	}
}

// TestLeave: connections leave a server that can do nothing for another one, if they know any.
func TestLeave(t *testing.T) {
	var urls []string
	for range 2 {
		s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(s.Shutdown)
		if !s.ReadyForConnections(10 * time.Second) {
			t.Fatal("the server does not start")
		}
		urls = append(urls, s.ClientURL())
	}
	for _, known := range [][]string{urls, urls[:1]} {
		told := make(chan Change, 16)
		c, err := Connect(t.Context(), Options{URL: strings.Join(known, ","), Changed: func(c Change) { told <- c }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		if _, _, err := c.lane.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		lane := c.lane.nc
		was, laneWas := c.nc.ConnectedUrl(), lane.ConnectedUrl()
		c.standing.since = time.Now().Add(-unheard)
		c.heard(errors.New("no answer"))
		if len(known) == 1 {
			if len(told) > 0 || c.nc.ConnectedUrl() != was {
				t.Errorf("it left the only server: %+v", <-told)
			}
			continue
		}
		for range 4 {
			select {
			case now := <-told:
				if now.Err != nil && !strings.Contains(now.Err.Error(), "no answer") {
					t.Errorf("told %+v", now)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it did not leave")
			}
		}
		if c.nc.ConnectedUrl() == was || lane.ConnectedUrl() == laneWas {
			t.Errorf("from %s to %s, from %s to %s", was, c.nc.ConnectedUrl(), laneWas, lane.ConnectedUrl())
		}
	}
}
