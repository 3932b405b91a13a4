package jetstream

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Service is what a worker tells whoever asks for services, as NATS' own command line and dashboards do.
type Service struct {
	Name      string // letters, digits, - and _, as ID
	ID        string // of the worker
	Version   string // as semver.org says
	Metadata  map[string]string
	Started   time.Time
	Endpoints []Endpoint
}

// Endpoint is one node that a service runs.
type Endpoint struct {
	Name      string // letters, digits, - and _
	Subject   string
	Metadata  map[string]string
	Requests  int64 // tuples that came in
	Errors    int64 // of them dead letters
	LastError string
	Busy      time.Duration // spent on them
}

// Discover answers $SRV.PING, $SRV.INFO and $SRV.STATS, for all services, those of this name, and this one, with what is said at that moment, until stop
// is called. The micro package itself would take requests on subjects of its own and make up ids; what boltmesh's nodes take comes through streams.
func (c *Conn) Discover(is func() Service) (stop func(), err error) {
	s := is()
	var subs []*nats.Subscription
	stop = func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe()
		}
	}
	for verb, say := range map[micro.Verb]func(Service) any{micro.PingVerb: ping, micro.InfoVerb: info, micro.StatsVerb: stats} {
		for _, who := range [][2]string{{"", ""}, {s.Name, ""}, {s.Name, s.ID}} {
			subject, err := micro.ControlSubject(verb, who[0], who[1])
			if err == nil {
				var sub *nats.Subscription
				sub, err = c.nc.Subscribe(subject, func(m *nats.Msg) {
					if answer, err := json.Marshal(say(is())); err == nil { // plain values always encode
						_ = m.Respond(answer) // who has asked may be gone
					}
				})
				subs = append(subs, sub)
			}
			if err != nil {
				stop()
				return nil, fmt.Errorf("answer discovery: %w", err)
			}
		}
	}
	return stop, nil
}

func (s Service) identity() micro.ServiceIdentity {
	return micro.ServiceIdentity{Name: s.Name, ID: s.ID, Version: s.Version, Metadata: s.Metadata}
}

func ping(s Service) any {
	return micro.Ping{ServiceIdentity: s.identity(), Type: micro.PingResponseType}
}

func info(s Service) any {
	i := micro.Info{ServiceIdentity: s.identity(), Type: micro.InfoResponseType, Description: "a worker of boltmesh", Endpoints: []micro.EndpointInfo{}}
	for _, e := range s.Endpoints {
		i.Endpoints = append(i.Endpoints, micro.EndpointInfo{Name: e.Name, Subject: e.Subject, Metadata: e.Metadata})
	}
	return i
}

func stats(s Service) any {
	st := micro.Stats{ServiceIdentity: s.identity(), Type: micro.StatsResponseType, Started: s.Started.UTC(), Endpoints: []*micro.EndpointStats{}}
	for _, e := range s.Endpoints {
		one := &micro.EndpointStats{
			Name: e.Name, Subject: e.Subject, NumRequests: int(e.Requests), NumErrors: int(e.Errors), LastError: e.LastError, ProcessingTime: e.Busy,
		}
		if e.Requests > 0 {
			one.AverageProcessingTime = e.Busy / time.Duration(e.Requests)
		}
		one.Data, _ = json.Marshal(e.Metadata) // plain values always encode
		st.Endpoints = append(st.Endpoints, one)
	}
	return st
}
